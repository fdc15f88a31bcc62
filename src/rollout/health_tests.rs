//! The signs of a failed version, row by row, and the signs that are none.
//!
//! Absent: a kubelet. Real pods are in tests/node.

use serde_json::{Value, json};

use k8s_openapi::api::apps::v1::Deployment;

use super::*;
use crate::targets::Workload;

const BEFORE: &str = "2026-11-23T11:00:00Z";
const STARTED: &str = "2026-11-23T12:00:00Z";
const AVAILABLE: &str = "2026-11-23T12:00:10Z";
const LATER: &str = "2026-11-23T12:00:20Z";
const NOW: &str = "2026-11-23T12:00:25Z";

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn entry(available: bool) -> HistoryEntry {
    serde_json::from_value(
        json!({"version": "2", "outcome": "RollingOut", "reason": "RollingOut", "startedAt": STARTED,
        "availableAt": available.then_some(AVAILABLE), "trigger": "AliasMove"}),
    )
    .expect("an entry")
}

fn pod(created: &str, status: Value) -> Pod {
    let mut whole =
        json!({"metadata": {"name": "server-1", "creationTimestamp": created}, "status": status});
    if whole["status"].get("startTime").is_none() {
        whole["status"]["startTime"] = json!(created);
    }
    serde_json::from_value(whole).expect("a pod")
}

fn crashing(created: &str, restarts: i32, state: Value) -> Pod {
    pod(
        created,
        json!({"phase": "Running", "containerStatuses": [{"name": "server", "ready": false, "restartCount": restarts,
        "state": state, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": LATER}}}]}),
    )
}

fn in_loop() -> Value {
    json!({"waiting": {"reason": "CrashLoopBackOff"}})
}

fn running() -> Value {
    json!({"running": {"startedAt": STARTED}})
}

fn waiting(reason: &str) -> Pod {
    pod(
        STARTED,
        json!({"phase": "Pending", "containerStatuses": [{"name": "server", "state": {"waiting": {"reason": reason, "message": "told"}}}]}),
    )
}

fn unready(created: &str, container_ready: bool, container_since: &str, ready_since: &str) -> Pod {
    pod(
        created,
        json!({"phase": "Running",
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": ready_since}],
        "containerStatuses": [{"name": "server", "ready": container_ready, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": container_since}}}]}),
    )
}

fn seen_at(pod: &Pod, available: bool, now: &str) -> Health {
    let target = Target::from(Workload::<Deployment>::default());
    let entry = entry(available);
    health(
        &Examined {
            target: &target,
            pods: &[pod],
            entry: &entry,
        },
        &Rollback::default(),
        time(now),
    )
}

fn seen(pod: &Pod) -> Health {
    seen_at(pod, false, NOW)
}

fn reason(health: &Health) -> Option<Reason> {
    match health {
        Health::Failing(problem) => Some(problem.reason),
        Health::Fine | Health::Doubtful(_) => None,
    }
}

#[test]
fn automatic_rollback_a_crash_loop_fails_at_the_limit_and_says_how_it_ended() {
    let Health::Failing(problem) = seen(&crashing(STARTED, 3, in_loop())) else {
        panic!("not failing")
    };
    assert_eq!(problem.reason, Reason::CrashLoop);
    assert!(
        problem
            .message
            .contains("3 restarts, exit code 137, OOMKilled"),
        "{}",
        problem.message
    );
}

#[test]
fn automatic_rollback_too_many_restarts_fail_while_the_container_runs() {
    assert_eq!(
        reason(&seen(&crashing(STARTED, 4, running()))),
        Some(Reason::CrashLoop)
    );
}

#[test]
fn automatic_rollback_counts_a_crash_before_the_kubelet_reports_the_wait() {
    let ended = |code: i32| json!({"terminated": {"exitCode": code, "finishedAt": LATER}});
    assert_eq!(
        reason(&seen(&crashing(STARTED, 3, ended(1)))),
        Some(Reason::CrashLoop)
    );
    assert_eq!(seen(&crashing(STARTED, 3, ended(0))), Health::Fine);
    assert_eq!(seen(&crashing(STARTED, 2, ended(1))), Health::Fine);
}

#[test]
fn fewer_restarts_than_allowed_do_not_fail() {
    assert_eq!(seen(&crashing(STARTED, 2, in_loop())), Health::Fine);
    assert_eq!(seen(&crashing(STARTED, 3, running())), Health::Fine);
}

#[test]
fn automatic_rollback_ignores_restarts_from_before_the_rollback() {
    let mut old = crashing(BEFORE, 9, running());
    assert_eq!(seen(&old), Health::Fine);
    old = crashing(BEFORE, 9, in_loop());
    assert_eq!(reason(&seen(&old)), Some(Reason::CrashLoop));
}

#[test]
fn automatic_rollback_an_image_that_cannot_be_pulled_may_heal_for_a_while() {
    let stuck = waiting("ImagePullBackOff");
    assert_eq!(
        seen_at(&stuck, false, NOW),
        Health::Doubtful(time("2026-11-23T12:00:30Z"))
    );
    assert_eq!(
        reason(&seen_at(&stuck, false, "2026-11-23T12:00:30Z")),
        Some(Reason::ImageUnavailable)
    );
}

#[test]
fn automatic_rollback_a_name_that_is_no_image_fails_at_once() {
    assert_eq!(
        reason(&seen(&waiting("InvalidImageName"))),
        Some(Reason::ImageUnavailable)
    );
}

#[test]
fn automatic_rollback_a_configuration_that_stays_wrong_fails() {
    assert_eq!(
        reason(&seen_at(
            &waiting("CreateContainerConfigError"),
            false,
            "2026-11-23T12:01:00Z"
        )),
        Some(Reason::ContainerNotCreated)
    );
}

#[test]
fn automatic_rollback_an_init_container_that_crashes_fails() {
    let init = pod(
        STARTED,
        json!({"phase": "Pending", "initContainerStatuses": [
        {"name": "fetch", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
    );
    assert_eq!(reason(&seen(&init)), Some(Reason::InitFailed));
}

#[test]
fn automatic_rollback_readiness_lost_while_baking_fails() {
    assert_eq!(
        reason(&seen_at(
            &unready(STARTED, false, STARTED, LATER),
            true,
            NOW
        )),
        Some(Reason::ReadinessLost)
    );
}

#[test]
fn a_pod_that_is_not_ready_yet_has_lost_nothing() {
    assert_eq!(
        seen_at(&unready(STARTED, false, STARTED, STARTED), false, NOW),
        Health::Fine
    );
}

#[test]
fn a_lost_node_is_not_a_bad_version() {
    assert_eq!(
        seen_at(&unready(STARTED, true, STARTED, LATER), true, NOW),
        Health::Fine
    );
}

#[test]
fn a_pod_that_came_by_scaling_up_has_lost_nothing() {
    assert_eq!(
        seen_at(&unready(LATER, false, LATER, LATER), true, NOW),
        Health::Fine
    );
}

#[test]
fn a_container_that_restarted_is_assessed_by_its_restarts() {
    assert_eq!(
        seen_at(&unready(STARTED, false, LATER, LATER), true, NOW),
        Health::Fine
    );
}

#[test]
fn an_evicted_a_leaving_and_a_disrupted_pod_say_nothing() {
    let mut leaving = crashing(STARTED, 9, in_loop());
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    let mut evicted = crashing(STARTED, 9, in_loop());
    evicted.status.phase = Some("Failed".into());
    let mut disrupted = crashing(STARTED, 9, in_loop());
    disrupted.status.conditions =
        serde_json::from_value(json!([{"type": "DisruptionTarget", "status": "True"}]))
            .expect("conditions");
    for pod in [leaving, evicted, disrupted] {
        assert_eq!(seen(&pod), Health::Fine);
    }
}

fn late(at: &str, available: bool) -> Health {
    let workload: Workload<Deployment> = serde_json::from_value(json!({"metadata": {"generation": 2}, "spec": {"progressDeadlineSeconds": 10},
        "status": {"observedGeneration": 2, "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
            "message": "timed out", "lastTransitionTime": at}]}}))
    .expect("a workload");
    let target = Target::from(workload);
    let entry = entry(available);
    health(
        &Examined {
            target: &target,
            pods: &[],
            entry: &entry,
        },
        &Rollback::default(),
        time(NOW),
    )
}

#[test]
fn automatic_rollback_an_exceeded_deadline_fails_in_the_deployments_words() {
    let Health::Failing(problem) = late("2026-11-23T12:00:10Z", false) else {
        panic!("not failing")
    };
    assert_eq!(
        (problem.reason, problem.message.as_str()),
        (
            Reason::ProgressDeadlineExceeded,
            "the Deployment says: timed out"
        )
    );
}

#[test]
fn a_deadline_that_an_earlier_rollout_exceeded_is_not_this_ones() {
    assert_eq!(late(STARTED, false), Health::Fine);
}
