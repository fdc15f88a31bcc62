//! `RegisteredModel`: a registered model of a registry, what is declared of it, and the mirror of what the registry says.
//!
//! Absent: any workload. A mirror deploys nothing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// A registered model of an MLflow registry.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "pointsman.dev",
    version = "v1alpha1",
    kind = "RegisteredModel",
    plural = "registeredmodels",
    namespaced,
    shortname = "rmodel",
    category = "pointsman",
    status = "RegisteredModelStatus",
    derive = "PartialEq",
    cel,
    doc = "A registered model: what is declared of it, and a mirror of what the registry says of its aliases and versions.",
    printcolumn(
        name = "Registry",
        type_ = "string",
        json_path = ".spec.registryRef.name"
    ),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.modelName"),
    printcolumn(name = "Latest", type_ = "string", json_path = ".status.latestVersion"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(validation = Rule::new("has(self.modelName) == has(oldSelf.modelName) && (!has(self.modelName) || self.modelName == oldSelf.modelName)").message("modelName cannot be changed: delete this RegisteredModel and make another for the other model"))]
#[serde(rename_all = "camelCase")]
pub struct RegisteredModelSpec {
    /// The registry that holds the model.
    pub registry_ref: RegistryReference,
    /// The model's name in the registry; this object's name where it is left out. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.contains('/') && !self.contains(':')").message("modelName must hold no / and no : (MLflow refuses both)"))]
    pub model_name: Option<String>,
    /// Create: make the registered model where the registry has none. Observe: only look.
    #[serde(default)]
    pub creation_policy: CreationPolicy,
    /// The model's description, kept as it is written here; left alone where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5000))]
    pub description: Option<String>,
    /// Tags of the model, kept as they are written here; other tags are left alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub tags: BTreeMap<String, String>,
    /// Aliases that are kept at the versions written here; other aliases are left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::declared_aliases")]
    pub aliases: Vec<DeclaredAlias>,
    /// Retain: the registered model stays when this object is deleted. Delete: it is deleted from the registry with all its versions.
    #[serde(default)]
    pub deletion_policy: ModelDeletionPolicy,
}

/// A `ModelRegistry`.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace, where it is another one and its owner allows this one; this namespace where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What to do where the registry has no such model.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum CreationPolicy {
    /// Make it.
    #[default]
    Create,
    /// Only look.
    Observe,
}

/// What becomes of the registered model when its object is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ModelDeletionPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted from the registry, with all its versions.
    Delete,
}

/// An alias that is kept at a version.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredAlias {
    /// The alias: letters, digits, _ and -.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.matches('^(?i)(latest|v[0-9]+)$')").message("MLflow reserves latest and v<number>: choose another alias, such as champion"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\\\s/:.@%]')").message("an alias holds letters, digits, _ and - only"))]
    pub name: String,
    /// The version's number, as a string: "4".
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,18}$"))]
    pub version: String,
}

/// The mirror of what the registry says.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))] // one writer: who wrote each of its fields is kept by nobody
#[serde(rename_all = "camelCase")]
pub struct RegisteredModelStatus {
    /// The generation of the spec that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The model's name in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// When the registered model was made, to the millisecond. Another time than before means that it was deleted and made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<MicroTime>,
    /// The address that pods reach the registry at.
    #[serde(
        default,
        rename = "trackingURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub tracking_uri: Option<String>,
    /// The newest version's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_version: Option<String>,
    /// The aliases: those that a binding follows or the spec declares first, then by name; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::mirrored_aliases")]
    pub aliases: Vec<MirroredAlias>,
    /// The newest version of each stage, where versions have stages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::mirrored_stages")]
    pub stages: Vec<MirroredStage>,
    /// Every version that is followed, pinned or aliased, and the newest few; at most 24.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::mirrored_versions")]
    pub versions: Vec<ModelVersion>,
    /// Ready, Reconciling, Stalled.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// An alias as the registry names it.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirroredAlias {
    /// The alias.
    pub name: String,
    /// The version's number.
    pub version: String,
    /// When this was first seen.
    pub since: Time,
}

/// A stage as the registry names it.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirroredStage {
    /// The stage.
    pub name: String,
    /// The number of the newest version in it.
    pub version: String,
    /// When this was first seen.
    pub since: Time,
}

/// A version and what decides about it. Versions never change, so this is read once.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelVersion {
    /// The version's number.
    pub version: String,
    /// Where its files are: the URI that pods load from. Absent where the source leads nowhere; `problem` says why.
    #[serde(
        default,
        rename = "artifactURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_uri: Option<String>,
    /// What it was registered from, as the registry keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The run that logged it.
    #[serde(default, rename = "runID", skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// When it was registered. With name, number and source this tells it from a version of a model that was made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// Who registered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// How long its run took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<i64>,
    /// The size of its files, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Its metrics, as text: floats differ from reader to reader. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, String>,
    /// Its hyperparameters. At most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The code that trained it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<CodeLineage>,
    /// The data that it was trained and tested with. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::datasets")]
    pub datasets: Vec<Dataset>,
    /// Why it cannot be deployed, where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Data that a run read, as MLflow recorded it.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// MLflow's digest of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What it was used for, such as training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// The code that trained a version, as MLflow recorded it.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CodeLineage {
    /// The repository's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The entry point of an MLflow project, or the file that was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_point: Option<String>,
}

impl RegisteredModel {
    /// The namespace of the registry that the spec names.
    #[must_use]
    pub fn registry_namespace(&self) -> String {
        let named = self.spec.registry_ref.namespace.clone();
        named
            .or_else(|| self.metadata.namespace.clone())
            .unwrap_or_default()
    }

    /// The model's name in the registry.
    #[must_use]
    pub fn model_name(&self) -> &str {
        self.spec
            .model_name
            .as_deref()
            .or(self.metadata.name.as_deref())
            .unwrap_or_default()
    }
}
