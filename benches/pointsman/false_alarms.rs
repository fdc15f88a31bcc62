//! Rollouts of good versions, with bad ones among them, while the cluster is disturbed at random: no good version may be blamed,
//! and no version may be called live that was not.
//!
//! Absent: real containers; `tests/node` has them. One fault at a time: `tests/scenarios/blame.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use pointsman_env::interceptor::Interceptor;
use pointsman_env::progress::Task;
use pointsman_env::{Operator, OperatorOptions, TestNamespace, Workload, kinds, kwok};
use serde_json::{Value, json};

use crate::disturbances::{
    BINDINGS_PER_NAMESPACE, Cluster, NODES, Plan, PlannedBinding, Round, version_of,
};
use crate::durations::Figure;
use crate::environment::{
    Environment, SOURCE, TIMEOUT, apply, binding, model, registry, release_build,
};
use crate::report::Measurement;
use crate::status_checker::{IsGood, Seen, StatusChecker, WrongStatus};

/// Rollouts of good versions.
pub const ROLLOUTS: usize = 1000;
const PREFIX: &str = "alarm";
/// Longer than a disturbance, as it is in production.
const PROGRESS_DEADLINE_SECONDS: u32 = 30;
/// Longer than a node is lost, whose pods show nothing of a bad version meanwhile.
const BAKE_SECONDS: i64 = 16;
/// For all rollouts of a round after the last disturbance: a version whose rollout was blocked for too long is tried again after
/// the progress deadline, later after twice that.
const SETTLED_WITHIN: Duration = Duration::from_secs(240);
/// No round begins later than this.
const TIME_LIMIT: Duration = Duration::from_secs(40 * 60);
/// How long a rollout may stand still before its Deployment is freed, in case the Deployment controller is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(45);
/// How often the operator is looked at, which the kubelet would start again.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

struct AlarmFixture<'a> {
    environment: &'a Environment,
    seed: u64,
    plan: Plan,
    namespaces: Vec<TestNamespace>,
    others: TestNamespace,
    api: Interceptor,
    operator: Operator,
    checker: StatusChecker,
}

/// Rollouts that ended as they must.
#[derive(Default)]
struct Outcome {
    live: usize,
    rolled_back: usize,
}

fn name(index: usize) -> String {
    format!("{PREFIX}-{index:05}")
}

impl<'a> AlarmFixture<'a> {
    async fn start(environment: &'a Environment, seed: u64, plan: Plan) -> Self {
        let server = &environment.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()));
        let api = api.await.unwrap();
        let mut namespaces = Vec::new();
        for number in 0..plan.bindings.len().div_ceil(BINDINGS_PER_NAMESPACE) {
            let namespace = environment.namespace(&format!("{PREFIX}-{number}")).await;
            namespaces.push(namespace);
        }
        let others = environment.namespace("others").await;
        add_nodes(others.client()).await;
        let checker = StatusChecker::start(&others.client(), judge_of(&plan));
        let operator = start_operator(environment, &namespaces, api.url()).await;
        Self {
            environment,
            seed,
            plan,
            namespaces,
            others,
            api,
            operator,
            checker,
        }
    }

    /// Creates all objects, and waits until version 1 is live everywhere.
    async fn declare(&mut self) {
        let (indexes, versions) = (self.plan.bindings.len(), version_of(self.plan.rounds.len()));
        let database = self.environment.mlflow.database();
        let registrar = &self.environment.registrar;
        let seeded = registrar.seed_versions_from(&database, PREFIX, 0..indexes, versions, SOURCE);
        seeded.await.unwrap();
        let url = self.environment.mlflow.url();
        for (number, namespace) in self.namespaces.iter().enumerate() {
            let mut objects = vec![registry(&url, "1h")];
            let first = number * BINDINGS_PER_NAMESPACE;
            let of_namespace = self.plan.bindings.iter().enumerate().skip(first);
            for (index, settings) in of_namespace.take(BINDINGS_PER_NAMESPACE) {
                let name = name(index);
                objects.push(deployment(&name, settings));
                objects.push(model(&name));
                let mut binding = binding(&name);
                binding["spec"]["rollback"]["bakeSeconds"] = json!(BAKE_SECONDS);
                objects.push(binding);
            }
            apply(namespace, objects).await;
        }
        let is_settled = |seen: &Seen, index: usize| seen.is_live(&name(index), "1");
        let unsettled = self.settle("version 1 live", indexes, is_settled).await;
        assert!(unsettled.is_empty(), "version 1 is not live everywhere");
    }

    /// One rollout in each binding, disturbed; then waits for all of them.
    async fn round(&mut self, number: usize, outcome: &mut Outcome) {
        let (round, version) = (&self.plan.rounds[number], version_of(number));
        let moved = round.moved;
        Self::announce(number, round);
        let task = Task::start(&format!("round {number}: disturbances"), 0);
        join(self.move_aliases(round, version), self.disturb(round)).await;
        task.done();
        let planned = self.plan.bindings.iter().take(moved);
        let good: Vec<bool> = planned.map(|each| each.is_good(version)).collect();
        let text = version.to_string();
        let is_settled = |seen: &Seen, index: usize| {
            if good[index] {
                seen.is_live(&name(index), &text)
            } else {
                seen.is_rolled_back(&name(index), &text)
            }
        };
        let what = format!("round {number}: rollouts ended");
        let unsettled = self.settle(&what, moved, is_settled).await;
        self.checker
            .compare_with_pods(SignedDuration::from_secs(BAKE_SECONDS));
        for index in &unsettled {
            self.explain(number, *index);
        }
        let ended = (0..moved).filter(|index| !unsettled.contains(index));
        let (live, rolled_back): (Vec<usize>, Vec<usize>) = ended.partition(|index| good[*index]);
        outcome.live += live.len();
        outcome.rolled_back += rolled_back.len();
    }

    fn announce(number: usize, round: &Round) {
        let general = round.disturbances.iter().filter(|each| each.is_general());
        let general: Vec<String> = general.map(ToString::to_string).collect();
        eprintln!(
            "round {number} at {}: {} rollouts, {} disturbances; {}",
            jiff::Timestamp::now(),
            round.moved,
            round.disturbances.len(),
            general.join("; ")
        );
    }

    async fn move_aliases(&self, round: &Round, version: usize) {
        let moves = self
            .namespaces
            .iter()
            .enumerate()
            .map(|(number, namespace)| async move {
                tokio::time::sleep(round.moved_after[number]).await;
                let first = number * BINDINGS_PER_NAMESPACE;
                let indexes = first..round.moved.min(first + BINDINGS_PER_NAMESPACE);
                if indexes.is_empty() {
                    return;
                }
                let database = self.environment.mlflow.database();
                let registrar = &self.environment.registrar;
                let moved = registrar.move_champions(&database, PREFIX, indexes, version);
                moved.await.unwrap();
                let requested_at = jiff::Timestamp::now().to_string();
                let annotations = json!({"pointsman.dev/requested-at": requested_at});
                let patch = json!({"metadata": {"annotations": annotations}});
                let patched = namespace.patch(&kinds::MODEL_REGISTRY, "mlflow", &patch);
                patched.await.unwrap();
            });
        join_all(moves).await;
    }

    async fn disturb(&self, round: &Round) {
        let (all, cluster) = (round.disturbances.iter(), self.cluster());
        join_all(all.map(|each| each.carry_out(&cluster))).await;
    }

    fn cluster(&self) -> Cluster<'_> {
        Cluster {
            client: self.others.client(),
            namespaces: &self.namespaces,
            others: &self.others,
            api: &self.api,
            name,
        }
    }

    /// Waits for the first bindings, and returns those that are not settled in time.
    async fn settle(
        &mut self,
        what: &str,
        indexes: usize,
        is_settled: impl Fn(&Seen, usize) -> bool,
    ) -> Vec<usize> {
        let task = Task::start(&format!("{indexes} {what}"), indexes as u64);
        let (began, mut freed) = (Instant::now(), Instant::now());
        let open = |seen: &Seen| -> Vec<usize> {
            let open = (0..indexes).filter(|index| !is_settled(seen, *index));
            open.collect()
        };
        loop {
            let all = |seen: &Seen| open(seen).is_empty();
            let is_done = self.checker.wait(LOOK_INTERVAL, all).await;
            let open = self.checker.with(open);
            task.reach((indexes - open.len()) as u64);
            if is_done || began.elapsed() > SETTLED_WITHIN {
                if open.is_empty() {
                    task.done();
                }
                return open;
            }
            if freed.elapsed() > STUCK_AFTER {
                freed = Instant::now();
                for index in open {
                    let replicas = self.plan.bindings[index].replicas;
                    self.cluster().free(index, replicas).await;
                }
            }
            if !self.operator.is_running() {
                eprintln!("the operator ended; it is started again, as the kubelet would");
                self.operator.start_again_within(TIMEOUT).await.unwrap();
            }
        }
    }

    /// Everything about a rollout that did not end as it must.
    fn explain(&self, round: usize, index: usize) {
        let (name, settings) = (name(index), &self.plan.bindings[index]);
        let disturbances = self.plan.rounds[round].disturbances.iter();
        let about = disturbances.filter(|each| each.is_about(index));
        let about: Vec<String> = about.map(ToString::to_string).collect();
        let log = self.operator.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&name)).collect();
        let last = &lines[lines.len().saturating_sub(15)..];
        eprintln!(
            "NOT ENDED: seed {}, round {round}, version {} of {name}, {settings:?}\n{}\n{}\n{}",
            self.seed,
            version_of(round),
            about.join("\n"),
            self.checker
                .with(|seen| seen.binding(&name)["status"].to_string()),
            last.join("\n"),
        );
    }

    async fn end(mut self) -> StatusChecker {
        self.operator.stop().unwrap();
        for namespace in self.namespaces.iter().chain([&self.others]) {
            namespace.end().await.unwrap();
        }
        self.checker
    }
}

fn judge_of(plan: &Plan) -> IsGood {
    let versions = version_of(plan.rounds.len());
    let mut bad = Vec::new();
    for (index, settings) in plan.bindings.iter().enumerate() {
        let is_bad = |version: &usize| !settings.is_good(*version);
        let of_binding = (1..versions).filter(is_bad);
        bad.extend(of_binding.map(|version| (name(index), version.to_string())));
    }
    Arc::new(move |name, version| !bad.iter().any(|each| each.0 == name && each.1 == version))
}

/// More nodes than a control plane has at first.
async fn add_nodes(client: kube::Client) {
    let nodes: Api<Node> = Api::all(client);
    let parameters = PatchParams::apply("bench").force();
    for node in NODES {
        let patch = Patch::Apply(kwok::node(node));
        nodes.patch(node, &parameters, &patch).await.unwrap();
    }
}

async fn start_operator(
    environment: &Environment,
    namespaces: &[TestNamespace],
    api: String,
) -> Operator {
    let names: Vec<&str> = namespaces.iter().map(TestNamespace::namespace).collect();
    let mut options = OperatorOptions::watching(release_build(), PREFIX, &names);
    options.kube_api = Some(api);
    let (control_plane, tools) = (&environment.control_plane, &environment.tools);
    let operator = Operator::start_unready(control_plane, tools, &options).await;
    let mut operator = operator.unwrap();
    operator.await_ready_within(TIMEOUT).await.unwrap();
    operator
}

/// Its pods leave a lost node soon, and need processor time.
fn deployment(name: &str, planned: &PlannedBinding) -> Value {
    let workload = Workload {
        replicas: planned.replicas,
        containers: vec!["server".to_owned(), "proxy".to_owned()],
        progress_deadline_seconds: PROGRESS_DEADLINE_SECONDS,
        ..Workload::deployment(name)
    };
    let mut manifest = workload.with_behavior(&planned.behavior()).manifest();
    manifest["spec"]["strategy"] = planned.strategy.clone();
    let leaves = |taint: &str| json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 4});
    let pods = &mut manifest["spec"]["template"]["spec"];
    pods["tolerations"] = json!([leaves("not-ready"), leaves("unreachable")]);
    pods["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
    manifest
}

/// So many rollouts of good versions; the seed repeats a run.
pub async fn measure(environment: &Environment, good: usize, seed: u64) -> Vec<Measurement> {
    let plan = Plan::new(seed, good);
    let (indexes, rounds) = (plan.bindings.len(), plan.rounds.len());
    let all: usize = plan.rounds.iter().map(|round| round.moved).sum();
    eprintln!(
        "false alarms: {all} rollouts in {indexes} bindings and {rounds} rounds; --seed {seed} --count {good} repeats them"
    );
    let mut fixture = AlarmFixture::start(environment, seed, plan).await;
    fixture.declare().await;
    let (began, mut outcome) = (Instant::now(), Outcome::default());
    for number in 0..rounds {
        if began.elapsed() > TIME_LIMIT {
            eprintln!("the time is over: {} rounds are left out", rounds - number);
            break;
        }
        fixture.round(number, &mut outcome).await;
    }
    let checker = fixture.end().await;
    let count = |wrong| checker.with(|seen| seen.count(wrong));
    let (alarms, lives) = (
        count(WrongStatus::FalseAlarm),
        count(WrongStatus::WrongLive),
    );
    let bad = all - good;
    let row = |what: &str, value: String, goal: &str, is_met: bool| {
        let spread = format!("seed {seed}");
        let name =
            format!("{good} good rollouts and {bad} bad ones in a disturbed cluster: {what}");
        Measurement::new(name, Figure { value, spread })
            .with_goal(goal, is_met)
            .of_runs(1)
    };
    let (live, rolled_back) = (outcome.live, outcome.rolled_back);
    vec![
        row("good versions blamed", alarms.to_string(), "0", alarms == 0),
        row(
            "versions live that were not",
            lives.to_string(),
            "0",
            lives == 0,
        ),
        row(
            "good versions live in the end",
            format!("{live} of {good}"),
            "all",
            live == good,
        ),
        row(
            "bad versions rolled back",
            format!("{rolled_back} of {bad}"),
            "all",
            rolled_back == bad,
        ),
    ]
}
