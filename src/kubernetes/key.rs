//! An object's namespace and name as one shared word, and the keys by which objects are found.
//!
//! Absent: kinds. Each store and each queue knows its own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use kube::{Resource, ResourceExt};

/// `namespace/name`; neither holds a slash. A clone is a pointer.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// A name within a namespace.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// An object's own.
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

/// What objects are found by, beside their names: a digest, for ten thousand words of it would cost more than the objects.
/// Whoever finds by a key looks at what was found.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct IndexKey(u64);

impl IndexKey {
    /// The digest of what is looked for (such as `model`), its namespace and its name.
    #[must_use]
    pub fn new(what: &str, namespace: &str, name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (what, namespace, name).hash(&mut hasher);
        Self(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_as_it_was_put_together() {
        let name = ObjectKey::new("ml", "nyc-taxi.v2");
        assert_eq!((name.namespace(), name.name()), ("ml", "nyc-taxi.v2"));
    }

    #[test]
    fn keys_of_different_things_differ() {
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
