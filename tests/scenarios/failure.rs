//! A version that fails: detected, rolled back, held back, retried on request, and recorded.
//!
//! Absent: real crashes. kwok writes the pods' status here; `tests/node` has pods that crash.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::Workload;
use pointsman_env::interceptor::{Fault, When, matching};
use pointsman_env::kinds::{
    ALIAS_BINDING, DEPLOYMENT, JOB, MODEL_REGISTRY, POD, REGISTERED_MODEL, REPLICA_SET,
};
use pointsman_env::observe::Selection;
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{How, TrainedVersion};
use pointsman_env::resources;
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, condition, env, ready_message, ready_reason,
    ready_status, scenarios, template_version,
};

scenarios!(
    a_crashing_version_is_rolled_back_with_its_cause_and_not_retried,
    a_held_back_version_is_retried_when_the_alias_returns_or_a_person_asks,
    a_held_back_version_is_retried_when_the_workload_changes,
    a_version_that_recovers_after_two_crashes_stays,
    a_version_whose_chosen_init_container_crashes_is_rolled_back,
    a_version_that_never_becomes_ready_is_rolled_back_at_the_progress_deadline,
    a_version_that_loses_readiness_while_baking_is_rolled_back,
    a_new_version_bakes_and_a_version_that_was_good_does_not,
    scaling_eviction_and_node_loss_do_not_count_as_failure,
    rollback_skips_a_good_version_that_was_deleted,
    rollback_skips_a_good_version_whose_files_are_lost,
    an_unreadable_artifact_starts_no_rollout_until_it_is_readable,
    without_a_rollback_target_the_training_code_is_named_and_run_once,
    a_failed_first_version_stays_and_reports_no_rollback_target,
    on_failure_report_reports_a_failure_and_changes_nothing,
    version_tags_show_where_a_version_runs_and_where_it_failed,
    a_version_tag_that_mlflow_refuses_is_told_and_delays_no_move,
    the_whole_history_is_logged,
    a_rollback_needs_no_registry,
    an_operator_killed_before_the_rollback_rolls_back_once_after_its_restart,
    a_failed_version_that_a_person_restores_is_not_rolled_back_again,
    moving_the_alias_back_during_a_failing_rollout_is_instant,
    a_model_reference_edited_while_a_version_fails_keeps_each_model_with_its_versions,
    an_upgrade_of_the_operator_tries_no_held_back_version_again_and_rolls_no_pods,
    the_commands_in_messages_work_when_they_are_copied,
);

/// A fixture on which version 1 runs and the pods of version 2 have this behavior.
async fn with_behavior_of_version_2(
    environment: &Arc<Environment>,
    name: &str,
    behavior: &str,
    more: Value,
) -> Fixture {
    let fixture = Fixture::new(environment, name).await;
    fixture.register(3).await;
    let behavior = format!("2={behavior}");
    fixture.serve_with_behavior(&behavior, more).await;
    fixture
}

/// Waits until the rollback to a version is complete, and returns the binding.
async fn rolled_back_to(fixture: &Fixture, version: &str) -> Value {
    let went = |binding: &Value| {
        ready_reason(binding) == "RolledBack"
            && condition(binding, "Stalled")["status"] == "True"
            && binding["status"]["running"]["version"] == version
    };
    fixture
        .eventually(
            &format!("back to version {version}"),
            &ALIAS_BINDING,
            "binding",
            went,
        )
        .await
}

fn outcomes(binding: &Value) -> Vec<(&str, &str, &str)> {
    let history = binding["status"]["history"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    history
        .iter()
        .map(|entry| {
            let of = |name: &str| entry[name].as_str().unwrap_or_default();
            (of("version"), of("outcome"), of("trigger"))
        })
        .collect()
}

async fn stays_on(fixture: &Fixture, version: &'static str, seconds: u64) {
    let holds = move |deployment: &Value| template_version(deployment) == version;
    fixture
        .namespace
        .stays(
            "it is not tried again",
            Duration::from_secs(seconds),
            &DEPLOYMENT,
            "server",
            holds,
        )
        .await;
}

async fn a_crashing_version_is_rolled_back_with_its_cause_and_not_retried(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_behavior_of_version_2(&environment, "crash", "crash", json!({})).await;
    fixture.alias("2").await;
    let back = rolled_back_to(&fixture, "1").await;
    assert_eq!(
        outcomes(&back),
        [
            ("1", "Live", "Failure"),
            ("2", "RolledBack", "AliasMove"),
            ("1", "Superseded", "AliasMove")
        ]
    );
    assert_eq!(back["status"]["history"][1]["reason"], "CrashLoop");
    let failed = &back["status"]["heldBack"]["versions"][0];
    assert_eq!(
        (failed["version"].as_str(), failed["reason"].as_str()),
        (Some("2"), Some("CrashLoop"))
    );
    assert!(
        failed["message"]
            .as_str()
            .unwrap()
            .starts_with("container server crashes: "),
        "{failed}"
    );
    assert_eq!(
        (back["status"]["wanted"].as_str(), ready_status(&back)),
        (Some("2"), "False")
    );
    stays_on(&fixture, "1", 5).await;
    let text = "from version 2 to version 1: version 2 failed (CrashLoop)";
    assert_event(&fixture, "RolledBack", text).await;
    assert_eq!(
        fixture.replica_sets().await.len(),
        3,
        "version 1's ReplicaSet is used again"
    );
    let columns = fixture
        .namespace
        .kubectl(&["get", "abind", "binding", "-o", "wide"])
        .await
        .unwrap();
    assert!(
        columns.contains("RolledBack") && columns.contains("HELD-BACK"),
        "{columns}"
    );
    fixture.end().await
}

async fn a_held_back_version_is_retried_when_the_alias_returns_or_a_person_asks(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_behavior_of_version_2(&environment, "retry", "crash", json!({})).await;
    fixture.alias("2").await;
    rolled_back_to(&fixture, "1").await;
    fixture.alias("1").await;
    let well = fixture.runs("1").await;
    assert!(well["status"]["heldBack"].is_null());
    fixture.alias("2").await;
    let again = rolled_back_to(&fixture, "1").await;
    assert_eq!(
        again["status"]["history"].as_array().unwrap().len(),
        5,
        "{again}"
    );
    fixture
        .namespace
        .kubectl(&[
            "annotate",
            "abind",
            "binding",
            "pointsman.dev/retry-requested-at=now",
        ])
        .await
        .unwrap();
    let tried = |binding: &Value| {
        binding["status"]["history"]
            .as_array()
            .is_some_and(|all| all.len() == 7)
    };
    fixture
        .eventually("it is tried a third time", &ALIAS_BINDING, "binding", tried)
        .await;
    let third = rolled_back_to(&fixture, "1").await;
    assert_eq!(third["status"]["history"][1]["trigger"], "Person");
    stays_on(&fixture, "1", 4).await;
    fixture.end().await
}

async fn a_held_back_version_is_retried_when_the_workload_changes(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_behavior_of_version_2(&environment, "mended", "crash", json!({})).await;
    fixture.alias("2").await;
    rolled_back_to(&fixture, "1").await;
    fixture
        .namespace
        .kubectl(&["rollout", "restart", "deployment/server"])
        .await
        .unwrap();
    stays_on(&fixture, "1", 4).await;
    // Annotations and labels are no change of the spec (`no_loops`); another image is one.
    let mut mended = Workload::deployment("server")
        .with_behavior("2=ready")
        .manifest();
    fixture
        .namespace
        .kubectl_apply(mended.clone())
        .await
        .unwrap();
    stays_on(&fixture, "1", 4).await;
    mended["spec"]["template"]["spec"]["containers"][0]["image"] = json!("server:mended");
    fixture.namespace.kubectl_apply(mended).await.unwrap();
    let runs = fixture.runs("2").await;
    assert_eq!(
        (
            runs["status"]["history"][0]["trigger"].as_str(),
            ready_reason(&runs)
        ),
        (Some("SpecChange"), "Live")
    );
    assert!(runs["status"]["heldBack"].is_null());
    fixture.end().await
}

async fn a_version_that_recovers_after_two_crashes_stays(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_behavior_of_version_2(&environment, "flaky", "flaky", json!({})).await;
    fixture.alias("2").await;
    let runs = fixture.runs("2").await;
    assert_eq!(outcomes(&runs)[0], ("2", "Live", "AliasMove"));
    fixture.end().await
}

async fn a_version_whose_chosen_init_container_crashes_is_rolled_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "init").await;
    fixture.register(2).await;
    let mut deployment = Workload::deployment("server")
        .with_behavior("2=init-crash")
        .manifest();
    deployment["spec"]["template"]["spec"]["initContainers"] =
        json!([{"name": "fetch", "image": "registry.example/fetch:1"}]);
    let chosen = json!({"inject": {"containers": ["fetch", "server"]}});
    fixture.serve(deployment, chosen).await;
    fixture.alias("2").await;
    let back = rolled_back_to(&fixture, "1").await;
    assert_eq!(back["status"]["history"][1]["reason"], "InitFailed");
    fixture.end().await
}

async fn a_version_that_never_becomes_ready_is_rolled_back_at_the_progress_deadline(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "deadline").await;
    fixture.register(2).await;
    let mut deployment = Workload::deployment("server").with_behavior("2=never-ready");
    deployment.progress_deadline_seconds = 4;
    fixture.serve(deployment.manifest(), json!({})).await;
    fixture.alias("2").await;
    let back = rolled_back_to(&fixture, "1").await;
    assert_eq!(
        back["status"]["history"][1]["reason"],
        "ProgressDeadlineExceeded"
    );
    stays_on(&fixture, "1", 6).await;
    fixture.end().await
}

async fn a_version_that_loses_readiness_while_baking_is_rolled_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let bake = json!({"rollback": {"bakeSeconds": 30}});
    let fixture = with_behavior_of_version_2(
        &environment,
        "bake",
        "lose-readiness",
        json!({"rollback": {"bakeSeconds": 0}}),
    )
    .await;
    fixture.declare_binding(bake).await;
    fixture.alias("2").await;
    let baking = |binding: &Value| {
        ready_reason(binding) == "Baking" && binding["status"]["running"]["version"] == "2"
    };
    fixture
        .eventually("version 2 bakes", &ALIAS_BINDING, "binding", baking)
        .await;
    let back = rolled_back_to(&fixture, "1").await;
    assert_eq!(back["status"]["history"][1]["reason"], "ReadinessLost");
    fixture.end().await
}

async fn a_new_version_bakes_and_a_version_that_was_good_does_not(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_behavior_of_version_2(
        &environment,
        "bakes",
        "ready",
        json!({"rollback": {"bakeSeconds": 0}}),
    )
    .await;
    fixture
        .declare_binding(json!({"rollback": {"bakeSeconds": 5}}))
        .await;
    fixture.alias("2").await;
    fixture.reports("Baking").await;
    let live = fixture.runs("2").await;
    let entry = &live["status"]["history"][0];
    let at = |name: &str| {
        entry[name]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    let baked = at("liveAt").duration_since(at("availableAt")).as_secs();
    assert!((5..=8).contains(&baked), "{entry}");
    fixture
        .declare_binding(json!({"rollback": {"bakeSeconds": 3600}}))
        .await;
    fixture.alias("1").await;
    let back = fixture.runs("1").await;
    assert_eq!(outcomes(&back)[0], ("1", "Live", "AliasMove"));
    fixture.end().await
}

async fn scaling_eviction_and_node_loss_do_not_count_as_failure(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_behavior_of_version_2(
        &environment,
        "bystander",
        "ready",
        json!({"rollback": {"bakeSeconds": 0}}),
    )
    .await;
    fixture
        .declare_binding(json!({"rollback": {"bakeSeconds": 20}}))
        .await;
    fixture.alias("2").await;
    fixture.reports("Baking").await;
    fixture
        .namespace
        .kubectl(&["scale", "deployment/server", "--replicas=4"])
        .await
        .unwrap();
    let four = |seen: &pointsman_env::observe::Objects| seen.len() >= 4;
    let pods = fixture
        .namespace
        .eventually_all(
            "four pods",
            PATIENCE,
            &POD,
            &Selection::Labelled("pointsman.dev/binding=binding"),
            four,
        )
        .await;
    let names: Vec<String> = pods.keys().cloned().collect();
    evict(&fixture, &names[0]).await;
    lose_node(&fixture, &names[1]).await;
    fixture
        .namespace
        .kubectl(&["scale", "deployment/server", "--replicas=3"])
        .await
        .unwrap();
    let holds = |binding: &Value| binding["status"]["heldBack"].is_null();
    fixture
        .namespace
        .stays(
            "the version is not blamed",
            Duration::from_secs(8),
            &ALIAS_BINDING,
            "binding",
            holds,
        )
        .await;
    let live = |binding: &Value| outcomes(binding).first() == Some(&("2", "Live", "AliasMove"));
    fixture
        .eventually("version 2 is live", &ALIAS_BINDING, "binding", live)
        .await;
    fixture.end().await
}

async fn evict(fixture: &Fixture, pod: &str) {
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(fixture.namespace.client(), fixture.namespace.namespace());
    pods.evict(pod, &kube::api::EvictParams::default())
        .await
        .unwrap();
}

/// The status that the node lifecycle controller writes if a node is lost: the pod is not ready, its container statuses stay.
async fn lose_node(fixture: &Fixture, pod: &str) {
    let now = jiff::Timestamp::now().to_string();
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}]}})
        .to_string();
    let subresource = [
        "patch",
        "pod",
        pod,
        "--subresource=status",
        "--type=strategic",
        "-p",
        &patch,
    ];
    fixture.namespace.kubectl(&subresource).await.unwrap();
}

async fn rollback_skips_a_good_version_that_was_deleted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "older").await;
    fixture.register(3).await;
    fixture.serve_with_behavior("3=crash", json!({})).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    // Both while the operator is stopped: deleting the version that champion points to also deletes the alias.
    fixture.operator.freeze().unwrap();
    fixture.alias("3").await;
    fixture
        .client
        .delete_version(&fixture.model, "2")
        .await
        .unwrap();
    fixture.operator.thaw().unwrap();
    let back = rolled_back_to(&fixture, "1").await;
    assert_eq!(outcomes(&back)[0], ("1", "Live", "Failure"));
    fixture.end().await
}

/// Moves a version's files out of the server's artifact store and returns their new path.
pub async fn lose_files(
    environment: &Environment,
    fixture: &Fixture,
    version: &str,
) -> (std::path::PathBuf, std::path::PathBuf) {
    let model = fixture
        .namespace
        .get(&REGISTERED_MODEL, "model")
        .await
        .unwrap();
    let versions = model["status"]["versions"].as_array().unwrap();
    let uri = versions
        .iter()
        .find(|each| each["version"] == version)
        .unwrap()["artifactURI"]
        .as_str()
        .unwrap();
    let path = uri.strip_prefix("mlflow-artifacts:/").unwrap();
    let from = environment.artifacts(MlflowVersion::Three).await.join(path);
    let to = from.with_extension("lost");
    std::fs::rename(&from, &to).unwrap();
    (from, to)
}

async fn rollback_skips_a_good_version_whose_files_are_lost(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "lost files").await;
    for alpha in [0.1, 0.2, 0.3] {
        fixture.train(How::RegisterModel, alpha).await;
    }
    fixture.serve_with_behavior("3=crash", json!({})).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    lose_files(&environment, &fixture, "2").await;
    fixture.alias("3").await;
    let back = rolled_back_to(&fixture, "1").await;
    assert_eq!(
        outcomes(&back)[..2],
        [("1", "Live", "Failure"), ("3", "RolledBack", "AliasMove")]
    );
    fixture.end().await
}

async fn an_unreadable_artifact_starts_no_rollout_until_it_is_readable(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "unreadable").await;
    for alpha in [0.1, 0.2] {
        fixture.train(How::CreateModelVersion, alpha).await;
    }
    fixture
        .serve(Workload::deployment("server").manifest(), json!({}))
        .await;
    let (from, to) = lose_files(&environment, &fixture, "2").await;
    let sets = fixture.replica_sets().await.len();
    fixture.alias("2").await;
    let message = fixture.reports("ArtifactUnavailable").await;
    assert!(
        message.contains("version 2 is not rolled out: its artifact cannot be read"),
        "{message}"
    );
    let binding = fixture.binding().await;
    assert_eq!(condition(&binding, "ArtifactAvailable")["status"], "False");
    assert_eq!(
        outcomes(&binding)[..2],
        [("2", "HeldBack", "AliasMove"), ("1", "Live", "AliasMove")]
    );
    stays_on(&fixture, "1", 3).await;
    assert_eq!(fixture.replica_sets().await.len(), sets);
    std::fs::rename(to, from).unwrap();
    let runs = fixture.runs("2").await;
    assert_eq!(condition(&runs, "ArtifactAvailable")["status"], "True");
    fixture.end().await
}

async fn without_a_rollback_target_the_training_code_is_named_and_run_once(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "retrain").await;
    let one = fixture.train(How::RegisterModel, 0.1).await;
    fixture
        .client
        .create_model_version(&fixture.model, "s3://models/retrain/2")
        .await
        .unwrap();
    let retrain = json!({"retrain": {"jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "train", "image": "registry.example/train:1"}]}}}}}});
    fixture.serve_with_behavior("2=crash", retrain).await;
    fixture.operator.freeze().unwrap();
    fixture.alias("2").await;
    fixture
        .client
        .delete_version(&fixture.model, "1")
        .await
        .unwrap();
    fixture.operator.thaw().unwrap();
    let message = fixture.reports("NoRollbackTarget").await;
    assert!(
        message.contains("version 2 failed (CrashLoop)"),
        "{message}"
    );
    assert!(
        message.contains(&format!("run {}", one.run_id))
            && message.contains("parameters alpha=0.1"),
        "{message}"
    );
    let done = |binding: &Value| binding["status"]["retrain"]["outcome"] == "Succeeded";
    let binding = fixture
        .eventually("it was trained again", &ALIAS_BINDING, "binding", done)
        .await;
    assert_eq!(binding["status"]["lost"]["version"], "1");
    assert_training_job(&fixture, &one).await;
    assert_event(&fixture, "NoRollbackTarget", "to train version 1 again").await;
    let three = fixture.train(How::RegisterModel, 0.1).await;
    fixture.alias(&three.version).await;
    let runs = fixture.runs(&three.version).await;
    assert!(runs["status"]["lost"].is_null());
    assert_eq!(fixture.namespace.list(&JOB, "").await.unwrap().len(), 1);
    fixture.end().await
}

/// There is one Job, owned by the binding, and its variables name this version.
async fn assert_training_job(fixture: &Fixture, version: &TrainedVersion) {
    let jobs = fixture.namespace.list(&JOB, "").await.unwrap();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    let run_id = Some(version.run_id.clone());
    assert_eq!(env(&jobs[0], 0, "RETRAIN_RUN_ID"), run_id);
    let number = env(&jobs[0], 0, "RETRAIN_MODEL_VERSION");
    assert_eq!(number.as_ref(), Some(&version.version));
    assert_eq!(
        jobs[0]["metadata"]["ownerReferences"][0]["kind"],
        "AliasBinding"
    );
}

/// An Event about the binding has this reason, and this text in its message.
async fn assert_event(fixture: &Fixture, reason: &str, text: &str) {
    let events = fixture.namespace.events_about("binding").await.unwrap();
    let is_it = |(event, message): &(String, String)| event == reason && message.contains(text);
    assert!(events.iter().any(is_it), "{events:?}");
}

async fn a_failed_first_version_stays_and_reports_no_rollback_target(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "first").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture
        .deploy(&Workload::deployment("server").with_behavior("1=crash"))
        .await;
    fixture.declare_binding(json!({})).await;
    let message = fixture.reports("NoRollbackTarget").await;
    assert!(
        message.contains("no earlier version was good for this binding"),
        "{message}"
    );
    assert!(
        message.contains("MLflow recorded no repository"),
        "{message}"
    );
    stays_on(&fixture, "1", 3).await;
    fixture.end().await
}

async fn on_failure_report_reports_a_failure_and_changes_nothing(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let report = json!({"rollback": {"onFailure": "Report", "bakeSeconds": 0}});
    let fixture = with_behavior_of_version_2(&environment, "report only", "crash", report).await;
    fixture.alias("2").await;
    let message = fixture.reports("CrashLoop").await;
    assert!(
        message.contains("version 2 failed and is still in the workload"),
        "{message}"
    );
    stays_on(&fixture, "2", 3).await;
    assert_eq!(
        outcomes(&fixture.binding().await)[0],
        ("2", "Failed", "AliasMove")
    );
    fixture.end().await
}

/// Registers versions 1 and 2, and declares a registry that is to have tags of deployments, and the model.
async fn declare_with_tags(fixture: &Fixture) {
    fixture.register(2).await;
    fixture.alias("1").await;
    let tags = json!({"writeBack": {"deploymentTags": true}});
    fixture.declare_registry(tags).await;
    fixture.declare_model(json!({})).await;
}

async fn version_tags_show_where_a_version_runs_and_where_it_failed(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "tags").await;
    declare_with_tags(&fixture).await;
    fixture
        .deploy(&Workload::deployment("server").with_behavior("2=crash"))
        .await;
    fixture.declare_binding(json!({})).await;
    fixture.runs("1").await;
    shows(&fixture, "1", "Live ").await;
    fixture.alias("2").await;
    rolled_back_to(&fixture, "1").await;
    let failed = shows(&fixture, "2", "RolledBack ").await;
    assert!(failed.ends_with(" CrashLoop"), "{failed}");
    shows(&fixture, "1", "Live ").await;
    // Another cluster writes to the same server, about a binding of the same name.
    let own = fixture.tag_key("binding").await;
    let (_, rest) = own
        .trim_start_matches("pointsman.dev/")
        .split_once('/')
        .unwrap();
    let others = format!("pointsman.dev/00000000-0000-0000-0000-000000000000/{rest}");
    let (client, model) = (&fixture.client, &fixture.model);
    client
        .set_tag(model, Some("1"), &others, "Live")
        .await
        .unwrap();
    // A restart writes no tag again.
    let mark = fixture.registry.mark();
    fixture.operator.kill().unwrap();
    fixture.operator.start_again().await.unwrap();
    fixture.polled_twice().await;
    let writes: Vec<_> = fixture.registry.writes_since(mark);
    assert!(writes.is_empty(), "{writes:?}");
    fixture
        .namespace
        .delete(&ALIAS_BINDING, "binding")
        .await
        .unwrap();
    shows(&fixture, "1", "nothing").await;
    let left = fixture
        .client
        .version_tags(&fixture.model, "1")
        .await
        .unwrap();
    assert_eq!(left[&others], "Live", "it is another cluster's");
    fixture.end().await
}

async fn a_version_tag_that_mlflow_refuses_is_told_and_delays_no_move(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "refused tags").await;
    let refusal = json!({"error_code": "PERMISSION_DENIED", "message": "no permission EDIT"});
    let refused = Fault::json(403, refusal.to_string());
    let set = matching::path_contains("model-versions/set-tag");
    let rule = fixture.registry.inject(set, refused, None);
    declare_with_tags(&fixture).await;
    fixture.deploy(&Workload::deployment("server")).await;
    fixture.declare_binding(json!({})).await;
    fixture.runs("1").await;
    let tells = |registry: &Value| {
        let condition = condition(registry, "TagsWritten");
        let message = condition["message"].as_str().unwrap_or_default();
        condition["status"] == "False"
            && condition["reason"] == "RegistryRefused"
            && message.contains("EDIT")
            && ready_reason(registry) == "Reachable"
    };
    fixture
        .eventually("the refusal is told", &MODEL_REGISTRY, "mlflow", tells)
        .await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.registry.remove(rule);
    shows(&fixture, "2", "Live ").await;
    let is_silent = |registry: &Value| condition(registry, "TagsWritten").is_null();
    fixture
        .eventually("it is told no more", &MODEL_REGISTRY, "mlflow", is_silent)
        .await;
    fixture.end().await
}

/// Waits until a version's tag begins with this text, and returns it.
async fn shows(fixture: &Fixture, version: &str, beginning: &str) -> String {
    let key = fixture.tag_key("binding").await;
    let tag = async {
        loop {
            let tags = fixture
                .client
                .version_tags(&fixture.model, version)
                .await
                .unwrap();
            let value = tags[&key].as_str().unwrap_or("nothing").to_owned();
            if value.starts_with(beginning) {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, tag).await;
    let Ok(found) = found else {
        panic!(
            "version {version} does not show {beginning:?}\n{}",
            fixture.namespace.report().await
        )
    };
    found
}

async fn the_whole_history_is_logged(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = with_behavior_of_version_2(
        &environment,
        "history log",
        "crash",
        json!({"historyLimit": 1}),
    )
    .await;
    fixture.alias("2").await;
    let back = rolled_back_to(&fixture, "1").await;
    assert_eq!(
        back["status"]["history"].as_array().unwrap().len(),
        1,
        "{back}"
    );
    let entries = history_of(&fixture.operator.log());
    let is_reported = |version: &str, outcome: &str| {
        entries
            .iter()
            .any(|entry| entry["version"] == version && entry["outcome"] == outcome)
    };
    assert!(
        is_reported("1", "Live") && is_reported("2", "Failed"),
        "{entries:?}"
    );
    fixture.end().await
}

/// The history entries in a log of JSON lines.
fn history_of(log: &str) -> Vec<Value> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let entries = lines.filter(|line| line["target"] == "pointsman::history");
    entries
        .filter_map(|line| serde_json::from_str(line["entry"].as_str()?).ok())
        .collect()
}

async fn a_rollback_needs_no_registry(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = with_behavior_of_version_2(&environment, "outage", "crash", json!({})).await;
    let mut pause = fixture
        .api
        .pause(matching::write("deployments/server"), When::After);
    fixture.alias("2").await;
    tokio::time::timeout(PATIENCE, pause.reached())
        .await
        .expect("version 2 is written");
    fixture.registry.refuse().await;
    pause.release();
    let back = |deployment: &Value| template_version(deployment) == "1";
    fixture
        .eventually("it is rolled back", &DEPLOYMENT, "server", back)
        .await;
    fixture.registry.accept_again().await.unwrap();
    rolled_back_to(&fixture, "1").await;
    stays_on(&fixture, "1", 3).await;
    fixture.end().await
}

async fn an_operator_killed_before_the_rollback_rolls_back_once_after_its_restart(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture =
        with_behavior_of_version_2(&environment, "killed in rollback", "crash", json!({})).await;
    for when in [When::Before, When::After] {
        fixture.alias("2").await;
        let is_two = |deployment: &Value| template_version(deployment) == "2";
        fixture
            .eventually("version 2 is tried", &DEPLOYMENT, "server", is_two)
            .await;
        let mut pause = fixture
            .api
            .pause(matching::write("deployments/server"), when);
        let reached = tokio::time::timeout(PATIENCE, pause.reached()).await;
        assert!(
            reached.is_ok(),
            "{when:?}: no rollback\n{}",
            fixture.namespace.report().await
        );
        fixture.operator.kill().unwrap();
        pause.release();
        fixture.operator.start_again().await.unwrap();
        rolled_back_to(&fixture, "1").await;
        stays_on(&fixture, "1", 3).await;
        fixture.alias("1").await;
        fixture.runs("1").await;
    }
    fixture.end().await
}

async fn a_failed_version_that_a_person_restores_is_not_rolled_back_again(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture =
        with_behavior_of_version_2(&environment, "persons choice", "crash", json!({})).await;
    fixture.alias("2").await;
    rolled_back_to(&fixture, "1").await;
    fixture
        .namespace
        .kubectl(&["rollout", "undo", "deployment/server"])
        .await
        .unwrap();
    let held = |binding: &Value| binding["status"]["hold"]["manager"] == "kubectl";
    fixture
        .eventually(
            "the person's choice is held",
            &ALIAS_BINDING,
            "binding",
            held,
        )
        .await;
    stays_on(&fixture, "2", 5).await;
    fixture.alias("3").await;
    fixture.runs("3").await;
    fixture.end().await
}

async fn moving_the_alias_back_during_a_failing_rollout_is_instant(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_behavior_of_version_2(
        &environment,
        "middle",
        "never-ready",
        json!({"rollback": {"bakeSeconds": 0}}),
    )
    .await;
    fixture
        .declare_binding(json!({"rollback": {"bakeSeconds": 3600}}))
        .await;
    fixture.alias("2").await;
    let rolling = |binding: &Value| binding["status"]["running"]["version"] == "2";
    fixture
        .eventually("version 2 rolls out", &ALIAS_BINDING, "binding", rolling)
        .await;
    fixture.alias("1").await;
    let back = fixture.runs("1").await;
    assert_eq!(
        outcomes(&back),
        [
            ("1", "Live", "AliasMove"),
            ("2", "Superseded", "AliasMove"),
            ("1", "Superseded", "AliasMove")
        ]
    );
    let sets = fixture.namespace.list(&REPLICA_SET, "").await.unwrap();
    assert_eq!(sets.len(), 3, "version 1's ReplicaSet is used again");
    fixture.end().await
}

async fn a_model_reference_edited_while_a_version_fails_keeps_each_model_with_its_versions(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let behavior = "never-ready,3=crash";
    let fixture =
        with_behavior_of_version_2(&environment, "model edited", behavior, json!({})).await;
    let other = format!("{}-other", fixture.model);
    fixture.register_as(&other, 3).await;
    let champion = |version| fixture.client.set_alias(&other, "champion", version);
    champion("3").await.unwrap();
    let declared = resources::registered_model("other", &other);
    fixture.apply_object(declared).await;
    fixture.alias("2").await;
    fixture.reports("RollingOut").await;
    fixture
        .declare_binding(json!({"modelRef": {"name": "other"}}))
        .await;
    let back = rolled_back_to(&fixture, "1").await;
    let models = |binding: &Value| -> Vec<(String, String)> {
        let entries = binding["status"]["history"].as_array().unwrap();
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
        let of = |entry: &Value| (text(entry, "model"), text(entry, "version"));
        entries.iter().map(of).collect()
    };
    let version = |model: &str, number: &str| (model.to_owned(), number.to_owned());
    let own = fixture.model.as_str();
    let mut expected = vec![
        version(own, "1"),
        version(&other, "3"),
        version(own, "2"),
        version(own, "1"),
    ];
    assert_eq!(models(&back), expected);
    let held_back = &back["status"]["heldBack"]["versions"];
    assert_eq!(held_back.as_array().unwrap().len(), 1, "{held_back}");
    assert_eq!(held_back[0]["model"], other.as_str());
    let injected = |deployment: &Value| {
        ["MODEL_NAME", "MLFLOW_MODEL_URI"].map(|name| env(deployment, 0, name).unwrap())
    };
    let deployment = fixture.deployment().await;
    assert_eq!(
        injected(&deployment),
        [own.to_owned(), format!("models:/{own}/1")]
    );
    // Version 1 of the other model is another version than the one that runs, and is not held back.
    champion("1").await.unwrap();
    let live = |binding: &Value| {
        binding["status"]["running"]["model"] == other.as_str() && ready_status(binding) == "True"
    };
    let live = fixture
        .eventually("the other model runs", &ALIAS_BINDING, "binding", live)
        .await;
    expected.insert(0, version(&other, "1"));
    assert_eq!(models(&live), expected);
    let deployment = fixture.deployment().await;
    assert_eq!(
        injected(&deployment),
        [other.clone(), format!("models:/{other}/1")]
    );
    fixture.end().await
}

async fn an_upgrade_of_the_operator_tries_no_held_back_version_again_and_rolls_no_pods(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = with_behavior_of_version_2(&environment, "upgrade", "crash", json!({})).await;
    fixture.alias("2").await;
    rolled_back_to(&fixture, "1").await;
    fixture.operator.stop().unwrap();
    // As an earlier release wrote it, before a newer API server set fields by default.
    let old = r#"{"status":{"heldBack":{"specDigest":"v0:0123456789abcdef"}}}"#;
    let status = ["--subresource=status", "--type=merge", "-p", old];
    let patch = [["patch", "abind", "binding"].as_slice(), &status].concat();
    fixture.namespace.kubectl(&patch).await.unwrap();
    let defaulted = json!({"spec": {"template": {"spec": {"dnsPolicy": "Default", "terminationGracePeriodSeconds": 5}}}});
    let patched = fixture
        .namespace
        .patch(&DEPLOYMENT, "server", &defaulted)
        .await;
    let before = patched.unwrap()["spec"].clone();
    fixture.operator.start_again().await.unwrap();
    stays_on(&fixture, "1", 6).await;
    assert_eq!(fixture.workload().await, before);
    let binding = fixture.binding().await;
    assert_eq!(
        binding["status"]["heldBack"]["versions"][0]["version"], "2",
        "{binding}"
    );
    fixture.end().await
}

/// The command at the end of a message, as a person copies it.
fn command_in(message: &str) -> String {
    let (_, command) = message.rsplit_once(": kubectl ").expect(message);
    let (command, _) = command.split_once(" (").unwrap_or((command, ""));
    format!("kubectl {command}")
}

async fn the_commands_in_messages_work_when_they_are_copied(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_behavior_of_version_2(&environment, "commands", "crash", json!({})).await;
    let run = async |message: &str| {
        let command = command_in(message);
        fixture.shell(&command).await.expect(&command)
    };
    fixture.alias("2").await;
    let back = rolled_back_to(&fixture, "1").await;
    run(&ready_message(&back)).await;
    let tried = |binding: &Value| binding["status"]["history"][1]["trigger"] == "Person";
    let sentence = "the version is tried again";
    fixture
        .eventually(sentence, &ALIAS_BINDING, "binding", tried)
        .await;
    fixture.alias("3").await;
    fixture.runs("3").await;
    let undo = ["rollout", "undo", "deployment/server"];
    fixture.namespace.kubectl(&undo).await.unwrap();
    run(&fixture.reports("Held").await).await;
    fixture.runs("3").await;
    let second = resources::alias_binding("second", "model", "server");
    fixture.apply_object(second).await;
    run(&fixture.binding_reports("second", "TargetClaimed").await).await;
    let is_gone = |binding: &Value| binding.is_null();
    fixture
        .eventually("the second is gone", &ALIAS_BINDING, "second", is_gone)
        .await;
    fixture.runs("3").await;
    fixture.end().await
}
