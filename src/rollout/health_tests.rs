//! Each sign with an example, and the borders between them.
//!
//! Absent: a kubelet. Real pods are in tests/node.

use serde_json::{Value, json};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};

use super::*;
use crate::api::alias_binding::TargetKind;
use crate::rollout::signs::Fault;
use crate::targets::{AnyObject, ArgoRollout, Workload};

const BEFORE: &str = "2026-11-23T11:00:00Z";
const STARTED: &str = "2026-11-23T12:00:00Z";
const AVAILABLE: &str = "2026-11-23T12:00:10Z";
const LATER: &str = "2026-11-23T12:00:20Z";
const NOW: &str = "2026-11-23T12:00:25Z";
/// After the progress deadline of a minute.
const LATE: &str = "2026-11-23T12:01:30Z";

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A rollout under observation, with one change at a time.
struct Case {
    target: Target,
    pods: Vec<Pod>,
    warnings: Warnings,
    entry: HistoryEntry,
    chosen: Vec<String>,
    now: &'static str,
}

impl Case {
    fn new(pods: Vec<Pod>) -> Self {
        let entry = json!({"version": "2", "outcome": "RollingOut", "reason": "RollingOut", "startedAt": STARTED,
            "trigger": "AliasMove"});
        Self {
            target: deployment(json!({})),
            pods,
            warnings: Warnings::new(),
            entry: serde_json::from_value(entry).expect("an entry"),
            chosen: vec!["server".to_owned()],
            now: NOW,
        }
    }

    fn at(mut self, now: &'static str) -> Self {
        self.now = now;
        self
    }

    /// The rollout was complete once.
    fn baking(mut self) -> Self {
        let at = serde_json::from_value(json!(AVAILABLE)).expect("a time");
        self.entry.available_at = Some(at);
        self
    }

    fn of(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    fn choosing(mut self, container: &str) -> Self {
        self.chosen = vec![container.to_owned()];
        self
    }

    fn warned(mut self, uid: &str, words: &str) -> Self {
        self.warnings.insert(uid.to_owned(), words.to_owned());
        self
    }

    fn diagnosis(&self) -> Diagnosis {
        let pods: Vec<&Pod> = self.pods.iter().collect();
        let examined = Examined {
            target: &self.target,
            pods: &pods,
            warnings: &self.warnings,
            entry: &self.entry,
            chosen: &self.chosen,
        };
        health(&examined, &Rollback::default(), time(self.now))
    }

    fn sign(&self) -> Option<Sign> {
        match self.diagnosis().health {
            Health::Fine => None,
            Health::Blocked(evidence) | Health::Failing(evidence) => Some(evidence.sign),
        }
    }

    fn message(&self) -> String {
        match self.diagnosis().health {
            Health::Fine => String::new(),
            Health::Blocked(evidence) | Health::Failing(evidence) => evidence.message,
        }
    }
}

fn deployment(status: Value) -> Target {
    let mut status = status;
    status["observedGeneration"] = json!(2);
    let workload: Workload<Deployment> = serde_json::from_value(json!({
        "metadata": {"name": "server", "uid": "w", "generation": 2},
        "spec": {"progressDeadlineSeconds": 60, "replicas": 1, "template": {"spec": {"containers": [
            {"name": "server", "resources": {"limits": {"example.com/gpu": "1"}}}]}}}, "status": status}))
    .expect("a Deployment");
    Target::from(workload)
}

fn stateful_set() -> Target {
    let workload: Workload<StatefulSet> = serde_json::from_value(json!({
        "metadata": {"name": "server", "uid": "w", "generation": 2}, "spec": {"replicas": 1, "template": {}},
        "status": {"observedGeneration": 2}}))
    .expect("a StatefulSet");
    Target::from(workload)
}

/// An Argo Rollout in the middle of an update.
fn argo_rollout(status: Value) -> Target {
    let mut status = status;
    status["observedGeneration"] = json!("2");
    status["currentPodHash"] = json!("new");
    status["stableRS"] = json!("old");
    let workload: Workload<ArgoRollout> = serde_json::from_value(json!({
        "metadata": {"name": "server", "uid": "w", "generation": 2},
        "spec": {"progressDeadlineSeconds": 60, "replicas": 1, "template": {}}, "status": status}))
    .expect("a Rollout");
    Target::from(workload)
}

fn aborted(analysis: &str) -> Target {
    let condition = json!({"type": "Progressing", "status": "False", "reason": "RolloutAborted", "message": "told"});
    let analysis = json!({"currentStepAnalysisRunStatus": {"status": analysis}});
    argo_rollout(json!({"abort": true, "conditions": [condition], "canary": analysis}))
}

fn pod(created: &str, status: Value) -> Pod {
    let mut whole = json!({"metadata": {"name": "server-1", "uid": "p", "creationTimestamp": created}, "status": status});
    if whole["status"].get("startTime").is_none() {
        whole["status"]["startTime"] = json!(created);
    }
    serde_json::from_value(whole).expect("a pod")
}

fn crashing(created: &str, restarts: i32, state: Value) -> Pod {
    ended_as("OOMKilled", created, restarts, state)
}

fn ended_as(reason: &str, created: &str, restarts: i32, state: Value) -> Pod {
    pod(
        created,
        json!({"phase": "Running", "containerStatuses": [{"name": "server", "ready": false, "restartCount": restarts,
        "state": state, "lastState": {"terminated": {"exitCode": 137, "reason": reason, "finishedAt": LATER, "message": "told"}}}]}),
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

/// A pod whose server is as given, beside a container that is not chosen.
fn beside(server_ready: bool, other_ready: bool, other_restarts: i32) -> Pod {
    let ready = if server_ready && other_ready {
        "True"
    } else {
        "False"
    };
    pod(
        STARTED,
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": STARTED}],
        "containerStatuses": [
            {"name": "server", "ready": server_ready, "started": true, "restartCount": 0, "state": running()},
            {"name": "proxy", "ready": other_ready, "started": true, "restartCount": other_restarts,
                "state": if other_ready { running() } else { in_loop() }}]}),
    )
}

fn init_crashing() -> Pod {
    pod(
        STARTED,
        json!({"phase": "Pending", "initContainerStatuses": [
        {"name": "fetch", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
    )
}

fn unschedulable() -> Pod {
    pod(
        STARTED,
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient example.com/gpu.", "lastTransitionTime": STARTED}]}),
    )
}

fn silenced(change: impl FnOnce(&mut Pod)) -> Case {
    let mut pod = crashing(STARTED, 9, in_loop());
    change(&mut pod);
    Case::new(vec![pod])
}

/// An example of each sign.
fn example(sign: Sign) -> Case {
    match sign {
        Sign::ContainerCrashes => Case::new(vec![crashing(STARTED, 3, in_loop())]),
        Sign::InitContainerCrashes => Case::new(vec![init_crashing()]).choosing("fetch"),
        Sign::ReadinessLost => Case::new(vec![unready(STARTED, false, STARTED, LATER)]).baking(),
        Sign::NotReadyInTime => Case::new(vec![unready(STARTED, false, STARTED, STARTED)]).at(LATE),
        Sign::Aborted => Case::new(Vec::new()).of(aborted("Failed")),
        Sign::AbortedUnmeasured => Case::new(Vec::new()).of(aborted("Error")),
        Sign::PodRefused => {
            let refused = json!({"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                "message": "pods \"server-1\" is forbidden: exceeded quota: small"}]});
            Case::new(Vec::new()).of(deployment(refused))
        }
        Sign::Unschedulable => Case::new(vec![unschedulable()]),
        Sign::ContainerCannotStart => Case::new(vec![waiting("ErrImagePull")]),
        Sign::ContainerNeverRan => Case::new(vec![ended_as("StartError", STARTED, 9, in_loop())]),
        Sign::OtherInitContainerFails => Case::new(vec![init_crashing()]),
        Sign::OtherContainerUnready => Case::new(vec![beside(true, false, 5)]).at(LATE),
        Sign::PodWarning => Case::new(vec![waiting("ContainerCreating")])
            .warned("p", "FailedMount: secret \"x\" not found"),
        Sign::WorkloadWarning => {
            let words = "FailedCreate: exceeded quota";
            Case::new(Vec::new()).of(stateful_set()).warned("w", words)
        }
        Sign::PodRejected => silenced(|pod| {
            pod.status.phase = Some("Failed".into());
            pod.status.reason = Some("UnexpectedAdmissionError".into());
        }),
        Sign::NoProgress => Case::new(Vec::new()).at(LATE),
        Sign::OldPodsRemain => Case::new(vec![beside(true, true, 0)]).at(LATE),
        Sign::ObjectNotReady => {
            let condition = json!({"type": "Ready", "status": "False", "message": "told"});
            let object: AnyObject = serde_json::from_value(json!({"metadata": {"name": "server"},
                "status": {"conditions": [condition]}}))
            .expect("an object");
            let kind = TargetKind::of("models.example/v1", "Predictor");
            Case::new(Vec::new())
                .of(object.read(kind, &[]))
                .at("2026-11-23T12:10:30Z")
        }
        Sign::RolloutWaits => {
            let pause = json!({"pauseConditions": [{"reason": "CanaryPauseStep"}]});
            Case::new(Vec::new()).of(argo_rollout(pause)).at(LATE)
        }
        // The pods of other versions are not among those that are examined: see targets::newest_pods.
        Sign::OtherVersion => Case::new(Vec::new()),
        Sign::Leaving => silenced(|pod| {
            pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
        }),
        Sign::Disrupted => silenced(|pod| {
            let disrupted = json!([{"type": "DisruptionTarget", "status": "True"}]);
            pod.status.conditions = serde_json::from_value(disrupted).expect("conditions");
        }),
        Sign::NodeLost => Case::new(vec![ended_as(
            "ContainerStatusUnknown",
            STARTED,
            9,
            running(),
        )]),
        Sign::OtherContainerRestarts => Case::new(vec![beside(true, true, 9)]),
        Sign::NewPodOfScaling => Case::new(vec![unready(LATER, false, LATER, LATER)]).baking(),
    }
}

#[test]
fn every_sign_is_blamed_on_the_party_of_the_table() {
    for sign in Sign::ALL {
        let found = example(*sign).diagnosis().health;
        match (sign.fault(), &found) {
            (Fault::Version(reason), Health::Failing(evidence)) => {
                assert_eq!(evidence.sign, *sign);
                assert_eq!(evidence.clone().problem().reason, reason);
            }
            (Fault::Cluster, Health::Blocked(evidence)) => assert_eq!(evidence.sign, *sign),
            (Fault::Nobody, Health::Fine) => {}
            _ => panic!("{sign:?}: {found:?}"),
        }
    }
}

#[test]
fn an_abort_of_a_rollout_that_was_blocked_blames_no_version() {
    let mut case = example(Sign::Aborted);
    case.target = aborted("");
    assert_eq!(case.sign(), Some(Sign::Aborted));
    assert_eq!(case.message(), "the Rollout says: told");
    case.entry.outcome = Outcome::Blocked.into();
    assert_eq!(case.sign(), Some(Sign::AbortedUnmeasured));
}

#[test]
fn automatic_rollback_a_crash_loop_says_how_the_container_ended() {
    let message = example(Sign::ContainerCrashes).message();
    assert!(
        message.contains("3 restarts, exit code 137, OOMKilled"),
        "{message}"
    );
}

#[test]
fn blocked_rollouts_say_what_one_more_pod_needs() {
    for sign in [Sign::PodRefused, Sign::Unschedulable] {
        let Health::Blocked(evidence) = example(sign).diagnosis().health else {
            panic!("{sign:?} does not block")
        };
        let needs = "the rollout needs one more pod with example.com/gpu: 1";
        assert_eq!(evidence.needs.as_deref(), Some(needs));
    }
}

#[test]
fn blocked_rollouts_are_those_of_a_container_that_never_ran_however_often_it_was_tried() {
    let error = format!("failed to create task: {}: no such file", "x".repeat(200));
    let ended = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": error, "finishedAt": LATER}});
    let mut pod = crashing(STARTED, 9, in_loop());
    pod.status.container_statuses[0].last_state = serde_json::from_value(ended).expect("a state");
    let case = Case::new(vec![pod]).at(LATE);
    assert_eq!(case.sign(), Some(Sign::ContainerNeverRan));
    let message = case.message();
    assert!(message.ends_with("no such file"), "{message}");
}

#[test]
fn blocked_rollouts_are_not_those_of_a_native_sidecar_that_crashes_once() {
    let mut case = example(Sign::OtherInitContainerFails);
    assert_eq!(case.sign(), Some(Sign::OtherInitContainerFails));
    let condition = json!({"type": "Initialized", "status": "True"});
    let condition = serde_json::from_value(condition).expect("a condition");
    case.pods[0].status.conditions = vec![condition];
    assert_ne!(case.sign(), Some(Sign::OtherInitContainerFails));
}

#[test]
fn automatic_rollback_too_many_restarts_fail_while_the_container_runs() {
    let case = Case::new(vec![crashing(STARTED, 4, running())]);
    assert_eq!(case.sign(), Some(Sign::ContainerCrashes));
}

#[test]
fn automatic_rollback_counts_a_crash_before_the_kubelet_reports_the_wait() {
    let ended = |code: i32, restarts| {
        let state = json!({"terminated": {"exitCode": code, "finishedAt": LATER}});
        Case::new(vec![crashing(STARTED, restarts, state)]).sign()
    };
    assert_eq!(ended(1, 3), Some(Sign::ContainerCrashes));
    assert_eq!(ended(0, 3), None);
    assert_eq!(ended(1, 2), None);
}

#[test]
fn fewer_restarts_than_allowed_do_not_fail() {
    let sign = |restarts, state| Case::new(vec![crashing(STARTED, restarts, state)]).sign();
    assert_eq!(sign(2, in_loop()), None);
    assert_eq!(sign(3, running()), None);
}

#[test]
fn automatic_rollback_ignores_restarts_from_before_the_rollback() {
    let sign = |state| Case::new(vec![crashing(BEFORE, 9, state)]).sign();
    assert_eq!(sign(running()), None);
    assert_eq!(sign(in_loop()), Some(Sign::ContainerCrashes));
}

#[test]
fn a_version_that_failed_may_recover_although_it_restarted_often() {
    let mut pod = crashing(STARTED, 9, running());
    pod.status.container_statuses[0].ready = true;
    let mut case = Case::new(vec![pod]);
    assert_eq!(case.sign(), Some(Sign::ContainerCrashes));
    case.entry.outcome = Outcome::Failed.into();
    assert_eq!(case.sign(), None);
}

#[test]
fn every_wait_that_is_not_part_of_a_start_blocks_at_once() {
    let blocking = [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "ReasonOfALaterRelease",
    ];
    for reason in blocking {
        let sign = Case::new(vec![waiting(reason)]).at(STARTED).sign();
        assert_eq!(sign, Some(Sign::ContainerCannotStart), "{reason}");
    }
    for reason in ["ContainerCreating", "PodInitializing"] {
        assert_eq!(Case::new(vec![waiting(reason)]).sign(), None, "{reason}");
    }
}

#[test]
fn a_pod_that_is_scheduled_within_two_seconds_was_never_blocked() {
    let diagnosis = Case::new(vec![unschedulable()]).at(STARTED).diagnosis();
    assert_eq!(diagnosis.health, Health::Fine);
    assert_eq!(diagnosis.look_again, Some(time("2026-11-23T12:00:02Z")));
}

#[test]
fn a_pod_that_was_scheduled_late_has_its_whole_time_to_become_ready() {
    let late_start = Case::new(vec![unready(
        STARTED,
        false,
        "2026-11-23T12:01:00Z",
        STARTED,
    )])
    .at(LATE);
    let diagnosis = late_start.diagnosis();
    assert_eq!(diagnosis.health, Health::Fine);
    assert_eq!(diagnosis.look_again, Some(time("2026-11-23T12:02:00Z")));
}

#[test]
fn a_server_that_is_not_ready_beside_a_broken_sidecar_is_not_blamed() {
    let case = Case::new(vec![beside(false, false, 5)]).at(LATE);
    assert_eq!(case.sign(), Some(Sign::OtherContainerUnready));
    assert!(
        case.message().contains("container proxy"),
        "{}",
        case.message()
    );
}

#[test]
fn a_sidecar_that_restarts_is_not_blamed_on_the_version() {
    for restarts in [0, 5, 90] {
        assert_eq!(Case::new(vec![beside(true, true, restarts)]).sign(), None);
        assert_eq!(Case::new(vec![beside(true, false, restarts)]).sign(), None);
    }
}

#[test]
fn a_pod_that_is_not_ready_yet_has_lost_nothing() {
    let case = Case::new(vec![unready(STARTED, false, STARTED, STARTED)]);
    assert_eq!(case.sign(), None);
}

#[test]
fn a_pod_that_starts_when_the_one_that_it_replaces_is_still_counted_has_lost_nothing() {
    let case = || Case::new(vec![unready(STARTED, false, AVAILABLE, AVAILABLE)]).baking();
    assert_eq!(case().sign(), None);
    assert_eq!(case().at(LATE).sign(), Some(Sign::NotReadyInTime));
}

#[test]
fn a_lost_node_is_not_a_bad_version() {
    let case = Case::new(vec![unready(STARTED, true, STARTED, LATER)]).baking();
    assert_eq!(case.sign(), None);
}

#[test]
fn a_container_that_restarted_is_assessed_by_its_restarts() {
    let case = Case::new(vec![unready(STARTED, false, LATER, LATER)]).baking();
    assert_eq!(case.sign(), None);
}

#[test]
fn a_restart_of_a_chosen_container_is_remembered_and_that_of_a_sidecar_is_not() {
    let mut pod = beside(true, true, 2);
    let chosen = ["server".to_owned()];
    pod.status.conditions.clear();
    assert_eq!(bakes_from(&[&pod], &chosen), None);
    pod.status.container_statuses[0].restart_count = 1;
    assert_eq!(bakes_from(&[&pod], &chosen), Some(time(STARTED)));
}

#[test]
fn a_version_bakes_again_if_all_its_pods_are_replaced() {
    let ready_since = |at: &str| {
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": at}]);
        pod(at, json!({"phase": "Running", "conditions": ready}))
    };
    let (first, second) = (ready_since(AVAILABLE), ready_since(LATER));
    assert_eq!(bakes_from(&[&first, &second], &[]), Some(time(AVAILABLE)));
    assert_eq!(bakes_from(&[&second], &[]), Some(time(LATER)));
}

#[test]
fn readiness_lost_before_the_rollout_was_seen_to_be_complete_counts_at_the_deadline() {
    let before = "2026-11-23T12:00:05Z";
    let lost = || Case::new(vec![unready(STARTED, false, STARTED, before)]).baking();
    assert_eq!(lost().sign(), None);
    assert_eq!(lost().at(LATE).sign(), Some(Sign::NotReadyInTime));
}

#[test]
fn a_pod_that_replaces_another_must_be_ready_before_the_deadline() {
    let replacement = || Case::new(vec![unready(LATER, false, LATER, LATER)]).baking();
    assert_eq!(replacement().sign(), None);
    assert_eq!(replacement().at(LATE).sign(), Some(Sign::NotReadyInTime));
}

#[test]
fn the_deadline_counts_from_the_last_progress() {
    let progressed = json!({"conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable",
        "lastUpdateTime": "2026-11-23T12:01:00Z"}]});
    let case = || Case::new(Vec::new()).of(deployment(progressed.clone()));
    assert_eq!(case().at(LATE).sign(), None);
    assert_eq!(
        case().at("2026-11-23T12:02:00Z").sign(),
        Some(Sign::NoProgress)
    );
}

#[test]
fn a_version_that_recovered_is_not_blamed_for_its_earlier_restarts() {
    let well = crashing(STARTED, 9, running())
        .status
        .container_statuses
        .remove(0);
    let mut pod = pod(STARTED, json!({"phase": "Running"}));
    pod.status.container_statuses = vec![ContainerStatus {
        ready: true,
        ..well
    }];
    assert_eq!(Case::new(vec![pod.clone()]).baking().sign(), None);
    assert_eq!(Case::new(vec![pod]).sign(), Some(Sign::ContainerCrashes));
}

#[test]
fn a_new_pod_on_a_lost_node_blocks_at_the_deadline() {
    let case = Case::new(vec![unready(STARTED, true, STARTED, STARTED)]).at(LATE);
    assert_eq!(case.sign(), Some(Sign::OtherContainerUnready));
    assert!(
        case.message().contains("its node is lost"),
        "{}",
        case.message()
    );
}
