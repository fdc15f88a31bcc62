//! An operator with nothing to do: writes, requests to the registry, memory.
//!
//! Absent: moves.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::progress::Task;
use pointsman_env::{Kind, Operator, Selection, TestNamespace, kinds};

use crate::durations::megabytes;
use crate::environment::{
    Environment, TIMEOUT, apply, binding, deployment, is_ready, model, registry,
};
use crate::report::Measurement;

const PREFIX: &str = "settled";
const INTERVAL: Duration = Duration::from_secs(10);
const MEMORY_GOAL: u64 = 30_000_000;
const WRITES_GOAL: Duration = Duration::from_secs(300);
const BINDINGS: usize = 100;
const MODELS: usize = 1000;
/// Nothing is counted for this time after objects were created.
const SETTLING: Duration = Duration::from_secs(10);
/// Requests that are closer together belong to one poll.
const POLL_GAP: Duration = Duration::from_secs(3);

/// One operator behind two counting proxies.
struct SettledFixture {
    namespace: TestNamespace,
    operator: Operator,
    /// Before the API server, for the operator only.
    api: Interceptor,
    /// Before MLflow.
    registry: Interceptor,
}

impl SettledFixture {
    async fn start(environment: &Environment) -> Self {
        let server = &environment.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        let registry = Interceptor::start(environment.mlflow.url(), None)
            .await
            .unwrap();
        let namespace = environment.namespace(PREFIX).await;
        let operator = environment
            .operator(&namespace, PREFIX, Some(api.url()))
            .await;
        Self {
            namespace,
            operator,
            api,
            registry,
        }
    }

    /// Creates these models and waits until all so far are mirrored.
    async fn create_models(&self, numbers: Range<usize>) {
        let total = numbers.end;
        apply(&self.namespace, numbers.map(|number| model(&name(number)))).await;
        self.wait_until_ready(&kinds::REGISTERED_MODEL, total).await;
    }

    async fn create_bindings(&self, count: usize) {
        let names: Vec<String> = (0..count).map(name).collect();
        apply(&self.namespace, names.iter().map(|name| deployment(name))).await;
        apply(&self.namespace, names.iter().map(|name| binding(name))).await;
        self.wait_until_ready(&kinds::ALIAS_BINDING, count).await;
    }

    async fn wait_until_ready(&self, kind: &Kind, count: usize) {
        let what = format!("{count} {} are ready", kind.plural);
        let all_ready =
            |seen: &pointsman_env::Objects| seen.len() == count && seen.values().all(is_ready);
        self.namespace
            .eventually_all(
                &what,
                TIMEOUT * 3,
                kind,
                &Selection::Labelled(""),
                all_ready,
            )
            .await;
    }

    /// Counts writes and requests for this time.
    async fn count(&self, models: usize, duration: Duration) -> Counted {
        tokio::time::sleep(SETTLING).await;
        let (api_mark, registry_mark) = (self.api.mark(), self.registry.mark());
        tokio::time::sleep(duration).await;
        let counted = Counted {
            models,
            duration,
            writes: self.api.writes_since(api_mark),
            requests: self.registry.since(registry_mark),
        };
        counted.print();
        counted
    }
}

fn name(number: usize) -> String {
    format!("{PREFIX}-{number:05}")
}

/// Writes and requests that went through the proxies.
struct Counted {
    models: usize,
    duration: Duration,
    writes: Vec<Request>,
    requests: Vec<Request>,
}

impl Counted {
    fn polls(&self) -> usize {
        let gaps = self
            .requests
            .windows(2)
            .filter(|pair| pair[1].at - pair[0].at > POLL_GAP);
        gaps.count() + usize::from(!self.requests.is_empty())
    }

    /// Lists the requests, to find the cause of a missed goal.
    fn print(&self) {
        for (what, requests) in [("written", &self.writes), ("requested", &self.requests)] {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for request in requests {
                *counts
                    .entry(format!("{} {}", request.method, request.path))
                    .or_default() += 1;
            }
            for (request, count) in counts {
                eprintln!("  {} models, {what} {count} times: {request}", self.models);
            }
        }
    }

    fn writes_measurement(&self) -> Measurement {
        let figure = format!("{} in {} s", self.writes.len(), self.duration.as_secs());
        let measurement = Measurement::new("writes to the API, 100 settled bindings", figure);
        // A shorter time can only miss the goal.
        if self.writes.is_empty() && self.duration < WRITES_GOAL {
            return measurement.with_undecided_goal("0 in 5 minutes");
        }
        measurement.with_goal("0 in 5 minutes", self.writes.is_empty())
    }

    fn requests_measurement(&self) -> Measurement {
        let (requests, polls) = (self.requests.len(), self.polls());
        let (models, interval) = (self.models, INTERVAL.as_secs());
        Measurement::new(
            format!("requests to the registry, {models} models, interval {interval} s"),
            format!(
                "{requests} in {polls} polls ({} s)",
                self.duration.as_secs()
            ),
        )
        .with_goal("1 per interval", polls > 0 && requests == polls)
    }
}

/// Measures while the cluster grows from nothing to 100 bindings and 1,000 models.
pub async fn measure(environment: &Environment, duration: Duration) -> Vec<Measurement> {
    let short = duration.min(INTERVAL * 4);
    environment.register(PREFIX, MODELS).await;
    let mut fixture = SettledFixture::start(environment).await;
    let interval = format!("{}s", INTERVAL.as_secs());
    apply(
        &fixture.namespace,
        [registry(&fixture.registry.url(), &interval)],
    )
    .await;

    let task = Task::start("1 model, counting", 0);
    fixture.create_models(0..1).await;
    let one = fixture.count(1, short).await;
    task.done();

    let task = Task::start("100 bindings, rolling out and then counting", 0);
    fixture.create_models(1..BINDINGS).await;
    fixture.create_bindings(BINDINGS).await;
    let hundred = fixture.count(BINDINGS, duration).await;
    let rolled_out = fixture.operator.resident_bytes().unwrap();
    task.done();
    let restarted = memory_of_restarted(environment, &fixture.namespace).await;

    let task = Task::start("1000 models, counting", 0);
    fixture.create_models(BINDINGS..MODELS).await;
    let thousand = fixture.count(MODELS, short).await;
    let with_models = fixture.operator.resident_bytes().unwrap();
    task.done();

    fixture.operator.stop().unwrap();
    fixture.namespace.end().await.unwrap();
    let mut measurements = vec![
        hundred.writes_measurement(),
        one.requests_measurement().undocumented(),
        hundred.requests_measurement().undocumented(),
        thousand.requests_measurement(),
    ];
    measurements.extend(memory_measurements(rolled_out, restarted, with_models));
    measurements
}

/// The memory of a new operator that speaks TLS to the API server directly, with all objects that there are.
async fn memory_of_restarted(environment: &Environment, namespace: &TestNamespace) -> u64 {
    let task = Task::start("memory after a start, without proxies", 0);
    let mut operator = environment.operator(namespace, "restarted", None).await;
    tokio::time::sleep(SETTLING).await;
    let memory = operator.resident_bytes().unwrap();
    operator.stop().unwrap();
    task.done();
    memory
}

fn memory_measurements(rolled_out: u64, restarted: u64, with_models: u64) -> [Measurement; 3] {
    let measurement = |what: &str, bytes: u64| {
        Measurement::new(format!("resident memory, {what}"), megabytes(bytes))
    };
    let with_goal =
        |what: &str, bytes: u64| measurement(what, bytes).with_goal("< 30 MB", bytes < MEMORY_GOAL);
    [
        with_goal("100 bindings, after rolling all out", rolled_out),
        with_goal("100 bindings, after a restart", restarted),
        measurement("100 bindings and 1000 models", with_models),
    ]
}
