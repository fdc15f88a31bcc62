//! The sizes of versions that this process described: those that are still to be read, and those
//! that were read.
//!
//! Absent: versions of an earlier process. A size that was never read stays absent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// The most sizes of a model that are to be read, and that were read and are not in the status yet.
const MAX_SIZES: usize = 64;

/// A version whose size is to be read.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct UnreadSize {
    /// The number of the version.
    pub version: String,
    /// The artifact URI.
    pub uri: String,
}

/// The sizes of versions, by `RegisteredModel`.
#[derive(Default)]
pub struct VersionSizes {
    inner: Mutex<SizesInner>,
}

#[derive(Default)]
struct SizesInner {
    unread: BTreeMap<ObjectKey, BTreeSet<UnreadSize>>,
    /// Sizes by artifact URI, until the status has them.
    read: HashMap<ObjectKey, BTreeMap<String, i64>>,
    is_reading: bool,
}

impl VersionSizes {
    /// Records that the size of a version is to be read.
    pub fn record_unread(&self, model: &ObjectKey, size: UnreadSize) {
        let mut inner = lock(&self.inner);
        let unread = inner.unread.entry(model.clone()).or_default();
        if unread.len() < MAX_SIZES {
            unread.insert(size);
        }
    }

    /// Returns true if the caller must start the task that reads: there are sizes to be read, and
    /// no task is running.
    pub fn begin(&self) -> bool {
        let mut inner = lock(&self.inner);
        if inner.is_reading || inner.unread.is_empty() {
            return false;
        }
        inner.is_reading = true;
        true
    }

    /// The task ended before everything was read.
    pub fn stop(&self) {
        lock(&self.inner).is_reading = false;
    }

    /// Removes and returns the unread sizes of a few models. If none are left, the task ends.
    pub fn take_unread(&self, most: usize) -> Vec<(ObjectKey, BTreeSet<UnreadSize>)> {
        let mut inner = lock(&self.inner);
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(unread) = inner.unread.pop_first()
        {
            taken.push(unread);
        }
        inner.is_reading = !taken.is_empty();
        taken
    }

    /// Records a size that was read.
    pub fn record_read(&self, model: &ObjectKey, uri: &str, bytes: i64) {
        let mut inner = lock(&self.inner);
        let read = inner.read.entry(model.clone()).or_default();
        if read.len() >= MAX_SIZES {
            read.clear();
        }
        read.insert(uri.to_owned(), bytes);
    }

    /// The sizes of a model that were read, by artifact URI.
    pub fn read(&self, model: &ObjectKey) -> BTreeMap<String, i64> {
        let inner = lock(&self.inner);
        inner.read.get(model).cloned().unwrap_or_default()
    }

    /// Drops a size that was read: the status has it.
    pub fn forget_read(&self, model: &ObjectKey, uri: &str) {
        let mut inner = lock(&self.inner);
        let Some(read) = inner.read.get_mut(model) else {
            return;
        };
        read.remove(uri);
        if read.is_empty() {
            inner.read.remove(model);
        }
    }

    /// Drops the sizes of models that are not kept.
    pub fn retain(&self, is_kept: impl Fn(&ObjectKey) -> bool) {
        let mut inner = lock(&self.inner);
        inner.unread.retain(|model, _| is_kept(model));
        inner.read.retain(|model, _| is_kept(model));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taxi() -> ObjectKey {
        ObjectKey::new("ml", "taxi")
    }

    fn unread(version: &str) -> UnreadSize {
        UnreadSize {
            version: version.to_owned(),
            uri: format!("s3://models/{version}"),
        }
    }

    #[test]
    fn one_task_reads_until_nothing_is_left() {
        let sizes = VersionSizes::default();
        assert!(!sizes.begin(), "nothing is to be read");
        sizes.record_unread(&taxi(), unread("1"));
        sizes.record_unread(&taxi(), unread("2"));
        assert!(sizes.begin());
        assert!(!sizes.begin(), "a task is running");
        let taken = sizes.take_unread(4);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].1.len(), 2);
        sizes.record_unread(&taxi(), unread("3"));
        assert!(!sizes.begin(), "the task takes that one too");
        assert_eq!(sizes.take_unread(4).len(), 1);
        assert!(sizes.take_unread(4).is_empty());
        sizes.record_unread(&taxi(), unread("4"));
        assert!(sizes.begin(), "the task had ended");
    }

    #[test]
    fn a_task_that_stopped_is_started_again() {
        let sizes = VersionSizes::default();
        sizes.record_unread(&taxi(), unread("1"));
        assert!(sizes.begin());
        sizes.stop();
        assert!(sizes.begin());
    }

    #[test]
    fn a_read_size_is_kept_until_the_status_has_it() {
        let sizes = VersionSizes::default();
        sizes.record_read(&taxi(), "s3://models/1", 58);
        assert_eq!(sizes.read(&taxi()).get("s3://models/1"), Some(&58));
        sizes.forget_read(&taxi(), "s3://models/1");
        assert!(sizes.read(&taxi()).is_empty());
    }

    #[test]
    fn the_sizes_of_deleted_models_are_dropped() {
        let sizes = VersionSizes::default();
        sizes.record_unread(&taxi(), unread("1"));
        sizes.record_read(&taxi(), "s3://models/2", 58);
        sizes.retain(|_| false);
        assert!(!sizes.begin() && sizes.read(&taxi()).is_empty());
    }
}
