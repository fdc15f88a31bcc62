//! When a version may go forward: freezes, windows, and what passes them.
//!
//! Absent: the checks of a version itself; see `failure` and `evidence`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, MODEL_REGISTRY};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, condition, ready_message, ready_status,
    scenarios, template_version,
};

scenarios!(
    a_frozen_registry_or_namespace_holds_a_new_version_until_the_freeze_ends,
    in_a_freeze_versions_go_back_and_people_override_it_on_the_record,
    a_version_goes_forward_once_when_a_window_opens_and_nothing_is_written_before,
    a_window_that_cannot_be_read_is_told_before_a_version_waits_for_it,
);

const WHY: &str = "quarter end, CHG-4711";

/// Sets or ends the freeze of the registry, and waits until the operator has seen it.
async fn freeze_registry(fixture: &Fixture, why: Value) {
    let spec = json!({"spec": {"freeze": why}});
    let namespace = &fixture.namespace;
    namespace
        .patch(&MODEL_REGISTRY, "mlflow", &spec)
        .await
        .unwrap();
    let is_seen = |registry: &Value| {
        registry["status"]["observedGeneration"] == registry["metadata"]["generation"]
            && registry["spec"]["freeze"] == why
    };
    fixture
        .eventually("the freeze is seen", &MODEL_REGISTRY, "mlflow", is_seen)
        .await;
}

async fn says(fixture: &Fixture, words: &str) -> String {
    let holds = |binding: &Value| ready_message(binding).contains(words);
    let seen = fixture
        .eventually(words, &ALIAS_BINDING, "binding", holds)
        .await;
    ready_message(&seen)
}

async fn annotate(fixture: &Fixture, annotation: &str) {
    let arguments = ["annotate", "--overwrite", "abind", "binding", annotation];
    fixture.namespace.kubectl(&arguments).await.unwrap();
}

/// Applies the binding as a `GitOps` tool would, and waits until the operator has seen it.
async fn commit(fixture: &Fixture, spec: Value) {
    fixture.declare_binding(spec).await;
    let generation = fixture.binding().await["metadata"]["generation"].clone();
    let is_seen = |binding: &Value| binding["status"]["observedGeneration"] == generation;
    fixture
        .eventually("the spec is seen", &ALIAS_BINDING, "binding", is_seen)
        .await;
}

/// The entries of a version in the binding's history, newest first.
fn entries<'a>(binding: &'a Value, version: &str) -> Vec<&'a Value> {
    let history = binding["status"]["history"].as_array();
    let all = history.into_iter().flatten();
    all.filter(|entry| entry["version"] == version).collect()
}

async fn a_frozen_registry_or_namespace_holds_a_new_version_until_the_freeze_ends(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "frozen").await;
    let plane = fixture.namespace.control_plane();
    let name = fixture.namespace.namespace();
    fixture.serve_version_1().await;
    freeze_registry(&fixture, json!(WHY)).await;
    fixture.alias("2").await;
    let message = fixture.reports("Frozen").await;
    let cause = format!("version 2 waits: ModelRegistry mlflow is frozen: {WHY}; end it: ");
    assert!(message.starts_with(&cause), "{message}");
    let binding = fixture.binding().await;
    assert_eq!(ready_status(&binding), "True", "what runs is well");
    let lift_registry = message.split_once("end it: ").expect("a remedy").1;

    // The namespace's own freeze begins at once, and outlasts the registry's.
    let annotation = "pointsman.dev/freeze=release week";
    let begin = ["annotate", "namespace", name, annotation];
    plane.kubectl(&begin).await.unwrap();
    let message = says(
        &fixture,
        &format!("namespace {name} is frozen: release week"),
    )
    .await;
    plane.shell(lift_registry).await.unwrap();
    freeze_registry(&fixture, Value::Null).await;
    fixture.polled_twice().await;
    let holds_version_1 = |deployment: &Value| template_version(deployment) == "1";
    let moment = Duration::from_secs(2);
    let namespace = &fixture.namespace;
    namespace
        .stays(
            "it is frozen",
            moment,
            &DEPLOYMENT,
            "server",
            holds_version_1,
        )
        .await;
    let lift_namespace = message.split_once("end it: ").expect("a remedy").1;
    plane.shell(lift_namespace).await.unwrap();
    let binding = fixture.runs("2").await;
    assert!(binding["status"]["history"][0]["overrode"].is_null());
    fixture.end().await
}

async fn in_a_freeze_versions_go_back_and_people_override_it_on_the_record(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "freeze passes").await;
    fixture.register(4).await;
    fixture.serve_with_behavior("3=crash", json!({})).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.alias("3").await;
    fixture.reports("RolledBack").await;
    freeze_registry(&fixture, json!(WHY)).await;

    // A person has the failed version tried again; it fails, and the rollback passes the freeze, too.
    annotate(&fixture, "pointsman.dev/retry-requested-at=1").await;
    let is_tried_again = |binding: &Value| {
        entries(binding, "3").len() == 2 && binding["status"]["running"]["version"] == "2"
    };
    let binding = fixture
        .eventually(
            "3 is tried again",
            &ALIAS_BINDING,
            "binding",
            is_tried_again,
        )
        .await;
    let tried = entries(&binding, "3");
    assert_eq!(tried[0]["overrode"]["reason"], "Frozen", "{binding}");
    assert!(tried[1]["overrode"].is_null(), "{binding}");

    // The alias goes back to a version that was good.
    fixture.alias("1").await;
    let binding = fixture.runs("1").await;
    assert!(binding["status"]["history"][0]["overrode"].is_null());

    // A person pins a version that never ran.
    annotate(&fixture, "pointsman.dev/override-reason=INC-12").await;
    let pin = json!({"spec": {"pinnedVersion": "4"}});
    fixture
        .namespace
        .patch(&ALIAS_BINDING, "binding", &pin)
        .await
        .unwrap();
    let binding = fixture.runs("4").await;
    let entry = &binding["status"]["history"][0];
    let frozen = format!("ModelRegistry mlflow is frozen: {WHY}");
    let overrode = json!({"reason": "Frozen", "message": frozen, "why": "INC-12"});
    assert_eq!(
        (&entry["trigger"], &entry["overrode"]),
        (&json!("Pin"), &overrode)
    );
    fixture.end().await
}

/// A window of an hour that opens at this minute, in UTC.
fn window_at(opening: Timestamp, fields: &str) -> Value {
    let schedule = opening.strftime(fields).to_string();
    json!({"promotion": {"windows": [{"schedule": schedule, "duration": "1h"}]}})
}

/// The writes of the operator about the binding and its workload since a mark.
fn writes_about_binding(fixture: &Fixture, mark: usize) -> Vec<String> {
    let writes = fixture.api.writes_since(mark).into_iter();
    let paths = writes.map(|write| write.path);
    paths
        .filter(|path| path.contains("aliasbindings/") || path.contains("deployments/"))
        .collect()
}

async fn a_version_goes_forward_once_when_a_window_opens_and_nothing_is_written_before(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "window").await;
    fixture.serve_version_1().await;
    let far = Timestamp::now() + SignedDuration::from_hours(24 * 100);
    let yearly = window_at(far, "%-M %-H %-d %-m *");
    commit(&fixture, yearly).await;
    fixture.alias("2").await;
    let message = fixture.reports("OutsideWindow").await;
    let opens = far.strftime("it goes forward at %Y-%m-%d %H:%M +00:00 (UTC)");
    assert!(message.contains(&opens.to_string()), "{message}");
    let is_checked = |binding: &Value| {
        let artifact = condition(binding, "ArtifactAvailable");
        let is_about_2 = artifact["message"]
            .as_str()
            .is_some_and(|text| text.contains("/2:"));
        is_about_2 && artifact["reason"] == "Resolved" && ready_status(binding) == "True"
    };
    fixture
        .eventually(
            "its files are asked for",
            &ALIAS_BINDING,
            "binding",
            is_checked,
        )
        .await;
    fixture.polled_twice().await;
    let mark = fixture.api.mark();
    fixture.polled_twice().await;
    assert_eq!(writes_about_binding(&fixture, mark), Vec::<String>::new());

    // The next full minute that is not about to begin.
    let seconds = (Timestamp::now().as_second() + 3) / 60 * 60 + 60;
    let opening = Timestamp::from_second(seconds).unwrap();
    fixture
        .declare_binding(window_at(opening, "%-M %-H * * *"))
        .await;
    let runs_2 = |binding: &Value| {
        binding["status"]["running"]["version"] == "2" && ready_status(binding) == "True"
    };
    let patience = Duration::from_secs(60) + PATIENCE;
    let namespace = &fixture.namespace;
    let binding = namespace
        .eventually(
            "the window opens",
            patience,
            &ALIAS_BINDING,
            "binding",
            runs_2,
        )
        .await;
    let forward = entries(&binding, "2");
    assert_eq!(forward.len(), 1, "{binding}");
    let started: Timestamp = forward[0]["startedAt"].as_str().unwrap().parse().unwrap();
    assert!(started >= opening, "{started} is before {opening}");
    let sets = fixture.replica_sets().await;
    let of_2 = sets.iter().filter(|set| template_version(set) == "2");
    assert_eq!(of_2.count(), 1, "{sets:?}");
    fixture.end().await
}

async fn a_window_that_cannot_be_read_is_told_before_a_version_waits_for_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "wrong window").await;
    fixture.serve_version_1().await;
    let windows = |schedule: &str, zone: &str| {
        let window = json!({"schedule": schedule, "duration": "1h", "timeZone": zone});
        json!({"promotion": {"windows": [window]}})
    };
    fixture
        .declare_binding(windows("0 9 * * 1-5", "Europe/Berlni"))
        .await;
    let message = fixture.reports("InvalidSpec").await;
    assert_eq!(
        message,
        "spec.promotion.windows[0]: there is no time zone \"Europe/Berlni\": correct it"
    );
    let hourly = json!({"spec": windows("@hourly", "UTC")});
    let namespace = &fixture.namespace;
    let refused = namespace.patch(&ALIAS_BINDING, "binding", &hourly).await;
    let refusal = refused.unwrap_err().to_string();
    assert!(
        refusal.contains("a window's schedule has five fields"),
        "{refusal}"
    );
    fixture
        .declare_binding(windows("0 9 * * 1-5", "Europe/Berlin"))
        .await;
    fixture.reports("Live").await;
    fixture.end().await
}
