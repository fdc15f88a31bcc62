//! Whom a rollout that does not go on is blamed on: the version, or the cluster.
//!
//! Absent: the kubelet's own behaviour; `tests/node` has real pods. Failures that are the version's own: see `failure`.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::Workload;
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, POD};
use pointsman_env::observe::Selection;
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, MUTATING_POLICIES, PATIENCE, ScenarioResult, condition, ready_message,
    ready_reason, ready_status, scenarios, template_version,
};

scenarios!(
    a_full_quota_blocks_a_rollout_until_it_is_lifted,
    a_quota_on_replica_sets_blocks_a_rollout_until_it_is_lifted,
    a_quota_that_a_stateful_set_meets_is_told_from_its_events,
    no_room_for_the_surge_pod_blocks_a_rollout_until_there_is_room,
    an_image_that_cannot_be_pulled_blocks_a_rollout_until_it_can,
    a_blocked_rollout_that_costs_capacity_goes_back_and_is_tried_again,
    a_fault_that_all_versions_share_stops_at_the_newest_good_one,
    a_version_in_a_workload_without_replicas_is_proven_when_it_has_pods,
    a_version_that_was_live_stays_so_without_replicas,
    pods_of_before_are_not_judged_while_the_deployment_is_paused,
    a_version_that_could_not_be_rolled_back_becomes_live_when_it_is_mended,
    scaling_and_lost_pods_leave_a_live_binding_ready_until_too_few_are_available,
);

/// A fixture with so many versions, version 1 live in this Deployment.
async fn serving(
    environment: &Arc<Environment>,
    name: &str,
    versions: u32,
    deployment: Value,
) -> Fixture {
    let fixture = Fixture::new(environment, name).await;
    fixture.register(versions).await;
    let rollback = json!({"rollback": {"bakeSeconds": 0}});
    fixture.serve(deployment, rollback).await;
    live(&fixture, "1").await;
    fixture
}

fn deployment(replicas: u32, deadline: u32) -> Workload {
    let mut deployment = Workload::deployment("server");
    deployment.replicas = replicas;
    deployment.progress_deadline_seconds = deadline;
    deployment
}

/// Waits until a version is live and good.
async fn live(fixture: &Fixture, version: &str) -> Value {
    let holds = |binding: &Value| {
        ready_reason(binding) == "Live" && binding["status"]["lastGood"]["version"] == version
    };
    let description = format!("version {version} is live");
    fixture
        .eventually(&description, &ALIAS_BINDING, "binding", holds)
        .await
}

/// Waits until the rollout is blocked with these words, and checks that nothing is held back and nobody is needed.
async fn blocked(fixture: &Fixture, words: &str) -> Value {
    let holds = |binding: &Value| {
        ready_reason(binding) == "Blocked" && ready_message(binding).contains(words)
    };
    let description = format!("blocked, with the words {words:?}");
    let binding = fixture
        .eventually(&description, &ALIAS_BINDING, "binding", holds)
        .await;
    assert_eq!(condition(&binding, "Reconciling")["status"], "True");
    assert_eq!(condition(&binding, "Stalled"), &Value::Null, "{binding}");
    nothing_is_held_back(&binding);
    binding
}

fn nothing_is_held_back(binding: &Value) {
    let status = &binding["status"];
    assert_eq!(status["heldBack"], Value::Null, "{status}");
    let history = status["history"].as_array().unwrap();
    let blamed = |entry: &&Value| {
        let outcome = entry["outcome"].as_str().unwrap_or_default();
        ["Failed", "RolledBack"].contains(&outcome)
    };
    assert_eq!(history.iter().find(blamed), None, "{status}");
}

/// The binding stays blocked on this version for so long.
async fn stays_blocked(fixture: &Fixture, version: &'static str, seconds: u64) {
    let holds = move |binding: &Value| {
        ready_reason(binding) == "Blocked" && binding["status"]["running"]["version"] == version
    };
    let time = Duration::from_secs(seconds);
    fixture
        .namespace
        .stays("it waits", time, &ALIAS_BINDING, "binding", holds)
        .await;
    nothing_is_held_back(&fixture.binding().await);
}

async fn quota(fixture: &Fixture, hard: Value) {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}});
    fixture.namespace.kubectl_apply(quota).await.unwrap();
    let is_counted = async {
        let arguments = [
            "get",
            "resourcequota",
            "small",
            "-o",
            "jsonpath={.status.used}",
        ];
        while fixture
            .namespace
            .kubectl(&arguments)
            .await
            .unwrap()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_counted).await.unwrap();
}

async fn lift_quota(fixture: &Fixture) {
    fixture
        .namespace
        .kubectl(&["delete", "resourcequota", "small"])
        .await
        .unwrap();
}

/// Moves the alias to version 2, which the quota blocks, and lifts the quota.
async fn is_blocked_until_the_quota_is_lifted(fixture: &Fixture) {
    fixture.alias("2").await;
    blocked(fixture, "exceeded quota: small").await;
    lift_quota(fixture).await;
    live(fixture, "2").await;
}

/// Gives all pods of the fixture's workload another behavior.
async fn pods_behave(fixture: &Fixture, behavior: &str) {
    let annotation = format!("kwok.test/behavior={behavior}");
    let arguments = [
        "annotate",
        "--overwrite",
        "pods",
        "-l",
        "app=server",
        &annotation,
    ];
    fixture.namespace.kubectl(&arguments).await.unwrap();
}

async fn scale(fixture: &Fixture, replicas: u32) {
    let replicas = format!("--replicas={replicas}");
    fixture
        .namespace
        .kubectl(&["scale", "deployment/server", &replicas])
        .await
        .unwrap();
}

async fn a_full_quota_blocks_a_rollout_until_it_is_lifted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut manifest = deployment(2, 4).manifest();
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "250m"}});
    let fixture = serving(&environment, "quota", 2, manifest).await;
    quota(&fixture, json!({"pods": "2"})).await;
    fixture.alias("2").await;
    let binding = blocked(&fixture, "exceeded quota: small").await;
    assert_eq!(binding["status"]["history"][0]["outcome"], "Blocked");
    let message = ready_message(&binding);
    assert!(
        message.contains("needs one more pod with cpu: 250m"),
        "{message}"
    );
    assert!(message.chars().count() <= 200, "{message}");
    stays_blocked(&fixture, "2", 8).await;
    lift_quota(&fixture).await;
    let runs = live(&fixture, "2").await;
    nothing_is_held_back(&runs);
    fixture.end().await
}

async fn a_quota_on_replica_sets_blocks_a_rollout_until_it_is_lifted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = serving(&environment, "sets", 2, deployment(2, 4).manifest()).await;
    let present = fixture.replica_sets().await.len();
    quota(&fixture, json!({"count/replicasets.apps": present})).await;
    is_blocked_until_the_quota_is_lifted(&fixture).await;
    fixture.end().await
}

async fn a_quota_that_a_stateful_set_meets_is_told_from_its_events(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let kinds = json!({"targets": {"statefulSets": true}});
    let fixture = Fixture::with_values(&environment, "sts quota", kinds).await;
    fixture.register(2).await;
    fixture.alias("1").await;
    fixture.declare().await;
    let workload = Workload::stateful_set("server");
    fixture.deploy(&workload).await;
    fixture
        .declare_binding(
            json!({"targetRef": workload.target_ref(), "rollback": {"bakeSeconds": 0}}),
        )
        .await;
    live(&fixture, "1").await;
    quota(&fixture, json!({"pods": "1"})).await;
    is_blocked_until_the_quota_is_lifted(&fixture).await;
    fixture.end().await
}

async fn no_room_for_the_surge_pod_blocks_a_rollout_until_there_is_room(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let port = json!([{"containerPort": 80, "hostPort": 28_391}]);
    let mut manifest = deployment(1, 4).manifest();
    manifest["spec"]["template"]["spec"]["containers"][0]["ports"] = port.clone();
    let fixture = serving(&environment, "room", 2, manifest).await;
    // One pod on each of the other nodes takes the port.
    let mut holder = Workload::daemon_set("holder").manifest();
    holder["spec"]["template"]["spec"]["containers"][0]["ports"] = port;
    fixture.namespace.kubectl_apply(holder).await.unwrap();
    let holders = Selection::Labelled("app=holder");
    fixture
        .namespace
        .eventually_all("the port is taken", PATIENCE, &POD, &holders, |pods| {
            let waiting = pods
                .values()
                .filter(|pod| pod["status"]["phase"] == "Pending");
            waiting.count() == 1 && pods.len() > 1
        })
        .await;
    fixture.alias("2").await;
    let binding = blocked(&fixture, "nodes are available").await;
    let message = ready_message(&binding);
    assert!(message.contains("needs one more pod"), "{message}");
    stays_blocked(&fixture, "2", 6).await;
    fixture
        .namespace
        .kubectl(&["delete", "daemonset", "holder"])
        .await
        .unwrap();
    live(&fixture, "2").await;
    fixture.end().await
}

async fn an_image_that_cannot_be_pulled_blocks_a_rollout_until_it_can(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let manifest = deployment(2, 4).with_behavior("2=image-pull").manifest();
    let fixture = serving(&environment, "image", 2, manifest).await;
    fixture.alias("2").await;
    blocked(&fixture, "ImagePullBackOff").await;
    stays_blocked(&fixture, "2", 6).await;
    pods_behave(&fixture, "*=ready").await;
    let set = json!({"spec": {"template": {"metadata": {"annotations": {"kwok.test/behavior": "*=ready"}}}}});
    fixture
        .namespace
        .patch(&DEPLOYMENT, "server", &set)
        .await
        .unwrap();
    let runs = live(&fixture, "2").await;
    nothing_is_held_back(&runs);
    fixture.end().await
}

async fn a_blocked_rollout_that_costs_capacity_goes_back_and_is_tried_again(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut manifest = deployment(2, 4).with_behavior("2=image-pull").manifest();
    manifest["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    let fixture = serving(&environment, "capacity", 2, manifest).await;
    fixture.alias("2").await;
    blocked(&fixture, "ImagePullBackOff").await;
    let restored = |binding: &Value| {
        binding["status"]["running"]["version"] == "1"
            && binding["status"]["postponed"]["version"] == "2"
            && ready_reason(binding) == "Blocked"
    };
    let binding = fixture
        .eventually("capacity is restored", &ALIAS_BINDING, "binding", restored)
        .await;
    nothing_is_held_back(&binding);
    let serves = |deployment: &Value| {
        template_version(deployment) == "1" && deployment["status"]["availableReplicas"] == 2
    };
    fixture
        .eventually("both pods serve", &DEPLOYMENT, "server", serves)
        .await;
    // The cause ends; the version is tried again by itself.
    let set = json!({"spec": {"template": {"metadata": {"annotations": {"kwok.test/behavior": "*=ready"}}}}});
    fixture
        .namespace
        .patch(&DEPLOYMENT, "server", &set)
        .await
        .unwrap();
    let runs = live(&fixture, "2").await;
    nothing_is_held_back(&runs);
    is_forgotten(&fixture).await;
    fixture.end().await
}

/// Makes every pod that is created from now on crash, whatever its version.
async fn new_pods_crash(fixture: &Fixture) {
    let name = fixture.namespace.namespace();
    let policy = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let expression =
        "Object{metadata: Object.metadata{annotations: {'kwok.test/behavior': '*=crash'}}}";
    let manifests = [
        policy(
            "MutatingAdmissionPolicy",
            json!({"failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]}),
        ),
        policy(
            "MutatingAdmissionPolicyBinding",
            json!({"policyName": name, "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}}),
        ),
    ];
    for manifest in manifests {
        fixture.namespace.kubectl_apply(manifest).await.unwrap();
    }
    until_new_pods_crash(fixture, true).await;
}

/// Waits until the API server applies the policy to new pods, or applies it no more.
async fn until_new_pods_crash(fixture: &Fixture, wanted: bool) {
    let probe = [
        "run",
        "probe",
        "--image=a",
        "--dry-run=server",
        "-o",
        "json",
    ];
    let wait = async {
        while fixture
            .namespace
            .kubectl(&probe)
            .await
            .unwrap()
            .contains("*=crash")
            != wanted
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

async fn pods_are_well_again(fixture: &Fixture) {
    let name = fixture.namespace.namespace();
    for kind in ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"] {
        fixture
            .namespace
            .kubectl(&["delete", kind, name])
            .await
            .unwrap();
    }
    until_new_pods_crash(fixture, false).await;
    pods_behave(fixture, "*=ready").await;
}

async fn a_fault_that_all_versions_share_stops_at_the_newest_good_one(
    environment: Arc<Environment>,
) -> ScenarioResult {
    if environment.lacks(MUTATING_POLICIES).await {
        return Ok(());
    }
    let fixture = serving(&environment, "shared", 4, deployment(4, 600).manifest()).await;
    for version in ["2", "3"] {
        fixture.alias(version).await;
        live(&fixture, version).await;
    }
    new_pods_crash(&fixture).await;
    fixture.alias("4").await;
    let shared = |binding: &Value| ready_reason(binding) == "SharedFault";
    let binding = fixture
        .eventually(
            "both versions fail alike",
            &ALIAS_BINDING,
            "binding",
            shared,
        )
        .await;
    assert_eq!(binding["status"]["running"]["version"], "3");
    let held_back = &binding["status"]["heldBack"];
    assert_eq!(held_back["versions"].as_array().map(Vec::len), Some(1));
    assert_eq!(held_back["versions"][0]["version"], "4");
    let stays = |deployment: &Value| template_version(deployment) == "3";
    let time = Duration::from_secs(8);
    fixture
        .namespace
        .stays("it walks no further", time, &DEPLOYMENT, "server", stays)
        .await;
    pods_are_well_again(&fixture).await;
    live(&fixture, "4").await;
    is_forgotten(&fixture).await;
    fixture.end().await
}

/// Waits until nothing is held back or postponed any more.
async fn is_forgotten(fixture: &Fixture) {
    let is_clear = |binding: &Value| {
        let status = &binding["status"];
        status["heldBack"].is_null() && status["postponed"].is_null()
    };
    let description = "nothing is held back or postponed";
    fixture
        .eventually(description, &ALIAS_BINDING, "binding", is_clear)
        .await;
}

async fn a_version_in_a_workload_without_replicas_is_proven_when_it_has_pods(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let manifest = deployment(2, 600).with_behavior("2=crash").manifest();
    let fixture = serving(&environment, "zero", 2, manifest).await;
    scale(&fixture, 0).await;
    fixture.reports("ScaledToZero").await;
    fixture.alias("2").await;
    let written = |binding: &Value| {
        binding["status"]["running"]["version"] == "2"
            && ready_reason(binding) == "ScaledToZero"
            && binding["status"]["history"][0]["outcome"] == "ScaledToZero"
    };
    let binding = fixture
        .eventually("version 2 is written", &ALIAS_BINDING, "binding", written)
        .await;
    assert_eq!(ready_status(&binding), "True");
    assert_eq!(binding["status"]["lastGood"]["version"], "1");
    assert_eq!(binding["status"]["history"][0]["liveAt"], Value::Null);
    scale(&fixture, 2).await;
    let back = |binding: &Value| {
        ready_reason(binding) == "RolledBack" && binding["status"]["running"]["version"] == "1"
    };
    fixture
        .eventually("version 1 runs again", &ALIAS_BINDING, "binding", back)
        .await;
    fixture.end().await
}

async fn a_version_that_was_live_stays_so_without_replicas(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = serving(&environment, "asleep", 2, deployment(2, 600).manifest()).await;
    scale(&fixture, 0).await;
    fixture.reports("ScaledToZero").await;
    scale(&fixture, 2).await;
    let runs = live(&fixture, "1").await;
    assert_eq!(runs["status"]["history"].as_array().map(Vec::len), Some(1));
    fixture.end().await
}

async fn pods_of_before_are_not_judged_while_the_deployment_is_paused(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = serving(&environment, "paused", 2, deployment(2, 4).manifest()).await;
    let rollout = |verb: &'static str| ["rollout", verb, "deployment/server"];
    fixture.namespace.kubectl(&rollout("pause")).await.unwrap();
    pods_behave(&fixture, "1=crash").await;
    fixture.alias("2").await;
    let waits = |binding: &Value| {
        binding["status"]["running"]["version"] == "2"
            && ready_message(binding).contains("kubectl rollout resume deployment/server")
    };
    fixture
        .eventually("the pause is told", &ALIAS_BINDING, "binding", waits)
        .await;
    let time = Duration::from_secs(7);
    fixture
        .namespace
        .stays("nobody is blamed", time, &ALIAS_BINDING, "binding", waits)
        .await;
    nothing_is_held_back(&fixture.binding().await);
    fixture.namespace.kubectl(&rollout("resume")).await.unwrap();
    live(&fixture, "2").await;
    fixture.end().await
}

async fn a_version_that_could_not_be_rolled_back_becomes_live_when_it_is_mended(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "mended").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    let deployment = deployment(1, 600).with_behavior("1=crash");
    fixture.deploy(&deployment).await;
    let rollback = json!({"rollback": {"bakeSeconds": 1}});
    fixture.declare_binding(rollback).await;
    fixture.reports("NoRollbackTarget").await;
    pods_behave(&fixture, "*=ready").await;
    live(&fixture, "1").await;
    is_forgotten(&fixture).await;
    fixture.end().await
}

async fn scaling_and_lost_pods_leave_a_live_binding_ready_until_too_few_are_available(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = serving(&environment, "busy", 2, deployment(4, 600).manifest()).await;
    let is_live = |binding: &Value| ready_reason(binding) == "Live";
    // A quarter of the pods may be unavailable: one of four is.
    let pods = fixture.namespace.list(&POD, "app=server").await.unwrap();
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    let one = [
        "annotate",
        "--overwrite",
        "pod",
        name,
        "kwok.test/behavior=*=never-ready",
    ];
    fixture.namespace.kubectl(&one).await.unwrap();
    let three = |deployment: &Value| deployment["status"]["availableReplicas"] == 3;
    fixture
        .eventually("one pod is not ready", &DEPLOYMENT, "server", three)
        .await;
    let time = Duration::from_secs(4);
    fixture
        .namespace
        .stays("it stays Ready", time, &ALIAS_BINDING, "binding", is_live)
        .await;
    pods_behave(&fixture, "*=never-ready").await;
    let message = fixture.reports("Unavailable").await;
    assert!(message.contains("kubectl get pods -n"), "{message}");
    pods_behave(&fixture, "*=ready").await;
    live(&fixture, "1").await;
    fixture.end().await
}
