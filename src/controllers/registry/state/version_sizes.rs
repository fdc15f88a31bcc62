//! The sizes of versions that this process described: those that are still to be read, and those
//! that were read. A size that could not be read is read again later, with backoff.
//!
//! Absent: versions of an earlier process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// The most sizes of a model that are to be read, and that were read and are not in the status yet.
const MAX_SIZES: usize = 64;
/// The backoff after the first read without a result, and the longest one.
const FIRST_BACKOFF: Duration = Duration::from_secs(300);
const MAX_BACKOFF: Duration = Duration::from_secs(6 * 3600);

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
    unread: BTreeMap<ObjectKey, BTreeMap<UnreadSize, NextRead>>,
    /// Sizes by artifact URI, until the status has them.
    read: HashMap<ObjectKey, BTreeMap<String, i64>>,
    is_reading: bool,
}

/// When a size is read next.
struct NextRead {
    at: Instant,
    backoff: Duration,
}

impl VersionSizes {
    /// Records that the size of a version is to be read.
    pub fn record_unread(&self, model: &ObjectKey, size: UnreadSize) {
        let mut inner = lock(&self.inner);
        let unread = inner.unread.entry(model.clone()).or_default();
        if unread.len() < MAX_SIZES {
            unread.entry(size).or_insert_with(|| NextRead {
                at: Instant::now(),
                backoff: FIRST_BACKOFF,
            });
        }
    }

    /// Returns true if the caller must start the task that reads: there are sizes to be read now,
    /// and no task is running.
    pub fn begin(&self, now: Instant) -> bool {
        let mut inner = lock(&self.inner);
        let mut unread = inner.unread.values().flat_map(BTreeMap::values);
        if inner.is_reading || !unread.any(|next| next.at <= now) {
            return false;
        }
        inner.is_reading = true;
        true
    }

    /// The task ended before everything was read.
    pub fn stop(&self) {
        lock(&self.inner).is_reading = false;
    }

    /// The unread sizes of a few models that are to be read now. Those that are not recorded as
    /// read are returned again after their backoff. If there are none, the task ends.
    pub fn take_unread(&self, most: usize, now: Instant) -> Vec<(ObjectKey, Vec<UnreadSize>)> {
        let mut inner = lock(&self.inner);
        let mut taken = Vec::new();
        for (model, unread) in &mut inner.unread {
            let mut sizes = Vec::new();
            for (size, next) in unread.iter_mut().filter(|(_, next)| next.at <= now) {
                next.at = now + next.backoff;
                next.backoff = (next.backoff * 2).min(MAX_BACKOFF);
                sizes.push(size.clone());
            }
            if !sizes.is_empty() {
                taken.push((model.clone(), sizes));
            }
            if taken.len() == most {
                break;
            }
        }
        inner.is_reading = !taken.is_empty();
        taken
    }

    /// Records that a size is not to be read again.
    pub fn give_up(&self, model: &ObjectKey, uri: &str) {
        lock(&self.inner).forget_unread(model, uri);
    }

    /// Records a size that was read.
    pub fn record_read(&self, model: &ObjectKey, uri: &str, bytes: i64) {
        let mut inner = lock(&self.inner);
        inner.forget_unread(model, uri);
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

impl SizesInner {
    fn forget_unread(&mut self, model: &ObjectKey, uri: &str) {
        if let Some(unread) = self.unread.get_mut(model) {
            unread.retain(|size, _| size.uri != uri);
            if unread.is_empty() {
                self.unread.remove(model);
            }
        }
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
        let now = Instant::now;
        assert!(!sizes.begin(now()), "nothing is to be read");
        sizes.record_unread(&taxi(), unread("1"));
        sizes.record_unread(&taxi(), unread("2"));
        assert!(sizes.begin(now()));
        assert!(!sizes.begin(now()), "a task is running");
        let taken = sizes.take_unread(4, now());
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].1.len(), 2);
        sizes.record_unread(&taxi(), unread("3"));
        assert!(!sizes.begin(now()), "the task takes that one too");
        assert_eq!(sizes.take_unread(4, now()).len(), 1);
        assert!(sizes.take_unread(4, now()).is_empty());
        sizes.record_unread(&taxi(), unread("4"));
        assert!(sizes.begin(now()), "the task had ended");
    }

    #[test]
    fn a_size_that_could_not_be_read_is_read_again_with_backoff() {
        let (sizes, start) = (VersionSizes::default(), Instant::now());
        sizes.record_unread(&taxi(), unread("1"));
        let read_at = |at: Instant| !sizes.take_unread(4, at).is_empty();
        let first = start + Duration::from_secs(1);
        assert!(read_at(first) && !read_at(first));
        let second = first + FIRST_BACKOFF;
        assert!(read_at(second) && !read_at(second + FIRST_BACKOFF));
        assert!(read_at(second + 2 * FIRST_BACKOFF));
        sizes.record_read(&taxi(), "s3://models/1", 58);
        assert!(!read_at(second + MAX_BACKOFF), "it was read");
        sizes.record_unread(&taxi(), unread("2"));
        sizes.give_up(&taxi(), "s3://models/2");
        assert!(!read_at(second + MAX_BACKOFF), "no store is known");
    }

    #[test]
    fn a_task_that_stopped_is_started_again() {
        let sizes = VersionSizes::default();
        sizes.record_unread(&taxi(), unread("1"));
        assert!(sizes.begin(Instant::now()));
        sizes.stop();
        assert!(sizes.begin(Instant::now()));
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
        assert!(!sizes.begin(Instant::now()) && sizes.read(&taxi()).is_empty());
    }
}
