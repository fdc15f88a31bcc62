//! From the operator and chart of another commit to those of this one, and back, by the real Helm and under live bindings.
//!
//! `POINTSMAN_PREVIOUS` is a checkout of that commit with a build in target/debug; `make upgrade` makes it. Without it the scenario
//! says so and passes.
//!
//! Absent: the operator's pod. Its process runs in the place of the one that kwok plays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman_env::cache::Cache;
use pointsman_env::chart::{RenderedChart, chart_folder};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT};
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{Client, Registrar};
use pointsman_env::resources::{self, with_spec};
use pointsman_env::{
    ControlPlane, ControlPlaneOptions, Operator, OperatorOptions, TestNamespace, Tools, Workload,
};
use serde_json::{Value, json};

use crate::fixture::{Environment, PATIENCE, ScenarioResult, binary, ready_reason, scenarios};

scenarios!(an_upgrade_and_the_way_back_replace_no_pod_and_lose_nothing);

const RELEASE: &str = "pointsman";
const MODEL: &str = "upgraded";
/// A binding whose alias moves under each operator.
const MOVED: &str = "moved";
/// A binding whose version was rolled back.
const ROLLED_BACK: &str = "rolled-back";
/// A binding with a template.
const OWNED: &str = "owned";

async fn an_upgrade_and_the_way_back_replace_no_pod_and_lose_nothing(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let Some(previous) = std::env::var_os("POINTSMAN_PREVIOUS").map(PathBuf::from) else {
        eprintln!("  skipped: POINTSMAN_PREVIOUS names no checkout; make upgrade makes one");
        return Ok(());
    };
    let cluster = Cluster::start(&environment).await;
    let chart = previous.join("charts/pointsman");
    cluster.helm_install(&["install"], &chart).await;
    let old = cluster
        .operator(&chart, &previous.join("target/debug/pointsman"))
        .await;
    cluster.declare().await;
    let before = cluster.state().await;
    stop(old);
    cluster.helm_install(&["upgrade"], &chart_folder()).await;
    let new = cluster.operator(&chart_folder(), &binary()).await;
    cluster.moves_only_the_moved("3", &before).await;
    // A field that the earlier definitions do not have.
    let gates =
        json!({"spec": {"promotion": {"gates": [{"name": "sane", "expression": "1 < 2"}]}}});
    cluster
        .namespace
        .patch(&ALIAS_BINDING, MOVED, &gates)
        .await
        .unwrap();
    let after = cluster.state().await;
    stop(new);
    cluster.helm(&["rollback", RELEASE, "1"]).await;
    let old = cluster
        .operator(&chart, &previous.join("target/debug/pointsman"))
        .await;
    cluster.moves_only_the_moved("2", &after).await;
    stop(old);
    cluster
        .namespace
        .end()
        .await
        .map_err(|error| error.to_string())
}

fn stop(mut operator: Operator) {
    let status = operator.stop().unwrap();
    assert!(status.success(), "{status}\n{}", operator.log_tail(40));
}

/// Generation of the Deployment, and number of history entries, of each binding.
type State = Vec<(&'static str, i64, usize)>;

/// A cluster of its own, because the definitions change, with the namespace of the bindings.
struct Cluster {
    namespace: TestNamespace,
    control_plane: Arc<ControlPlane>,
    tools: Tools,
    client: Client,
    mlflow: String,
}

impl Cluster {
    async fn start(environment: &Environment) -> Self {
        let tools = Tools::locate(&Cache::open().unwrap()).unwrap();
        let options = ControlPlaneOptions::default();
        let control_plane = Arc::new(ControlPlane::start(&tools, options).await.unwrap());
        let namespace = TestNamespace::start(&control_plane, "upgrade")
            .await
            .unwrap();
        let mlflow = environment.mlflow(MlflowVersion::Three).await;
        let registrar = Registrar::shared(MlflowVersion::Three).await.unwrap();
        Self {
            client: registrar.at(&mlflow),
            namespace,
            control_plane,
            tools,
            mlflow,
        }
    }

    async fn helm(&self, arguments: &[&str]) {
        let output = tokio::process::Command::new(&self.tools.helm)
            .args(arguments)
            .args(["--namespace", self.namespace.namespace()])
            .env("KUBECONFIG", self.control_plane.admin_kubeconfig())
            .output()
            .await
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "helm {arguments:?}: {error}");
    }

    async fn helm_install(&self, command: &[&str], chart: &Path) {
        let chart = chart.display().to_string();
        let watched = format!("watchNamespaces={{{}}}", self.namespace.namespace());
        let arguments = [RELEASE, &chart, "--set", &watched];
        self.helm(&[command, &arguments].concat()).await;
    }

    /// This binary with the rights and arguments of this chart.
    async fn operator(&self, chart: &Path, binary: &Path) -> Operator {
        let own = self.namespace.namespace();
        let values = json!({"watchNamespaces": [own]});
        let chart = RenderedChart::render_from(chart, &self.tools, RELEASE, own, &values)
            .await
            .unwrap();
        let token = self.control_plane.service_account_token(own, RELEASE).await;
        let server = self.control_plane.apiserver_url();
        let kubeconfig = self
            .control_plane
            .kubeconfig_with_token("operator.kubeconfig", server, &token.unwrap())
            .unwrap();
        let mut options = OperatorOptions::watching(binary, RELEASE, &[own]);
        own.clone_into(&mut options.namespace);
        let folder = self.control_plane.folder();
        let mut operator = Operator::in_place_of(&chart, kubeconfig, folder, &options).unwrap();
        operator.await_ready().await.unwrap();
        self.namespace.report_log(&operator.log_file());
        operator
    }

    /// Three bindings, each after a move: live, owned and live, and rolled back.
    async fn declare(&self) {
        for model in [MOVED, OWNED, ROLLED_BACK] {
            let name = model_name(model);
            self.client.create_registered_model(&name).await.unwrap();
            for number in 1..=3 {
                let source = format!("s3://models/{name}/{number}");
                self.client
                    .create_model_version(&name, &source)
                    .await
                    .unwrap();
            }
            self.client.set_alias(&name, "champion", "1").await.unwrap();
        }
        self.apply(resources::model_registry(&self.mlflow)).await;
        for name in [MOVED, OWNED, ROLLED_BACK] {
            self.apply(resources::registered_model(name, &model_name(name)))
                .await;
        }
        for name in [MOVED, ROLLED_BACK] {
            let deployment = Workload::deployment(name).with_behavior("2=crash");
            let plain = Workload::deployment(name);
            let workload = if name == MOVED { plain } else { deployment };
            self.apply(workload.manifest()).await;
            self.apply(resources::alias_binding(name, name, name)).await;
        }
        let spec = Workload::deployment(OWNED).manifest()["spec"].clone();
        let template = json!({"targetRef": null, "template": {"spec": spec}});
        let owned = resources::alias_binding(OWNED, OWNED, OWNED);
        self.apply(with_spec(owned, template)).await;
        for name in [MOVED, OWNED, ROLLED_BACK] {
            self.reports(name, "1", "Live").await;
            let model = model_name(name);
            self.client
                .set_alias(&model, "champion", "2")
                .await
                .unwrap();
        }
        self.reports(MOVED, "2", "Live").await;
        self.reports(OWNED, "2", "Live").await;
        self.reports(ROLLED_BACK, "1", "RolledBack").await;
    }

    async fn apply(&self, object: Value) {
        self.namespace.apply_object(&object).await.unwrap();
    }

    async fn reports(&self, binding: &str, version: &str, reason: &str) {
        let holds = |object: &Value| {
            object["status"]["running"]["version"] == version && ready_reason(object) == reason
        };
        let what = format!("{binding} runs {version} and reports {reason}");
        self.namespace
            .eventually(&what, PATIENCE, &ALIAS_BINDING, binding, holds)
            .await;
    }

    async fn state(&self) -> State {
        let mut state = State::new();
        for name in [MOVED, OWNED, ROLLED_BACK] {
            let binding = self.namespace.get(&ALIAS_BINDING, name).await.unwrap();
            let deployment = self.namespace.get(&DEPLOYMENT, name).await.unwrap();
            let history = binding["status"]["history"].as_array().unwrap().len();
            let generation = deployment["metadata"]["generation"].as_i64().unwrap();
            state.push((name, generation, history));
        }
        state
    }

    /// Moves one alias; its Deployment changes once, and no other.
    async fn moves_only_the_moved(&self, version: &str, before: &State) {
        let model = model_name(MOVED);
        self.client
            .set_alias(&model, "champion", version)
            .await
            .unwrap();
        self.reports(MOVED, version, "Live").await;
        self.reports(OWNED, "2", "Live").await;
        self.reports(ROLLED_BACK, "1", "RolledBack").await;
        let mut expected = before.clone();
        let moved = &mut expected[0];
        (moved.1, moved.2) = (moved.1 + 1, moved.2 + 1);
        assert_eq!(
            self.state().await,
            expected,
            "{}",
            self.namespace.report().await
        );
    }
}

fn model_name(binding: &str) -> String {
    format!("{MODEL}-{binding}")
}
