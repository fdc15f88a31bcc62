//! The operator as a process: killed at each step, stopped, settled, ready, replaced, and restricted to the chart's rights.
//!
//! Absent: measurements; `make bench` has them.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::interceptor::{Fault, Request, When, matching};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, LEASE, REGISTERED_MODEL};
use pointsman_env::{Operator, OperatorOptions};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, binary, namespace, scenarios, template_version,
};

scenarios!(
    an_operator_killed_at_any_step_continues_after_its_restart,
    a_settled_cluster_sees_no_writes_and_one_poll_an_interval,
    a_move_costs_four_writes_besides_its_events,
    a_requested_refresh_polls_at_once,
    the_operator_is_ready_once_its_caches_are_filled_and_stops_cleanly,
    an_api_server_without_streaming_lists_is_read_in_pages,
    an_operator_without_its_roles_is_not_ready,
    another_replica_takes_over_when_the_leader_is_killed_during_a_move,
    a_leader_paused_past_its_lease_writes_nothing_and_exits,
);

/// Long enough for a slow renewal on a loaded machine.
const LEASE_SECONDS: u64 = 6;

/// Replaces the fixture's operator by two replicas, of which the first is the leader.
pub async fn two_replicas(
    fixture: &mut Fixture,
    environment: &Environment,
) -> (Operator, Operator) {
    let values = json!({"replicas": 2, "leaseSeconds": LEASE_SECONDS});
    let mut replicas = fixture.replicas(environment, 2, values).await;
    let second = replicas.pop().unwrap();
    leads(fixture, 1).await;
    (replicas.pop().unwrap(), second)
}

/// Waits until a replica ends, as one does that lost its Lease.
pub async fn ends(replica: &mut Operator) {
    let ended = async {
        while replica.is_running() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    ended.expect("a replica that lost its Lease ends");
}

pub async fn leads(fixture: &Fixture, replica: u32) {
    let identity = format!("{}-{replica}", fixture.namespace.namespace());
    let is_held = |lease: &Value| lease["spec"]["holderIdentity"] == identity.as_str();
    let name = fixture.namespace.namespace();
    fixture
        .eventually(&format!("{identity} leads"), &LEASE, name, is_held)
        .await;
}

async fn another_replica_takes_over_when_the_leader_is_killed_during_a_move(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "takeover").await;
    fixture.serve_version_1().await;
    let (mut first, second) = two_replicas(&mut fixture, &environment).await;
    assert!(
        second.is_ready().await,
        "a replica that waits has its caches filled"
    );
    first.freeze().unwrap();
    fixture.alias("2").await;
    first.kill().unwrap();
    let killed = std::time::Instant::now();
    let is_two = |deployment: &Value| template_version(deployment) == "2";
    fixture
        .eventually("the move is carried out", &DEPLOYMENT, "server", is_two)
        .await;
    let most = Duration::from_secs(LEASE_SECONDS + 2);
    assert!(
        killed.elapsed() <= most * 2,
        "{:?} after the leader was killed",
        killed.elapsed()
    );
    leads(&fixture, 2).await;
    let binding = fixture.runs("2").await;
    let history = binding["status"]["history"].as_array().unwrap();
    assert_eq!(history.len(), 2, "nothing was applied twice: {history:?}");
    fixture.operator = second;
    fixture.end().await
}

async fn a_leader_paused_past_its_lease_writes_nothing_and_exits(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "paused leader").await;
    fixture.serve_version_1().await;
    let (mut first, second) = two_replicas(&mut fixture, &environment).await;
    first.freeze().unwrap();
    leads(&fixture, 2).await;
    fixture.alias("2").await;
    let before = fixture.runs("2").await;
    let generation = fixture.deployment().await["metadata"]["generation"].clone();
    first.thaw().unwrap();
    ends(&mut first).await;
    assert!(
        first.log().contains("the Lease was lost"),
        "{}",
        first.log_tail(20)
    );
    assert_eq!(
        fixture.deployment().await["metadata"]["generation"],
        generation
    );
    assert_eq!(
        fixture.binding().await["status"]["history"],
        before["status"]["history"]
    );
    fixture.operator = second;
    fixture.end().await
}

async fn an_operator_killed_at_any_step_continues_after_its_restart(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "killed").await;
    fixture.serve_version_1().await;
    let steps = [
        "registeredmodels/model/status",
        "deployments/server",
        "aliasbindings/binding/status",
    ];
    let mut version = 1;
    for step in steps {
        for when in [When::Before, When::After] {
            version = 3 - version;
            let mut pause = fixture.api.pause(matching::write(step), when);
            fixture.alias(&version.to_string()).await;
            let reached = tokio::time::timeout(PATIENCE, pause.reached()).await;
            assert!(
                reached.is_ok(),
                "{when:?} {step} was not reached\n{}",
                fixture.namespace.report().await
            );
            fixture.operator.kill().unwrap();
            pause.release();
            fixture.operator.start_again().await.unwrap();
            let binding = fixture.runs(&version.to_string()).await;
            let history = binding["status"]["history"].as_array().unwrap();
            let versions: Vec<_> = history
                .iter()
                .map(|entry| entry["version"].as_str().unwrap())
                .collect();
            assert!(
                versions.windows(2).all(|pair| pair[0] != pair[1]),
                "killed {when:?} {step}: {versions:?}"
            );
        }
    }
    assert_eq!(
        fixture.replica_sets().await.len(),
        3,
        "the Deployment's own, version 1's and version 2's"
    );
    fixture.end().await
}

async fn a_settled_cluster_sees_no_writes_and_one_poll_an_interval(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "settled").await;
    fixture.serve_version_1().await;
    fixture.reports("Live").await;
    // A reconcile may still be running when the status already says Live.
    let quiet = |binding: &Value| binding["status"]["lastGood"]["version"] == "1";
    fixture
        .eventually(
            "the last good version is known",
            &ALIAS_BINDING,
            "binding",
            quiet,
        )
        .await;
    // The sizes of new versions are read five seconds after the versions were published.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let (api, registry) = (fixture.api.mark(), fixture.registry.mark());
    let interval = Duration::from_secs(1);
    tokio::time::sleep(interval * 10).await;
    let writes = fixture.api.writes_since(api);
    assert!(writes.is_empty(), "{writes:?}");
    let polls = fixture.registry.since(registry).len();
    assert!((8..=13).contains(&polls), "{polls} polls in ten intervals");
    fixture.end().await
}

async fn a_move_costs_four_writes_besides_its_events(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "four writes").await;
    fixture.serve_version_1().await;
    fixture.reports("Live").await;
    fixture.polled_twice().await;
    let mark = fixture.api.mark();
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.polled_twice().await;
    // A write that conflicts with a controller's, for example of the Deployment's status, gets 409 and is retried.
    let is_made = |write: &Request| write.status != Some(409) && !write.path.contains("/events");
    let made = fixture.api.writes_since(mark).into_iter().filter(is_made);
    let mut written: Vec<String> = made.map(|write| write.path).collect();
    written.sort();
    let ends = [
        "aliasbindings/binding/status",
        "aliasbindings/binding/status",
        "registeredmodels/model/status",
    ];
    let of_ours: Vec<&String> = written
        .iter()
        .filter(|path| path.contains("pointsman.dev"))
        .collect();
    assert_eq!(written.len(), 4, "{written:?}");
    assert!(
        of_ours.len() == 3
            && of_ours
                .iter()
                .zip(ends)
                .all(|(path, end)| path.ends_with(end)),
        "{written:?}"
    );
    fixture.end().await
}

async fn a_requested_refresh_polls_at_once(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "refresh now").await;
    fixture.serve_version_1().await;
    fixture.declare_registry(json!({"interval": "1h"})).await;
    fixture.registry_reports("Reachable").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (kind, name, version) in [
        (&REGISTERED_MODEL, "model", "2"),
        (&ALIAS_BINDING, "binding", "1"),
    ] {
        fixture.alias(version).await;
        let annotation =
            json!({"metadata": {"annotations": {"pointsman.dev/requested-at": version}}});
        fixture
            .namespace
            .patch(kind, name, &annotation)
            .await
            .unwrap();
        let follows = |deployment: &Value| template_version(deployment) == version;
        fixture
            .namespace
            .eventually(
                "the alias is followed",
                Duration::from_secs(20),
                &DEPLOYMENT,
                "server",
                follows,
            )
            .await;
    }
    fixture.end().await
}

async fn the_operator_is_ready_once_its_caches_are_filled_and_stops_cleanly(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "health").await;
    fixture.serve_version_1().await;
    assert_metrics_of_one_move(&fixture).await;
    assert!(
        fixture.operator.stop().unwrap().success(),
        "{}",
        fixture.operator.log_tail(20)
    );
    // While the watch of bindings is delayed, the caches cannot fill.
    let mut pause = fixture
        .api
        .pause(matching::path_contains("/aliasbindings?"), When::Before);
    let starting = fixture.operator.start_again();
    let held = async {
        pause.reached().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        pause.release();
    };
    let (started, ()) = tokio::join!(starting, held);
    started.unwrap();
    fixture.end().await
}

/// Counters of one rollout, and names of objects in three metrics only.
async fn assert_metrics_of_one_move(fixture: &Fixture) {
    // Metrics are counted after the write of a status, so a watch may show the status first.
    let metrics = wait_for_metric(fixture, "pointsman_rollout_seconds_count 1").await;
    assert!(
        metrics.contains("pointsman_workload_patches_total 1"),
        "{metrics}"
    );
    let named: Vec<_> = metrics
        .lines()
        .filter(|line| line.contains(fixture.namespace.namespace()))
        .collect();
    let may_name = |line: &&str| {
        [
            "pointsman_binding_info{",
            "pointsman_registry_info{",
            "pointsman_registry_last_success",
        ]
        .iter()
        .any(|metric| line.starts_with(metric))
    };
    assert!(
        named.iter().all(may_name),
        "names of objects are in these three only\n{metrics}"
    );
    let info = named
        .iter()
        .find(|line| line.starts_with("pointsman_binding_info"))
        .expect("a binding has an info metric");
    for label in [
        r#"model="model""#,
        r#"alias="champion""#,
        r#"running="1""#,
        r#"ready="True""#,
        r#"reason="Live""#,
    ] {
        assert!(info.contains(label), "{info}");
    }
    let counted = r#"pointsman_rollouts_total{outcome="Live",trigger="AliasMove"} 1"#;
    for line in [counted, r#"pointsman_queue_depth{kind="AliasBinding"} 0"#] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(
        metrics.contains(r#"operation="registered-models/search",outcome="Success""#),
        "{metrics}"
    );
}

async fn an_api_server_without_streaming_lists_is_read_in_pages(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "paged lists").await;
    fixture.serve_version_1().await;
    fixture.runs("1").await;
    assert!(
        fixture.operator.stop().unwrap().success(),
        "{}",
        fixture.operator.log_tail(20)
    );
    // The response of an older API server, or of one with the feature gate off.
    let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
    let refusal = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid",
        "code": 422, "message": message});
    fixture.api.inject(
        matching::watch("sendInitialEvents"),
        Fault::json(422, refusal.to_string()),
        None,
    );
    fixture.alias("2").await;
    fixture.operator.start_again().await.unwrap();
    fixture.runs("2").await;
    fixture.end().await
}

/// Waits until the metrics contain a line, and returns them.
pub async fn wait_for_metric(fixture: &Fixture, line: &str) -> String {
    let holds = async {
        loop {
            let metrics = fixture.operator.metrics().await.unwrap();
            if metrics.contains(line) {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds)
        .await
        .unwrap_or_else(|_| panic!("no {line} in /metrics"))
}

async fn an_operator_without_its_roles_is_not_ready(
    environment: Arc<Environment>,
) -> ScenarioResult {
    // Proves that the operator of the other scenarios has no rights besides the chart's.
    let namespace = namespace(&environment, "no rights").await;
    let cluster = environment.cluster().await;
    let mut options =
        OperatorOptions::watching(binary(), namespace.namespace(), &[namespace.namespace()]);
    options.namespace = namespace.namespace().to_owned();
    // Without a name of the cluster it would end at once, because it may not read the cluster's identity.
    options.values = json!({"rbac": {"create": false}, "clusterName": "tests"});
    let mut operator = Operator::start_unready(&cluster.control_plane, &cluster.tools, &options)
        .await
        .unwrap();
    let reported = async {
        while !operator.log().contains("forbidden") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, reported).await.is_ok(),
        "{}",
        operator.log_tail(20)
    );
    assert!(!operator.is_ready().await);
    // SIGTERM before the caches are filled ends it, too.
    assert!(
        operator.stop().unwrap().success(),
        "{}",
        operator.log_tail(20)
    );
    namespace.end().await.map_err(|error| error.to_string())
}
