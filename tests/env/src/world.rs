//! What the scenarios of one test binary share: one control plane with our kinds, one MLflow server, one Python process.
//! No operator: each scenario says how its own is installed.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::cache::Cache;
use crate::control_plane::{ControlPlane, ControlPlaneOptions};
use crate::error::Result;
use crate::mlflow::{Mlflow, MlflowOptions};
use crate::operator::{Operator, OperatorOptions, install_definitions};
use crate::python::MlflowVersion;
use crate::registrar::{Client, Registrar};
use crate::scenario::Scenario;
use crate::tools::Tools;

/// What the scenarios of one test binary share.
pub struct World {
    /// The programs.
    pub tools: Tools,
    /// The control plane, with our kinds installed.
    pub control_plane: Arc<ControlPlane>,
    operator_binary: PathBuf,
    mlflow: OnceCell<Mlflow>,
}

impl World {
    /// Starts the control plane and installs the chart's definitions of kinds; `operator_binary` is what [`World::operator`] runs.
    pub async fn start(operator_binary: impl Into<PathBuf>) -> Result<Self> {
        let tools = tokio::task::block_in_place(|| Tools::locate(&Cache::open()?))?;
        let control_plane = Arc::new(ControlPlane::start(&tools, ControlPlaneOptions::default()).await?);
        install_definitions(&control_plane, &tools).await?;
        Ok(Self { tools, control_plane, operator_binary: operator_binary.into(), mlflow: OnceCell::new() })
    }

    /// The MLflow 3 server that scenarios share, started at the first call. One that is to be stopped is a scenario's own, see [`Mlflow::start`].
    pub async fn mlflow(&self) -> Result<&Mlflow> {
        self.mlflow.get_or_try_init(|| Mlflow::start(MlflowVersion::Three, MlflowOptions::default())).await
    }

    /// MLflow's own Python client, speaking to the shared server.
    pub async fn registrar(&self) -> Result<Client> {
        let url = self.mlflow().await?.url();
        Ok(Registrar::shared(MlflowVersion::Three).await?.at(&url))
    }

    /// A namespace of its own for one story.
    pub async fn scenario(&self, name: &str) -> Result<Scenario> {
        Scenario::start(&self.control_plane, name).await
    }

    /// An operator that watches only this scenario's namespace, installed as the chart says; its log is in the account of a failure.
    pub async fn operator(&self, scenario: &Scenario) -> Result<Operator> {
        self.operator_with(scenario, |_| {}).await
    }

    /// The same with other options, such as an interceptor before the API server.
    pub async fn operator_with(
        &self,
        scenario: &Scenario,
        change: impl FnOnce(&mut OperatorOptions),
    ) -> Result<Operator> {
        let release = format!("op-{}", scenario.namespace().trim_start_matches("t-"));
        // Labels, and so releases, hold 63 characters.
        let mut options = OperatorOptions::watching(
            &self.operator_binary,
            release.get(..50).unwrap_or(&release),
            &[scenario.namespace()],
        );
        change(&mut options);
        scenario.report_log(&self.control_plane.folder().join(format!("{}.log", options.release)));
        Operator::start(&self.control_plane, &self.tools, &options).await
    }
}
