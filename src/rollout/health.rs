//! Whether the pods of a version that is being rolled out show that it fails.
//!
//! Absent: faults of others. Old pods, pods that are being deleted, lost nodes, evictions and pods that are new because
//! somebody scaled up say nothing about the version.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, PodCondition};

use crate::api::alias_binding::HistoryEntry;
use crate::api::rollback::Rollback;
use crate::api::{Reason, reason::Problem};
use crate::targets::{ContainerStatus, Deadline, Pod, RolloutState, Target};

/// The time in which a fault may heal by itself: a pull that fails, a Secret that is created a little later.
const HEALING_TIME: SignedDuration = SignedDuration::from_secs(30);

/// The health of a version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Health {
    /// No sign of a failure.
    Fine,
    /// A fault that may heal by itself until then.
    Doubtful(Timestamp),
    /// The version fails, for this reason.
    Failing(Problem),
}

/// The inputs of the health check.
#[derive(Clone, Copy, Debug)]
pub struct Examined<'a> {
    /// The workload.
    pub target: &'a Target,
    /// The pods of its newest template.
    pub pods: &'a [&'a Pod],
    /// The history entry of the version.
    pub entry: &'a HistoryEntry,
}

/// The health of the version that the pods run.
#[must_use]
pub fn health(examined: &Examined<'_>, rollback: &Rollback, now: Timestamp) -> Health {
    let mut doubtful: Option<Timestamp> = None;
    for pod in examined
        .pods
        .iter()
        .filter(|pod| speaks_for_its_version(pod))
    {
        match of_pod(pod, examined.entry, rollback, now) {
            Health::Fine => {}
            Health::Doubtful(until) => {
                doubtful = Some(doubtful.map_or(until, |known| known.min(until)));
            }
            failing @ Health::Failing(_) => return failing,
        }
    }
    match deadline(examined, now) {
        Health::Fine => doubtful.map_or(Health::Fine, Health::Doubtful),
        Health::Doubtful(until) => {
            Health::Doubtful(doubtful.map_or(until, |known| known.min(until)))
        }
        failing @ Health::Failing(_) => failing,
    }
}

/// A pod that is being deleted, was evicted or ended as a whole says nothing about the version.
fn speaks_for_its_version(pod: &Pod) -> bool {
    let ended = matches!(pod.status.phase.as_deref(), Some("Failed" | "Succeeded"));
    let disrupted =
        condition(pod, "DisruptionTarget").is_some_and(|condition| condition.status == "True");
    pod.metadata.deletion_timestamp.is_none() && !ended && !disrupted
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn of_pod(pod: &Pod, entry: &HistoryEntry, rollback: &Rollback, now: Timestamp) -> Health {
    let is_new = created(pod).is_none_or(|created| created >= entry.started_at.0);
    let status = &pod.status;
    let init = status
        .init_container_statuses
        .iter()
        .map(|container| (container, Reason::InitFailed));
    let main = status
        .container_statuses
        .iter()
        .map(|container| (container, Reason::CrashLoop));
    for (container, reason) in init.chain(main) {
        if restarts_too_often(container, rollback.max_restarts, is_new, entry.started_at.0) {
            return Health::Failing(Problem::new(reason, crash_sentence(container)));
        }
    }
    if let Some(problem) = lost_readiness(pod, entry) {
        return Health::Failing(problem);
    }
    let waiting = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses);
    let stuck = waiting
        .filter(|_container| is_new)
        .find_map(|container| stuck(pod, container));
    stuck.map_or(Health::Fine, |stuck| stuck.assess(pod, now))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// All restarts of a new pod count. A pod that is older than the rollout, after a rollback, must crash in a loop now.
fn restarts_too_often(
    container: &ContainerStatus,
    most: i32,
    is_new: bool,
    started_at: Timestamp,
) -> bool {
    let in_loop =
        waiting_reason(container) == Some("CrashLoopBackOff") || has_just_crashed(container);
    let crossed = container.restart_count > most || (in_loop && container.restart_count >= most);
    let crashed_since = last_end(container)
        .and_then(|end| end.finished_at.as_ref())
        .is_some_and(|at| at.0 >= started_at);
    crossed && (is_new || (in_loop && crashed_since))
}

/// The kubelet may report that a container ended long before it reports that it waits to start it again.
fn has_just_crashed(container: &ContainerStatus) -> bool {
    let ended = container
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.exit_code != 0)
}

fn waiting_reason(container: &ContainerStatus) -> Option<&str> {
    container
        .state
        .as_ref()?
        .waiting
        .as_ref()?
        .reason
        .as_deref()
}

/// The container's last end: in its last state, or in its state if the kubelet does not wait yet.
fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let of = |state: &'_ Option<k8s_openapi::api::core::v1::ContainerState>| {
        state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some())
    };
    let state = if of(&container.state) {
        &container.state
    } else {
        &container.last_state
    };
    state.as_ref()?.terminated.as_ref()
}

/// The container's own last words: its pod is deleted by the rollback, so a hint at its log would lead nowhere.
fn crash_sentence(container: &ContainerStatus) -> String {
    let (name, restarts) = (&container.name, container.restart_count);
    let Some(end) = last_end(container) else {
        return format!("container {name} crashes: {restarts} restarts");
    };
    let mut sentence = format!(
        "container {name} crashes: {restarts} restarts, exit code {}",
        end.exit_code
    );
    if let Some(reason) = end.reason.as_deref().filter(|reason| *reason != "Error") {
        sentence = format!("{sentence}, {reason}");
    }
    match end.message.as_deref().map(str::trim) {
        Some(message) if !message.is_empty() => format!("{sentence}: {message}"),
        _ => sentence,
    }
}

fn pod_name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// A pod that was ready when the rollout was complete, whose containers run as they ran then, and that is not ready now.
/// On a lost node the containers' own state stays as it was; a container that restarted is assessed by its restarts.
fn lost_readiness(pod: &Pod, entry: &HistoryEntry) -> Option<Problem> {
    let since = entry.available_at.as_ref()?.0;
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "False")?;
    let lost_at = ready
        .last_transition_time
        .as_ref()
        .map(|time| time.0)
        .filter(|at| *at >= since)?;
    let was_there = created(pod).is_some_and(|created| created <= since);
    let container = pod
        .status
        .container_statuses
        .iter()
        .find(|container| is_unready_as_it_ran(container, since))?;
    was_there.then(|| {
        let message = format!(
            "container {} of pod {} was ready and lost its readiness at {lost_at}",
            container.name,
            pod_name(pod)
        );
        Problem::new(Reason::ReadinessLost, message)
    })
}

fn is_unready_as_it_ran(container: &ContainerStatus, since: Timestamp) -> bool {
    let running = container
        .state
        .as_ref()
        .and_then(|state| state.running.as_ref());
    let ran_then = running
        .and_then(|running| running.started_at.as_ref())
        .is_some_and(|started| started.0 <= since);
    ran_then && container.started != Some(false) && !container.ready
}

/// A container that cannot start.
struct Stuck {
    problem: Problem,
    may_heal: bool,
}

fn stuck(pod: &Pod, container: &ContainerStatus) -> Option<Stuck> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let (reason, may_heal) = match waiting.reason.as_deref()? {
        "ImagePullBackOff" | "ErrImagePull" | "RegistryUnavailable" | "ImageInspectError" => {
            (Reason::ImageUnavailable, true)
        }
        "InvalidImageName" | "ErrImageNeverPull" => (Reason::ImageUnavailable, false),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            (Reason::ContainerNotCreated, true)
        }
        _ => return None,
    };
    let words = waiting
        .message
        .as_deref()
        .or(waiting.reason.as_deref())
        .unwrap_or_default();
    let message = format!(
        "container {} of pod {}: {words}",
        container.name,
        pod_name(pod)
    );
    Some(Stuck {
        problem: Problem::new(reason, message),
        may_heal,
    })
}

impl Stuck {
    fn assess(self, pod: &Pod, now: Timestamp) -> Health {
        let began = pod
            .status
            .start_time
            .as_ref()
            .map(|time| time.0)
            .or_else(|| created(pod))
            .unwrap_or(now);
        let until = began.saturating_add(HEALING_TIME).unwrap_or(now);
        if self.may_heal && now < until {
            Health::Doubtful(until)
        } else {
            Health::Failing(self.problem)
        }
    }
}

/// The deadline for this very rollout. A Deployment's condition outlives the rollout that it was written for, so it counts
/// only if it is younger than this rollout's deadline.
fn deadline(examined: &Examined<'_>, now: Timestamp) -> Health {
    let (target, entry) = (examined.target, examined.entry);
    if entry.available_at.is_some() {
        return Health::Fine;
    }
    let ends = |after: SignedDuration| entry.started_at.0.saturating_add(after).ok();
    match &target.deadline {
        Deadline::Controller { after, exceeded } => {
            let (Some((at, words)), Some(earliest)) = (exceeded, ends(*after)) else {
                return Health::Fine;
            };
            if *at < earliest {
                return Health::Fine;
            }
            late(format!("the {} says: {words}", target.kind))
        }
        Deadline::FromStart(after) => {
            let (Some(end), RolloutState::InProgress(_)) = (ends(*after), &target.rollout) else {
                return Health::Fine;
            };
            if now < end {
                return Health::Doubtful(end);
            }
            late(format!(
                "{} was not ready after {} minutes",
                target.reference(),
                after.as_mins()
            ))
        }
    }
}

fn late(message: String) -> Health {
    Health::Failing(Problem::new(Reason::ProgressDeadlineExceeded, message))
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
