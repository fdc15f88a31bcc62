//! What is done about a version that fails, and what is remembered of it.
//!
//! Absent: the judgement itself. That is in `rollout`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::alias_binding::{HeldVersion, TemplateMetadata};
use super::registered_model::{CodeLineage, Dataset};
use super::{Reason, schema};

/// What is done about a version that fails.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// Rollback: run the newest earlier version that was good, still exists and can be read. Report: change nothing, and
    /// report the failure in the status. Default: Rollback.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How often a container of the new version may restart, from 0 to 100. One that is in CrashLoopBackOff after so many
    /// restarts, or restarts once more, has failed.
    #[serde(default = "default_max_restarts")]
    #[schemars(range(min = 0, max = 100))]
    pub max_restarts: i32,
    /// For how many seconds after the rollout the new version's pods must stay ready, from 0 to 86400. A version that was
    /// good before is not watched again.
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

/// How a version is trained again where nothing is left to go back to.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retrain {
    /// A Job, made once for each version that is lost and owned by the binding. Its containers get what MLflow recorded of
    /// the lost version's training as environment variables, RETRAIN_MODEL_NAME, RETRAIN_MODEL_VERSION, RETRAIN_RUN_ID,
    /// RETRAIN_REPOSITORY, RETRAIN_COMMIT, RETRAIN_BRANCH, RETRAIN_ENTRY_POINT, RETRAIN_PARAMETERS and RETRAIN_DATASETS
    /// (both JSON), and MLFLOW_TRACKING_URI unless they set it. What MLflow did not record is empty.
    pub job_template: JobTemplate,
}

/// A Job to make.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplate {
    /// The Job's labels and annotations.
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
    /// The version that was wanted when they failed; another one ends it.
    pub wanted: HeldVersion,
    /// A digest of the binding's and the workload's spec when they failed; another one ends it.
    pub spec_digest: String,
    /// The versions, in the order in which they failed.
    #[schemars(schema_with = "schema::failed_versions")]
    pub versions: Vec<FailedVersion>,
}

/// A version that failed, and why.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedVersion {
    /// The version's number.
    pub version: String,
    /// Where its files are.
    #[serde(
        default,
        rename = "artifactURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_uri: Option<String>,
    /// Why, as one word.
    pub reason: Reason,
    /// Why, as a sentence.
    pub message: String,
    /// When it was seen to fail.
    pub since: Time,
}

/// A version that was good, with what can train it again.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GoodVersion {
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
    /// Since when it was good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What can train it again.
    #[serde(default)]
    pub lineage: Lineage,
}

/// What MLflow recorded of a training.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// The code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<CodeLineage>,
    /// The hyperparameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::datasets")]
    pub datasets: Vec<Dataset>,
}

/// A version that cannot be gone back to any more.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// The version's number.
    pub version: String,
    /// Where its files were.
    #[serde(
        default,
        rename = "artifactURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_uri: Option<String>,
    /// The run that logged it.
    #[serde(default, rename = "runID", skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// What can train it again.
    #[serde(default)]
    pub lineage: Lineage,
    /// What MLflow did not record of its training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::words")]
    pub missing: Vec<String>,
    /// When it was seen to be lost.
    pub since: Time,
}

/// A Job that trains a lost version again.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetrainState {
    /// The Job's name.
    pub job: String,
    /// The version that it trains again.
    pub version: String,
    /// How it went.
    pub outcome: RetrainOutcome,
    /// The Job's own words, or the API server's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How a Job went.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum RetrainOutcome {
    /// It was made, and has not ended.
    Running,
    /// It ended well: the alias decides about the version that it registered.
    Succeeded,
    /// It ended badly.
    Failed,
    /// The API server refused to make it.
    Refused,
}
