//! The models with a version that waits for the gates of a binding: its tags are read again at each poll, and when a delivery
//! announces a change of them.
//!
//! Absent: the requests. Each model's own reconcile sends them.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// For how many models tags are read at each poll, so that a poll ends however many versions wait.
const MODELS: usize = 100;

/// The models whose candidates' tags are read.
#[derive(Default)]
pub struct CandidateTags {
    inner: Mutex<CandidatesInner>,
}

#[derive(Default)]
struct CandidatesInner {
    waiting: BTreeSet<ObjectKey>,
    due: BTreeSet<ObjectKey>,
    /// The last model that was chosen.
    last: Option<ObjectKey>,
}

impl CandidateTags {
    /// Records whether a version of a model waits.
    pub fn set_waiting(&self, model: &ObjectKey, is_waiting: bool) {
        let mut inner = lock(&self.inner);
        if is_waiting {
            inner.waiting.insert(model.clone());
        } else {
            inner.waiting.remove(model);
        }
    }

    /// Requests the tags of a model's candidates. Returns false if there are none.
    pub fn request(&self, model: &ObjectKey) -> bool {
        let mut inner = lock(&self.inner);
        let is_waiting = inner.waiting.contains(model);
        if is_waiting {
            inner.due.insert(model.clone());
        }
        is_waiting
    }

    /// Requests the tags of the next models' candidates, and returns these models.
    pub fn choose(&self) -> Vec<ObjectKey> {
        let mut inner = lock(&self.inner);
        let is_later = |model: &&ObjectKey| Some(*model) > inner.last.as_ref();
        let (later, earlier): (Vec<_>, Vec<_>) = inner.waiting.iter().partition(is_later);
        let chosen: Vec<ObjectKey> = later
            .into_iter()
            .chain(earlier)
            .take(MODELS)
            .cloned()
            .collect();
        inner.due.extend(chosen.iter().cloned());
        inner.last = chosen.last().cloned();
        chosen
    }

    /// Whether the tags of a model's candidates were requested; they are no more afterwards.
    pub fn take(&self, model: &ObjectKey) -> bool {
        lock(&self.inner).due.remove(model)
    }

    /// Drops the models that are not kept.
    pub fn retain(&self, is_kept: impl Fn(&ObjectKey) -> bool) {
        let mut inner = lock(&self.inner);
        inner.waiting.retain(&is_kept);
        inner.due.retain(is_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> ObjectKey {
        ObjectKey::new("ml", &format!("{number:03}"))
    }

    #[test]
    fn only_a_model_with_a_waiting_version_is_requested_and_once() {
        let tags = CandidateTags::default();
        assert!(!tags.request(&key(1)) && !tags.take(&key(1)));
        tags.set_waiting(&key(1), true);
        assert!(tags.request(&key(1)) && tags.take(&key(1)) && !tags.take(&key(1)));
        assert_eq!(tags.choose(), [key(1)]);
        assert!(tags.take(&key(1)));
        tags.set_waiting(&key(1), false);
        assert!(tags.choose().is_empty());
    }

    #[test]
    fn more_models_than_a_poll_reads_come_in_turn() {
        let tags = CandidateTags::default();
        for number in 0..MODELS + 2 {
            tags.set_waiting(&key(number), true);
        }
        assert_eq!(tags.choose().last(), Some(&key(MODELS - 1)));
        let second = tags.choose();
        assert_eq!(second[..3], [key(MODELS), key(MODELS + 1), key(0)]);
        assert_eq!(second.len(), MODELS);
    }
}
