//! Everything in one Application on a cluster that has nothing: definitions, registry, model, workload and binding in sync waves.
//!
//! Absent: the operator's own installation; its process waits for the definitions.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_env::chart::RenderedChart;
use pointsman_env::gitops::argocd::ArgoCd;
use pointsman_env::kinds::{ALIAS_BINDING, MODEL_REGISTRY};
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::Registrar;
use pointsman_env::resources;
use pointsman_env::{
    ControlPlane, ControlPlaneOptions, Operator, OperatorOptions, TestNamespace, Workload,
};
use serde_json::{Value, json};

use crate::application::{Mode, manifest};
use crate::fixture::{PATIENCE, ScenarioResult, binary, condition};
use crate::world::{World, tests};

tests!(an_application_brings_definitions_registry_model_and_binding_in_sync_waves);

const NAME: &str = "waves";
/// Argo CD learns the kinds of a new cluster first.
const LONG: Duration = PATIENCE.saturating_mul(2);

async fn an_application_brings_definitions_registry_model_and_binding_in_sync_waves(
    world: Arc<World>,
) -> ScenarioResult {
    let argocd = world.argocd().await;
    let tools = &world.environment.cluster().await.tools;
    let options = ControlPlaneOptions::default();
    let fresh = Arc::new(ControlPlane::start(tools, options).await.unwrap());
    let token = ArgoCd::token_for(&fresh).await.unwrap();
    argocd.add_cluster(NAME, &fresh, &token).await.unwrap();
    let url = world.environment.mlflow(MlflowVersion::Three).await;
    register(NAME, &url).await;
    let namespace = TestNamespace::start(&fresh, NAME).await.unwrap();
    namespace.report_log(argocd.log());
    let options = OperatorOptions::watching(binary(), NAME, &[namespace.namespace()]);
    let mut operator = Operator::start_unready(&fresh, tools, &options)
        .await
        .unwrap();
    namespace.report_log(Path::new(&operator.log_file()));

    let repository = world.repository(NAME).await;
    let objects = waves(&world, &url).await;
    repository.commit(&objects, "everything").await.unwrap();
    let destination = json!({"server": fresh.apiserver_url(), "namespace": namespace.namespace()});
    let application = manifest(NAME, &repository, &destination, &Mode::client_side());
    argocd.apply(&application).await.unwrap();
    let runs = |binding: &Value| {
        binding["status"]["running"]["version"] == "1"
            && condition(binding, "Ready")["status"] == "True"
    };
    let binding = namespace
        .eventually("version 1 runs", LONG, &ALIAS_BINDING, "binding", runs)
        .await;
    came_after_the_registry(&binding, &namespace).await;
    operator.await_ready().await.unwrap();
    argocd
        .eventually(NAME, "it is synced and healthy", PATIENCE, |application| {
            application["status"]["sync"]["status"] == "Synced"
                && application["status"]["health"]["status"] == "Healthy"
        })
        .await
        .map_err(|error| error.to_string())?;
    argocd.delete(NAME).await.unwrap();
    operator.stop().unwrap();
    Ok(())
}

/// Registers a model with one version, which is the champion, at the shared MLflow.
pub async fn register(model: &str, url: &str) {
    let registrar = Registrar::shared(MlflowVersion::Three).await.unwrap();
    let client = registrar.at(url);
    client.create_registered_model(model).await.unwrap();
    let source = format!("s3://models/{model}/1");
    client.create_model_version(model, &source).await.unwrap();
    client.set_alias(model, "champion", "1").await.unwrap();
}

/// Argo CD waited until the registry had answered before it created the binding.
async fn came_after_the_registry(binding: &Value, namespace: &TestNamespace) {
    let registry = namespace.get(&MODEL_REGISTRY, resources::REGISTRY).await;
    let registry = registry.unwrap();
    let answered = condition(&registry, "Ready")["lastTransitionTime"].as_str();
    let created = binding["metadata"]["creationTimestamp"].as_str();
    assert!(answered <= created, "{answered:?}, {created:?}");
}

/// The chart's definitions, and an object of each kind in a wave of its own.
async fn waves(world: &World, registry: &str) -> Vec<Value> {
    let tools = &world.environment.cluster().await.tools;
    let values = json!({"crds": {"enabled": true}});
    let chart = RenderedChart::render(tools, NAME, "default", &values)
        .await
        .unwrap();
    let definitions = chart.of_kind("CustomResourceDefinition").cloned();
    let mut objects: Vec<Value> = definitions.map(|each| in_wave(each, 0)).collect();
    objects.extend([
        in_wave(resources::model_registry(registry), 1),
        in_wave(resources::registered_model("model", NAME), 2),
        in_wave(Workload::deployment("server").manifest(), 2),
        in_wave(resources::alias_binding("binding", "model", "server"), 3),
    ]);
    objects
}

fn in_wave(mut object: Value, wave: u8) -> Value {
    object["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] = json!(wave.to_string());
    object
}
