//! Bindings with their history, and the mirror of the registry.
//!
//! Absent: a second alias. Every binding follows `champion`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

use super::{MODEL, NOW, TRACKING_URI, With, time};
use crate::api::alias_binding::{HistoryEntry, Outcome, Trigger};
use crate::api::conditions::READY;
use crate::api::registered_model::MirroredAlias;
use crate::api::{
    AliasBinding, AliasBindingStatus, ModelVersion, Reason, RegisteredModel, RegisteredModelStatus,
    VersionId, VersionRef,
};
use crate::rollout::ArtifactCheck;

/// A version with its artifact `s3://m/<number>` and its run `r<number>`.
#[must_use]
pub fn version(number: &str) -> VersionRef {
    VersionRef {
        id: VersionId {
            model: MODEL.to_owned(),
            version: number.to_owned(),
            ..VersionId::default()
        },
        artifact_uri: Some(format!("s3://m/{number}")),
        query_withheld: false,
        run_id: Some(format!("r{number}")),
        ..VersionRef::default()
    }
}

/// The artifact check of a version.
#[must_use]
pub fn check(number: &str, must_exist: bool) -> ArtifactCheck {
    let version = version(number);
    ArtifactCheck {
        artifact_uri: version.artifact_uri.unwrap_or_default(),
        version: version.id,
        query_withheld: false,
        must_exist,
    }
}

/// The binding `taxi` of the alias `champion` and the Deployment `server`, with an empty status.
///
/// # Panics
/// Never, as long as the spec below is valid.
#[must_use]
pub fn binding() -> AliasBinding {
    let binding: AliasBinding = serde_json::from_value(json!({
        "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
        "metadata": {"name": "taxi", "namespace": "ml", "uid": "b", "creationTimestamp": NOW},
        "spec": {"modelRef": {"name": MODEL}, "alias": "champion", "targetRef": {"name": "server"}}}))
    .expect("a binding");
    binding.with(|binding| binding.status = Some(AliasBindingStatus::default()))
}

/// The binding with a history, newest entry first.
#[must_use]
pub fn binding_with(history: impl IntoIterator<Item = HistoryEntry>) -> AliasBinding {
    binding().with(|binding| {
        binding.status = Some(AliasBindingStatus {
            history: history.into_iter().collect(),
            ..AliasBindingStatus::default()
        });
    })
}

/// A history entry with the reason and the times that follow from its outcome.
#[must_use]
pub fn entry(number: &str, outcome: Outcome) -> HistoryEntry {
    let (reason, is_finished, was_live) = match outcome {
        Outcome::RollingOut => (Reason::RollingOut, false, false),
        Outcome::Baking => (Reason::Baking, false, false),
        Outcome::Live => (Reason::Live, false, true),
        Outcome::Superseded => (Reason::Live, true, true),
        Outcome::Failed => (Reason::CrashLoop, false, false),
        Outcome::RolledBack => (Reason::CrashLoop, true, false),
        Outcome::Blocked => (Reason::Blocked, false, false),
        Outcome::ScaledToZero => (Reason::ScaledToZero, false, false),
        Outcome::HeldBack => (Reason::ArtifactUnavailable, true, false),
    };
    let was_available = was_live || outcome == Outcome::Baking;
    HistoryEntry {
        version: version(number),
        code: None,
        outcome: outcome.into(),
        reason: reason.into(),
        message: String::new(),
        started_at: time(NOW),
        available_at: was_available.then(|| time(NOW)),
        live_at: was_live.then(|| time(NOW)),
        finished_at: is_finished.then(|| time(NOW)),
        trigger: Trigger::AliasMove.into(),
        overrode: None,
        approval: None,
    }
}

/// A version as the mirror has it.
#[must_use]
pub fn mirrored_version(version: &VersionRef) -> ModelVersion {
    ModelVersion {
        version: version.number().to_owned(),
        artifact_uri: version.artifact_uri.clone(),
        run_id: version.run_id.clone(),
        ..ModelVersion::default()
    }
}

/// A mirrored model whose alias `champion` names a version.
///
/// # Panics
/// Never, as long as the spec below is valid.
#[must_use]
pub fn model(
    champion: Option<&str>,
    versions: impl IntoIterator<Item = ModelVersion>,
) -> RegisteredModel {
    let model: RegisteredModel = serde_json::from_value(json!({
        "apiVersion": "pointsman.dev/v1alpha1", "kind": "RegisteredModel",
        "metadata": {"name": MODEL, "namespace": "ml"}, "spec": {"registryRef": {"name": "mlflow"}}}))
    .expect("a model");
    let alias = |version: &str| MirroredAlias {
        name: "champion".to_owned(),
        version: version.to_owned(),
        since: time(NOW),
    };
    model.with(|model| {
        model.status = Some(RegisteredModelStatus {
            aliases: champion.map(alias).into_iter().collect(),
            versions: versions.into_iter().collect(),
            tracking_uri: Some(TRACKING_URI.to_owned()),
            conditions: vec![ready(Reason::Mirrored)],
            ..RegisteredModelStatus::default()
        });
    })
}

/// The condition `Ready` of a mirror: True with `Mirrored`, and False with any other reason.
#[must_use]
pub fn ready(reason: Reason) -> Condition {
    let is_ready = reason == Reason::Mirrored;
    Condition {
        type_: READY.to_owned(),
        status: if is_ready { "True" } else { "False" }.to_owned(),
        reason: reason.to_string(),
        message: "a message".to_owned(),
        last_transition_time: time(NOW),
        observed_generation: None,
    }
}
