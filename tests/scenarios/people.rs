//! Changes by people (`people_win`): an undo by hand, a pin, a suspension.
//!
//! Absent: failures; see `failure`.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, REGISTERED_MODEL};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, ScenarioResult, condition, ready_reason, ready_status, scenarios,
    template_version,
};

scenarios!(
    a_persons_rollout_undo_is_held_until_the_alias_moves,
    a_held_binding_continues_when_a_person_resumes_it,
    an_undo_to_the_template_before_the_first_version_is_held,
    an_undo_while_the_operator_is_down_is_held,
    a_pinned_version_overrides_the_alias,
    a_suspended_binding_writes_nothing_and_is_ready,
    nothing_of_a_suspended_registry_is_in_progress,
);

async fn undo(fixture: &Fixture) {
    fixture
        .namespace
        .kubectl(&["rollout", "undo", "deployment/server"])
        .await
        .unwrap();
}

async fn holds_version(fixture: &Fixture, version: &'static str) {
    let held = move |deployment: &Value| template_version(deployment) == version;
    fixture
        .namespace
        .stays(
            "the person's choice stays",
            Duration::from_secs(4),
            &DEPLOYMENT,
            "server",
            held,
        )
        .await;
}

async fn a_persons_rollout_undo_is_held_until_the_alias_moves(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "undo").await;
    fixture.serve_version_1().await;
    fixture
        .client
        .create_model_version(&fixture.model, "s3://models/undo/3")
        .await
        .unwrap();
    fixture.alias("2").await;
    fixture.runs("2").await;
    undo(&fixture).await;
    let message = fixture.reports("Held").await;
    assert!(
        message.contains("changed the workload to version 1 while version 2 was wanted"),
        "{message}"
    );
    holds_version(&fixture, "1").await;
    let well = |binding: &Value| ready_status(binding) == "True" && ready_reason(binding) == "Held";
    let held = fixture
        .eventually("a held binding is well", &ALIAS_BINDING, "binding", well)
        .await;
    assert_eq!(
        (
            held["status"]["wanted"].as_str(),
            held["status"]["running"]["version"].as_str()
        ),
        (Some("2"), Some("1"))
    );
    assert_eq!(held["status"]["history"][0]["trigger"], "Person");
    fixture.alias("3").await;
    let now = fixture.runs("3").await;
    assert!(now["status"]["hold"].is_null());
    fixture.end().await
}

async fn a_held_binding_continues_when_a_person_resumes_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "resume").await;
    fixture.serve_version_1().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    undo(&fixture).await;
    fixture.reports("Held").await;
    fixture
        .namespace
        .kubectl(&[
            "annotate",
            "abind",
            "binding",
            "pointsman.dev/resume-requested-at=1",
        ])
        .await
        .unwrap();
    fixture.runs("2").await;
    undo(&fixture).await;
    fixture.reports("Held").await;
    holds_version(&fixture, "1").await;
    fixture.end().await
}

async fn an_undo_to_the_template_before_the_first_version_is_held(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "undo to before").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    undo(&fixture).await;
    fixture.reports("Held").await;
    holds_version(&fixture, "").await;
    fixture.end().await
}

async fn an_undo_while_the_operator_is_down_is_held(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "undo unseen").await;
    fixture.serve_version_1().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.operator.kill().unwrap();
    undo(&fixture).await;
    fixture.operator.start_again().await.unwrap();
    fixture.reports("Held").await;
    holds_version(&fixture, "1").await;
    fixture.end().await
}

async fn a_pinned_version_overrides_the_alias(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "pin").await;
    fixture.serve_version_1().await;
    fixture.declare_binding(json!({"pinnedVersion": "9"})).await;
    let message = fixture.reports("VersionNotFound").await;
    assert!(
        message.contains("has no version 9: correct spec.pinnedVersion"),
        "{message}"
    );
    fixture.declare_binding(json!({"pinnedVersion": "2"})).await;
    let pinned = fixture.runs("2").await;
    assert_eq!(
        (
            ready_reason(&pinned),
            pinned["status"]["history"][0]["trigger"].as_str()
        ),
        ("Pinned", Some("Pin"))
    );
    assert_eq!(pinned["status"]["alias"]["version"], "1");
    // The pin is removed.
    let mut binding = json!({"spec": {"pinnedVersion": null}});
    binding["spec"]["pinnedVersion"] = Value::Null;
    fixture
        .namespace
        .patch(&ALIAS_BINDING, "binding", &binding)
        .await
        .unwrap();
    fixture.runs("1").await;
    fixture.end().await
}

async fn a_suspended_binding_writes_nothing_and_is_ready(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "suspend").await;
    fixture.serve_version_1().await;
    fixture.declare_binding(json!({"suspend": true})).await;
    fixture.reports("Suspended").await;
    fixture.alias("2").await;
    let is_well = |binding: &Value| {
        ready_status(binding) == "True"
            && binding["status"]["wanted"] == "2"
            && condition(binding, "Reconciling").is_null()
    };
    let seen = fixture
        .eventually(
            "a suspended binding sees and is well",
            &ALIAS_BINDING,
            "binding",
            is_well,
        )
        .await;
    assert_eq!(
        seen["status"]["observedGeneration"],
        seen["metadata"]["generation"]
    );
    holds_version(&fixture, "1").await;
    fixture.declare_binding(json!({"suspend": false})).await;
    fixture.runs("2").await;
    fixture.end().await
}

async fn nothing_of_a_suspended_registry_is_in_progress(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "suspended registry").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare_registry(json!({"suspend": true})).await;
    fixture.declare_model(json!({})).await;
    fixture.bind(json!({})).await;
    fixture.registry_reports("Suspended").await;
    let message = fixture.model_reports("Suspended").await;
    let namespace = &fixture.namespace;
    let model = namespace.get(&REGISTERED_MODEL, "model").await.unwrap();
    assert_eq!(ready_status(&model), "True");
    fixture.reports("Suspended").await;
    let binding = fixture.binding().await;
    assert_eq!(condition(&binding, "Stalled")["status"], "True");
    let (_, remedy) = message.split_once(" with ").unwrap();
    namespace.control_plane().shell(remedy).await.unwrap();
    fixture.runs("1").await;
    fixture.declare_registry(json!({"suspend": true})).await;
    fixture.registry_reports("Suspended").await;
    fixture.operator.start_again().await.unwrap();
    let is_mirrored =
        |model: &Value| ready_reason(model) == "Mirrored" && ready_status(model) == "True";
    let moment = Duration::from_secs(3);
    fixture
        .namespace
        .stays(
            "a mirror stays as it is",
            moment,
            &REGISTERED_MODEL,
            "model",
            is_mirrored,
        )
        .await;
    fixture.end().await
}
