//! The models whose artifact URIs are requested again, because a store may move: a few models at each poll, in turn, and any
//! model that a person asks to refresh.
//!
//! Absent: the requests. Each model's own reconcile sends them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// How many models are chosen at each poll, so that the cost of a poll does not depend on their number.
const MODELS: usize = 10;

/// The versions of a model whose URIs are requested again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recheck {
    /// Versions in use; with the number of the turn, for models with many of them.
    InUse(usize),
    /// All mirrored versions.
    All,
}

/// The models whose artifact URIs are requested again.
#[derive(Default)]
pub struct UriRechecks {
    inner: Mutex<RechecksInner>,
}

#[derive(Default)]
struct RechecksInner {
    due: BTreeMap<ObjectKey, Recheck>,
    /// The last model that was chosen.
    last: Option<ObjectKey>,
    turn: usize,
}

impl UriRechecks {
    /// Chooses the next of these models.
    pub fn choose(&self, mut models: Vec<ObjectKey>) -> Vec<ObjectKey> {
        let mut inner = lock(&self.inner);
        models.sort_unstable();
        let next = models.partition_point(|model| Some(model) <= inner.last.as_ref());
        let next = if next < models.len() { next } else { 0 };
        inner.turn = inner.turn.wrapping_add(usize::from(next == 0));
        models.rotate_left(next);
        models.truncate(MODELS);
        let in_use = Recheck::InUse(inner.turn);
        for model in &models {
            inner.due.entry(model.clone()).or_insert(in_use);
        }
        inner.last = models.last().cloned();
        models
    }

    /// Records that a person asked to refresh a model.
    pub fn request(&self, model: &ObjectKey) {
        lock(&self.inner).due.insert(model.clone(), Recheck::All);
    }

    /// Whether URIs of a model are to be requested.
    pub fn is_due(&self, model: &ObjectKey) -> bool {
        lock(&self.inner).due.contains_key(model)
    }

    /// Removes and returns what is to be requested for a model.
    pub fn take(&self, model: &ObjectKey) -> Option<Recheck> {
        lock(&self.inner).due.remove(model)
    }

    /// Drops the models that are not kept.
    pub fn retain(&self, is_kept: impl Fn(&ObjectKey) -> bool) {
        lock(&self.inner).due.retain(|model, _| is_kept(model));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_chosen_in_turn() {
        let rechecks = UriRechecks::default();
        let key = |number: usize| ObjectKey::new("ml", &format!("{number:02}"));
        let all: Vec<_> = (0..MODELS + 2).map(key).collect();
        assert_eq!(rechecks.choose(all.clone()), all[..MODELS]);
        let second = rechecks.choose(all.clone());
        assert_eq!(second[..2], all[MODELS..]);
        assert_eq!(second[2..], all[..MODELS - 2]);
        assert_eq!(rechecks.choose(vec![key(1)]), [key(1)], "others are gone");
        assert!(rechecks.choose(Vec::new()).is_empty());
    }

    #[test]
    fn a_persons_request_covers_all_versions_and_is_taken_once() {
        let (rechecks, taxi) = (UriRechecks::default(), ObjectKey::new("ml", "taxi"));
        rechecks.request(&taxi);
        rechecks.choose(vec![taxi.clone()]);
        assert!(rechecks.is_due(&taxi));
        assert_eq!(rechecks.take(&taxi), Some(Recheck::All));
        assert_eq!(rechecks.take(&taxi), None);
    }
}
