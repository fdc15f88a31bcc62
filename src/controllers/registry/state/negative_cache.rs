//! The versions that a registry did not have, that could not be used, or whose details could not be
//! read, so that they are not requested at every reconcile.
//!
//! Absent: the reason. It is in the version's `problem`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::kubernetes::lock::lock;

/// The longest time that an entry is kept.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// The most versions of a model. A registry that names others all the time fills no memory.
const MAX_VERSIONS: usize = 256;

/// Versions that are absent or unusable, each with the time of the last request.
#[derive(Default)]
pub struct NegativeCache {
    /// By model, then by version.
    entries: Mutex<HashMap<String, HashMap<String, Instant>>>,
}

impl NegativeCache {
    /// Records that a version is absent or unusable.
    pub fn record(&self, model: &str, version: &str, now: Instant) {
        let mut entries = lock(&self.entries);
        for versions in entries.values_mut() {
            versions.retain(|_, at| now.saturating_duration_since(*at) < MAX_AGE);
        }
        entries.retain(|_, versions| !versions.is_empty());
        let versions = entries.entry(model.to_owned()).or_default();
        if versions.len() < MAX_VERSIONS {
            versions.insert(version.to_owned(), now);
        }
    }

    /// Whether a version was recorded within this time.
    pub fn contains(&self, model: &str, version: &str, within: Duration, now: Instant) -> bool {
        let entries = lock(&self.entries);
        match entries
            .get(model)
            .and_then(|versions| versions.get(version))
        {
            Some(at) => now.saturating_duration_since(*at) < within,
            None => false,
        }
    }

    /// Whether a version is recorded.
    pub fn is_recorded(&self, model: &str, version: &str) -> bool {
        self.contains(model, version, MAX_AGE, Instant::now())
    }

    /// Drops the entry of a version.
    pub fn forget_version(&self, model: &str, version: &str) {
        if let Some(versions) = lock(&self.entries).get_mut(model) {
            versions.remove(version);
        }
    }

    /// Drops the entries of a model.
    pub fn forget(&self, model: &str) {
        lock(&self.entries).remove(model);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn an_entry_holds_for_the_time_that_the_caller_names() {
        let (cache, now) = (NegativeCache::default(), Instant::now());
        cache.record("taxi", "3", now);
        assert!(cache.contains("taxi", "3", PATIENCE, now));
        assert!(!cache.contains("taxi", "4", PATIENCE, now));
        assert!(!cache.contains("fraud", "3", PATIENCE, now));
        assert!(!cache.contains("taxi", "3", PATIENCE, now + PATIENCE));
    }

    #[test]
    fn the_entries_of_a_model_are_forgotten_together() {
        let (cache, now) = (NegativeCache::default(), Instant::now());
        cache.record("taxi", "3", now);
        cache.record("fraud", "3", now);
        cache.forget("taxi");
        assert!(!cache.contains("taxi", "3", PATIENCE, now));
        assert!(cache.contains("fraud", "3", PATIENCE, now));
    }

    #[test]
    fn entries_that_are_too_old_are_dropped_by_the_next_one() {
        let (cache, now) = (NegativeCache::default(), Instant::now());
        cache.record("taxi", "3", now);
        cache.record("fraud", "1", now + MAX_AGE);
        assert_eq!(lock(&cache.entries).len(), 1);
    }
}
