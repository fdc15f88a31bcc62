//! The labels of the namespaces whose models reference a registry with `allowedNamespaces.from: Selector`.
//!
//! Absent: a watch. Labels are read when a namespace is first needed, and again at each interval of the registry.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};

use crate::kubernetes::lock::lock;

/// The labels of namespaces, each with the time when it was read.
#[derive(Default)]
pub struct NamespaceLabels(Mutex<HashMap<String, KnownLabels>>);

struct KnownLabels {
    labels: BTreeMap<String, String>,
    read_at: Instant,
}

impl NamespaceLabels {
    /// The labels of a namespace as they were read last; `None` if it was not read, or does not exist.
    pub fn get(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        let known = lock(&self.0);
        known.get(namespace).map(|known| known.labels.clone())
    }

    /// Whether the labels were read within this time.
    pub fn is_fresh(&self, namespace: &str, within: Duration) -> bool {
        let known = lock(&self.0);
        known
            .get(namespace)
            .is_some_and(|known| known.read_at.elapsed() < within)
    }

    /// Reads the labels of a namespace. After an error the known ones stay.
    ///
    /// # Errors
    /// The API server's error, except if there is no such namespace.
    pub async fn read(&self, client: &Client, namespace: &str) -> Result<(), kube::Error> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        match namespaces.get_opt(namespace).await? {
            Some(found) => {
                let labels = found.metadata.labels.unwrap_or_default();
                self.record(namespace, labels);
            }
            None => _ = lock(&self.0).remove(namespace),
        }
        Ok(())
    }

    fn record(&self, namespace: &str, labels: BTreeMap<String, String>) {
        let known = KnownLabels {
            labels,
            read_at: Instant::now(),
        };
        lock(&self.0).insert(namespace.to_owned(), known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_known_from_the_first_read_on_and_fresh_for_a_while() {
        let labels = NamespaceLabels::default();
        assert_eq!(labels.get("guest"), None);
        let team = BTreeMap::from([("team".to_owned(), "fares".to_owned())]);
        labels.record("guest", team.clone());
        assert_eq!(labels.get("guest"), Some(team));
        assert!(labels.is_fresh("guest", Duration::from_secs(60)));
        assert!(!labels.is_fresh("guest", Duration::ZERO));
    }
}
