//! Whether the pods of a version that is being rolled out show that it fails.
//!
//! Absent: the troubles of others. Old pods, pods on their way out, lost nodes, evictions and pods that are new because
//! somebody scaled up say nothing about the version.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, PodCondition};

use crate::api::alias_binding::HistoryEntry;
use crate::api::rollback::Rollback;
use crate::api::{Reason, reason::Problem};
use crate::targets::{ContainerStatus, Pod, Workload};

/// How long what may heal by itself is given: a pull that fails, a Secret that comes a little later.
const HEALING_TIME: SignedDuration = SignedDuration::from_secs(30);
/// The progress deadline where the Deployment says nothing.
const DEFAULT_DEADLINE: i64 = 600;

/// What the pods show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Health {
    /// Nothing that speaks against the version.
    Fine,
    /// Something that may heal until then.
    Doubtful(Timestamp),
    /// The version fails, for this reason.
    Failing(Problem),
}

/// What is looked at: the workload, the pods of its newest template, and the entry of the version that they run.
#[derive(Clone, Copy, Debug)]
pub struct Examined<'a> {
    /// The Deployment.
    pub workload: &'a Workload,
    /// The pods of its newest template.
    pub pods: &'a [&'a Pod],
    /// The ledger's entry of the version.
    pub entry: &'a HistoryEntry,
}

/// What the pods of a version show of it.
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
    if let Some(problem) = deadline_exceeded(examined) {
        return Health::Failing(problem);
    }
    doubtful.map_or(Health::Fine, Health::Doubtful)
}

/// A pod that is leaving, was evicted or ended whole says nothing about the version.
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
            return Health::Failing(Problem::new(reason, crash_sentence(pod, container)));
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
        .filter(|_| is_new)
        .find_map(|container| stuck(pod, container));
    stuck.map_or(Health::Fine, |stuck| stuck.judge(pod, now))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// A new pod's restarts all count. A pod that was there before, of a version that is gone back to, must crash in a loop now.
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

/// The kubelet may say that a container ended long before it says that it waits to start it again.
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

/// How the container ended last: a loop's own end is its last state, or, before the kubelet waits, its state.
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

fn crash_sentence(pod: &Pod, container: &ContainerStatus) -> String {
    let end = last_end(container).map_or_else(String::new, |end| {
        let reason = end
            .reason
            .as_deref()
            .filter(|reason| *reason != "Error")
            .map_or_else(String::new, |reason| format!("{reason}, "));
        format!(", last with {reason}exit code {}", end.exit_code)
    });
    let (name, of) = (pod_name(pod), &container.name);
    format!(
        "container {of} of pod {name} crashes: {} restarts{end}; see kubectl logs --previous {name} -c {of}",
        container.restart_count
    )
}

fn pod_name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// A pod that was ready when the rollout was complete, whose containers run as they ran then, and that says no now.
/// A lost node leaves the containers' own word as it was, and a container that restarted is judged by its restarts.
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
            "container {} of pod {} was ready and is not since {lost_at}; see kubectl describe pod {}",
            container.name,
            pod_name(pod),
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

/// A container that cannot begin.
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
    fn judge(self, pod: &Pod, now: Timestamp) -> Health {
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

/// The Deployment's own deadline, for this very rollout: its condition outlives the rollout that it was written for.
fn deadline_exceeded(examined: &Examined<'_>) -> Option<Problem> {
    let workload = examined.workload;
    let condition = workload
        .status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Progressing")?;
    let exceeded =
        condition.reason.as_deref() == Some("ProgressDeadlineExceeded") && workload.is_observed();
    let at = condition
        .last_transition_time
        .as_ref()
        .or(condition.last_update_time.as_ref())?
        .0;
    let deadline = workload
        .spec
        .progress_deadline_seconds
        .map_or(DEFAULT_DEADLINE, i64::from);
    let earliest = examined
        .entry
        .started_at
        .0
        .saturating_add(SignedDuration::from_secs(deadline))
        .ok()?;
    let message = || {
        format!(
            "the Deployment says: {}",
            condition
                .message
                .as_deref()
                .unwrap_or("its progress deadline is exceeded")
        )
    };
    (exceeded && at >= earliest && examined.entry.available_at.is_none())
        .then(|| Problem::new(Reason::ProgressDeadlineExceeded, message()))
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
