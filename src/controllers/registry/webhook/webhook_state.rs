//! The state of a registry's webhook since the start: its last registration, and whether deliveries
//! announce the moves.
//!
//! Absent: state that must survive a restart. The secret is kept in memory only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::api::model_registry::RegisteredWebhook;
use crate::api::reason::Problem;
use crate::controllers::registry::state::poll_schedule::PollTrigger;
use crate::kubernetes::lock::lock;

/// For how long each worker of an MLflow server caches its list of webhooks.
const SETTLING_TIME: Duration = Duration::from_secs(60);
/// How long after a poll found a move its delivery may still arrive: MLflow retries for about eight
/// seconds.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(15);
/// For how long a delivery is remembered.
const DELIVERY_MEMORY: Duration = Duration::from_secs(60);
/// The most deliveries that are remembered, and the most that are awaited.
const MAX_DELIVERIES: usize = 10_000;
/// The model that MLflow's own tests of a webhook name.
const EXAMPLE_MODEL: &str = "example_model";

/// The result of reconciling a webhook.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// The webhook that the operator has registered.
    pub webhook: Option<RegisteredWebhook>,
    /// Whether it was created or changed by this reconcile.
    pub is_new: bool,
    /// Whether no webhook is registered any more.
    pub is_removed: bool,
    /// Whether a webhook that is no longer wanted could not be removed.
    pub is_removal_failed: bool,
    /// The problem, if there is one.
    pub problem: Option<Problem>,
}

impl Registration {
    /// A reconcile that failed before it changed anything.
    pub fn failed(problem: Problem) -> Self {
        Self {
            problem: Some(problem),
            ..Self::default()
        }
    }
}

/// The state of a webhook as the status reports it.
pub struct WebhookReport {
    /// The result of the last reconcile, if there was one.
    pub registration: Option<Registration>,
    /// Whether MLflow's workers may not know the webhook yet.
    pub is_settling: bool,
    /// A model whose move no delivery announced.
    pub silent_model: Option<String>,
}

/// The state of a registry's webhook.
#[derive(Default)]
pub struct WebhookState {
    inner: Mutex<WebhookStateInner>,
}

#[derive(Default)]
struct WebhookStateInner {
    is_busy: bool,
    trigger: PollTrigger,
    next_reconcile: Option<Instant>,
    registration: Option<Registration>,
    /// Id and secret of the webhook in MLflow, as far as they are known.
    secret: Option<(String, String)>,
    /// The id of the webhook that a test delivery arrived from.
    tested: Option<String>,
    /// Moves before this time need no delivery.
    expected_from: Option<Instant>,
    /// The models of recent deliveries, with the time of arrival.
    delivered: HashMap<String, Instant>,
    /// The models whose moves were found by a poll, with the time of the poll, until their delivery
    /// arrives.
    awaited: BTreeMap<String, Instant>,
    silent_model: Option<String>,
}

impl WebhookState {
    /// No webhook is wanted: drops the state.
    pub fn reset(&self) {
        let mut inner = lock(&self.inner);
        if !inner.is_busy {
            *inner = WebhookStateInner::default();
        }
    }

    /// The webhook cannot be reconciled now. It is due again at the first reconcile at which it
    /// can.
    pub fn postpone(&self) {
        lock(&self.inner).next_reconcile = None;
    }

    /// Begins a reconcile if one is due: the time has come, or the trigger changed. Returns false
    /// if it is not due or one is under way.
    pub fn begin(&self, trigger: PollTrigger) -> bool {
        let mut inner = lock(&self.inner);
        let now = Instant::now();
        let is_due = inner.next_reconcile.is_none_or(|next| next <= now);
        if inner.is_busy || !(is_due || inner.trigger != trigger) {
            return false;
        }
        inner.is_busy = true;
        inner.trigger = trigger;
        true
    }

    /// Ends a reconcile.
    pub fn end(&self, registration: Registration, until_next: Duration) {
        let mut inner = lock(&self.inner);
        let now = Instant::now();
        inner.is_busy = false;
        inner.next_reconcile = Some(now + until_next);
        if registration.is_new {
            inner.expected_from = Some(now + SETTLING_TIME);
            inner.awaited.clear();
            inner.silent_model = None;
        } else if registration.problem.is_none() {
            inner.expected_from.get_or_insert(now);
        }
        inner.registration = Some(registration);
    }

    /// The secret that a webhook signs with, if this process wrote or tested it.
    pub fn secret_of(&self, id: &str) -> Option<String> {
        match &lock(&self.inner).secret {
            Some((known, secret)) if known == id => Some(secret.clone()),
            _ => None,
        }
    }

    /// Records the secret that a webhook signs with.
    pub fn record_secret(&self, id: &str, secret: &str) {
        lock(&self.inner).secret = Some((id.to_owned(), secret.to_owned()));
    }

    /// Whether a test delivery arrived from a webhook.
    pub fn is_tested(&self, id: &str) -> bool {
        lock(&self.inner).tested.as_deref() == Some(id)
    }

    /// Records that a test delivery arrived.
    pub fn record_tested(&self, id: &str) {
        lock(&self.inner).tested = Some(id.to_owned());
    }

    /// Records a delivery. Returns true if the webhook was reported silent until now.
    pub fn record_delivery(&self, model: &str) -> bool {
        let now = Instant::now();
        let mut inner = lock(&self.inner);
        inner
            .delivered
            .retain(|_, at| now.saturating_duration_since(*at) < DELIVERY_MEMORY);
        if model == EXAMPLE_MODEL {
            return false;
        }
        inner.awaited.remove(model);
        if inner.delivered.len() < MAX_DELIVERIES {
            inner.delivered.insert(model.to_owned(), now);
        }
        inner.silent_model.take().is_some()
    }

    /// A poll found that an alias moved after `since`, the time of the poll before. Its delivery
    /// should have arrived, or arrive soon.
    pub fn expect_delivery(&self, model: &str, since: Instant, now: Instant) {
        let mut inner = lock(&self.inner);
        let is_expected = inner.expected_from.is_some_and(|from| from <= since);
        let is_delivered = match inner.delivered.get(model) {
            Some(at) => now.saturating_duration_since(*at) < DELIVERY_MEMORY,
            None => false,
        };
        if is_expected && !is_delivered && inner.awaited.len() < MAX_DELIVERIES {
            inner.awaited.insert(model.to_owned(), now);
        }
    }

    /// The state as it is to be reported now.
    pub fn report(&self) -> WebhookReport {
        let mut inner = lock(&self.inner);
        let now = Instant::now();
        inner.expire_awaited(now);
        WebhookReport {
            registration: inner.registration.clone(),
            is_settling: inner.expected_from.is_some_and(|from| now < from),
            silent_model: inner.silent_model.clone(),
        }
    }

    /// How long until a reconcile is due, or the report may change.
    pub fn until_due(&self) -> Duration {
        let inner = lock(&self.inner);
        let now = Instant::now();
        let reconcile = if inner.is_busy {
            None
        } else {
            inner.next_reconcile
        };
        let settled = inner.expected_from.filter(|from| *from > now);
        let first_awaited = inner.awaited.values().min();
        let silent = first_awaited.map(|found| *found + DELIVERY_TIMEOUT);
        match [reconcile, settled, silent].into_iter().flatten().min() {
            // Never at once: the reconcile that asks does it if it is due.
            Some(next) => next
                .saturating_duration_since(now)
                .max(Duration::from_millis(100)),
            None => Duration::MAX,
        }
    }
}

impl WebhookStateInner {
    /// Reports the webhook as silent if a delivery did not arrive in time.
    fn expire_awaited(&mut self, now: Instant) {
        let is_late = |found: &Instant| now.saturating_duration_since(*found) >= DELIVERY_TIMEOUT;
        let late = self.awaited.iter().find(|(_, found)| is_late(found));
        if let Some((model, _)) = late {
            self.silent_model = Some(model.clone());
            self.awaited.retain(|_, found| !is_late(found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expecting_from(now: Instant) -> WebhookState {
        let state = WebhookState::default();
        lock(&state.inner).expected_from = Some(now);
        state
    }

    fn long_ago() -> Instant {
        Instant::now().checked_sub(Duration::from_secs(30)).unwrap()
    }

    fn trigger(generation: i64, request: Option<&str>) -> PollTrigger {
        PollTrigger {
            generation: Some(generation),
            request: request.map(str::to_owned),
        }
    }

    #[test]
    fn a_move_that_no_delivery_announced_in_time_is_reported() {
        let found = long_ago();
        let state = expecting_from(found);
        state.expect_delivery("taxi", found, found);
        assert_eq!(state.report().silent_model.as_deref(), Some("taxi"));
        assert!(
            !state.record_delivery(EXAMPLE_MODEL),
            "an example proves nothing"
        );
        assert!(
            state.record_delivery("another"),
            "any delivery ends the silence"
        );
        assert_eq!(state.report().silent_model, None);
    }

    #[test]
    fn a_delivery_a_little_after_the_poll_is_no_silence() {
        let state = expecting_from(long_ago());
        state.expect_delivery("taxi", Instant::now(), Instant::now());
        assert_eq!(state.report().silent_model, None, "it may still come");
        assert!(state.until_due() <= DELIVERY_TIMEOUT);
        state.record_delivery("taxi");
        assert!(lock(&state.inner).awaited.is_empty());
    }

    #[test]
    fn a_move_before_deliveries_are_expected_is_no_silence() {
        let state = expecting_from(Instant::now() + SETTLING_TIME);
        state.expect_delivery("taxi", long_ago(), long_ago());
        assert!(state.report().is_settling);
        assert_eq!(state.report().silent_model, None);
    }

    #[test]
    fn a_reconcile_begins_once_and_again_when_its_trigger_changes() {
        let state = WebhookState::default();
        assert!(state.begin(trigger(1, None)));
        assert!(!state.begin(trigger(1, None)), "under way");
        state.end(Registration::default(), Duration::from_secs(60));
        assert!(!state.begin(trigger(1, None)), "not due");
        assert!(state.begin(trigger(2, None)), "another spec");
        state.end(Registration::default(), Duration::from_secs(60));
        assert!(state.begin(trigger(2, Some("now"))), "a request");
    }
}
