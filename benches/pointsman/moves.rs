//! From the move of an alias to the Deployment patched: found by polling, and asked for.
//!
//! Absent: the rollout itself. How long pods take is not the operator's doing.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use pointsman_env::progress::Task;
use pointsman_env::{Operator, TestNamespace as Place, kinds};
use serde_json::json;

use crate::failures::back_goal;
use crate::figures::Durations;
use crate::ground::{Ground, apply, binding, deployment, model, registry, runs};
use crate::report::Goal;
use crate::sightings::{Mirror, Sightings, TICK};

const INTERVAL: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(1);
const ASKED_GOAL: Duration = Duration::from_millis(100);
/// Between two measurements, so that one does not meet the other's tail.
pub const PAUSE: Duration = Duration::from_millis(200);

/// One bound model, settled on version 1, and a watch of its Deployment.
struct Stage {
    place: Place,
    operator: Operator,
    sightings: Sightings,
    mirror: Mirror,
    name: String,
}

impl Stage {
    async fn start(ground: &Ground, prefix: &str, interval: &str) -> Self {
        ground.register(prefix, 1).await;
        let place = ground.namespace(prefix).await;
        let operator = ground.operator(&place, prefix, None).await;
        let name = format!("{prefix}-00000");
        let objects = [
            registry(&ground.mlflow.url(), interval),
            model(&name),
            deployment(&name),
            binding(&name),
        ];
        apply(&place, objects).await;
        runs(&place, &name, "1").await;
        let sightings = Sightings::of(place.client(), place.namespace(), &name);
        let mirror = Mirror::of(place.client(), place.namespace(), &name);
        Self {
            place,
            operator,
            sightings,
            mirror,
            name,
        }
    }

    async fn alias(&self, ground: &Ground, version: &str) {
        ground
            .registrar
            .set_alias(&self.name, "champion", version)
            .await
            .unwrap();
    }

    /// From the sending of the annotation to the sight of the patched Deployment.
    async fn asked(&mut self, version: &str, request: usize) -> Duration {
        let annotation = json!({"metadata": {"annotations": {"pointsman.dev/requested-at": request.to_string()}}});
        let sent = Instant::now();
        self.place
            .patch(&kinds::REGISTERED_MODEL, &self.name, &annotation)
            .await
            .unwrap();
        self.sightings.version(version).await - sent
    }

    async fn end(mut self) {
        self.operator.stop().unwrap();
        self.place.end().await.unwrap();
    }
}

/// From the sending of a plain client's own patch of a Deployment to the sight of it.
pub async fn bare(place: &Place, name: &str, sightings: &mut Sightings, tick: usize) -> Duration {
    let tick = tick.to_string();
    let annotations = json!({"name": name, "annotations": {TICK: tick}});
    let patch = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": annotations});
    let deployments = place.api(&kinds::DEPLOYMENT);
    let sent = Instant::now();
    deployments
        .patch(
            name,
            &PatchParams::apply("bench").force(),
            &Patch::Apply(patch),
        )
        .await
        .unwrap();
    sightings.tick(&tick).await - sent
}

/// Moves at random moments, found by the registry's loop.
pub async fn polled(ground: &Ground, moves: usize) -> Vec<Goal> {
    let mut stage = Stage::start(ground, "polled", "5s").await;
    let task = Task::start(&format!("{moves} moves found by polling"), moves as u64);
    let mut taken = Vec::new();
    for number in 0..moves {
        tokio::time::sleep(some_of(INTERVAL)).await;
        let version = version_of(number);
        let started = Instant::now();
        stage.alias(ground, version).await;
        taken.push(stage.sightings.version(version).await - started);
        task.advance();
    }
    task.done();
    stage.end().await;
    let taken = Durations::of(taken);
    vec![
        Goal::checked(
            "alias moved → Deployment patched, interval 5 s",
            "max ≤ 6 s",
            taken.in_seconds(),
            taken.max() <= INTERVAL + SLACK,
        )
        .of_runs(taken.count()),
    ]
}

/// Moves that are asked for; between them the same is done with nothing in between, and the registry is asked directly.
pub async fn requested(ground: &Ground, moves: usize) -> Vec<Goal> {
    let mut stage = Stage::start(ground, "asked", "1h").await;
    let task = Task::start(&format!("{moves} moves asked for"), moves as u64);
    let (mut taken, mut seen, mut bare_patches, mut registry) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..moves {
        let version = version_of(number);
        stage.alias(ground, version).await;
        tokio::time::sleep(PAUSE).await;
        taken.push(stage.asked(version, number).await);
        if version == "1" {
            seen.push(
                stage
                    .sightings
                    .version(version)
                    .await
                    .saturating_duration_since(stage.mirror.alias(version).await),
            );
        }
        runs(&stage.place, &stage.name, version).await;
        tokio::time::sleep(PAUSE).await;
        bare_patches.push(bare(&stage.place, &stage.name, &mut stage.sightings, number).await);
        registry.push(answered(ground, &stage.name).await);
        task.advance();
    }
    task.done();
    stage.end().await;
    let mut goals = goals_of(
        &Durations::of(taken),
        &Durations::of(bare_patches),
        &Durations::of(registry),
    );
    goals.push(back_goal(&Durations::of(seen)));
    goals
}

fn goals_of(taken: &Durations, bare: &Durations, registry: &Durations) -> Vec<Goal> {
    let ratio = taken.percentile(50).as_secs_f64() / bare.percentile(50).as_secs_f64();
    vec![
        Goal::checked(
            "look asked for → Deployment patched",
            "p50 < 100 ms",
            taken.in_milliseconds(),
            taken.percentile(50) < ASKED_GOAL,
        )
        .of_runs(taken.count()),
        Goal::noted(
            "floor: a plain client's own patch of that Deployment",
            bare.in_milliseconds(),
        )
        .of_runs(bare.count()),
        Goal::noted(
            "floor: MLflow's answer to registered-models/get",
            registry.in_milliseconds(),
        )
        .of_runs(registry.count()),
        Goal::noted(
            "look asked for, as a multiple of the bare patch (p50)",
            format!("{ratio:.1}"),
        )
        .of_runs(taken.count()),
    ]
}

/// What the registry takes to answer about one model, without the operator.
async fn answered(ground: &Ground, model: &str) -> Duration {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!(
        "{}/api/2.0/mlflow/registered-models/get?name={model}",
        ground.mlflow.url()
    );
    let sent = Instant::now();
    let answer = client
        .get(url)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    answer.bytes().await.unwrap();
    sent.elapsed()
}

/// 2, 1, 2, 1: forward, and back.
pub fn version_of(number: usize) -> &'static str {
    if number.is_multiple_of(2) { "2" } else { "1" }
}

/// A random part of this time.
fn some_of(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(());
    #[allow(clippy::cast_possible_truncation)] // the remainder is below 2^32
    let thousandths = (random % 1000) as u32;
    time * thousandths / 1000
}
