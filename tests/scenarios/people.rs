//! People and Git: an undo by hand, a pin, a suspension.
//!
//! Absent: failures. Everything here is somebody's will.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT};
use serde_json::{Value, json};

use crate::stage::{
    PATIENCE, Stage, Told, World, condition, ready, reason, scenarios, template_version,
};

scenarios!(
    a_persons_rollout_undo_is_held_until_the_alias_moves,
    a_held_binding_goes_on_when_a_person_resumes_it,
    an_undo_to_before_the_first_version_is_held_too,
    an_undo_made_while_the_operator_was_down_is_held,
    a_pinned_version_runs_whatever_the_alias_says,
    a_suspended_binding_touches_nothing_and_is_well,
);

async fn undo(stage: &Stage) {
    stage
        .place
        .kubectl(&["rollout", "undo", "deployment/server"])
        .await
        .unwrap();
}

async fn holds_version(stage: &Stage, version: &'static str) {
    let held = move |deployment: &Value| template_version(deployment) == version;
    stage
        .place
        .stays(
            "the person's choice stays",
            Duration::from_secs(4),
            &DEPLOYMENT,
            "server",
            held,
        )
        .await;
}

async fn a_persons_rollout_undo_is_held_until_the_alias_moves(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "undo").await;
    stage.set().await;
    stage
        .client
        .create_model_version(&stage.model, "s3://models/undo/3")
        .await
        .unwrap();
    stage.alias("2").await;
    stage.runs("2").await;
    undo(&stage).await;
    let told = stage.says("Held").await;
    assert!(
        told.contains("changed the workload to version 1 by hand while version 2 was wanted"),
        "{told}"
    );
    holds_version(&stage, "1").await;
    let well = |binding: &Value| ready(binding) == "True" && reason(binding) == "Held";
    let held = stage
        .place
        .eventually(
            "a held binding is well",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            well,
        )
        .await;
    assert_eq!(
        (
            held["status"]["wanted"].as_str(),
            held["status"]["running"]["version"].as_str()
        ),
        (Some("2"), Some("1"))
    );
    assert_eq!(held["status"]["history"][0]["trigger"], "Person");
    stage.alias("3").await;
    let now = stage.runs("3").await;
    assert!(now["status"]["hold"].is_null());
    stage.end().await
}

async fn a_held_binding_goes_on_when_a_person_resumes_it(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "resume").await;
    stage.set().await;
    stage.alias("2").await;
    stage.runs("2").await;
    undo(&stage).await;
    stage.says("Held").await;
    stage
        .place
        .kubectl(&[
            "annotate",
            "abind",
            "binding",
            "pointsman.dev/resume-requested-at=1",
        ])
        .await
        .unwrap();
    stage.runs("2").await;
    undo(&stage).await;
    stage.says("Held").await;
    holds_version(&stage, "1").await;
    stage.end().await
}

async fn an_undo_to_before_the_first_version_is_held_too(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "undo to before").await;
    stage.register(1).await;
    stage.alias("1").await;
    stage.declare().await;
    stage.bind(json!({})).await;
    stage.runs("1").await;
    undo(&stage).await;
    stage.says("Held").await;
    holds_version(&stage, "").await;
    stage.end().await
}

async fn an_undo_made_while_the_operator_was_down_is_held(world: Arc<World>) -> Told {
    let mut stage = Stage::new(&world, "undo unseen").await;
    stage.set().await;
    stage.alias("2").await;
    stage.runs("2").await;
    stage.operator.kill().unwrap();
    undo(&stage).await;
    stage.operator.start_again().await.unwrap();
    stage.says("Held").await;
    holds_version(&stage, "1").await;
    stage.end().await
}

async fn a_pinned_version_runs_whatever_the_alias_says(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "pin").await;
    stage.set().await;
    stage.declare_binding(json!({"pinnedVersion": "9"})).await;
    let told = stage.says("VersionNotFound").await;
    assert!(
        told.contains("has no version 9: correct spec.pinnedVersion"),
        "{told}"
    );
    stage.declare_binding(json!({"pinnedVersion": "2"})).await;
    let pinned = stage.runs("2").await;
    assert_eq!(
        (
            reason(&pinned),
            pinned["status"]["history"][0]["trigger"].as_str()
        ),
        ("Pinned", Some("Pin"))
    );
    assert_eq!(pinned["status"]["alias"]["version"], "1");
    // The pin is taken out again.
    let mut binding = json!({"spec": {"pinnedVersion": null}});
    binding["spec"]["pinnedVersion"] = Value::Null;
    stage
        .place
        .patch(&ALIAS_BINDING, "binding", &binding)
        .await
        .unwrap();
    stage.runs("1").await;
    stage.end().await
}

async fn a_suspended_binding_touches_nothing_and_is_well(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "suspend").await;
    stage.set().await;
    stage.declare_binding(json!({"suspend": true})).await;
    stage.says("Suspended").await;
    stage.alias("2").await;
    let is_well = |binding: &Value| {
        ready(binding) == "True"
            && binding["status"]["wanted"] == "2"
            && condition(binding, "Reconciling").is_null()
    };
    let seen = stage
        .place
        .eventually(
            "a suspended binding sees and is well",
            PATIENCE,
            &ALIAS_BINDING,
            "binding",
            is_well,
        )
        .await;
    assert_eq!(
        seen["status"]["observedGeneration"],
        seen["metadata"]["generation"]
    );
    holds_version(&stage, "1").await;
    stage.declare_binding(json!({"suspend": false})).await;
    stage.runs("2").await;
    stage.end().await
}
