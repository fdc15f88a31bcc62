//! Two replicas, and the one that leads is killed while a move of the alias waits for it.
//!
//! Absent: orderly ends. A leader that is asked to stop gives the Lease back, and is followed at once.

use std::time::{Duration, Instant};

use pointsman_env::interceptor::{Interceptor, Method};
use pointsman_env::progress::Task;
use pointsman_env::{Operator, OperatorOptions, TestNamespace as Place, kinds};
use serde_json::{Value, json};

use crate::figures::Durations;
use crate::ground::{
    Ground, PATIENCE, apply, binding, deployment, model, registry, release_build, runs,
};
use crate::report::Goal;
use crate::sightings::Sightings;

const PREFIX: &str = "failover";
/// What is left beside the Lease's time.
const SLACK: Duration = Duration::from_secs(2);
/// A short Lease, so that there can be several rounds; and the chart's own.
const SHORT: u64 = 5;
const DEFAULT: u64 = 15;

struct Stage<'ground> {
    ground: &'ground Ground,
    place: Place,
    name: String,
    replicas: Vec<Operator>,
    /// In front of the API server, for both replicas.
    api: Interceptor,
    lease: Duration,
    deployments: Sightings,
}

/// What one kill came to.
struct Round {
    taken: Duration,
    /// How often the Deployment was patched.
    patches: usize,
    /// How often that changed it.
    generations: i64,
}

/// So many kills with a short Lease, and one with the default.
pub async fn measured(ground: &Ground, rounds: usize) -> Vec<Goal> {
    let mut goals = of_lease(ground, SHORT, rounds).await;
    goals.extend(of_lease(ground, DEFAULT, 1).await);
    goals
}

async fn of_lease(ground: &Ground, seconds: u64, rounds: usize) -> Vec<Goal> {
    let mut stage = Stage::start(ground, seconds).await;
    let task = Task::start(
        &format!("{rounds} leaders killed, leases of {seconds} s"),
        rounds as u64,
    );
    let mut all = Vec::new();
    for number in 0..rounds {
        all.push(
            stage
                .killed(if number.is_multiple_of(2) { "2" } else { "1" })
                .await,
        );
        task.advance();
    }
    task.done();
    let goals = goals(stage.lease, &all);
    stage.end().await;
    goals
}

impl<'ground> Stage<'ground> {
    async fn start(ground: &'ground Ground, seconds: u64) -> Self {
        let prefix = format!("{PREFIX}{seconds}");
        ground.register(&prefix, 1).await;
        let place = ground.namespace(&prefix).await;
        let server = &ground.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        let mut replicas = Vec::new();
        for replica in 1..=2 {
            let options = options(&place, &prefix, &api, seconds, replica);
            replicas.push(
                Operator::start(server, &ground.tools, &options)
                    .await
                    .unwrap(),
            );
        }
        let name = format!("{prefix}-00000");
        // Only who begins to lead looks at the registry: nobody finds the move by polling.
        let objects = [
            registry(&ground.mlflow.url(), "1h"),
            model(&name),
            deployment(&name),
            binding(&name),
        ];
        apply(&place, objects).await;
        runs(&place, &name, "1").await;
        let deployments = Sightings::of(place.client(), place.namespace(), &name);
        Self {
            ground,
            place,
            name,
            replicas,
            api,
            lease: Duration::from_secs(seconds),
            deployments,
        }
    }

    /// Moves the alias, kills the leader, and waits until the other has patched the Deployment; then the killed one comes back.
    async fn killed(&mut self, version: &str) -> Round {
        let leader = self.leader().await;
        let (before, mark) = (self.generation().await, self.api.mark());
        self.ground
            .registrar
            .set_alias(&self.name, "champion", version)
            .await
            .unwrap();
        let killed = Instant::now();
        self.replicas[leader].kill().unwrap();
        let done = self.deployments.version(version).await;
        runs(&self.place, &self.name, version).await;
        let patches = self.patches_since(mark);
        self.replicas[leader].start_again().await.unwrap();
        Round {
            taken: done - killed,
            patches,
            generations: self.generation().await - before,
        }
    }

    /// The replica that the Lease names; each is named after its number.
    async fn leader(&self) -> usize {
        let held = |lease: &Value| {
            lease["spec"]["holderIdentity"]
                .as_str()
                .is_some_and(|holder| !holder.is_empty())
        };
        let (namespace, name) = (self.place.namespace(), release(&self.place));
        let lease = self
            .place
            .eventually("somebody leads", PATIENCE, &kinds::LEASE, &name, held)
            .await;
        let holder = lease["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let number =
            (0..self.replicas.len()).find(|number| holder.ends_with(&format!("-{}", number + 1)));
        number
            .unwrap_or_else(|| panic!("{holder} leads in {namespace}, and is none of the replicas"))
    }

    async fn generation(&self) -> i64 {
        let deployment = self
            .place
            .get(&kinds::DEPLOYMENT, &self.name)
            .await
            .unwrap();
        deployment["metadata"]["generation"]
            .as_i64()
            .unwrap_or_default()
    }

    fn patches_since(&self, mark: usize) -> usize {
        let path = format!("/deployments/{}", self.name);
        let all = self.api.writes_since(mark);
        all.iter()
            .filter(|write| write.method == Method::PATCH && write.path.ends_with(&path))
            .count()
    }

    async fn end(mut self) {
        for replica in &mut self.replicas {
            replica.stop().unwrap();
        }
        self.place.end().await.unwrap();
    }
}

/// In the namespace that it watches, so that its Lease is there too.
fn options(
    place: &Place,
    prefix: &str,
    api: &Interceptor,
    seconds: u64,
    replica: u32,
) -> OperatorOptions {
    let mut options =
        OperatorOptions::watching(release_build(), &release(place), &[place.namespace()]);
    place.namespace().clone_into(&mut options.namespace);
    options.kube_api = Some(api.url());
    options.values = json!({"replicas": 2, "leaseSeconds": seconds, "clusterName": prefix});
    options.replica = replica;
    options
}

fn release(place: &Place) -> String {
    place.namespace().to_owned()
}

fn goals(lease: Duration, rounds: &[Round]) -> Vec<Goal> {
    let taken = Durations::of(rounds.iter().map(|round| round.taken).collect());
    let seconds = lease.as_secs();
    let patches: Vec<usize> = rounds.iter().map(|round| round.patches).collect();
    let generations: Vec<i64> = rounds.iter().map(|round| round.generations).collect();
    let once = patches.iter().all(|patches| *patches == 1)
        && generations.iter().all(|generations| *generations == 1);
    vec![
        Goal::checked(
            format!("leader killed with a move pending → patched, lease of {seconds} s"),
            &format!("≤ {} s", (lease + SLACK).as_secs()),
            taken.in_seconds(),
            taken.max() <= lease + SLACK,
        )
        .of_runs(taken.count()),
        Goal::checked(
            format!(
                "the same: patches of the Deployment, and changes of its spec, lease of {seconds} s"
            ),
            "1 and 1 each time",
            format!("{patches:?} and {generations:?}"),
            once,
        )
        .of_runs(taken.count()),
    ]
}
