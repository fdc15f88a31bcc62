//! `AliasBinding`: which alias drives which Deployment, and the record of what ran.
//!
//! Absent: fields whose behaviour is not built. Nothing that is accepted here is ignored.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::registered_model::CodeLineage;
use super::rollback::{GoodVersion, HeldBack, Lost, Retrain, RetrainState, Rollback};
use super::{Reason, names, schema};

/// An alias that drives a Deployment.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "pointsman.dev",
    version = "v1alpha1",
    kind = "AliasBinding",
    plural = "aliasbindings",
    namespaced,
    shortname = "abind",
    category = "pointsman",
    status = "AliasBindingStatus",
    derive = "PartialEq",
    cel,
    doc = "Binds an alias of a registered model to a Deployment: moving the alias is the deployment, moving it back is the rollback.",
    validation = Rule::new("size(self.metadata.name) <= 63").message("an AliasBinding's name becomes a label, so it holds 63 characters at most: choose a shorter one"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelRef.name"),
    printcolumn(name = "Alias", type_ = "string", json_path = ".status.follows"),
    printcolumn(name = "Wanted", type_ = "string", json_path = ".status.wanted"),
    printcolumn(name = "Running", type_ = "string", json_path = ".status.running.version"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRef.name", priority = 1),
    printcolumn(name = "Held-Back", type_ = "string", json_path = ".status.heldBack.versions[*].version", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.alias) != has(self.stage)").message("a binding follows one thing: set alias (or, for registries that still use stages, stage), not both and not none"))]
#[x_kube(validation = Rule::new("has(self.targetRef) != has(self.template)").message("a binding drives one Deployment: set targetRef to name one that exists, or template to have one made, not both and not none"))]
#[x_kube(validation = Rule::new("has(self.template) == has(oldSelf.template)").message("a binding cannot change between targetRef and template: delete it and make another (the workload keeps serving with targetRef, or with deletionPolicy: Orphan)"))]
#[x_kube(validation = Rule::new("!has(self.targetRef) || self.deletionPolicy == 'Delete'").message("deletionPolicy is for a template's Deployment: the Deployment in targetRef is never deleted, so leave deletionPolicy out"))]
#[serde(rename_all = "camelCase")]
pub struct AliasBindingSpec {
    /// The RegisteredModel of this namespace.
    pub model_ref: ModelReference,
    /// The alias to follow, such as champion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.matches('^(?i)(latest|v[0-9]+)$')").message("MLflow reserves latest and v<number>: follow another alias, such as champion, or set pinnedVersion"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\\\s/:.@%]')").message("an alias holds letters, digits, _ and - only"))]
    pub alias: Option<String>,
    /// The stage to follow, for registries that still use stages: the newest version in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub stage: Option<String>,
    /// A Deployment of this namespace that exists: only the injected fields of it are touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("targetRef cannot be changed: delete this binding (its Deployment keeps serving) and make another"))]
    pub target_ref: Option<TargetReference>,
    /// A Deployment to make and own, named after the binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<DeploymentTemplate>,
    /// Where the version is written to.
    #[serde(default)]
    pub inject: Inject,
    /// What is done about a version that fails.
    #[serde(default)]
    pub rollback: Rollback,
    /// How a version is trained again where nothing is left to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrain: Option<Retrain>,
    /// Run this version, whatever the alias says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,18}$"))]
    pub pinned_version: Option<String>,
    /// True: touch nothing.
    #[serde(default)]
    pub suspend: bool,
    /// How many entries of history to keep, from 1 to 100.
    #[serde(default = "default_history_limit")]
    #[schemars(range(min = 1, max = 100))]
    pub history_limit: i32,
    /// What becomes of a template's Deployment when the binding is deleted.
    #[serde(default)]
    pub deletion_policy: WorkloadDeletionPolicy,
}

fn default_history_limit() -> i32 {
    10
}

/// A `RegisteredModel` of this namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Deployment of this namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetReference {
    /// apps/v1.
    #[serde(default)]
    pub api_version: TargetApiVersion,
    /// Deployment.
    #[serde(default)]
    pub kind: TargetKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The API version of a target.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum TargetApiVersion {
    /// Deployments of today.
    #[default]
    #[serde(rename = "apps/v1")]
    AppsV1,
}

/// The kind of a target.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum TargetKind {
    /// A Deployment.
    #[default]
    Deployment,
}

/// A Deployment to make.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentTemplate {
    /// The Deployment's labels and annotations.
    #[serde(default)]
    pub metadata: TemplateMetadata,
    /// The Deployment's spec. Where `selector` is left out, it selects the binding's own label.
    #[schemars(schema_with = "schema::opaque")]
    pub spec: Map<String, Value>,
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where the version is written to.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inject {
    /// The containers that get the environment variables; the first container where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::container_names")]
    pub containers: Option<Vec<String>>,
}

/// What becomes of an owned Deployment when its binding is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum WorkloadDeletionPolicy {
    /// It goes with the binding.
    #[default]
    Delete,
    /// It stays and keeps serving.
    Orphan,
}

/// What is wanted, what runs, is it well, why not, and what ran before.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))] // one writer: who wrote each of its fields is kept by nobody
#[serde(rename_all = "camelCase")]
pub struct AliasBindingStatus {
    /// The generation of the spec that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The alias or stage that is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
    /// The number of the version that the pin, alias or stage asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What the registry said last of the alias or stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<AliasState>,
    /// What the workload's pod template holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<VersionState>,
    /// The version that was last rolled out whole, and stayed well for the time of rollback.bakeSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<GoodVersion>,
    /// The versions that failed and are not tried again while the same version is wanted: until the alias moves, the
    /// workload's or the binding's spec changes, or a person asks with the annotation pointsman.dev/retry-requested-at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<HeldBack>,
    /// The version that cannot be gone back to any more, and what can train it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// The Job that trains the lost version again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrain: Option<RetrainState>,
    /// A person's own change, which is left alone until the alias moves or a person resumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The value of the annotation pointsman.dev/resume-requested-at that was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_resume: Option<String>,
    /// The request to try again that was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_retry: Option<HandledRequest>,
    /// What ran, newest first; and what was to run but was not let.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::history")]
    pub history: Vec<HistoryEntry>,
    /// Ready, Reconciling, Stalled, Resolved, ArtifactAvailable.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What the registry said of an alias.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AliasState {
    /// The version's number.
    pub version: String,
    /// When this was first seen.
    pub since: Time,
}

/// A version in the workload.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionState {
    /// The version's number.
    pub version: String,
    /// Where its files are.
    #[serde(
        default,
        rename = "artifactURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_uri: Option<String>,
    /// The run that logged it.
    #[serde(default, rename = "runID", skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// A request by annotation that was acted on.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HandledRequest {
    /// The annotation's value.
    pub value: String,
    /// When it was acted on.
    pub at: Time,
}

/// A person's own change of the workload.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The version that was wanted when the person changed the workload; another one ends the hold.
    pub wanted: HeldVersion,
    /// The field manager that wrote the change, such as kubectl.
    pub manager: String,
    /// When it was first seen.
    pub since: Time,
}

/// A version, told from one of the same number of a model that was made again.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldVersion {
    /// The version's number.
    pub version: String,
    /// Where its files are.
    #[serde(
        default,
        rename = "artifactURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_uri: Option<String>,
}

/// One version's time in the workload.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The version's number.
    pub version: String,
    /// Where its files are.
    #[serde(
        default,
        rename = "artifactURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_uri: Option<String>,
    /// The run that logged it.
    #[serde(default, rename = "runID", skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The code that trained it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<CodeLineage>,
    /// How it went.
    pub outcome: Outcome,
    /// The word that goes with the outcome.
    pub reason: Reason,
    /// The sentence that goes with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the workload was changed to it.
    pub started_at: Time,
    /// When all replicas first ran it and were available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_at: Option<Time>,
    /// When it had stayed well for the time of rollback.bakeSeconds: from then on it is a version to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_at: Option<Time>,
    /// When the workload was changed to another; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// What changed the workload to it.
    pub trigger: Trigger,
}

/// How a version's time in the workload went.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Outcome {
    /// Being rolled out.
    RollingOut,
    /// Rolled out whole, and watched for the time of rollback.bakeSeconds.
    Baking,
    /// Rolled out whole and well, and running.
    Live,
    /// It failed. While finishedAt is absent, it is still in the workload.
    Failed,
    /// It failed, and the workload was taken back to a good version.
    RolledBack,
    /// It was not let into the workload, for its artifact cannot be read.
    HeldBack,
    /// It ran until another took its place.
    Superseded,
}

/// What changed the workload.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Trigger {
    /// The alias or stage named this version.
    AliasMove,
    /// `spec.pinnedVersion` named it.
    Pin,
    /// A person changed the workload by hand, or asked for a version to be tried again.
    Person,
    /// The version before it failed.
    Failure,
    /// The binding's or the workload's spec changed.
    SpecChange,
}

impl HistoryEntry {
    /// Whether it is this version: the number alone does not tell, for a model that was made again begins at 1 anew.
    #[must_use]
    pub fn is_version(&self, version: &str, artifact_uri: Option<&str>) -> bool {
        self.version == version && self.artifact_uri.as_deref() == artifact_uri
    }
}

impl AliasBindingStatus {
    /// The entry of what the workload holds now.
    #[must_use]
    pub fn current(&self) -> Option<&HistoryEntry> {
        self.history
            .iter()
            .find(|entry| entry.finished_at.is_none())
    }
}

impl AliasBindingSpec {
    /// The alias or stage that the binding follows, as people name it.
    #[must_use]
    pub fn follows(&self) -> &str {
        self.alias
            .as_deref()
            .or(self.stage.as_deref())
            .unwrap_or_default()
    }
}

impl AliasBinding {
    /// The value of the annotation that asks to end a hold.
    #[must_use]
    pub fn resume_request(&self) -> Option<&String> {
        self.metadata
            .annotations
            .as_ref()?
            .get(names::RESUME_ANNOTATION)
    }

    /// The value of the annotation that asks to try again what is held back.
    #[must_use]
    pub fn retry_request(&self) -> Option<&String> {
        self.metadata
            .annotations
            .as_ref()?
            .get(names::RETRY_ANNOTATION)
    }

    /// Whether a retry was asked for that has not been acted on.
    #[must_use]
    pub fn has_new_retry_request(&self) -> bool {
        let acted_on = self
            .status
            .as_ref()
            .and_then(|status| status.last_handled_retry.as_ref());
        self.retry_request()
            .is_some_and(|asked| acted_on.is_none_or(|acted_on| acted_on.value != *asked))
    }

    /// The name of the Deployment that the binding drives.
    #[must_use]
    pub fn workload_name(&self) -> &str {
        let own = || self.metadata.name.as_deref().unwrap_or_default();
        self.spec
            .target_ref
            .as_ref()
            .map_or_else(own, |target| target.name.as_str())
    }
}
