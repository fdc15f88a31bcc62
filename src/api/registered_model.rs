//! `RegisteredModel`: a registered model of a registry, its declared attributes, and a mirror of its aliases and versions.
//!
//! Absent: any workload. A mirror deploys nothing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{VersionId, VersionRef, schema};

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
    doc = "A registered model: its declared attributes, and a mirror of its aliases and versions in the registry.",
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
#[x_kube(validation = Rule::new("self.registryRef == oldSelf.registryRef").message("registryRef cannot be changed: delete this RegisteredModel and create another for the other registry"))]
#[x_kube(validation = Rule::new("has(self.modelName) == has(oldSelf.modelName) && (!has(self.modelName) || self.modelName == oldSelf.modelName)").message("modelName cannot be changed: delete this RegisteredModel and create another for the other model"))]
#[serde(rename_all = "camelCase")]
pub struct RegisteredModelSpec {
    /// The registry that holds the model. Immutable. A namespace with access: Read to the registry
    /// (spec.allowedNamespaces.access) may only observe: there creationPolicy must be Observe, deletionPolicy Retain, and
    /// description, tags and aliases must be absent.
    pub registry_ref: RegistryReference,
    /// The model's name in the registry: no /, no : and no control characters. Default: this object's name. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.contains('/') && !self.contains(':')").message("modelName must hold no / and no : (MLflow refuses both)"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\\\x00-\\\\x1f\\\\x7f-\\\\x9f\\\\x{2028}\\\\x{2029}]')").message("modelName must hold no control characters and no line breaks"))]
    #[x_kube(validation = Rule::new("self.matches('[^ ]') && self != '.' && !self.startsWith('..')").message("modelName must not be blank, . or begin with .. (MLflow refuses these)"))]
    pub model_name: Option<String>,
    /// Create: create the registered model if the registry has none. Observe: create nothing. Default: Create.
    #[serde(default)]
    pub creation_policy: CreationPolicy,
    /// The description that the registered model is kept at, at most 5000 characters. Default: it is not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5000))]
    pub description: Option<String>,
    /// Tags that the registered model is kept at, at most 100. Other tags are not changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub tags: BTreeMap<String, String>,
    /// Aliases that are kept at these versions, at most 100. Other aliases are not changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::keyed_by_name::<DeclaredAlias>", extend("maxItems" = 100))]
    pub aliases: Vec<DeclaredAlias>,
    /// Retain: the registered model stays in the registry when this object is deleted. Delete: it is deleted from the
    /// registry with all its versions, if this object created it (status.ownedModelCreatedAt). Default: Retain.
    #[serde(default)]
    pub deletion_policy: ModelDeletionPolicy,
}

/// A `ModelRegistry`.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryReference {
    /// The ModelRegistry's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The ModelRegistry's namespace; its spec.allowedNamespaces must include this one. Default: this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// The reaction to a model that the registry does not have.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum CreationPolicy {
    /// Create it.
    #[default]
    Create,
    /// Create nothing.
    Observe,
}

/// The fate of the registered model when its object is deleted.
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

/// A mirror of the registered model in the registry.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))] // one writer: managedFields hold one entry for the status
#[serde(rename_all = "camelCase")]
pub struct RegisteredModelStatus {
    /// The generation of the spec that this status was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The model's name in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// When the registered model was created, to the millisecond. A new time means that it was deleted and created again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<MicroTime>,
    /// The creation time of the registered model that this object created. With deletionPolicy Delete that one is deleted, and
    /// no other of its name. Absent if the registry had the model already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned_model_created_at: Option<MicroTime>,
    /// The registry's address for pods: their MLFLOW_TRACKING_URI.
    #[serde(
        default,
        rename = "trackingURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub tracking_uri: Option<String>,
    /// The registry's workspace, for the pods' MLFLOW_WORKSPACE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// The newest version's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_version: Option<String>,
    /// The aliases: all that a binding follows or the spec declares, then others by name, 64 in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::keyed_by_name::<MirroredAlias>")]
    pub aliases: Vec<MirroredAlias>,
    /// The newest version in each stage, if the registry uses stages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::keyed_by_name::<MirroredStage>")]
    pub stages: Vec<MirroredStage>,
    /// The versions: all that are followed or pinned, then others that are aliased and the newest ones, 24 in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::keyed_by_version::<ModelVersion>")]
    pub versions: Vec<ModelVersion>,
    /// The conditions Ready, Reconciling and Stalled, and those of other controllers.
    #[serde(default)]
    #[schemars(schema_with = "schema::keyed_by_type::<Condition>")]
    pub conditions: Vec<Condition>,
}

/// An alias in the registry.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirroredAlias {
    /// The alias.
    pub name: String,
    /// The version's number.
    pub version: String,
    /// When the alias was first seen at this version.
    pub since: Time,
}

/// A stage in the registry.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirroredStage {
    /// The stage.
    pub name: String,
    /// The number of the newest version in the stage.
    pub version: String,
    /// When this version was first seen in the stage.
    pub since: Time,
}

/// A version and its details. But for tags they never change, so they are read once.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelVersion {
    /// The version's number.
    pub version: String,
    /// The URI of the version's files, which pods load. Absent if the source cannot be resolved; see problem.
    #[serde(
        default,
        rename = "artifactURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_uri: Option<String>,
    /// True: the URI has a query, such as a signature. It is written into pod templates and shown nowhere else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub query_withheld: bool,
    /// The source that the version was registered from, as the registry keeps it, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The MLflow run that logged the version.
    #[serde(default, rename = "runID", skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// When the version was registered. Model, number, creation time and source together identify a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// The user who registered the version; if the registry does not say, the user who started its run, as MLflow's client
    /// called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The duration of the run that trained it, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<i64>,
    /// The size of the version's files, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// The metrics of the run, as text, because floats differ between programs. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, String>,
    /// The hyperparameters of the run, without those whose names look like secrets. At most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The tags of the version, without those whose names look like secrets, at most 64. They are read only while the version
    /// waits for a binding with gates, at each poll; afterwards they stay as they were then. Absent if they were not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// The code that trained the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<CodeLineage>,
    /// The data sets that trained and tested the version. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::atomic::<Dataset>")]
    pub datasets: Vec<Dataset>,
    /// True if metrics, parameters, tags and data sets are left out, because the object would be too large with them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub details_omitted: bool,
    /// The reason why the version cannot be deployed, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl ModelVersion {
    /// The identity and the attributes that go into a pod template.
    #[must_use]
    pub fn reference(&self, model: &str) -> VersionRef {
        VersionRef {
            id: VersionId {
                model: model.to_owned(),
                version: self.version.clone(),
                created_at: self.created_at.clone(),
                source: self.source.clone(),
            },
            artifact_uri: self.artifact_uri.clone(),
            query_withheld: self.query_withheld,
            run_id: self.run_id.clone(),
            ..VersionRef::default()
        }
    }
}

/// A data set of a run, as MLflow recorded it.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dataset {
    /// The data set's name.
    pub name: String,
    /// MLflow's digest of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The use of the data set, such as training.
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
    /// The git commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The git branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The entry point of an MLflow project, or the file that was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_point: Option<String>,
}

impl RegisteredModelSpec {
    /// The fields by which this object changes the registry.
    #[must_use]
    pub fn changes(&self) -> Vec<&'static str> {
        let fields = [
            (
                "creationPolicy",
                self.creation_policy == CreationPolicy::Create,
            ),
            ("description", self.description.is_some()),
            ("tags", !self.tags.is_empty()),
            ("aliases", !self.aliases.is_empty()),
            (
                "deletionPolicy",
                self.deletion_policy == ModelDeletionPolicy::Delete,
            ),
        ];
        let set = fields.into_iter().filter(|(_, is_set)| *is_set);
        set.map(|(field, _)| field).collect()
    }
}

/// Whether a registry can have a model of this name. One that it cannot have is never sent: it may fail the request for
/// many models that it is part of.
#[must_use]
pub fn is_model_name(name: &str) -> bool {
    let is_forbidden = |c: char| c.is_control() || matches!(c, '/' | ':' | '\u{2028}' | '\u{2029}');
    !name.trim_matches(' ').is_empty()
        && name != "."
        && !name.starts_with("..")
        && name.chars().count() <= 255
        && !name.contains(is_forbidden)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(name: &str) -> RegisteredModel {
        let spec = json!({"registryRef": {"name": "mlflow"}, "modelName": name});
        RegisteredModel::new("taxi", serde_json::from_value(spec).expect("a spec"))
    }

    #[test]
    fn admission_refuses_exactly_the_names_that_no_registry_can_have() {
        for name in [
            "a",
            "a b",
            " a",
            "a.b",
            "it's 100% \"fair\"",
            "modèle",
            "名前",
            "a$(HOME)",
            "\u{1f600}",
            "--",
            "a\\b",
            "{}",
            "%s",
            "\u{a0}b",
        ] {
            assert!(is_model_name(name), "{name:?}");
            assert!(model(name).validate_cel().is_ok(), "{name:?} was refused");
        }
        for name in [
            " ",
            "a/b",
            "a:b",
            "a\u{0}b",
            "a\nb",
            "a\tb",
            "\u{1b}[31m",
            "a\u{7f}",
            "a\u{85}b",
            "a\u{2028}b",
            ".",
            "..",
            "../a",
        ] {
            assert!(!is_model_name(name), "{name:?}");
            assert!(model(name).validate_cel().is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn the_fields_that_change_a_registry_are_listed() {
        let all = json!({"registryRef": {"name": "mlflow"}, "description": "fares", "tags": {"a": "b"},
            "aliases": [{"name": "champion", "version": "1"}], "deletionPolicy": "Delete"});
        let all: RegisteredModelSpec = serde_json::from_value(all).expect("a spec");
        let fields = [
            "creationPolicy",
            "description",
            "tags",
            "aliases",
            "deletionPolicy",
        ];
        assert_eq!(all.changes(), fields);
        let none = json!({"registryRef": {"name": "mlflow"}, "creationPolicy": "Observe"});
        let none: RegisteredModelSpec = serde_json::from_value(none).expect("a spec");
        assert!(none.changes().is_empty());
    }
}
