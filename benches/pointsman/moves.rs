//! One alias moved → Deployment patched: found by polling, and on request.
//!
//! Absent: the rollout itself. How long pods take does not depend on the operator.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use pointsman_env::progress::Task;
use pointsman_env::{Operator, TestNamespace, kinds};
use serde_json::json;

use crate::durations::{Durations, Unit};
use crate::environment::{
    Environment, apply, binding, deployment, model, registry, wait_until_runs,
};
use crate::observers::{DeploymentObserver, MARKER, ValueObserver};
use crate::report::Measurement;

const INTERVAL: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(1);
const REQUESTED_GOAL: Duration = Duration::from_millis(100);
const ROLLBACK_GOAL: Duration = Duration::from_millis(100);
/// Between two measurements, so that they do not overlap.
pub const PAUSE: Duration = Duration::from_millis(200);

/// One bound model, settled on version 1, and observers of it and its Deployment.
pub struct MoveFixture {
    pub namespace: TestNamespace,
    pub operator: Operator,
    pub deployment: DeploymentObserver,
    alias: ValueObserver,
    name: String,
}

impl MoveFixture {
    pub async fn start(environment: &Environment, prefix: &str, interval: &str) -> Self {
        environment.register(prefix, 1).await;
        let namespace = environment.namespace(prefix).await;
        let operator = environment.operator(&namespace, prefix, None).await;
        let name = format!("{prefix}-00000");
        let objects = [
            registry(&environment.mlflow.url(), interval),
            model(&name),
            deployment(&name),
            binding(&name),
        ];
        apply(&namespace, objects).await;
        wait_until_runs(&namespace, &name, "1").await;
        let deployment = DeploymentObserver::new(&namespace, &name);
        let alias = ValueObserver::of_alias(&namespace, &name);
        Self {
            namespace,
            operator,
            deployment,
            alias,
            name,
        }
    }

    pub async fn move_alias(&self, environment: &Environment, version: &str) {
        environment
            .registrar
            .set_alias(&self.name, "champion", version)
            .await
            .unwrap();
    }

    /// From sending the annotation to the Deployment seen patched.
    async fn request_poll(&mut self, version: &str, request: usize) -> Duration {
        let annotations = json!({"pointsman.dev/requested-at": request.to_string()});
        let patch = json!({"metadata": {"annotations": annotations}});
        let sent = Instant::now();
        self.namespace
            .patch(&kinds::REGISTERED_MODEL, &self.name, &patch)
            .await
            .unwrap();
        self.deployment.wait_for_version(version).await - sent
    }

    pub async fn end(mut self) {
        self.operator.stop().unwrap();
        self.namespace.end().await.unwrap();
    }
}

/// From sending a plain client's own patch of a Deployment to the change seen.
pub async fn bare_patch(
    namespace: &TestNamespace,
    name: &str,
    deployment: &mut DeploymentObserver,
    number: usize,
) -> Duration {
    let marker = number.to_string();
    let metadata = json!({"name": name, "annotations": {MARKER: marker}});
    let patch = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata});
    let deployments = namespace.api(&kinds::DEPLOYMENT);
    let parameters = PatchParams::apply("bench").force();
    let sent = Instant::now();
    deployments
        .patch(name, &parameters, &Patch::Apply(patch))
        .await
        .unwrap();
    deployment.wait_for_marker(&marker).await - sent
}

/// Moves at random moments, found by the registry's poll.
pub async fn measure_polled(environment: &Environment, moves: usize) -> Vec<Measurement> {
    let mut fixture = MoveFixture::start(environment, "polled", "5s").await;
    let task = Task::start(&format!("{moves} moves found by polling"), moves as u64);
    let mut times = Vec::new();
    for number in 0..moves {
        tokio::time::sleep(random_part_of(INTERVAL)).await;
        let version = alternating_version(number);
        let started = Instant::now();
        fixture.move_alias(environment, version).await;
        times.push(fixture.deployment.wait_for_version(version).await - started);
        task.advance();
    }
    task.done();
    fixture.end().await;
    let times = Durations::of(times);
    let name = "alias moved → Deployment patched, interval 5 s";
    vec![
        Measurement::new(name, times.max_figure(Unit::Seconds))
            .with_goal("max ≤ 6 s", times.max() <= INTERVAL + SLACK)
            .of_runs(times.count()),
    ]
}

/// Moves with a requested poll; in between a plain client patches the Deployment and reads the model from MLflow.
pub async fn measure_requested(environment: &Environment, moves: usize) -> Vec<Measurement> {
    let mut fixture = MoveFixture::start(environment, "requested", "1h").await;
    let task = Task::start(
        &format!("{moves} moves with a requested poll"),
        moves as u64,
    );
    let (mut requested, mut rollbacks) = (Vec::new(), Vec::new());
    let (mut patches, mut responses) = (Vec::new(), Vec::new());
    for number in 0..moves {
        let version = alternating_version(number);
        fixture.move_alias(environment, version).await;
        tokio::time::sleep(PAUSE).await;
        requested.push(fixture.request_poll(version, number).await);
        if version == "1" {
            let mirrored_at = fixture.alias.wait_for(version).await;
            let patched_at = fixture.deployment.wait_for_version(version).await;
            rollbacks.push(patched_at.saturating_duration_since(mirrored_at));
        }
        wait_until_runs(&fixture.namespace, &fixture.name, version).await;
        tokio::time::sleep(PAUSE).await;
        let (namespace, name) = (&fixture.namespace, &fixture.name);
        patches.push(bare_patch(namespace, name, &mut fixture.deployment, number).await);
        responses.push(read_model(environment, name).await);
        task.advance();
    }
    task.done();
    fixture.end().await;
    let mut measurements = requested_measurements(
        &Durations::of(requested),
        &Durations::of(patches),
        &Durations::of(responses),
    );
    measurements.push(rollback_measurement(&Durations::of(rollbacks)));
    measurements
}

fn requested_measurements(
    requested: &Durations,
    patches: &Durations,
    responses: &Durations,
) -> Vec<Measurement> {
    let measurement = |name: &str, times: &Durations| {
        Measurement::new(name, times.median_figure(Unit::Milliseconds)).of_runs(times.count())
    };
    vec![
        measurement("poll requested → Deployment patched", requested)
            .with_goal("p50 < 100 ms", requested.percentile(50) < REQUESTED_GOAL),
        measurement(
            "floor: a plain client's own patch of that Deployment",
            patches,
        )
        .documented(),
        measurement(
            "floor: MLflow's response to registered-models/get",
            responses,
        )
        .documented(),
    ]
}

/// From the model's status that names a good version again to the Deployment patched.
fn rollback_measurement(times: &Durations) -> Measurement {
    let name = "alias mirrored on a version that was good → Deployment patched";
    Measurement::new(name, times.median_figure(Unit::Milliseconds))
        .with_goal("p50 < 100 ms", times.percentile(50) < ROLLBACK_GOAL)
        .of_runs(times.count())
}

/// The time of MLflow's response about one model.
async fn read_model(environment: &Environment, model: &str) -> Duration {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let registry = environment.mlflow.url();
    let url = format!("{registry}/api/2.0/mlflow/registered-models/get?name={model}");
    let sent = Instant::now();
    let response = client
        .get(url)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    response.bytes().await.unwrap();
    sent.elapsed()
}

/// 2, 1, 2, 1 and so on: forward and back.
pub fn alternating_version(number: usize) -> &'static str {
    if number.is_multiple_of(2) { "2" } else { "1" }
}

fn random_part_of(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(());
    #[allow(clippy::cast_possible_truncation)] // the remainder is below 2^32
    let thousandths = (random % 1000) as u32;
    time * thousandths / 1000
}
