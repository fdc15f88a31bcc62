//! Pointsman beside its peers, with the same number of objects: what an idle operator
//! costs itself, the API server and the registry, and how late it sees that an alias moved.
//!
//! Absent: other projects' programs (`controllers.rs` has them), and how costs are counted (`costs.rs`).

use std::time::{Duration, Instant};

use futures::future::join_all;
use pointsman_env::interceptor::Interceptor;
use pointsman_env::progress::Task;
use pointsman_env::{Operator, kinds};
use serde_json::json;

use crate::controllers::{Beside, Controller};
use crate::costs::{Cost, Idle, comes_to_rest, times};
use crate::figures::Durations;
use crate::fleet::Fleet;
use crate::ground::{Ground, PATIENCE, binding, deployment};
use crate::poller::Poller;
use crate::report::Goal;
use crate::sightings::Mirror;

pub const PREFIX: &str = "peers";
const MINUTE: Duration = Duration::from_secs(60);

/// How much is measured.
pub struct Plan {
    pub objects: usize,
    /// The peers'.
    pub interval: Duration,
    /// What Pointsman can afford instead.
    often: Duration,
    pub window: Duration,
    /// An odd number, for the distances to be different.
    moves: usize,
}

impl Plan {
    pub fn whole() -> Self {
        let interval = MINUTE;
        Self {
            objects: 1000,
            interval,
            often: Duration::from_secs(5),
            window: 2 * MINUTE,
            moves: 11,
        }
    }

    /// To try the measurement itself.
    pub fn quick() -> Self {
        let interval = Duration::from_secs(10);
        Self {
            objects: 50,
            interval,
            often: Duration::from_secs(2),
            window: 2 * interval,
            moves: 3,
        }
    }

    pub fn names(&self) -> Vec<String> {
        (0..self.objects).map(name).collect()
    }

    /// The models whose aliases are moved, from all over; the last first. Timers ring in the order of the models, and a move before
    /// each of them would be seen at once: so their distances from the moves are all different.
    fn moved(&self) -> Vec<String> {
        (0..self.moves)
            .rev()
            .map(|number| name(number * self.objects / self.moves))
            .collect()
    }
}

fn name(number: usize) -> String {
    format!("{PREFIX}-{number:05}")
}

/// Pointsman behind two proxies that count.
struct Stage {
    fleet: Fleet,
    operator: Operator,
    api: Interceptor,
    registry: Interceptor,
}

impl Stage {
    /// As many models and bindings as the plan says, each with a Deployment that runs the version its alias names.
    async fn start(ground: &Ground, plan: &Plan) -> Self {
        let server = &ground.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        let registry = Interceptor::start(ground.mlflow.url(), None).await.unwrap();
        let fleet = Fleet::new(ground, PREFIX, plan.objects).await;
        let operator = ground.operator(&fleet.place, PREFIX, Some(api.url())).await;
        fleet
            .declare(&registry.url(), &in_seconds(plan.interval))
            .await;
        fleet
            .create("Deployments", &kinds::DEPLOYMENT, |name| deployment(&name))
            .await;
        fleet
            .create("bindings", &kinds::ALIAS_BINDING, |name| binding(&name))
            .await;
        fleet
            .await_ready("bindings rolling out", &kinds::ALIAS_BINDING)
            .await;
        let stage = Self {
            fleet,
            operator,
            api,
            registry,
        };
        comes_to_rest(&stage.api).await;
        stage
    }

    /// What it costs the registry, and what it costs besides.
    async fn measured(&self, ground: &Ground, window: Duration) -> (Cost, Idle) {
        let pid = self.operator.pid().unwrap();
        tokio::join!(
            Cost::of(ground, &self.registry, window),
            Idle::of(pid, &self.api, &self.registry, window)
        )
    }

    /// How late the mirror names what aliases are moved to.
    async fn late(
        &self,
        ground: &Ground,
        plan: &Plan,
        interval: Duration,
        version: &str,
    ) -> Durations {
        let place = &self.fleet.place;
        let mirrored = |model: String| {
            let mut mirror = Mirror::of(place.client(), place.namespace(), &model);
            async move { mirror.alias(version).await }
        };
        late(
            plan,
            interval,
            |model| move_alias(ground, model, version),
            mirrored,
        )
        .await
    }

    async fn asks_every(&self, interval: Duration) {
        let patch = json!({"spec": {"interval": in_seconds(interval)}});
        self.fleet
            .place
            .patch(&kinds::MODEL_REGISTRY, "mlflow", &patch)
            .await
            .unwrap();
        comes_to_rest(&self.api).await;
    }

    async fn end(mut self) {
        self.operator.stop().unwrap();
        self.fleet.place.end().await.unwrap();
    }
}

pub fn in_seconds(interval: Duration) -> String {
    format!("{}s", interval.as_secs())
}

async fn move_alias(ground: &Ground, model: String, version: &str) {
    ground
        .registrar
        .set_alias(&model, "champion", version)
        .await
        .unwrap();
}

/// Moves aliases or tags one after the other, all within one interval, and says how long after each the new version was seen.
pub async fn late<M: Future<Output = ()>, F: Future<Output = Instant>>(
    plan: &Plan,
    interval: Duration,
    change: impl Fn(String) -> M,
    seen: impl Fn(String) -> F,
) -> Durations {
    let mut delays = Vec::new();
    for model in plan.moved() {
        let seen = seen(model.clone());
        let moved = Instant::now();
        change(model).await;
        delays.push(async move {
            let seen = tokio::time::timeout(PATIENCE, seen).await;
            seen.expect("the move was not seen in time")
                .saturating_duration_since(moved)
        });
        tokio::time::sleep(interval / u32::try_from(plan.moves).unwrap()).await;
    }
    Durations::of(join_all(delays).await)
}

/// One way of following at one interval.
struct Way {
    what: String,
    cost: Cost,
    late: Durations,
}

impl Way {
    fn goals(&self, objects: usize) -> [Goal; 2] {
        let late = &self.late;
        [
            Goal::noted(
                format!("{objects} models, {}: cost to the registry", self.what),
                self.cost.told(),
            ),
            Goal::noted(
                format!("{objects} models, {}: alias moved → seen", self.what),
                late.in_seconds(),
            )
            .of_runs(late.count()),
        ]
    }

    /// How many times as much the peer costs, what the server uses by itself left out, and how many times as late it is.
    fn ratios(&self, peer: &Self, floor: &Cost) -> Goal {
        let own =
            |cost: &Cost| cost.registry_seconds_a_minute() - floor.registry_seconds_a_minute();
        let figure = format!(
            "requests {}, registry's processor {}, delay (p50) {}",
            times(peer.cost.requests_a_minute(), self.cost.requests_a_minute()),
            times(own(&peer.cost), own(&self.cost)),
            times(
                peer.late.percentile(50).as_secs_f64(),
                self.late.percentile(50).as_secs_f64()
            ),
        );
        Goal::noted(format!("ratios: {} ÷ {}", peer.what, self.what), figure)
    }
}

/// The timers first, then Pointsman, each with the registry for itself; and how it stands beside the controllers.
pub async fn measured(ground: &Ground, plan: &Plan, controllers: &[Controller]) -> Vec<Goal> {
    ground.register(PREFIX, plan.objects).await;
    let (floor, peer) = polled(ground, plan).await;
    let stage = Stage::start(ground, plan).await;
    let (same, idle) = followed(ground, plan, &stage, plan.interval, "1").await;
    stage.asks_every(plan.often).await;
    let (often, _) = followed(ground, plan, &stage, plan.often, "2").await;
    stage.end().await;
    let own = Beside {
        idle: &idle,
        late: &same.late,
    };
    let beside = controllers
        .iter()
        .flat_map(|each| each.goals(plan, &own))
        .collect::<Vec<_>>();
    goals(plan, &floor, &peer, &[same, often], &idle)
        .into_iter()
        .chain(beside)
        .collect()
}

/// What the registry costs that nobody asks, and what a timer for each object costs it.
async fn polled(ground: &Ground, plan: &Plan) -> (Cost, Way) {
    let proxy = Interceptor::start(ground.mlflow.url(), None).await.unwrap();
    let task = Task::start("MLflow asked by nobody, counting", 0);
    let floor = Cost::of(ground, &proxy, plan.window).await;
    task.done();
    let what = format!("a timer for each, every {} s", plan.interval.as_secs());
    let task = Task::start(&format!("{what}: counting, then moving aliases"), 0);
    let mut poller = Poller::start(&proxy.url(), plan.names(), plan.interval);
    poller.knows(plan.objects).await;
    let cost = Cost::of(ground, &proxy, plan.window).await;
    let seen = |model: String| poller.sees(model, "2");
    let late = late(
        plan,
        plan.interval,
        |model| move_alias(ground, model, "2"),
        seen,
    )
    .await;
    task.done();
    (floor, Way { what, cost, late })
}

async fn followed(
    ground: &Ground,
    plan: &Plan,
    stage: &Stage,
    interval: Duration,
    version: &str,
) -> (Way, Idle) {
    let what = format!("Pointsman, every {} s", interval.as_secs());
    let task = Task::start(&format!("{what}: counting, then moving aliases"), 0);
    let (cost, idle) = stage.measured(ground, plan.window).await;
    let late = stage.late(ground, plan, interval, version).await;
    comes_to_rest(&stage.api).await;
    task.done();
    (Way { what, cost, late }, idle)
}

fn goals(plan: &Plan, floor: &Cost, peer: &Way, own: &[Way], idle: &Idle) -> Vec<Goal> {
    let mut goals = vec![Goal::noted(
        "floor: cost to the registry that nobody asks",
        floor.told(),
    )];
    goals.extend(
        [peer]
            .into_iter()
            .chain(own)
            .flat_map(|way| way.goals(plan.objects)),
    );
    goals.extend(own.iter().map(|own| own.ratios(peer, floor)));
    goals.extend(idle.goals(&format!("Pointsman, {} models and bindings", plan.objects)));
    goals
}
