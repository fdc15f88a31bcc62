//! What is measured on: a control plane, MLflow 3, and stages on which the release build drives Deployments.
//!
//! Absent: figures.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use pointsman_env::cache::Cache;
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::operator::install_definitions;
use pointsman_env::progress::Task;
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{Client, Registrar};
use pointsman_env::{
    ControlPlane, ControlPlaneOptions, Operator, OperatorOptions, PlainDeployment,
    TestNamespace as Place, Tools, kinds,
};
use serde_json::{Value, json};

/// How long a binding may take to say that a version runs.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How many objects are applied side by side.
const SIDE_BY_SIDE: usize = 16;

pub struct Ground {
    pub tools: Tools,
    pub control_plane: Arc<ControlPlane>,
    pub mlflow: Mlflow,
    /// MLflow's own client.
    pub registrar: Client,
}

impl Ground {
    pub async fn start() -> Self {
        Self::with(ControlPlaneOptions::default()).await
    }

    /// For thousands of Deployments; each such measurement has one of its own, and leaves thousands of objects in it.
    pub async fn at_scale() -> Self {
        Self::with(ControlPlaneOptions::at_scale()).await
    }

    async fn with(options: ControlPlaneOptions) -> Self {
        let task = Task::start("control plane and MLflow", 0);
        let tools = Tools::locate(&Cache::open().unwrap()).unwrap();
        let control_plane = ControlPlane::start(&tools, options).await.unwrap();
        install_definitions(&control_plane, &tools).await.unwrap();
        let mlflow = Mlflow::start(MlflowVersion::Three, MlflowOptions::default())
            .await
            .unwrap();
        let registrar = Registrar::shared(MlflowVersion::Three)
            .await
            .unwrap()
            .at(&mlflow.url());
        task.done();
        Self {
            tools,
            control_plane: Arc::new(control_plane),
            mlflow,
            registrar,
        }
    }

    pub async fn end(mut self) {
        self.mlflow.stop().await;
    }

    /// Registers `<prefix>-00000` and so on, each with two versions and `champion` on the first.
    pub async fn register(&self, prefix: &str, count: usize) {
        self.registrar
            .seed(&self.mlflow.database(), prefix, count)
            .await
            .unwrap();
    }

    pub async fn namespace(&self, name: &str) -> Place {
        Place::start(&self.control_plane, name).await.unwrap()
    }

    /// The release build under the chart's roles, watching this namespace; at the API server itself or at a proxy.
    pub async fn operator(&self, place: &Place, release: &str, api: Option<String>) -> Operator {
        let mut options = OperatorOptions::watching(release_build(), release, &[place.namespace()]);
        options.kube_api = api;
        let mut operator = Operator::start_unready(&self.control_plane, &self.tools, &options)
            .await
            .unwrap();
        operator.await_ready_within(PATIENCE).await.unwrap();
        operator
    }
}

/// The binary that `cargo build --release` made, beside the profile's folder that this measurement itself was built into;
/// or the one that `POINTSMAN_BENCH_BINARY` names, to compare builds.
pub fn release_build() -> PathBuf {
    if let Some(binary) = std::env::var_os("POINTSMAN_BENCH_BINARY") {
        return PathBuf::from(binary);
    }
    let target = Path::new(env!("CARGO_BIN_EXE_pointsman"))
        .ancestors()
        .nth(2)
        .expect("a binary is in target/<profile>");
    let binary = target.join("release").join("pointsman");
    assert!(
        binary.exists(),
        "there is no release build; run cargo build --release first, or make bench"
    );
    binary
}

pub fn registry(url: &str, interval: &str) -> Value {
    object(
        "ModelRegistry",
        "mlflow",
        &json!({"mlflow": {"uri": url}, "interval": interval}),
    )
}

pub fn model(name: &str) -> Value {
    object(
        "RegisteredModel",
        name,
        &json!({"registryRef": {"name": "mlflow"}, "creationPolicy": "Observe"}),
    )
}

/// Binds `champion` of the model to the Deployment of the same name, and has no version bake.
pub fn binding(name: &str) -> Value {
    let spec = json!({"modelRef": {"name": name}, "alias": "champion", "targetRef": {"name": name}, "rollback": {"bakeSeconds": 0}});
    object("AliasBinding", name, &spec)
}

pub fn deployment(name: &str) -> Value {
    PlainDeployment {
        replicas: 1,
        ..PlainDeployment::named(name)
    }
    .manifest()
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub async fn apply(place: &Place, objects: impl IntoIterator<Item = Value>) {
    let applied = stream::iter(objects)
        .map(|object| async move { place.apply_object(&object).await.unwrap() });
    applied
        .buffer_unordered(SIDE_BY_SIDE)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// Waits until the binding says that this version runs and is well.
pub async fn runs(place: &Place, binding: &str, version: &str) {
    let holds =
        |binding: &Value| binding["status"]["running"]["version"] == version && is_ready(binding);
    place
        .eventually(
            &format!("version {version} runs"),
            PATIENCE,
            &kinds::ALIAS_BINDING,
            binding,
            holds,
        )
        .await;
}

pub fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    conditions
        .into_iter()
        .any(|each| each["type"] == "Ready" && each["status"] == "True")
}
