//! Predictions on objects as the API server has them.
//!
//! Absent: a cluster. What the operator really does then is shown by the scenarios.

use serde_json::json;

use super::*;
use crate::api::alias_binding::Outcome;
use crate::api::conditions::{ConditionUpdate, transition};
use crate::api::names;
use crate::testing::{
    self, With, annotated, binding, binding_with, container, deployment, entry, mirrored_version,
    owned_by, pod_with, replica_set, version, waiting,
};

/// A binding whose version 1 is live, and whose alias names another one.
fn inputs(champion: &str) -> Inputs {
    let usable = ["1", "2"].map(|number| mirrored_version(&version(number)));
    let holding = deployment()
        .holding(&binding(), &version("1"))
        .labelled("taxi");
    Inputs {
        binding: binding_with([entry("1", Outcome::Live)]),
        model: Some(testing::model(Some(champion), usable)),
        outage: None,
        freeze: None,
        workload: Some(holding.changed(&json!({"kind": "Deployment"})).json()),
        pods: Vec::new(),
        replica_sets: Vec::new(),
        rivals: Vec::new(),
    }
}

fn predicted(inputs: &Inputs) -> Prediction {
    predict(inputs, testing::now()).expect("a workload of its kind")
}

fn results(prediction: &Prediction) -> Vec<&'static str> {
    prediction.gates.iter().map(|gate| gate.result).collect()
}

#[test]
fn a_move_forward_shows_its_gates_its_room_and_each_changed_field() {
    let prediction = predicted(&inputs("2"));
    assert_eq!(prediction.wanted, "version 2 (alias champion)");
    assert_eq!(
        prediction.outcome,
        "version 2 replaces version 1 in deployment/server"
    );
    assert!(
        results(&prediction)
            .iter()
            .all(|result| *result == "Passes")
    );
    let room = prediction.room.as_deref().unwrap_or_default();
    assert!(room.starts_with("1 pod; at most 1 pod more"), "{room}");
    let env = "spec.template.spec.containers[server].env[MODEL_VERSION]";
    let change = prediction.changes.iter().find(|change| change.field == env);
    let values = change.map(|change| (change.before.as_deref(), change.after.as_deref()));
    assert_eq!(values, Some((Some("1"), Some("2"))));
    let is_injected =
        |change: &FieldChange| change.field.contains("metadata.") || change.field.contains(".env[");
    assert!(
        prediction.changes.iter().all(is_injected),
        "{:?}",
        prediction.changes
    );
}

#[test]
fn nothing_changes_while_the_wanted_version_runs() {
    let prediction = predicted(&inputs("1"));
    assert!(!prediction.is_change());
    assert_eq!(
        prediction.outcome,
        "nothing: deployment/server holds version 1 already"
    );
    assert_eq!(prediction.room, None);
}

#[test]
fn a_person_who_suspends_or_pins_decides() {
    let suspended = inputs("2").with(|inputs| inputs.binding.spec.suspend = true);
    let suspended = predicted(&suspended);
    assert_eq!(
        (suspended.reason.as_str(), suspended.is_change()),
        ("Suspended", false)
    );
    let pinned = inputs("2").with(|inputs| inputs.binding.spec.pinned_version = Some("1".into()));
    let pinned = predicted(&pinned);
    assert_eq!(
        (pinned.wanted.as_str(), pinned.is_change()),
        ("version 1 (pinned)", false)
    );
}

#[test]
fn files_that_the_operator_did_not_find_keep_the_version_out() {
    let missing = ConditionUpdate::no(
        ARTIFACT_AVAILABLE,
        Reason::ArtifactUnavailable,
        "the store has no such files",
    );
    let refused = inputs("2").with(|inputs| {
        let status = inputs.binding.status.as_mut().expect("a status");
        status.wanted = Some("2".into());
        status.conditions = transition(&[], &[missing], None, testing::now());
    });
    let prediction = predicted(&refused);
    assert_eq!(prediction.reason, "ArtifactUnavailable");
    assert_eq!(
        prediction.artifact.as_deref(),
        Some("the store has no such files")
    );
    assert!(results(&prediction).contains(&"Refuses") && !prediction.is_change());
}

#[test]
fn an_outage_of_the_registry_lets_nothing_forward() {
    let outage = Problem::new(Reason::RegistryUnreachable, "no response");
    let prediction = predicted(&inputs("2").with(|inputs| inputs.outage = Some(outage)));
    assert_eq!(prediction.reason, "RegistryUnreachable");
    assert!(results(&prediction).contains(&"Waits") && !prediction.is_change());
}

#[test]
fn a_freeze_holds_a_new_version_and_a_pin_goes_past_it() {
    let frozen = inputs("2").with(|inputs| {
        inputs.freeze = Freeze::in_force(&inputs.binding, Some("quarter end".into()), None);
    });
    let prediction = predicted(&frozen);
    assert_eq!(
        (prediction.reason.as_str(), prediction.is_change()),
        ("Frozen", false)
    );
    assert!(prediction.outcome.contains("quarter end"));
    assert!(results(&prediction).contains(&"Waits"));
    let pinned = frozen.with(|inputs| inputs.binding.spec.pinned_version = Some("2".into()));
    let prediction = predicted(&pinned);
    assert!(results(&prediction).contains(&"Skipped") && prediction.is_change());
}

#[test]
fn a_failure_is_recorded_first_and_then_rolled_back() {
    let holding = deployment().holding(&binding(), &version("2"));
    let revision = json!({"kind": "Deployment", "metadata": {"annotations": {names::REVISION_ANNOTATION: "7"}}});
    let crashing = pod_with(container().with(|container| {
        container.ready = false;
        container.restart_count = 4;
        container.state = Some(waiting("CrashLoopBackOff"));
    }));
    let crashing = annotated(owned_by(crashing, "new"), names::VERSION_ANNOTATION, "2");
    let failing = inputs("2").with(|inputs| {
        inputs.binding = binding_with([
            entry("2", Outcome::RollingOut),
            entry("1", Outcome::Superseded),
        ]);
        inputs.workload = Some(holding.labelled("taxi").changed(&revision).json());
        inputs.replica_sets = vec![replica_set("new", "7")];
        inputs.pods = vec![crashing];
    });
    let prediction = predicted(&failing);
    assert_eq!(prediction.steps.len(), 1, "{prediction:?}");
    assert_eq!(
        (prediction.reason.as_str(), prediction.is_change()),
        ("RolledBack", true)
    );
    assert!(
        prediction
            .outcome
            .starts_with("version 1 runs: version 2 failed")
    );
}

#[test]
fn a_version_that_the_mirror_lacks_is_planned_with_its_details() {
    let details = mirrored_version(&version("9"));
    for is_staged in [false, true] {
        let mut inputs = inputs("1");
        if is_staged {
            inputs.binding.spec.alias = None;
            inputs.binding.spec.stage = Some("Production".into());
        }
        let model = inputs.model.as_mut().expect("a model");
        point_at(model, &inputs.binding, "9", None, testing::now());
        let unknown = predicted(&inputs);
        assert!(unknown.wanted.starts_with("none ("), "{}", unknown.wanted);
        let model = inputs.model.as_mut().expect("a model");
        point_at(model, &inputs.binding, "9", Some(&details), testing::now());
        let known = predicted(&inputs);
        assert!(known.wanted.starts_with("version 9 ("), "{}", known.wanted);
        assert!(known.is_change());
    }
}

#[test]
fn a_workload_that_does_not_exist_is_created_from_a_template_alone() {
    let absent = inputs("2").with(|inputs| inputs.workload = None);
    let prediction = predicted(&absent);
    assert_eq!(
        (prediction.reason.as_str(), prediction.is_change()),
        ("TargetNotFound", false)
    );
    let owned = absent.with(|inputs| {
        inputs.binding = binding().with(|binding| {
            binding.spec.target_ref = None;
            let spec = json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "server", "image": "a"}]}}});
            binding.spec.template = serde_json::from_value(json!({"spec": spec})).ok();
        });
    });
    let prediction = predicted(&owned);
    assert_eq!(
        prediction.outcome,
        "deployment/taxi is created with version 2"
    );
    assert!(
        prediction
            .room
            .is_some_and(|room| room.starts_with("2 pods"))
    );
}
