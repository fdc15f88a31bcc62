//! The settings of automatic rollback, and its part of the status: failed, good and lost versions.
//!
//! Absent: the decision that a version failed. That is in `rollout`.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::registered_model::{CodeLineage, Dataset};
use super::template::TemplateMetadata;
use super::{Reason, VersionRef, Word, schema};

/// The reaction to a version that fails.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// Rollback: run the newest earlier version that was good, still exists and can be read. Report: change nothing, and
    /// report the failure in the status. Default: Rollback.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// The number of restarts that a container of the new version may have, from 0 to 100. After so many restarts the version
    /// fails if the container is in CrashLoopBackOff or restarts again. Default: 3.
    #[serde(default = "default_max_restarts")]
    #[schemars(range(min = 0, max = 100))]
    pub max_restarts: i32,
    /// The number of seconds that the new version's pods must stay ready after the rollout, from 0 to 86400. A version that was
    /// good before does not bake again. Default: 60.
    #[serde(default = "default_bake_seconds")]
    #[schemars(range(min = 0, max = 86400))]
    pub bake_seconds: i32,
}

impl Default for Rollback {
    fn default() -> Self {
        Self {
            on_failure: OnFailure::default(),
            max_restarts: default_max_restarts(),
            bake_seconds: default_bake_seconds(),
        }
    }
}

fn default_max_restarts() -> i32 {
    3
}

fn default_bake_seconds() -> i32 {
    60
}

/// The reaction to a version that fails.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnFailure {
    /// Roll back to an earlier good version.
    #[default]
    Rollback,
    /// Change nothing; report the failure in the status.
    Report,
}

/// A Job that trains a version again if no version is left to roll back to.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retrain {
    /// A Job, created once for each lost version and owned by the binding. Its containers get MLflow's record of the lost
    /// version's training as environment variables: RETRAIN_MODEL_NAME, RETRAIN_MODEL_VERSION, RETRAIN_RUN_ID,
    /// RETRAIN_REPOSITORY, RETRAIN_COMMIT, RETRAIN_BRANCH, RETRAIN_ENTRY_POINT, RETRAIN_PARAMETERS and RETRAIN_DATASETS
    /// (both JSON), and MLFLOW_TRACKING_URI unless they set it. Values that MLflow did not record are empty.
    pub job_template: JobTemplate,
}

/// A Job to create.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplate {
    /// Labels and annotations of the Job.
    #[serde(default)]
    pub metadata: TemplateMetadata,
    /// The Job's spec.
    #[schemars(schema_with = "schema::opaque")]
    pub spec: Map<String, Value>,
}

/// The versions that failed while one version was wanted.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldBack {
    /// The version that was wanted when they failed. The list ends when another one is wanted.
    pub wanted: VersionRef,
    /// A digest of the specs of the binding and of the pod template when they failed. The list ends when it changes.
    pub spec_digest: String,
    /// The versions, in the order in which they failed. Empty while they are tried once more after a shared fault.
    #[schemars(schema_with = "schema::atomic::<FailedVersion>")]
    pub versions: Vec<FailedVersion>,
    /// A fault that the version that was rolled back to has in common with the versions that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_fault: Option<SharedFault>,
}

/// A fault that is not a version's: the version that was rolled back to fails in the same way.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedFault {
    /// The failure of the version that was rolled back to.
    pub message: String,
    /// When it was first seen.
    pub since: Time,
    /// When the failed versions were tried once more, because the version that was rolled back to was well again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_at: Option<Time>,
}

/// A version that was taken out of the workload because its blocked rollout cost serving capacity. It did not fail.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Postponed {
    /// The version.
    #[serde(flatten)]
    pub version: VersionRef,
    /// A digest of the specs of the binding and of the pod template: if it changes, the version is tried at once.
    pub spec_digest: String,
    /// What blocked the rollout, as a sentence.
    pub message: String,
    /// How often its rollout was blocked until the progress deadline.
    pub attempts: i32,
    /// When it is tried again.
    pub retry_at: Time,
}

impl Postponed {
    /// The version as the decision sees a version to keep out of the workload.
    #[must_use]
    pub fn as_held_back(&self) -> HeldBack {
        let blocked = FailedVersion {
            version: self.version.clone(),
            reason: Reason::Blocked.into(),
            message: self.message.clone(),
            since: self.retry_at.clone(),
        };
        HeldBack {
            wanted: self.version.clone(),
            spec_digest: self.spec_digest.clone(),
            versions: vec![blocked],
            shared_fault: None,
        }
    }
}

impl HeldBack {
    /// The failed version that is this one.
    #[must_use]
    pub fn find(&self, version: &VersionRef) -> Option<&FailedVersion> {
        self.versions
            .iter()
            .find(|failed| failed.version.is_same(version))
    }

    /// Whether a version is held back.
    #[must_use]
    pub fn contains(&self, version: &VersionRef) -> bool {
        self.find(version).is_some()
    }
}

/// A version that failed, and the reason.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedVersion {
    /// The version.
    #[serde(flatten)]
    pub version: VersionRef,
    /// The reason of the failure, as one word.
    pub reason: Word<Reason>,
    /// The reason of the failure, as a sentence.
    pub message: String,
    /// When the failure was first seen.
    pub since: Time,
}

/// A version that was good, with the code and data that trained it.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GoodVersion {
    /// The version.
    #[serde(flatten)]
    pub version: VersionRef,
    /// Since when the version is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The code, parameters and data that trained the version.
    #[serde(default)]
    pub lineage: Lineage,
}

/// MLflow's record of a training.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// The code that trained the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<CodeLineage>,
    /// The hyperparameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The data sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::atomic::<Dataset>")]
    pub datasets: Vec<Dataset>,
}

/// A good version that can no longer be rolled back to.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// The version.
    #[serde(flatten)]
    pub version: VersionRef,
    /// The code, parameters and data that trained the version.
    #[serde(default)]
    pub lineage: Lineage,
    /// The parts of its training that MLflow did not record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::words")]
    pub missing: Vec<String>,
    /// When the loss was first seen.
    pub since: Time,
}

/// A Job that trains a lost version again.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetrainState {
    /// The Job's name.
    pub job: String,
    /// The number of the version that the Job trains again.
    pub version: String,
    /// Running, Succeeded, Failed or Refused.
    pub outcome: Word<RetrainOutcome>,
    /// The message of the Job, or of the API server that refused it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The outcome of a Job.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum RetrainOutcome {
    /// It was created and has not ended.
    Running,
    /// It succeeded. The version that it registered runs when the alias names it.
    Succeeded,
    /// It failed.
    Failed,
    /// The API server refused to create it. It is tried again with backoff, and at once after a change of the spec.
    Refused,
}

impl fmt::Display for RetrainOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}
