//! The deployment tags that a registry is known to have, and whether a task writes them.
//!
//! Absent: requests. `write_back` reads and writes the tags.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use crate::api::reason::Problem;
use crate::kubernetes::lock::lock;

/// The key of a version's tag.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TagId {
    /// The model's name in the registry.
    pub model: String,
    /// The number of the version.
    pub version: String,
    /// The tag's key.
    pub key: String,
}

/// The deployment tags that a registry is known to have.
#[derive(Default)]
pub struct KnownTags {
    inner: Mutex<KnownTagsInner>,
}

#[derive(Default)]
struct KnownTagsInner {
    tags: HashMap<TagId, String>,
    read_models: BTreeSet<String>,
    is_writing: bool,
    /// Whether another write was requested during the present one.
    is_stale: bool,
    /// Why a tag could not be written at the last write.
    problem: Option<Problem>,
}

impl KnownTags {
    /// Returns true if the caller must start the task that writes; false if one is running, which
    /// then writes once more.
    pub fn begin(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.is_stale = inner.is_writing;
        !std::mem::replace(&mut inner.is_writing, true)
    }

    /// Ends a write. Returns true if the task must write once more.
    pub fn end(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.is_writing = inner.is_stale;
        std::mem::take(&mut inner.is_stale)
    }

    /// Records why a tag could not be written; `None` if all were. Returns whether that is new.
    pub fn record_problem(&self, problem: Option<Problem>) -> bool {
        let mut inner = lock(&self.inner);
        std::mem::replace(&mut inner.problem, problem) != inner.problem
    }

    /// Why a tag could not be written at the last write.
    pub fn problem(&self) -> Option<Problem> {
        lock(&self.inner).problem.clone()
    }

    /// The tags that are absent or have another value.
    pub fn missing(&self, wanted: &BTreeMap<TagId, String>) -> Vec<(TagId, String)> {
        let inner = lock(&self.inner);
        let mut missing = Vec::new();
        for (tag, value) in wanted {
            if inner.tags.get(tag) != Some(value) {
                missing.push((tag.clone(), value.clone()));
            }
        }
        missing
    }

    /// The known tags whose keys belong to bindings that do not exist any more.
    pub fn orphans(&self, is_orphan: impl Fn(&str) -> bool) -> Vec<TagId> {
        let inner = lock(&self.inner);
        let orphans = inner.tags.keys().filter(|tag| is_orphan(&tag.key));
        orphans.cloned().collect()
    }

    /// Records the value of a tag; `None` if it is absent.
    pub fn record(&self, tag: TagId, value: Option<String>) {
        let mut inner = lock(&self.inner);
        match value {
            Some(value) => inner.tags.insert(tag, value),
            None => inner.tags.remove(&tag),
        };
    }

    /// Those of the models whose tags were not read yet.
    pub fn unread(&self, mut models: BTreeSet<String>) -> BTreeSet<String> {
        let inner = lock(&self.inner);
        models.retain(|model| !inner.read_models.contains(model));
        models
    }

    /// Records that the tags of these models were read.
    pub fn record_read(&self, models: BTreeSet<String>) {
        lock(&self.inner).read_models.extend(models);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(version: &str) -> TagId {
        TagId {
            model: "taxi".to_owned(),
            version: version.to_owned(),
            key: "pointsman.dev/one/ml/taxi".to_owned(),
        }
    }

    #[test]
    fn a_write_that_is_requested_during_another_is_made_after_it() {
        let tags = KnownTags::default();
        assert!(tags.begin());
        assert!(!tags.begin(), "a task is running");
        assert!(tags.end(), "it writes once more");
        assert!(!tags.end());
        assert!(tags.begin());
    }

    #[test]
    fn only_tags_with_another_value_are_missing() {
        let tags = KnownTags::default();
        tags.record(tag("1"), Some("live".to_owned()));
        let wanted = |value: &str| BTreeMap::from([(tag("1"), value.to_owned())]);
        assert!(tags.missing(&wanted("live")).is_empty());
        assert_eq!(tags.missing(&wanted("failed")).len(), 1);
        tags.record(tag("1"), None);
        assert_eq!(tags.missing(&wanted("live")).len(), 1);
    }

    #[test]
    fn the_tags_of_a_model_are_read_once() {
        let tags = KnownTags::default();
        let models = || BTreeSet::from(["taxi".to_owned()]);
        assert_eq!(tags.unread(models()), models());
        tags.record_read(models());
        assert!(tags.unread(models()).is_empty());
    }
}
