//! When a registry is polled next, and for which models.
//!
//! Absent: the poll itself, and backoff, which is `ConnectionHealth`'s.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::ResourceExt;

use crate::api::{ModelRegistry, names};
use crate::kubernetes::lock::lock;

/// The state of a `ModelRegistry` that a poll was made for. A different one makes a poll due at
/// once.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PollTrigger {
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// The annotation by which a person requests a poll.
    pub request: Option<String>,
}

impl PollTrigger {
    /// The trigger that the object holds now.
    pub fn of(registry: &ModelRegistry) -> Self {
        let annotations = registry.annotations();
        Self {
            generation: registry.metadata.generation,
            request: annotations.get(names::REQUESTED_AT_ANNOTATION).cloned(),
        }
    }
}

/// When a registry is polled next, and for which models.
#[derive(Default)]
pub struct PollSchedule {
    inner: Mutex<ScheduleInner>,
}

#[derive(Default)]
struct ScheduleInner {
    next_poll: Option<Instant>,
    trigger: PollTrigger,
    pause: Duration,
    /// `None` after a model was added or removed.
    watched: Option<Arc<BTreeSet<String>>>,
}

impl PollSchedule {
    /// Whether a poll is due: the time has come, or the trigger differs from that of the last poll.
    pub fn is_due(&self, trigger: &PollTrigger, now: Instant) -> bool {
        let inner = lock(&self.inner);
        inner.next_poll.is_none_or(|next| next <= now) || inner.trigger != *trigger
    }

    /// Records that a poll was made, and when the next one is due.
    pub fn record(&self, trigger: PollTrigger, next_poll: Instant) {
        let mut inner = lock(&self.inner);
        inner.trigger = trigger;
        inner.next_poll = Some(next_poll);
    }

    /// Records how long the pause after the last responses is, because of their size.
    pub fn record_pause(&self, pause: Duration) {
        lock(&self.inner).pause = pause;
    }

    /// The pause after the last responses.
    pub fn pause(&self) -> Duration {
        lock(&self.inner).pause
    }

    /// Makes a poll due at the next reconcile.
    pub fn poll_now(&self) {
        lock(&self.inner).next_poll = None;
    }

    /// The time until the next poll.
    pub fn until_next_poll(&self, now: Instant) -> Duration {
        match lock(&self.inner).next_poll {
            Some(next) => next.saturating_duration_since(now),
            None => Duration::ZERO,
        }
    }

    /// The names of the watched models; read with `find` if models were added or removed since the
    /// last call.
    pub fn watched(&self, find: impl FnOnce() -> BTreeSet<String>) -> Arc<BTreeSet<String>> {
        if let Some(watched) = &lock(&self.inner).watched {
            return Arc::clone(watched);
        }
        let found = Arc::new(find());
        lock(&self.inner).watched = Some(Arc::clone(&found));
        found
    }

    /// A model was added or removed.
    pub fn invalidate_watched(&self) {
        lock(&self.inner).watched = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(generation: i64, request: Option<&str>) -> PollTrigger {
        PollTrigger {
            generation: Some(generation),
            request: request.map(str::to_owned),
        }
    }

    #[test]
    fn a_poll_is_due_by_time_by_a_new_spec_and_by_a_request() {
        let (schedule, now) = (PollSchedule::default(), Instant::now());
        assert!(schedule.is_due(&trigger(1, None), now), "none was made yet");
        schedule.record(trigger(1, None), now + Duration::from_secs(30));
        assert!(!schedule.is_due(&trigger(1, None), now));
        assert!(schedule.is_due(&trigger(1, None), now + Duration::from_secs(30)));
        assert!(schedule.is_due(&trigger(2, None), now));
        assert!(schedule.is_due(&trigger(1, Some("now")), now));
        schedule.poll_now();
        assert!(schedule.is_due(&trigger(1, None), now));
    }

    #[test]
    fn the_watched_models_are_read_again_after_an_invalidation_only() {
        let schedule = PollSchedule::default();
        let names = |name: &str| BTreeSet::from([name.to_owned()]);
        assert!(schedule.watched(|| names("a")).contains("a"));
        assert!(schedule.watched(|| names("b")).contains("a"));
        schedule.invalidate_watched();
        assert!(schedule.watched(|| names("b")).contains("b"));
    }
}
