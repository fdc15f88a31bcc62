//! The models whose artifact URIs are requested again, because a store may move: a few models at each poll, in turn, and any
//! model that a person asks to refresh; and the URIs that were found to be others.
//!
//! Absent: the requests. One task for each registry sends them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::api::ModelVersion;
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

/// A version whose files moved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MovedUri {
    /// The number of the version.
    pub version: String,
    /// The URI that was mirrored.
    pub from: String,
    /// The URI that the registry gave now, without its query.
    pub to: String,
    /// Whether it had a query.
    pub query_withheld: bool,
}

impl MovedUri {
    /// Whether this is the version, as it was mirrored before its files moved.
    pub fn is_of(&self, version: &ModelVersion) -> bool {
        self.version == version.version && version.artifact_uri.as_ref() == Some(&self.from)
    }
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
    /// Until the status has them.
    moved: BTreeMap<ObjectKey, Vec<MovedUri>>,
    is_reading: bool,
}

impl UriRechecks {
    /// Chooses the next of these models.
    pub fn choose(&self, mut models: Vec<ObjectKey>) {
        let mut inner = lock(&self.inner);
        models.sort_unstable();
        let next = models.partition_point(|model| Some(model) <= inner.last.as_ref());
        let next = if next < models.len() { next } else { 0 };
        inner.turn = inner.turn.wrapping_add(usize::from(next == 0));
        models.rotate_left(next);
        models.truncate(MODELS);
        inner.last = models.last().cloned();
        let in_use = Recheck::InUse(inner.turn);
        for model in models {
            inner.due.entry(model).or_insert(in_use);
        }
    }

    /// Records that a person asked to refresh a model.
    pub fn request(&self, model: &ObjectKey) {
        lock(&self.inner).due.insert(model.clone(), Recheck::All);
    }

    /// Returns true if the caller must start the task that requests URIs: some are due, and no task is running.
    pub fn begin(&self) -> bool {
        let mut inner = lock(&self.inner);
        let must_start = !inner.is_reading && !inner.due.is_empty();
        inner.is_reading |= must_start;
        must_start
    }

    /// The task ended before everything was requested.
    pub fn stop(&self) {
        lock(&self.inner).is_reading = false;
    }

    /// Removes and returns the next model and the versions to request. If there is none, the task ends.
    pub fn take(&self) -> Option<(ObjectKey, Recheck)> {
        let mut inner = lock(&self.inner);
        let next = inner.due.pop_first();
        inner.is_reading = next.is_some();
        next
    }

    /// Records the URIs of a model that are others now, in place of those that were recorded before.
    pub fn record_moved(&self, model: &ObjectKey, moved: Vec<MovedUri>) {
        let mut inner = lock(&self.inner);
        if moved.is_empty() {
            inner.moved.remove(model);
        } else {
            inner.moved.insert(model.clone(), moved);
        }
    }

    /// The URIs of a model that are others now.
    pub fn moved(&self, model: &ObjectKey) -> Vec<MovedUri> {
        let inner = lock(&self.inner);
        inner.moved.get(model).cloned().unwrap_or_default()
    }

    /// Drops a URI: the status has it, or the version is gone.
    pub fn forget_moved(&self, model: &ObjectKey, moved: &MovedUri) {
        let mut inner = lock(&self.inner);
        let Some(of_model) = inner.moved.get_mut(model) else {
            return;
        };
        of_model.retain(|other| other != moved);
        if of_model.is_empty() {
            inner.moved.remove(model);
        }
    }

    /// Drops the models that are not kept.
    pub fn retain(&self, is_kept: impl Fn(&ObjectKey) -> bool) {
        let mut inner = lock(&self.inner);
        inner.due.retain(|model, _| is_kept(model));
        inner.moved.retain(|model, _| is_kept(model));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> ObjectKey {
        ObjectKey::new("ml", &format!("model-{number:02}"))
    }

    /// All models that are due, and how they are rechecked.
    fn all_due(rechecks: &UriRechecks) -> Vec<(ObjectKey, Recheck)> {
        std::iter::from_fn(|| rechecks.take()).collect()
    }

    fn chosen(rechecks: &UriRechecks, models: Vec<ObjectKey>) -> Vec<ObjectKey> {
        rechecks.choose(models);
        let due = all_due(rechecks);
        due.into_iter().map(|(model, _)| model).collect()
    }

    #[test]
    fn models_are_chosen_in_turn() {
        let rechecks = UriRechecks::default();
        let all: Vec<_> = (0..MODELS + 2).map(key).collect();
        assert_eq!(chosen(&rechecks, all.clone()), all[..MODELS]);
        let second = chosen(&rechecks, all.clone());
        let wrapped = [&all[..MODELS - 2], &all[MODELS..]].concat();
        assert_eq!(second, wrapped);
        assert_eq!(chosen(&rechecks, vec![key(1)]), [key(1)], "others are gone");
        assert!(chosen(&rechecks, Vec::new()).is_empty());
    }

    #[test]
    fn a_persons_request_covers_all_versions_and_is_taken_once() {
        let rechecks = UriRechecks::default();
        rechecks.request(&key(1));
        rechecks.choose(vec![key(1)]);
        assert_eq!(all_due(&rechecks), [(key(1), Recheck::All)]);
        assert!(all_due(&rechecks).is_empty());
    }

    #[test]
    fn one_task_requests_until_nothing_is_due() {
        let rechecks = UriRechecks::default();
        assert!(!rechecks.begin(), "nothing is due");
        rechecks.request(&key(1));
        assert!(rechecks.begin());
        assert!(!rechecks.begin(), "a task is running");
        rechecks.stop();
        assert!(rechecks.begin());
        assert_eq!(all_due(&rechecks).len(), 1);
        rechecks.request(&key(2));
        assert!(rechecks.begin(), "the task ended");
    }

    #[test]
    fn a_moved_uri_is_kept_until_the_status_has_it() {
        let rechecks = UriRechecks::default();
        let moved = |version: &str| MovedUri {
            version: version.to_owned(),
            from: format!("s3://old/{version}"),
            to: format!("s3://new/{version}"),
            query_withheld: false,
        };
        rechecks.record_moved(&key(1), vec![moved("1"), moved("2")]);
        rechecks.forget_moved(&key(1), &moved("1"));
        assert_eq!(rechecks.moved(&key(1)), [moved("2")]);
        rechecks.record_moved(&key(1), Vec::new());
        assert!(
            rechecks.moved(&key(1)).is_empty(),
            "its files moved back since"
        );
        rechecks.record_moved(&key(2), vec![moved("2")]);
        rechecks.retain(|model| *model != key(2));
        assert!(rechecks.moved(&key(2)).is_empty(), "the model is gone");
    }
}
