//! A registry in this process, for tests. It has aliases and nothing else: no stages, tags,
//! webhooks, and no creating of models.
//!
//! Absent: MLflow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::capability::Capabilities;
use super::error::RegistryError;
use super::snapshot::{ListedDetails, ListedVersion, ModelSnapshot};
use crate::api::ModelVersion;

pub(crate) const CAPABILITIES: Capabilities = Capabilities {
    aliases: true,
    stages: false,
    tags: false,
    webhooks: false,
    create: false,
};

/// A registry in this process. Clones share the models.
#[derive(Clone, Debug, Default)]
pub struct MemoryRegistry {
    models: Arc<Mutex<BTreeMap<String, MemoryModel>>>,
}

#[derive(Clone, Debug, Default)]
struct MemoryModel {
    aliases: BTreeMap<String, String>,
    /// The artifact URI of each version; version 1 comes first.
    versions: Vec<String>,
}

impl Eq for MemoryRegistry {}

impl PartialEq for MemoryRegistry {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.models, &other.models)
    }
}

impl MemoryRegistry {
    /// Registers a version of a model, and the model if it is new. Returns the version's number.
    pub(crate) fn register(&self, model: &str, artifact_uri: &str) -> String {
        let mut models = self.models.lock().unwrap();
        let model = models.entry(model.to_owned()).or_default();
        model.versions.push(artifact_uri.to_owned());
        model.versions.len().to_string()
    }

    /// Moves the files of a version.
    pub(crate) fn move_files(&self, model: &str, version: usize, artifact_uri: &str) {
        let mut models = self.models.lock().unwrap();
        let versions = &mut models.get_mut(model).unwrap().versions;
        artifact_uri.clone_into(&mut versions[version - 1]);
    }

    pub(super) fn model(&self, name: &str) -> Option<ModelSnapshot> {
        let models = self.models.lock().unwrap();
        let model = models.get(name)?;
        Some(ModelSnapshot {
            name: name.to_owned(),
            aliases: model.aliases.clone(),
            latest_version: Some(model.versions.len().to_string()),
            ..ModelSnapshot::default()
        })
    }

    pub(super) fn snapshots(&self, names: &BTreeSet<String>) -> Vec<ModelSnapshot> {
        names.iter().filter_map(|name| self.model(name)).collect()
    }

    pub(super) fn version(&self, model: &str, version: &str) -> Option<ModelVersion> {
        let models = self.models.lock().unwrap();
        let index = version.parse::<usize>().ok()?.checked_sub(1)?;
        let artifact_uri = models.get(model)?.versions.get(index)?;
        Some(ModelVersion {
            version: version.to_owned(),
            artifact_uri: Some(artifact_uri.clone()),
            source: Some(format!("models:/{model}/{version}")),
            ..ModelVersion::default()
        })
    }

    pub(super) fn newest_versions(&self, model: &str, count: u32) -> Vec<ListedVersion> {
        let models = self.models.lock().unwrap();
        let newest = models.get(model).map_or(0, |model| model.versions.len());
        let listed = (1..=newest).rev().map(|number| ListedVersion {
            version: number.to_string(),
            details: ListedDetails::Memory,
        });
        listed.take(count as usize).collect()
    }

    pub(super) fn set_alias(
        &self,
        model: &str,
        alias: &str,
        version: &str,
    ) -> Result<(), RegistryError> {
        if self.version(model, version).is_none() {
            return Err(RegistryError::Refused {
                at: "memory".to_owned(),
                status: 404,
                code: Some("RESOURCE_DOES_NOT_EXIST".to_owned()),
                text: String::new(),
            });
        }
        let mut models = self.models.lock().unwrap();
        let model = models.get_mut(model).unwrap();
        model.aliases.insert(alias.to_owned(), version.to_owned());
        Ok(())
    }
}
