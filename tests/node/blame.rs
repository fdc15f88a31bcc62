//! Rollouts that the scheduler, the kubelet or the runtime does not let go on: `Blocked` in their words, nothing held back, and
//! on by themselves when the cause ends; beside them crashes of other containers, and a version that ends after each start.
//!
//! Absent: causes that the API server or kwok's pods show as well (`tests/scenarios`).

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pointsman_env::cache::Cache;
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, EVENT, Kind, POD, SECRET};
use pointsman_env::load::LoadOptions;
use pointsman_env::node::image;
use pointsman_env::resources::merge;
use pointsman_env::{NodeTools, Objects, Selection};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, condition, deployment, is_ready, pod_version,
    progress, scenarios,
};

scenarios!(
    a_version_without_room_for_one_more_pod_is_blocked_and_goes_on_when_there_is_room,
    a_missing_secret_of_the_environment_is_told_and_the_rollout_goes_on_when_it_is_there,
    a_missing_secret_in_a_volume_is_told_and_the_rollout_goes_on_when_it_is_there,
    an_image_that_cannot_be_pulled_is_told_and_the_rollout_goes_on_when_it_can,
    a_container_that_cannot_be_started_is_blocked_and_no_crash_loop,
    a_version_that_ends_soon_after_each_start_is_never_live_and_rolled_back,
    a_sidecar_that_restarts_is_not_the_versions_fault,
    a_native_sidecar_that_restarts_is_not_the_versions_fault,
);

/// The longest time from the first words of the cause to those of the binding.
const SOON: Duration = Duration::from_secs(5);
const GPU: &str = "example.com/gpu";

async fn a_version_without_room_for_one_more_pod_is_blocked_and_goes_on_when_there_is_room(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "full").await;
    // The Deployment has a pod already when version 1 comes.
    offer_gpus(&fixture, "2").await;
    let mut full = one_pod("");
    full["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {GPU: "1"}});
    fixture.declare("1", full, json!({})).await;
    fixture.is_live("1").await;
    offer_gpus(&fixture, "1").await;
    let load = fixture
        .load(LoadOptions {
            per_second: 50,
            at_least: 0,
            ..LoadOptions::default()
        })
        .await;
    fixture.alias("2").await;
    let is_unschedulable = |pod: &Value| condition(pod, "PodScheduled")["status"] == "False";
    let words = [
        &format!("Insufficient {GPU}"),
        "one more pod with example.com/gpu: 1",
    ];
    is_told(&fixture, &POD, is_unschedulable, &words).await;
    deadline_passes(&fixture).await;
    assert_blocked(&binding(&fixture).await);
    offer_gpus(&fixture, "2").await;
    goes_on(&fixture, "2").await;
    let tally = fixture.settle(load, String::new()).await;
    assert_eq!(tally.failed, 0, "{tally:?}");
    let versions: Vec<&String> = tally.answered_by.keys().collect();
    assert_eq!(versions, ["1", "2"], "{tally:?}");
    fixture.end().await
}

async fn a_missing_secret_of_the_environment_is_told_and_the_rollout_goes_on_when_it_is_there(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut needy = one_pod("");
    needy["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"secretRef": {"name": "login"}}]);
    let fixture = Fixture::new(&environment, "env").await;
    let cannot_configure = |pod: &Value| waits_as(pod, &["CreateContainerConfigError"]);
    missing_secret(fixture, needy, &POD, cannot_configure).await
}

async fn a_missing_secret_in_a_volume_is_told_and_the_rollout_goes_on_when_it_is_there(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut needy = one_pod("");
    let pod = &mut needy["spec"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "login", "secret": {"secretName": "login"}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "login", "mountPath": "/login"}]);
    let fixture = Fixture::new(&environment, "mount").await;
    let is_warning = |event: &Value| event["reason"] == "FailedMount";
    missing_secret(fixture, needy, &EVENT, is_warning).await
}

async fn missing_secret(
    mut fixture: Fixture,
    deployment: Value,
    kind: &Kind,
    cause: impl Fn(&Value) -> bool,
) -> ScenarioResult {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"A": "b"}});
    fixture.namespace.apply_object(&secret).await.unwrap();
    fixture.declare("1", deployment, json!({})).await;
    fixture.is_live("1").await;
    fixture.namespace.delete(&SECRET, "login").await.unwrap();
    fixture.alias("2").await;
    is_told(&fixture, kind, cause, &["secret \"login\" not found"]).await;
    serves(&fixture, "1").await;
    fixture.namespace.apply_object(&secret).await.unwrap();
    goes_on(&fixture, "2").await;
    fixture.end().await
}

/// Nobody listens at the address of the image, until the node has the image.
async fn an_image_that_cannot_be_pulled_is_told_and_the_rollout_goes_on_when_it_can(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let name = "127.0.0.1:1/model-server:1";
    let mut absent = one_pod("");
    let container = &mut absent["spec"]["template"]["spec"]["containers"][0];
    merge(
        container,
        json!({"image": name, "imagePullPolicy": "IfNotPresent"}),
    );
    let mut fixture = Fixture::new(&environment, "image").await;
    fixture.declare("1", absent, json!({})).await;
    let cannot_pull = |pod: &Value| waits_as(pod, &["ErrImagePull", "ImagePullBackOff"]);
    is_told(
        &fixture,
        &POD,
        cannot_pull,
        &["ImagePull", "connection refused"],
    )
    .await;
    tag(&environment, image::MODEL_SERVER, name).await;
    goes_on(&fixture, "1").await;
    fixture.end().await
}

/// The path of the program leads through a folder that the node has for version 1 only.
async fn a_container_that_cannot_be_started_is_blocked_and_no_crash_loop(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let versions = environment.folder().join("versions");
    fs::create_dir_all(versions.join("1")).unwrap();
    let mut picky = one_pod("");
    let pod = &mut picky["spec"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "versions", "hostPath": {"path": versions}}]);
    let mount = json!({"name": "versions", "mountPath": "/versions"});
    let command = "/versions/$(MODEL_VERSION)/../../server";
    merge(
        &mut pod["containers"][0],
        json!({"volumeMounts": [mount], "command": [command]}),
    );
    let mut fixture = Fixture::new(&environment, "start").await;
    fixture.declare("1", picky, json!({"maxRestarts": 1})).await;
    fixture.is_live("1").await;
    fixture.alias("2").await;
    let never_ran = |pod: &Value| {
        let container = &pod["status"]["containerStatuses"][0];
        [&container["state"], &container["lastState"]]
            .iter()
            .any(|state| state["terminated"]["reason"] == "StartError")
    };
    is_told(&fixture, &POD, never_ran, &["no such file or directory"]).await;
    restarts(&fixture, "2", "server", 2).await;
    assert_blocked(&binding(&fixture).await);
    fs::create_dir_all(versions.join("2")).unwrap();
    goes_on(&fixture, "2").await;
    fixture.end().await
}

/// Without a readiness probe it is available after each start.
async fn a_version_that_ends_soon_after_each_start_is_never_live_and_rolled_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut unprobed = one_pod("2=end-soon");
    merge(
        &mut unprobed["spec"]["template"]["spec"]["containers"][0],
        json!({"readinessProbe": null}),
    );
    let rollback = json!({"maxRestarts": 2, "bakeSeconds": 8});
    let fixture = Fixture::serving(&environment, "ends", "1", unprobed, rollback).await;
    fixture.alias("2").await;
    let was_live = AtomicBool::new(false);
    let is_over = |binding: &Value| {
        let is_two = binding["status"]["running"]["version"] == "2";
        let is_good = binding["status"]["lastGood"]["version"] == "2";
        let ready = condition(binding, "Ready");
        was_live.fetch_or(
            is_good || (is_two && ready["status"] == "True"),
            Ordering::Relaxed,
        );
        was_live.load(Ordering::Relaxed) || ready["reason"] == "RolledBack"
    };
    let namespace = &fixture.namespace;
    let binding = namespace
        .eventually("rolled back", PATIENCE, &ALIAS_BINDING, "binding", is_over)
        .await;
    assert!(!was_live.load(Ordering::Relaxed), "{binding}");
    assert_eq!(binding["status"]["lastGood"]["version"], "1", "{binding}");
    let held_back = &binding["status"]["heldBack"]["versions"][0];
    assert_eq!(held_back["reason"], "CrashLoop", "{binding}");
    serves(&fixture, "1").await;
    fixture.end().await
}

async fn a_sidecar_that_restarts_is_not_the_versions_fault(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "sidecar").await;
    let mut accompanied = one_pod("");
    let pod = &mut accompanied["spec"]["template"]["spec"];
    let containers = pod["containers"].as_array_mut().unwrap();
    containers.push(sidecar());
    pod["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    restarting_sidecar(fixture, accompanied).await
}

async fn a_native_sidecar_that_restarts_is_not_the_versions_fault(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "native").await;
    let mut accompanied = one_pod("");
    let pod = &mut accompanied["spec"]["template"]["spec"];
    let mut native = sidecar();
    native["restartPolicy"] = json!("Always");
    pod["initContainers"] = json!([native]);
    pod["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    restarting_sidecar(fixture, accompanied).await
}

/// The sidecar crashes at version 2 for ever, and at version 3 twice: more often than the version itself might.
async fn restarting_sidecar(mut fixture: Fixture, deployment: Value) -> ScenarioResult {
    fixture
        .declare("1", deployment, json!({"maxRestarts": 1}))
        .await;
    fixture.is_live("1").await;
    fixture.alias("2").await;
    let told = blocked(&fixture, &["container proxy of pod", "is not ready"]).await;
    assert_blocked(&told);
    assert_ran_for_the_deadline(&fixture).await;
    serves(&fixture, "1").await;
    fixture.alias("3").await;
    let binding = goes_on(&fixture, "3").await;
    restarts(&fixture, "3", "proxy", 2).await;
    let history = binding["status"]["history"].as_array().unwrap();
    assert!(
        history.iter().all(|entry| entry["outcome"] != "Failed"),
        "{binding}"
    );
    fixture.end().await
}

/// Another container of the pod, which knows the pod's version.
fn sidecar() -> Value {
    let version = "metadata.annotations['pointsman.dev/model-version']";
    json!({
        "name": "proxy",
        "image": image::MODEL_SERVER,
        "imagePullPolicy": "Never",
        "env": [
            {"name": "SIDECAR_OF", "valueFrom": {"fieldRef": {"fieldPath": version}}},
            {"name": "BEHAVIOR", "value": "2=crash,3=crash-twice"},
            {"name": "PORT", "value": "8081"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8081}, "periodSeconds": 1},
        "volumeMounts": [{"name": "state", "mountPath": "/state"}],
    })
}

/// A Deployment of one pod, which is replaced by a second one.
fn one_pod(behavior: &str) -> Value {
    let mut deployment = deployment(behavior);
    let spec = json!({"replicas": 1, "progressDeadlineSeconds": DEADLINE});
    merge(&mut deployment["spec"], spec);
    deployment
}

const DEADLINE: i64 = 15;

/// Sets the node's capacity of an extended resource, as the kubelet expects it from others.
async fn offer_gpus(fixture: &Fixture, count: &str) {
    let status = json!({"status": {"capacity": {GPU: count}, "allocatable": {GPU: count}}});
    let patch = format!("--patch={status}");
    let arguments = [
        "patch",
        "nodes",
        "node-0",
        "--subresource=status",
        "--type=merge",
        &patch,
    ];
    fixture.namespace.kubectl(&arguments).await.unwrap();
}

/// Gives an image of the node another name.
async fn tag(environment: &Environment, image: &str, name: &str) {
    let tools = NodeTools::locate(&Cache::open().unwrap()).unwrap();
    let socket = environment.folder().join("node/containerd.sock");
    let output = tokio::process::Command::new(tools.containerd.join("ctr"))
        .args(["--address".as_ref(), socket.as_os_str()])
        .args(["--namespace", "k8s.io", "images", "tag", image, name])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Waits for the cause in an object of version 2 or an Event, and for `Blocked` with these words soon after it.
async fn is_told(fixture: &Fixture, kind: &Kind, cause: impl Fn(&Value) -> bool, words: &[&str]) {
    // A pod from before the binding says nothing about a version.
    let is_ours = |object: &Value| kind != &POD || !pod_version(object).is_empty();
    let one_shows = |all: &Objects| all.values().any(|each| is_ours(each) && cause(each));
    let caused = async {
        let namespace = &fixture.namespace;
        let all = Selection::Labelled("");
        namespace
            .eventually_all("the cause", PATIENCE, kind, &all, one_shows)
            .await;
        Instant::now()
    };
    let told = async { (blocked(fixture, words).await, Instant::now()) };
    let (caused, (binding, told)) = tokio::join!(caused, told);
    let delay = told.saturating_duration_since(caused);
    progress(&format!("{}: told after {delay:.1?}", fixture.scenario()));
    assert!(delay <= SOON, "told after {delay:?}: {binding}");
    assert_blocked(&binding);
}

async fn blocked(fixture: &Fixture, words: &[&str]) -> Value {
    let says = |binding: &Value| {
        let ready = condition(binding, "Ready");
        let message = ready["message"].as_str().unwrap_or_default();
        ready["reason"] == "Blocked" && words.iter().all(|word| message.contains(word))
    };
    let namespace = &fixture.namespace;
    let what = format!("Blocked with {words:?}");
    namespace
        .eventually(&what, PATIENCE, &ALIAS_BINDING, "binding", says)
        .await
}

async fn binding(fixture: &Fixture) -> Value {
    let found = fixture.namespace.get(&ALIAS_BINDING, "binding").await;
    found.unwrap()
}

fn assert_blocked(binding: &Value) {
    let status = |type_| &condition(binding, type_)["status"];
    assert_eq!(
        condition(binding, "Ready")["reason"],
        "Blocked",
        "{binding}"
    );
    assert_eq!(status("Ready"), "False", "{binding}");
    assert_eq!(status("Reconciling"), "True", "{binding}");
    assert_ne!(status("Stalled"), "True", "{binding}");
    assert!(binding["status"]["heldBack"].is_null(), "{binding}");
}

/// Waits until only this version runs, is live, and nothing is held back.
async fn goes_on(fixture: &Fixture, version: &str) -> Value {
    let binding = fixture.is_live(version).await;
    assert!(binding["status"]["heldBack"].is_null(), "{binding}");
    binding
}

async fn deadline_passes(fixture: &Fixture) {
    let is_exceeded = |deployment: &Value| {
        condition(deployment, "Progressing")["reason"] == "ProgressDeadlineExceeded"
    };
    let namespace = &fixture.namespace;
    let what = "the progress deadline passes";
    namespace
        .eventually(what, PATIENCE, &DEPLOYMENT, "server", is_exceeded)
        .await;
}

/// A sidecar is told at the deadline, not at its first crash.
async fn assert_ran_for_the_deadline(fixture: &Fixture) {
    let pods = fixture.namespace.list(&POD, "app=server").await.unwrap();
    let pod = pods.iter().find(|pod| pod_version(pod) == "2").unwrap();
    let created: jiff::Timestamp = pod["metadata"]["creationTimestamp"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let age = jiff::Timestamp::now().duration_since(created);
    assert!(age.as_secs() >= DEADLINE, "told after {age:?}: {pod}");
}

/// Waits until a ready pod runs this version.
async fn serves(fixture: &Fixture, version: &str) {
    let one_serves = |pods: &Objects| {
        let mut pods = pods.values();
        pods.any(|pod| pod_version(pod) == version && is_ready(pod))
    };
    let all = Selection::Labelled("app=server");
    let what = format!("version {version} serves");
    fixture
        .namespace
        .eventually_all(&what, PATIENCE, &POD, &all, one_serves)
        .await;
}

/// Waits until a container of this version was restarted so many times.
async fn restarts(fixture: &Fixture, version: &str, container: &str, count: u64) {
    let restarted = |pods: &Objects| {
        let of_version = pods.values().filter(|pod| pod_version(pod) == version);
        let statuses = of_version.map(|pod| &pod["status"]);
        statuses.into_iter().any(|status| {
            let all = ["containerStatuses", "initContainerStatuses"];
            let lists = all.iter().filter_map(|list| status[list].as_array());
            let mut named = lists.flatten().filter(|each| each["name"] == container);
            named.any(|each| each["restartCount"].as_u64() >= Some(count))
        })
    };
    let all = Selection::Labelled("app=server");
    let what = format!("{count} restarts");
    fixture
        .namespace
        .eventually_all(&what, PATIENCE, &POD, &all, restarted)
        .await;
}

fn waits_as(pod: &Value, reasons: &[&str]) -> bool {
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    let reason = waiting["reason"].as_str();
    reason.is_some_and(|reason| reasons.contains(&reason))
}
