//! Many aliases moved at once, until the last Deployment is patched; and the same Deployments patched by a plain client.
//!
//! What makes the two comparable: both change the pod template of the same Deployments to one that was never there, so that the
//! controllers have the same new ReplicaSets and pods to make while the patches go on; both have as many writes under way; both
//! speak to the API server itself, over connections of the same kind; the operator is stopped while the floor is taken, for
//! each patch of somebody else's would wake it; each begins when all rollouts are over, and they take turns. The operator's
//! time contains what the floor's does not: the registry's answer, and three further writes for each patch.
//!
//! Absent: proxies. They would slow down the one and not the other; writes are counted in a round of their own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kube::client::Body;
use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::progress::Task;
use pointsman_env::{Operator, kinds};
use serde_json::json;

use crate::crowd::{Crowd, holds_version};
use crate::figures::Durations;
use crate::fleet::{Fleet, await_calm};
use crate::ground::{Ground, PATIENCE, binding, deployment};
use crate::report::Goal;

/// How many aliases the goal is about.
pub const MOVES: usize = 1000;
const PREFIX: &str = "atonce";
/// As many as the operator has passes under way (`PASSES` in src/controller/context.rs).
const CONCURRENCY: usize = 16;
/// Annotation of the pod template that the bare patch changes.
const TICK: &str = "bench.pointsman.dev/tick";
const GOAL: f64 = 2.5;
#[allow(clippy::cast_precision_loss)] // four
const WRITES_GOAL: f64 = 4.0;
/// What a move is allowed to write; what is written beside it (Events) is told, and not judged.
const OF_A_MOVE: [&str; 4] = [
    "registeredmodels/status",
    "deployments",
    "aliasbindings/status",
    "modelregistries/status",
];

struct Stage<'ground> {
    ground: &'ground Ground,
    fleet: Fleet,
    operator: Operator,
    /// What `champion` names.
    version: usize,
}

impl<'ground> Stage<'ground> {
    async fn start(ground: &'ground Ground, count: usize, rounds: usize) -> Self {
        let database = ground.mlflow.database();
        // Each round has a version of its own, and one more is for counting.
        ground
            .registrar
            .seed_versions(&database, PREFIX, 0..count, rounds + 2)
            .await
            .unwrap();
        let fleet = Fleet::new(ground, PREFIX, count).await;
        let operator = ground.operator(&fleet.place, PREFIX, None).await;
        fleet.declare(&ground.mlflow.url(), "1h").await;
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
            ground,
            fleet,
            operator,
            version: 1,
        };
        stage.come_to_rest().await;
        stage
    }

    async fn come_to_rest(&self) {
        self.fleet.await_rolled_out().await;
        await_calm(&self.operator).await;
    }

    /// From the first bare patch to the sight of the last, without the operator.
    async fn floor(&mut self, tick: usize) -> Duration {
        self.operator.stop().unwrap();
        let task = self.task("bare patches");
        let mut ticked = Crowd::of(
            &self.fleet.place,
            &kinds::DEPLOYMENT,
            format!(r#"{TICK}":"{tick}""#),
        )
        .await;
        let started = Instant::now();
        let patches = stream::iter(0..self.fleet.count).map(|number| self.patched(number, tick));
        patches
            .buffer_unordered(CONCURRENCY)
            .for_each(|()| std::future::ready(()))
            .await;
        let last = ticked
            .reaches(self.fleet.count, &task, self.fleet.patience())
            .await;
        task.done();
        self.fleet.await_rolled_out().await;
        self.operator.start_again_within(PATIENCE).await.unwrap();
        await_calm(&self.operator).await;
        last - started
    }

    /// One server-side apply; its answer is read and not decoded.
    async fn patched(&self, number: usize, tick: usize) {
        let name = self.fleet.name(number);
        let template = json!({"metadata": {"annotations": {TICK: tick.to_string()}}});
        let patch = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"template": template}});
        let namespace = self.fleet.place.namespace();
        let target = format!(
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}?fieldManager=bench&force=true"
        );
        let request =
            http::Request::patch(target).header("content-type", "application/apply-patch+yaml");
        let request = request
            .body(Body::from(patch.to_string().into_bytes()))
            .unwrap();
        let answer = self.fleet.place.client().send(request).await.unwrap();
        assert!(
            answer.status().is_success(),
            "a bare patch is answered {}",
            answer.status()
        );
        http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap();
    }

    /// From the request to look at the registry to the sight of the last patched Deployment.
    async fn operator(&mut self) -> Duration {
        self.version += 1;
        let task = self.task("aliases moved at once");
        let mut patched = Crowd::of(
            &self.fleet.place,
            &kinds::DEPLOYMENT,
            holds_version(self.version),
        )
        .await;
        let asked = self
            .fleet
            .moved(self.ground, 0..self.fleet.count, self.version)
            .await;
        let last = patched
            .reaches(self.fleet.count, &task, self.fleet.patience())
            .await;
        task.done();
        self.come_to_rest().await;
        last - asked
    }

    /// What the operator writes in one more round, through a proxy that counts.
    async fn writes(&mut self) -> Vec<Request> {
        self.operator.stop().unwrap();
        let server = &self.ground.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        self.operator = self
            .ground
            .operator(&self.fleet.place, PREFIX, Some(api.url()))
            .await;
        await_calm(&self.operator).await;
        let mark = api.mark();
        self.operator().await;
        self.operator.stop().unwrap();
        api.writes_since(mark)
    }

    fn task(&self, what: &str) -> Task {
        Task::start(
            &format!("{} {what}", self.fleet.count),
            self.fleet.count as u64,
        )
    }
}

/// Rounds of floor and operator in turn, and one in which writes are counted.
pub async fn measured(ground: &Ground, count: usize, rounds: usize) -> Vec<Goal> {
    let mut stage = Stage::start(ground, count, rounds).await;
    let (mut floors, mut taken) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        floors.push(stage.floor(round).await);
        taken.push(stage.operator().await);
        eprintln!(
            "  round {round}: floor {:.2?}, operator {:.2?}",
            floors[round], taken[round]
        );
    }
    let writes = stage.writes().await;
    stage.fleet.place.end().await.unwrap();
    let mut goals = times(count, &Durations::of(floors), &Durations::of(taken));
    goals.push(writes_goal(count, &writes));
    goals
}

fn times(count: usize, floors: &Durations, taken: &Durations) -> Vec<Goal> {
    let ratio = |percent| {
        taken.percentile(percent).as_secs_f64() / floors.percentile(percent).as_secs_f64()
    };
    let worst = taken.max().as_secs_f64() / floors.min().as_secs_f64();
    let figure = format!(
        "{:.2} (p50 to p50; slowest to fastest {worst:.2})",
        ratio(50)
    );
    vec![
        Goal::noted(
            format!("{count} aliases moved at once → last Deployment patched"),
            taken.in_seconds(),
        )
        .of_runs(taken.count()),
        Goal::noted(
            format!("floor: bare patches of the same {count} Deployments, {CONCURRENCY} at a time"),
            floors.in_seconds(),
        )
        .of_runs(floors.count()),
        Goal::checked(
            format!("{count} aliases moved at once, as a multiple of the floor"),
            "≤ 2.5",
            figure,
            ratio(50) <= GOAL,
        )
        .of_runs(taken.count()),
    ]
}

fn writes_goal(moves: usize, writes: &[Request]) -> Goal {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for write in writes {
        *kinds.entry(kind_of(&write.path)).or_default() += 1;
    }
    let of_a_move: usize = OF_A_MOVE.iter().filter_map(|kind| kinds.get(*kind)).sum();
    #[allow(clippy::cast_precision_loss)] // far below 2^52 writes
    let per_move = |writes: usize| writes as f64 / moves as f64;
    let told: Vec<String> = kinds
        .iter()
        .map(|(kind, times)| format!("{kind} {:.2}", per_move(*times)))
        .collect();
    let figure = format!("{:.2} ({})", per_move(of_a_move), told.join(", "));
    Goal::checked(
        "writes per move, Events not counted",
        "≤ 4",
        figure,
        per_move(of_a_move) <= WRITES_GOAL,
    )
}

/// The plural of the kind that a path of the API is about, with the part of the object that it ends in.
pub fn kind_of(path: &str) -> String {
    let after = path.split_once("/namespaces/").map_or("", |(_, rest)| rest);
    let mut parts = after.split('/').skip(1);
    let (kind, _name, part) = (parts.next().unwrap_or(path), parts.next(), parts.next());
    part.map_or_else(|| kind.to_owned(), |part| format!("{kind}/{part}"))
}
