//! Whether the pods of a version that is being rolled out show that it fails, or that its rollout is blocked.
//!
//! Absent: the consequences; those are in `assess`. Every sign and the party to blame: see `signs`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ContainerStateTerminated;

use super::signs::{Evidence, Sign};
use super::timer::Timer;
use crate::api::alias_binding::{HistoryEntry, Outcome};
use crate::api::conditions::shorten;
use crate::api::rollback::Rollback;
use crate::targets::{ContainerStatus, NewestPods, Pod, RolloutState, Target};

/// A pod for which there is room may be unschedulable for this long, until another one is gone.
const SCHEDULING_TIME: SignedDuration = SignedDuration::from_secs(2);
/// Reasons of a waiting container that are part of every start.
const NORMAL_WAITS: [&str; 3] = ["ContainerCreating", "PodInitializing", "CrashLoopBackOff"];
/// Reasons of an end for containers that never ran.
const NEVER_RAN: [&str; 2] = ["StartError", "ContainerCannotRun"];
/// Reasons of an end that the kubelet gives if it cannot know how the container ended.
const UNKNOWN_ENDS: [&str; 2] = ["ContainerStatusUnknown", "Unknown"];

/// How many characters of the begin and the end of a long error of the container runtime are shown.
const RUNTIME_ERROR: (usize, usize) = (25, 55);
/// The longest list of requests in a message, in characters.
const LONGEST_REQUESTS: usize = 60;

/// The newest Warning Event about an object, by its UID.
pub type Warnings = BTreeMap<String, String>;

/// The health of a version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Health {
    /// No sign of a failure.
    Fine,
    /// The rollout cannot go on, and the version is not to blame.
    Blocked(Evidence),
    /// The version fails.
    Failing(Evidence),
}

/// The inputs of the health check.
#[derive(Clone, Copy, Debug)]
pub struct Examined<'a> {
    /// The workload.
    pub target: &'a Target,
    /// The pods of its newest template and its version.
    pub pods: &'a [&'a Pod],
    /// The newest Warning Events about these pods and the workload.
    pub warnings: &'a Warnings,
    /// The history entry of the version.
    pub entry: &'a HistoryEntry,
    /// The containers that the version is injected into.
    pub chosen: &'a [String],
}

/// The health, and when it may be another one although nothing has changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnosis {
    /// The health.
    pub health: Health,
    /// Whether a blocked rollout has made no progress for the time of the workload's deadline.
    pub is_late: bool,
    /// When to examine again.
    pub look_again: Option<Timestamp>,
}

/// The health of the version that the pods run.
#[must_use]
pub fn health(examined: &Examined<'_>, rollback: &Rollback, now: Timestamp) -> Diagnosis {
    let mut timer = Timer::new(now);
    let pods = examined.speaking_pods();
    let health = match examined.version_fault(&pods, rollback, &mut timer) {
        Some(evidence) => Health::Failing(evidence),
        None => match examined.cluster_fault(&pods, &mut timer) {
            Some(evidence) => Health::Blocked(evidence),
            None => Health::Fine,
        },
    };
    let is_blocked = matches!(health, Health::Blocked(_));
    let is_late = is_blocked && examined.is_late(&pods, &mut timer);
    Diagnosis {
        health,
        is_late,
        look_again: timer.next(),
    }
}

/// Since when the pods show that a version is well: when the first of those that are ready became so, or a chosen container was
/// restarted last. If all pods are replaced while the version bakes, the ones that baked say nothing of the new ones.
#[must_use]
pub fn bakes_from(pods: &[&Pod], chosen: &[String]) -> Option<Timestamp> {
    let speaking = pods.iter().filter(|pod| silent(pod).is_none());
    let ready = speaking.clone().filter_map(|pod| ready_since(pod)).min();
    let containers = speaking.flat_map(|pod| &pod.status.container_statuses);
    let restarted = containers.filter(|each| each.restart_count > 0 && chosen.contains(&each.name));
    restarted.filter_map(last_change).chain(ready).max()
}

fn last_change(container: &ContainerStatus) -> Option<Timestamp> {
    container.state.as_ref()?;
    let end = container.last_end();
    let ended = end.and_then(|end| end.finished_at.as_ref());
    container.running_since().or(ended.map(|time| time.0))
}

/// Why a pod says nothing about its version, if it says nothing.
fn silent(pod: &Pod) -> Option<Sign> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(Sign::Leaving);
    }
    if pod.met("DisruptionTarget").is_some() {
        return Some(Sign::Disrupted);
    }
    let has_ended = matches!(pod.status.phase.as_deref(), Some("Failed" | "Succeeded"));
    has_ended.then_some(Sign::PodRejected)
}

impl Examined<'_> {
    /// The pods that say something about the version, oldest first, so that the words stay those of one pod.
    fn speaking_pods(&self) -> Vec<&Pod> {
        let mut pods: Vec<&Pod> = self
            .pods
            .iter()
            .copied()
            .filter(|pod| silent(pod).is_none())
            .collect();
        pods.sort_by_key(|pod| (created(pod), pod.name()));
        pods
    }

    fn version_fault(
        &self,
        pods: &[&Pod],
        rollback: &Rollback,
        timer: &mut Timer,
    ) -> Option<Evidence> {
        let crash = |pod: &&Pod| self.crash(pod, rollback.max_restarts);
        let faults = pods.iter().find_map(crash);
        faults
            .or_else(|| self.aborted(Sign::Aborted, timer))
            .or_else(|| pods.iter().find_map(|pod| self.lost_readiness(pod)))
            .or_else(|| {
                pods.iter()
                    .find_map(|pod| self.not_ready_in_time(pod, timer))
            })
    }

    fn cluster_fault(&self, pods: &[&Pod], timer: &mut Timer) -> Option<Evidence> {
        let target = self.target;
        if matches!(
            target.rollout,
            RolloutState::Complete | RolloutState::ScaledToZero
        ) {
            return None;
        }
        if let Some(words) = &target.refusal {
            return Some(with_needs(Sign::PodRefused, words, target));
        }
        if let Some(aborted) = self.aborted(Sign::AbortedUnmeasured, timer) {
            return Some(aborted);
        }
        let cannot_start = pods.iter().find_map(|pod| self.cannot_start(pod, timer));
        cannot_start
            .or_else(|| pods.iter().find_map(|pod| self.other_container(pod, timer)))
            .or_else(|| self.warning(pods))
            .or_else(|| self.rejected_pod())
            .or_else(|| self.object_not_ready(timer))
            .or_else(|| self.no_progress(pods, timer))
    }

    /// An abort by the workload's own controller, if it is this sign. Its pods are gone then: a version whose rollout was
    /// blocked before has not shown anything.
    fn aborted(&self, sign: Sign, timer: &mut Timer) -> Option<Evidence> {
        let RolloutState::Aborted(abort) = &self.target.rollout else {
            return None;
        };
        if !timer.is_over(self.entry.started_at.0, abort.settles_in) {
            return None;
        }
        let is_unproven = abort.is_unmeasured || self.entry.outcome == Outcome::Blocked;
        let found = if is_unproven {
            Sign::AbortedUnmeasured
        } else {
            Sign::Aborted
        };
        let message = format!("the {} says: {}", self.target.kind, abort.words);
        (found == sign).then(|| Evidence {
            needs: Some(abort.remedy.clone()),
            ..Evidence::new(found, message)
        })
    }

    fn is_chosen(&self, container: &ContainerStatus) -> bool {
        self.chosen.contains(&container.name)
    }

    fn is_new(&self, pod: &Pod) -> bool {
        created(pod).is_none_or(|created| created >= self.entry.started_at.0)
    }

    fn crash(&self, pod: &Pod, most: i32) -> Option<Evidence> {
        let status = &pod.status;
        let init = status
            .init_container_statuses
            .iter()
            .map(|container| (container, Sign::InitContainerCrashes));
        let main = status
            .container_statuses
            .iter()
            .map(|container| (container, Sign::ContainerCrashes));
        init.chain(main)
            .find(|(container, _)| {
                self.is_chosen(container) && self.restarts_too_often(pod, container, most)
            })
            .map(|(container, sign)| Evidence::new(sign, crash_sentence(container)))
    }

    /// All restarts of a new pod count. A pod that is older than the rollout, after a rollback, must crash in a loop now; a
    /// version that failed already and could not be rolled back must do so too, for it may have recovered.
    fn restarts_too_often(&self, pod: &Pod, container: &ContainerStatus, most: i32) -> bool {
        let end = container.last_end();
        if end.is_some_and(|end| !shows_a_failure(end)) {
            return false;
        }
        let in_loop = container.waiting_reason() == Some("CrashLoopBackOff")
            || container.ended().is_some_and(failed);
        let crossed =
            container.restart_count > most || (in_loop && container.restart_count >= most);
        let crashed_since = end
            .and_then(|end| end.finished_at.as_ref())
            .is_some_and(|at| at.0 >= self.entry.started_at.0);
        let is_bad_now = in_loop || !container.ready;
        let counts = is_bad_now || !self.may_have_recovered(container);
        crossed && counts && (self.is_new(pod) || (in_loop && crashed_since))
    }

    /// Whether restarts of a container that is well say nothing any more: its version failed or was blocked before, or the
    /// container has run since the rollout was complete.
    fn may_have_recovered(&self, container: &ContainerStatus) -> bool {
        let was_bad = matches!(
            self.entry.outcome.known(),
            Some(Outcome::Failed | Outcome::Blocked)
        );
        let has_run_since = match (container.running_since(), &self.entry.available_at) {
            (Some(started), Some(available)) => started <= available.0,
            _ => false,
        };
        was_bad || has_run_since
    }

    /// A pod that was ready when the rollout was complete, whose containers run as they ran then, and that is not ready now.
    /// On a lost node the containers' own state stays as it was; a container that restarted is assessed by its restarts.
    fn lost_readiness(&self, pod: &Pod) -> Option<Evidence> {
        let since = self.entry.available_at.as_ref()?.0;
        let ready = pod.unmet("Ready")?;
        let lost_at = ready
            .last_transition_time
            .as_ref()
            .map(|time| time.0)
            .filter(|at| *at >= since && !self.never_ready(pod, *at))?;
        let was_there = created(pod).is_some_and(|created| created <= since);
        let statuses = &pod.status.container_statuses;
        let container = statuses.iter().find(|container| {
            self.is_chosen(container) && is_unready_as_it_ran(container, since)
        })?;
        was_there.then(|| {
            Evidence::new(
                Sign::ReadinessLost,
                format!(
                    "container {} of pod {} was ready and lost its readiness at {lost_at}",
                    container.name,
                    pod.name()
                ),
            )
        })
    }

    /// A chosen container that runs and was not ready in time, while no other container can be the cause.
    fn not_ready_in_time(&self, pod: &Pod, timer: &mut Timer) -> Option<Evidence> {
        let first_ran = self.unready_since(pod)?;
        let statuses = &pod.status.container_statuses;
        let unready = statuses
            .iter()
            .find(|container| self.is_chosen(container) && !container.ready)?;
        let deadline = self.target.progress_deadline;
        if self.other_unready(pod).is_some() || !timer.is_over(first_ran, deadline) {
            return None;
        }
        Some(Evidence::new(
            Sign::NotReadyInTime,
            format!(
                "container {} of pod {} ran and was not ready within {} s",
                unready.name,
                pod.name(),
                deadline.as_secs()
            ),
        ))
    }

    /// Since when all chosen containers of an unready pod have run, if they have. For a pod that was ready when the rollout was
    /// complete, see [`Self::lost_readiness`].
    fn unready_since(&self, pod: &Pod) -> Option<Timestamp> {
        if pod.is_ready() || self.was_ready(pod) || !self.is_new(pod) {
            return None;
        }
        let statuses = &pod.status.container_statuses;
        let chosen = statuses.iter().filter(|each| self.is_chosen(each));
        let starts: Option<Vec<Timestamp>> = chosen.map(|each| first_ran(pod, each)).collect();
        starts?.into_iter().max()
    }

    /// Whether a pod that is not ready was so when the rollout was complete. The workload's status is older than its pods': a
    /// pod may have lost its readiness before the rollout was seen to be complete.
    fn was_ready(&self, pod: &Pod) -> bool {
        let unready = pod
            .condition("Ready")
            .and_then(|ready| ready.last_transition_time.as_ref());
        let complete = self.entry.available_at.as_ref();
        complete.is_some_and(|at| {
            created(pod).is_none_or(|created| created <= at.0)
                && unready
                    .is_none_or(|unready| unready.0 >= at.0 && !self.never_ready(pod, unready.0))
        })
    }

    /// Whether a pod that is unready since this time has been so from its start: a chosen container did not run before. It took
    /// the place of a pod that the workload still counted when the rollout was complete.
    fn never_ready(&self, pod: &Pod, unready_since: Timestamp) -> bool {
        let mut chosen = pod.status.container_statuses.iter();
        chosen.any(|each| {
            let is_first_run = self.is_chosen(each) && each.restart_count == 0;
            is_first_run
                && each
                    .running_since()
                    .is_none_or(|since| since >= unready_since)
        })
    }

    /// A container, not chosen, that is not ready.
    fn other_unready<'a>(&self, pod: &'a Pod) -> Option<&'a ContainerStatus> {
        let sidecars = pod.status.init_container_statuses.iter();
        // An init container that is done, or not a sidecar, does not count here.
        let sidecars =
            sidecars.filter(|each| each.started.is_some() && each.ended().is_none_or(failed));
        let main = pod.status.container_statuses.iter();
        main.chain(sidecars)
            .find(|each| !self.is_chosen(each) && !each.ready)
    }

    fn other_container(&self, pod: &Pod, timer: &mut Timer) -> Option<Evidence> {
        let first_ran = self.unready_since(pod)?;
        let other = self.other_unready(pod);
        let statuses = &pod.status.container_statuses;
        let all_ready = statuses.iter().all(|container| container.ready);
        if (other.is_none() && !all_ready)
            || !timer.is_over(first_ran, self.target.progress_deadline)
        {
            return None;
        }
        let name = pod.name();
        let message = match other {
            Some(other) => format!(
                "container {} of pod {name} is not ready ({} restarts), and keeps the pod from being ready",
                other.name, other.restart_count
            ),
            None => format!(
                "pod {name} is not ready although its containers are: its node is lost, or a readiness gate is not met"
            ),
        };
        Some(Evidence::new(Sign::OtherContainerUnready, message))
    }

    fn cannot_start(&self, pod: &Pod, timer: &mut Timer) -> Option<Evidence> {
        self.unschedulable(pod, timer)
            .or_else(|| container_cannot_start(pod))
            .or_else(|| self.other_init_container(pod))
    }

    fn unschedulable(&self, pod: &Pod, timer: &mut Timer) -> Option<Evidence> {
        let scheduled = pod.unmet("PodScheduled")?;
        let since = scheduled.last_transition_time.as_ref();
        let since = since.map(|time| time.0).or_else(|| created(pod));
        if !since.is_none_or(|since| timer.is_over(since, SCHEDULING_TIME)) {
            return None;
        }
        let words = scheduled.message.as_deref().or(scheduled.reason.as_deref());
        let message = format!("pod {}: {}", pod.name(), words.unwrap_or("not scheduled"));
        Some(with_needs(Sign::Unschedulable, &message, self.target))
    }

    /// In a pod that is initialized, only a native sidecar can still fail; it is assessed like other containers.
    fn other_init_container(&self, pod: &Pod) -> Option<Evidence> {
        if pod.met("Initialized").is_some() {
            return None;
        }
        let init = &pod.status.init_container_statuses;
        let failed = init.iter().find(|each| {
            let has_crashed = each.waiting_reason() == Some("CrashLoopBackOff")
                || each.ended().is_some_and(failed);
            !self.is_chosen(each) && has_crashed
        })?;
        Some(Evidence::new(
            Sign::OtherInitContainerFails,
            format!("init {} (pod {})", crash_sentence(failed), pod.name()),
        ))
    }

    fn warning(&self, pods: &[&Pod]) -> Option<Evidence> {
        let of = |uid: Option<&String>| uid.and_then(|uid| self.warnings.get(uid));
        let about_pod = pods.iter().find_map(|pod| {
            of(pod.metadata.uid.as_ref()).map(|words| {
                Evidence::new(Sign::PodWarning, format!("pod {}: {words}", pod.name()))
            })
        });
        about_pod.or_else(|| {
            let words = of(self.target.metadata.uid.as_ref())?;
            Some(with_needs(Sign::WorkloadWarning, words, self.target))
        })
    }

    fn rejected_pod(&self) -> Option<Evidence> {
        let rejected = self.pods.iter().find(|pod| {
            silent(pod) == Some(Sign::PodRejected)
                && pod.status.reason.is_some()
                && self.is_new(pod)
        })?;
        let (status, name) = (&rejected.status, rejected.name());
        let reason = status.reason.as_deref().unwrap_or_default();
        let words = status.message.as_deref().unwrap_or_default();
        Some(Evidence::new(
            Sign::PodRejected,
            format!("pod {name}: {reason}: {words}"),
        ))
    }

    /// An object without pods of its own that is not ready in time: nothing tells whether the version is to blame.
    fn object_not_ready(&self, timer: &mut Timer) -> Option<Evidence> {
        let words = self.target.unready.as_ref()?;
        let is_over = self.is_late(&[], timer);
        is_over.then(|| Evidence::new(Sign::ObjectNotReady, words))
    }

    /// Whether the workload has made no progress for the time of its deadline.
    fn is_late(&self, pods: &[&Pod], timer: &mut Timer) -> bool {
        if matches!(self.target.rollout, RolloutState::DeadlineExceeded(_)) {
            return true;
        }
        let pods = pods.iter().flat_map(|pod| [created(pod), ready_since(pod)]);
        let progress = pods.chain([self.target.progressed_at]).flatten();
        let since = progress.fold(self.entry.started_at.0, Timestamp::max);
        timer.is_over(since, self.target.progress_deadline)
    }

    fn no_progress(&self, pods: &[&Pod], timer: &mut Timer) -> Option<Evidence> {
        let target = self.target;
        let is_over = self.is_late(pods, timer);
        let is_observed = target.newest_pods != NewestPods::None;
        if !is_over || !is_observed || target.is_paused || self.entry.available_at.is_some() {
            return None;
        }
        let has_not_run = |pod: &&&Pod| {
            let mut statuses = pod.status.container_statuses.iter();
            !statuses.any(|each| self.is_chosen(each) && first_ran(pod, each).is_some())
        };
        let (name, seconds) = (target.reference(), target.progress_deadline.as_secs());
        let (sign, message) = match pods.iter().find(has_not_run) {
            Some(pod) => (
                Sign::NoProgress,
                format!("pod {} has not started after {seconds} s", pod.name()),
            ),
            None if pods.is_empty() => (
                Sign::NoProgress,
                format!("{name} has no pod of the new version after {seconds} s"),
            ),
            None if pods.iter().all(|pod| pod.is_ready()) => (
                Sign::OldPodsRemain,
                format!("{name} has ready pods of the new version, and older ones that do not go"),
            ),
            None => return None,
        };
        Some(Evidence::new(sign, message))
    }
}

/// Words about missing room or quota, with the need of one more pod for the time of the rollout.
fn with_needs(sign: Sign, words: &str, target: &Target) -> Evidence {
    // The scheduler's second sentence repeats the first one for preemption.
    let words = words.split(" preemption:").next().unwrap_or(words);
    let requests = shorten(&target.pod_requests(), LONGEST_REQUESTS);
    let needs = if requests.is_empty() {
        "the rollout needs one more pod".to_owned()
    } else {
        format!("the rollout needs one more pod with {requests}")
    };
    Evidence {
        needs: Some(needs),
        ..Evidence::new(sign, words)
    }
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = pod.met("Ready")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// When a container first ran; for one that restarted, when the pod's init containers were done. Attempts to start it that
/// failed count as restarts too.
fn first_ran(pod: &Pod, container: &ContainerStatus) -> Option<Timestamp> {
    container.state.as_ref()?;
    let last_reason = container.last_end().and_then(|end| end.reason.as_deref());
    let never_ran = last_reason.is_some_and(|reason| NEVER_RAN.contains(&reason));
    if container.restart_count > 0 && !never_ran {
        let initialized = pod.met("Initialized");
        let since = initialized.and_then(|each| each.last_transition_time.as_ref());
        return since.map(|time| time.0).or_else(|| created(pod));
    }
    let ended = container.ended().filter(|end| shows_a_failure(end));
    let ended = ended.and_then(|end| end.started_at.as_ref());
    container.running_since().or(ended.map(|time| time.0))
}

/// The kubelet may report that a container ended long before it reports that it waits to start it again.
fn failed(end: &ContainerStateTerminated) -> bool {
    end.exit_code != 0
}

/// Whether a container ran, and its end is known.
fn shows_a_failure(end: &ContainerStateTerminated) -> bool {
    let reason = end.reason.as_deref().unwrap_or_default();
    !NEVER_RAN.contains(&reason) && !UNKNOWN_ENDS.contains(&reason)
}

/// The container's own last words: its pod is deleted by the rollout, so a hint at its log would lead nowhere.
fn crash_sentence(container: &ContainerStatus) -> String {
    let (name, restarts) = (&container.name, container.restart_count);
    let Some(end) = container.last_end() else {
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

fn is_unready_as_it_ran(container: &ContainerStatus, since: Timestamp) -> bool {
    let ran_then = container
        .running_since()
        .is_some_and(|started| started <= since);
    ran_then && container.started != Some(false) && !container.ready
}

/// A container that waits for a reason that is not part of every start, or that ended without having run.
fn container_cannot_start(pod: &Pod) -> Option<Evidence> {
    pod.all_containers().find_map(|container| {
        let (sign, words) = waits_abnormally(container).or_else(|| never_ran(container))?;
        let (name, pod) = (&container.name, pod.name());
        Some(Evidence::new(
            sign,
            format!("container {name} of pod {pod}: {words}"),
        ))
    })
}

fn waits_abnormally(container: &ContainerStatus) -> Option<(Sign, String)> {
    let waiting = container.waiting()?;
    let reason = waiting.reason.as_deref()?;
    if NORMAL_WAITS.contains(&reason) {
        return None;
    }
    let words = match waiting.message.as_deref() {
        Some(message) => format!("{reason}: {}", without_middle(message)),
        None => reason.to_owned(),
    };
    Some((Sign::ContainerCannotStart, words))
}

fn never_ran(container: &ContainerStatus) -> Option<(Sign, String)> {
    let end = container.last_end()?;
    let reason = end.reason.as_deref()?;
    let runs = container.running().is_some();
    if !NEVER_RAN.contains(&reason) || container.ready || runs {
        return None;
    }
    let message = without_middle(end.message.as_deref().unwrap_or_default());
    Some((Sign::ContainerNeverRan, format!("{reason}: {message}")))
}

/// An error of the container runtime without its middle if it is long: the cause is at its end.
fn without_middle(error: &str) -> String {
    let count = error.chars().count();
    if count <= RUNTIME_ERROR.0 + RUNTIME_ERROR.1 {
        return error.to_owned();
    }
    let begin: String = error.chars().take(RUNTIME_ERROR.0).collect();
    let end: String = error.chars().skip(count - RUNTIME_ERROR.1).collect();
    format!("{begin}…{end}")
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
