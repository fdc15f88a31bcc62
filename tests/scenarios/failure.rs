//! A version that fails: seen, gone back from, held back, tried again when somebody asks, and on record.
//!
//! Absent: real crashes. Pods play their parts here; on a real node they really crash.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::PlainDeployment;
use pointsman_env::interceptor::{When, matching};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, JOB, POD, REGISTERED_MODEL, REPLICA_SET};
use pointsman_env::observe::Selection;
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::How;
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, condition, ready, reason, scenarios,
    template_version,
};

scenarios!(
    a_version_that_crashes_goes_back_says_why_and_is_not_tried_again,
    a_version_that_is_held_back_is_tried_again_when_the_alias_returns_and_when_a_person_asks,
    a_version_that_is_held_back_is_tried_again_when_the_workload_changes,
    a_version_that_crashes_a_little_and_then_runs_stays,
    a_version_whose_image_cannot_be_pulled_goes_back,
    a_version_whose_init_container_crashes_goes_back,
    a_version_that_never_becomes_ready_goes_back_at_the_progress_deadline,
    a_version_that_loses_readiness_while_it_bakes_goes_back,
    a_version_bakes_before_it_is_live_and_one_that_was_good_does_not,
    scaling_evicting_and_losing_a_node_are_not_a_bad_version,
    an_older_version_is_gone_back_to_where_the_newest_good_one_is_deleted,
    an_older_version_is_gone_back_to_where_the_newest_good_ones_files_are_lost,
    an_unreadable_artifact_never_starts_a_rollout_and_is_rolled_out_when_it_can_be_read,
    with_nowhere_to_go_back_to_the_code_is_named_and_trained_again_once,
    a_failed_first_version_stays_and_says_that_there_is_nothing_before_it,
    without_on_failure_a_failure_is_told_and_nothing_is_changed,
    the_registry_shows_where_a_version_runs_and_where_it_failed,
    the_ledger_is_logged_in_full,
    a_rollback_needs_no_registry,
    killed_between_the_failure_and_the_rollback_it_goes_back_and_does_not_try_again,
    a_person_who_puts_the_failed_version_back_is_left_alone,
    moving_the_alias_back_in_the_middle_of_a_failing_rollout_is_instant,
);

/// A fixture on which version 1 runs well and version 2 plays this.
async fn stage_where_two(
    environment: &Arc<Environment>,
    name: &str,
    plays: &str,
    more: Value,
) -> Fixture {
    let fixture = Fixture::new(environment, name).await;
    fixture.register(3).await;
    prepare(
        &fixture,
        PlainDeployment::named("server")
            .with_behavior(&format!("2={plays}"))
            .manifest(),
        more,
    )
    .await;
    fixture
}

async fn prepare(fixture: &Fixture, deployment: Value, more: Value) {
    fixture.alias("1").await;
    fixture.declare().await;
    fixture.namespace.kubectl_apply(deployment).await.unwrap();
    fixture.declare_binding(more).await;
    fixture.runs("1").await;
}

/// Waits until the binding went back to a version for good, and returns it.
async fn went_back_to(fixture: &Fixture, version: &str) -> Value {
    let went = |binding: &Value| {
        reason(binding) == "RolledBack"
            && condition(binding, "Stalled")["status"] == "True"
            && binding["status"]["running"]["version"] == version
    };
    fixture
        .namespace
        .eventually(
            &format!("back to version {version}"),
            PATIENCE,
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

async fn a_version_that_crashes_goes_back_says_why_and_is_not_tried_again(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = stage_where_two(&environment, "crash", "crash", json!({})).await;
    fixture.alias("2").await;
    let back = went_back_to(&fixture, "1").await;
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
            .contains("container server of pod server-"),
        "{failed}"
    );
    assert_eq!(
        (back["status"]["wanted"].as_str(), ready(&back)),
        (Some("2"), "False")
    );
    stays_on(&fixture, "1", 5).await;
    let events = fixture.namespace.events_about("binding").await.unwrap();
    let told = |reason: &str, part: &str| {
        events
            .iter()
            .any(|event| event.0 == reason && event.1.contains(part))
    };
    assert!(
        told(
            "RolledBack",
            "from version 2 to version 1: version 2 failed (CrashLoop)"
        ),
        "{events:?}"
    );
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

async fn a_version_that_is_held_back_is_tried_again_when_the_alias_returns_and_when_a_person_asks(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = stage_where_two(&environment, "retry", "crash", json!({})).await;
    fixture.alias("2").await;
    went_back_to(&fixture, "1").await;
    fixture.alias("1").await;
    let well = fixture.runs("1").await;
    assert!(well["status"]["heldBack"].is_null());
    fixture.alias("2").await;
    let again = went_back_to(&fixture, "1").await;
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
        .namespace
        .eventually(
            "it is tried a third time",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            tried,
        )
        .await;
    let third = went_back_to(&fixture, "1").await;
    assert_eq!(third["status"]["history"][1]["trigger"], "Person");
    stays_on(&fixture, "1", 4).await;
    fixture.end().await
}

async fn a_version_that_is_held_back_is_tried_again_when_the_workload_changes(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = stage_where_two(&environment, "mended", "crash", json!({})).await;
    fixture.alias("2").await;
    went_back_to(&fixture, "1").await;
    fixture
        .namespace
        .kubectl(&["rollout", "restart", "deployment/server"])
        .await
        .unwrap();
    stays_on(&fixture, "1", 4).await;
    let mended = PlainDeployment::named("server")
        .with_behavior("2=ready")
        .manifest();
    fixture.namespace.kubectl_apply(mended).await.unwrap();
    let runs = fixture.runs("2").await;
    assert_eq!(
        (
            runs["status"]["history"][0]["trigger"].as_str(),
            reason(&runs)
        ),
        (Some("SpecChange"), "Live")
    );
    assert!(runs["status"]["heldBack"].is_null());
    fixture.end().await
}

async fn a_version_that_crashes_a_little_and_then_runs_stays(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = stage_where_two(&environment, "flaky", "flaky", json!({})).await;
    fixture.alias("2").await;
    let runs = fixture.runs("2").await;
    assert_eq!(outcomes(&runs)[0], ("2", "Live", "AliasMove"));
    fixture.end().await
}

async fn a_version_whose_image_cannot_be_pulled_goes_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = stage_where_two(&environment, "image", "image-pull", json!({})).await;
    fixture.alias("2").await;
    let back = went_back_to(&fixture, "1").await;
    assert_eq!(back["status"]["history"][1]["reason"], "ImageUnavailable");
    fixture.end().await
}

async fn a_version_whose_init_container_crashes_goes_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "init").await;
    fixture.register(2).await;
    let mut deployment = PlainDeployment::named("server")
        .with_behavior("2=init-crash")
        .manifest();
    deployment["spec"]["template"]["spec"]["initContainers"] =
        json!([{"name": "fetch", "image": "registry.example/fetch:1"}]);
    prepare(&fixture, deployment, json!({})).await;
    fixture.alias("2").await;
    let back = went_back_to(&fixture, "1").await;
    assert_eq!(back["status"]["history"][1]["reason"], "InitFailed");
    fixture.end().await
}

async fn a_version_that_never_becomes_ready_goes_back_at_the_progress_deadline(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "deadline").await;
    fixture.register(2).await;
    let mut deployment = PlainDeployment::named("server").with_behavior("2=never-ready");
    deployment.progress_deadline_seconds = 4;
    prepare(&fixture, deployment.manifest(), json!({})).await;
    fixture.alias("2").await;
    let back = went_back_to(&fixture, "1").await;
    assert_eq!(
        back["status"]["history"][1]["reason"],
        "ProgressDeadlineExceeded"
    );
    stays_on(&fixture, "1", 6).await;
    fixture.end().await
}

async fn a_version_that_loses_readiness_while_it_bakes_goes_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let bake = json!({"rollback": {"bakeSeconds": 30}});
    let fixture = stage_where_two(
        &environment,
        "bake",
        "lose-readiness",
        json!({"rollback": {"bakeSeconds": 0}}),
    )
    .await;
    fixture.declare_binding(bake).await;
    fixture.alias("2").await;
    let baking = |binding: &Value| {
        reason(binding) == "Baking" && binding["status"]["running"]["version"] == "2"
    };
    fixture
        .namespace
        .eventually(
            "version 2 bakes",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            baking,
        )
        .await;
    let back = went_back_to(&fixture, "1").await;
    assert_eq!(back["status"]["history"][1]["reason"], "ReadinessLost");
    fixture.end().await
}

async fn a_version_bakes_before_it_is_live_and_one_that_was_good_does_not(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = stage_where_two(
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

async fn scaling_evicting_and_losing_a_node_are_not_a_bad_version(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = stage_where_two(
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
        .namespace
        .eventually(
            "version 2 is live",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            live,
        )
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

/// What the node lifecycle controller writes when a node is lost: the pod is not ready, its containers' word stays.
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

async fn an_older_version_is_gone_back_to_where_the_newest_good_one_is_deleted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "older").await;
    fixture.register(3).await;
    prepare(
        &fixture,
        PlainDeployment::named("server")
            .with_behavior("3=crash")
            .manifest(),
        json!({}),
    )
    .await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    // Both before the operator can see either: deleting the version that champion names would take the alias along.
    fixture.operator.freeze().unwrap();
    fixture.alias("3").await;
    fixture
        .client
        .delete_version(&fixture.model, "2")
        .await
        .unwrap();
    fixture.operator.thaw().unwrap();
    let back = went_back_to(&fixture, "1").await;
    assert_eq!(outcomes(&back)[0], ("1", "Live", "Failure"));
    fixture.end().await
}

/// Takes a version's files away from the server's own store; the path answers where they are now.
async fn lose_files(
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

async fn an_older_version_is_gone_back_to_where_the_newest_good_ones_files_are_lost(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "lost files").await;
    for alpha in [0.1, 0.2, 0.3] {
        fixture
            .client
            .train_and_register(&fixture.model, How::RegisterModel, alpha)
            .await
            .unwrap();
    }
    prepare(
        &fixture,
        PlainDeployment::named("server")
            .with_behavior("3=crash")
            .manifest(),
        json!({}),
    )
    .await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    lose_files(&environment, &fixture, "2").await;
    fixture.alias("3").await;
    let back = went_back_to(&fixture, "1").await;
    assert_eq!(
        outcomes(&back)[..2],
        [("1", "Live", "Failure"), ("3", "RolledBack", "AliasMove")]
    );
    fixture.end().await
}

async fn an_unreadable_artifact_never_starts_a_rollout_and_is_rolled_out_when_it_can_be_read(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "unreadable").await;
    for alpha in [0.1, 0.2] {
        fixture
            .client
            .train_and_register(&fixture.model, How::CreateModelVersion, alpha)
            .await
            .unwrap();
    }
    prepare(
        &fixture,
        PlainDeployment::named("server").manifest(),
        json!({}),
    )
    .await;
    let (from, to) = lose_files(&environment, &fixture, "2").await;
    let sets = fixture.replica_sets().await.len();
    fixture.alias("2").await;
    let told = fixture.reports("ArtifactUnavailable").await;
    assert!(
        told.contains("version 2 is not rolled out, for its artifact cannot be read"),
        "{told}"
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

async fn with_nowhere_to_go_back_to_the_code_is_named_and_trained_again_once(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "retrain").await;
    let one = fixture
        .client
        .train_and_register(&fixture.model, How::RegisterModel, 0.1)
        .await
        .unwrap();
    fixture
        .client
        .create_model_version(&fixture.model, "s3://models/retrain/2")
        .await
        .unwrap();
    let retrain = json!({"retrain": {"jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "train", "image": "registry.example/train:1"}]}}}}}});
    prepare(
        &fixture,
        PlainDeployment::named("server")
            .with_behavior("2=crash")
            .manifest(),
        retrain,
    )
    .await;
    fixture.operator.freeze().unwrap();
    fixture.alias("2").await;
    fixture
        .client
        .delete_version(&fixture.model, "1")
        .await
        .unwrap();
    fixture.operator.thaw().unwrap();
    let told = fixture.reports("NoRollbackTarget").await;
    assert!(told.contains("version 2 failed (CrashLoop)"), "{told}");
    assert!(
        told.contains(&format!("run {}", one.run_id)) && told.contains("parameters alpha=0.1"),
        "{told}"
    );
    let done = |binding: &Value| binding["status"]["retrain"]["outcome"] == "Succeeded";
    let binding = fixture
        .namespace
        .eventually(
            "it was trained again",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            done,
        )
        .await;
    assert_eq!(binding["status"]["lost"]["version"], "1");
    let jobs = fixture.namespace.list(&JOB, "").await.unwrap();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    let env = jobs[0]["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array()
        .unwrap();
    let of = |name: &str| {
        env.iter()
            .find(|each| each["name"] == name)
            .map(|each| each["value"].clone())
    };
    assert_eq!(of("RETRAIN_RUN_ID"), Some(json!(one.run_id)));
    assert_eq!(of("RETRAIN_MODEL_VERSION"), Some(json!("1")));
    assert_eq!(
        jobs[0]["metadata"]["ownerReferences"][0]["kind"],
        "AliasBinding"
    );
    let events = fixture.namespace.events_about("binding").await.unwrap();
    assert!(
        events
            .iter()
            .any(|event| event.0 == "NoRollbackTarget"
                && event.1.contains("to train version 1 again")),
        "{events:?}"
    );
    let three = fixture
        .client
        .train_and_register(&fixture.model, How::RegisterModel, 0.1)
        .await
        .unwrap();
    fixture.alias(&three.version).await;
    let runs = fixture.runs(&three.version).await;
    assert!(runs["status"]["lost"].is_null());
    assert_eq!(fixture.namespace.list(&JOB, "").await.unwrap().len(), 1);
    fixture.end().await
}

async fn a_failed_first_version_stays_and_says_that_there_is_nothing_before_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "first").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture
        .deploy(&PlainDeployment::named("server").with_behavior("1=crash"))
        .await;
    fixture.declare_binding(json!({})).await;
    let told = fixture.reports("NoRollbackTarget").await;
    assert!(
        told.contains("no earlier version was good for this binding"),
        "{told}"
    );
    assert!(told.contains("MLflow recorded no repository"), "{told}");
    stays_on(&fixture, "1", 3).await;
    fixture.end().await
}

async fn without_on_failure_a_failure_is_told_and_nothing_is_changed(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let tell = json!({"rollback": {"onFailure": "Report", "bakeSeconds": 0}});
    let fixture = stage_where_two(&environment, "tell only", "crash", tell).await;
    fixture.alias("2").await;
    let told = fixture.reports("CrashLoop").await;
    assert!(
        told.contains("version 2 failed and is still in the workload"),
        "{told}"
    );
    stays_on(&fixture, "2", 3).await;
    assert_eq!(
        outcomes(&fixture.binding().await)[0],
        ("2", "Failed", "AliasMove")
    );
    fixture.end().await
}

async fn the_registry_shows_where_a_version_runs_and_where_it_failed(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "tags").await;
    fixture.register(2).await;
    fixture.alias("1").await;
    fixture
        .declare_registry(json!({"writeBack": {"deploymentTags": true}}))
        .await;
    fixture.declare_model(json!({})).await;
    fixture
        .deploy(&PlainDeployment::named("server").with_behavior("2=crash"))
        .await;
    fixture.declare_binding(json!({})).await;
    fixture.runs("1").await;
    shows(&fixture, "1", "Live ").await;
    fixture.alias("2").await;
    went_back_to(&fixture, "1").await;
    let failed = shows(&fixture, "2", "RolledBack ").await;
    assert!(failed.ends_with(" CrashLoop"), "{failed}");
    shows(&fixture, "1", "Live ").await;
    // A restart writes nothing twice.
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
    fixture.end().await
}

/// Waits until a version's tag begins so, and returns it.
async fn shows(fixture: &Fixture, version: &str, beginning: &str) -> String {
    let key = format!(
        "pointsman.dev/cluster/{}/binding",
        fixture.namespace.namespace()
    );
    let look = async {
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
    let seen = tokio::time::timeout(PATIENCE, look).await;
    let Ok(seen) = seen else {
        panic!(
            "version {version} does not show {beginning:?}\n{}",
            fixture.namespace.report().await
        )
    };
    seen
}

async fn the_ledger_is_logged_in_full(environment: Arc<Environment>) -> ScenarioResult {
    let fixture =
        stage_where_two(&environment, "ledger", "crash", json!({"historyLimit": 1})).await;
    fixture.alias("2").await;
    let back = went_back_to(&fixture, "1").await;
    assert_eq!(
        back["status"]["history"].as_array().unwrap().len(),
        1,
        "{back}"
    );
    let entries = ledger_of(&fixture.operator.log());
    let told = |version: &str, outcome: &str| {
        entries
            .iter()
            .any(|entry| entry["version"] == version && entry["outcome"] == outcome)
    };
    assert!(told("1", "Live") && told("2", "Failed"), "{entries:?}");
    fixture.end().await
}

/// The ledger's entries in a log of JSON lines.
fn ledger_of(log: &str) -> Vec<Value> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ledger = lines.filter(|line| line["target"] == "pointsman::ledger");
    ledger
        .filter_map(|line| serde_json::from_str(line["entry"].as_str()?).ok())
        .collect()
}

async fn a_rollback_needs_no_registry(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = stage_where_two(&environment, "outage", "crash", json!({})).await;
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
        .namespace
        .eventually("it goes back", PATIENCE, &DEPLOYMENT, "server", back)
        .await;
    fixture.registry.accept_again().await.unwrap();
    went_back_to(&fixture, "1").await;
    stays_on(&fixture, "1", 3).await;
    fixture.end().await
}

async fn killed_between_the_failure_and_the_rollback_it_goes_back_and_does_not_try_again(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = stage_where_two(&environment, "killed in rollback", "crash", json!({})).await;
    for when in [When::Before, When::After] {
        fixture.alias("2").await;
        let is_two = |deployment: &Value| template_version(deployment) == "2";
        fixture
            .namespace
            .eventually(
                "version 2 is tried",
                PATIENCE,
                &DEPLOYMENT,
                "server",
                is_two,
            )
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
        went_back_to(&fixture, "1").await;
        stays_on(&fixture, "1", 3).await;
        fixture.alias("1").await;
        fixture.runs("1").await;
    }
    fixture.end().await
}

async fn a_person_who_puts_the_failed_version_back_is_left_alone(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = stage_where_two(&environment, "persons choice", "crash", json!({})).await;
    fixture.alias("2").await;
    went_back_to(&fixture, "1").await;
    fixture
        .namespace
        .kubectl(&["rollout", "undo", "deployment/server"])
        .await
        .unwrap();
    let held = |binding: &Value| binding["status"]["hold"]["manager"] == "kubectl";
    fixture
        .namespace
        .eventually(
            "the person's choice is held",
            PATIENCE,
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

async fn moving_the_alias_back_in_the_middle_of_a_failing_rollout_is_instant(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = stage_where_two(
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
        .namespace
        .eventually(
            "version 2 rolls out",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            rolling,
        )
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
