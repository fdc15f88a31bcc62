//! Outages of the API server, and namespaces that are gone.
//!
//! Absent: refusals of single writes (`refusals`), and an operator that is gone before its objects (`uninstall`).

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::TestNamespace;
use pointsman_env::interceptor::{Fault, matching};
use pointsman_env::kinds::{DEPLOYMENT, MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::resources::{self, with_spec};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, ready_reason, scenarios, template_version,
};
use crate::process::{ends, leads, two_replicas};

scenarios!(
    a_move_made_while_the_api_server_answers_503_is_carried_out_after_it,
    a_move_made_while_the_api_server_accepts_and_never_answers_is_carried_out_after_it,
    an_operator_is_ready_although_one_of_its_namespaces_is_gone,
    a_namespace_with_a_registry_and_models_can_be_deleted,
);

/// Far longer than any wait of a scenario.
const NEVER: Fault = Fault::Slow(Duration::from_secs(3600));

async fn a_move_made_while_the_api_server_answers_503_is_carried_out_after_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "apiserver is shutting down", "code": 503});
    outage(
        &environment,
        "api 503",
        Fault::json(503, status.to_string()),
    )
    .await
}

async fn a_move_made_while_the_api_server_accepts_and_never_answers_is_carried_out_after_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    outage(&environment, "api frozen", NEVER).await
}

/// Two replicas lose the API server for longer than the Lease. The leader ends, and the other replica carries out the move.
async fn outage(environment: &Arc<Environment>, name: &str, fault: Fault) -> ScenarioResult {
    let mut fixture = Fixture::new(environment, name).await;
    fixture.serve_version_1().await;
    let (mut first, second) = two_replicas(&mut fixture, environment).await;
    fixture.api.inject(matching::everything(), fault, None);
    // The watches end too.
    fixture.api.refuse().await;
    fixture.api.accept_again().await.unwrap();
    fixture.alias("2").await;
    ends(&mut first).await;
    assert_eq!(template_version(&fixture.deployment().await), "1");
    fixture.api.clear();
    let is_two = |deployment: &Value| template_version(deployment) == "2";
    fixture
        .eventually("the move is carried out", &DEPLOYMENT, "server", is_two)
        .await;
    leads(&fixture, 2).await;
    let binding = fixture.runs("2").await;
    let history = binding["status"]["history"].as_array().unwrap();
    assert_eq!(history.len(), 2, "nothing was applied twice: {history:?}");
    fixture.operator = second;
    fixture.end().await
}

/// Deletes a namespace and waits until it is gone.
async fn delete(namespace: &TestNamespace) {
    let name = namespace.namespace();
    let arguments = ["delete", "namespace", name, "--timeout=120s"];
    namespace.kubectl(&arguments).await.unwrap();
}

/// Gives the operator every right in a namespace, or with `clusterrolebinding` in all.
async fn grant(fixture: &Fixture, namespace: &TestNamespace, binding: &str) {
    let own = fixture.namespace.namespace();
    let account = format!("--serviceaccount={own}:{own}");
    let role = "--clusterrole=cluster-admin";
    let arguments = ["create", binding, own, role, &account];
    namespace.kubectl(&arguments).await.unwrap();
}

async fn an_operator_is_ready_although_one_of_its_namespaces_is_gone(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let (mut fixture, other) =
        Fixture::beside_another(&environment, "gone own", "gone other").await;
    fixture.serve_version_1().await;
    delete(&other).await;
    fixture.operator.start_again().await.unwrap();
    fixture.alias("2").await;
    fixture.runs("2").await;
    let told = |line: &str| line.contains("forbidden") && line.contains(other.namespace());
    let log = fixture.operator.log();
    assert!(log.lines().any(told), "{}", fixture.operator.log_tail(20));
    // The namespace is back, with the rights in it.
    let create = ["create", "namespace", other.namespace()];
    other.kubectl(&create).await.unwrap();
    grant(&fixture, &other, "rolebinding").await;
    let registry = resources::model_registry(&fixture.registry.url());
    other.apply_object(&registry).await.unwrap();
    let reachable = |registry: &Value| ready_reason(registry) == "Reachable";
    other
        .eventually(
            "it is driven",
            PATIENCE,
            &MODEL_REGISTRY,
            "mlflow",
            reachable,
        )
        .await;
    other.end().await.map_err(|error| error.to_string())?;
    fixture.end().await
}

/// Declares a model that the registry does not have and that goes with its object, in any namespace.
async fn declare_owned_model(fixture: &Fixture, namespace: &TestNamespace) {
    let registry = resources::model_registry(&fixture.registry.url());
    namespace.apply_object(&registry).await.unwrap();
    let model = resources::registered_model("model", &format!("{}-owned", fixture.model));
    let owned = json!({"creationPolicy": "Create", "deletionPolicy": "Delete"});
    namespace
        .apply_object(&with_spec(model, owned))
        .await
        .unwrap();
    let is_held = |model: &Value| {
        model["metadata"]["finalizers"].is_array() && ready_reason(model) == "Mirrored"
    };
    namespace
        .eventually(
            "it has a finalizer",
            PATIENCE,
            &REGISTERED_MODEL,
            "model",
            is_held,
        )
        .await;
}

async fn a_namespace_with_a_registry_and_models_can_be_deleted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let (fixture, other) =
        Fixture::beside_another(&environment, "deleted own", "deleted other").await;
    // The rights of a cluster-wide operator: a Role would be deleted with the namespace.
    grant(&fixture, &other, "clusterrolebinding").await;
    declare_owned_model(&fixture, &other).await;
    delete(&other).await;
    let own = fixture.namespace.namespace();
    let ungrant = ["delete", "clusterrolebinding", own];
    fixture.namespace.kubectl(&ungrant).await.unwrap();
    fixture.end().await
}
