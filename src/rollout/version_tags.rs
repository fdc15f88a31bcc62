//! The write-back: one tag on each version of a binding's history, for data scientists in the registry's own UI.
//!
//! Absent: the requests, and any influence on deployments.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::alias_binding::{HistoryEntry, Outcome};
use crate::api::{AliasBinding, GROUP};

/// The tag's key for a binding: `pointsman.dev/<cluster>/<namespace>/<binding>`.
#[must_use]
pub fn tag_key(cluster: &str, namespace: &str, binding: &str) -> String {
    format!("{GROUP}/{cluster}/{namespace}/{binding}")
}

/// The namespace and the binding of a key, if the key is of this cluster.
#[must_use]
pub fn binding_of_key<'a>(cluster: &str, key: &'a str) -> Option<(&'a str, &'a str)> {
    key.strip_prefix(GROUP)?
        .strip_prefix('/')?
        .strip_prefix(cluster)?
        .strip_prefix('/')?
        .split_once('/')
}

/// The tag's value for each version of this model in the history, by the version's number: outcome, time, and the reason if the
/// version did not become live.
#[must_use]
pub fn tag_values(binding: &AliasBinding, model: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let Some(status) = &binding.status else {
        return values;
    };
    for entry in &status.history {
        let named = &entry.version.id.model;
        if named != model && !named.is_empty() {
            continue;
        }
        let number = entry.version.number().to_owned();
        values.entry(number).or_insert_with(|| value(entry));
    }
    values
}

fn value(entry: &HistoryEntry) -> String {
    let started = &entry.started_at;
    let outcome = &entry.outcome;
    match outcome.known() {
        Some(Outcome::Failed | Outcome::HeldBack) => {
            format!("{outcome} {} {}", started.0, entry.reason)
        }
        Some(Outcome::RolledBack) => {
            let at = entry.finished_at.as_ref().unwrap_or(started);
            format!("{outcome} {} {}", at.0, entry.reason)
        }
        Some(Outcome::Baking) => at(entry, entry.available_at.as_ref()),
        Some(Outcome::Live) => at(entry, entry.live_at.as_ref()),
        Some(Outcome::Superseded) => at(entry, entry.finished_at.as_ref()),
        Some(Outcome::RollingOut | Outcome::Blocked | Outcome::ScaledToZero) | None => {
            at(entry, None)
        }
    }
}

fn at(entry: &HistoryEntry, moment: Option<&Time>) -> String {
    format!(
        "{} {}",
        entry.outcome,
        moment.unwrap_or(&entry.started_at).0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::alias_binding::Outcome;
    use crate::testing::{MODEL, With, binding_with, entry, time};

    #[test]
    fn each_version_gets_its_newest_outcome_with_its_time() {
        let live = entry("1", Outcome::Live)
            .with(|entry| entry.live_at = Some(time("2026-11-23T12:01:00Z")));
        let rolled_back = entry("2", Outcome::RolledBack)
            .with(|entry| entry.finished_at = Some(time("2026-11-23T12:02:00Z")));
        let binding = binding_with([live, rolled_back, entry("1", Outcome::Superseded)]);
        let values = tag_values(&binding, MODEL);
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
