//! Many models and bindings in one namespace: made side by side, moved in the registry's database, and waited for.
//!
//! Absent: figures.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use pointsman_env::progress::Task;
use pointsman_env::{Kind, Operator, TestNamespace as Place, kinds};
use serde_json::{Value, json};

use crate::crowd::{Crowd, READY};
use crate::ground::{Ground, PATIENCE, model, registry};

/// How many objects are made side by side.
const SIDE_BY_SIDE: usize = 32;
/// An operator that uses less of a processor than this has nothing under way.
const CALM: f64 = 0.03;
const MOMENT: Duration = Duration::from_secs(1);

/// A namespace, and the prefix of all names in it.
pub struct Fleet {
    pub place: Place,
    pub prefix: &'static str,
    pub count: usize,
}

impl Fleet {
    pub async fn new(ground: &Ground, prefix: &'static str, count: usize) -> Self {
        Self {
            place: ground.namespace(prefix).await,
            prefix,
            count,
        }
    }

    pub fn name(&self, number: usize) -> String {
        format!("{}-{number:05}", self.prefix)
    }

    /// The registry, and all its models, which must have been seeded.
    pub async fn declare(&self, url: &str, interval: &str) {
        self.create("models", &kinds::REGISTERED_MODEL, |name| model(&name))
            .await;
        self.place
            .create(&kinds::MODEL_REGISTRY, &registry(url, interval))
            .await
            .unwrap();
        self.await_ready("models mirrored", &kinds::REGISTERED_MODEL)
            .await;
    }

    /// One object for each model.
    pub async fn create(&self, what: &str, kind: &Kind, object: impl Fn(String) -> Value) {
        let task = Task::start(
            &format!("{} {what}, making them", self.count),
            self.count as u64,
        );
        let objects = (0..self.count).map(|number| object(self.name(number)));
        let created = stream::iter(objects)
            .map(|object| async move { self.place.create(kind, &object).await.unwrap() });
        created
            .buffer_unordered(SIDE_BY_SIDE)
            .for_each(|_| {
                task.advance();
                std::future::ready(())
            })
            .await;
        task.done();
    }

    /// Waits until all of a kind of ours say that they are ready.
    pub async fn await_ready(&self, what: &str, kind: &Kind) {
        let task = Task::start(&format!("{} {what}", self.count), self.count as u64);
        let mut ready = Crowd::of(&self.place, kind, READY).await;
        ready.reaches(self.count, &task, self.patience()).await;
        task.done();
    }

    /// Moves `champion` of these models, asks for a look, and says when that was asked.
    pub async fn moved(
        &self,
        ground: &Ground,
        numbers: std::ops::Range<usize>,
        version: usize,
    ) -> Instant {
        self.moved_unseen(ground, numbers, version).await;
        let annotation =
            json!({"metadata": {"annotations": {"pointsman.dev/requested-at": request()}}});
        let asked = Instant::now();
        self.place
            .patch(&kinds::MODEL_REGISTRY, "mlflow", &annotation)
            .await
            .unwrap();
        asked
    }

    /// Moves `champion` of these models, and tells nobody.
    pub async fn moved_unseen(
        &self,
        ground: &Ground,
        numbers: std::ops::Range<usize>,
        version: usize,
    ) {
        ground
            .registrar
            .move_champions(&ground.mlflow.database(), self.prefix, numbers, version)
            .await
            .unwrap();
    }

    /// Waits until no Deployment rolls out any more.
    pub async fn await_rolled_out(&self) {
        let task = Task::start(
            &format!("{} Deployments rolling out", self.count),
            self.count as u64,
        );
        let rolled_out = async {
            loop {
                let began = Instant::now();
                let deployments = self.place.list(&kinds::DEPLOYMENT, "").await.unwrap();
                let done = deployments
                    .iter()
                    .filter(|deployment| is_rolled_out(deployment))
                    .count();
                task.reach(done as u64);
                if done == self.count {
                    return;
                }
                // Reading them all is work: the cluster shall have the processors for most of the time.
                tokio::time::sleep(MOMENT * 2 + began.elapsed() * 2).await;
            }
        };
        tokio::time::timeout(self.patience(), rolled_out)
            .await
            .expect("the Deployments do not roll out in time");
        task.done();
    }

    /// As long as ten a second take, on top of what one may take.
    pub fn patience(&self) -> Duration {
        PATIENCE
            + Duration::from_millis(100)
                * u32::try_from(self.count).expect("far fewer than 2^32 models")
    }
}

/// No two requests are the same.
fn request() -> String {
    jiff::Timestamp::now().to_string()
}

fn is_rolled_out(deployment: &Value) -> bool {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let all_are = |count: &str| status[count] == spec["replicas"];
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && all_are("replicas")
        && all_are("updatedReplicas")
        && all_are("availableReplicas")
}

/// Waits until the operator has nothing under way.
pub async fn await_calm(operator: &Operator) {
    let calm = async {
        let mut used = operator.processor_time().unwrap();
        loop {
            tokio::time::sleep(MOMENT).await;
            let now = operator.processor_time().unwrap();
            if now.saturating_sub(used).as_secs_f64() <= CALM * MOMENT.as_secs_f64() {
                return;
            }
            used = now;
        }
    };
    tokio::time::timeout(PATIENCE * 3, calm)
        .await
        .expect("the operator does not come to rest");
}

/// How many processors these make of that time.
pub fn share(used: Duration, of: Duration) -> f64 {
    used.as_secs_f64() / of.as_secs_f64()
}
