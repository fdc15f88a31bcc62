//! The cost of a poll if few models are watched of a registry that has many.
//!
//! Absent: bindings. Only the registry's side matters here.

use std::time::Duration;

use pointsman_env::Operator;
use pointsman_env::interceptor::Interceptor;
use pointsman_env::progress::Task;

use crate::durations::Unit;
use crate::environment::{Environment, TIMEOUT};
use crate::object_set::ObjectSet;
use crate::report::Measurement;
use crate::scale::polls;

const WATCHED: usize = 50;
const PREFIX: &str = "watched";
/// The prefix of the models that have no `RegisteredModel`.
const OTHERS: &str = "others";
const INTERVAL: Duration = Duration::from_secs(1);
/// Polls that are not counted: the server's first responses about new tables are slower.
const WARM_UP_POLLS: usize = 5;
/// Two equal costs differ by chance up to this ratio.
const RATIO_GOAL: f64 = 1.25;

/// The average cost of one poll.
struct PollCost {
    models: usize,
    polls: usize,
    requests: f64,
    bytes: f64,
    operator: Duration,
    mlflow: Duration,
}

struct FewOfManyFixture<'environment> {
    environment: &'environment Environment,
    objects: ObjectSet,
    operator: Operator,
    registry: Interceptor,
}

/// Measures with the watched models only, and then with more and more others in the same registry.
pub async fn measure(
    environment: &Environment,
    sizes: &[usize],
    counted_polls: usize,
) -> Vec<Measurement> {
    let watched = WATCHED.min(sizes[0]);
    let fixture = FewOfManyFixture::start(environment, watched).await;
    let mut costs = vec![fixture.measure_polls(watched, counted_polls).await];
    let mut registered = watched;
    for size in sizes.iter().copied().filter(|size| *size > watched) {
        let database = environment.mlflow.database();
        let others = registered..size;
        environment
            .registrar
            .seed_versions(&database, OTHERS, others, 2)
            .await
            .unwrap();
        registered = size;
        costs.push(fixture.measure_polls(size, counted_polls).await);
    }
    fixture.end().await;
    measurements(watched, &costs)
}

impl<'environment> FewOfManyFixture<'environment> {
    async fn start(environment: &'environment Environment, watched: usize) -> Self {
        environment.register(PREFIX, watched).await;
        let registry = Interceptor::start(environment.mlflow.url(), None)
            .await
            .unwrap();
        let objects = ObjectSet::new(environment, PREFIX, watched).await;
        let operator = environment.operator(&objects.namespace, PREFIX, None).await;
        let interval = format!("{}s", INTERVAL.as_secs());
        objects.mirror_models(&registry.url(), &interval).await;
        Self {
            environment,
            objects,
            operator,
            registry,
        }
    }

    async fn measure_polls(&self, models: usize, counted_polls: usize) -> PollCost {
        let watched = self.objects.count;
        let what = format!("{watched} of {models} models watched, {counted_polls} polls");
        let task = Task::start(&what, 0);
        self.wait_for_polls(WARM_UP_POLLS).await;
        let (operator_before, mlflow_before) = self.processor_times();
        let mark = self.registry.mark();
        self.wait_for_polls(counted_polls).await;
        let (operator, mlflow) = self.processor_times();
        let requests = self.registry.since(mark);
        task.done();
        let polls = polls(&requests, INTERVAL / 3).len().max(1);
        let divisor = u32::try_from(polls).expect("there are few polls");
        PollCost {
            models,
            polls,
            requests: average(requests.len() as u64, divisor),
            bytes: average(requests.iter().map(|request| request.bytes).sum(), divisor),
            operator: operator.saturating_sub(operator_before) / divisor,
            mlflow: mlflow.saturating_sub(mlflow_before) / divisor,
        }
    }

    /// Waits until this many more polls have ended.
    async fn wait_for_polls(&self, count: usize) {
        let mark = self.registry.mark();
        let polled = async {
            while polls(&self.registry.since(mark), INTERVAL / 3).len() <= count {
                tokio::time::sleep(INTERVAL / 10).await;
            }
        };
        let factor = u32::try_from(count).expect("there are few polls");
        tokio::time::timeout(TIMEOUT + INTERVAL * 3 * factor, polled)
            .await
            .expect("the registry is polled in time");
    }

    /// Of the operator and of MLflow.
    fn processor_times(&self) -> (Duration, Duration) {
        let operator = self.operator.processor_time().unwrap();
        (operator, self.environment.mlflow.processor_time().unwrap())
    }

    async fn end(mut self) {
        self.operator.stop().unwrap();
        self.objects.namespace.end().await.unwrap();
    }
}

#[allow(clippy::cast_precision_loss)] // sums are far below 2^52
fn average(sum: u64, count: u32) -> f64 {
    sum as f64 / f64::from(count)
}

fn measurements(watched: usize, costs: &[PollCost]) -> Vec<Measurement> {
    let alone = &costs[0];
    let name = |cost: &PollCost| format!("one poll, {watched} watched of {} models", cost.models);
    let mut measurements = Vec::new();
    for cost in costs {
        let measurement = Measurement::new(name(cost), cost.description());
        measurements.push(measurement.of_runs(cost.polls));
    }
    for (index, cost) in costs.iter().enumerate().skip(1) {
        let ratios @ [requests, bytes, operator, mlflow] = cost.ratios(alone);
        let figure = format!(
            "requests {requests:.2}, bytes {bytes:.2}, operator {operator:.2}, MLflow {mlflow:.2}"
        );
        let met = ratios.iter().all(|ratio| *ratio <= RATIO_GOAL);
        let name = format!("{}, as a multiple of {watched} of {watched}", name(cost));
        let measurement = Measurement::new(name, figure)
            .with_goal("≤ 1.25 each", met)
            .of_runs(cost.polls);
        let is_largest = index + 1 == costs.len();
        measurements.push(if is_largest {
            measurement
        } else {
            measurement.undocumented()
        });
    }
    measurements
}

impl PollCost {
    fn description(&self) -> String {
        let (requests, bytes) = (self.requests, self.bytes);
        let [operator, mlflow] =
            [self.operator, self.mlflow].map(|time| Unit::Milliseconds.format(time));
        format!(
            "{requests:.1} requests, {bytes:.0} bytes, processor time {operator} of the operator and {mlflow} of MLflow"
        )
    }

    fn ratios(&self, alone: &Self) -> [f64; 4] {
        // A time below the resolution is no divisor.
        let ratio =
            |time: Duration, alone: Duration| time.as_secs_f64() / alone.as_secs_f64().max(0.000_1);
        [
            self.requests / alone.requests,
            self.bytes / alone.bytes,
            ratio(self.operator, alone.operator),
            ratio(self.mlflow, alone.mlflow),
        ]
    }
}
