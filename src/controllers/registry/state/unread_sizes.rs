//! The versions whose size is not read yet. It takes a request to the artifact store, so it is read after the version is published.
//!
//! Absent: versions of an earlier process. A size that was never read stays absent.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// The versions whose size is not read yet, by `RegisteredModel`.
#[derive(Default)]
pub struct UnreadSizes {
    versions: Mutex<HashMap<ObjectKey, BTreeSet<String>>>,
}

impl UnreadSizes {
    /// Records that the size of a version is to be read.
    pub fn record(&self, model: &ObjectKey, version: &str) {
        let mut versions = lock(&self.versions);
        let unread = versions.entry(model.clone()).or_default();
        unread.insert(version.to_owned());
    }

    /// Whether sizes of a model are to be read.
    pub fn has(&self, model: &ObjectKey) -> bool {
        lock(&self.versions).contains_key(model)
    }

    /// Removes and returns the versions of a model.
    pub fn take(&self, model: &ObjectKey) -> BTreeSet<String> {
        lock(&self.versions).remove(model).unwrap_or_default()
    }

    /// Drops the versions of models that are not kept.
    pub fn retain(&self, is_kept: impl Fn(&ObjectKey) -> bool) {
        lock(&self.versions).retain(|model, _| is_kept(model));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_of_a_model_are_taken_once() {
        let (sizes, taxi) = (UnreadSizes::default(), ObjectKey::new("ml", "taxi"));
        sizes.record(&taxi, "1");
        sizes.record(&taxi, "2");
        assert!(sizes.has(&taxi));
        assert_eq!(sizes.take(&taxi).len(), 2);
        assert!(!sizes.has(&taxi) && sizes.take(&taxi).is_empty());
    }

    #[test]
    fn the_versions_of_deleted_models_are_dropped() {
        let (sizes, taxi) = (UnreadSizes::default(), ObjectKey::new("ml", "taxi"));
        sizes.record(&taxi, "1");
        sizes.retain(|model| *model != taxi);
        assert!(!sizes.has(&taxi));
    }
}
