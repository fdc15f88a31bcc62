//! Numbered objects in one namespace: created concurrently, moved in the registry's database, and waited for.
//!
//! Absent: figures.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use pointsman_env::progress::Task;
use pointsman_env::{Kind, Operator, TestNamespace, kinds};
use serde_json::{Value, json};

use crate::environment::{Environment, TIMEOUT, model, registry};
use crate::object_counter::{ObjectCounter, READY};

const CONCURRENT_CREATES: usize = 32;
/// An operator that uses less of a core than this has no work left.
const IDLE_SHARE: f64 = 0.03;
const SECOND: Duration = Duration::from_secs(1);

/// The objects `<prefix>-00000` to `<prefix>-<count - 1>` of each kind.
pub struct ObjectSet {
    pub namespace: TestNamespace,
    pub prefix: &'static str,
    pub count: usize,
}

impl ObjectSet {
    pub async fn new(environment: &Environment, prefix: &'static str, count: usize) -> Self {
        let namespace = environment.namespace(prefix).await;
        Self {
            namespace,
            prefix,
            count,
        }
    }

    pub fn name(&self, number: usize) -> String {
        format!("{}-{number:05}", self.prefix)
    }

    pub fn names(&self) -> impl Iterator<Item = String> {
        (0..self.count).map(|number| self.name(number))
    }

    /// Creates the registry and the models, and waits until all models are mirrored.
    pub async fn mirror_models(&self, url: &str, interval: &str) {
        self.create("models", &kinds::REGISTERED_MODEL, |name| model(&name))
            .await;
        let registry = registry(url, interval);
        self.namespace
            .create(&kinds::MODEL_REGISTRY, &registry)
            .await
            .unwrap();
        self.wait_until_ready("models mirrored", &kinds::REGISTERED_MODEL)
            .await;
    }

    /// Creates one object for each name.
    pub async fn create(&self, what: &str, kind: &Kind, object: impl Fn(String) -> Value) {
        let task = self.task(&format!("{what} created"));
        let created = stream::iter(self.names().map(object))
            .map(|object| async move { self.namespace.create(kind, &object).await.unwrap() });
        created
            .buffer_unordered(CONCURRENT_CREATES)
            .for_each(|_| {
                task.advance();
                std::future::ready(())
            })
            .await;
        task.done();
    }

    /// Waits until all objects of one of our kinds are ready.
    pub async fn wait_until_ready(&self, what: &str, kind: &Kind) {
        let task = self.task(what);
        let mut ready = ObjectCounter::start(&self.namespace, kind, READY).await;
        ready.wait_for(self.count, &task, self.timeout()).await;
        task.done();
    }

    /// Moves `champion` of these models and requests a poll; returns when that was requested.
    pub async fn move_aliases(
        &self,
        environment: &Environment,
        numbers: Range<usize>,
        version: usize,
    ) -> Instant {
        self.move_aliases_silently(environment, numbers, version)
            .await;
        let requested_at = jiff::Timestamp::now().to_string();
        let annotations = json!({"pointsman.dev/requested-at": requested_at});
        let patch = json!({"metadata": {"annotations": annotations}});
        let requested = Instant::now();
        self.namespace
            .patch(&kinds::MODEL_REGISTRY, "mlflow", &patch)
            .await
            .unwrap();
        requested
    }

    /// Moves `champion` of these models; the next poll finds it.
    pub async fn move_aliases_silently(
        &self,
        environment: &Environment,
        numbers: Range<usize>,
        version: usize,
    ) {
        let database = environment.mlflow.database();
        environment
            .registrar
            .move_champions(&database, self.prefix, numbers, version)
            .await
            .unwrap();
    }

    /// Waits until no Deployment is being rolled out.
    pub async fn wait_until_rolled_out(&self) {
        let task = self.task("Deployments rolled out");
        let rolled_out = async {
            loop {
                let began = Instant::now();
                let deployments = self.namespace.list(&kinds::DEPLOYMENT, "").await.unwrap();
                let done = deployments
                    .iter()
                    .filter(|each| is_rolled_out(each))
                    .count();
                task.reach(done as u64);
                if done == self.count {
                    return;
                }
                // A list of all of them is work: leave the processors to the cluster most of the time.
                tokio::time::sleep(SECOND * 2 + began.elapsed() * 2).await;
            }
        };
        tokio::time::timeout(self.timeout(), rolled_out)
            .await
            .expect("the Deployments are rolled out in time");
        task.done();
    }

    /// A tenth of a second for each object, on top of the time that one may take.
    pub fn timeout(&self) -> Duration {
        let count = u32::try_from(self.count).expect("there are far fewer than 2^32 objects");
        TIMEOUT + Duration::from_millis(100) * count
    }

    pub fn task(&self, what: &str) -> Task {
        Task::start(&format!("{} {what}", self.count), self.count as u64)
    }
}

fn is_rolled_out(deployment: &Value) -> bool {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let all_are = |count: &str| status[count] == spec["replicas"];
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && all_are("replicas")
        && all_are("updatedReplicas")
        && all_are("availableReplicas")
}

/// Waits until the operator uses no processor time any more.
pub async fn wait_until_idle(operator: &Operator) {
    let task = Task::start("operator becoming idle", 0);
    let idle = async {
        let mut used = operator.processor_time().unwrap();
        loop {
            tokio::time::sleep(SECOND).await;
            let now = operator.processor_time().unwrap();
            if share(now.saturating_sub(used), SECOND) <= IDLE_SHARE {
                return;
            }
            used = now;
        }
    };
    tokio::time::timeout(TIMEOUT * 3, idle)
        .await
        .expect("the operator becomes idle");
    task.done();
}

/// The processor time as a share of one core.
pub fn share(used: Duration, of: Duration) -> f64 {
    used.as_secs_f64() / of.as_secs_f64()
}
