//! Two replicas; the leader is killed, or the API server goes away, while a move of the alias is pending.
//!
//! Absent: orderly ends. A leader that is asked to stop releases the Lease, and the other replica takes over at once.

use std::time::{Duration, Instant};

use pointsman_env::interceptor::{Fault, Interceptor, Method, matching};
use pointsman_env::progress::Task;
use pointsman_env::{Operator, OperatorOptions, TestNamespace, kinds};
use serde_json::{Value, json};

use crate::durations::{Durations, Unit};
use crate::environment::{
    Environment, TIMEOUT, apply, binding, deployment, model, registry, release_build,
    wait_until_runs,
};
use crate::moves::alternating_version;
use crate::observers::DeploymentObserver;
use crate::report::Measurement;

const PREFIX: &str = "failover";
/// What the goal allows beyond the duration of the Lease.
const SLACK: Duration = Duration::from_secs(2);
/// How soon after an outage of the API server a move is carried out.
const RECOVERY_GOAL: Duration = Duration::from_secs(10);
/// A short Lease for several rounds, and the default of the chart.
const SHORT_LEASE: u64 = 5;
const DEFAULT_LEASE: u64 = 15;

struct FailoverFixture<'environment> {
    environment: &'environment Environment,
    namespace: TestNamespace,
    name: String,
    replicas: Vec<Operator>,
    /// Between both replicas and the API server.
    api: Interceptor,
    deployment: DeploymentObserver,
}

/// The effects of one kill.
struct Round {
    duration: Duration,
    /// Patches of the Deployment.
    patches: usize,
    /// Increases of its generation.
    generations: i64,
}

/// This many kills with a short Lease, and one with the default.
pub async fn measure(environment: &Environment, rounds: usize) -> Vec<Measurement> {
    let mut measurements = measure_lease(environment, SHORT_LEASE, rounds).await;
    measurements.extend(measure_lease(environment, DEFAULT_LEASE, 1).await);
    measurements
}

/// The API server is away for this time, once with 503 to everything, and once without any answer.
pub async fn measure_outages(environment: &Environment, away: Duration) -> Vec<Measurement> {
    let mut fixture = FailoverFixture::start(environment, "outage", DEFAULT_LEASE).await;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "apiserver is shutting down", "code": 503});
    let faults = [
        ("answers 503", Fault::json(503, status.to_string())),
        ("accepts and never answers", Fault::Slow(TIMEOUT * 10)),
    ];
    let mut measurements = Vec::new();
    for (number, (what, fault)) in faults.into_iter().enumerate() {
        let task = Task::start(&format!("API server {what}"), 0);
        let version = alternating_version(number);
        let duration = fixture.outage(fault, away, version).await;
        task.done();
        let name = format!(
            "API server {what} for {} s, two replicas: end of it → Deployment of a move made meanwhile patched",
            away.as_secs()
        );
        let figure = Unit::Seconds.format(duration);
        let measurement = Measurement::new(name, figure);
        measurements.push(measurement.with_goal("≤ 10 s", duration <= RECOVERY_GOAL));
    }
    fixture.end().await;
    measurements
}

async fn measure_lease(environment: &Environment, lease: u64, rounds: usize) -> Vec<Measurement> {
    let mut fixture = FailoverFixture::start(environment, PREFIX, lease).await;
    let what = format!("{rounds} leaders killed, leases of {lease} s");
    let task = Task::start(&what, rounds as u64);
    let mut all = Vec::new();
    for number in 0..rounds {
        all.push(fixture.kill_leader(alternating_version(number)).await);
        task.advance();
    }
    task.done();
    fixture.end().await;
    measurements(Duration::from_secs(lease), &all)
}

impl<'environment> FailoverFixture<'environment> {
    async fn start(environment: &'environment Environment, prefix: &str, lease: u64) -> Self {
        let prefix = format!("{prefix}{lease}");
        environment.register(&prefix, 1).await;
        let namespace = environment.namespace(&prefix).await;
        let server = &environment.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        let mut replicas = Vec::new();
        for replica in 1..=2 {
            let options = replica_options(&namespace, &prefix, &api, lease, replica);
            replicas.push(
                Operator::start(server, &environment.tools, &options)
                    .await
                    .unwrap(),
            );
        }
        let name = format!("{prefix}-00000");
        // With this interval only a new leader polls, so that no poll finds the move.
        let objects = [
            registry(&environment.mlflow.url(), "1h"),
            model(&name),
            deployment(&name),
            binding(&name),
        ];
        apply(&namespace, objects).await;
        wait_until_runs(&namespace, &name, "1").await;
        let deployment = DeploymentObserver::new(&namespace, &name);
        Self {
            environment,
            namespace,
            name,
            replicas,
            api,
            deployment,
        }
    }

    /// Moves the alias, kills the leader, waits until the other replica has patched, and restarts the killed one.
    async fn kill_leader(&mut self, version: &str) -> Round {
        let leader = self.leader().await;
        let (generation, mark) = (self.generation().await, self.api.mark());
        let registrar = &self.environment.registrar;
        registrar
            .set_alias(&self.name, "champion", version)
            .await
            .unwrap();
        let killed = Instant::now();
        self.replicas[leader].kill().unwrap();
        let patched_at = self.deployment.wait_for_version(version).await;
        wait_until_runs(&self.namespace, &self.name, version).await;
        let patches = self.patches_since(mark);
        self.replicas[leader].start_again().await.unwrap();
        Round {
            duration: patched_at - killed,
            patches,
            generations: self.generation().await - generation,
        }
    }

    /// Takes the API server away, moves the alias, and returns how long after the end of the outage the Deployment is patched.
    /// Replicas that ended are restarted after it, as a kubelet does.
    async fn outage(&mut self, fault: Fault, away: Duration, version: &str) -> Duration {
        self.leader().await;
        self.api.inject(matching::everything(), fault, None);
        self.api.refuse().await;
        self.api.accept_again().await.unwrap();
        let registrar = &self.environment.registrar;
        registrar
            .set_alias(&self.name, "champion", version)
            .await
            .unwrap();
        tokio::time::sleep(away).await;
        self.api.clear();
        let ended = Instant::now();
        let patched_at = self.deployment.wait_for_version(version).await;
        wait_until_runs(&self.namespace, &self.name, version).await;
        for replica in &mut self.replicas {
            if !replica.is_running() {
                replica.start_again().await.unwrap();
            }
        }
        patched_at - ended
    }

    /// The index of the replica that holds the Lease; identities end with the number of the replica.
    async fn leader(&self) -> usize {
        let is_held = |lease: &Value| {
            lease["spec"]["holderIdentity"]
                .as_str()
                .is_some_and(|holder| !holder.is_empty())
        };
        let name = release(&self.namespace);
        let lease = self
            .namespace
            .eventually("a replica leads", TIMEOUT, &kinds::LEASE, &name, is_held)
            .await;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        (0..self.replicas.len())
            .find(|index| holder.ends_with(&format!("-{}", index + 1)))
            .unwrap_or_else(|| panic!("{holder} leads, and is none of the replicas"))
    }

    async fn generation(&self) -> i64 {
        let deployment = self
            .namespace
            .get(&kinds::DEPLOYMENT, &self.name)
            .await
            .unwrap();
        deployment["metadata"]["generation"]
            .as_i64()
            .unwrap_or_default()
    }

    fn patches_since(&self, mark: usize) -> usize {
        let path = format!("/deployments/{}", self.name);
        let writes = self.api.writes_since(mark);
        let patches = writes
            .iter()
            .filter(|write| write.method == Method::PATCH && write.path.ends_with(&path));
        patches.count()
    }

    async fn end(mut self) {
        for replica in &mut self.replicas {
            replica.stop().unwrap();
        }
        self.namespace.end().await.unwrap();
    }
}

/// A replica in the namespace that it watches, so that its Lease is there too.
fn replica_options(
    namespace: &TestNamespace,
    prefix: &str,
    api: &Interceptor,
    lease: u64,
    replica: u32,
) -> OperatorOptions {
    let namespaces = [namespace.namespace()];
    let mut options = OperatorOptions::watching(release_build(), &release(namespace), &namespaces);
    namespace.namespace().clone_into(&mut options.namespace);
    options.kube_api = Some(api.url());
    options.values = json!({"replicas": 2, "leaseSeconds": lease, "clusterName": prefix});
    options.replica = replica;
    options
}

fn release(namespace: &TestNamespace) -> String {
    namespace.namespace().to_owned()
}

fn measurements(lease: Duration, rounds: &[Round]) -> Vec<Measurement> {
    let times = Durations::of(rounds.iter().map(|round| round.duration).collect());
    let (seconds, goal) = (lease.as_secs(), lease + SLACK);
    let killed = format!("leader killed with a move pending, lease of {seconds} s");
    let patches: Vec<usize> = rounds.iter().map(|round| round.patches).collect();
    let generations: Vec<i64> = rounds.iter().map(|round| round.generations).collect();
    let once = patches.iter().all(|patches| *patches == 1)
        && generations.iter().all(|generations| *generations == 1);
    vec![
        Measurement::new(
            format!("{killed} → Deployment patched"),
            times.max_figure(Unit::Seconds),
        )
        .with_goal(&format!("≤ {} s", goal.as_secs()), times.max() <= goal)
        .of_runs(times.count()),
        Measurement::new(
            format!("{killed}: patches of the Deployment, and changes of its spec"),
            format!("{patches:?} and {generations:?}"),
        )
        .with_goal("1 and 1 each time", once)
        .of_runs(times.count()),
    ]
}
