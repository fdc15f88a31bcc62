//! From a crash that is one too many to the Deployment patched back; and from an alias that was seen to be back to the same.
//!
//! Absent: real crashes, and the kubelet's back-off between them. tests/node has those.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use pointsman_env::progress::Task;
use pointsman_env::{Kind, Operator, PlainDeployment, TestNamespace as Place, kinds};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::figures::Durations;
use crate::ground::{Ground, PATIENCE, apply, binding, model, registry, runs};
use crate::report::Goal;
use crate::sightings::Sightings;

const CRASH_GOAL: Duration = Duration::from_secs(2);
const BACK_GOAL: Duration = Duration::from_millis(100);
/// The default of `spec.rollback.maxRestarts`.
const MOST_RESTARTS: i64 = 3;

struct Stage {
    place: Place,
    operator: Operator,
    deployments: Sightings,
    name: String,
}

impl Stage {
    /// One bound model, live on version 1, whose version 2 crashes.
    async fn start(ground: &Ground) -> Self {
        ground.register("failing", 1).await;
        let place = ground.namespace("failing").await;
        let operator = ground.operator(&place, "failing", None).await;
        let name = "failing-00000".to_owned();
        let plain = PlainDeployment {
            replicas: 1,
            ..PlainDeployment::named(&name)
        };
        let objects = [
            registry(&ground.mlflow.url(), "1h"),
            model(&name),
            plain.with_behavior("2=crash").manifest(),
            binding(&name),
        ];
        apply(&place, objects).await;
        runs(&place, &name, "1").await;
        let deployments = Sightings::of(place.client(), place.namespace(), &name);
        Self {
            place,
            operator,
            deployments,
            name,
        }
    }

    async fn alias(&self, ground: &Ground, version: &str, request: &str) {
        ground
            .registrar
            .set_alias(&self.name, "champion", version)
            .await
            .unwrap();
        let annotation =
            json!({"metadata": {"annotations": {"pointsman.dev/requested-at": request}}});
        self.place
            .patch(&kinds::REGISTERED_MODEL, &self.name, &annotation)
            .await
            .unwrap();
    }

    /// When an object of a kind was first seen to be so, by a plain watch that begins now.
    fn first(
        &self,
        kind: &Kind,
        holds: impl Fn(&Value) -> bool + Send + 'static,
    ) -> JoinHandle<Instant> {
        let api: Api<DynamicObject> = self.place.api(kind);
        tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
            while let Some(event) = events
                .try_next()
                .await
                .expect("the watch of the measurement broke")
            {
                if let Event::Apply(object) | Event::InitApply(object) = event {
                    let now = Instant::now();
                    if holds(&serde_json::to_value(&object).unwrap()) {
                        return now;
                    }
                }
            }
            panic!("the watch of the measurement ended");
        })
    }

    async fn is_rolled_back(&self) {
        let holds = |binding: &Value| {
            let conditions = binding["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten();
            conditions
                .into_iter()
                .any(|each| each["type"] == "Stalled" && each["reason"] == "RolledBack")
        };
        self.place
            .eventually(
                "it went back",
                PATIENCE,
                &kinds::ALIAS_BINDING,
                &self.name,
                holds,
            )
            .await;
    }
}

/// Failures and their rollbacks, and after each the alias moved back by hand to what runs; then forward and back once more
/// between two good versions.
pub async fn measured(ground: &Ground, times: usize) -> Vec<Goal> {
    let mut stage = Stage::start(ground).await;
    let task = Task::start(&format!("{times} failures"), times as u64);
    let mut crashes = Vec::new();
    for number in 0..times {
        let crossed = stage.first(&kinds::POD, crosses_the_limit);
        stage.alias(ground, "2", &format!("{number}-forward")).await;
        stage.deployments.version("2").await;
        let crossed = crossed.await.unwrap();
        let back = stage.deployments.version("1").await;
        crashes.push(back.saturating_duration_since(crossed));
        stage.is_rolled_back().await;
        stage.alias(ground, "1", &format!("{number}-back")).await;
        runs(&stage.place, &stage.name, "1").await;
        task.advance();
    }
    task.done();
    stage.operator.stop().unwrap();
    stage.place.end().await.unwrap();
    let crashes = Durations::of(crashes);
    vec![
        Goal::checked(
            "crash beyond the limit → Deployment patched back",
            "max ≤ 2 s",
            crashes.in_milliseconds(),
            crashes.max() <= CRASH_GOAL,
        )
        .of_runs(crashes.count()),
    ]
}

/// A pod in a crash loop after as many restarts as are allowed.
fn crosses_the_limit(pod: &Value) -> bool {
    let is_two = pod["metadata"]["annotations"]["pointsman.dev/model-version"] == "2";
    let containers = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten();
    is_two
        && pod["metadata"]["deletionTimestamp"].is_null()
        && containers
            .into_iter()
            .any(|each| each["restartCount"].as_i64() >= Some(MOST_RESTARTS))
}

/// The time from the mirror's word that the alias is back to the Deployment patched, of a move between two good versions.
pub fn back_goal(taken: &Durations) -> Goal {
    Goal::checked(
        "alias seen to be back on a good version → Deployment patched",
        "p50 < 100 ms",
        taken.in_milliseconds(),
        taken.percentile(50) < BACK_GOAL,
    )
    .of_runs(taken.count())
}
