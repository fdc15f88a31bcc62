//! What a data scientist sees of a binding in the registry's own UI: one tag on each version that the ledger tells of.
//!
//! Absent: the writing, and any say in what is deployed.

use std::collections::BTreeMap;

use crate::api::alias_binding::{HistoryEntry, Outcome};
use crate::api::{AliasBinding, GROUP};

/// The tag's key for a binding: `pointsman.dev/<cluster>/<namespace>/<binding>`.
#[must_use]
pub fn tag_key(cluster: &str, namespace: &str, binding: &str) -> String {
    format!("{GROUP}/{cluster}/{namespace}/{binding}")
}

/// The namespace and the binding that a key of this cluster names.
#[must_use]
pub fn binding_of_key<'a>(cluster: &str, key: &'a str) -> Option<(&'a str, &'a str)> {
    key.strip_prefix(GROUP)?
        .strip_prefix('/')?
        .strip_prefix(cluster)?
        .strip_prefix('/')?
        .split_once('/')
}

/// The tag's value for each version that the ledger tells of, by the version's number: outcome, time, and for a version
/// that did not make it the reason.
#[must_use]
pub fn tag_values(binding: &AliasBinding) -> BTreeMap<String, String> {
    let history = binding
        .status
        .as_ref()
        .map(|status| status.history.as_slice())
        .unwrap_or_default();
    let mut values = BTreeMap::new();
    for entry in history {
        values
            .entry(entry.version.clone())
            .or_insert_with(|| value(entry));
    }
    values
}

fn value(entry: &HistoryEntry) -> String {
    let (outcome, at) = match entry.outcome {
        Outcome::RollingOut => ("RollingOut", &entry.started_at),
        Outcome::Baking => (
            "Baking",
            entry.available_at.as_ref().unwrap_or(&entry.started_at),
        ),
        Outcome::Live => ("Live", entry.live_at.as_ref().unwrap_or(&entry.started_at)),
        Outcome::Failed => return format!("Failed {} {}", entry.started_at.0, entry.reason),
        Outcome::RolledBack => (
            "RolledBack",
            entry.finished_at.as_ref().unwrap_or(&entry.started_at),
        ),
        Outcome::HeldBack => ("HeldBack", &entry.started_at),
        Outcome::Superseded => (
            "Superseded",
            entry.finished_at.as_ref().unwrap_or(&entry.started_at),
        ),
    };
    match entry.outcome {
        Outcome::RolledBack | Outcome::HeldBack => format!("{outcome} {} {}", at.0, entry.reason),
        _ => format!("{outcome} {}", at.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_version_gets_its_newest_outcome_with_its_time() {
        let entry = |version: &str, outcome: &str, reason: &str| {
            json!({"version": version, "outcome": outcome, "reason": reason, "startedAt": "2026-11-23T12:00:00Z",
                "liveAt": "2026-11-23T12:01:00Z", "finishedAt": "2026-11-23T12:02:00Z", "trigger": "AliasMove"})
        };
        let binding: AliasBinding = serde_json::from_value(json!({
            "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding", "metadata": {"name": "taxi"},
            "spec": {"modelRef": {"name": "m"}, "alias": "champion", "targetRef": {"name": "server"}},
            "status": {"history": [entry("1", "Live", "Live"), entry("2", "RolledBack", "CrashLoop"), entry("1", "Superseded", "Live")]}}))
        .expect("a binding");
        let values = tag_values(&binding);
        assert_eq!(values["1"], "Live 2026-11-23T12:01:00Z");
        assert_eq!(values["2"], "RolledBack 2026-11-23T12:02:00Z CrashLoop");
    }

    #[test]
    fn a_key_names_its_binding_and_other_clusters_keys_name_none() {
        let key = tag_key("east", "ml", "taxi");
        assert_eq!(key, "pointsman.dev/east/ml/taxi");
        assert_eq!(binding_of_key("east", &key), Some(("ml", "taxi")));
        assert_eq!(binding_of_key("eas", &key), None);
        assert_eq!(binding_of_key("west", &key), None);
    }
}
