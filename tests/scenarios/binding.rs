//! An alias and its Deployment: forward, back, made from a template, shared, missing, in conflict.
//!
//! Absent: trouble with the registry.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::PlainDeployment;
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT};
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::How;
use serde_json::{Value, json};

use crate::stage::{
    PATIENCE, Stage, Told, World, env, message, reason, scenarios, template_version,
};

scenarios!(
    moving_the_alias_forward_and_back_rolls_the_deployment_and_reuses_the_older_replica_set,
    a_template_is_made_and_owned_and_goes_with_its_binding,
    an_orphaned_deployment_stays_when_its_binding_goes_and_is_taken_up_again,
    deleting_a_binding_leaves_its_target_serving,
    mlflow_2_moves_by_alias_and_by_stage,
    a_missing_target_is_told_and_taken_up_when_it_comes_and_when_it_comes_again,
    the_second_binding_on_a_target_is_told_who_holds_it,
    a_variable_that_another_manager_set_is_a_conflict_with_its_name,
    ten_alias_moves_within_a_second_end_at_the_last,
    what_others_write_into_the_deployment_stays_and_what_they_wipe_is_written_again,
    a_rollout_that_does_not_finish_is_told_in_the_deployments_own_words,
    only_the_chosen_containers_are_written_to,
);

async fn moving_the_alias_forward_and_back_rolls_the_deployment_and_reuses_the_older_replica_set(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "forward and back").await;
    let one = stage
        .client
        .train_and_register(&stage.model, How::RegisterModel, 0.1)
        .await
        .unwrap();
    let two = stage
        .client
        .train_and_register(&stage.model, How::CreateModelVersion, 0.5)
        .await
        .unwrap();
    stage.alias(&one.version).await;
    stage.declare().await;
    stage.bind(json!({})).await;
    stage.runs("1").await;
    let first = stage.deployment().await;
    assert_eq!(env(&first, 0, "MODEL_NAME"), Some(stage.model.clone()));
    assert_eq!(env(&first, 0, "MODEL_VERSION").as_deref(), Some("1"));
    assert_eq!(env(&first, 0, "MODEL_ALIAS").as_deref(), Some("champion"));
    assert_eq!(env(&first, 0, "MODEL_RUN_ID"), Some(one.run_id.clone()));
    assert_eq!(
        env(&first, 0, "MLFLOW_MODEL_URI"),
        Some(format!("models:/{}/1", stage.model))
    );
    assert_eq!(
        env(&first, 0, "MLFLOW_TRACKING_URI"),
        Some(stage.registry.url())
    );
    assert!(
        env(&first, 0, "MODEL_URI")
            .unwrap()
            .starts_with("mlflow-artifacts:/"),
        "{first}"
    );

    stage.alias(&two.version).await;
    stage.runs("2").await;
    let second = stage.deployment().await;
    assert_eq!(env(&second, 0, "MODEL_RUN_ID"), Some(two.run_id));
    assert!(
        env(&second, 0, "MODEL_URI")
            .unwrap()
            .starts_with("mlflow-artifacts:/"),
        "{second}"
    );
    let sets = stage.replica_sets().await.len();

    stage.alias("1").await;
    let back = stage.runs("1").await;
    assert_eq!(
        stage.deployment().await["spec"]["template"],
        first["spec"]["template"],
        "byte for byte the template of before"
    );
    assert_eq!(
        stage.replica_sets().await.len(),
        sets,
        "the older ReplicaSet is used again"
    );
    let history = back["status"]["history"].as_array().unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|entry| {
            (
                entry["version"].as_str().unwrap(),
                entry["trigger"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [("1", "AliasMove"), ("2", "AliasMove"), ("1", "AliasMove")]
    );
    assert_eq!(history[1]["outcome"], "Superseded");
    assert!(
        history[1]["finishedAt"].is_string() && history[0]["finishedAt"].is_null(),
        "{history:?}"
    );
    let rollouts = stage
        .place
        .kubectl(&["rollout", "history", "deployment/server"])
        .await
        .unwrap();
    assert!(
        rollouts.contains(&format!("{} version 2 (champion)", stage.model)),
        "{rollouts}"
    );
    events_tell_of_both_moves(&stage).await;
    let columns = stage
        .place
        .kubectl(&["get", "abind", "binding", "--no-headers"])
        .await
        .unwrap();
    let columns: Vec<_> = columns.split_whitespace().take(7).collect();
    assert_eq!(
        columns,
        ["binding", "model", "champion", "1", "1", "True", "Live"]
    );
    stage.end().await
}

async fn events_tell_of_both_moves(stage: &Stage) {
    let events = stage.place.events_about("binding").await.unwrap();
    let tells = |reason: &str, text: &str| {
        events
            .iter()
            .any(|(word, note)| word == reason && note.contains(text))
    };
    assert!(
        tells("RollingOut", "from version 1 to version 2"),
        "{events:?}"
    );
    assert!(
        tells("RollingOut", "from version 2 to version 1"),
        "{events:?}"
    );
    assert!(tells("Live", "version 2 runs"), "{events:?}");
}

fn template() -> Value {
    json!({"metadata": {"labels": {"team": "taxi"}}, "spec": {"replicas": 1, "template": {"spec": {"containers": [
        {"name": "server", "image": "registry.example/server:1"}]}}}})
}

async fn a_template_is_made_and_owned_and_goes_with_its_binding(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "template").await;
    stage.register(2).await;
    stage.alias("1").await;
    stage.declare().await;
    stage
        .declare_binding(json!({"target": null, "template": template()}))
        .await;
    stage.runs("1").await;
    let made = stage.place.get(&DEPLOYMENT, "binding").await.unwrap();
    assert_eq!(made["metadata"]["labels"]["team"], "taxi");
    assert_eq!(
        made["metadata"]["ownerReferences"][0]["kind"],
        "AliasBinding"
    );
    stage.alias("2").await;
    stage.runs("2").await;
    stage.alias("1").await;
    stage.runs("1").await;
    assert_eq!(stage.replica_sets().await.len(), 2);
    let mut changed = template();
    changed["spec"]["template"]["spec"]["containers"][0]["image"] =
        json!("registry.example/server:2");
    stage
        .declare_binding(json!({"target": null, "template": changed}))
        .await;
    let has_image = |deployment: &Value| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"]
            == "registry.example/server:2"
    };
    stage
        .place
        .eventually(
            "the changed template is applied",
            PATIENCE,
            &DEPLOYMENT,
            "binding",
            has_image,
        )
        .await;
    stage.place.delete(&ALIAS_BINDING, "binding").await.unwrap();
    stage
        .place
        .eventually(
            "the Deployment goes too",
            PATIENCE,
            &DEPLOYMENT,
            "binding",
            Value::is_null,
        )
        .await;
    stage.end().await
}

async fn an_orphaned_deployment_stays_when_its_binding_goes_and_is_taken_up_again(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "orphan").await;
    stage.register(1).await;
    stage.alias("1").await;
    stage.declare().await;
    let orphaning = json!({"target": null, "template": template(), "deletionPolicy": "Orphan"});
    stage.declare_binding(orphaning.clone()).await;
    stage.runs("1").await;
    stage.place.delete(&ALIAS_BINDING, "binding").await.unwrap();
    stage
        .place
        .eventually(
            "the binding goes",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            Value::is_null,
        )
        .await;
    let serves = |deployment: &Value| {
        deployment["spec"]["replicas"] == 1 && deployment["metadata"]["deletionTimestamp"].is_null()
    };
    stage
        .place
        .stays(
            "the Deployment stays",
            Duration::from_secs(3),
            &DEPLOYMENT,
            "binding",
            serves,
        )
        .await;
    stage.declare_binding(orphaning).await;
    stage.runs("1").await;
    stage.end().await
}

async fn deleting_a_binding_leaves_its_target_serving(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "deleted binding").await;
    stage.set().await;
    let before = stage.workload().await;
    stage.place.delete(&ALIAS_BINDING, "binding").await.unwrap();
    stage
        .place
        .eventually(
            "the binding goes",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            Value::is_null,
        )
        .await;
    stage.alias("2").await;
    let same = |deployment: &Value| deployment["spec"] == before;
    stage
        .place
        .stays(
            "the fields stay as they are",
            Duration::from_secs(3),
            &DEPLOYMENT,
            "server",
            same,
        )
        .await;
    stage.end().await
}

async fn mlflow_2_moves_by_alias_and_by_stage(world: Arc<World>) -> Told {
    let stage = Stage::on(&world, "mlflow two", MlflowVersion::Two).await;
    let one = stage
        .client
        .train_and_register(&stage.model, How::RegisterModel, 0.1)
        .await
        .unwrap();
    stage
        .client
        .train_and_register(&stage.model, How::CreateModelVersion, 0.2)
        .await
        .unwrap();
    stage.alias(&one.version).await;
    stage.declare().await;
    stage.bind(json!({})).await;
    stage.runs("1").await;
    assert!(
        env(&stage.deployment().await, 0, "MODEL_URI")
            .unwrap()
            .ends_with("/artifacts/model")
    );
    stage.alias("2").await;
    stage.runs("2").await;
    stage.alias("1").await;
    stage.runs("1").await;
    stage.place.delete(&ALIAS_BINDING, "binding").await.unwrap();
    stage
        .declare_binding(json!({"alias": null, "stage": "Production"}))
        .await;
    let told = stage.says("StageNotFound").await;
    assert!(told.contains("transition one to it"), "{told}");
    stage
        .client
        .transition_stage(&stage.model, "2", "Production")
        .await
        .unwrap();
    stage.runs("2").await;
    stage.end().await
}

async fn a_missing_target_is_told_and_taken_up_when_it_comes_and_when_it_comes_again(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "missing target").await;
    stage.register(1).await;
    stage.alias("1").await;
    stage.declare().await;
    stage.declare_binding(json!({})).await;
    let told = stage.says("TargetNotFound").await;
    assert!(
        told.contains("there is no Deployment server in this namespace: create it"),
        "{told}"
    );
    stage.deploy(&PlainDeployment::named("server")).await;
    stage.runs("1").await;
    stage.place.delete(&DEPLOYMENT, "server").await.unwrap();
    stage.says("TargetNotFound").await;
    stage.deploy(&PlainDeployment::named("server")).await;
    stage.runs("1").await;
    stage.end().await
}

async fn the_second_binding_on_a_target_is_told_who_holds_it(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "two bindings").await;
    stage.set().await;
    let spec =
        json!({"modelRef": {"name": "model"}, "alias": "challenger", "target": {"name": "server"}});
    stage
        .client
        .set_alias(&stage.model, "challenger", "2")
        .await
        .unwrap();
    stage.apply("AliasBinding", "second", spec).await;
    let told = stage.says_of("second", "TargetClaimed").await;
    assert!(
        told.contains("driven by AliasBinding binding already"),
        "{told}"
    );
    assert_eq!(template_version(&stage.deployment().await), "1");
    stage.place.delete(&ALIAS_BINDING, "binding").await.unwrap();
    stage.runs_for("second", "2").await;
    stage.end().await
}

async fn a_variable_that_another_manager_set_is_a_conflict_with_its_name(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "field conflict").await;
    stage.register(1).await;
    stage.alias("1").await;
    stage.declare().await;
    let mut deployment = PlainDeployment::named("server");
    deployment.environment = vec![("MODEL_URI".to_owned(), "s3://mine".to_owned())];
    stage.deploy(&deployment).await;
    let before = stage.workload().await;
    stage.declare_binding(json!({})).await;
    let told = stage.says("FieldConflict").await;
    assert!(
        told.contains("kubectl-client-side-apply sets MODEL_URI in container server"),
        "{told}"
    );
    assert_eq!(stage.workload().await, before);
    stage.deploy(&PlainDeployment::named("server")).await;
    stage.runs("1").await;
    stage.end().await
}

async fn ten_alias_moves_within_a_second_end_at_the_last(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "ten moves").await;
    stage.set().await;
    for _ in 0..5 {
        stage.alias("1").await;
        stage.alias("2").await;
    }
    stage.looked_twice().await;
    stage.runs("2").await;
    let settled = |deployment: &Value| template_version(deployment) == "2";
    stage
        .place
        .stays(
            "the last move counts",
            Duration::from_secs(4),
            &DEPLOYMENT,
            "server",
            settled,
        )
        .await;
    stage.end().await
}

async fn what_others_write_into_the_deployment_stays_and_what_they_wipe_is_written_again(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "others").await;
    stage.set().await;
    stage
        .place
        .kubectl(&["scale", "deployment/server", "--replicas=3"])
        .await
        .unwrap();
    let mut deployment = PlainDeployment::named("server");
    deployment.replicas = 3;
    deployment.environment = vec![("PORT".to_owned(), "8080".to_owned())];
    stage.deploy(&deployment).await;
    stage.alias("2").await;
    stage.runs("2").await;
    let now = stage.deployment().await;
    assert_eq!(
        (
            now["spec"]["replicas"].as_i64(),
            env(&now, 0, "PORT").as_deref()
        ),
        (Some(3), Some("8080"))
    );
    // `kubectl replace` takes away all that its manifest does not name.
    let manifest = deployment.manifest().to_string();
    let plane = stage.place.control_plane();
    plane
        .kubectl_with_input(
            &["-n", stage.place.namespace(), "replace", "-f", "-"],
            &manifest,
        )
        .await
        .unwrap();
    let injected = |deployment: &Value| {
        template_version(deployment) == "2"
            && env(deployment, 0, "MODEL_VERSION").as_deref() == Some("2")
    };
    stage
        .place
        .eventually(
            "the injection is written again",
            PATIENCE,
            &DEPLOYMENT,
            "server",
            injected,
        )
        .await;
    stage.runs("2").await;
    stage.end().await
}

async fn a_rollout_that_does_not_finish_is_told_in_the_deployments_own_words(
    world: Arc<World>,
) -> Told {
    let stage = Stage::new(&world, "stuck rollout").await;
    stage.register(2).await;
    stage.alias("1").await;
    stage.declare().await;
    let mut deployment = PlainDeployment::named("server").playing("2=never-ready");
    deployment.progress_deadline_seconds = 5;
    stage.deploy(&deployment).await;
    stage.declare_binding(json!({})).await;
    stage.runs("1").await;
    stage.alias("2").await;
    stage.says("RollingOut").await;
    let told = stage.says("ProgressDeadlineExceeded").await;
    assert!(told.contains("has timed out progressing"), "{told}");
    let binding = stage.binding().await;
    assert_eq!(binding["status"]["lastGood"]["version"], "1");
    assert_eq!(binding["status"]["history"][0]["outcome"], "Failed");
    stage.alias("1").await;
    stage.runs("1").await;
    stage.end().await
}

async fn only_the_chosen_containers_are_written_to(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "containers").await;
    stage.register(1).await;
    stage.alias("1").await;
    stage.declare().await;
    let mut deployment = PlainDeployment::named("server");
    deployment.containers = vec!["proxy".to_owned(), "server".to_owned()];
    stage.deploy(&deployment).await;
    stage
        .declare_binding(json!({"inject": {"containers": ["sever"]}}))
        .await;
    let seen = stage
        .place
        .eventually(
            "a misspelt container is told",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            |seen| reason(seen) == "InvalidSpec",
        )
        .await;
    assert!(
        message(&seen).contains("names sever, but the pod template has proxy, server"),
        "{}",
        message(&seen)
    );
    stage
        .declare_binding(json!({"inject": {"containers": ["server"]}}))
        .await;
    stage.runs("1").await;
    let now = stage.deployment().await;
    assert_eq!(
        (
            env(&now, 0, "MODEL_VERSION"),
            env(&now, 1, "MODEL_VERSION").as_deref()
        ),
        (None, Some("1"))
    );
    stage.end().await
}
