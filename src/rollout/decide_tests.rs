//! The decision, row by row; the name of a test begins with the rule that it shows (docs/rules.md).
//!
//! Absent: a cluster. What Kubernetes does with a decision is shown by the scenarios.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::*;
use crate::api::Availability;
use crate::api::RegisteredModel;
use crate::rollout::{
    Applied, ArtifactCheck, CheckResults, Reconciled, needed_checks, resolve, summarize,
};
use crate::targets::{Pod, Workload};

const NOW: &str = "2026-11-23T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

fn binding(spec: Value, status: Value) -> AliasBinding {
    let mut whole = json!({"modelRef": {"name": "nyc-taxi"}, "alias": "champion", "targetRef": {"name": "server"}});
    for (key, value) in spec.as_object().expect("an object") {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
        "metadata": {"name": "taxi", "namespace": "ml"}, "spec": whole, "status": status}))
    .expect("a binding")
}

fn plain() -> AliasBinding {
    binding(json!({}), json!({}))
}

fn model(champion: Option<&str>, ready: (&str, &str)) -> RegisteredModel {
    let aliases: Vec<Value> = champion
        .iter()
        .map(|version| json!({"name": "champion", "version": version, "since": NOW}))
        .collect();
    let version = |number: &str| json!({"version": number, "artifactURI": format!("s3://m/{number}"), "runID": format!("r{number}")});
    serde_json::from_value(json!({
        "apiVersion": "pointsman.dev/v1alpha1", "kind": "RegisteredModel", "metadata": {"name": "nyc-taxi"},
        "spec": {"registryRef": {"name": "mlflow"}},
        "status": {"aliases": aliases, "versions": [version("1"), version("2"), {"version": "3", "problem": "its run is gone"}],
            "trackingURI": "http://mlflow", "conditions": [{"type": "Ready", "status": ready.0, "reason": ready.1,
            "message": "told", "lastTransitionTime": NOW}]}}))
    .expect("a model")
}

fn mirrored(champion: &str) -> RegisteredModel {
    model(Some(champion), ("True", "Mirrored"))
}

/// A Deployment that holds a version, written by a manager; every other field as a user would write it.
fn workload(version: Option<&str>, manager: &str, extra_env: Value) -> Target {
    let mut env = extra_env.as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> = env
        .iter()
        .filter_map(|each| each["name"].as_str().map(str::to_owned))
        .collect();
    let mut template = json!({"labels": {"pointsman.dev/binding": "taxi"}, "annotations": {}});
    let mut annotations = json!({});
    if let Some(version) = version {
        let uri = format!("s3://m/{version}");
        let (run, full) = (format!("r{version}"), format!("models:/nyc-taxi/{version}"));
        let ours = [
            ("MODEL_NAME", "nyc-taxi"),
            ("MODEL_VERSION", version),
            ("MODEL_ALIAS", "champion"),
            ("MODEL_URI", &uri),
            ("MODEL_RUN_ID", &run),
            ("MLFLOW_MODEL_URI", &full),
            ("MLFLOW_TRACKING_URI", "http://mlflow"),
        ];
        env.extend(
            ours.iter()
                .map(|(name, value)| json!({"name": name, "value": value})),
        );
        names.extend(ours.iter().map(|(name, _)| (*name).to_owned()));
        template["annotations"] = json!({"pointsman.dev/model-version": version});
        annotations =
            json!({"kubernetes.io/change-cause": format!("nyc-taxi version {version} (champion)")});
    }
    let owned: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| (format!("k:{{\"name\":\"{name}\"}}"), json!({"f:value": {}})))
        .collect();
    let mut fields = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"server\"}": {"f:env": owned}}}}}});
    if version.is_some() {
        fields["f:spec"]["f:template"]["f:metadata"] =
            json!({"f:annotations": {"f:pointsman.dev/model-version": {}}});
    }
    let workload: Workload<Deployment> = serde_json::from_value(json!({
        "metadata": {"name": "server", "resourceVersion": "1", "annotations": annotations, "labels": {"pointsman.dev/binding": "taxi"},
            "managedFields": [{"manager": manager, "operation": "Apply", "time": NOW, "fieldsV1": fields}]},
        "spec": {"template": {"metadata": template, "spec": {"containers": [{"name": "server", "env": env}]}}}}))
    .expect("a workload");
    workload.with_owners().into()
}

fn ours(version: &str) -> Target {
    workload(Some(version), "pointsman", json!([]))
}

fn decision(binding: &AliasBinding, model: &RegisteredModel, workload: Option<&Target>) -> Decided {
    let readable = ["1", "2"].map(|version| (asked(version, false), Availability::Readable));
    decision_with(
        binding,
        model,
        workload,
        &[],
        &readable.into_iter().chain(other_artifact()).collect(),
    )
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
        claim: None,
        template_changed: false,
        checks,
    };
    decide(binding, &observed, now())
}

fn asked(version: &str, must_exist: bool) -> ArtifactCheck {
    ArtifactCheck {
        model: "nyc-taxi".into(),
        version: version.into(),
        artifact_uri: format!("s3://m/{version}"),
        must_exist,
    }
}

fn other_artifact() -> CheckResults {
    let check = ArtifactCheck {
        artifact_uri: "s3://other/1".into(),
        ..asked("1", false)
    };
    CheckResults::from([(check, Availability::Readable)])
}

fn crash_loop() -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "server-1", "creationTimestamp": NOW}, "status": {"phase": "Running",
        "containerStatuses": [{"name": "server", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}))
    .expect("a pod")
}

fn entry(version: &str, outcome: &str, live: bool, finished: bool) -> Value {
    json!({"model": "nyc-taxi", "version": version, "artifactURI": format!("s3://m/{version}"), "outcome": outcome, "reason": "RollingOut", "startedAt": NOW,
        "liveAt": live.then_some(NOW), "finishedAt": finished.then_some(NOW), "trigger": "AliasMove"})
}

/// Version 2 rolls out after version 1 was good.
fn two_after_one() -> Value {
    json!({"history": [entry("2", "RollingOut", false, false), entry("1", "Superseded", true, true)]})
}

/// The binding after version 2 failed, as the status remembers it.
fn failed_two(spec: Value) -> AliasBinding {
    let mut binding = binding(spec, two_after_one());
    let pod = crash_loop();
    let decision = decision_with(
        &binding,
        &mirrored("2"),
        Some(&ours("2")),
        &[&pod],
        &CheckResults::new(),
    );
    let status = binding.status.as_mut().expect("a status");
    status.held_back = decision.memory.held_back;
    (status.history[0].outcome, status.wanted) = (
        crate::api::alias_binding::Outcome::Failed.into(),
        Some("2".into()),
    );
    binding
}

fn rollback_checks(answer: Availability) -> CheckResults {
    CheckResults::from([(asked("1", true), answer)])
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
        claim: None,
        template_changed: false,
        checks: &CheckResults::new(),
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
        | Decision::RecordFailure(problem)
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

fn after(version: &str) -> Value {
    json!({"history": [{"model": "nyc-taxi", "version": version, "artifactURI": format!("s3://m/{version}"), "outcome": "Live", "reason": "Live",
        "startedAt": NOW, "trigger": "AliasMove"}]})
}

#[test]
fn resolve_once_the_alias_resolves_to_one_version_with_its_artifact() {
    let decision = decision(&plain(), &mirrored("2"), Some(&ours("1")));
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
        written(&decision(&plain(), &made_again, Some(&ours("1")))),
        Some("1")
    );
}

#[test]
fn level_triggered_a_workload_that_is_as_wanted_is_settled() {
    assert_eq!(
        decision(&plain(), &mirrored("2"), Some(&ours("2"))).decision,
        Decision::Settled(Course::Forward)
    );
}

#[test]
fn fail_static_an_unresolved_version_leaves_the_workload_alone() {
    let rows = [
        (model(None, ("True", "Mirrored")), Reason::AliasNotFound),
        (mirrored("9"), Reason::VersionNotFound),
        (mirrored("3"), Reason::ArtifactUnavailable),
        (
            model(Some("2"), ("False", "ModelNotFound")),
            Reason::ModelNotFound,
        ),
        (
            model(Some("2"), ("False", "RegistryUnreachable")),
            Reason::RegistryUnreachable,
        ),
        (
            model(Some("2"), ("False", "RegistryRefused")),
            Reason::RegistryRefused,
        ),
        (
            model(Some("2"), ("False", "CredentialsNotFound")),
            Reason::CredentialsNotFound,
        ),
    ];
    for (model, reason) in rows {
        assert_eq!(
            left(&decision(&plain(), &model, Some(&ours("1")))),
            Some(reason)
        );
    }
}

#[test]
fn fail_static_an_outage_settles_the_running_version() {
    let outage = model(Some("2"), ("False", "RegistryUnreachable"));
    assert_eq!(
        decision(&plain(), &outage, Some(&ours("2"))).decision,
        Decision::Settled(Course::Forward)
    );
}

#[test]
fn fast_rollback_is_as_direct_as_forward() {
    let status = after("2");
    assert_eq!(
        written(&decision(
            &binding(json!({}), status),
            &mirrored("1"),
            Some(&ours("2"))
        )),
        Some("1")
    );
}

#[test]
fn people_win_a_persons_undo_is_held_and_remembered() {
    let undone = workload(Some("1"), "kubectl", json!([]));
    let decision = decision(
        &binding(json!({}), after("2")),
        &mirrored("2"),
        Some(&undone),
    );
    assert_eq!(left(&decision), Some(Reason::Held));
    let hold = decision.memory.hold.expect("a hold");
    assert_eq!(
        (hold.wanted.number(), hold.manager.as_str()),
        ("2", "kubectl")
    );
}

#[test]
fn people_win_a_hold_ends_when_the_alias_moves() {
    let undone = workload(Some("1"), "kubectl", json!([]));
    let mut status = after("1");
    status["hold"] = json!({"wanted": {"version": "9", "artifactURI": "s3://m/9"}, "manager": "kubectl", "since": NOW});
    let decision = decision(&binding(json!({}), status), &mirrored("2"), Some(&undone));
    assert_eq!(
        (written(&decision), decision.memory.hold.clone()),
        (Some("2"), None)
    );
}

#[test]
fn people_win_an_old_hold_against_another_version_hides_no_new_undo() {
    let undone = workload(Some("1"), "kubectl", json!([]));
    let mut status = after("2");
    status["hold"] = json!({"wanted": {"version": "9", "artifactURI": "s3://m/9"}, "manager": "kubectl", "since": NOW});
    let decision = decision(&binding(json!({}), status), &mirrored("2"), Some(&undone));
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
    let undone = workload(Some("1"), "kubectl", json!([]));
    let mut binding = binding(json!({}), after("2"));
    binding.metadata.annotations = Some(
        [(
            "pointsman.dev/resume-requested-at".to_owned(),
            "1".to_owned(),
        )]
        .into(),
    );
    assert_eq!(
        written(&decision(&binding, &mirrored("2"), Some(&undone))),
        Some("2")
    );
}

#[test]
fn people_win_an_undo_while_nothing_can_be_resolved_is_held_when_the_alias_is_back() {
    let running_two =
        json!({"history": [entry("2", "Live", true, false), entry("1", "Superseded", true, true)]});
    for lost in [
        model(None, ("True", "Mirrored")),
        model(Some("2"), ("False", "ModelNotFound")),
    ] {
        for undone in [
            workload(Some("1"), "kubectl", json!([])),
            workload(None, "kubectl-client-side-apply", json!([])),
        ] {
            let seen = summarized(
                &binding(json!({}), running_two.clone()),
                &lost,
                &undone,
                &CheckResults::new(),
            );
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
    let running_two =
        json!({"history": [entry("2", "Live", true, false), entry("1", "Superseded", true, true)]});
    let undone = workload(Some("1"), "kubectl", json!([]));
    let suspended = binding(json!({"suspend": true}), running_two);
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
    let undone = workload(None, "kubectl-client-side-apply", json!([]));
    let mut binding = binding(json!({}), after("2"));
    binding.status.as_mut().expect("a status").hold =
        decision(&binding, &mirrored("2"), Some(&undone))
            .memory
            .hold;
    binding.metadata.annotations = Some(
        [(
            "pointsman.dev/resume-requested-at".to_owned(),
            "1".to_owned(),
        )]
        .into(),
    );
    let waiting = summarized(&binding, &mirrored("2"), &undone, &CheckResults::new());
    assert_eq!(
        written(&decision(&waiting, &mirrored("2"), Some(&undone))),
        Some("2")
    );
    let outage = model(None, ("True", "Mirrored"));
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

#[test]
fn people_win_a_pin_decides_whatever_the_alias_says_and_whether_or_not_the_registry_answers() {
    let pinned = binding(json!({"pinnedVersion": "1"}), after("2"));
    assert_eq!(
        written(&decision(&pinned, &mirrored("2"), Some(&ours("2")))),
        Some("1")
    );
    let outage = model(Some("2"), ("False", "RegistryUnreachable"));
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
    let pinned = binding(json!({"pinnedVersion": "1"}), after("1"));
    assert_eq!(
        written(&decision(&pinned, &forgotten, Some(&ours("2")))),
        Some("1")
    );
}

#[test]
fn people_win_suspended_means_untouched() {
    let suspended = binding(json!({"suspend": true}), json!({}));
    assert_eq!(
        left(&decision(&suspended, &mirrored("2"), Some(&ours("1")))),
        Some(Reason::Suspended)
    );
}

#[test]
fn gitops_in_peace_a_variable_of_another_manager_is_never_overwritten() {
    let theirs = workload(
        None,
        "kubectl-client-side-apply",
        json!([{"name": "MODEL_URI", "value": "mine"}]),
    );
    let decision = decision(&plain(), &mirrored("2"), Some(&theirs));
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
    let theirs = workload(
        None,
        "argocd",
        json!([{"name": "MLFLOW_TRACKING_URI", "value": "mine"}]),
    );
    assert_eq!(
        written(&decision(&plain(), &mirrored("2"), Some(&theirs))),
        Some("2")
    );
}

#[test]
fn a_wiped_injection_is_written_again() {
    let mut replaced = workload(None, "kubectl-replace", json!([]));
    replaced.metadata.labels = None;
    assert_eq!(
        written(&decision(
            &binding(json!({}), after("2")),
            &mirrored("2"),
            Some(&replaced)
        )),
        Some("2")
    );
}

#[test]
fn fail_static_a_workload_that_was_deleted_or_replaced_gets_back_the_version_that_ran() {
    let template = json!({"targetRef": null, "template": {"spec": {"template": {"spec": {"containers": [{"name": "server"}]}}}}});
    let mut replaced = workload(None, "kubectl-replace", json!([]));
    replaced.metadata.labels = None;
    let rows = [
        (binding(json!({}), after("1")), Some(&replaced)),
        (binding(template, after("1")), None),
    ];
    let nothing_goes_forward = [
        model(Some("2"), ("False", "RegistryUnreachable")),
        model(Some("1"), ("False", "RegistryUnreachable")),
        model(None, ("True", "Mirrored")),
        model(Some("2"), ("False", "ModelNotFound")),
        mirrored("9"),
    ];
    for (binding, target) in &rows {
        for model in &nothing_goes_forward {
            let decided = decision(binding, model, *target);
            assert_eq!(written(&decided), Some("1"), "{decided:?}");
        }
    }
    let mut failed = binding(json!({}), after("1"));
    let status = failed.status.as_mut().expect("a status");
    status.history[0].outcome = crate::api::alias_binding::Outcome::Failed.into();
    let decided = decision(&failed, &nothing_goes_forward[0], Some(&replaced));
    assert_eq!(left(&decided), Some(Reason::RegistryUnreachable));
}

#[test]
fn resolve_once_a_pinned_version_is_never_taken_from_the_history_of_another_model() {
    let status = json!({"history": [{"model": "other", "version": "9", "artifactURI": "s3://other/9", "outcome": "Live",
        "reason": "Live", "startedAt": NOW, "trigger": "AliasMove"}]});
    let pinned = binding(json!({"pinnedVersion": "9"}), status);
    let decided = decision(&pinned, &mirrored("1"), Some(&ours("1")));
    assert_eq!(left(&decided), Some(Reason::VersionNotFound));
}

#[test]
fn people_win_an_undo_to_before_the_first_version_is_held() {
    let undone = workload(None, "kubectl-client-side-apply", json!([]));
    assert_eq!(
        left(&decision(
            &binding(json!({}), after("2")),
            &mirrored("2"),
            Some(&undone)
        )),
        Some(Reason::Held)
    );
}

#[test]
fn a_missing_target_is_reported_and_a_templates_workload_is_created() {
    assert_eq!(
        left(&decision(&plain(), &mirrored("2"), None)),
        Some(Reason::TargetNotFound)
    );
    let template = json!({"targetRef": null, "template": {"spec": {"template": {"spec": {"containers": [{"name": "server"}]}}}}});
    assert_eq!(
        written(&decision(
            &binding(template, json!({})),
            &mirrored("2"),
            None
        )),
        Some("2")
    );
}

#[test]
fn a_container_that_is_not_there_is_an_invalid_spec() {
    let wrong = binding(json!({"inject": {"containers": ["srv"]}}), json!({}));
    assert_eq!(
        left(&decision(&wrong, &mirrored("2"), Some(&ours("1")))),
        Some(Reason::InvalidSpec)
    );
}

#[test]
fn automatic_rollback_records_a_failure_before_it_acts() {
    let pod = crash_loop();
    let binding = binding(json!({}), two_after_one());
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
            matches!(decision.decision, Decision::RecordFailure(_))
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
            &failed_two(json!({})),
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
        needed(&failed_two(json!({})), &mirrored("2"), &ours("2")),
        [asked("1", true)]
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
    for reason in ["RegistryUnreachable", "ModelNotFound"] {
        let outage = model(Some("2"), ("False", reason));
        let decision = decision_with(
            &failed_two(json!({})),
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
    let mut binding = failed_two(json!({}));
    binding.status.as_mut().expect("a status").last_good = serde_json::from_value(
        json!({"model": "nyc-taxi", "version": "1", "artifactURI": "s3://m/1", "lineage": {"code": {"repository": "https://git.example/taxi", "commit": "abc"}}}))
    .expect("a version");
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
    let binding = binding(
        json!({"rollback": {"onFailure": "Report"}}),
        two_after_one(),
    );
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
            .map(|answer| (asked("2", false), answer))
            .into_iter()
            .collect();
        decision_with(
            &binding(json!({}), after("1")),
            &mirrored("2"),
            Some(&ours("1")),
            &[],
            &checks,
        )
    };
    assert_eq!(left(&go(None)), Some(Reason::Pending));
    assert_eq!(
        needed(&binding(json!({}), after("1")), &mirrored("2"), &ours("1")),
        [asked("2", false)]
    );
    for answer in [
        Availability::Missing("gone".into()),
        Availability::Unknown("away".into()),
    ] {
        assert_eq!(left(&go(Some(answer))), Some(Reason::ArtifactUnavailable));
    }
    for answer in [
        Availability::Readable,
        Availability::Unchecked("no credentials".into()),
    ] {
        assert_eq!(written(&go(Some(answer))), Some("2"));
    }
}

#[test]
fn fast_rollback_of_a_version_that_was_good_waits_for_no_store() {
    let back = binding(
        json!({}),
        json!({"history": [entry("2", "Live", true, false), entry("1", "Superseded", true, true)]}),
    );
    let checks = CheckResults::from([(asked("1", false), Availability::Unknown("away".into()))]);
    assert_eq!(
        written(&decision_with(
            &back,
            &mirrored("1"),
            Some(&ours("2")),
            &[],
            &checks
        )),
        Some("1")
    );
}

/// The binding after it went back from version 2 to version 1.
fn gone_back(spec: Value) -> AliasBinding {
    let mut binding = failed_two(spec);
    let status = binding.status.as_mut().expect("a status");
    status.history[0].outcome = crate::api::alias_binding::Outcome::RolledBack.into();
    status.history[0].finished_at = Some(Time(now()));
    let one: crate::api::alias_binding::HistoryEntry =
        serde_json::from_value(entry("1", "Live", true, false)).expect("an entry");
    status.history.insert(0, one);
    binding
}

#[test]
fn no_loops_a_failed_version_is_held_back_while_the_alias_names_it() {
    let decision = decision(&gone_back(json!({})), &mirrored("2"), Some(&ours("1")));
    assert!(matches!(decision.decision, Decision::Settled(_)));
    assert_eq!(rollback_reason(&decision), Some(Reason::RolledBack));
}

#[test]
fn no_loops_a_failed_version_is_retried_when_the_alias_returns() {
    let away = decision(&gone_back(json!({})), &mirrored("1"), Some(&ours("1")));
    assert_eq!(
        (away.decision, away.memory.held_back),
        (Decision::Settled(Course::Forward), None)
    );
    let mut binding = gone_back(json!({}));
    binding.status.as_mut().expect("a status").held_back = None;
    assert_eq!(
        written(&decision(&binding, &mirrored("2"), Some(&ours("1")))),
        Some("2")
    );
}

#[test]
fn no_loops_a_failed_version_is_retried_when_a_spec_changes() {
    let mut binding = gone_back(json!({}));
    binding.spec.rollback.max_restarts = 9;
    assert_eq!(
        written(&decision(&binding, &mirrored("2"), Some(&ours("1")))),
        Some("2")
    );
    let mut workload = ours("1");
    workload.template.users_digest.push('x');
    assert_eq!(
        written(&decision(
            &gone_back(json!({})),
            &mirrored("2"),
            Some(&workload)
        )),
        Some("2")
    );
}

#[test]
fn no_loops_a_change_beside_the_version_does_not_retry_it() {
    let mut binding = gone_back(json!({}));
    binding.spec.history_limit = 5;
    let settled = decision(&binding, &mirrored("2"), Some(&ours("1")));
    assert!(matches!(
        settled.decision,
        Decision::Settled(Course::Rollback(_))
    ));
}

#[test]
fn no_loops_it_is_tried_again_when_a_person_asks_and_once_only() {
    let mut binding = gone_back(json!({}));
    binding.metadata.annotations = Some(
        [(
            "pointsman.dev/retry-requested-at".to_owned(),
            "1".to_owned(),
        )]
        .into(),
    );
    assert_eq!(
        written(&decision(&binding, &mirrored("2"), Some(&ours("1")))),
        Some("2")
    );
    binding
        .status
        .as_mut()
        .expect("a status")
        .last_handled_retry = Some(crate::api::alias_binding::HandledRequest {
        value: "1".into(),
        at: Time(now()),
    });
    let settled = decision(&binding, &mirrored("2"), Some(&ours("1")));
    assert!(matches!(
        settled.decision,
        Decision::Settled(Course::Rollback(_))
    ));
}

#[test]
fn no_loops_a_retry_that_is_asked_for_while_suspended_is_not_forgotten() {
    let mut binding = gone_back(json!({}));
    binding.spec.suspend = true;
    binding.metadata.annotations = Some(
        [(
            "pointsman.dev/retry-requested-at".to_owned(),
            "1".to_owned(),
        )]
        .into(),
    );
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
    let persons = workload(Some("2"), "kubectl", json!([]));
    let pod = crash_loop();
    let decision = decision_with(
        &gone_back(json!({})),
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
    let mut moved = failed_two(json!({}));
    moved
        .status
        .as_mut()
        .expect("a status")
        .held_back
        .as_mut()
        .expect("held back")
        .wanted
        .id
        .version = "3".into();
    moved
        .status
        .as_mut()
        .expect("a status")
        .held_back
        .as_mut()
        .expect("held back")
        .wanted
        .artifact_uri = None;
    let decision = decision_with(
        &moved,
        &mirrored("3"),
        Some(&ours("2")),
        &[&pod],
        &rollback_checks(Availability::Readable),
    );
    assert_eq!(written(&decision), Some("1"));
}
