//! The bindings as this process wrote them last, for as long as the watch still shows what they were before.
//!
//! Absent: anything that the cluster does not have. A pass on an older status than our own last one could take a person's
//! newer word for an old one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kube::ResourceExt;

use super::locked::lock;
use crate::api::AliasBinding;

/// What was written, by namespace and name.
#[derive(Default)]
pub struct Written {
    all: Mutex<HashMap<(String, String), Write>>,
}

struct Write {
    /// The resource version that the write was based on.
    before: Option<String>,
    after: Arc<AliasBinding>,
}

impl Written {
    /// Keeps what a write came to.
    pub fn keep(&self, before: &AliasBinding, after: AliasBinding) {
        let write = Write { before: before.resource_version(), after: Arc::new(after) };
        lock(&self.all).insert(key(before), write);
    }

    /// The newer of what the watch shows and what was written: the latter only while the watch shows what was there before.
    pub fn newest(&self, shown: Arc<AliasBinding>) -> Arc<AliasBinding> {
        let mut all = lock(&self.all);
        let key = key(&shown);
        match all.get(&key) {
            Some(write) if write.before == shown.resource_version() => Arc::clone(&write.after),
            Some(_) => {
                all.remove(&key);
                shown
            }
            None => shown,
        }
    }
}

fn key(binding: &AliasBinding) -> (String, String) {
    (binding.namespace().unwrap_or_default(), binding.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(version: &str) -> AliasBinding {
        serde_json::from_value(json!({
            "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
            "metadata": {"name": "taxi", "namespace": "ml", "resourceVersion": version},
            "spec": {"modelRef": {"name": "m"}, "alias": "champion", "target": {"name": "server"}}}))
        .expect("a binding")
    }

    fn newest(written: &Written, shown: &str) -> Option<String> {
        written.newest(Arc::new(at(shown))).resource_version()
    }

    #[test]
    fn what_was_written_stands_until_the_watch_shows_something_newer() {
        let written = Written::default();
        assert_eq!(newest(&written, "7").as_deref(), Some("7"));
        written.keep(&at("7"), at("8"));
        assert_eq!(newest(&written, "7").as_deref(), Some("8"));
        assert_eq!(newest(&written, "9").as_deref(), Some("9"));
        assert_eq!(newest(&written, "7").as_deref(), Some("7"));
    }
}
