//! The namespaced name of an object, and the keys of indexes.
//!
//! Absent: kinds. Each store and each queue has one.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use kube::{Resource, ResourceExt};

/// `namespace/name`; neither contains a slash. A clone shares the text.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// The key of an object with this name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The key of this object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::new(
            object.meta().namespace.as_deref().unwrap_or_default(),
            &object.name_any(),
        )
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.split().0
    }

    /// The name within it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or_default()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A key of an index: a digest, because the text of ten thousand keys would take more memory than the objects. Two keys may have
/// the same digest, so a reader checks what it found.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct IndexKey(u64);

impl IndexKey {
    /// The digest of the index (such as `model`), a namespace and a name.
    #[must_use]
    pub fn new(index: &str, namespace: &str, name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (index, namespace, name).hash(&mut hasher);
        Self(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_key_has_the_namespace_and_the_name_of_the_object() {
        let name = ObjectKey::new("ml", "nyc-taxi.v2");
        assert_eq!((name.namespace(), name.name()), ("ml", "nyc-taxi.v2"));
    }

    #[test]
    fn different_index_keys_differ() {
        assert_ne!(
            IndexKey::new("model", "a", "bc"),
            IndexKey::new("model", "ab", "c")
        );
        assert_ne!(
            IndexKey::new("model", "a", "b"),
            IndexKey::new("workload", "a", "b")
        );
        assert_eq!(
            IndexKey::new("model", "a", "b"),
            IndexKey::new("model", "a", "b")
        );
    }
}
