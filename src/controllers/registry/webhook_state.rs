//! What is known of a registry's webhook since the start: whether it is as it should be, and whether it announces moves.
//!
//! Absent: anything that must survive a restart, and the secret in any place but this process's memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::api::model_registry::RegisteredWebhook;
use crate::api::reason::Problem;
use crate::kubernetes::lock::lock;

/// For how long each worker of an MLflow server keeps its list of webhooks.
const SETTLING: Duration = Duration::from_secs(60);
/// How long after polling found a move its delivery may still arrive: MLflow tries for about eight seconds.
const LATEST: Duration = Duration::from_secs(15);
/// For how long it is remembered that a model was heard of.
const RECENT: Duration = Duration::from_secs(60);
/// How many models are remembered so.
const MOST: usize = 10_000;
/// The model that MLflow's own tests of a webhook name.
const EXAMPLE: &str = "example_model";

/// What came of a look at a webhook.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// What is registered by the operator.
    pub webhook: Option<RegisteredWebhook>,
    /// Whether it was made or changed by this look.
    pub is_new: bool,
    /// Whether nothing is registered any more.
    pub is_gone: bool,
    /// Whether it is no longer wanted, and could not be removed.
    pub stays: bool,
    /// What stands in the way.
    pub problem: Option<Problem>,
}

impl Registration {
    /// Nothing could be looked at.
    pub fn hindered(problem: Problem) -> Self {
        Self {
            problem: Some(problem),
            ..Self::default()
        }
    }
}

/// What there is to tell.
pub struct Told {
    /// What came of the last look, where there was one.
    pub kept: Option<Registration>,
    /// Whether MLflow's workers may not know the webhook yet.
    pub is_settling: bool,
    /// A model whose move was not announced.
    pub silent: Option<String>,
}

/// What is known of a webhook.
#[derive(Default)]
pub struct WebhookState {
    inner: Mutex<WebhookStateInner>,
}

#[derive(Default)]
struct WebhookStateInner {
    is_busy: bool,
    generation: Option<i64>,
    request: Option<String>,
    next_check: Option<Instant>,
    kept: Option<Registration>,
    /// Id and secret as they are in MLflow, as far as that is known.
    signs: Option<(String, String)>,
    proven: Option<String>,
    /// From when deliveries are to be expected.
    expected_from: Option<Instant>,
    heard: HashMap<String, Instant>,
    suspected: BTreeMap<String, Instant>,
    silent: Option<String>,
}

impl WebhookState {
    /// No webhook is wanted.
    pub fn rest(&self) {
        let mut inner = lock(&self.inner);
        if !inner.is_busy {
            *inner = WebhookStateInner::default();
        }
    }

    /// The webhook cannot be looked at now; the next pass after that changes does it.
    pub fn wait(&self) {
        lock(&self.inner).next_check = None;
    }

    /// Begins a look, where one is due: by the clock, by a new spec, or by a request in an annotation.
    pub fn begin(&self, generation: Option<i64>, request: Option<String>) -> bool {
        let mut inner = lock(&self.inner);
        let by_clock = inner.next_check.is_none_or(|next| next <= Instant::now());
        let is_due = by_clock || inner.generation != generation || inner.request != request;
        if inner.is_busy || !is_due {
            return false;
        }
        inner.is_busy = true;
        inner.generation = generation;
        inner.request = request;
        true
    }

    /// Ends a look.
    pub fn end(&self, kept: Registration, next: Duration) {
        let mut inner = lock(&self.inner);
        let now = Instant::now();
        inner.is_busy = false;
        inner.next_check = Some(now + next);
        if kept.is_new {
            inner.expected_from = Some(now + SETTLING);
            inner.suspected.clear();
            inner.silent = None;
        } else if kept.problem.is_none() {
            inner.expected_from.get_or_insert(now);
        }
        inner.kept = Some(kept);
    }

    /// The secret that a webhook signs with, where this process wrote or proved it.
    pub fn secret_of(&self, id: &str) -> Option<String> {
        lock(&self.inner)
            .signs
            .clone()
            .filter(|(known, _)| known == id)
            .map(|(_, secret)| secret)
    }

    /// Notes what a webhook signs with.
    pub fn signs(&self, id: &str, secret: &str) {
        lock(&self.inner).signs = Some((id.to_owned(), secret.to_owned()));
    }

    /// Whether an example arrived from a webhook.
    pub fn is_proven(&self, id: &str) -> bool {
        lock(&self.inner).proven.as_deref() == Some(id)
    }

    /// Notes that an example arrived.
    pub fn proven(&self, id: &str) {
        lock(&self.inner).proven = Some(id.to_owned());
    }

    /// Models were heard of. True where that ends a silence.
    pub fn heard(&self, models: &BTreeSet<String>) -> bool {
        let now = Instant::now();
        let mut inner = lock(&self.inner);
        inner
            .heard
            .retain(|_, at| now.saturating_duration_since(*at) < RECENT);
        for model in models.iter().filter(|model| *model != EXAMPLE) {
            inner.suspected.remove(model);
            if inner.heard.len() < MOST {
                inner.heard.insert(model.clone(), now);
            }
        }
        models.iter().any(|model| model != EXAMPLE) && inner.silent.take().is_some()
    }

    /// Polling found that an alias moved after `since`, when the model was asked for before.
    pub fn found_by_polling(&self, model: &str, since: Instant, now: Instant) {
        let mut inner = lock(&self.inner);
        let was_expected = inner.expected_from.is_some_and(|from| from <= since);
        let was_heard = inner
            .heard
            .get(model)
            .is_some_and(|at| now.saturating_duration_since(*at) < RECENT);
        if was_expected && !was_heard && inner.suspected.len() < MOST {
            inner.suspected.insert(model.to_owned(), now);
        }
    }

    /// What there is to tell now.
    pub fn tell(&self) -> Told {
        let mut inner = lock(&self.inner);
        let now = Instant::now();
        let is_over = |found: &Instant| now.saturating_duration_since(*found) >= LATEST;
        if let Some(model) = inner
            .suspected
            .iter()
            .find(|(_, found)| is_over(found))
            .map(|(model, _)| model.clone())
        {
            inner.suspected.retain(|_, found| !is_over(found));
            inner.silent = Some(model);
        }
        let is_settling = inner.expected_from.is_some_and(|from| now < from);
        Told {
            kept: inner.kept.clone(),
            is_settling,
            silent: inner.silent.clone(),
        }
    }

    /// How long until there may be something new to do or to tell.
    pub fn until_due(&self) -> Duration {
        let inner = lock(&self.inner);
        let now = Instant::now();
        let check = inner.next_check.filter(|_| !inner.is_busy);
        let settled = inner.expected_from.filter(|from| *from > now);
        let silent = inner.suspected.values().min().map(|found| *found + LATEST);
        let next = [check, settled, silent].into_iter().flatten().min();
        // Never at once: what is due now is done by the pass that asks.
        next.map_or(Duration::MAX, |next| {
            next.saturating_duration_since(now)
                .max(Duration::from_millis(100))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(now: Instant) -> WebhookState {
        let state = WebhookState::default();
        lock(&state.inner).expected_from = Some(now);
        state
    }

    fn models(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn long_ago() -> Instant {
        Instant::now().checked_sub(Duration::from_secs(30)).unwrap()
    }

    #[test]
    fn a_move_that_no_delivery_announced_in_time_is_told() {
        let found = long_ago();
        let state = listening(found);
        state.found_by_polling("taxi", found, found);
        assert_eq!(state.tell().silent.as_deref(), Some("taxi"));
        assert!(
            !state.heard(&models(&[EXAMPLE])),
            "an example proves nothing"
        );
        assert!(
            state.heard(&models(&["another"])),
            "any delivery ends the silence"
        );
        assert_eq!(state.tell().silent, None);
    }

    #[test]
    fn a_delivery_a_little_after_polling_is_no_silence() {
        let state = listening(long_ago());
        state.found_by_polling("taxi", Instant::now(), Instant::now());
        assert_eq!(state.tell().silent, None, "it may still come");
        assert!(state.until_due() <= LATEST);
        state.heard(&models(&["taxi"]));
        assert!(lock(&state.inner).suspected.is_empty());
    }

    #[test]
    fn a_move_before_deliveries_were_to_be_expected_is_no_silence() {
        let state = listening(Instant::now() + SETTLING);
        state.found_by_polling("taxi", long_ago(), long_ago());
        assert!(state.tell().is_settling);
        assert_eq!(state.tell().silent, None);
    }

    #[test]
    fn a_look_is_begun_once_and_again_when_something_asks_for_it() {
        let state = WebhookState::default();
        assert!(state.begin(Some(1), None));
        assert!(!state.begin(Some(1), None), "under way");
        state.end(Registration::default(), Duration::from_secs(60));
        assert!(!state.begin(Some(1), None), "not due");
        assert!(state.begin(Some(2), None), "another spec");
        state.end(Registration::default(), Duration::from_secs(60));
        assert!(state.begin(Some(2), Some("now".to_owned())), "a request");
    }
}
