//! An alias and its Deployment: forward, back, created from a template, claimed, missing, in conflict.
//!
//! Absent: failures of the registry; see `outage`.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::Workload;
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT};
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{How, TrainedVersion};
use pointsman_env::resources::{self, with_spec};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, ScenarioResult, env, ready_message, ready_reason, scenarios,
    template_version,
};

scenarios!(
    an_alias_move_rolls_the_deployment_and_a_move_back_reuses_its_replica_set,
    a_template_creates_an_owned_deployment_that_is_deleted_with_its_binding,
    an_orphaned_deployment_survives_its_binding_and_can_be_adopted_again,
    deleting_a_binding_leaves_its_target_unchanged,
    mlflow_2_rolls_out_by_alias_and_by_stage,
    a_missing_target_is_reported_and_bound_once_it_exists,
    a_second_binding_of_a_target_reports_target_claimed,
    a_variable_set_by_another_manager_is_a_field_conflict,
    ten_alias_moves_within_a_second_end_at_the_last,
    changes_by_others_stay_and_removed_injections_are_restored,
    a_stuck_rollout_reports_the_progress_deadline,
    only_the_chosen_containers_are_injected,
);

async fn an_alias_move_rolls_the_deployment_and_a_move_back_reuses_its_replica_set(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "forward and back").await;
    let one = fixture.train(How::RegisterModel, 0.1).await;
    let two = fixture.train(How::CreateModelVersion, 0.5).await;
    fixture.alias(&one.version).await;
    fixture.declare().await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    let first = fixture.deployment().await;
    assert_injected(&fixture, &first, &one);
    fixture.alias(&two.version).await;
    fixture.runs("2").await;
    assert_injected(&fixture, &fixture.deployment().await, &two);
    let sets = fixture.replica_sets().await.len();
    fixture.alias("1").await;
    let binding = fixture.runs("1").await;
    assert_eq!(
        fixture.deployment().await["spec"]["template"],
        first["spec"]["template"],
        "a move back restores the template byte for byte"
    );
    assert_eq!(
        fixture.replica_sets().await.len(),
        sets,
        "the older ReplicaSet is used again"
    );
    assert_history_of_both_moves(&binding);
    assert_change_causes(&fixture).await;
    assert_events_of_both_moves(&fixture).await;
    assert_columns(&fixture).await;
    fixture.end().await
}

/// All variables of the first container describe this version.
fn assert_injected(fixture: &Fixture, deployment: &Value, version: &TrainedVersion) {
    let number = &version.version;
    let wanted = [
        ("MODEL_NAME", fixture.model.clone()),
        ("MODEL_VERSION", number.clone()),
        ("MODEL_ALIAS", "champion".to_owned()),
        ("MODEL_RUN_ID", version.run_id.clone()),
        (
            "MLFLOW_MODEL_URI",
            format!("models:/{}/{number}", fixture.model),
        ),
        ("MLFLOW_TRACKING_URI", fixture.registry.url()),
    ];
    for (name, value) in wanted {
        assert_eq!(env(deployment, 0, name), Some(value), "{name}");
    }
    let uri = env(deployment, 0, "MODEL_URI").unwrap();
    assert!(uri.starts_with("mlflow-artifacts:/"), "{uri}");
}

fn assert_history_of_both_moves(binding: &Value) {
    let history = binding["status"]["history"].as_array().unwrap();
    let recorded: Vec<_> = history
        .iter()
        .map(|entry| (entry["version"].as_str(), entry["trigger"].as_str()))
        .collect();
    let moved = Some("AliasMove");
    assert_eq!(
        recorded,
        [(Some("1"), moved), (Some("2"), moved), (Some("1"), moved)]
    );
    assert_eq!(history[1]["outcome"], "Superseded");
    assert!(
        history[1]["finishedAt"].is_string() && history[0]["finishedAt"].is_null(),
        "{history:?}"
    );
}

async fn assert_change_causes(fixture: &Fixture) {
    let rollouts = fixture
        .namespace
        .kubectl(&["rollout", "history", "deployment/server"])
        .await
        .unwrap();
    let change_cause = format!("{} version 2 (champion)", fixture.model);
    assert!(rollouts.contains(&change_cause), "{rollouts}");
}

async fn assert_columns(fixture: &Fixture) {
    let printed = fixture
        .namespace
        .kubectl(&["get", "abind", "binding", "--no-headers"])
        .await
        .unwrap();
    let columns: Vec<_> = printed.split_whitespace().take(7).collect();
    assert_eq!(
        columns,
        ["binding", "model", "champion", "1", "1", "True", "Live"]
    );
}

async fn assert_events_of_both_moves(fixture: &Fixture) {
    let events = fixture.namespace.events_about("binding").await.unwrap();
    let has_event = |reason: &str, text: &str| {
        events
            .iter()
            .any(|(event, note)| event == reason && note.contains(text))
    };
    assert!(
        has_event("RollingOut", "from version 1 to version 2"),
        "{events:?}"
    );
    assert!(
        has_event("RollingOut", "from version 2 to version 1"),
        "{events:?}"
    );
    assert!(has_event("Live", "version 2 runs"), "{events:?}");
}

fn template() -> Value {
    json!({"metadata": {"labels": {"team": "taxi"}}, "spec": {"replicas": 1, "template": {"spec": {"containers": [
        {"name": "server", "image": "registry.example/server:1"}]}}}})
}

async fn a_template_creates_an_owned_deployment_that_is_deleted_with_its_binding(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "template").await;
    fixture.register(2).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture
        .declare_binding(json!({"targetRef": null, "template": template()}))
        .await;
    fixture.runs("1").await;
    let made = fixture.namespace.get(&DEPLOYMENT, "binding").await.unwrap();
    assert_eq!(made["metadata"]["labels"]["team"], "taxi");
    assert_eq!(
        made["metadata"]["ownerReferences"][0]["kind"],
        "AliasBinding"
    );
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.alias("1").await;
    fixture.runs("1").await;
    assert_eq!(fixture.replica_sets().await.len(), 2);
    let mut changed = template();
    changed["spec"]["template"]["spec"]["containers"][0]["image"] =
        json!("registry.example/server:2");
    fixture
        .declare_binding(json!({"targetRef": null, "template": changed}))
        .await;
    let has_image = |deployment: &Value| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"]
            == "registry.example/server:2"
    };
    fixture
        .eventually(
            "the changed template is applied",
            &DEPLOYMENT,
            "binding",
            has_image,
        )
        .await;
    fixture
        .namespace
        .delete(&ALIAS_BINDING, "binding")
        .await
        .unwrap();
    fixture
        .eventually(
            "the Deployment goes too",
            &DEPLOYMENT,
            "binding",
            Value::is_null,
        )
        .await;
    fixture.end().await
}

async fn an_orphaned_deployment_survives_its_binding_and_can_be_adopted_again(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "orphan").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    let orphaning = json!({"targetRef": null, "template": template(), "deletionPolicy": "Orphan"});
    fixture.declare_binding(orphaning.clone()).await;
    fixture.runs("1").await;
    fixture
        .namespace
        .delete(&ALIAS_BINDING, "binding")
        .await
        .unwrap();
    fixture
        .eventually(
            "the binding goes",
            &ALIAS_BINDING,
            "binding",
            Value::is_null,
        )
        .await;
    let serves = |deployment: &Value| {
        deployment["spec"]["replicas"] == 1 && deployment["metadata"]["deletionTimestamp"].is_null()
    };
    fixture
        .namespace
        .stays(
            "the Deployment stays",
            Duration::from_secs(3),
            &DEPLOYMENT,
            "binding",
            serves,
        )
        .await;
    fixture.declare_binding(orphaning).await;
    fixture.runs("1").await;
    fixture.end().await
}

async fn deleting_a_binding_leaves_its_target_unchanged(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "deleted binding").await;
    fixture.serve_version_1().await;
    let before = fixture.workload().await;
    fixture
        .namespace
        .delete(&ALIAS_BINDING, "binding")
        .await
        .unwrap();
    fixture
        .eventually(
            "the binding goes",
            &ALIAS_BINDING,
            "binding",
            Value::is_null,
        )
        .await;
    fixture.alias("2").await;
    let same = |deployment: &Value| deployment["spec"] == before;
    fixture
        .namespace
        .stays(
            "the fields stay as they are",
            Duration::from_secs(3),
            &DEPLOYMENT,
            "server",
            same,
        )
        .await;
    fixture.end().await
}

async fn mlflow_2_rolls_out_by_alias_and_by_stage(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = Fixture::on(&environment, "mlflow two", MlflowVersion::Two).await;
    let one = fixture.train(How::RegisterModel, 0.1).await;
    fixture.train(How::CreateModelVersion, 0.2).await;
    fixture.alias(&one.version).await;
    fixture.declare().await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    assert!(
        env(&fixture.deployment().await, 0, "MODEL_URI")
            .unwrap()
            .ends_with("/artifacts/model")
    );
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.alias("1").await;
    fixture.runs("1").await;
    fixture
        .namespace
        .delete(&ALIAS_BINDING, "binding")
        .await
        .unwrap();
    fixture
        .declare_binding(json!({"alias": null, "stage": "Production"}))
        .await;
    let message = fixture.reports("StageNotFound").await;
    assert!(message.contains("transition one to it"), "{message}");
    fixture
        .client
        .transition_stage(&fixture.model, "2", "Production")
        .await
        .unwrap();
    fixture.runs("2").await;
    fixture.end().await
}

async fn a_missing_target_is_reported_and_bound_once_it_exists(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "missing target").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture.declare_binding(json!({})).await;
    let message = fixture.reports("TargetNotFound").await;
    assert!(
        message.contains("there is no deployment/server"),
        "{message}"
    );
    fixture.deploy(&Workload::deployment("server")).await;
    fixture.runs("1").await;
    fixture
        .namespace
        .delete(&DEPLOYMENT, "server")
        .await
        .unwrap();
    fixture.reports("TargetNotFound").await;
    fixture.deploy(&Workload::deployment("server")).await;
    fixture.runs("1").await;
    fixture.end().await
}

async fn a_second_binding_of_a_target_reports_target_claimed(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "two bindings").await;
    fixture.serve_version_1().await;
    fixture
        .client
        .set_alias(&fixture.model, "challenger", "2")
        .await
        .unwrap();
    let second = resources::alias_binding("second", "model", "server");
    let second = with_spec(second, json!({"alias": "challenger"}));
    fixture.apply_object(second).await;
    let message = fixture.binding_reports("second", "TargetClaimed").await;
    assert!(
        message.contains("driven by AliasBinding binding already"),
        "{message}"
    );
    assert_eq!(template_version(&fixture.deployment().await), "1");
    fixture
        .namespace
        .delete(&ALIAS_BINDING, "binding")
        .await
        .unwrap();
    fixture.binding_runs("second", "2").await;
    fixture.end().await
}

async fn a_variable_set_by_another_manager_is_a_field_conflict(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "field conflict").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    let mut deployment = Workload::deployment("server");
    deployment.environment = vec![("MODEL_URI".to_owned(), "s3://mine".to_owned())];
    fixture.deploy(&deployment).await;
    let before = fixture.workload().await;
    fixture.declare_binding(json!({})).await;
    let message = fixture.reports("FieldConflict").await;
    assert!(
        message.contains("kubectl-client-side-apply sets MODEL_URI in container server"),
        "{message}"
    );
    assert_eq!(fixture.workload().await, before);
    fixture.deploy(&Workload::deployment("server")).await;
    fixture.runs("1").await;
    fixture.end().await
}

async fn ten_alias_moves_within_a_second_end_at_the_last(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "ten moves").await;
    fixture.serve_version_1().await;
    for _ in 0..5 {
        fixture.alias("1").await;
        fixture.alias("2").await;
    }
    fixture.polled_twice().await;
    fixture.runs("2").await;
    let settled = |deployment: &Value| template_version(deployment) == "2";
    fixture
        .namespace
        .stays(
            "the last move counts",
            Duration::from_secs(4),
            &DEPLOYMENT,
            "server",
            settled,
        )
        .await;
    fixture.end().await
}

async fn changes_by_others_stay_and_removed_injections_are_restored(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "others").await;
    fixture.serve_version_1().await;
    fixture
        .namespace
        .kubectl(&["scale", "deployment/server", "--replicas=3"])
        .await
        .unwrap();
    let mut deployment = Workload::deployment("server");
    deployment.replicas = 3;
    deployment.environment = vec![("PORT".to_owned(), "8080".to_owned())];
    fixture.deploy(&deployment).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let now = fixture.deployment().await;
    assert_eq!(
        (
            now["spec"]["replicas"].as_i64(),
            env(&now, 0, "PORT").as_deref()
        ),
        (Some(3), Some("8080"))
    );
    // `kubectl replace` removes every field that is not in its manifest.
    let manifest = deployment.manifest().to_string();
    let plane = fixture.namespace.control_plane();
    plane
        .kubectl_with_input(
            &["-n", fixture.namespace.namespace(), "replace", "-f", "-"],
            &manifest,
        )
        .await
        .unwrap();
    let injected = |deployment: &Value| {
        template_version(deployment) == "2"
            && env(deployment, 0, "MODEL_VERSION").as_deref() == Some("2")
    };
    fixture
        .eventually(
            "the injection is written again",
            &DEPLOYMENT,
            "server",
            injected,
        )
        .await;
    fixture.runs("2").await;
    fixture.end().await
}

async fn a_stuck_rollout_reports_the_progress_deadline(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "stuck rollout").await;
    fixture.register(2).await;
    fixture.alias("1").await;
    fixture.declare().await;
    let mut deployment = Workload::deployment("server").with_behavior("2=never-ready");
    deployment.progress_deadline_seconds = 5;
    fixture.deploy(&deployment).await;
    fixture.declare_binding(json!({})).await;
    fixture.runs("1").await;
    fixture.alias("2").await;
    fixture.reports("RollingOut").await;
    let message = fixture.reports("ProgressDeadlineExceeded").await;
    assert!(message.contains("was not ready within 5 s"), "{message}");
    let binding = fixture.binding().await;
    assert_eq!(binding["status"]["lastGood"]["version"], "1");
    assert_eq!(binding["status"]["history"][0]["outcome"], "Failed");
    fixture.alias("1").await;
    fixture.runs("1").await;
    fixture.end().await
}

async fn only_the_chosen_containers_are_injected(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "containers").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    let mut deployment = Workload::deployment("server");
    deployment.containers = vec!["proxy".to_owned(), "server".to_owned()];
    fixture.deploy(&deployment).await;
    fixture
        .declare_binding(json!({"inject": {"containers": ["sever"]}}))
        .await;
    let seen = fixture
        .eventually(
            "a misspelt container is reported",
            &ALIAS_BINDING,
            "binding",
            |seen| ready_reason(seen) == "InvalidSpec",
        )
        .await;
    assert!(
        ready_message(&seen).contains("names sever, but the pod template has proxy, server"),
        "{}",
        ready_message(&seen)
    );
    fixture
        .declare_binding(json!({"inject": {"containers": ["server"]}}))
        .await;
    fixture.runs("1").await;
    let now = fixture.deployment().await;
    assert_eq!(
        (
            env(&now, 0, "MODEL_VERSION"),
            env(&now, 1, "MODEL_VERSION").as_deref()
        ),
        (None, Some("1"))
    );
    fixture.end().await
}
