//! The decision, row by row; the name of a test begins with the rule that it shows (docs/rules.md).
//!
//! Absent: a cluster. What Kubernetes does with a decision is shown by the scenarios.

use serde_json::json;

use super::*;
use crate::api::Availability;
use crate::api::alias_binding::{AliasState, HandledRequest, HistoryEntry, Outcome};
use crate::api::names;
use crate::api::registered_model::CodeLineage;
use crate::api::rollback::{FailedVersion, GoodVersion, OnFailure, Postponed};
use crate::api::{ModelVersion, RegisteredModel};
use crate::rollout::{
    Applied, ArtifactCheck, CheckResults, Freeze, FreezePlace, Reconciled, Warnings, forward_check,
    needed_checks, resolve, summarize,
};
use crate::targets::Pod;
use crate::testing::{
    self, With, annotated, binding, binding_with, check, container, deployment, entry,
    mirrored_version, now, pod_with, time, version, waiting,
};

/// A model of three versions; the last one has no artifact.
fn model(champion: Option<&str>, ready: Reason) -> RegisteredModel {
    let unusable = mirrored_version(&version("3")).with(|version| {
        version.artifact_uri = None;
        version.problem = Some("its run is gone".into());
    });
    let usable = ["1", "2"].map(|number| mirrored_version(&version(number)));
    testing::model(champion, usable.into_iter().chain([unusable])).with(|model| {
        let status = model.status.as_mut().expect("a status");
        status.conditions = vec![testing::ready(ready)];
    })
}

fn mirrored(champion: &str) -> RegisteredModel {
    model(Some(champion), Reason::Mirrored)
}

fn ours(number: &str) -> Target {
    deployment().holding(&binding(), &version(number)).target()
}

/// The workload after a person's undo to a version.
fn undone(number: &str) -> Target {
    let ours = deployment().holding(&binding(), &version(number));
    ours.undone_by("kubectl").target()
}

/// The workload after a person's undo to the template before the first version.
fn undone_to_the_start() -> Target {
    deployment().labelled("taxi").target()
}

fn decision(binding: &AliasBinding, model: &RegisteredModel, workload: Option<&Target>) -> Decided {
    let other = ArtifactCheck {
        artifact_uri: "s3://other/1".into(),
        ..check("1", false)
    };
    let readable = [check("1", false), check("2", false), other];
    let checks = readable.map(|check| (check, Availability::Readable));
    decision_with(binding, model, workload, &[], &checks.into())
}

fn decision_with(
    binding: &AliasBinding,
    model: &RegisteredModel,
    workload: Option<&Target>,
    pods: &[&Pod],
    checks: &CheckResults,
) -> Decided {
    let resolution = resolve(binding, Some(model));
    let observed = Observed {
        resolution: &resolution,
        target: workload,
        pods,
        warnings: &Warnings::new(),
        claim: None,
        template_changed: false,
        checks,
        freeze: None,
        records_approver: false,
    };
    decide(binding, &observed, now())
}

fn crash_loop() -> Pod {
    pod_with(container().with(|container| {
        container.restart_count = 4;
        container.state = Some(waiting("CrashLoopBackOff"));
    }))
}

/// Version 2 rolls out after version 1 was good.
fn two_after_one() -> AliasBinding {
    binding_with([
        entry("2", Outcome::RollingOut),
        entry("1", Outcome::Superseded),
    ])
}

/// Version 2 runs, and version 1 was good before.
fn running_two() -> AliasBinding {
    binding_with([entry("2", Outcome::Live), entry("1", Outcome::Superseded)])
}

fn status(binding: &mut AliasBinding) -> &mut AliasBindingStatus {
    binding.status.as_mut().expect("a status")
}

/// The binding after version 2 failed, as the status remembers it.
fn failed_two() -> AliasBinding {
    let pod = crash_loop();
    let decision = decision_with(
        &two_after_one(),
        &mirrored("2"),
        Some(&ours("2")),
        &[&pod],
        &CheckResults::new(),
    );
    two_after_one().with(|binding| {
        let status = status(binding);
        status.held_back = decision.memory.held_back;
        status.history[0].outcome = Outcome::Failed.into();
        status.wanted = Some("2".into());
    })
}

fn rollback_checks(answer: Availability) -> CheckResults {
    CheckResults::from([(check("1", true), answer)])
}

/// The reason of a rollback.
fn rollback_reason(decided: &Decided) -> Option<Reason> {
    match decided.decision.course() {
        Some(Course::Rollback(problem)) => Some(problem.reason),
        _ => None,
    }
}

/// The checks that the decision needs.
fn needed(binding: &AliasBinding, model: &RegisteredModel, target: &Target) -> Vec<ArtifactCheck> {
    let resolution = resolve(binding, Some(model));
    let observed = Observed {
        resolution: &resolution,
        target: Some(target),
        pods: &[],
        warnings: &Warnings::new(),
        claim: None,
        template_changed: false,
        checks: &CheckResults::new(),
        freeze: None,
        records_approver: false,
    };
    needed_checks(binding, &observed, now())
}

/// The number of the version that is written.
fn written(decided: &Decided) -> Option<&str> {
    match &decided.decision {
        Decision::Write(injection, _) => Some(&injection.version),
        _ => None,
    }
}

/// The reason why nothing is written.
fn left(decided: &Decided) -> Option<Reason> {
    match &decided.decision {
        Decision::Suspended(problem)
        | Decision::Claimed(problem)
        | Decision::Held(problem)
        | Decision::Record(problem)
        | Decision::NoRollbackTarget(problem)
        | Decision::Waiting(
            Waiting::Unresolved(problem)
            | Waiting::Target(problem)
            | Waiting::Checks(problem)
            | Waiting::Gate { problem, .. },
        ) => Some(problem.reason),
        Decision::Settled(_) | Decision::Write(..) => None,
    }
}

/// The binding after a version became live.
fn after(number: &str) -> AliasBinding {
    binding_with([entry(number, Outcome::Live)])
}

#[test]
fn resolve_once_the_alias_resolves_to_one_version_with_its_artifact() {
    let decision = decision(&binding(), &mirrored("2"), Some(&ours("1")));
    let Decision::Write(injection, _) = decision.decision else {
        panic!("{decision:?}")
    };
    assert_eq!(injection.value("MODEL_URI"), Some("s3://m/2"));
    assert_eq!(
        injection.value("MLFLOW_MODEL_URI"),
        Some("models:/nyc-taxi/2")
    );
}

#[test]
fn resolve_once_the_same_number_with_another_artifact_is_another_version() {
    let mut made_again = mirrored("1");
    made_again.status.as_mut().expect("a status").versions[0].artifact_uri =
        Some("s3://other/1".into());
    assert_eq!(
        written(&decision(&binding(), &made_again, Some(&ours("1")))),
        Some("1")
    );
}

#[test]
fn level_triggered_a_workload_that_is_as_wanted_is_settled() {
    assert_eq!(
        decision(&binding(), &mirrored("2"), Some(&ours("2"))).decision,
        Decision::Settled(Course::Forward)
    );
}

#[test]
fn fail_static_an_unresolved_version_leaves_the_workload_alone() {
    let rows = [
        (model(None, Reason::Mirrored), Reason::AliasNotFound),
        (mirrored("9"), Reason::VersionNotFound),
        (mirrored("3"), Reason::ArtifactUnavailable),
        (
            model(Some("2"), Reason::ModelNotFound),
            Reason::ModelNotFound,
        ),
        (
            model(Some("2"), Reason::RegistryUnreachable),
            Reason::RegistryUnreachable,
        ),
        (
            model(Some("2"), Reason::RegistryRefused),
            Reason::RegistryRefused,
        ),
        (
            model(Some("2"), Reason::CredentialsNotFound),
            Reason::CredentialsNotFound,
        ),
    ];
    for (model, reason) in rows {
        assert_eq!(
            left(&decision(&binding(), &model, Some(&ours("1")))),
            Some(reason)
        );
    }
}

#[test]
fn fail_static_an_outage_settles_the_running_version() {
    let outage = model(Some("2"), Reason::RegistryUnreachable);
    assert_eq!(
        decision(&binding(), &outage, Some(&ours("2"))).decision,
        Decision::Settled(Course::Forward)
    );
}

#[test]
fn fast_rollback_is_as_direct_as_forward() {
    assert_eq!(
        written(&decision(&after("2"), &mirrored("1"), Some(&ours("2")))),
        Some("1")
    );
}

#[test]
fn people_win_a_persons_undo_is_held_and_remembered() {
    let undone = undone("1");
    let decision = decision(&after("2"), &mirrored("2"), Some(&undone));
    assert_eq!(left(&decision), Some(Reason::Held));
    let hold = decision.memory.hold.expect("a hold");
    assert_eq!(
        (hold.wanted.number(), hold.manager.as_str()),
        ("2", "kubectl")
    );
}

fn hold_against_nine(binding: &mut AliasBinding) {
    status(binding).hold = Some(Hold {
        wanted: version("9"),
        manager: "kubectl".into(),
        since: time(testing::NOW),
    });
}

#[test]
fn people_win_a_hold_ends_when_the_alias_moves() {
    let undone = undone("1");
    let held = after("1").with(hold_against_nine);
    let decision = decision(&held, &mirrored("2"), Some(&undone));
    assert_eq!(
        (written(&decision), decision.memory.hold.clone()),
        (Some("2"), None)
    );
}

#[test]
fn people_win_an_old_hold_against_another_version_hides_no_new_undo() {
    let undone = undone("1");
    let held = after("2").with(hold_against_nine);
    let decision = decision(&held, &mirrored("2"), Some(&undone));
    assert_eq!(
        decision
            .memory
            .hold
            .map(|hold| hold.wanted.number().to_owned())
            .as_deref(),
        Some("2")
    );
}

#[test]
fn people_win_a_hold_ends_when_a_person_resumes() {
    let undone = undone("1");
    let mut binding = after("2");
    binding = annotated(binding, names::RESUME_ANNOTATION, "1");
    assert_eq!(
        written(&decision(&binding, &mirrored("2"), Some(&undone))),
        Some("2")
    );
}

#[test]
fn people_win_an_undo_while_nothing_can_be_resolved_is_held_when_the_alias_is_back() {
    for lost in [
        model(None, Reason::Mirrored),
        model(Some("2"), Reason::ModelNotFound),
    ] {
        for undone in [undone("1"), undone_to_the_start()] {
            let seen = summarized(&running_two(), &lost, &undone, &CheckResults::new());
            assert_eq!(
                left(&decision(&seen, &mirrored("2"), Some(&undone))),
                Some(Reason::Held)
            );
            assert_eq!(
                written(&decision(&seen, &mirrored("1"), Some(&undone))).is_some(),
                undone.version().is_none()
            );
        }
    }
}

#[test]
fn people_win_an_undo_while_suspended_is_held_when_that_is_over() {
    let undone = undone("1");
    let suspended = running_two().with(|binding| binding.spec.suspend = true);
    let mut seen = summarized(&suspended, &mirrored("2"), &undone, &CheckResults::new());
    seen.spec.suspend = false;
    assert_eq!(
        left(&decision(&seen, &mirrored("2"), Some(&undone))),
        Some(Reason::Held)
    );
}

/// The binding with the status of the next reconcile.
fn summarized(
    binding: &AliasBinding,
    model: &RegisteredModel,
    workload: &Target,
    checks: &CheckResults,
) -> AliasBinding {
    let resolution = resolve(binding, Some(model));
    let decision = decision_with(binding, model, Some(workload), &[], checks);
    let applied = Applied {
        target: Some(workload),
        failure: None,
        retrain: None,
    };
    let reconciled = Reconciled {
        resolution: &resolution,
        checks,
        decided: &decision,
        applied: &applied,
    };
    let mut binding = binding.clone();
    binding.status = Some(summarize(&binding, &reconciled, now()));
    binding
}

#[test]
fn people_win_a_resume_that_must_wait_is_not_forgotten() {
    let undone = undone_to_the_start();
    let mut binding = after("2");
    status(&mut binding).hold = decision(&binding, &mirrored("2"), Some(&undone))
        .memory
        .hold;
    binding = annotated(binding, names::RESUME_ANNOTATION, "1");
    let waiting = summarized(&binding, &mirrored("2"), &undone, &CheckResults::new());
    assert_eq!(
        written(&decision(&waiting, &mirrored("2"), Some(&undone))),
        Some("2")
    );
    let outage = model(None, Reason::Mirrored);
    let waiting = summarized(&binding, &outage, &undone, &CheckResults::new());
    assert_eq!(
        written(&decision(&waiting, &mirrored("2"), Some(&undone))),
        Some("2")
    );
    let resumed = summarized(&waiting, &mirrored("2"), &ours("2"), &CheckResults::new());
    assert_eq!(
        resumed
            .status
            .expect("a status")
            .last_handled_resume
            .as_deref(),
        Some("1")
    );
}

fn pinned_to_one(binding: AliasBinding) -> AliasBinding {
    binding.with(|binding| binding.spec.pinned_version = Some("1".into()))
}

#[test]
fn people_win_a_pin_decides_whatever_the_alias_says_and_whether_or_not_the_registry_answers() {
    let pinned = pinned_to_one(after("2"));
    assert_eq!(
        written(&decision(&pinned, &mirrored("2"), Some(&ours("2")))),
        Some("1")
    );
    let outage = model(Some("2"), Reason::RegistryUnreachable);
    assert_eq!(
        written(&decision(&pinned, &outage, Some(&ours("2")))),
        Some("1")
    );
}

#[test]
fn people_win_a_pinned_version_that_ran_before_is_known_by_history_alone() {
    let mut forgotten = mirrored("2");
    forgotten
        .status
        .as_mut()
        .expect("a status")
        .versions
        .clear();
    let pinned = pinned_to_one(after("1"));
    assert_eq!(
        written(&decision(&pinned, &forgotten, Some(&ours("2")))),
        Some("1")
    );
}

#[test]
fn people_win_suspended_means_untouched() {
    let suspended = binding().with(|binding| binding.spec.suspend = true);
    assert_eq!(
        left(&decision(&suspended, &mirrored("2"), Some(&ours("1")))),
        Some(Reason::Suspended)
    );
}

/// The workload of a user who sets one of the variables.
fn with_own_variable(name: &str) -> Target {
    let container = json!({"name": "server", "env": [{"name": name, "value": "mine"}]});
    let spec = json!({"template": {"spec": {"containers": [container]}}});
    deployment().user_applied(&json!({"spec": spec})).target()
}

#[test]
fn gitops_in_peace_a_variable_of_another_manager_is_never_overwritten() {
    let theirs = with_own_variable("MODEL_URI");
    let decision = decision(&binding(), &mirrored("2"), Some(&theirs));
    let Decision::Waiting(Waiting::Target(problem)) = decision.decision else {
        panic!("{decision:?}")
    };
    assert_eq!(problem.reason, Reason::FieldConflict);
    assert!(
        problem
            .message
            .contains("kubectl-client-side-apply sets MODEL_URI in container server"),
        "{}",
        problem.message
    );
}

#[test]
fn gitops_in_peace_the_users_own_tracking_uri_is_no_conflict() {
    let theirs = with_own_variable("MLFLOW_TRACKING_URI");
    assert_eq!(
        written(&decision(&binding(), &mirrored("2"), Some(&theirs))),
        Some("2")
    );
}

#[test]
fn a_wiped_injection_is_written_again() {
    let replaced = deployment().target();
    assert_eq!(
        written(&decision(&after("2"), &mirrored("2"), Some(&replaced))),
        Some("2")
    );
}

/// The binding with a template instead of a target.
fn with_template(binding: AliasBinding) -> AliasBinding {
    let spec = json!({"spec": {"template": {"spec": {"containers": [{"name": "server"}]}}}});
    binding.with(|binding| {
        binding.spec.target_ref = None;
        binding.spec.template = Some(serde_json::from_value(spec).expect("a template"));
    })
}

#[test]
fn fail_static_a_workload_that_was_deleted_or_replaced_gets_back_the_version_that_ran() {
    let replaced = deployment().target();
    let rows = [
        (after("1"), Some(&replaced)),
        (with_template(after("1")), None),
    ];
    let nothing_goes_forward = [
        model(Some("2"), Reason::RegistryUnreachable),
        model(Some("1"), Reason::RegistryUnreachable),
        model(None, Reason::Mirrored),
        model(Some("2"), Reason::ModelNotFound),
        mirrored("9"),
    ];
    for (binding, target) in &rows {
        for model in &nothing_goes_forward {
            let decided = decision(binding, model, *target);
            assert_eq!(written(&decided), Some("1"), "{decided:?}");
        }
    }
    let failed = binding_with([entry("1", Outcome::Failed)]);
    let decided = decision(&failed, &nothing_goes_forward[0], Some(&replaced));
    assert_eq!(left(&decided), Some(Reason::RegistryUnreachable));
}

#[test]
fn gitops_in_peace_a_location_that_a_policy_changes_is_not_taken_for_the_versions_own() {
    let binding = binding_with([entry("1", Outcome::Live)]);
    let mirrored = mirrored("2");
    let decided = decision(&binding, &mirrored, Some(&ours("1")));
    assert_eq!(written(&decided), Some("2"));
    let env = json!([{"name": "MODEL_URI", "value": "s3://mirror/2"}]);
    let containers = json!([{"name": "server", "env": env}]);
    let altered = deployment()
        .holding(&binding, &version("2"))
        .changed(&json!({"spec": {"template": {"spec": {"containers": containers}}}}))
        .target();
    let checks = CheckResults::from([(check("2", false), Availability::Readable)]);
    let resolution = resolve(&binding, Some(&mirrored));
    let applied = Applied {
        target: Some(&altered),
        failure: Some(Problem::new(Reason::FieldConflict, "a policy")),
        retrain: None,
    };
    let reconciled = Reconciled {
        resolution: &resolution,
        checks: &checks,
        decided: &decided,
        applied: &applied,
    };
    let after = binding.clone().with(|after| {
        after.status = Some(summarize(&binding, &reconciled, now()));
    });
    let status = after.status.as_ref().expect("a status");
    let running = status.running.as_ref().expect("it runs");
    let held = running.version.artifact_uri.as_deref();
    assert_eq!(held, Some("s3://mirror/2"));
    assert_eq!(status.history[0].version.number(), "2");
    assert_eq!(status.history[0].outcome, Outcome::RollingOut);
    let next = decision(&after, &mirrored, Some(&altered));
    let Decision::Write(injection, _) = &next.decision else {
        panic!("{next:?}")
    };
    assert_eq!(injection.value("MODEL_URI"), Some("s3://m/2"));
}

#[test]
fn no_loops_a_field_that_a_policy_changes_along_with_our_write_is_no_change_of_the_spec() {
    let mut binding = failed_two();
    let checks = rollback_checks(Availability::Readable);
    let decided = decision_with(&binding, &mirrored("2"), Some(&ours("2")), &[], &checks);
    assert_eq!(written(&decided), Some("1"));
    let stamp = json!([{"name": "STAMP", "value": "7"}]);
    let containers = json!([{"name": "server", "env": stamp}]);
    let stamped = deployment()
        .holding(&binding, &version("1"))
        .changed(&json!({"spec": {"template": {"spec": {"containers": containers}}}}))
        .target();
    let applied = Applied {
        target: Some(&stamped),
        failure: None,
        retrain: None,
    };
    let resolution = resolve(&binding, Some(&mirrored("2")));
    let reconciled = Reconciled {
        resolution: &resolution,
        checks: &checks,
        decided: &decided,
        applied: &applied,
    };
    binding.status = Some(summarize(&binding, &reconciled, now()));
    let next = decision_with(&binding, &mirrored("2"), Some(&stamped), &[], &checks);
    assert_eq!(rollback_reason(&next), Some(Reason::RolledBack), "{next:?}");
    assert_eq!(written(&next), None);
    // A person's change of the same variable is one.
    let changed = json!([{"name": "server", "env": [{"name": "STAMP", "value": "8"}]}]);
    let changed = deployment()
        .holding(&binding, &version("1"))
        .changed(&json!({"spec": {"template": {"spec": {"containers": changed}}}}))
        .target();
    let retried = decision_with(&binding, &mirrored("2"), Some(&changed), &[], &checks);
    assert_eq!(retried.memory.held_back, None);
}

#[test]
fn resolve_once_a_pinned_version_is_never_taken_from_the_history_of_another_model() {
    let of_other_model =
        entry("9", Outcome::Live).with(|entry| entry.version.id.model = "other".into());
    let pinned = binding_with([of_other_model])
        .with(|binding| binding.spec.pinned_version = Some("9".into()));
    let decided = decision(&pinned, &mirrored("1"), Some(&ours("1")));
    assert_eq!(left(&decided), Some(Reason::VersionNotFound));
}

#[test]
fn people_win_an_undo_to_before_the_first_version_is_held() {
    let undone = undone_to_the_start();
    assert_eq!(
        left(&decision(&after("2"), &mirrored("2"), Some(&undone))),
        Some(Reason::Held)
    );
}

#[test]
fn gitops_in_peace_an_apply_that_removes_the_annotations_alone_is_no_undo() {
    let mut applied = ours("2");
    applied.template.metadata.annotations.clear();
    let decided = decision(&after("2"), &mirrored("2"), Some(&applied));
    assert_eq!(written(&decided), Some("2"));
}

#[test]
fn a_missing_target_is_reported_and_a_templates_workload_is_created() {
    assert_eq!(
        left(&decision(&binding(), &mirrored("2"), None)),
        Some(Reason::TargetNotFound)
    );
    assert_eq!(
        written(&decision(&with_template(binding()), &mirrored("2"), None)),
        Some("2")
    );
}

#[test]
fn a_container_that_is_not_there_is_an_invalid_spec() {
    let wrong = binding().with(|binding| binding.spec.inject.containers = Some(vec!["srv".into()]));
    assert_eq!(
        left(&decision(&wrong, &mirrored("2"), Some(&ours("1")))),
        Some(Reason::InvalidSpec)
    );
}

#[test]
fn automatic_rollback_records_a_failure_before_it_acts() {
    let pod = crash_loop();
    let binding = two_after_one();
    let decision = decision_with(
        &binding,
        &mirrored("2"),
        Some(&ours("2")),
        &[&pod],
        &CheckResults::new(),
    );
    assert_eq!(
        (
            left(&decision),
            matches!(decision.decision, Decision::Record(_))
        ),
        (Some(Reason::CrashLoop), true)
    );
    let held_back = decision.memory.held_back.expect("held back");
    assert_eq!(
        (
            held_back.wanted.number(),
            held_back.versions[0].version.number()
        ),
        ("2", "2")
    );
}

#[test]
fn automatic_rollback_goes_to_a_good_version_that_can_be_read() {
    let pod = crash_loop();
    let go = |checks: &CheckResults| {
        decision_with(
            &failed_two(),
            &mirrored("2"),
            Some(&ours("2")),
            &[&pod],
            checks,
        )
    };
    let waiting = go(&CheckResults::new());
    assert!(matches!(
        waiting.decision,
        Decision::Waiting(Waiting::Checks(_))
    ));
    assert_eq!(
        needed(&failed_two(), &mirrored("2"), &ours("2")),
        [check("1", true)]
    );
    let back = go(&rollback_checks(Availability::Readable));
    assert_eq!(
        (written(&back), rollback_reason(&back)),
        (Some("1"), Some(Reason::RolledBack))
    );
    assert_eq!(
        written(&go(&rollback_checks(Availability::Unknown("away".into())))),
        Some("1")
    );
}

#[test]
fn automatic_rollback_waits_for_no_registry() {
    let pod = crash_loop();
    for reason in [Reason::RegistryUnreachable, Reason::ModelNotFound] {
        let outage = model(Some("2"), reason);
        let decision = decision_with(
            &failed_two(),
            &outage,
            Some(&ours("2")),
            &[&pod],
            &rollback_checks(Availability::Readable),
        );
        assert_eq!(written(&decision), Some("1"), "{reason}");
    }
}

#[test]
fn automatic_rollback_without_a_target_stays_and_names_the_code() {
    let pod = crash_loop();
    let mut binding = failed_two();
    let mut good = GoodVersion {
        version: version("1").with(|version| version.run_id = None),
        ..GoodVersion::default()
    };
    good.lineage.code = Some(CodeLineage {
        repository: Some("https://git.example/taxi".into()),
        commit: Some("abc".into()),
        ..CodeLineage::default()
    });
    status(&mut binding).last_good = Some(good);
    let checks = rollback_checks(Availability::Missing("deleted".into()));
    let decision = decision_with(&binding, &mirrored("2"), Some(&ours("2")), &[&pod], &checks);
    let Decision::NoRollbackTarget(problem) = &decision.decision else {
        panic!("{decision:?}")
    };
    assert_eq!(problem.reason, Reason::NoRollbackTarget);
    assert!(
        problem
            .message
            .contains("repository https://git.example/taxi, commit abc"),
        "{}",
        problem.message
    );
    let lost = decision.memory.lost.expect("a loss");
    assert_eq!(
        (
            lost.version.number(),
            lost.missing.contains(&"datasets".to_owned())
        ),
        ("1", true)
    );
}

#[test]
fn automatic_rollback_with_on_failure_report_only_reports() {
    let pod = crash_loop();
    let binding =
        two_after_one().with(|binding| binding.spec.rollback.on_failure = OnFailure::Report);
    let decision = decision_with(
        &binding,
        &mirrored("2"),
        Some(&ours("2")),
        &[&pod],
        &rollback_checks(Availability::Readable),
    );
    assert_eq!(
        (decision.decision, decision.memory.held_back),
        (Decision::Settled(Course::Forward), None)
    );
    assert_eq!(
        decision.failure.map(|problem| problem.reason),
        Some(Reason::CrashLoop)
    );
}

#[test]
fn automatic_rollback_an_unreadable_artifact_never_starts_a_rollout() {
    let go = |answer: Option<Availability>| {
        let checks = answer
            .map(|answer| (check("2", false), answer))
            .into_iter()
            .collect();
        decision_with(&after("1"), &mirrored("2"), Some(&ours("1")), &[], &checks)
    };
    assert_eq!(left(&go(None)), Some(Reason::Pending));
    assert_eq!(
        needed(&after("1"), &mirrored("2"), &ours("1")),
        [check("2", false)]
    );
    let gone = go(Some(Availability::Missing("gone".into())));
    assert_eq!(left(&gone), Some(Reason::ArtifactUnavailable));
    let away = go(Some(Availability::Unknown("away".into())));
    assert_eq!(left(&away), Some(Reason::ArtifactCheckFailed));
    for answer in [
        Availability::Readable,
        Availability::Unchecked("no credentials".into()),
    ] {
        assert_eq!(written(&go(Some(answer))), Some("2"));
    }
}

#[test]
fn fast_rollback_of_a_version_that_was_good_waits_for_no_store() {
    let checks = CheckResults::from([(check("1", false), Availability::Unknown("away".into()))]);
    assert_eq!(
        written(&decision_with(
            &running_two(),
            &mirrored("1"),
            Some(&ours("2")),
            &[],
            &checks
        )),
        Some("1")
    );
}

/// The binding after it went back from version 2 to version 1.
fn gone_back() -> AliasBinding {
    failed_two().with(|binding| {
        let history = &mut status(binding).history;
        history[0] = entry("2", Outcome::RolledBack);
        history.insert(0, entry("1", Outcome::Live));
    })
}

#[test]
fn no_loops_a_failed_version_is_held_back_while_the_alias_names_it() {
    let decision = decision(&gone_back(), &mirrored("2"), Some(&ours("1")));
    assert!(matches!(decision.decision, Decision::Settled(_)));
    assert_eq!(rollback_reason(&decision), Some(Reason::RolledBack));
}

#[test]
fn no_loops_a_failed_version_is_retried_when_the_alias_returns() {
    let away = decision(&gone_back(), &mirrored("1"), Some(&ours("1")));
    assert_eq!(
        (away.decision, away.memory.held_back),
        (Decision::Settled(Course::Forward), None)
    );
    let mut binding = gone_back();
    status(&mut binding).held_back = None;
    assert_eq!(
        written(&decision(&binding, &mirrored("2"), Some(&ours("1")))),
        Some("2")
    );
}

#[test]
fn no_loops_a_failed_version_is_retried_when_a_spec_changes() {
    let mut binding = gone_back();
    binding.spec.rollback.max_restarts = 9;
    assert_eq!(
        written(&decision(&binding, &mirrored("2"), Some(&ours("1")))),
        Some("2")
    );
    let mut workload = ours("1");
    workload.template.users_digest.push('x');
    assert_eq!(
        written(&decision(&gone_back(), &mirrored("2"), Some(&workload))),
        Some("2")
    );
}

#[test]
fn no_loops_a_change_beside_the_version_does_not_retry_it() {
    let mut binding = gone_back();
    binding.spec.history_limit = 5;
    let settled = decision(&binding, &mirrored("2"), Some(&ours("1")));
    assert!(matches!(
        settled.decision,
        Decision::Settled(Course::Rollback(_))
    ));
}

#[test]
fn no_loops_it_is_tried_again_when_a_person_asks_and_once_only() {
    let mut binding = gone_back();
    binding = annotated(binding, names::RETRY_ANNOTATION, "1");
    assert_eq!(
        written(&decision(&binding, &mirrored("2"), Some(&ours("1")))),
        Some("2")
    );
    status(&mut binding).last_handled_retry = Some(HandledRequest {
        value: "1".into(),
        at: time(testing::NOW),
    });
    let settled = decision(&binding, &mirrored("2"), Some(&ours("1")));
    assert!(matches!(
        settled.decision,
        Decision::Settled(Course::Rollback(_))
    ));
}

#[test]
fn no_loops_a_retry_that_is_asked_for_while_suspended_is_not_forgotten() {
    let mut binding = gone_back();
    binding.spec.suspend = true;
    binding = annotated(binding, names::RETRY_ANNOTATION, "1");
    let mut seen = summarized(&binding, &mirrored("2"), &ours("1"), &CheckResults::new());
    assert!(seen.status.as_ref().expect("a status").held_back.is_some());
    seen.spec.suspend = false;
    assert_eq!(
        written(&decision(&seen, &mirrored("2"), Some(&ours("1")))),
        Some("2")
    );
}

#[test]
fn people_win_a_persons_own_choice_while_a_version_is_held_back_is_left_alone() {
    let persons = undone("2");
    let pod = crash_loop();
    let decision = decision_with(
        &gone_back(),
        &mirrored("2"),
        Some(&persons),
        &[&pod],
        &CheckResults::new(),
    );
    assert_eq!(left(&decision), Some(Reason::Held));
    assert_eq!(
        decision
            .memory
            .hold
            .map(|hold| hold.wanted.number().to_owned()),
        Some("2".to_owned())
    );
}

#[test]
fn a_failed_version_in_the_workload_does_not_stay_because_the_next_one_cannot_be_had() {
    let pod = crash_loop();
    let mut moved = failed_two();
    let held_back = status(&mut moved).held_back.as_mut();
    held_back.expect("held back").wanted = version("3").with(|three| three.artifact_uri = None);
    let decision = decision_with(
        &moved,
        &mirrored("3"),
        Some(&ours("2")),
        &[&pod],
        &rollback_checks(Availability::Readable),
    );
    assert_eq!(written(&decision), Some("1"));
}

const MOVED: &str = "https://mlflow.example";

/// The model after the registry got another address.
fn moved(champion: &str) -> RegisteredModel {
    mirrored(champion).with(|model| {
        model.status.as_mut().expect("a status").tracking_uri = Some(MOVED.to_owned());
    })
}

/// The version as it is written with the registry's other address.
fn at_moved(number: &str) -> VersionRef {
    version(number).with(|version| version.tracking_uri = Some(MOVED.to_owned()))
}

fn written_address(decided: &Decided) -> Option<&str> {
    match &decided.decision {
        Decision::Write(injection, _) => injection.value("MLFLOW_TRACKING_URI"),
        _ => None,
    }
}

#[test]
fn fail_static_another_address_of_the_registry_rolls_nothing_and_is_noted() {
    let decided = decision(&after("1"), &moved("1"), Some(&ours("1")));
    assert_eq!(decided.decision, Decision::Settled(Course::Forward));
    let sentence = decided.note.expect("a note").behind("version 1 runs");
    assert!(
        sentence.starts_with("version 1 runs; the registry's address has changed since"),
        "{sentence}"
    );
    assert!(
        sentence.ends_with(
            "kubectl pointsman reapply taxi -n ml (or annotation pointsman.dev/apply-requested-at)"
        ),
        "{sentence}"
    );
}

#[test]
fn fail_static_another_address_goes_along_with_the_next_version() {
    let decided = decision(&after("1"), &moved("2"), Some(&ours("1")));
    assert_eq!(
        (written(&decided), written_address(&decided)),
        (Some("2"), Some(MOVED))
    );
}

#[test]
fn fail_static_a_wiped_injection_gets_the_address_that_it_had() {
    let mut binding = after("1");
    status(&mut binding).history[0].version.tracking_uri = Some(testing::TRACKING_URI.into());
    let replaced = deployment().target();
    let decided = decision(&binding, &moved("1"), Some(&replaced));
    assert_eq!(written_address(&decided), Some(testing::TRACKING_URI));
}

#[test]
fn a_requested_address_is_written_and_the_old_one_remembered() {
    let asked = annotated(after("1"), names::APPLY_ANNOTATION, "1");
    let decided = decision(&asked, &moved("1"), Some(&ours("1")));
    assert_eq!(written_address(&decided), Some(MOVED));
    let apply = decided.memory.apply.expect("a memory");
    let before = apply.before.expect("the version before");
    assert_eq!(
        (apply.value.as_str(), before.tracking_uri.as_deref()),
        ("1", Some(testing::TRACKING_URI))
    );
}

#[test]
fn a_request_without_a_difference_is_handled_and_writes_nothing() {
    let asked = annotated(after("1"), names::APPLY_ANNOTATION, "1");
    let decided = decision(&asked, &mirrored("1"), Some(&ours("1")));
    assert_eq!(decided.decision, Decision::Settled(Course::Forward));
    let apply = decided.memory.apply.expect("a memory");
    assert_eq!((apply.value.as_str(), apply.before), ("1", None));
}

#[test]
fn automatic_rollback_takes_a_requested_address_back_and_does_not_blame_the_version() {
    let mut binding = annotated(after("1"), names::APPLY_ANNOTATION, "1");
    let asked = decision(&binding, &moved("1"), Some(&ours("1")));
    let failing = entry("1", Outcome::RollingOut).with(|entry| entry.version = at_moved("1"));
    status(&mut binding).history.insert(0, failing);
    status(&mut binding).last_handled_apply = asked.memory.apply;
    let written = deployment().holding(&binding, &at_moved("1")).target();
    let (pod, checks) = (crash_loop(), CheckResults::new());
    let decide = |binding: &AliasBinding| {
        decision_with(binding, &moved("1"), Some(&written), &[&pod], &checks)
    };
    let recorded = decide(&binding);
    assert_eq!(left(&recorded), Some(Reason::CrashLoop));
    assert_eq!(recorded.memory.held_back, None);
    status(&mut binding).last_handled_apply = recorded.memory.apply;
    let back = decide(&binding);
    assert_eq!(
        (written_address(&back), rollback_reason(&back)),
        (Some(testing::TRACKING_URI), Some(Reason::RolledBack))
    );
    let settled = decision(&binding, &moved("1"), Some(&ours("1")));
    assert_eq!(settled.decision, Decision::Settled(Course::Forward));
    let note = settled.note.expect("a note");
    assert!(
        note.cause
            .starts_with("the registry's new address failed: "),
        "{note:?}"
    );
    let again = annotated(binding, names::APPLY_ANNOTATION, "2");
    let decided = decision(&again, &moved("1"), Some(&ours("1")));
    assert_eq!(written_address(&decided), Some(MOVED));
}

#[test]
fn automatic_rollback_writes_the_address_with_which_the_version_was_good() {
    let mut binding = failed_two();
    status(&mut binding).history[1].version.tracking_uri = Some(testing::TRACKING_URI.into());
    let failed = deployment().holding(&binding, &at_moved("2")).target();
    let checks = rollback_checks(Availability::Readable);
    let decided = decision_with(&binding, &moved("2"), Some(&failed), &[], &checks);
    assert_eq!(
        (written(&decided), written_address(&decided)),
        (Some("1"), Some(testing::TRACKING_URI))
    );
}

const LONG_AGO: &str = "2026-11-23T11:00:00Z";
const LATER: &str = "2026-11-23T13:00:00Z";

/// The workload whose pods of version 2 a quota has refused for longer than the deadline; none is available.
fn refused_two() -> (AliasBinding, Target) {
    let blocked = entry("2", Outcome::Blocked).with(|entry| entry.started_at = time(LONG_AGO));
    let target = deployment()
        .holding(&binding(), &version("2"))
        .counts(0, 0, 0)
        .condition(
            "ReplicaFailure",
            "True",
            "FailedCreate",
            "exceeded quota",
            LONG_AGO,
        )
        .target();
    (
        binding_with([blocked, entry("1", Outcome::Superseded)]),
        target,
    )
}

/// Version 2 is tried again later; version 1 has taken its place.
fn postponed_two(one: HistoryEntry, retry_at: &str) -> AliasBinding {
    binding_with([
        one,
        entry("2", Outcome::Superseded).with(|two| two.live_at = None),
    ])
    .with(|binding| {
        status(binding).postponed = Some(Postponed {
            version: version("2"),
            spec_digest: String::new(),
            message: "exceeded quota".into(),
            attempts: 1,
            retry_at: time(retry_at),
        });
    })
}

#[test]
fn a_blocked_rollout_that_costs_capacity_is_postponed_and_one_that_the_alias_left_goes_on() {
    let (binding, target) = refused_two();
    let postponed = decision(&binding, &mirrored("2"), Some(&target))
        .memory
        .postponed;
    assert_eq!(
        postponed.map(|postponed| postponed.version),
        Some(version("2"))
    );
    let moved = decision(&binding, &mirrored("1"), Some(&target));
    assert_eq!(written(&moved), Some("1"));
    assert_eq!(moved.memory.postponed, None);
}

#[test]
fn a_postponed_version_is_tried_again_although_the_version_in_its_place_does_not_become_well() {
    let binding = postponed_two(entry("1", Outcome::Live), LONG_AGO);
    let unready = deployment()
        .holding(&binding, &version("1"))
        .counts(1, 1, 0)
        .target();
    assert_eq!(
        written(&decision(&binding, &mirrored("2"), Some(&unready))),
        Some("2")
    );
    let waiting = postponed_two(entry("1", Outcome::Live), LATER);
    let settled = decision(&waiting, &mirrored("2"), Some(&unready));
    assert!(matches!(
        settled.decision,
        Decision::Settled(Course::Rollback(_))
    ));
}

#[test]
fn a_postponed_version_is_checked_when_the_version_in_its_place_fails_too() {
    let binding = postponed_two(entry("1", Outcome::Failed), LATER).with(|binding| {
        status(binding).held_back = Some(HeldBack {
            wanted: version("2"),
            spec_digest: String::new(),
            versions: vec![FailedVersion {
                version: version("1"),
                reason: Reason::CrashLoop.into(),
                message: String::new(),
                since: time(LONG_AGO),
            }],
            shared_fault: None,
        });
    });
    assert_eq!(
        needed(&binding, &mirrored("2"), &ours("1")),
        [check("2", false)]
    );
    assert_eq!(
        written(&decision(&binding, &mirrored("2"), Some(&ours("1")))),
        Some("2")
    );
}

#[test]
fn a_rollout_that_a_person_paused_while_the_version_bakes_is_told() {
    let baking = binding_with([entry("2", Outcome::Baking)]);
    let paused = deployment()
        .holding(&baking, &version("2"))
        .counts(1, 0, 1)
        .changed(&json!({"spec": {"paused": true}}))
        .target();
    let seen = summarized(&baking, &mirrored("2"), &paused, &CheckResults::new());
    let conditions = seen.status.expect("a status").conditions;
    let ready = conditions
        .iter()
        .find(|each| each.type_ == "Ready")
        .expect("Ready");
    assert_eq!(ready.reason, "RollingOut");
    assert!(
        ready.message.contains("kubectl rollout resume"),
        "{}",
        ready.message
    );
}

fn frozen() -> Freeze {
    Freeze {
        place: FreezePlace::Registry {
            namespace: "ml".to_owned(),
            name: "mlflow".to_owned(),
        },
        why: "quarter end, CHG-4711".to_owned(),
    }
}

/// The decision in a freeze, with version 2 wanted and all artifacts readable.
fn decision_in_freeze(binding: &AliasBinding, workload: Option<&Target>) -> Decided {
    decision_on_two(binding, workload, Some(&frozen()), now())
}

fn decision_on_two(
    binding: &AliasBinding,
    workload: Option<&Target>,
    freeze: Option<&Freeze>,
    now: Timestamp,
) -> Decided {
    let readable = [check("1", false), check("2", false), check("1", true)];
    let checks = readable.map(|check| (check, Availability::Readable)).into();
    let resolution = resolve(binding, Some(&mirrored("2")));
    let observed = Observed {
        resolution: &resolution,
        target: workload,
        pods: &[],
        warnings: &Warnings::new(),
        claim: None,
        template_changed: false,
        checks: &checks,
        freeze,
        records_approver: false,
    };
    decide(binding, &observed, now)
}

fn with_retry_handled(binding: AliasBinding, at: &str, alias: &str) -> AliasBinding {
    annotated(binding, names::RETRY_ANNOTATION, "1").with(|binding| {
        let status = status(binding);
        status.last_handled_retry = Some(HandledRequest {
            value: "1".to_owned(),
            at: time(at),
        });
        status.alias = Some(AliasState {
            version: alias.to_owned(),
            since: time(testing::NOW),
        });
    })
}

#[test]
fn people_win_a_freeze_holds_a_version_that_was_never_good() {
    let decided = decision_in_freeze(&after("1"), Some(&ours("1")));
    assert_eq!(left(&decided), Some(Reason::Frozen));
    assert_eq!(decided.overrode, None);
    let Decision::Waiting(Waiting::Gate { problem, .. }) = decided.decision else {
        panic!("{decided:?}")
    };
    assert_eq!(
        problem.message,
        "version 2 waits: ModelRegistry mlflow is frozen: quarter end, CHG-4711; end it: kubectl \
         pointsman unfreeze --registry mlflow -n ml (or remove its spec.freeze)"
    );
}

#[test]
fn people_win_a_freeze_lets_pass_what_people_choose_and_what_was_good() {
    let pinned = after("1").with(|binding| binding.spec.pinned_version = Some("2".into()));
    let retried = annotated(after("1"), names::RETRY_ANNOTATION, "1");
    let later = "2026-11-23T12:00:01Z";
    let rows = [
        ("a pin", pinned, Some(Reason::Frozen)),
        ("a retry", retried, Some(Reason::Frozen)),
        (
            "a retry that no write has followed",
            with_retry_handled(after("1"), later, "2"),
            Some(Reason::Frozen),
        ),
        (
            "a version that was good before",
            binding_with([entry("1", Outcome::Live), entry("2", Outcome::Superseded)]),
            None,
        ),
    ];
    for (row, binding, overrode) in rows {
        let decided = decision_in_freeze(&binding, Some(&ours("1")));
        assert_eq!(written(&decided), Some("2"), "{row}");
        let reason = decided
            .overrode
            .and_then(|overrode| overrode.reason.known());
        assert_eq!(reason, overrode, "{row}");
    }
}

#[test]
fn people_win_an_earlier_retry_is_no_word_about_a_version_that_is_named_since() {
    let earlier = "2026-11-23T11:59:59Z";
    for binding in [
        with_retry_handled(after("1"), earlier, "2"),
        // The alias has moved since the last status.
        with_retry_handled(after("1"), "2026-11-23T12:00:01Z", "1"),
    ] {
        let decided = decision_in_freeze(&binding, Some(&ours("1")));
        assert_eq!(left(&decided), Some(Reason::Frozen));
    }
}

#[test]
fn automatic_rollback_passes_a_freeze() {
    let decided = decision_in_freeze(&failed_two(), Some(&ours("2")));
    assert_eq!(written(&decided), Some("1"));
}

#[test]
fn people_win_a_frozen_binding_is_ready_only_if_a_version_runs() {
    let ready_with = |binding: &AliasBinding, workload: &Target| {
        let decided = decision_in_freeze(binding, Some(workload));
        let applied = Applied {
            target: Some(workload),
            failure: None,
            retrain: None,
        };
        let reconciled = Reconciled {
            resolution: &resolve(binding, Some(&mirrored("2"))),
            checks: &CheckResults::new(),
            decided: &decided,
            applied: &applied,
        };
        let status = summarize(binding, &reconciled, now());
        let conditions = status.conditions.into_iter();
        let told = conditions.filter(|each| each.reason == "Frozen");
        told.map(|each| format!("{}={}", each.type_, each.status))
            .collect::<Vec<_>>()
    };
    let complete = deployment().holding(&binding(), &version("1")).target();
    assert_eq!(ready_with(&after("1"), &complete), ["Ready=True"]);
    assert_eq!(
        ready_with(&binding(), &deployment().target()),
        ["Ready=False", "Reconciling=True"]
    );
}

fn with_window(binding: AliasBinding, schedule: &str) -> AliasBinding {
    let window = json!({"schedule": schedule, "duration": "1h", "timeZone": "Europe/Berlin"});
    let promotion = json!({"windows": [window]});
    binding.with(|binding| {
        binding.spec.promotion = serde_json::from_value(promotion).expect("the rules");
    })
}

#[test]
fn people_win_outside_of_its_windows_a_version_waits_for_the_same_moment_at_each_look() {
    let binding = with_window(after("1"), "0 20 * * *");
    let opening = testing::at("2026-11-23T19:00:00Z");
    for moment in ["2026-11-23T12:00:00Z", "2026-11-23T18:59:59.9Z"] {
        let moment = testing::at(moment);
        let decided = decision_on_two(&binding, Some(&ours("1")), None, moment);
        assert_eq!(decided.look_again, Some(opening));
        let Decision::Waiting(Waiting::Gate { problem, .. }) = decided.decision else {
            panic!("{decided:?}")
        };
        assert_eq!(
            problem.message,
            "version 2 waits: no window of spec.promotion.windows is open; it goes forward at \
             2026-11-23 20:00 +01:00 (Europe/Berlin)"
        );
    }
    let decided = decision_on_two(&binding, Some(&ours("1")), None, opening);
    assert_eq!((written(&decided), decided.look_again), (Some("2"), None));
}

#[test]
fn people_win_the_next_window_is_waited_for_also_while_another_version_is_rolled_back() {
    // Version 2 waits for its window while version 3, which the alias named before, has failed.
    let binding = with_window(
        binding_with([entry("3", Outcome::Failed), entry("1", Outcome::Superseded)]),
        "0 20 * * *",
    )
    .with(|binding| {
        let failed = FailedVersion {
            version: version("3"),
            reason: Reason::CrashLoop.into(),
            message: "crashes".into(),
            since: time(testing::NOW),
        };
        status(binding).held_back = Some(HeldBack {
            wanted: version("2"),
            spec_digest: String::new(),
            versions: vec![failed],
            shared_fault: None,
        });
    });
    let decided = decision_on_two(&binding, Some(&ours("3")), None, now());
    assert_eq!(written(&decided), Some("1"));
    let opening = testing::at("2026-11-23T19:00:00Z");
    assert_eq!(decided.look_again, Some(opening));
}

#[test]
fn people_win_a_window_that_cannot_be_read_is_told_and_hinders_no_rollback() {
    let broken = |binding| with_window(binding, "0 25 * * *");
    let settled = decision_on_two(&broken(running_two()), Some(&ours("2")), None, now());
    assert_eq!(left(&settled), Some(Reason::InvalidSpec));
    let forward = decision_on_two(&broken(after("1")), Some(&ours("1")), None, now());
    assert_eq!(left(&forward), Some(Reason::InvalidSpec));
    let back = decision_on_two(&broken(failed_two()), Some(&ours("2")), None, now());
    assert_eq!(written(&back), Some("1"));
    let was_good = binding_with([entry("1", Outcome::Live), entry("2", Outcome::Superseded)]);
    let moved_back = decision_on_two(&broken(was_good), Some(&ours("1")), None, now());
    assert_eq!(written(&moved_back), Some("2"));
}

/// Version 1 is live, version 2 is wanted, and approvals are needed.
fn with_approval(rules: serde_json::Value) -> AliasBinding {
    after("1").with(|binding| {
        binding.spec.promotion = serde_json::from_value(rules).expect("the rules");
    })
}

/// The decision on version 2 with these details, with the chart's policy.
fn decision_with_details(
    binding: &AliasBinding,
    details: impl FnOnce(&mut ModelVersion),
) -> Decided {
    let model = mirrored("2").with(|model| {
        let status = model.status.as_mut().expect("a status");
        details(&mut status.versions[1]);
    });
    let resolution = resolve(binding, Some(&model));
    let desired = resolution.desired.as_ref().expect("version 2");
    let checks = [(forward_check(desired), Availability::Readable)].into();
    let observed = Observed {
        resolution: &resolution,
        target: Some(&ours("1")),
        pods: &[],
        warnings: &Warnings::new(),
        claim: None,
        template_changed: false,
        checks: &checks,
        freeze: None,
        records_approver: true,
    };
    decide(binding, &observed, now())
}

#[test]
fn people_win_a_version_waits_until_its_own_number_is_approved() {
    let decided = |rules| decision_on_two(&with_approval(rules), Some(&ours("1")), None, now());
    for rules in [
        json!({"approval": "Manual"}),
        json!({"approval": "Manual", "approvedVersion": "1"}),
    ] {
        assert_eq!(left(&decided(rules)), Some(Reason::AwaitingApproval));
    }
    for rules in [
        json!({"approval": "Manual", "approvedVersion": "2"}),
        json!({"approvedVersion": "1"}),
    ] {
        assert_eq!(written(&decided(rules)), Some("2"));
    }
}

#[test]
fn people_win_with_require_different_person_both_must_be_known_and_differ() {
    let rules =
        json!({"approval": "Manual", "approvedVersion": "2", "requireDifferentPerson": true});
    let binding = with_approval(rules);
    let by = |approver: &str| annotated(binding.clone(), names::APPROVED_BY_ANNOTATION, approver);
    let rows = vec![
        (by("ada"), Some("kamal"), None),
        (
            by("oidc:kamal@example.com"),
            Some("kamal"),
            Some("kamal@example.com registered it;"),
        ),
        (
            by("ada"),
            None,
            Some("MLflow does not say who registered it"),
        ),
        (
            by("system:serviceaccount:argocd:controller"),
            Some("kamal"),
            Some("is no person"),
        ),
        (
            binding.clone(),
            Some("kamal"),
            Some("is not known (chart: approvals.recordUser)"),
        ),
    ];
    for (binding, registrar, refusal) in rows {
        let decided = decision_with_details(&binding, |version| {
            version.created_by = registrar.map(str::to_owned);
        });
        let Some(refusal) = refusal else {
            assert_eq!(written(&decided), Some("2"));
            let approval = decided.approval.expect("an approval");
            assert_eq!(approval.approved_by.as_deref(), Some("ada"));
            continue;
        };
        let Decision::Waiting(Waiting::Gate { problem, .. }) = decided.decision else {
            panic!("{decided:?}")
        };
        assert!(problem.message.contains(refusal), "{}", problem.message);
        assert_eq!(problem.reason, Reason::AwaitingApproval);
    }
}

#[test]
fn people_win_an_approval_is_of_no_version_that_is_registered_later_under_its_number() {
    let binding = with_approval(json!({"approval": "Manual", "approvedVersion": "2"}));
    let binding = binding.with(|binding| {
        let managed = json!([{"manager": "kubectl", "operation": "Update", "time": testing::NOW,
            "fieldsV1": {"f:spec": {"f:promotion": {"f:approvedVersion": {}}}}}]);
        binding.metadata.managed_fields = serde_json::from_value(managed).expect("an entry");
    });
    let registered =
        |at: &str| decision_with_details(&binding, |version| version.created_at = Some(time(at)));
    let differing_clocks = registered("2026-11-23T12:00:59Z");
    assert_eq!(written(&differing_clocks), Some("2"));
    let later = registered("2026-11-23T12:01:01Z");
    assert_eq!(left(&later), Some(Reason::AwaitingApproval));
}
