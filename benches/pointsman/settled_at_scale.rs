//! What a number of bindings costs: making them, holding them, looking at their registry, starting with them, moving a tenth.
//!
//! The bindings own their Deployments, so that each has one ReplicaSet and one pod from the start; all of them are there. The
//! operator speaks to the API server itself but for the last part, in which its writes are counted, and to MLflow always through
//! a proxy that counts.
//!
//! Absent: goals. Those depend on the number; growth.rs has them.

use std::time::{Duration, Instant};

use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::progress::Task;
use pointsman_env::{Operator, kinds};
use serde_json::{Value, json};

use crate::crowd::{Crowd, holds_version};
use crate::fleet::{Fleet, await_calm, share};
use crate::ground::{Ground, PATIENCE};

const PREFIX: &str = "scale";
/// How long an operator without objects is left alone before its memory is read.
const SETTLING: Duration = Duration::from_secs(5);
/// How often the operator's processor time is read.
const SAMPLE: Duration = Duration::from_millis(100);
/// After the last answer of a look the operator still reads it.
const READING: Duration = Duration::from_secs(2);
/// How often a start and a burst are measured.
const RUNS: usize = 3;

/// What one number of bindings costs.
pub struct Cost {
    pub count: usize,
    /// From the first object made to the last binding ready.
    pub made: Duration,
    /// Memory of an operator that has nothing to do.
    pub empty: u64,
    /// Memory after all of them were rolled out.
    pub rolled_out: u64,
    pub starts: Vec<Start>,
    /// From the request to look to the last of a tenth of all Deployments patched.
    pub bursts: Vec<Duration>,
    pub rest: Rest,
}

/// A start with one binding in a hundred to be moved.
pub struct Start {
    pub ready: Duration,
    pub patched: Duration,
    /// Memory when it has come to rest.
    pub memory: u64,
}

/// What was counted while there was nothing to do.
pub struct Rest {
    pub time: Duration,
    pub interval: Duration,
    pub looks: Vec<Look>,
    pub requests: usize,
    pub writes: Vec<Request>,
    /// How much of a processor the operator used outside looks.
    pub between: f64,
    /// What it used in looks, and beside what it uses anyway.
    pub each_look: Duration,
}

/// One look: from its first request to the last byte of its last answer.
#[derive(Clone, Copy)]
pub struct Look {
    from: Instant,
    to: Instant,
}

impl Look {
    pub fn took(&self) -> Duration {
        self.to - self.from
    }
}

/// Processor time used, at moments.
type Samples = Vec<(Instant, Duration)>;

struct Stage {
    ground: Ground,
    fleet: Fleet,
    operator: Operator,
    registry: Interceptor,
    interval: Duration,
}

/// The whole of it for one number, on a ground of its own.
pub async fn measured(count: usize, time: Duration, interval: Duration) -> Cost {
    let ground = Ground::at_scale().await;
    let empty = memory_of_nothing(&ground).await;
    let mut stage = Stage::start(ground, count, interval).await;
    let made = stage.make().await;
    let rolled_out = stage.operator.resident_bytes().unwrap();
    let mut cost = Cost {
        count,
        made,
        empty,
        rolled_out,
        starts: Vec::new(),
        bursts: Vec::new(),
        rest: stage.rest(time).await,
    };
    stage.directly().await;
    for run in 0..RUNS {
        cost.bursts.push(stage.burst(run).await);
    }
    for run in 0..RUNS {
        cost.starts.push(stage.restarted(run).await);
    }
    stage.end().await;
    cost
}

async fn memory_of_nothing(ground: &Ground) -> u64 {
    let place = ground.namespace("empty").await;
    let mut operator = ground.operator(&place, "empty", None).await;
    tokio::time::sleep(SETTLING).await;
    let memory = operator.resident_bytes().unwrap();
    operator.stop().unwrap();
    place.end().await.unwrap();
    memory
}

impl Stage {
    async fn start(ground: Ground, count: usize, interval: Duration) -> Self {
        ground.register(PREFIX, count).await;
        let registry = Interceptor::start(ground.mlflow.url(), None).await.unwrap();
        let fleet = Fleet::new(&ground, PREFIX, count).await;
        let operator = ground.operator(&fleet.place, PREFIX, None).await;
        Self {
            ground,
            fleet,
            operator,
            registry,
            interval,
        }
    }

    /// Makes registry, models and bindings, and waits until all of them are well and nobody does anything any more.
    async fn make(&self) -> Duration {
        let began = Instant::now();
        self.fleet
            .declare(
                &self.registry.url(),
                &format!("{}s", self.interval.as_secs()),
            )
            .await;
        self.fleet
            .create("bindings", &kinds::ALIAS_BINDING, |name| owning(&name))
            .await;
        self.fleet
            .await_ready("bindings rolling out", &kinds::ALIAS_BINDING)
            .await;
        let made = began.elapsed();
        self.come_to_rest().await;
        made
    }

    async fn come_to_rest(&self) {
        self.fleet.await_rolled_out().await;
        await_calm(&self.operator).await;
    }

    /// Counts for so long what an operator does that has nothing to do.
    async fn rest(&mut self, time: Duration) -> Rest {
        let server = &self.ground.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        self.operator.stop().unwrap();
        self.operator = self
            .ground
            .operator(&self.fleet.place, PREFIX, Some(api.url()))
            .await;
        self.come_to_rest().await;
        let task = Task::start(
            &format!(
                "{} bindings at rest, counting for {} s",
                self.fleet.count,
                time.as_secs()
            ),
            0,
        );
        let (api_mark, registry_mark) = (api.mark(), self.registry.mark());
        let samples = self.sampled(time).await;
        let asked = self.registry.since(registry_mark);
        task.done();
        let looks = looks(&asked, self.interval / 3);
        let (between, each_look) = of_looks(&samples, &looks);
        let requests = asked.len();
        let writes = api.writes_since(api_mark);
        // It must not outlive the proxy that it speaks through.
        self.operator.stop().unwrap();
        Rest {
            time,
            interval: self.interval,
            looks,
            requests,
            writes,
            between,
            each_look,
        }
    }

    async fn sampled(&self, time: Duration) -> Samples {
        let (began, mut samples) = (Instant::now(), Samples::new());
        while began.elapsed() < time {
            samples.push((Instant::now(), self.operator.processor_time().unwrap()));
            tokio::time::sleep(SAMPLE).await;
        }
        samples
    }

    /// An operator that speaks to the API server itself.
    async fn directly(&mut self) {
        self.operator = self.ground.operator(&self.fleet.place, PREFIX, None).await;
        await_calm(&self.operator).await;
    }

    /// A tenth of all aliases moved at once: each run another tenth, from the middle on.
    async fn burst(&self, run: usize) -> Duration {
        let tenth = self.fleet.count / 10;
        let first = self.fleet.count / 2 + run * tenth;
        let task = Task::start(
            &format!("{tenth} of {} aliases moved at once", self.fleet.count),
            tenth as u64,
        );
        let mut patched = self.patched().await;
        let goal = patched.count() + tenth;
        let asked = self
            .fleet
            .moved(&self.ground, first..first + tenth, 2)
            .await;
        let last = patched.reaches(goal, &task, self.fleet.patience()).await;
        task.done();
        self.come_to_rest().await;
        last - asked
    }

    /// A start with one alias in a hundred moved while nobody looked: each run another hundredth, from the first on.
    async fn restarted(&mut self, run: usize) -> Start {
        let hundredth = (self.fleet.count / 100).max(1);
        let first = run * hundredth;
        let task = Task::start(
            &format!(
                "start with {} bindings, {hundredth} moved",
                self.fleet.count
            ),
            hundredth as u64,
        );
        self.operator.stop().unwrap();
        self.fleet
            .moved_unseen(&self.ground, first..first + hundredth, 2)
            .await;
        let mut patched = self.patched().await;
        let goal = patched.count() + hundredth;
        let patience = self.fleet.patience();
        let began = Instant::now();
        let started = async {
            self.operator.start_again_within(PATIENCE).await.unwrap();
            began.elapsed()
        };
        let (ready, last) = tokio::join!(started, patched.reaches(goal, &task, patience));
        task.done();
        self.come_to_rest().await;
        Start {
            ready,
            patched: last - began,
            memory: self.operator.resident_bytes().unwrap(),
        }
    }

    async fn patched(&self) -> Crowd {
        Crowd::of(&self.fleet.place, &kinds::DEPLOYMENT, holds_version(2)).await
    }

    async fn end(mut self) {
        self.operator.stop().unwrap();
        self.ground.end().await;
    }
}

/// A binding that makes and owns its Deployment.
fn owning(name: &str) -> Value {
    let container = json!({"name": "server", "image": "registry.example/server:1"});
    let template =
        json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}});
    let spec =
        json!({"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template});
    let spec = json!({"modelRef": {"name": name}, "alias": "champion", "template": {"spec": spec}, "rollback": {"bakeSeconds": 0}});
    json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding", "metadata": {"name": name}, "spec": spec})
}

/// Requests with less than this between an answer and the next question belong to one look.
pub fn looks(requests: &[Request], apart: Duration) -> Vec<Look> {
    let mut looks: Vec<Look> = Vec::new();
    for request in requests {
        let to = request.answered.unwrap_or(request.at);
        match looks.last_mut() {
            Some(look) if request.at.saturating_duration_since(look.to) < apart => {
                look.to = look.to.max(to);
            }
            _ => looks.push(Look {
                from: request.at,
                to,
            }),
        }
    }
    looks
}

/// How much of a processor is used outside looks, and how much time a look takes of it beyond that.
fn of_looks(samples: &Samples, looks: &[Look]) -> (f64, Duration) {
    let is_looking = |from: Instant, to: Instant| {
        looks
            .iter()
            .any(|look| from < look.to + READING && look.from < to)
    };
    let (mut outside, mut inside) = (
        (Duration::ZERO, Duration::ZERO),
        (Duration::ZERO, Duration::ZERO),
    );
    for pair in samples.windows(2) {
        let ((from, before), (to, after)) = (pair[0], pair[1]);
        let sum = if is_looking(from, to) {
            &mut inside
        } else {
            &mut outside
        };
        *sum = (sum.0 + after.saturating_sub(before), sum.1 + (to - from));
    }
    let between = if outside.1.is_zero() {
        f64::NAN
    } else {
        share(outside.0, outside.1)
    };
    let count = u32::try_from(looks.len()).expect("few looks").max(1);
    (
        between,
        inside.0.saturating_sub(inside.1.mul_f64(between.max(0.0))) / count,
    )
}
