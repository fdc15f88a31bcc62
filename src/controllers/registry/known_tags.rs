//! The deployment tags that a registry is known to have.
//!
//! Absent: requests. `write_back` reads and writes the tags.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use crate::kubernetes::lock::lock;

/// A tag of a version: model, version, key.
pub type TagKey = (String, String, String);

/// What is known of the tags in a registry.
#[derive(Default)]
pub struct KnownTags {
    inner: Mutex<KnownTagsInner>,
}

#[derive(Default)]
struct KnownTagsInner {
    tags: HashMap<TagKey, String>,
    known_models: BTreeSet<String>,
    is_writing: bool,
    /// Something may have changed since the writing that is under way began.
    is_stale: bool,
}

impl KnownTags {
    pub fn begin(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.is_stale = inner.is_writing;
        !std::mem::replace(&mut inner.is_writing, true)
    }

    /// Ends the writing; true where it must be done once more.
    pub fn end(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.is_writing = inner.is_stale;
        std::mem::take(&mut inner.is_stale)
    }

    pub fn missing(&self, wanted: &BTreeMap<TagKey, String>) -> Vec<(TagKey, String)> {
        let inner = lock(&self.inner);
        let differs = |(place, value): &(&TagKey, &String)| inner.tags.get(*place) != Some(*value);
        wanted
            .iter()
            .filter(differs)
            .map(|(place, value)| (place.clone(), value.clone()))
            .collect()
    }

    pub fn orphans(&self, is_orphan: impl Fn(&str) -> bool) -> Vec<TagKey> {
        lock(&self.inner)
            .tags
            .keys()
            .filter(|place| is_orphan(&place.2))
            .cloned()
            .collect()
    }

    pub fn note(&self, place: TagKey, value: Option<String>) {
        let mut inner = lock(&self.inner);
        match value {
            Some(value) => inner.tags.insert(place, value),
            None => inner.tags.remove(&place),
        };
    }

    pub fn unknown(&self, models: BTreeSet<String>) -> BTreeSet<String> {
        let inner = lock(&self.inner);
        models
            .into_iter()
            .filter(|model| !inner.known_models.contains(model))
            .collect()
    }

    pub fn know(&self, models: BTreeSet<String>) {
        lock(&self.inner).known_models.extend(models);
    }
}
