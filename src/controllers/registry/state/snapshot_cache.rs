//! The last snapshot of each model, compressed, and the versions that were listed for many models
//! together.
//!
//! Absent: requests, and mirrors. The latter are in the status of each `RegisteredModel`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::Instant;

use crate::kubernetes::compress::Compressed;
use crate::kubernetes::lock::lock;
use crate::registries::{ListedVersion, ModelSnapshot};

/// The last snapshot of each model.
#[derive(Default)]
pub struct SnapshotCache {
    inner: Mutex<CacheInner>,
}

#[derive(Default)]
struct CacheInner {
    snapshots: HashMap<String, CachedSnapshot>,
    /// Models without a snapshot that are to be requested one by one: a response for many models
    /// lacked them.
    invalidated: HashSet<String>,
    /// Listed versions, until the model's own reconcile takes them.
    versions: HashMap<String, Vec<ListedVersion>>,
}

struct CachedSnapshot {
    /// Compressed, because there may be ten thousand of them; `None` if the model is absent.
    snapshot: Option<Compressed>,
    requested_at: Instant,
    changed_at: Instant,
}

impl CachedSnapshot {
    /// When the model was requested before, if an alias was created or moved since.
    fn alias_moved_since(&self, snapshot: Option<&ModelSnapshot>) -> Option<Instant> {
        let before: ModelSnapshot = self.snapshot.as_ref()?.decompress().ok()?;
        has_moved_alias(&before, snapshot?).then_some(self.requested_at)
    }
}

/// The result of recording a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recorded {
    /// The cache holds the same snapshot, or a newer one.
    Unchanged,
    /// The cache holds this snapshot now.
    Changed {
        /// If an alias was created or moved: when the model was requested before.
        alias_moved_since: Option<Instant>,
    },
}

impl SnapshotCache {
    /// The last snapshot of a model; `None` if it was not requested yet, was invalidated, or is
    /// absent.
    pub fn get(&self, model: &str) -> Option<ModelSnapshot> {
        let compressed = {
            let inner = lock(&self.inner);
            inner.snapshots.get(model)?.snapshot.clone()?
        };
        compressed.decompress().ok()
    }

    /// When the last snapshot of a model differed from the one before.
    pub fn changed_at(&self, model: &str) -> Option<Instant> {
        let inner = lock(&self.inner);
        inner.snapshots.get(model).map(|cached| cached.changed_at)
    }

    /// Records the snapshot of a model, `None` if it is absent, unless the cache holds one that was
    /// requested later.
    pub fn record(
        &self,
        model: &str,
        snapshot: Option<&ModelSnapshot>,
        requested_at: Instant,
    ) -> Recorded {
        let compressed = snapshot.map(Compressed::of);
        let mut inner = lock(&self.inner);
        let mut alias_moved_since = None;
        if let Some(cached) = inner.snapshots.get_mut(model) {
            if cached.snapshot == compressed {
                cached.requested_at = cached.requested_at.max(requested_at);
                return Recorded::Unchanged;
            }
            if cached.requested_at > requested_at {
                return Recorded::Unchanged;
            }
            alias_moved_since = cached.alias_moved_since(snapshot);
        }
        inner.invalidated.remove(model);
        let cached = CachedSnapshot {
            snapshot: compressed,
            requested_at,
            changed_at: Instant::now(),
        };
        inner.snapshots.insert(model.to_owned(), cached);
        Recorded::Changed { alias_moved_since }
    }

    /// Drops the snapshot of a model, so that its own reconcile requests it directly.
    pub fn invalidate(&self, model: &str) {
        let mut inner = lock(&self.inner);
        inner.snapshots.remove(model);
        inner.invalidated.insert(model.to_owned());
    }

    /// Whether a model has no snapshot and was not invalidated, so that it can be requested
    /// together with others.
    pub fn is_unknown(&self, model: &str) -> bool {
        let inner = lock(&self.inner);
        !inner.snapshots.contains_key(model) && !inner.invalidated.contains(model)
    }

    /// Records versions that were listed for many models together.
    pub fn record_versions(&self, versions: BTreeMap<String, Vec<ListedVersion>>) {
        lock(&self.inner).versions.extend(versions);
    }

    /// Removes and returns the versions that were listed for a model.
    pub fn take_versions(&self, model: &str) -> Option<Vec<ListedVersion>> {
        lock(&self.inner).versions.remove(model)
    }

    /// Drops the models that are no longer watched.
    pub fn retain(&self, is_watched: impl Fn(&str) -> bool) {
        let mut inner = lock(&self.inner);
        inner.snapshots.retain(|model, _| is_watched(model));
        inner.invalidated.retain(|model| is_watched(model));
        inner.versions.retain(|model, _| is_watched(model));
    }
}

/// Whether an alias of the same model was created, or names another version. Deleted aliases do not
/// count: MLflow sends no webhook for those that are deleted with their version.
fn has_moved_alias(before: &ModelSnapshot, after: &ModelSnapshot) -> bool {
    if before.created_at != after.created_at {
        return false;
    }
    let mut aliases = after.aliases.iter();
    aliases.any(|(alias, version)| before.aliases.get(alias) != Some(version))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn snapshot(aliases: &[(&str, &str)]) -> ModelSnapshot {
        let aliases = aliases.iter();
        ModelSnapshot {
            name: "taxi".to_owned(),
            aliases: aliases
                .map(|(alias, version)| ((*alias).to_owned(), (*version).to_owned()))
                .collect(),
            ..ModelSnapshot::default()
        }
    }

    fn changed(recorded: Recorded) -> bool {
        recorded != Recorded::Unchanged
    }

    #[test]
    fn a_snapshot_is_a_change_once() {
        let (cache, now) = (SnapshotCache::default(), Instant::now());
        let first = snapshot(&[("champion", "1")]);
        assert!(changed(cache.record("taxi", Some(&first), now)));
        assert!(!changed(cache.record("taxi", Some(&first), now)));
        assert_eq!(cache.get("taxi"), Some(first));
        assert!(changed(cache.record("taxi", None, now)), "it was deleted");
        assert_eq!(cache.get("taxi"), None);
    }

    #[test]
    fn a_response_that_was_requested_earlier_does_not_replace_a_newer_one() {
        let (cache, now) = (SnapshotCache::default(), Instant::now());
        let (old, new) = (
            snapshot(&[("champion", "1")]),
            snapshot(&[("champion", "2")]),
        );
        cache.record("taxi", Some(&new), now + Duration::from_secs(1));
        assert!(!changed(cache.record("taxi", Some(&old), now)));
        assert_eq!(cache.get("taxi"), Some(new));
    }

    #[test]
    fn a_moved_alias_is_reported_with_the_time_of_the_earlier_request() {
        let (cache, now) = (SnapshotCache::default(), Instant::now());
        let later = now + Duration::from_secs(30);
        let moved = |since| Recorded::Changed {
            alias_moved_since: since,
        };
        let first = cache.record("taxi", Some(&snapshot(&[("champion", "1")])), now);
        assert_eq!(first, moved(None), "nothing is known of the time before");
        let second = cache.record("taxi", Some(&snapshot(&[("champion", "2")])), later);
        assert_eq!(second, moved(Some(now)));
        let third = cache.record("taxi", Some(&snapshot(&[])), later);
        assert_eq!(third, moved(None), "a deleted alias is no move");
    }

    #[test]
    fn an_invalidated_model_is_not_requested_together_with_others() {
        let (cache, now) = (SnapshotCache::default(), Instant::now());
        assert!(cache.is_unknown("taxi"));
        cache.invalidate("taxi");
        assert!(!cache.is_unknown("taxi") && cache.get("taxi").is_none());
        cache.record("taxi", None, now);
        assert!(!cache.is_unknown("taxi"), "it is known to be absent");
        cache.retain(|_| false);
        assert!(cache.is_unknown("taxi"));
    }

    #[test]
    fn listed_versions_are_taken_once() {
        let cache = SnapshotCache::default();
        cache.record_versions(BTreeMap::from([("taxi".to_owned(), Vec::new())]));
        assert!(cache.take_versions("taxi").is_some());
        assert!(cache.take_versions("taxi").is_none());
    }
}
