//! The cost of a number of bindings: creating them, memory, polls of their registry, starts, and a tenth of them moved at once.
//!
//! The bindings own their Deployments, so that each has one ReplicaSet and one pod. The operator talks to the API server directly,
//! except while its writes are counted, and to MLflow through a counting proxy.
//!
//! Absent: goals. They depend on the number of bindings and are in growth.rs.

use std::time::{Duration, Instant};

use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::progress::Task;
use pointsman_env::{Operator, kinds};
use serde_json::Value;

use crate::environment::{Environment, TIMEOUT, owning_binding};
use crate::object_counter::{ObjectCounter, holds_version};
use crate::object_set::{ObjectSet, share, wait_until_idle};

const PREFIX: &str = "scale";
/// After this time an operator without objects has the memory that it keeps.
const SETTLING: Duration = Duration::from_secs(5);
/// How often the operator's processor time is read.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// After the last response of a poll the operator still processes it.
const PROCESSING: Duration = Duration::from_secs(2);
/// How often a start and a burst are measured.
const RUNS: usize = 3;

/// The cost of one number of bindings.
pub struct ScaleResult {
    pub count: usize,
    /// From the first object created to the last binding ready.
    pub created: Duration,
    pub memory: Memory,
    /// Starts with one alias in a hundred moved meanwhile.
    pub starts: Vec<Start>,
    /// From the request of a poll to the last of a tenth of all Deployments patched.
    pub bursts: Vec<Duration>,
    pub idle: IdlePeriod,
}

/// Resident memory of the operator in bytes.
#[derive(Debug, Clone)]
pub struct Memory {
    pub count: usize,
    /// Without any object.
    pub empty: u64,
    /// After all Deployments were rolled out.
    pub rolled_out: u64,
    /// After restarts.
    pub restarted: Vec<u64>,
}

pub struct Start {
    pub ready: Duration,
    pub patched: Duration,
}

/// A period in which the operator had nothing to do.
pub struct IdlePeriod {
    pub duration: Duration,
    pub interval: Duration,
    pub polls: Vec<Poll>,
    pub requests: usize,
    pub writes: Vec<Request>,
    /// The share of a core that the operator used outside polls.
    pub share_outside_polls: f64,
    /// The processor time of one poll, beyond what the operator uses outside polls.
    pub processor_time_per_poll: Duration,
}

/// One poll: from its first request to the end of its last response.
#[derive(Clone, Copy)]
pub struct Poll {
    from: Instant,
    to: Instant,
}

impl Poll {
    pub fn duration(&self) -> Duration {
        self.to - self.from
    }
}

/// The operator's processor time at some moments.
type Samples = Vec<(Instant, Duration)>;

struct ScaleFixture {
    environment: Environment,
    objects: ObjectSet,
    operator: Operator,
    registry: Interceptor,
    interval: Duration,
    binding: fn(&str) -> Value,
}

/// All measurements of one number of bindings, in an environment of its own.
pub async fn measure(count: usize, idle: Duration, interval: Duration) -> ScaleResult {
    let environment = Environment::at_scale().await;
    let empty = memory_without_objects(&environment).await;
    let mut fixture = ScaleFixture::start(environment, count, interval, owning_binding).await;
    let created = fixture.create().await;
    let rolled_out = fixture.operator.resident_bytes().unwrap();
    let mut result = ScaleResult {
        count,
        created,
        memory: Memory {
            count,
            empty,
            rolled_out,
            restarted: Vec::new(),
        },
        starts: Vec::new(),
        bursts: Vec::new(),
        idle: fixture.observe_idle(idle).await,
    };
    fixture.replace_operator().await;
    for run in 0..RUNS {
        result.bursts.push(fixture.move_tenth(run).await);
    }
    for run in 0..RUNS {
        result.starts.push(fixture.restart_with_moves(run).await);
        result
            .memory
            .restarted
            .push(fixture.operator.resident_bytes().unwrap());
    }
    fixture.end().await;
    result
}

/// Only the memory of one number of bindings, in an environment of its own.
pub async fn measure_memory(count: usize, interval: Duration) -> Memory {
    let (memory, _) = measure_settled(count, Duration::ZERO, interval, owning_binding).await;
    memory
}

/// The memory, and a period with nothing to do, with bindings like these.
pub async fn measure_settled(
    count: usize,
    idle: Duration,
    interval: Duration,
    binding: fn(&str) -> Value,
) -> (Memory, IdlePeriod) {
    let environment = Environment::at_scale().await;
    let empty = memory_without_objects(&environment).await;
    let mut fixture = ScaleFixture::start(environment, count, interval, binding).await;
    fixture.create().await;
    let rolled_out = fixture.operator.resident_bytes().unwrap();
    let observed = fixture.observe_idle(idle).await;
    let mut restarted = Vec::new();
    for run in 0..RUNS {
        if run > 0 {
            fixture.operator.stop().unwrap();
        }
        fixture.replace_operator().await;
        restarted.push(fixture.operator.resident_bytes().unwrap());
    }
    fixture.end().await;
    let memory = Memory {
        count,
        empty,
        rolled_out,
        restarted,
    };
    (memory, observed)
}

async fn memory_without_objects(environment: &Environment) -> u64 {
    let namespace = environment.namespace("empty").await;
    let task = Task::start("operator without objects", 0);
    let mut operator = environment.operator(&namespace, "empty", None).await;
    tokio::time::sleep(SETTLING).await;
    let memory = operator.resident_bytes().unwrap();
    operator.stop().unwrap();
    task.done();
    namespace.end().await.unwrap();
    memory
}

impl ScaleFixture {
    async fn start(
        environment: Environment,
        count: usize,
        interval: Duration,
        binding: fn(&str) -> Value,
    ) -> Self {
        environment.register(PREFIX, count).await;
        let registry = Interceptor::start(environment.mlflow.url(), None)
            .await
            .unwrap();
        let objects = ObjectSet::new(&environment, PREFIX, count).await;
        let operator = environment.operator(&objects.namespace, PREFIX, None).await;
        Self {
            environment,
            objects,
            operator,
            registry,
            interval,
            binding,
        }
    }

    /// Creates the registry, the models and the bindings, and waits until all are ready and the operator is idle.
    async fn create(&self) -> Duration {
        let began = Instant::now();
        let interval = format!("{}s", self.interval.as_secs());
        self.objects
            .mirror_models(&self.registry.url(), &interval)
            .await;
        self.objects
            .create("bindings", &kinds::ALIAS_BINDING, |name| {
                (self.binding)(&name)
            })
            .await;
        self.objects
            .wait_until_ready("bindings ready", &kinds::ALIAS_BINDING)
            .await;
        let created = began.elapsed();
        self.wait_until_idle().await;
        created
    }

    async fn wait_until_idle(&self) {
        self.objects.wait_until_rolled_out().await;
        wait_until_idle(&self.operator).await;
    }

    /// Counts requests, writes and processor time while there is nothing to do.
    async fn observe_idle(&mut self, duration: Duration) -> IdlePeriod {
        let server = &self.environment.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        self.operator.stop().unwrap();
        let namespace = &self.objects.namespace;
        self.operator = self
            .environment
            .operator(namespace, PREFIX, Some(api.url()))
            .await;
        self.wait_until_idle().await;
        let what = format!("settled bindings, counting for {} s", duration.as_secs());
        let task = Task::start(&format!("{} {what}", self.objects.count), 0);
        let (api_mark, registry_mark) = (api.mark(), self.registry.mark());
        let samples = self.sample_processor_time(duration).await;
        let requests = self.registry.since(registry_mark);
        task.done();
        let polls = polls(&requests, self.interval / 3);
        let (share_outside_polls, processor_time_per_poll) = split_by_polls(&samples, &polls);
        let writes = api.writes_since(api_mark);
        // The operator must not outlive its proxy.
        self.operator.stop().unwrap();
        IdlePeriod {
            duration,
            interval: self.interval,
            polls,
            requests: requests.len(),
            writes,
            share_outside_polls,
            processor_time_per_poll,
        }
    }

    async fn sample_processor_time(&self, duration: Duration) -> Samples {
        let (began, mut samples) = (Instant::now(), Samples::new());
        while began.elapsed() < duration {
            samples.push((Instant::now(), self.operator.processor_time().unwrap()));
            tokio::time::sleep(SAMPLE_INTERVAL).await;
        }
        samples
    }

    /// Starts an operator that talks to the API server directly; the old one has ended.
    async fn replace_operator(&mut self) {
        self.operator = self
            .environment
            .operator(&self.objects.namespace, PREFIX, None)
            .await;
        wait_until_idle(&self.operator).await;
    }

    /// Moves a tenth of all aliases at once: in each run another tenth, from the middle on.
    async fn move_tenth(&self, run: usize) -> Duration {
        let tenth = self.objects.count / 10;
        let first = self.objects.count / 2 + run * tenth;
        let moved = first..first + tenth;
        let what = format!("{tenth} of {} aliases moved at once", self.objects.count);
        let task = Task::start(&what, tenth as u64);
        let mut patched = self.count_patched().await;
        let goal = patched.current() + tenth;
        let requested = self.objects.move_aliases(&self.environment, moved, 2).await;
        let last = patched.wait_for(goal, &task, self.objects.timeout()).await;
        task.done();
        self.wait_until_idle().await;
        last - requested
    }

    /// Restarts the operator with one alias in a hundred moved meanwhile: in each run others, from the first on.
    async fn restart_with_moves(&mut self, run: usize) -> Start {
        let hundredth = (self.objects.count / 100).max(1);
        let first = run * hundredth;
        let moved = first..first + hundredth;
        let what = format!(
            "start with {} bindings, {hundredth} moved",
            self.objects.count
        );
        let task = Task::start(&what, hundredth as u64);
        self.operator.stop().unwrap();
        self.objects
            .move_aliases_silently(&self.environment, moved, 2)
            .await;
        let mut patched = self.count_patched().await;
        let goal = patched.current() + hundredth;
        let timeout = self.objects.timeout();
        let began = Instant::now();
        let started = async {
            self.operator.start_again_within(TIMEOUT).await.unwrap();
            began.elapsed()
        };
        let (ready, last) = tokio::join!(started, patched.wait_for(goal, &task, timeout));
        task.done();
        self.wait_until_idle().await;
        Start {
            ready,
            patched: last - began,
        }
    }

    async fn count_patched(&self) -> ObjectCounter {
        let (namespace, text) = (&self.objects.namespace, holds_version(2));
        ObjectCounter::start(namespace, &kinds::DEPLOYMENT, text).await
    }

    async fn end(mut self) {
        self.operator.stop().unwrap();
        self.environment.end().await;
    }
}

/// Groups requests into polls: a gap of at least this length separates two polls.
pub fn polls(requests: &[Request], gap: Duration) -> Vec<Poll> {
    let mut polls: Vec<Poll> = Vec::new();
    for request in requests {
        let to = request.answered.unwrap_or(request.at);
        match polls.last_mut() {
            Some(poll) if request.at.saturating_duration_since(poll.to) < gap => {
                poll.to = poll.to.max(to);
            }
            _ => polls.push(Poll {
                from: request.at,
                to,
            }),
        }
    }
    polls
}

/// The share of a core outside polls, and the processor time of a poll beyond it.
fn split_by_polls(samples: &Samples, polls: &[Poll]) -> (f64, Duration) {
    let is_polling = |from: Instant, to: Instant| {
        polls
            .iter()
            .any(|poll| from < poll.to + PROCESSING && poll.from < to)
    };
    // Processor time and elapsed time.
    let mut outside = (Duration::ZERO, Duration::ZERO);
    let mut inside = (Duration::ZERO, Duration::ZERO);
    for pair in samples.windows(2) {
        let ((from, before), (to, after)) = (pair[0], pair[1]);
        let sum = if is_polling(from, to) {
            &mut inside
        } else {
            &mut outside
        };
        *sum = (sum.0 + after.saturating_sub(before), sum.1 + (to - from));
    }
    let share_outside = if outside.1.is_zero() {
        f64::NAN
    } else {
        share(outside.0, outside.1)
    };
    let count = u32::try_from(polls.len())
        .expect("there are few polls")
        .max(1);
    let expected = inside.1.mul_f64(share_outside.max(0.0));
    (share_outside, inside.0.saturating_sub(expected) / count)
}
