//! StatefulSets and DaemonSets as targets: rolled out, rolled back, held and claimed like Deployments.
//!
//! Absent: behaviour that does not depend on the target's kind; the other scenarios show it on Deployments.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, POD};
use pointsman_env::resources::{self, with_spec};
use pointsman_env::{Objects, Selection, Workload};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, condition, ready_reason, scenarios,
    template_version,
};

scenarios!(
    a_stateful_set_follows_its_alias_forward_and_back,
    a_daemon_set_follows_its_alias_forward_and_back,
    a_crashing_version_of_a_stateful_set_is_rolled_back_and_all_pods_serve_again,
    a_crashing_version_of_a_daemon_set_is_rolled_back_and_all_pods_serve_again,
    a_move_forward_replaces_the_broken_pod_of_a_stateful_set,
    a_persons_rollout_undo_of_a_stateful_set_is_held,
    a_persons_rollout_undo_of_a_daemon_set_is_held,
    a_second_binding_of_a_stateful_set_reports_target_claimed,
    a_second_binding_of_a_daemon_set_reports_target_claimed,
    a_stateful_set_and_a_deployment_of_one_name_are_no_rivals,
    a_template_creates_a_deployment_and_no_other_kind,
);

/// A fixture whose operator drives all three kinds, with a model of three versions and champion on 1.
async fn with_all_kinds(environment: &Arc<Environment>, name: &str) -> Fixture {
    let fixture = Fixture::with_values(
        environment,
        name,
        json!({"targets": {"statefulSets": true, "daemonSets": true}}),
    )
    .await;
    fixture.register(3).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture
}

/// Binds the workload and waits until version 1 serves.
async fn serve_version_1(fixture: &Fixture, workload: &Workload) {
    fixture.bind_to(workload).await;
    fixture.runs("1").await;
    all_pods_serve(fixture, "1").await;
}

/// Waits until the workload's pods all have this version and are ready.
async fn all_pods_serve(fixture: &Fixture, version: &str) {
    let serves = |pod: &Value| {
        pod["metadata"]["annotations"]["pointsman.dev/model-version"] == version
            && condition(pod, "Ready")["status"] == "True"
    };
    let all_serve = |pods: &Objects| pods.len() == 2 && pods.values().all(serves);
    let pods = Selection::Labelled("app=server");
    fixture
        .namespace
        .eventually_all(
            &format!("both pods serve version {version}"),
            PATIENCE,
            &POD,
            &pods,
            all_serve,
        )
        .await;
}

async fn template(fixture: &Fixture, workload: &Workload) -> Value {
    let object = fixture.namespace.get(workload.kind, &workload.name).await;
    object.unwrap()["spec"]["template"].clone()
}

async fn alias_is_followed(
    environment: &Arc<Environment>,
    name: &str,
    workload: Workload,
) -> ScenarioResult {
    let fixture = with_all_kinds(environment, name).await;
    serve_version_1(&fixture, &workload).await;
    let first = template(&fixture, &workload).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    all_pods_serve(&fixture, "2").await;
    fixture.alias("1").await;
    let binding = fixture.runs("1").await;
    all_pods_serve(&fixture, "1").await;
    assert_eq!(
        template(&fixture, &workload).await,
        first,
        "a rollback restores the template byte for byte"
    );
    assert_eq!(binding["status"]["lastGood"]["version"], "1", "{binding}");
    fixture.end().await
}

async fn a_stateful_set_follows_its_alias_forward_and_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let workload = Workload::stateful_set("server");
    alias_is_followed(&environment, "stateful set", workload).await
}

async fn a_daemon_set_follows_its_alias_forward_and_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let workload = Workload::daemon_set("server");
    alias_is_followed(&environment, "daemon set", workload).await
}

async fn crash_is_rolled_back(
    environment: &Arc<Environment>,
    name: &str,
    workload: Workload,
) -> ScenarioResult {
    let fixture = with_all_kinds(environment, name).await;
    serve_version_1(&fixture, &workload.with_behavior("2=crash")).await;
    fixture.alias("2").await;
    let rolled_back = |binding: &Value| {
        ready_reason(binding) == "RolledBack" && binding["status"]["running"]["version"] == "1"
    };
    let description = "version 2 is rolled back";
    let binding = fixture
        .eventually(description, &ALIAS_BINDING, "binding", rolled_back)
        .await;
    assert_eq!(
        binding["status"]["heldBack"]["versions"][0]["version"], "2",
        "{binding}"
    );
    // The StatefulSet controller replaces no broken pod of an older revision; the operator has to delete it.
    all_pods_serve(&fixture, "1").await;
    fixture.end().await
}

async fn a_crashing_version_of_a_stateful_set_is_rolled_back_and_all_pods_serve_again(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let workload = Workload::stateful_set("server");
    crash_is_rolled_back(&environment, "stateful crash", workload).await
}

async fn a_crashing_version_of_a_daemon_set_is_rolled_back_and_all_pods_serve_again(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let workload = Workload::daemon_set("server");
    crash_is_rolled_back(&environment, "daemon crash", workload).await
}

async fn a_move_forward_replaces_the_broken_pod_of_a_stateful_set(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_all_kinds(&environment, "stateful forward").await;
    let workload = Workload::stateful_set("server").with_behavior("2=crash");
    serve_version_1(&fixture, &workload).await;
    let report = json!({"targetRef": workload.target_ref(), "rollback": {"onFailure": "Report", "bakeSeconds": 0}});
    fixture.declare_binding(report).await;
    fixture.alias("2").await;
    fixture.reports("CrashLoop").await;
    fixture.alias("3").await;
    fixture.runs("3").await;
    all_pods_serve(&fixture, "3").await;
    fixture.end().await
}

async fn undo_is_held(
    environment: &Arc<Environment>,
    name: &str,
    workload: Workload,
) -> ScenarioResult {
    let fixture = with_all_kinds(environment, name).await;
    serve_version_1(&fixture, &workload).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let target = format!("{}/{}", workload.kind.plural, workload.name);
    fixture
        .namespace
        .kubectl(&["rollout", "undo", &target])
        .await
        .unwrap();
    fixture.reports("Held").await;
    let stays = |object: &Value| template_version(object) == "1";
    fixture
        .namespace
        .stays(
            "the person's choice stays",
            Duration::from_secs(4),
            workload.kind,
            &workload.name,
            stays,
        )
        .await;
    all_pods_serve(&fixture, "1").await;
    fixture.end().await
}

async fn a_persons_rollout_undo_of_a_stateful_set_is_held(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let workload = Workload::stateful_set("server");
    undo_is_held(&environment, "stateful undo", workload).await
}

async fn a_persons_rollout_undo_of_a_daemon_set_is_held(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let workload = Workload::daemon_set("server");
    undo_is_held(&environment, "daemon undo", workload).await
}

async fn second_binding_is_refused(
    environment: &Arc<Environment>,
    name: &str,
    workload: Workload,
) -> ScenarioResult {
    let fixture = with_all_kinds(environment, name).await;
    serve_version_1(&fixture, &workload).await;
    fixture
        .client
        .set_alias(&fixture.model, "challenger", "2")
        .await
        .unwrap();
    let second = resources::alias_binding("second", "model", "server");
    let members = json!({"alias": "challenger", "targetRef": workload.target_ref()});
    fixture.apply_object(with_spec(second, members)).await;
    let message = fixture.binding_reports("second", "TargetClaimed").await;
    assert!(message.contains("AliasBinding binding"), "{message}");
    all_pods_serve(&fixture, "1").await;
    fixture.end().await
}

async fn a_second_binding_of_a_stateful_set_reports_target_claimed(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let workload = Workload::stateful_set("server");
    second_binding_is_refused(&environment, "stateful claim", workload).await
}

async fn a_second_binding_of_a_daemon_set_reports_target_claimed(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let workload = Workload::daemon_set("server");
    second_binding_is_refused(&environment, "daemon claim", workload).await
}

async fn a_stateful_set_and_a_deployment_of_one_name_are_no_rivals(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_all_kinds(&environment, "one name").await;
    let stateful_set = Workload::stateful_set("server");
    fixture.bind_to(&stateful_set).await;
    fixture.runs("1").await;
    // Other labels: two workloads with the same pod labels would adopt each other's pods.
    let mut deployment = Workload::deployment("server").manifest();
    for labels in [
        "/spec/selector/matchLabels",
        "/spec/template/metadata/labels",
    ] {
        *deployment.pointer_mut(labels).unwrap() = json!({"app": "deployed"});
    }
    fixture.namespace.kubectl_apply(deployment).await.unwrap();
    let second = resources::alias_binding("second", "model", "server");
    fixture.apply_object(second).await;
    fixture.binding_runs("second", "1").await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.binding_runs("second", "2").await;
    for workload in [&stateful_set, &Workload::deployment("server")] {
        let template = template(&fixture, workload).await;
        assert_eq!(
            template["metadata"]["annotations"]["pointsman.dev/model-version"],
            "2"
        );
    }
    fixture.end().await
}

async fn a_template_creates_a_deployment_and_no_other_kind(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_all_kinds(&environment, "template kind").await;
    let pod =
        json!({"spec": {"containers": [{"name": "server", "image": "registry.example/server:1"}]}});
    let template = json!({"kind": "StatefulSet", "spec": {"replicas": 1, "template": pod}});
    let members = json!({"targetRef": null, "template": template});
    let binding = with_spec(
        resources::alias_binding("binding", "model", "server"),
        members,
    );
    let refused = fixture
        .namespace
        .kubectl_apply(&binding)
        .await
        .expect_err("a template with a kind was accepted")
        .to_string();
    assert!(refused.contains("unknown field"), "{refused}");
    let without_kind = json!({"spec": {"replicas": 1, "template": pod}});
    let binding = with_spec(binding, json!({"template": without_kind}));
    fixture.apply_object(binding).await;
    fixture.runs("1").await;
    fixture
        .namespace
        .get(&DEPLOYMENT, "binding")
        .await
        .expect("the template creates a Deployment");
    fixture.end().await
}
