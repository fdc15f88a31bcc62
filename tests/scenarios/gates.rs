//! Gates: versions that are held by what MLflow recorded of them, and go forward when that changes.
//!
//! Absent: what an expression means; unit tests beside it show that. Deliveries about tags are in `webhooks`.

use std::sync::Arc;

use pointsman_env::Workload;
use pointsman_env::kinds::{ALIAS_BINDING, REGISTERED_MODEL};
use pointsman_env::registrar::How;
use pointsman_env::resources::{self, with_spec};
use serde_json::{Value, json};

use crate::fixture::{Environment, Fixture, ScenarioResult, condition, ready_reason, scenarios};

scenarios!(
    a_gate_holds_a_version_with_a_worse_metric_until_a_tag_lets_it_pass,
    the_gates_of_the_documentation_decide_on_mlflows_own_records,
    a_gate_that_cannot_be_evaluated_is_told_with_line_and_column,
    a_version_that_was_good_before_or_is_pinned_needs_no_gate,
    a_gate_lets_a_version_follow_the_binding_that_it_was_live_in_first,
    admission_refuses_gates_that_have_no_name_or_are_too_many,
);

fn gate(name: &str, expression: &str) -> Value {
    json!({"name": name, "expression": expression})
}

fn gated(gates: &[Value]) -> Value {
    json!({"promotion": {"gates": gates}})
}

/// The result of a gate in the binding's status.
fn result<'a>(binding: &'a Value, name: &str) -> &'a Value {
    let gates = binding["status"]["gates"].as_array();
    let mut gates = gates.into_iter().flatten();
    gates
        .find(|gate| gate["name"] == name)
        .unwrap_or(&Value::Null)
}

async fn tag(fixture: &Fixture, version: &str, key: &str, value: &str) {
    fixture
        .client
        .set_tag(&fixture.model, Some(version), key, value)
        .await
        .unwrap();
}

/// Waits until the sizes of these versions are mirrored: the last request about a new version, some seconds after it.
async fn sized(fixture: &Fixture, count: usize) {
    let holds = |model: &Value| {
        let versions = model["status"]["versions"].as_array();
        let sized = versions.into_iter().flatten();
        sized
            .filter(|version| version["sizeBytes"].is_i64())
            .count()
            == count
    };
    fixture
        .eventually("the sizes are known", &REGISTERED_MODEL, "model", holds)
        .await;
}

/// Nothing is written while five more polls find nothing new.
async fn writes_nothing(fixture: &Fixture) {
    fixture.polled_twice().await;
    let mark = fixture.api.mark();
    for _ in 0..2 {
        fixture.polled_twice().await;
    }
    let writes = fixture.api.writes_since(mark);
    assert!(writes.is_empty(), "{writes:?}");
}

async fn a_gate_holds_a_version_with_a_worse_metric_until_a_tag_lets_it_pass(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "worse metric").await;
    fixture.train(How::RegisterModel, 0.1).await;
    let worse = "candidate.metrics.rmse <= current.metrics.rmse * 1.02 \
        || has(candidate.tags.override) && candidate.tags.override == 'yes'";
    let gates = gated(&[
        json!({"name": "rmse", "expression": worse, "message": "the error is larger: train again"}),
        gate(
            "trained",
            "candidate.metrics.r2 > -10.0 && candidate.durationSeconds < 3600",
        ),
    ]);
    let server = Workload::deployment("server");
    fixture.serve(server.manifest(), gates).await;
    let first = fixture.binding().await;
    assert_eq!(result(&first, "rmse")["result"], "Passed", "{first}");
    let why = result(&first, "rmse")["message"].as_str().unwrap();
    assert_eq!(why, "there is no current version to compare with");
    let good = |binding: &Value| binding["status"]["lastGood"]["version"] == "1";
    let is_good = "version 1 is good";
    fixture
        .eventually(is_good, &ALIAS_BINDING, "binding", good)
        .await;

    fixture.train(How::RegisterModel, 500.0).await;
    let workload = fixture.workload().await;
    fixture.alias("2").await;
    let message = fixture.reports("GateFailed").await;
    let expected =
        "version 2 is not rolled out: gate rmse: the error is larger: train again; values: kubectl";
    assert!(message.starts_with(expected), "{message}");
    assert_eq!(fixture.workload().await, workload);
    let held = fixture.binding().await;
    let failed = result(&held, "rmse");
    assert_eq!(failed["result"], "Failed", "{held}");
    let metric = &failed["values"][0];
    let number = |side: &str| metric[side].as_str().unwrap().parse::<f64>().unwrap();
    assert_eq!(metric["field"], "metrics.rmse");
    assert!(number("candidate") > number("current") * 1.02, "{metric}");
    assert_eq!(result(&held, "trained")["result"], "Passed", "{held}");
    assert_eq!(condition(&held, "GatesPassed")["status"], "False");
    sized(&fixture, 2).await;
    writes_nothing(&fixture).await;
    let held = fixture.binding().await;
    let history = held["status"]["history"].as_array().unwrap();
    let outcomes: Vec<_> = history.iter().map(|entry| &entry["outcome"]).collect();
    assert_eq!(outcomes, ["HeldBack", "Live"], "{history:?}");
    let events = fixture.namespace.events_about("binding").await.unwrap();
    let told = events.iter().filter(|(reason, _)| reason == "GateFailed");
    assert_eq!(told.count(), 1, "{events:?}");

    tag(&fixture, "2", "override", "yes").await;
    let binding = fixture.runs("2").await;
    assert_eq!(result(&binding, "rmse")["result"], "Passed", "{binding}");
    assert_eq!(condition(&binding, "GatesPassed")["status"], "True");
    let is_live = |binding: &Value| binding["status"]["lastGood"]["version"] == "2";
    fixture
        .eventually("version 2 is good", &ALIAS_BINDING, "binding", is_live)
        .await;
    writes_nothing(&fixture).await;
    fixture.end().await
}

/// The gates of docs/gates.md; the tag `own` shows where the version runs in another cluster.
fn documented(own: &str) -> Vec<Value> {
    let wave = format!(
        "candidate.tags[\"{own}\"].startsWith(\"Live\") && now - timestamp(candidate.tags[\"{own}\"].split(\" \")[1]) > duration(\"1h\")"
    );
    vec![
        gate(
            "rmse",
            "candidate.metrics.rmse <= current.metrics.rmse * 1.02",
        ),
        gate("size", "candidate.sizeBytes < 500 * MiB"),
        gate(
            "duration",
            "candidate.durationSeconds <= 600 + 2 * current.durationSeconds",
        ),
        gate("validated", "candidate.tags[\"validation\"] == \"passed\""),
        gate("approved", "candidate.tags[\"Approval\"] == \"approved\""),
        gate("wave", &wave),
        gate("no-code", "!has(candidate.code.commit)"),
        gate(
            "known",
            "candidate.createdAt < now && candidate.age < duration(\"24h\") && model.name == binding.labels.model",
        ),
    ]
}

async fn the_gates_of_the_documentation_decide_on_mlflows_own_records(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "documented gates").await;
    fixture.train(How::RegisterModel, 0.5).await;
    fixture.train(How::CreateModelVersion, 0.1).await;
    let own = format!("pointsman.dev/eu-canary/ml/{}", fixture.model);
    let server = Workload::deployment("server");
    fixture.serve(server.manifest(), json!({})).await;
    let is_good = |binding: &Value| binding["status"]["lastGood"]["version"] == "1";
    fixture
        .eventually("version 1 is good", &ALIAS_BINDING, "binding", is_good)
        .await;
    fixture.declare_binding(gated(&documented(&own))).await;
    let labels = json!({"metadata": {"labels": {"model": fixture.model}}});
    fixture
        .namespace
        .patch(&ALIAS_BINDING, "binding", &labels)
        .await
        .unwrap();
    fixture.alias("2").await;
    let waits = |binding: &Value| {
        let validated = result(binding, "validated");
        validated["result"] == "Unknown"
            && validated["message"] == "candidate has no tag validation"
            && result(binding, "size")["result"] == "Passed"
    };
    let held = fixture
        .eventually(
            "only the tags are missing",
            &ALIAS_BINDING,
            "binding",
            waits,
        )
        .await;
    for name in ["rmse", "size", "duration", "no-code", "known"] {
        assert_eq!(result(&held, name)["result"], "Passed", "{name}: {held}");
    }
    // Time alone may end it, so no person is needed for it.
    assert_eq!(condition(&held, "Reconciling")["status"], "True", "{held}");
    for (key, value) in [
        (own.as_str(), "Live 2026-11-23T12:00:00Z"),
        ("validation", "passed"),
        ("Approval", "approved"),
    ] {
        tag(&fixture, "2", key, value).await;
    }
    fixture.runs("2").await;
    fixture.end().await
}

async fn a_gate_that_cannot_be_evaluated_is_told_with_line_and_column(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "invalid gate").await;
    fixture.serve_version_1().await;
    let workload = fixture.workload().await;
    for (expression, expected) in [
        (
            "candidate.version ==\n  4",
            "gate g: line 1, column 19: == takes no string and int",
        ),
        (
            "true &&\n  candidat.version == '2'",
            "gate g: line 2, column 3: there is no variable candidat",
        ),
        (
            "candidate.version",
            "gate g: line 1, column 10: this is a string, and is to be a bool",
        ),
        ("(true", "gate g: line 1, column 6: expected ')'"),
    ] {
        fixture
            .declare_binding(gated(&[gate("g", expression)]))
            .await;
        let holds = |binding: &Value| {
            let message = condition(binding, "Ready")["message"].as_str();
            ready_reason(binding) == "InvalidSpec"
                && message.is_some_and(|message| message.contains(expected))
                && condition(binding, "GatesPassed")["reason"] == "InvalidSpec"
        };
        fixture
            .eventually(expected, &ALIAS_BINDING, "binding", holds)
            .await;
    }
    fixture.alias("2").await;
    let wants = |binding: &Value| binding["status"]["wanted"] == "2";
    fixture
        .eventually("version 2 is wanted", &ALIAS_BINDING, "binding", wants)
        .await;
    fixture.reports("InvalidSpec").await;
    assert_eq!(fixture.workload().await, workload);
    fixture
        .declare_binding(gated(&[gate("g", "candidate.version == '2'")]))
        .await;
    fixture.runs("2").await;
    fixture.end().await
}

async fn a_version_that_was_good_before_or_is_pinned_needs_no_gate(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "no gate").await;
    fixture.register(3).await;
    let server = Workload::deployment("server");
    fixture.serve(server.manifest(), json!({})).await;
    for version in ["2", "1"] {
        fixture.alias(version).await;
        fixture.runs(version).await;
        let is_good = |binding: &Value| binding["status"]["lastGood"]["version"] == version;
        fixture
            .eventually("the version is good", &ALIAS_BINDING, "binding", is_good)
            .await;
    }
    let never = gated(&[gate("never", "candidate.tags['never'] == 'set'")]);
    fixture.declare_binding(never.clone()).await;
    fixture.alias("2").await;
    let back = fixture.runs("2").await;
    assert_eq!(condition(&back, "GatesPassed")["status"], "True", "{back}");
    fixture.alias("3").await;
    let message = fixture.reports("GateFailed").await;
    assert!(message.contains("candidate has no tag never"), "{message}");
    let mut pinned = never;
    pinned["pinnedVersion"] = json!("3");
    fixture.declare_binding(pinned).await;
    fixture.runs("3").await;
    fixture.end().await
}

async fn a_gate_lets_a_version_follow_the_binding_that_it_was_live_in_first(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "wave").await;
    fixture.register(2).await;
    fixture.alias("1").await;
    let write_back = json!({"writeBack": {"deploymentTags": true}});
    fixture.declare_registry(write_back).await;
    fixture.declare_model(json!({})).await;
    fixture.deploy(&Workload::deployment("first")).await;
    let canary = resources::alias_binding("canary", "model", "first");
    let go = "current == null || candidate.tags.go == 'yes'";
    fixture
        .apply_object(with_spec(canary, gated(&[gate("go", go)])))
        .await;
    let key = fixture.tag_key("canary").await;
    let live = format!("current == null || candidate.tags[\"{key}\"].startsWith(\"Live\")");
    fixture.bind(gated(&[gate("canary", &live)])).await;
    fixture.runs("1").await;
    fixture.binding_runs("canary", "1").await;
    fixture.alias("2").await;
    fixture.binding_reports("canary", "GateFailed").await;
    let message = fixture.reports("GateFailed").await;
    assert!(
        message.contains("gate canary: candidate has no tag"),
        "{message}"
    );
    tag(&fixture, "2", "go", "yes").await;
    fixture.binding_runs("canary", "2").await;
    fixture.runs("2").await;
    fixture.end().await
}

async fn admission_refuses_gates_that_have_no_name_or_are_too_many(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let namespace = crate::fixture::namespace(&environment, "refused gates").await;
    let many: Vec<Value> = (0..17)
        .map(|number| gate(&format!("g{number}"), "true"))
        .collect();
    for (gates, expected) in [
        (
            vec![gate("a", "true"), gate("a", "false")],
            "duplicate entries",
        ),
        (vec![gate("A b", "true")], "should match"),
        (vec![gate("a", "")], "at least 1"),
        (vec![gate("a", &"x".repeat(1025))], "1024"),
        (vec![json!({"name": "a"})], "expression: Required value"),
        (many, "must have at most 16 items"),
    ] {
        let binding = resources::alias_binding("refused", "m", "server");
        let refused = namespace
            .apply_object(&with_spec(binding, gated(&gates)))
            .await;
        let message = refused.expect_err("it is refused").to_string();
        assert!(message.contains(expected), "{expected}: {message}");
    }
    namespace.end().await.map_err(|error| error.to_string())?;
    Ok(())
}
