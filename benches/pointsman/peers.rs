//! Pointsman beside other ways of following a registry, with the same number of objects: the cost of an idle operator for itself,
//! the API server and the registry, and how late it sees a move of an alias.
//!
//! Absent: the programs of other projects (`other_controllers.rs`), and how a cost is measured (`idle_cost.rs`).

use std::time::{Duration, Instant};

use futures::future::join_all;
use pointsman_env::interceptor::Interceptor;
use pointsman_env::progress::Task;
use pointsman_env::{Operator, kinds};
use serde_json::json;

use crate::durations::{Durations, Unit};
use crate::environment::{Environment, TIMEOUT, binding, deployment};
use crate::idle_cost::{IdleCost, RegistryCost, ratio, wait_until_quiet};
use crate::object_set::ObjectSet;
use crate::observers::ValueObserver;
use crate::other_controllers::{Controller, OwnCost};
use crate::per_model_timers::PerModelTimers;
use crate::report::Measurement;

pub const PREFIX: &str = "peers";
const MINUTE: Duration = Duration::from_secs(60);

/// How much is measured.
pub struct Plan {
    pub objects: usize,
    /// The interval of the peers.
    pub interval: Duration,
    /// The interval that Pointsman can afford instead.
    short_interval: Duration,
    pub window: Duration,
    /// An odd number, so that the delays differ.
    moves: usize,
}

impl Plan {
    pub fn full() -> Self {
        Self {
            objects: 1000,
            interval: MINUTE,
            short_interval: Duration::from_secs(5),
            window: 2 * MINUTE,
            moves: 11,
        }
    }

    pub fn quick() -> Self {
        let interval = Duration::from_secs(10);
        Self {
            objects: 50,
            interval,
            short_interval: Duration::from_secs(2),
            window: 2 * interval,
            moves: 3,
        }
    }

    pub fn names(&self) -> Vec<String> {
        (0..self.objects).map(name).collect()
    }

    /// The models whose aliases are moved: evenly distributed, the last one first. Timers tick in the order of the models; moves
    /// in the same order would all have the same delay.
    fn moved_models(&self) -> Vec<String> {
        let numbers = (0..self.moves)
            .rev()
            .map(|number| number * self.objects / self.moves);
        numbers.map(name).collect()
    }
}

fn name(number: usize) -> String {
    format!("{PREFIX}-{number:05}")
}

/// Pointsman behind two counting proxies.
struct PointsmanFixture {
    objects: ObjectSet,
    operator: Operator,
    api: Interceptor,
    registry: Interceptor,
}

impl PointsmanFixture {
    /// Models, bindings and Deployments that run the version of their alias.
    async fn start(environment: &Environment, plan: &Plan) -> Self {
        let server = &environment.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        let registry = Interceptor::start(environment.mlflow.url(), None)
            .await
            .unwrap();
        let objects = ObjectSet::new(environment, PREFIX, plan.objects).await;
        let operator = environment
            .operator(&objects.namespace, PREFIX, Some(api.url()))
            .await;
        objects
            .mirror_models(&registry.url(), &in_seconds(plan.interval))
            .await;
        objects
            .create("Deployments", &kinds::DEPLOYMENT, |name| deployment(&name))
            .await;
        objects
            .create("bindings", &kinds::ALIAS_BINDING, |name| binding(&name))
            .await;
        objects
            .wait_until_ready("bindings ready", &kinds::ALIAS_BINDING)
            .await;
        let fixture = Self {
            objects,
            operator,
            api,
            registry,
        };
        wait_until_quiet(&fixture.api).await;
        fixture
    }

    async fn measure_cost(
        &self,
        environment: &Environment,
        window: Duration,
    ) -> (RegistryCost, IdleCost) {
        let pid = self.operator.pid().unwrap();
        tokio::join!(
            RegistryCost::measure(environment, &self.registry, window),
            IdleCost::measure(pid, &self.api, &self.registry, window)
        )
    }

    /// From the moves of aliases to the models' statuses.
    async fn measure_delays(
        &self,
        environment: &Environment,
        plan: &Plan,
        interval: Duration,
        version: &str,
    ) -> Durations {
        let namespace = &self.objects.namespace;
        let mirrored = |model: String| {
            let mut alias = ValueObserver::of_alias(namespace, &model);
            async move { alias.wait_for(version).await }
        };
        let change = |model| move_alias(environment, model, version);
        measure_delays(plan, interval, change, mirrored).await
    }

    async fn set_interval(&self, interval: Duration) {
        let patch = json!({"spec": {"interval": in_seconds(interval)}});
        let namespace = &self.objects.namespace;
        namespace
            .patch(&kinds::MODEL_REGISTRY, "mlflow", &patch)
            .await
            .unwrap();
        wait_until_quiet(&self.api).await;
    }

    async fn end(mut self) {
        self.operator.stop().unwrap();
        self.objects.namespace.end().await.unwrap();
    }
}

pub fn in_seconds(interval: Duration) -> String {
    format!("{}s", interval.as_secs())
}

async fn move_alias(environment: &Environment, model: String, version: &str) {
    environment
        .registrar
        .set_alias(&model, "champion", version)
        .await
        .unwrap();
}

/// Changes aliases or tags one after the other within one interval; returns how long after each change it was seen.
pub async fn measure_delays<C: Future<Output = ()>, S: Future<Output = Instant>>(
    plan: &Plan,
    interval: Duration,
    change: impl Fn(String) -> C,
    seen: impl Fn(String) -> S,
) -> Durations {
    let mut delays = Vec::new();
    for model in plan.moved_models() {
        let seen = seen(model.clone());
        let changed = Instant::now();
        change(model).await;
        delays.push(async move {
            let seen = tokio::time::timeout(TIMEOUT, seen).await;
            seen.expect("the change is seen in time")
                .saturating_duration_since(changed)
        });
        tokio::time::sleep(interval / u32::try_from(plan.moves).unwrap()).await;
    }
    Durations::of(join_all(delays).await)
}

/// The figures of one way of following at one interval.
struct Follower {
    name: String,
    cost: RegistryCost,
    delays: Durations,
}

impl Follower {
    fn measurements(&self, objects: usize) -> [Measurement; 2] {
        let what = format!("{objects} models, {}", self.name);
        let delays = self.delays.median_figure(Unit::Seconds);
        [
            Measurement::new(
                format!("{what}: cost to the registry"),
                self.cost.description(),
            ),
            Measurement::new(format!("{what}: alias moved → seen"), delays)
                .of_runs(self.delays.count()),
        ]
    }

    /// How many times as expensive and as late the peer is; the server's own processor time is subtracted from both.
    fn ratios(&self, peer: &Self, unused: &RegistryCost) -> Measurement {
        let processor = |cost: &RegistryCost| {
            cost.processor_seconds_per_minute() - unused.processor_seconds_per_minute()
        };
        let median = |delays: &Durations| delays.percentile(50).as_secs_f64();
        let requests = ratio(
            peer.cost.requests_per_minute(),
            self.cost.requests_per_minute(),
        );
        let processor = ratio(processor(&peer.cost), processor(&self.cost));
        let delay = ratio(median(&peer.delays), median(&self.delays));
        let figure =
            format!("requests {requests}, registry's processor {processor}, delay (p50) {delay}");
        Measurement::new(format!("ratios: {} ÷ {}", peer.name, self.name), figure).documented()
    }
}

/// The timers first, then Pointsman, each alone with the registry; and the comparison with the other controllers.
pub async fn measure(
    environment: &Environment,
    plan: &Plan,
    controllers: &[Controller],
) -> Vec<Measurement> {
    environment.register(PREFIX, plan.objects).await;
    let (unused, timers) = measure_timers(environment, plan).await;
    let fixture = PointsmanFixture::start(environment, plan).await;
    let (long, idle) = measure_pointsman(environment, plan, &fixture, plan.interval, "1").await;
    let short_interval = plan.short_interval;
    fixture.set_interval(short_interval).await;
    let (short, _) = measure_pointsman(environment, plan, &fixture, short_interval, "2").await;
    fixture.end().await;
    let own = OwnCost {
        idle: &idle,
        delays: &long.delays,
    };
    let compared: Vec<Measurement> = controllers
        .iter()
        .flat_map(|controller| controller.measurements(plan, &own))
        .collect();
    let mut measurements = measurements(plan, &unused, &timers, &[long, short], &idle);
    measurements.extend(compared);
    measurements
}

/// The cost of a registry without requests, and with a timer for each model.
async fn measure_timers(environment: &Environment, plan: &Plan) -> (RegistryCost, Follower) {
    let proxy = Interceptor::start(environment.mlflow.url(), None)
        .await
        .unwrap();
    let task = Task::start("MLflow without requests, counting", 0);
    let unused = RegistryCost::measure(environment, &proxy, plan.window).await;
    task.done();
    let name = format!("a timer for each, every {} s", plan.interval.as_secs());
    let task = Task::start(&format!("{name}: counting, then moving aliases"), 0);
    let mut timers = PerModelTimers::start(&proxy.url(), plan.names(), plan.interval);
    timers.wait_for_models(plan.objects).await;
    let cost = RegistryCost::measure(environment, &proxy, plan.window).await;
    let seen = |model: String| timers.wait_for_version(model, "2");
    let change = |model| move_alias(environment, model, "2");
    let delays = measure_delays(plan, plan.interval, change, seen).await;
    task.done();
    (unused, Follower { name, cost, delays })
}

async fn measure_pointsman(
    environment: &Environment,
    plan: &Plan,
    fixture: &PointsmanFixture,
    interval: Duration,
    version: &str,
) -> (Follower, IdleCost) {
    let name = format!("Pointsman, every {} s", interval.as_secs());
    let task = Task::start(&format!("{name}: counting, then moving aliases"), 0);
    let (cost, idle) = fixture.measure_cost(environment, plan.window).await;
    let delays = fixture
        .measure_delays(environment, plan, interval, version)
        .await;
    wait_until_quiet(&fixture.api).await;
    task.done();
    (Follower { name, cost, delays }, idle)
}

fn measurements(
    plan: &Plan,
    unused: &RegistryCost,
    timers: &Follower,
    own: &[Follower],
    idle: &IdleCost,
) -> Vec<Measurement> {
    let mut measurements = vec![Measurement::new(
        "cost of a registry without requests",
        unused.description(),
    )];
    measurements.extend(timers.measurements(plan.objects));
    measurements.extend(
        own.iter()
            .flat_map(|follower| follower.measurements(plan.objects)),
    );
    measurements.extend(own.iter().map(|follower| follower.ratios(timers, unused)));
    let name = format!("Pointsman, {} models and bindings", plan.objects);
    measurements.extend(idle.measurements(&name));
    measurements
}
