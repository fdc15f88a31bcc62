//! A version that fails: seen, gone back from, held back, tried again when somebody asks, and on record.
//!
//! Absent: real crashes. Pods play their parts here; on a real node they really crash.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::PlainDeployment;
use pointsman_env::interceptor::{When, matching};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, JOB, POD, REGISTERED_MODEL, REPLICA_SET};
use pointsman_env::observe::Which;
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::How;
use serde_json::{Value, json};

use crate::stage::{
    PATIENCE, Stage, Told, World, condition, ready, reason, scenarios, template_version,
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

/// A stage on which version 1 runs well and version 2 plays this.
async fn stage_where_two(world: &Arc<World>, name: &str, plays: &str, more: Value) -> Stage {
    let stage = Stage::new(world, name).await;
    stage.register(3).await;
    prepare(
        &stage,
        PlainDeployment::named("server")
            .playing(&format!("2={plays}"))
            .manifest(),
        more,
    )
    .await;
    stage
}

async fn prepare(stage: &Stage, deployment: Value, more: Value) {
    stage.alias("1").await;
    stage.declare().await;
    stage.place.kubectl_apply(deployment).await.unwrap();
    stage.declare_binding(more).await;
    stage.runs("1").await;
}

/// Waits until the binding went back to a version for good, and returns it.
async fn went_back_to(stage: &Stage, version: &str) -> Value {
    let went = |binding: &Value| {
        reason(binding) == "RolledBack"
            && condition(binding, "Stalled")["status"] == "True"
            && binding["status"]["running"]["version"] == version
    };
    stage
        .place
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

async fn stays_on(stage: &Stage, version: &'static str, seconds: u64) {
    let holds = move |deployment: &Value| template_version(deployment) == version;
    stage
        .place
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
    world: Arc<World>,
) -> Told {
    let stage = stage_where_two(&world, "crash", "crash", json!({})).await;
    stage.alias("2").await;
    let back = went_back_to(&stage, "1").await;
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
    stays_on(&stage, "1", 5).await;
    let events = stage.place.events_about("binding").await.unwrap();
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
        stage.replica_sets().await.len(),
        3,
        "version 1's ReplicaSet is used again"
    );
    let columns = stage
        .place
        .kubectl(&["get", "abind", "binding", "-o", "wide"])
        .await
        .unwrap();
    assert!(
        columns.contains("RolledBack") && columns.contains("HELD-BACK"),
        "{columns}"
    );
    stage.end().await
}

async fn a_version_that_is_held_back_is_tried_again_when_the_alias_returns_and_when_a_person_asks(
    world: Arc<World>,
) -> Told {
    let stage = stage_where_two(&world, "retry", "crash", json!({})).await;
    stage.alias("2").await;
    went_back_to(&stage, "1").await;
    stage.alias("1").await;
    let well = stage.runs("1").await;
    assert!(well["status"]["heldBack"].is_null());
    stage.alias("2").await;
    let again = went_back_to(&stage, "1").await;
    assert_eq!(
        again["status"]["history"].as_array().unwrap().len(),
        5,
        "{again}"
    );
    stage
        .place
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
    stage
        .place
        .eventually(
            "it is tried a third time",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            tried,
        )
        .await;
    let third = went_back_to(&stage, "1").await;
    assert_eq!(third["status"]["history"][1]["trigger"], "Person");
    stays_on(&stage, "1", 4).await;
    stage.end().await
}

async fn a_version_that_is_held_back_is_tried_again_when_the_workload_changes(
    world: Arc<World>,
) -> Told {
    let stage = stage_where_two(&world, "mended", "crash", json!({})).await;
    stage.alias("2").await;
    went_back_to(&stage, "1").await;
    stage
        .place
        .kubectl(&["rollout", "restart", "deployment/server"])
        .await
        .unwrap();
    stays_on(&stage, "1", 4).await;
    let mended = PlainDeployment::named("server")
        .playing("2=ready")
        .manifest();
    stage.place.kubectl_apply(mended).await.unwrap();
    let runs = stage.runs("2").await;
    assert_eq!(
        (
            runs["status"]["history"][0]["trigger"].as_str(),
            reason(&runs)
        ),
        (Some("SpecChange"), "Live")
    );
    assert!(runs["status"]["heldBack"].is_null());
    stage.end().await
}

async fn a_version_that_crashes_a_little_and_then_runs_stays(world: Arc<World>) -> Told {
    let stage = stage_where_two(&world, "flaky", "flaky", json!({})).await;
    stage.alias("2").await;
    let runs = stage.runs("2").await;
    assert_eq!(outcomes(&runs)[0], ("2", "Live", "AliasMove"));
    stage.end().await
}

async fn a_version_whose_image_cannot_be_pulled_goes_back(world: Arc<World>) -> Told {
    let stage = stage_where_two(&world, "image", "image-pull", json!({})).await;
    stage.alias("2").await;
    let back = went_back_to(&stage, "1").await;
    assert_eq!(back["status"]["history"][1]["reason"], "ImageUnavailable");
    stage.end().await
}

async fn a_version_whose_init_container_crashes_goes_back(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "init").await;
    stage.register(2).await;
    let mut deployment = PlainDeployment::named("server")
        .playing("2=init-crash")
        .manifest();
    deployment["spec"]["template"]["spec"]["initContainers"] =
        json!([{"name": "fetch", "image": "registry.example/fetch:1"}]);
    prepare(&stage, deployment, json!({})).await;
    stage.alias("2").await;
    let back = went_back_to(&stage, "1").await;
    assert_eq!(back["status"]["history"][1]["reason"], "InitFailed");
    stage.end().await
}

async fn a_version_that_never_becomes_ready_goes_back_at_the_progress_deadline(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "deadline").await;
    stage.register(2).await;
    let mut deployment = PlainDeployment::named("server").playing("2=never-ready");
    deployment.progress_deadline_seconds = 4;
    prepare(&stage, deployment.manifest(), json!({})).await;
    stage.alias("2").await;
    let back = went_back_to(&stage, "1").await;
    assert_eq!(
        back["status"]["history"][1]["reason"],
        "ProgressDeadlineExceeded"
    );
    stays_on(&stage, "1", 6).await;
    stage.end().await
}

async fn a_version_that_loses_readiness_while_it_bakes_goes_back(world: Arc<World>) -> Told {
    let bake = json!({"rollback": {"bakeSeconds": 30}});
    let stage = stage_where_two(
        &world,
        "bake",
        "lose-readiness",
        json!({"rollback": {"bakeSeconds": 0}}),
    )
    .await;
    stage.declare_binding(bake).await;
    stage.alias("2").await;
    let baking = |binding: &Value| {
        reason(binding) == "Baking" && binding["status"]["running"]["version"] == "2"
    };
    stage
        .place
        .eventually(
            "version 2 bakes",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            baking,
        )
        .await;
    let back = went_back_to(&stage, "1").await;
    assert_eq!(back["status"]["history"][1]["reason"], "ReadinessLost");
    stage.end().await
}

async fn a_version_bakes_before_it_is_live_and_one_that_was_good_does_not(
    world: Arc<World>,
) -> Told {
    let stage = stage_where_two(
        &world,
        "bakes",
        "ready",
        json!({"rollback": {"bakeSeconds": 0}}),
    )
    .await;
    stage
        .declare_binding(json!({"rollback": {"bakeSeconds": 5}}))
        .await;
    stage.alias("2").await;
    stage.says("Baking").await;
    let live = stage.runs("2").await;
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
    stage
        .declare_binding(json!({"rollback": {"bakeSeconds": 3600}}))
        .await;
    stage.alias("1").await;
    let back = stage.runs("1").await;
    assert_eq!(outcomes(&back)[0], ("1", "Live", "AliasMove"));
    stage.end().await
}

async fn scaling_evicting_and_losing_a_node_are_not_a_bad_version(world: Arc<World>) -> Told {
    let stage = stage_where_two(
        &world,
        "bystander",
        "ready",
        json!({"rollback": {"bakeSeconds": 0}}),
    )
    .await;
    stage
        .declare_binding(json!({"rollback": {"bakeSeconds": 20}}))
        .await;
    stage.alias("2").await;
    stage.says("Baking").await;
    stage
        .place
        .kubectl(&["scale", "deployment/server", "--replicas=4"])
        .await
        .unwrap();
    let four = |seen: &pointsman_env::observe::Seen| seen.len() >= 4;
    let pods = stage
        .place
        .eventually_all(
            "four pods",
            PATIENCE,
            &POD,
            &Which::Labelled("pointsman.dev/binding=binding"),
            four,
        )
        .await;
    let names: Vec<String> = pods.keys().cloned().collect();
    evict(&stage, &names[0]).await;
    lose_node(&stage, &names[1]).await;
    stage
        .place
        .kubectl(&["scale", "deployment/server", "--replicas=3"])
        .await
        .unwrap();
    let holds = |binding: &Value| binding["status"]["heldBack"].is_null();
    stage
        .place
        .stays(
            "the version is not blamed",
            Duration::from_secs(8),
            &ALIAS_BINDING,
            "binding",
            holds,
        )
        .await;
    let live = |binding: &Value| outcomes(binding).first() == Some(&("2", "Live", "AliasMove"));
    stage
        .place
        .eventually(
            "version 2 is live",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            live,
        )
        .await;
    stage.end().await
}

async fn evict(stage: &Stage, pod: &str) {
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(stage.place.client(), stage.place.namespace());
    pods.evict(pod, &kube::api::EvictParams::default())
        .await
        .unwrap();
}

/// What the node lifecycle controller writes when a node is lost: the pod is not ready, its containers' word stays.
async fn lose_node(stage: &Stage, pod: &str) {
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
    stage.place.kubectl(&subresource).await.unwrap();
}

async fn an_older_version_is_gone_back_to_where_the_newest_good_one_is_deleted(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "older").await;
    stage.register(3).await;
    prepare(
        &stage,
        PlainDeployment::named("server")
            .playing("3=crash")
            .manifest(),
        json!({}),
    )
    .await;
    stage.alias("2").await;
    stage.runs("2").await;
    // Both before the operator can see either: deleting the version that champion names would take the alias along.
    stage.operator.freeze().unwrap();
    stage.alias("3").await;
    stage
        .client
        .delete_version(&stage.model, "2")
        .await
        .unwrap();
    stage.operator.thaw().unwrap();
    let back = went_back_to(&stage, "1").await;
    assert_eq!(outcomes(&back)[0], ("1", "Live", "Failure"));
    stage.end().await
}

/// Takes a version's files away from the server's own store; the path answers where they are now.
async fn lose_files(
    world: &World,
    stage: &Stage,
    version: &str,
) -> (std::path::PathBuf, std::path::PathBuf) {
    let model = stage.place.get(&REGISTERED_MODEL, "model").await.unwrap();
    let versions = model["status"]["versions"].as_array().unwrap();
    let uri = versions
        .iter()
        .find(|each| each["version"] == version)
        .unwrap()["artifactURI"]
        .as_str()
        .unwrap();
    let path = uri.strip_prefix("mlflow-artifacts:/").unwrap();
    let from = world.artifacts(MlflowVersion::Three).await.join(path);
    let to = from.with_extension("lost");
    std::fs::rename(&from, &to).unwrap();
    (from, to)
}

async fn an_older_version_is_gone_back_to_where_the_newest_good_ones_files_are_lost(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "lost files").await;
    for alpha in [0.1, 0.2, 0.3] {
        stage
            .client
            .train_and_register(&stage.model, How::RegisterModel, alpha)
            .await
            .unwrap();
    }
    prepare(
        &stage,
        PlainDeployment::named("server")
            .playing("3=crash")
            .manifest(),
        json!({}),
    )
    .await;
    stage.alias("2").await;
    stage.runs("2").await;
    lose_files(&world, &stage, "2").await;
    stage.alias("3").await;
    let back = went_back_to(&stage, "1").await;
    assert_eq!(
        outcomes(&back)[..2],
        [("1", "Live", "Failure"), ("3", "RolledBack", "AliasMove")]
    );
    stage.end().await
}

async fn an_unreadable_artifact_never_starts_a_rollout_and_is_rolled_out_when_it_can_be_read(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "unreadable").await;
    for alpha in [0.1, 0.2] {
        stage
            .client
            .train_and_register(&stage.model, How::CreateModelVersion, alpha)
            .await
            .unwrap();
    }
    prepare(
        &stage,
        PlainDeployment::named("server").manifest(),
        json!({}),
    )
    .await;
    let (from, to) = lose_files(&world, &stage, "2").await;
    let sets = stage.replica_sets().await.len();
    stage.alias("2").await;
    let told = stage.says("ArtifactUnavailable").await;
    assert!(
        told.contains("version 2 is not rolled out, for its artifact cannot be read"),
        "{told}"
    );
    let binding = stage.binding().await;
    assert_eq!(condition(&binding, "ArtifactAvailable")["status"], "False");
    assert_eq!(
        outcomes(&binding)[..2],
        [("2", "HeldBack", "AliasMove"), ("1", "Live", "AliasMove")]
    );
    stays_on(&stage, "1", 3).await;
    assert_eq!(stage.replica_sets().await.len(), sets);
    std::fs::rename(to, from).unwrap();
    let runs = stage.runs("2").await;
    assert_eq!(condition(&runs, "ArtifactAvailable")["status"], "True");
    stage.end().await
}

async fn with_nowhere_to_go_back_to_the_code_is_named_and_trained_again_once(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "retrain").await;
    let one = stage
        .client
        .train_and_register(&stage.model, How::RegisterModel, 0.1)
        .await
        .unwrap();
    stage
        .client
        .create_model_version(&stage.model, "s3://models/retrain/2")
        .await
        .unwrap();
    let retrain = json!({"retrain": {"jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "train", "image": "registry.example/train:1"}]}}}}}});
    prepare(
        &stage,
        PlainDeployment::named("server")
            .playing("2=crash")
            .manifest(),
        retrain,
    )
    .await;
    stage.operator.freeze().unwrap();
    stage.alias("2").await;
    stage
        .client
        .delete_version(&stage.model, "1")
        .await
        .unwrap();
    stage.operator.thaw().unwrap();
    let told = stage.says("NoRollbackTarget").await;
    assert!(told.contains("version 2 failed (CrashLoop)"), "{told}");
    assert!(
        told.contains(&format!("run {}", one.run_id)) && told.contains("parameters alpha=0.1"),
        "{told}"
    );
    let done = |binding: &Value| binding["status"]["retrain"]["outcome"] == "Succeeded";
    let binding = stage
        .place
        .eventually(
            "it was trained again",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            done,
        )
        .await;
    assert_eq!(binding["status"]["lost"]["version"], "1");
    let jobs = stage.place.list(&JOB, "").await.unwrap();
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
    let events = stage.place.events_about("binding").await.unwrap();
    assert!(
        events
            .iter()
            .any(|event| event.0 == "NoRollbackTarget"
                && event.1.contains("to train version 1 again")),
        "{events:?}"
    );
    let three = stage
        .client
        .train_and_register(&stage.model, How::RegisterModel, 0.1)
        .await
        .unwrap();
    stage.alias(&three.version).await;
    let runs = stage.runs(&three.version).await;
    assert!(runs["status"]["lost"].is_null());
    assert_eq!(stage.place.list(&JOB, "").await.unwrap().len(), 1);
    stage.end().await
}

async fn a_failed_first_version_stays_and_says_that_there_is_nothing_before_it(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "first").await;
    stage.register(1).await;
    stage.alias("1").await;
    stage.declare().await;
    stage
        .deploy(&PlainDeployment::named("server").playing("1=crash"))
        .await;
    stage.declare_binding(json!({})).await;
    let told = stage.says("NoRollbackTarget").await;
    assert!(
        told.contains("no earlier version was good for this binding"),
        "{told}"
    );
    assert!(told.contains("MLflow recorded no repository"), "{told}");
    stays_on(&stage, "1", 3).await;
    stage.end().await
}

async fn without_on_failure_a_failure_is_told_and_nothing_is_changed(world: Arc<World>) -> Told {
    let tell = json!({"rollback": {"onFailure": false, "bakeSeconds": 0}});
    let stage = stage_where_two(&world, "tell only", "crash", tell).await;
    stage.alias("2").await;
    let told = stage.says("CrashLoop").await;
    assert!(
        told.contains("version 2 failed and is still in the workload"),
        "{told}"
    );
    stays_on(&stage, "2", 3).await;
    assert_eq!(
        outcomes(&stage.binding().await)[0],
        ("2", "Failed", "AliasMove")
    );
    stage.end().await
}

async fn the_registry_shows_where_a_version_runs_and_where_it_failed(world: Arc<World>) -> Told {
    let mut stage = Stage::new(&world, "tags").await;
    stage.register(2).await;
    stage.alias("1").await;
    stage
        .declare_registry(json!({"writeBack": {"deploymentTags": true}}))
        .await;
    stage.declare_model(json!({})).await;
    stage
        .deploy(&PlainDeployment::named("server").playing("2=crash"))
        .await;
    stage.declare_binding(json!({})).await;
    stage.runs("1").await;
    shows(&stage, "1", "Live ").await;
    stage.alias("2").await;
    went_back_to(&stage, "1").await;
    let failed = shows(&stage, "2", "RolledBack ").await;
    assert!(failed.ends_with(" CrashLoop"), "{failed}");
    shows(&stage, "1", "Live ").await;
    // A restart writes nothing twice.
    let mark = stage.registry.mark();
    stage.operator.kill().unwrap();
    stage.operator.start_again().await.unwrap();
    stage.looked_twice().await;
    let writes: Vec<_> = stage.registry.writes_since(mark);
    assert!(writes.is_empty(), "{writes:?}");
    stage.place.delete(&ALIAS_BINDING, "binding").await.unwrap();
    shows(&stage, "1", "nothing").await;
    stage.end().await
}

/// Waits until a version's tag begins so, and returns it.
async fn shows(stage: &Stage, version: &str, beginning: &str) -> String {
    let key = format!("pointsman.dev/cluster/{}/binding", stage.place.namespace());
    let look = async {
        loop {
            let tags = stage
                .client
                .version_tags(&stage.model, version)
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
            stage.place.account().await
        )
    };
    seen
}

async fn the_ledger_is_logged_in_full(world: Arc<World>) -> Told {
    let stage = stage_where_two(&world, "ledger", "crash", json!({"historyLimit": 1})).await;
    stage.alias("2").await;
    let back = went_back_to(&stage, "1").await;
    assert_eq!(
        back["status"]["history"].as_array().unwrap().len(),
        1,
        "{back}"
    );
    let entries = ledger_of(&stage.operator.log());
    let told = |version: &str, outcome: &str| {
        entries
            .iter()
            .any(|entry| entry["version"] == version && entry["outcome"] == outcome)
    };
    assert!(told("1", "Live") && told("2", "Failed"), "{entries:?}");
    stage.end().await
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

async fn a_rollback_needs_no_registry(world: Arc<World>) -> Told {
    let stage = stage_where_two(&world, "outage", "crash", json!({})).await;
    let mut pause = stage
        .api
        .pause(matching::write("deployments/server"), When::After);
    stage.alias("2").await;
    tokio::time::timeout(PATIENCE, pause.reached())
        .await
        .expect("version 2 is written");
    stage.registry.refuse().await;
    pause.release();
    let back = |deployment: &Value| template_version(deployment) == "1";
    stage
        .place
        .eventually("it goes back", PATIENCE, &DEPLOYMENT, "server", back)
        .await;
    stage.registry.accept_again().await.unwrap();
    went_back_to(&stage, "1").await;
    stays_on(&stage, "1", 3).await;
    stage.end().await
}

async fn killed_between_the_failure_and_the_rollback_it_goes_back_and_does_not_try_again(
    world: Arc<World>,
) -> Told {
    let mut stage = stage_where_two(&world, "killed in rollback", "crash", json!({})).await;
    for when in [When::Before, When::After] {
        stage.alias("2").await;
        let is_two = |deployment: &Value| template_version(deployment) == "2";
        stage
            .place
            .eventually(
                "version 2 is tried",
                PATIENCE,
                &DEPLOYMENT,
                "server",
                is_two,
            )
            .await;
        let mut pause = stage.api.pause(matching::write("deployments/server"), when);
        let reached = tokio::time::timeout(PATIENCE, pause.reached()).await;
        assert!(
            reached.is_ok(),
            "{when:?}: no rollback\n{}",
            stage.place.account().await
        );
        stage.operator.kill().unwrap();
        pause.release();
        stage.operator.start_again().await.unwrap();
        went_back_to(&stage, "1").await;
        stays_on(&stage, "1", 3).await;
        stage.alias("1").await;
        stage.runs("1").await;
    }
    stage.end().await
}

async fn a_person_who_puts_the_failed_version_back_is_left_alone(world: Arc<World>) -> Told {
    let stage = stage_where_two(&world, "persons choice", "crash", json!({})).await;
    stage.alias("2").await;
    went_back_to(&stage, "1").await;
    stage
        .place
        .kubectl(&["rollout", "undo", "deployment/server"])
        .await
        .unwrap();
    let held = |binding: &Value| binding["status"]["hold"]["manager"] == "kubectl";
    stage
        .place
        .eventually(
            "the person's choice is held",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            held,
        )
        .await;
    stays_on(&stage, "2", 5).await;
    stage.alias("3").await;
    stage.runs("3").await;
    stage.end().await
}

async fn moving_the_alias_back_in_the_middle_of_a_failing_rollout_is_instant(
    world: Arc<World>,
) -> Told {
    let stage = stage_where_two(
        &world,
        "middle",
        "never-ready",
        json!({"rollback": {"bakeSeconds": 0}}),
    )
    .await;
    stage
        .declare_binding(json!({"rollback": {"bakeSeconds": 3600}}))
        .await;
    stage.alias("2").await;
    let rolling = |binding: &Value| binding["status"]["running"]["version"] == "2";
    stage
        .place
        .eventually(
            "version 2 rolls out",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            rolling,
        )
        .await;
    stage.alias("1").await;
    let back = stage.runs("1").await;
    assert_eq!(
        outcomes(&back),
        [
            ("1", "Live", "AliasMove"),
            ("2", "Superseded", "AliasMove"),
            ("1", "Superseded", "AliasMove")
        ]
    );
    let sets = stage.place.list(&REPLICA_SET, "").await.unwrap();
    assert_eq!(sets.len(), 3, "version 1's ReplicaSet is used again");
    stage.end().await
}
