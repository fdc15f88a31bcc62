//! Forty registries that send small JSON which becomes large structs, beside one MLflow: memory, and the moves of that one.
//!
//! Absent: other faults of a registry; the scenarios have them.

use std::time::{Duration, Instant};

use pointsman_env::TestNamespace;
use pointsman_env::hostile::{HostileRegistry, MODEL, RESPONSES, Response};
use pointsman_env::kinds::{MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::progress::Task;
use pointsman_env::resources::object;
use serde_json::json;

use crate::durations::{Durations, Unit, megabytes};
use crate::environment::{Environment, apply};
use crate::moves::{MoveFixture, alternating_version};
use crate::report::Measurement;

pub const REGISTRIES: usize = 40;
const GOAL: u64 = 100_000_000;
/// Between two moves.
const PAUSE: Duration = Duration::from_secs(2);

/// Measures for this time.
pub async fn measure(environment: &Environment, duration: Duration) -> Vec<Measurement> {
    let mut fixture = MoveFixture::start(environment, "hostile", "1s").await;
    let before = fixture.operator.resident_bytes().unwrap();
    let registries = start_registries(&fixture.namespace, &RESPONSES).await;
    let task = Task::start("moves beside hostile registries", 0);
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < duration {
        let version = alternating_version(times.len());
        let started = Instant::now();
        fixture.move_alias(environment, version).await;
        times.push(fixture.deployment.wait_for_version(version).await - started);
        tokio::time::sleep(PAUSE).await;
    }
    task.done();
    let requests: usize = registries.iter().map(HostileRegistry::requests).sum();
    let peak = fixture.operator.peak_resident_bytes().unwrap();
    fixture.end().await;
    assert!(requests >= REGISTRIES, "{requests} requests were answered");
    let times = Durations::of(times);
    vec![
        Measurement::new(
            format!("{REGISTRIES} hostile registries: highest resident memory"),
            megabytes(peak),
        )
        .with_goal("≤ 100 MB", peak <= GOAL),
        Measurement::new("resident memory before them", megabytes(before)),
        Measurement::new("their responses", requests.to_string()),
        Measurement::new(
            format!("{REGISTRIES} hostile registries: alias moved elsewhere → Deployment patched, interval 1 s"),
            times.max_figure(Unit::Seconds),
        )
        .documented()
        .of_runs(times.count()),
    ]
}

/// Starts registries of these kinds in turn, each with an object and a model of it.
pub async fn start_registries(
    namespace: &TestNamespace,
    responses: &[Response],
) -> Vec<HostileRegistry> {
    let (mut registries, mut objects) = (Vec::new(), Vec::new());
    for (number, response) in responses.iter().cycle().take(REGISTRIES).enumerate() {
        let registry = HostileRegistry::start(*response).await.unwrap();
        let name = format!("hostile-{number}");
        let server = json!({"mlflow": {"uri": registry.url()}, "interval": "1s"});
        let model =
            json!({"registryRef": {"name": name}, "modelName": MODEL, "creationPolicy": "Observe"});
        objects.push(object(&MODEL_REGISTRY, &name, &server));
        objects.push(object(&REGISTERED_MODEL, &name, &model));
        registries.push(registry);
    }
    apply(namespace, objects).await;
    registries
}
