//! Registries that send what no MLflow server sends: none of them takes the memory that all registries share.
//!
//! Absent: faults that a proxy can inject into the responses of a real server.

use std::sync::Arc;

use pointsman_env::hostile::{HostileRegistry, MODEL, RESPONSES, Response};
use pointsman_env::kinds::{MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::resources;
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, ScenarioResult, ready_message, ready_reason, scenarios,
};

scenarios!(hostile_registries_take_little_memory_and_each_is_named_on_its_own_object);

/// More than all responses together may take. A response that is read whole would take ten times as much.
const MOST_GROWTH: u64 = 75_000_000;
/// Registries of each kind.
const EACH: usize = 2;

/// Declares a registry and a model of it, both of this name.
async fn declare(fixture: &Fixture, name: &str, url: &str) {
    let spec = json!({"mlflow": {"uri": url}, "interval": "1s"});
    let registry = resources::object(&MODEL_REGISTRY, name, &spec);
    fixture.apply_object(registry).await;
    let spec =
        json!({"registryRef": {"name": name}, "modelName": MODEL, "creationPolicy": "Observe"});
    let model = resources::object(&REGISTERED_MODEL, name, &spec);
    fixture.apply_object(model).await;
}

async fn start_all(fixture: &Fixture) -> Vec<(String, Response, HostileRegistry)> {
    let mut registries = Vec::new();
    for (number, response) in RESPONSES.repeat(EACH).into_iter().enumerate() {
        let registry = HostileRegistry::start(response).await.unwrap();
        let name = format!("hostile-{number}");
        declare(fixture, &name, &registry.url()).await;
        registries.push((name, response, registry));
    }
    registries
}

async fn hostile_registries_take_little_memory_and_each_is_named_on_its_own_object(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "hostile registries").await;
    fixture.serve_version_1().await;
    let before = fixture.operator.peak_resident_bytes().unwrap();
    let registries = start_all(&fixture).await;
    for (name, response, registry) in &registries {
        let wanted = if response.is_refused() {
            "RegistryAnswerInvalid"
        } else {
            "Reachable"
        };
        let holds = |object: &Value| ready_reason(object) == wanted;
        let description = format!("{name} ({response:?}) says {wanted}");
        let object = fixture
            .eventually(&description, &MODEL_REGISTRY, name, holds)
            .await;
        let message = ready_message(&object);
        assert!(message.chars().count() <= 200, "{message}");
        assert!(
            !response.is_refused() || message.contains(&registry.url()),
            "{message}"
        );
    }
    // All others go on as before.
    fixture.registry_reports("Reachable").await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let peak = fixture.operator.peak_resident_bytes().unwrap();
    assert!(
        peak < before + MOST_GROWTH,
        "{before} bytes before, {peak} at most"
    );
    fixture.end().await
}
