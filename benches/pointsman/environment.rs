//! The environment of a measurement: a control plane, MLflow 3, and the release build; with the manifests of its objects.
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
    ControlPlane, ControlPlaneOptions, Operator, OperatorOptions, TestNamespace, Tools, Workload,
    kinds,
};
use serde_json::{Value, json};

/// How long one object may take to reach a state.
pub const TIMEOUT: Duration = Duration::from_secs(120);
/// Sources in a store that neither the operator nor MLflow can read, so that both give up at once. (Without its S3 library MLflow
/// spends more processor time on the error than a server with the library spends on the file.)
pub const SOURCE: &str = "oci://models.example/{name}:{version}";
const CONCURRENT_APPLIES: usize = 16;

pub struct Environment {
    pub tools: Tools,
    pub control_plane: Arc<ControlPlane>,
    pub mlflow: Mlflow,
    /// MLflow's own client.
    pub registrar: Client,
}

impl Environment {
    pub async fn start() -> Self {
        Self::with(ControlPlaneOptions::default()).await
    }

    /// For thousands of Deployments: without rate limits in the control plane.
    pub async fn at_scale() -> Self {
        Self::with(ControlPlaneOptions::at_scale()).await
    }

    async fn with(options: ControlPlaneOptions) -> Self {
        let task = Task::start("control plane and MLflow", 0);
        let tools = Tools::locate(&Cache::open().unwrap()).unwrap();
        let control_plane = ControlPlane::start(&tools, options).await.unwrap();
        install_definitions(&control_plane, &tools).await.unwrap();
        let version = MlflowVersion::Three;
        let mlflow = Mlflow::start(version, MlflowOptions::default())
            .await
            .unwrap();
        let registrar = Registrar::shared(version).await.unwrap().at(&mlflow.url());
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
        let task = Task::start(&format!("{count} models registered"), 0);
        self.registrar
            .seed_versions_from(&self.mlflow.database(), prefix, 0..count, 2, SOURCE)
            .await
            .unwrap();
        task.done();
    }

    pub async fn namespace(&self, name: &str) -> TestNamespace {
        TestNamespace::start(&self.control_plane, name)
            .await
            .unwrap()
    }

    /// The release build under the chart's RBAC, watching this namespace; without `api`, a proxy before the API server, it finds
    /// the API server as in a pod.
    pub async fn operator(
        &self,
        namespace: &TestNamespace,
        release: &str,
        api: Option<String>,
    ) -> Operator {
        self.operator_with(namespace, release, api, json!({})).await
    }

    /// The same with these values of the chart.
    pub async fn operator_with(
        &self,
        namespace: &TestNamespace,
        release: &str,
        api: Option<String>,
        values: Value,
    ) -> Operator {
        let namespaces = [namespace.namespace()];
        let mut options = OperatorOptions::watching(release_build(), release, &namespaces);
        options.in_pod = api.is_none();
        options.kube_api = api;
        options.values = values;
        let mut operator = Operator::start_unready(&self.control_plane, &self.tools, &options)
            .await
            .unwrap();
        operator.await_ready_within(TIMEOUT).await.unwrap();
        operator
    }
}

/// The binary of `release/program.sh`, in the target folder of this benchmark, or that of `POINTSMAN_BENCH_BINARY`.
pub fn release_build() -> PathBuf {
    if let Some(binary) = std::env::var_os("POINTSMAN_BENCH_BINARY") {
        return PathBuf::from(binary);
    }
    let target = Path::new(env!("CARGO_BIN_EXE_pointsman"))
        .ancestors()
        .nth(2)
        .expect("a binary is in target/<profile>");
    let binary = target.join("release").join("pointsman");
    let exists = binary.exists();
    assert!(
        exists,
        "there is no release build: run release/program.sh first, or make bench"
    );
    binary
}

pub fn registry(url: &str, interval: &str) -> Value {
    let spec = json!({"mlflow": {"uri": url}, "interval": interval});
    object("ModelRegistry", "mlflow", &spec)
}

pub fn model(name: &str) -> Value {
    let spec = json!({"registryRef": {"name": "mlflow"}, "creationPolicy": "Observe"});
    object("RegisteredModel", name, &spec)
}

/// Binds `champion` of the model to the Deployment of the same name, without baking.
pub fn binding(name: &str) -> Value {
    let spec = json!({
        "modelRef": {"name": name},
        "alias": "champion",
        "targetRef": {"name": name},
        "rollback": {"bakeSeconds": 0},
    });
    object("AliasBinding", name, &spec)
}

/// Binds `champion` of the model to a Deployment that the binding creates and owns, without baking.
pub fn owning_binding(name: &str) -> Value {
    let spec = json!({
        "modelRef": {"name": name},
        "alias": "champion",
        "template": {"spec": deployment(name)["spec"]},
        "rollback": {"bakeSeconds": 0},
    });
    object("AliasBinding", name, &spec)
}

/// A Deployment with one pod.
pub fn deployment(name: &str) -> Value {
    Workload {
        replicas: 1,
        ..Workload::deployment(name)
    }
    .manifest()
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "pointsman.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}

pub async fn apply(namespace: &TestNamespace, objects: impl IntoIterator<Item = Value>) {
    let applied = stream::iter(objects)
        .map(|object| async move { namespace.apply_object(&object).await.unwrap() });
    applied
        .buffer_unordered(CONCURRENT_APPLIES)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// Waits until the status of the binding says that this version runs and is ready.
pub async fn wait_until_runs(namespace: &TestNamespace, binding: &str, version: &str) {
    let runs =
        |binding: &Value| binding["status"]["running"]["version"] == version && is_ready(binding);
    let what = format!("version {version} runs");
    namespace
        .eventually(&what, TIMEOUT, &kinds::ALIAS_BINDING, binding, runs)
        .await;
}

pub fn is_ready(object: &Value) -> bool {
    has_condition(object, |condition| {
        condition["type"] == "Ready" && condition["status"] == "True"
    })
}

pub fn has_condition(object: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| conditions.iter().any(holds))
}
