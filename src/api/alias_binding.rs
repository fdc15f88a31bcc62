//! `AliasBinding`: the alias that drives a workload, and the history of the versions that ran.
//!
//! Absent: fields whose behaviour is not built. No accepted field is ignored.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::conditions::shorten;
use super::inject::Inject;
use super::promotion::{GateState, Promotion, PromotionGate};
use super::public_uri::without_secrets;
use super::registered_model::CodeLineage;
use super::rollback::{GoodVersion, HeldBack, Lost, Postponed, Retrain, RetrainState, Rollback};
use super::template::TemplateMetadata;
use super::{Reason, VersionRef, Word, names, schema};

/// An alias that drives a workload.
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
    doc = "Binds an alias of a registered model to a workload: moving the alias is the deployment, moving it back is the rollback.",
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
#[x_kube(validation = Rule::new("has(self.alias) != has(self.stage)").message("a binding follows one alias or stage: set alias (or, for registries that still use stages, stage), not both and not none"))]
#[x_kube(validation = Rule::new("has(self.targetRef) != has(self.template)").message("a binding drives one workload: set targetRef to name one that exists, or template to have one created, not both and not none"))]
#[x_kube(validation = Rule::new("has(self.template) == has(oldSelf.template)").message("a binding cannot change between targetRef and template: delete it and create another (the workload keeps serving with targetRef, or with deletionPolicy: Orphan)"))]
#[x_kube(validation = Rule::new("!has(self.targetRef) || self.deletionPolicy == 'Delete'").message("deletionPolicy is for a template's Deployment: the workload in targetRef is never deleted, so leave deletionPolicy out"))]
#[x_kube(validation = Rule::new("!has(self.targetRef) || self.targetRef.apiVersion in ['apps/v1', 'argoproj.io/v1alpha1', 'batch/v1'] || (self.targetRef.apiVersion.startsWith('serving.kserve.io/') && self.targetRef.kind in ['InferenceService', 'LLMInferenceService']) || (has(self.inject) && has(self.inject.fields))").message("a kind without pods of its own gets a version by its fields: name them in inject.fields, such as {path: spec.model.uri, value: $(ModelURI)}"))]
#[x_kube(validation = Rule::new("!has(self.inject) || !has(self.inject.fields) || (has(self.targetRef) && !(self.targetRef.apiVersion in ['apps/v1', 'argoproj.io/v1alpha1', 'batch/v1']))").message("inject.fields is for kinds without pods of their own: the containers of this kind get variables, so leave it out or use inject.variables"))]
#[x_kube(validation = Rule::new("!has(self.inject) || !(has(self.inject.containers) || has(self.inject.variables)) || !has(self.targetRef) || self.targetRef.apiVersion in ['apps/v1', 'argoproj.io/v1alpha1', 'batch/v1']").message("a kind without pods of its own has no containers: name its fields in inject.fields instead"))]
#[serde(rename_all = "camelCase")]
pub struct AliasBindingSpec {
    /// The RegisteredModel whose alias or stage is followed. It is in the binding's namespace.
    pub model_ref: ModelReference,
    /// The alias to follow, such as champion. Set either alias or stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.matches('^(?i)(latest|v[0-9]+)$')").message("MLflow reserves latest and v<number>: follow another alias, such as champion, or set pinnedVersion"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\\\s/:.@%]')").message("an alias holds letters, digits, _ and - only"))]
    pub alias: Option<String>,
    /// The stage to follow, for registries that still use stages: the newest version in it. Set either alias or stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub stage: Option<String>,
    /// An existing workload in the binding's namespace. Only the injected fields are changed. Immutable. Set either
    /// targetRef or template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("targetRef cannot be changed: delete this binding (its workload keeps serving) and create another"))]
    pub target_ref: Option<TargetReference>,
    /// A Deployment to create and own, with the binding's name. Set either targetRef or template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<DeploymentTemplate>,
    /// The containers that the version is injected into, and the names of its variables.
    #[serde(default)]
    pub inject: Inject,
    /// The rules by which a wanted version goes forward. Default: it does so at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
    /// The reaction to a version that fails.
    #[serde(default)]
    pub rollback: Rollback,
    /// A Job that trains a version again if no version is left to roll back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrain: Option<Retrain>,
    /// Run this version, whatever the alias says. The version's number, as a string: "4".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,18}$"))]
    pub pinned_version: Option<String>,
    /// True: change nothing in the cluster but this object's status. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// The number of entries to keep in status.history, from 1 to 100. Default: 10.
    #[serde(default = "default_history_limit")]
    #[schemars(range(min = 1, max = 100))]
    pub history_limit: i32,
    /// Delete: the Deployment made from template is deleted with the binding. Orphan: it stays and keeps serving. Default:
    /// Delete.
    #[serde(default)]
    pub deletion_policy: WorkloadDeletionPolicy,
}

fn default_history_limit() -> i32 {
    10
}

/// A `RegisteredModel` in the same namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelReference {
    /// The RegisteredModel's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A workload in the same namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("(self.kind in ['Deployment', 'StatefulSet', 'DaemonSet']) == (self.apiVersion == 'apps/v1')").message("apiVersion and kind do not fit together: apps/v1 goes with Deployment, StatefulSet and DaemonSet"))]
#[x_kube(validation = Rule::new("(self.kind == 'Rollout') == (self.apiVersion == 'argoproj.io/v1alpha1')").message("apiVersion and kind do not fit together: argoproj.io/v1alpha1 goes with Rollout"))]
#[x_kube(validation = Rule::new("(self.kind == 'CronJob') == (self.apiVersion == 'batch/v1')").message("apiVersion and kind do not fit together: batch/v1 goes with CronJob"))]
#[serde(rename_all = "camelCase")]
pub struct TargetReference {
    /// The API version of the kind, such as argoproj.io/v1alpha1. Default: apps/v1.
    #[serde(default = "apps")]
    #[schemars(
        regex(pattern = r"^([a-z0-9.-]+/)?v[0-9][a-z0-9]*$"),
        length(max = 128)
    )]
    pub api_version: String,
    /// The kind of the workload. All but Deployments are switched on by targets in the chart's values. Default: Deployment.
    #[serde(default = "deployment")]
    #[schemars(regex(pattern = r"^[A-Z][A-Za-z0-9]*$"), length(max = 63))]
    pub kind: String,
    /// The workload's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn apps() -> String {
    APPS.to_owned()
}

fn deployment() -> String {
    TargetKind::Deployment.as_str().to_owned()
}

/// The API version of Deployments, StatefulSets and DaemonSets.
const APPS: &str = "apps/v1";

/// The kind of a target.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum TargetKind {
    /// A Deployment.
    #[default]
    Deployment,
    /// A StatefulSet.
    StatefulSet,
    /// A DaemonSet.
    DaemonSet,
    /// An Argo Rollout.
    Rollout,
    /// A CronJob.
    CronJob,
    /// Any other kind: a version sets the fields that a binding names.
    Other(OtherKind),
}

/// A kind of which nothing but its name is known.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OtherKind {
    /// Its API version.
    pub api_version: String,
    /// Its name.
    pub kind: String,
}

impl TargetKind {
    /// The kinds with pod templates.
    pub const KNOWN: [Self; 5] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Rollout,
        Self::CronJob,
    ];

    /// The kind of this name.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Self {
        let mut known = Self::KNOWN.into_iter();
        let known = known.find(|each| each.api_version() == api_version && each.as_str() == kind);
        known.unwrap_or_else(|| {
            Self::Other(OtherKind {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            })
        })
    }

    /// The kind as manifests write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Rollout => "Rollout",
            Self::CronJob => "CronJob",
            Self::Other(other) => &other.kind,
        }
    }

    /// The resource as kubectl takes it.
    #[must_use]
    pub fn resource(&self) -> String {
        let kind = self.as_str().to_lowercase();
        match self {
            Self::Other(other) => match other.api_version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}"),
                None => kind,
            },
            _ => kind,
        }
    }

    /// The API version of the kind.
    #[must_use]
    pub fn api_version(&self) -> &str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => APPS,
            Self::Rollout => "argoproj.io/v1alpha1",
            Self::CronJob => "batch/v1",
            Self::Other(other) => &other.api_version,
        }
    }

    /// How to switch the kind on in the values of the chart; Deployments are always on.
    #[must_use]
    pub fn chart_value(&self) -> String {
        match self {
            Self::Deployment => "set --targets".to_owned(),
            Self::StatefulSet => "set targets.statefulSets=true".to_owned(),
            Self::DaemonSet => "set targets.daemonSets=true".to_owned(),
            Self::Rollout => "set targets.rollouts=true".to_owned(),
            Self::CronJob => "set targets.cronJobs=true".to_owned(),
            Self::Other(OtherKind { api_version, kind }) => {
                let (group, version) = api_version
                    .split_once('/')
                    .unwrap_or(("", api_version.as_str()));
                let plural = kind.to_lowercase();
                format!(
                    "add {{group: {group}, version: {version}, kind: {kind}, plural: {plural}s}} to targets.others"
                )
            }
        }
    }

    /// Whether the pods belong to the workload itself, and not to ReplicaSets.
    #[must_use]
    pub const fn owns_pods(&self) -> bool {
        matches!(self, Self::StatefulSet | Self::DaemonSet)
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A Deployment to create.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentTemplate {
    /// Labels and annotations of the Deployment.
    #[serde(default)]
    pub metadata: TemplateMetadata,
    /// The Deployment's spec. Default of `selector`: the label pointsman.dev/binding with the binding's name.
    #[schemars(schema_with = "schema::opaque")]
    pub spec: Map<String, Value>,
}

/// The fate of an owned Deployment when its binding is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum WorkloadDeletionPolicy {
    /// It is deleted with the binding.
    #[default]
    Delete,
    /// It stays and keeps serving.
    Orphan,
}

/// The wanted version, the running one, their condition, and the history.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))] // one writer: managedFields hold one entry for the status
#[serde(rename_all = "camelCase")]
pub struct AliasBindingStatus {
    /// The generation of the spec that this status was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The alias or stage that the binding follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
    /// The number of the version that pinnedVersion, the alias or the stage names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// The version that the registry last reported for the alias or stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<AliasState>,
    /// The version in the workload's pod template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<VersionState>,
    /// The newest version that was rolled out completely and stayed healthy for rollback.bakeSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<GoodVersion>,
    /// The versions that failed. They are tried again when the alias moves, when the spec of the binding or of the workload's
    /// pod template changes, or when a person sets the annotation pointsman.dev/retry-requested-at to a new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<HeldBack>,
    /// The version that is tried again later, because its blocked rollout cost serving capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postponed: Option<Postponed>,
    /// The good version that can no longer be rolled back to, with the code and data that trained it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// The results of promotion.gates for the wanted version. Absent if it needs none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::keyed_by_name::<GateState>")]
    pub gates: Vec<GateState>,
    /// The Job that trains the lost version again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrain: Option<RetrainState>,
    /// A change that a person made to the workload. It is kept until the alias moves or a person sets the annotation
    /// pointsman.dev/resume-requested-at to a new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The last value of the annotation pointsman.dev/resume-requested-at that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_resume: Option<String>,
    /// The last value of the annotation pointsman.dev/retry-requested-at that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_retry: Option<HandledRequest>,
    /// The last value of the annotation pointsman.dev/apply-requested-at that was handled. Such a request writes the
    /// registry's present address and the present location of the version's files into the workload; otherwise they go along
    /// with the next version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_apply: Option<AppliedRequest>,
    /// The versions that ran, newest first, and those that were held back before they could run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::atomic::<HistoryEntry>")]
    pub history: Vec<HistoryEntry>,
    /// The conditions Ready, Reconciling, Stalled, Resolved, ArtifactAvailable and GatesPassed, and those of other controllers.
    #[serde(default)]
    #[schemars(schema_with = "schema::keyed_by_type::<Condition>")]
    pub conditions: Vec<Condition>,
}

/// The version that an alias or stage names.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AliasState {
    /// The version's number.
    pub version: String,
    /// When the alias was first seen at this version.
    pub since: Time,
}

/// A version in the workload.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionState {
    /// The version.
    #[serde(flatten)]
    pub version: VersionRef,
    /// Since when the workload has held it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// A request by annotation that was handled.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HandledRequest {
    /// The annotation's value.
    pub value: String,
    /// When it was handled.
    pub at: Time,
}

/// A request to write the registry's present address and the present location of the version's files.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedRequest {
    /// The annotation's value.
    pub value: String,
    /// When it was handled.
    pub at: Time,
    /// The version as the workload held it before, to go back to. Absent if there was nothing to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<VersionRef>,
    /// Why the workload failed with it, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A change that a person made to the workload.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The version that was wanted when the person changed the workload. The hold ends when another one is wanted.
    pub wanted: VersionRef,
    /// The field manager that wrote the change, such as kubectl.
    pub manager: String,
    /// When the change was first seen.
    pub since: Time,
}

/// A period in which the workload held one version.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The version.
    #[serde(flatten)]
    pub version: VersionRef,
    /// The code that trained the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<CodeLineage>,
    /// RollingOut, Blocked, ScaledToZero, Baking, Live, Failed, RolledBack, HeldBack or Superseded.
    pub outcome: Word<Outcome>,
    /// The reason of the outcome, as one word.
    pub reason: Word<Reason>,
    /// The reason of the outcome, as a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the version was written into the workload.
    pub started_at: Time,
    /// Since when all replicas run the version and are available; later if a chosen container restarted while the version baked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_at: Option<Time>,
    /// When the version had stayed healthy for rollback.bakeSeconds. From then on it can be rolled back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_at: Option<Time>,
    /// When another version was written into the workload. Absent while this one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The cause of the change: AliasMove, Pin, Person, Failure or SpecChange.
    pub trigger: Word<Trigger>,
    /// What would have held the version, if a person had it go forward all the same by a pin or a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrode: Option<Overrode>,
    /// The approval by which the version went forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalRecord>,
}

/// An approval.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalRecord {
    /// Who approved: a user of the cluster, or the field manager of the change if the user is not known; see knownBy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// User: approvedBy is the user whom the API server knows. FieldManager: it is the name by which the client called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_by: Option<Word<KnownBy>>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Why: the annotation pointsman.dev/approval-reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The annotation pointsman.dev/approval-ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

/// Where the name of an approver is from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum KnownBy {
    /// The API server: it authenticated the user.
    User,
    /// The client.
    FieldManager,
}

impl fmt::Display for KnownBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// A rule that a person's pin or retry went past.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overrode {
    /// The reason that the binding would have had, such as Frozen.
    pub reason: Word<Reason>,
    /// The same as a sentence.
    pub message: String,
    /// Why the person did it: the value of the annotation pointsman.dev/override-reason at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The outcome of a version in the workload.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Outcome {
    /// Being rolled out.
    RollingOut,
    /// Its rollout cannot go on, and the version is not to blame.
    Blocked,
    /// It is in the pod template of a workload without replicas.
    ScaledToZero,
    /// Rolled out completely, and under observation for rollback.bakeSeconds.
    Baking,
    /// Rolled out completely, healthy and running.
    Live,
    /// It failed. If finishedAt is absent, it is still in the workload.
    Failed,
    /// It failed, and the workload was rolled back to a good version.
    RolledBack,
    /// It was not written into the workload, because a gate refused it: its artifact cannot be read, or an expression is false.
    HeldBack,
    /// It ran until another version replaced it.
    Superseded,
}

/// The cause of a change of the workload.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Trigger {
    /// The alias or stage named this version.
    AliasMove,
    /// `spec.pinnedVersion` named it.
    Pin,
    /// A person changed the workload by hand, or requested a retry.
    Person,
    /// The previous version failed.
    Failure,
    /// The binding's or the workload's spec changed.
    SpecChange,
}

impl Trigger {
    /// All triggers.
    pub const ALL: [Self; 5] = [
        Self::AliasMove,
        Self::Pin,
        Self::Person,
        Self::Failure,
        Self::SpecChange,
    ];
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl HistoryEntry {
    /// Whether both entries are of one rollout.
    #[must_use]
    pub fn is_same_rollout(&self, other: &Self) -> bool {
        self.started_at == other.started_at && self.version.is_same(&other.version)
    }
}

impl AliasBindingStatus {
    /// All versions that the status knows by their full identity.
    pub fn known_versions(&self) -> impl Iterator<Item = &VersionRef> {
        let running = self.running.iter().map(|running| &running.version);
        let history = self.history.iter().map(|entry| &entry.version);
        let good = self.last_good.iter().map(|good| &good.version);
        let wanted = self.held_back.iter().map(|held_back| &held_back.wanted);
        running.chain(history).chain(good).chain(wanted)
    }

    /// The history entry of the version that the workload holds now.
    #[must_use]
    pub fn current(&self) -> Option<&HistoryEntry> {
        self.history
            .iter()
            .find(|entry| entry.finished_at.is_none())
    }
}

/// The longest text of a person that goes into the history, in characters.
const LONGEST_WORD: usize = 256;

/// A person's text as the history keeps it: without secrets in URIs, and not too long.
fn short_word(text: &str) -> String {
    shorten(&without_secrets(text), LONGEST_WORD)
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
    /// The gates of the spec.
    #[must_use]
    pub fn gates(&self) -> &[PromotionGate] {
        match &self.spec.promotion {
            Some(promotion) => &promotion.gates,
            None => &[],
        }
    }

    /// The value of the annotation that asks to end a hold.
    #[must_use]
    pub fn resume_request(&self) -> Option<&String> {
        self.metadata
            .annotations
            .as_ref()?
            .get(names::RESUME_ANNOTATION)
    }

    /// The value of the annotation that asks for a retry of the versions that are held back.
    #[must_use]
    pub fn retry_request(&self) -> Option<&String> {
        self.metadata
            .annotations
            .as_ref()?
            .get(names::RETRY_ANNOTATION)
    }

    /// The value of the annotation that asks for the registry's present address and the present location of the files.
    #[must_use]
    pub fn apply_request(&self) -> Option<&String> {
        self.metadata
            .annotations
            .as_ref()?
            .get(names::APPLY_ANNOTATION)
    }

    /// A person's text in an annotation, as the history keeps it.
    #[must_use]
    pub fn annotation_text(&self, annotation: &str) -> Option<String> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(annotation).map(|text| short_word(text))
    }

    /// Whether a retry was requested that has not been handled.
    #[must_use]
    pub fn has_new_retry_request(&self) -> bool {
        let acted_on = self
            .status
            .as_ref()
            .and_then(|status| status.last_handled_retry.as_ref());
        self.retry_request()
            .is_some_and(|asked| acted_on.is_none_or(|acted_on| acted_on.value != *asked))
    }

    /// The kind of the workload that the binding drives.
    #[must_use]
    pub fn target_kind(&self) -> TargetKind {
        match &self.spec.target_ref {
            Some(target) => TargetKind::of(&target.api_version, &target.kind),
            None => TargetKind::Deployment,
        }
    }

    /// The name of the workload that the binding drives.
    #[must_use]
    pub fn workload_name(&self) -> &str {
        let own = || self.metadata.name.as_deref().unwrap_or_default();
        self.spec
            .target_ref
            .as_ref()
            .map_or_else(own, |target| target.name.as_str())
    }

    /// Kind and name of that workload as kubectl takes them, for instance `deployment/server`.
    #[must_use]
    pub fn workload_reference(&self) -> String {
        format!("{}/{}", self.target_kind().resource(), self.workload_name())
    }
}
