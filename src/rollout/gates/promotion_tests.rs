//! What gates do to decisions and statuses.
//!
//! Absent: what expressions mean. That is tested beside them.

use std::collections::BTreeMap;

use super::*;
use crate::api::alias_binding::{HistoryEntry, Outcome};
use crate::api::conditions::{GATES_PASSED, READY, find};
use crate::api::promotion::Promotion;
use crate::api::rollback::GoodVersion;
use crate::api::{AliasBindingStatus, Availability, ModelVersion, RegisteredModel};
use crate::rollout::{
    Applied, CheckResults, Course, Decided, Decision, Observed, Reconciled, Resolution, Waiting,
    Warnings, decide, resolve, summarize,
};
use crate::targets::Target;
use crate::testing::{
    self, With, binding_with, check, deployment, entry, mirrored_version, now, time, version,
};

const RMSE: &str = "candidate.metrics.rmse <= current.metrics.rmse";

fn gate(name: &str, expression: &str) -> PromotionGate {
    PromotionGate {
        name: name.to_owned(),
        expression: expression.to_owned(),
        message: None,
    }
}

/// Version 1 was good and runs.
fn running_one() -> Vec<HistoryEntry> {
    vec![entry("1", Outcome::Live)]
}

fn gated(history: impl IntoIterator<Item = HistoryEntry>, gates: &[(&str, &str)]) -> AliasBinding {
    let gates = gates
        .iter()
        .map(|(name, expression)| gate(name, expression));
    let promotion = Promotion {
        gates: gates.collect(),
        ..Promotion::default()
    };
    binding_with(history).with(|binding| binding.spec.promotion = Some(promotion))
}

/// Versions 1 and 2, the second with a worse metric, and this version as champion.
fn model(champion: &str) -> RegisteredModel {
    let versions = [("1", "0.4"), ("2", "0.5")].map(|(number, rmse)| ModelVersion {
        metrics: BTreeMap::from([("rmse".to_owned(), rmse.to_owned())]),
        ..mirrored_version(&version(number))
    });
    testing::model(Some(champion), versions)
}

fn holding(number: &str) -> Target {
    deployment()
        .holding(&testing::binding(), &version(number))
        .target()
}

fn decided(binding: &AliasBinding, resolution: &Resolution, target: Option<&Target>) -> Decided {
    let checks = CheckResults::from([
        (check("1", false), Availability::Readable),
        (check("2", false), Availability::Readable),
    ]);
    let observed = Observed {
        resolution,
        target,
        pods: &[],
        warnings: &Warnings::new(),
        claim: None,
        template_changed: false,
        checks: &checks,
        freeze: None,
        records_approver: false,
    };
    decide(binding, &observed, now())
}

/// The decision for this champion while version 1 runs, and the status after it.
fn reconciled(binding: &AliasBinding, champion: &str) -> (Decision, AliasBindingStatus) {
    reconciled_with(binding, &model(champion))
}

fn reconciled_with(
    binding: &AliasBinding,
    model: &RegisteredModel,
) -> (Decision, AliasBindingStatus) {
    let target = holding("1");
    let resolution = resolve(binding, Some(model));
    let decided = decided(binding, &resolution, Some(&target));
    let applied = Applied {
        target: Some(&target),
        failure: None,
        retrain: None,
    };
    let reconciled = Reconciled {
        resolution: &resolution,
        checks: &CheckResults::new(),
        decided: &decided,
        applied: &applied,
    };
    let status = summarize(binding, &reconciled, now());
    (decided.decision, status)
}

fn results(status: &AliasBindingStatus) -> Vec<(&str, GateResult)> {
    let gates = status.gates.iter();
    gates
        .map(|gate| (gate.name.as_str(), gate.result.known().expect("known")))
        .collect()
}

fn condition<'a>(status: &'a AliasBindingStatus, type_: &str) -> (&'a str, &'a str, &'a str) {
    let found = find(&status.conditions, type_).expect("a condition");
    (&found.status, &found.reason, &found.message)
}

#[test]
fn a_version_that_fails_a_gate_is_not_written_and_is_told_once() {
    let mut binding = gated(
        running_one(),
        &[("rmse", RMSE), ("number", "candidate.version == '2'")],
    );
    let (decision, status) = reconciled(&binding, "2");
    let Decision::Waiting(Waiting::Gate { gate, problem, .. }) = decision else {
        panic!("{decision:?}");
    };
    assert_eq!((gate, problem.reason), ("promotion", Reason::GateFailed));
    assert_eq!(
        problem.message,
        format!(
            "version 2 is not rolled out: gate rmse: {RMSE} is false; values: kubectl get abind taxi -n ml -o yaml"
        )
    );
    let expected = [("rmse", GateResult::Failed), ("number", GateResult::Passed)];
    assert_eq!(results(&status), expected);
    let value = &status.gates[0].values[0];
    let (candidate, current) = (value.candidate.as_deref(), value.current.as_deref());
    assert_eq!((candidate, current), (Some("0.5"), Some("0.4")));
    assert_eq!(condition(&status, READY).0, "False");
    let message = format!("version 2: gate rmse: {RMSE} is false");
    let failed = ("False", "GateFailed", message.as_str());
    assert_eq!(condition(&status, GATES_PASSED), failed);
    let history = status.history.iter();
    let outcomes: Vec<_> = history.map(|entry| entry.outcome.known()).collect();
    assert_eq!(outcomes, [Some(Outcome::HeldBack), Some(Outcome::Live)]);
    binding.status = Some(status.clone());
    assert_eq!(
        reconciled(&binding, "2").1,
        status,
        "nothing is written again"
    );
    let (decision, back) = reconciled(&binding, "1");
    assert_eq!(decision, Decision::Settled(Course::Forward));
    assert!(back.gates.is_empty(), "they were about version 2");
    assert_eq!(condition(&back, GATES_PASSED).0, "True");
}

#[test]
fn unknown_holds_a_version_without_a_history_entry() {
    let binding = gated(running_one(), &[("tag", "candidate.tags.ok == 'yes'")]);
    let (_, status) = reconciled(&binding, "2");
    assert_eq!(results(&status), [("tag", GateResult::Unknown)]);
    assert_eq!(
        status.gates[0].message,
        "candidate has no tag ok: its tags were not read yet"
    );
    assert_eq!(status.history.len(), 1);
}

#[test]
fn a_version_that_passes_is_written_and_its_results_stay_while_it_runs() {
    let binding = gated(running_one(), &[("number", "candidate.version == '2'")]);
    let resolution = resolve(&binding, Some(&model("2")));
    let decided = self::decided(&binding, &resolution, Some(&holding("1")));
    assert!(matches!(
        decided.decision,
        Decision::Write(_, Course::Forward)
    ));
    let target = holding("2");
    let applied = Applied {
        target: Some(&target),
        failure: None,
        retrain: None,
    };
    let after = |binding: &AliasBinding, decided: &Decided| {
        let reconciled = Reconciled {
            resolution: &resolution,
            checks: &CheckResults::new(),
            decided,
            applied: &applied,
        };
        summarize(binding, &reconciled, now())
    };
    let status = after(&binding, &decided);
    let passed = ("True", "GatesPassed", "version 2 passed 1 gates");
    assert_eq!(condition(&status, GATES_PASSED), passed);
    let runs = binding.with(|binding| binding.status = Some(status.clone()));
    let settled = self::decided(&runs, &resolution, Some(&target));
    assert_eq!(settled.gates, None);
    assert_eq!(after(&runs, &settled).gates, status.gates);
}

#[test]
fn the_first_version_passes_what_a_gate_says_of_the_current_one() {
    let binding = gated([], &[("rmse", RMSE)]);
    let resolution = resolve(&binding, Some(&model("2")));
    let unlabelled = deployment().target();
    let decided = decided(&binding, &resolution, Some(&unlabelled));
    assert!(matches!(
        decided.decision,
        Decision::Write(_, Course::Forward)
    ));
    let results = decided.gates.expect("results");
    assert_eq!(
        results.gates[0].message,
        "there is no current version to compare with"
    );
}

#[test]
fn fast_rollback_needs_no_gate_and_neither_does_a_pin() {
    let never = [("never", "false"), ("invalid", "1 +")];
    let two_was_good = [entry("1", Outcome::Live), entry("2", Outcome::Superseded)];
    let binding = gated(two_was_good, &never);
    assert!(matches!(
        reconciled(&binding, "2").0,
        Decision::Write(_, Course::Forward)
    ));
    let binding = gated(running_one(), &never)
        .with(|binding| binding.spec.pinned_version = Some("2".to_owned()));
    assert!(matches!(
        reconciled(&binding, "1").0,
        Decision::Write(_, Course::Forward)
    ));
}

#[test]
fn a_gate_that_cannot_be_evaluated_is_told_at_once_and_lets_nothing_pass() {
    let binding = gated(
        running_one(),
        &[("fine", "true"), ("typo", "candidat.version == '2'")],
    );
    let problem = "spec.promotion: gate typo: line 1, column 1: there is no variable candidat";
    let (decision, status) = reconciled(&binding, "1");
    assert!(matches!(decision, Decision::Waiting(Waiting::Gate { .. })));
    for type_ in [READY, GATES_PASSED] {
        let (truth, reason, message) = condition(&status, type_);
        assert_eq!((truth, reason), ("False", "InvalidSpec"), "{type_}");
        assert!(message.starts_with(problem), "{message}");
    }
    let (decision, status) = reconciled(&binding, "2");
    assert!(matches!(decision, Decision::Waiting(Waiting::Gate { .. })));
    assert_eq!(condition(&status, READY).1, "InvalidSpec");
}

#[test]
fn an_expression_that_reads_the_time_is_evaluated_again_without_a_person_and_without_writes() {
    let binding = gated(running_one(), &[("age", "candidate.age > duration('1h')")]);
    let young = model("2").with(|model| {
        let status = model.status.as_mut().expect("a status");
        status.versions[1].created_at = Some(time("2026-11-23T11:59:00Z"));
    });
    let resolution = resolve(&binding, Some(&young));
    let decided = decided(&binding, &resolution, Some(&holding("1")));
    assert_eq!(decided.look_again, now().checked_add(TIME_RETRY).ok());
    assert!(matches!(
        decided.decision,
        Decision::Waiting(Waiting::Gate {
            verdict: Verdict::Retry(_),
            ..
        })
    ));
    let (_, status) = reconciled_with(&binding, &young);
    assert_eq!(
        find(&status.conditions, "Reconciling")
            .expect("waits")
            .status,
        "True"
    );
    let value = &status.gates[0].values[0];
    assert_eq!(value.field, "createdAt", "an age would move");
}

#[test]
fn the_current_version_is_the_newest_one_that_is_proven() {
    let current = |binding: &AliasBinding| {
        let resolution = resolve(binding, Some(&model("2")));
        let compared = resolution.compared.expect("the binding has gates");
        compared
            .current
            .map(|current| (current.version, current.details_omitted))
    };
    let any = [("any", "true")];
    let known = |number: &str| Some((number.to_owned(), false));
    assert_eq!(current(&gated(running_one(), &any)), known("1"));
    assert_eq!(
        current(&gated([entry("2", Outcome::Baking)], &any)),
        known("2")
    );
    assert_eq!(current(&gated([entry("2", Outcome::Failed)], &any)), None);
    assert_eq!(current(&gated([], &any)), None);
    let good = |number: &str| {
        gated([entry("2", Outcome::Failed)], &any).with(|binding| {
            let status = binding.status.as_mut().expect("a status");
            status.last_good = Some(GoodVersion {
                version: version(number),
                ..GoodVersion::default()
            });
        })
    };
    assert_eq!(current(&good("1")), known("1"));
    assert_eq!(
        current(&good("7")),
        Some(("7".to_owned(), true)),
        "the mirror does not have it"
    );
}
