//! 1,000 aliases moved at once → last Deployment patched, with artifacts behind MLflow's own proxy; beside a plain client.
//!
//! The floors and the operator are comparable: each changes the pod templates of the same Deployments to new ones, so that the
//! controllers create as many ReplicaSets and pods meanwhile; each has the same number of writes in flight, and talks to the
//! API server directly. The operator is stopped during a floor, because a foreign patch would start a reconcile. Each round
//! begins after all rollouts of the last one. The operator's time also contains the registry's response and three more
//! writes for each patch.
//!
//! Artifact requests are counted in the access log of the server; writes in a round of their own, through a proxy.
//!
//! Absent: proxies in the timed rounds. They would slow down the operator and not the floors.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::progress::Task;
use pointsman_env::{Operator, kinds};

use crate::durations::{Durations, Figure, Unit, ratio_figure};
use crate::environment::{Environment, TIMEOUT, binding, deployment};
use crate::object_counter::{ObjectCounter, holds_version};
use crate::object_set::{ObjectSet, wait_until_idle};
use crate::plain_client::{CONCURRENCY, PlainClient, has_marker, run_all};
use crate::report::Measurement;

/// The number of aliases of the goal.
pub const MOVES: usize = 1000;
const PREFIX: &str = "burst";
const RATIO_GOAL: f64 = 2.0;
const WRITES_GOAL: f64 = 4.0;
const ARTIFACT_REQUESTS_GOAL: f64 = 1.0;
/// The writes of a move. Events are shown beside them.
const WRITES_OF_A_MOVE: [&str; 4] = [
    "registeredmodels/status",
    "deployments",
    "aliasbindings/status",
    "modelregistries/status",
];
/// MLflow's route to the files behind its proxy, and the one that reads a file of a version.
const CHECK_ROUTE: &str = "mlflow-artifacts/artifacts";
const SIZE_ROUTE: &str = "model-versions/get-artifact";
const MLMODEL: &str =
    "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\nmodel_size_bytes: 58\n";

/// What a floor does for each Deployment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Floor {
    Patch,
    ArtifactRequestAndPatch,
}

struct BurstFixture<'environment> {
    environment: &'environment Environment,
    objects: ObjectSet,
    operator: Operator,
    /// The version that `champion` points at.
    version: usize,
}

/// Artifact requests of the operator, as counted by the server itself.
#[derive(Clone, Copy)]
struct ArtifactRequests {
    checks: usize,
    sizes: usize,
}

/// Rounds of both floors and the operator in turn, and one round for counting.
pub async fn measure(environment: &Environment, count: usize, rounds: usize) -> Vec<Measurement> {
    let mut fixture = BurstFixture::start(environment, count, rounds).await;
    let (mut patches, mut floors, mut moves) = (Vec::new(), Vec::new(), Vec::new());
    let mut requests = Vec::new();
    for round in 0..rounds {
        patches.push(fixture.floor(Floor::Patch, &format!("patch-{round}")).await);
        let marker = format!("request-{round}");
        floors.push(fixture.floor(Floor::ArtifactRequestAndPatch, &marker).await);
        let before = fixture.artifact_requests();
        moves.push(fixture.move_all().await);
        requests.push(fixture.artifact_requests().since(before));
        eprintln!(
            "  round {round}: patches {:.2?}, artifact requests and patches {:.2?}, operator {:.2?}",
            patches[round], floors[round], moves[round]
        );
    }
    let writes = fixture.count_writes().await;
    fixture.objects.namespace.end().await.unwrap();
    let mut measurements = times(
        count,
        &Durations::of(patches),
        &Durations::of(floors),
        &Durations::of(moves),
    );
    measurements.push(artifact_requests(count, &requests));
    measurements.push(writes_measurement(count, &writes));
    measurements
}

impl<'environment> BurstFixture<'environment> {
    async fn start(environment: &'environment Environment, count: usize, rounds: usize) -> Self {
        // Each round moves to a version of its own; the last one is for counting.
        let versions = rounds + 2;
        let objects = ObjectSet::new(environment, PREFIX, count).await;
        register(environment, &objects, versions).await;
        let operator = environment.operator(&objects.namespace, PREFIX, None).await;
        objects.mirror_models(&environment.mlflow.url(), "1h").await;
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
            environment,
            objects,
            operator,
            version: 1,
        };
        fixture.wait_until_idle().await;
        fixture
    }

    async fn wait_until_idle(&self) {
        self.objects.wait_until_rolled_out().await;
        wait_until_idle(&self.operator).await;
    }

    /// From the first request of a plain client to the last Deployment seen patched; the operator is stopped.
    async fn floor(&mut self, floor: Floor, marker: &str) -> Duration {
        self.operator.stop().unwrap();
        let task = self.objects.task(match floor {
            Floor::Patch => "bare patches",
            Floor::ArtifactRequestAndPatch => "artifact requests and bare patches",
        });
        let (kind, namespace) = (&kinds::DEPLOYMENT, &self.objects.namespace);
        let mut patched = ObjectCounter::start(namespace, kind, has_marker(marker)).await;
        let client = PlainClient::new(namespace);
        let started = Instant::now();
        let moves = self
            .objects
            .names()
            .map(|name| self.bare_move(&client, floor, name, marker));
        run_all(moves, CONCURRENCY).await;
        let last = patched
            .wait_for(self.objects.count, &task, self.objects.timeout())
            .await;
        task.done();
        self.objects.wait_until_rolled_out().await;
        self.operator.start_again_within(TIMEOUT).await.unwrap();
        wait_until_idle(&self.operator).await;
        last - started
    }

    async fn bare_move(&self, client: &PlainClient, floor: Floor, name: String, marker: &str) {
        if floor == Floor::ArtifactRequestAndPatch {
            let (registry, version) = (self.environment.mlflow.url(), self.version + 1);
            let route = format!("{registry}/api/2.0/mlflow-artifacts/artifacts");
            client
                .read_artifact(&format!("{route}/{}/MLmodel", folder(&name, version)))
                .await;
        }
        client.roll_out(&name, marker).await;
    }

    /// From the request of a poll to the last Deployment seen patched.
    async fn move_all(&mut self) -> Duration {
        self.version += 1;
        let (objects, kind) = (&self.objects, &kinds::DEPLOYMENT);
        let text = holds_version(self.version);
        let mut patched = ObjectCounter::start(&objects.namespace, kind, text).await;
        let task = objects.task("aliases moved at once");
        let requested = objects
            .move_aliases(self.environment, 0..objects.count, self.version)
            .await;
        let last = patched
            .wait_for(objects.count, &task, objects.timeout())
            .await;
        task.done();
        self.wait_until_idle().await;
        last - requested
    }

    /// The writes of one more round, through a counting proxy.
    async fn count_writes(&mut self) -> Vec<Request> {
        self.operator.stop().unwrap();
        let server = &self.environment.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        let namespace = &self.objects.namespace;
        self.operator = self
            .environment
            .operator(namespace, PREFIX, Some(api.url()))
            .await;
        wait_until_idle(&self.operator).await;
        let mark = api.mark();
        self.move_all().await;
        self.operator.stop().unwrap();
        api.writes_since(mark)
    }

    /// All artifact requests in the server's access log so far.
    fn artifact_requests(&self) -> ArtifactRequests {
        let log = self.environment.mlflow.log_tail(usize::MAX);
        let count = |route: &str| log.lines().filter(|line| line.contains(route)).count();
        ArtifactRequests {
            checks: count(CHECK_ROUTE),
            sizes: count(SIZE_ROUTE),
        }
    }
}

impl ArtifactRequests {
    fn since(self, before: Self) -> Self {
        Self {
            checks: self.checks - before.checks,
            sizes: self.sizes - before.sizes,
        }
    }
}

/// Registers the models, and writes an MLmodel file for each version into the server's artifact store.
async fn register(environment: &Environment, objects: &ObjectSet, versions: usize) {
    let task = Task::start(
        &format!(
            "{} models registered with {versions} versions",
            objects.count
        ),
        0,
    );
    let source = format!("mlflow-artifacts:/{}", folder("{name}", "{version}"));
    let (database, numbers) = (environment.mlflow.database(), 0..objects.count);
    environment
        .registrar
        .seed_versions_from(&database, PREFIX, numbers, versions, &source)
        .await
        .unwrap();
    for name in objects.names() {
        for version in 1..=versions {
            let folder = environment.mlflow.artifacts().join(folder(&name, version));
            fs::create_dir_all(&folder).expect("the server's artifact folder is writable");
            fs::write(folder.join("MLmodel"), MLMODEL).expect("a file can be written");
        }
    }
    task.done();
}

/// The path of a version's files behind the proxy.
fn folder(name: &str, version: impl std::fmt::Display) -> String {
    format!("1/models/{name}-{version}/artifacts")
}

fn times(
    count: usize,
    patches: &Durations,
    floors: &Durations,
    moves: &Durations,
) -> Vec<Measurement> {
    let measurement = |name: String, times: &Durations| {
        Measurement::new(name, times.median_figure(Unit::Seconds)).of_runs(times.count())
    };
    let (ratio, figure) = ratio_figure(moves, floors);
    let (_, bare_ratio) = ratio_figure(moves, patches);
    let name = format!("{count} aliases moved at once, artifacts behind MLflow's proxy");
    vec![
        measurement(format!("{name} → last Deployment patched"), moves).documented(),
        measurement(
            format!("floor: one artifact request and one patch for each of {count}, {CONCURRENCY} at a time"),
            floors,
        )
        .documented(),
        measurement(format!("floor: bare patches of the same {count}"), patches).documented(),
        Measurement::new(format!("{name}, as a multiple of requests and patches"), figure)
            .with_goal("≤ 2.0", ratio <= RATIO_GOAL)
            .of_runs(moves.count()),
        Measurement::new(format!("{name}, as a multiple of bare patches"), bare_ratio)
            .of_runs(moves.count()),
    ]
}

#[allow(clippy::cast_precision_loss)] // there are far fewer than 2^52 requests
fn per_move(requests: usize, moves: usize) -> f64 {
    requests as f64 / moves as f64
}

/// The goal holds for each round.
fn artifact_requests(moves: usize, rounds: &[ArtifactRequests]) -> Measurement {
    let most = |of: fn(&ArtifactRequests) -> usize| {
        per_move(rounds.iter().map(of).max().unwrap_or_default(), moves)
    };
    let (checks, sizes) = (most(|round| round.checks), most(|round| round.sizes));
    let figure = Figure {
        value: format!("{checks:.2}"),
        spread: format!("for sizes: {sizes:.2}"),
    };
    Measurement::new("artifact requests per move", figure)
        .with_goal("≤ 1", checks <= ARTIFACT_REQUESTS_GOAL)
        .of_runs(rounds.len())
}

fn writes_measurement(moves: usize, writes: &[Request]) -> Measurement {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for write in writes {
        *kinds.entry(kind_of(&write.path)).or_default() += 1;
    }
    let of_moves: usize = WRITES_OF_A_MOVE
        .iter()
        .filter_map(|kind| kinds.get(*kind))
        .sum();
    let per_kind: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{kind} {:.2}", per_move(*count, moves)))
        .collect();
    let writes = per_move(of_moves, moves);
    let figure = Figure {
        value: format!("{writes:.2}"),
        spread: per_kind.join(", "),
    };
    Measurement::new("writes per move, without Events", figure)
        .with_goal("≤ 4", writes <= WRITES_GOAL)
}

/// The plural of the kind in a path of the Kubernetes API, with the subresource if there is one.
pub fn kind_of(path: &str) -> String {
    let after = path.split_once("/namespaces/").map_or("", |(_, rest)| rest);
    let mut parts = after.split('/').skip(1);
    let (kind, _name, part) = (parts.next().unwrap_or(path), parts.next(), parts.next());
    match part {
        Some(subresource) => format!("{kind}/{subresource}"),
        None => kind.to_owned(),
    }
}
