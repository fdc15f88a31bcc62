//! What one version writes into a workload: a pure function of the binding's spec and the version.
//!
//! Absent: anything that would differ between two passes over the same version: times, digests, counters.

use std::collections::BTreeMap;

use crate::api::{AliasBinding, ModelVersion, names};

/// A version as a workload should hold it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// The registered model's name in the registry.
    pub model: String,
    /// The version's number.
    pub version: String,
    /// Where its files are.
    pub artifact_uri: String,
    /// The run that logged it; empty where none is known.
    pub run_id: String,
    /// The registry's address.
    pub tracking_uri: Option<String>,
}

impl Wanted {
    /// A mirrored version; `None` where it has no artifact.
    #[must_use]
    pub fn from_mirror(
        model: &str,
        version: &ModelVersion,
        tracking_uri: Option<&str>,
    ) -> Option<Self> {
        Some(Self {
            model: model.to_owned(),
            version: version.version.clone(),
            artifact_uri: version.artifact_uri.clone()?,
            run_id: version.run_id.clone().unwrap_or_default(),
            tracking_uri: tracking_uri.map(str::to_owned),
        })
    }
}

/// The fields that one version sets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Injection {
    /// The binding's name, for the label.
    pub binding: String,
    /// The version's number, for the annotation.
    pub version: String,
    /// What `kubectl rollout history` shows.
    pub change_cause: String,
    /// The containers that get the variables.
    pub containers: Vec<String>,
    /// The variables, by name.
    pub env: BTreeMap<&'static str, String>,
    /// The registry's address, for containers that do not set it themselves.
    pub tracking_uri: Option<String>,
}

impl Injection {
    /// What a version sets in the chosen containers.
    #[must_use]
    pub fn new(binding: &AliasBinding, wanted: &Wanted, containers: Vec<String>) -> Self {
        let follows = binding.spec.follows();
        let env = BTreeMap::from([
            (names::MODEL_NAME, wanted.model.clone()),
            (names::MODEL_VERSION, wanted.version.clone()),
            (names::MODEL_ALIAS, follows.to_owned()),
            (names::MODEL_URI, wanted.artifact_uri.clone()),
            (names::MODEL_RUN_ID, wanted.run_id.clone()),
            (
                names::MLFLOW_MODEL_URI,
                format!("models:/{}/{}", wanted.model, wanted.version),
            ),
        ]);
        Self {
            binding: binding.metadata.name.clone().unwrap_or_default(),
            version: wanted.version.clone(),
            change_cause: format!("{} version {} ({follows})", wanted.model, wanted.version),
            containers,
            env,
            tracking_uri: wanted.tracking_uri.clone(),
        }
    }
}

impl Injection {
    /// The variables of a container: the tracking URI only where the user has not set it.
    pub(super) fn variables(&self, user_sets_tracking_uri: bool) -> Vec<(&'static str, &str)> {
        let tracking_uri = self
            .tracking_uri
            .as_deref()
            .filter(|_| !user_sets_tracking_uri);
        let variables = self.env.iter().map(|(name, value)| (*name, value.as_str()));
        variables
            .chain(tracking_uri.map(|uri| (names::MLFLOW_TRACKING_URI, uri)))
            .collect()
    }
}

/// The containers that `spec.inject` chooses: those it names, else the first one.
#[must_use]
pub fn chosen_containers(binding: &AliasBinding, present: &[&str]) -> Vec<String> {
    match &binding.spec.inject.containers {
        Some(names) => names.clone(),
        None => present
            .first()
            .map(|first| (*first).to_owned())
            .into_iter()
            .collect(),
    }
}
