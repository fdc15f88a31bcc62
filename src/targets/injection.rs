//! The fields that one version sets in a workload: a pure function of the binding's spec and the version.
//!
//! Absent: anything that differs between two reconciles of the same version: times, counters.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::api::{AliasBinding, ModelVersion, VersionRef, names};

/// The version that a workload should hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DesiredVersion {
    /// The version; its artifact URI is known.
    pub version: VersionRef,
    /// The address of the registry for pods.
    pub tracking_uri: Option<String>,
}

impl DesiredVersion {
    /// A mirrored version; `None` if it has no artifact.
    #[must_use]
    pub fn from_mirror(
        model: &str,
        version: &ModelVersion,
        tracking_uri: Option<&str>,
    ) -> Option<Self> {
        version.artifact_uri.as_ref()?;
        Some(Self {
            version: version.reference(model),
            tracking_uri: tracking_uri.map(str::to_owned),
        })
    }

    /// The version's number.
    #[must_use]
    pub fn number(&self) -> &str {
        &self.version.id.version
    }

    /// The URI of the version's files.
    #[must_use]
    pub fn artifact_uri(&self) -> &str {
        self.version.artifact_uri.as_deref().unwrap_or_default()
    }
}

/// The fields that one version sets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Injection {
    /// The binding's name, for the label.
    pub binding: String,
    /// The version's number, for the annotation.
    pub version: String,
    /// The digest of the version's identity, for the annotation; `None` if the identity is not fully known.
    pub version_id: Option<String>,
    /// The change cause in `kubectl rollout history`.
    pub change_cause: String,
    /// The containers that get the variables.
    pub containers: Vec<String>,
    /// The variables, by name.
    pub env: BTreeMap<&'static str, String>,
    /// The registry's address, for containers that do not set it themselves.
    pub tracking_uri: Option<String>,
}

impl Injection {
    /// The fields that a version sets in the chosen containers.
    #[must_use]
    pub fn new(binding: &AliasBinding, desired: &DesiredVersion, containers: Vec<String>) -> Self {
        let follows = binding.spec.follows();
        let (id, number) = (&desired.version.id, desired.number().to_owned());
        let run_id = desired.version.run_id.clone().unwrap_or_default();
        let env = BTreeMap::from([
            (names::MODEL_NAME, id.model.clone()),
            (names::MODEL_VERSION, number.clone()),
            (names::MODEL_ALIAS, follows.to_owned()),
            (names::MODEL_URI, desired.artifact_uri().to_owned()),
            (names::MODEL_RUN_ID, run_id),
            (
                names::MLFLOW_MODEL_URI,
                format!("models:/{}/{number}", id.model),
            ),
        ]);
        Self {
            binding: binding.metadata.name.clone().unwrap_or_default(),
            change_cause: format!("{} version {number} ({follows})", id.model),
            version: number,
            version_id: id.is_complete().then(|| id.digest()),
            containers,
            env,
            tracking_uri: desired.tracking_uri.clone(),
        }
    }

    /// The annotations of the pod template.
    pub(super) fn annotations(&self) -> Vec<(&'static str, &str)> {
        let id = self
            .version_id
            .as_deref()
            .map(|id| (names::VERSION_ID_ANNOTATION, id));
        let number = (names::VERSION_ANNOTATION, self.version.as_str());
        std::iter::once(number).chain(id).collect()
    }

    /// The variables of a container. The tracking URI is left out if the user sets it.
    pub(super) fn variables(&self, user_sets_tracking_uri: bool) -> Vec<(&'static str, &str)> {
        let mut variables: Vec<_> = self
            .env
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        if let (Some(uri), false) = (&self.tracking_uri, user_sets_tracking_uri) {
            variables.push((names::MLFLOW_TRACKING_URI, uri));
        }
        variables
    }
}

/// The containers that `spec.inject` chooses: the named ones, else the first one.
#[must_use]
pub fn chosen_containers(binding: &AliasBinding, present: &[&str]) -> Vec<String> {
    if let Some(names) = &binding.spec.inject.containers {
        return names.clone();
    }
    present
        .first()
        .map(|first| (*first).to_owned())
        .into_iter()
        .collect()
}

/// The names of the containers in the spec of a binding's template.
#[must_use]
pub fn template_containers(spec: &Map<String, Value>) -> Vec<&str> {
    let template = spec.get("template");
    let containers = template.and_then(|template| template.pointer("/spec/containers")?.as_array());
    let names = containers
        .into_iter()
        .flatten()
        .map(|container| container["name"].as_str());
    names.flatten().collect()
}
