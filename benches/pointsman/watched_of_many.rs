//! What a look costs where few models are watched of a registry that has many.
//!
//! Absent: bindings. What is looked at is the registry's side alone.

use std::time::Duration;

use pointsman_env::Operator;
use pointsman_env::interceptor::Interceptor;
use pointsman_env::progress::Task;

use crate::figures::milliseconds;
use crate::fleet::Fleet;
use crate::ground::{Ground, PATIENCE};
use crate::report::Goal;
use crate::settled_at_scale::looks;

const WATCHED: usize = 50;
const PREFIX: &str = "watched";
/// The models that nobody watches.
const OTHERS: &str = "others";
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks that are not counted: a server's first answers about new tables are slower.
const WARMING: usize = 5;
/// What is left to chance between two measurements that should be equal.
const GOAL: f64 = 1.25;

/// What one look costs, on average of many.
struct Cost {
    models: usize,
    looks: usize,
    requests: f64,
    bytes: f64,
    operator: Duration,
    mlflow: Duration,
}

struct Stage<'ground> {
    ground: &'ground Ground,
    fleet: Fleet,
    operator: Operator,
    registry: Interceptor,
}

/// With nobody else's models, and then with more and more of them in the same registry.
pub async fn measured(ground: &Ground, sizes: &[usize], counted: usize) -> Vec<Goal> {
    let watched = WATCHED.min(sizes[0]);
    let stage = Stage::start(ground, watched).await;
    let mut costs = vec![stage.cost(watched, counted).await];
    let mut there = watched;
    for size in sizes.iter().copied().filter(|size| *size > watched) {
        ground
            .registrar
            .seed_versions(&ground.mlflow.database(), OTHERS, there..size, 2)
            .await
            .unwrap();
        there = size;
        costs.push(stage.cost(size, counted).await);
    }
    stage.end().await;
    goals(watched, &costs)
}

impl<'ground> Stage<'ground> {
    async fn start(ground: &'ground Ground, watched: usize) -> Self {
        ground.register(PREFIX, watched).await;
        let registry = Interceptor::start(ground.mlflow.url(), None).await.unwrap();
        let fleet = Fleet::new(ground, PREFIX, watched).await;
        let operator = ground.operator(&fleet.place, PREFIX, None).await;
        fleet
            .declare(&registry.url(), &format!("{}s", INTERVAL.as_secs()))
            .await;
        Self {
            ground,
            fleet,
            operator,
            registry,
        }
    }

    async fn cost(&self, models: usize, counted: usize) -> Cost {
        let task = Task::start(
            &format!(
                "{} of {models} models watched, {counted} looks",
                self.fleet.count
            ),
            0,
        );
        self.looked(WARMING).await;
        let (operator, mlflow) = self.used();
        let mark = self.registry.mark();
        self.looked(counted).await;
        let (operator_after, mlflow_after) = self.used();
        let asked = self.registry.since(mark);
        task.done();
        let looks = looks(&asked, INTERVAL / 3).len().max(1);
        let each = u32::try_from(looks).expect("few looks");
        Cost {
            models,
            looks,
            requests: of(asked.len() as u64, each),
            bytes: of(asked.iter().map(|request| request.bytes).sum(), each),
            operator: operator_after.saturating_sub(operator) / each,
            mlflow: mlflow_after.saturating_sub(mlflow) / each,
        }
    }

    /// Waits until so many more looks have come to their end.
    async fn looked(&self, times: usize) {
        let mark = self.registry.mark();
        let enough = async {
            while looks(&self.registry.since(mark), INTERVAL / 3).len() <= times {
                tokio::time::sleep(INTERVAL / 10).await;
            }
        };
        let patience = PATIENCE + INTERVAL * 3 * u32::try_from(times).expect("few looks");
        tokio::time::timeout(patience, enough)
            .await
            .expect("the registry is not looked at in time");
    }

    fn used(&self) -> (Duration, Duration) {
        (
            self.operator.processor_time().unwrap(),
            self.ground.mlflow.processor_time().unwrap(),
        )
    }

    async fn end(mut self) {
        self.operator.stop().unwrap();
        self.fleet.place.end().await.unwrap();
    }
}

#[allow(clippy::cast_precision_loss)] // far from 2^52 bytes
fn of(sum: u64, looks: u32) -> f64 {
    sum as f64 / f64::from(looks)
}

fn goals(watched: usize, costs: &[Cost]) -> Vec<Goal> {
    let alone = &costs[0];
    let mut goals = vec![
        Goal::noted(
            format!("a look, {watched} watched of {watched} models"),
            alone.told(),
        )
        .of_runs(alone.looks),
    ];
    for cost in &costs[1..] {
        let what = format!("a look, {watched} watched of {} models", cost.models);
        goals.push(Goal::noted(what.clone(), cost.told()).of_runs(cost.looks));
        let [requests, bytes, operator, mlflow] = cost.ratios(alone);
        let figure = format!(
            "requests {requests:.2}, bytes {bytes:.2}, operator {operator:.2}, MLflow {mlflow:.2}"
        );
        let met = [requests, bytes, operator, mlflow]
            .iter()
            .all(|ratio| *ratio <= GOAL);
        goals.push(
            Goal::checked(
                format!("{what}, as a multiple of the first"),
                "≤ 1.25 each",
                figure,
                met,
            )
            .of_runs(cost.looks),
        );
    }
    goals
}

impl Cost {
    fn told(&self) -> String {
        let (operator, mlflow) = (milliseconds(self.operator), milliseconds(self.mlflow));
        format!(
            "{:.1} requests, {:.0} bytes, {operator} of a processor by the operator, {mlflow} by MLflow",
            self.requests, self.bytes
        )
    }

    fn ratios(&self, alone: &Self) -> [f64; 4] {
        // What is too short to be measured is not divided by.
        let time =
            |this: Duration, first: Duration| this.as_secs_f64() / first.as_secs_f64().max(0.000_1);
        [
            self.requests / alone.requests,
            self.bytes / alone.bytes,
            time(self.operator, alone.operator),
            time(self.mlflow, alone.mlflow),
        ]
    }
}
