//! The objects whose wait nothing in the objects themselves explains: their Events are read.
//!
//! Absent: the requests.

use jiff::{SignedDuration, Timestamp};

use super::observed::Observed;
use super::timer::Timer;
use crate::api::AliasBinding;
use crate::api::alias_binding::{HistoryEntry, Outcome};
use crate::targets::{ContainerStatus, Pod, RolloutState, Target};

/// For how long a start needs no explanation.
const USUAL_START: SignedDuration = SignedDuration::from_secs(3);
/// The most objects whose Events are read for one binding.
const MOST_OBJECTS: usize = 3;

/// The UIDs of the objects, and when there may be more of them although nothing has changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Unexplained {
    /// The UIDs, at most three.
    pub uids: Vec<String>,
    /// When to look again.
    pub look_again: Option<Timestamp>,
}

/// The pods of a rollout of which no container has started, and a StatefulSet or DaemonSet that lacks pods.
#[must_use]
pub fn unexplained(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> Unexplained {
    let Some((target, entry)) = rollout_under_way(binding, observed) else {
        return Unexplained::default();
    };
    let mut timer = Timer::new(now);
    let pods = observed.pods.iter();
    let mut uids: Vec<String> = pods
        .filter(|pod| has_not_started(pod, &mut timer))
        .filter_map(|pod| pod.metadata.uid.clone())
        .collect();
    if lacks_pods(target, observed.pods) && timer.is_over(entry.started_at.0, USUAL_START) {
        uids.extend(target.metadata.uid.clone());
    }
    uids.truncate(MOST_OBJECTS);
    Unexplained {
        uids,
        look_again: timer.next(),
    }
}

fn rollout_under_way<'a>(
    binding: &'a AliasBinding,
    observed: &Observed<'a>,
) -> Option<(&'a Target, &'a HistoryEntry)> {
    let (target, entry) = (observed.target?, binding.status.as_ref()?.current()?);
    let is_under_way = matches!(
        target.rollout,
        RolloutState::InProgress(_) | RolloutState::DeadlineExceeded(_)
    ) && target.version().is_some()
        && target.refusal.is_none()
        && entry.outcome != Outcome::Live;
    is_under_way.then_some((target, entry))
}

/// Whether a workload that makes its pods itself lacks some. Those with ReplicaSets say themselves why they cannot create pods.
fn lacks_pods(target: &Target, pods: &[&Pod]) -> bool {
    let found = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    target.kind.owns_pods() && found < target.capacity.desired
}

fn has_not_started(pod: &Pod, timer: &mut Timer) -> bool {
    let status = &pod.status;
    let scheduled = pod.met("PodScheduled");
    let since = scheduled.and_then(|each| each.last_transition_time.as_ref());
    let Some(since) = since.or(status.start_time.as_ref()) else {
        return false;
    };
    pod.all_containers().all(waits_normally)
        && pod.metadata.deletion_timestamp.is_none()
        && status.phase.as_deref() == Some("Pending")
        && timer.is_over(since.0, USUAL_START)
}

fn waits_normally(container: &ContainerStatus) -> bool {
    let reason = container.waiting_reason();
    matches!(reason, None | Some("ContainerCreating" | "PodInitializing"))
        && container.running().is_none()
        && container.ended().is_none()
}
