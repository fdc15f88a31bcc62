//! The one list of reasons, shared by conditions, Events and metric labels.
//!
//! Absent: free-form reasons. A new situation is a new member here, with its sentence.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why something is as it is, as one word that people and alerts can rely on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum Reason {
    /// The wanted version runs and is available.
    Live,
    /// A version is being rolled out.
    RollingOut,
    /// The Deployment's own controller gave up waiting for the new version's pods.
    ProgressDeadlineExceeded,
    /// The version runs whole, and is watched for the time of `rollback.bakeSeconds`.
    Baking,
    /// The wanted version failed; a good one runs in its place, and the failed one is held back.
    RolledBack,
    /// The version failed, and there is no earlier good one that still exists and can be read.
    NoRollbackTarget,
    /// A container of the new version restarted more often than `rollback.maxRestarts` allows.
    CrashLoop,
    /// An init container of the new version restarted more often than `rollback.maxRestarts` allows.
    InitFailed,
    /// An image of the new version cannot be pulled.
    ImageUnavailable,
    /// A container of the new version cannot be made: its configuration or its Secrets are wrong.
    ContainerNotCreated,
    /// A pod of the new version was ready, and is not any more.
    ReadinessLost,
    /// A person changed the workload back by hand; it is left alone until the alias moves or a person resumes.
    Held,
    /// `spec.pinnedVersion` decides, whatever the alias says.
    Pinned,
    /// `spec.suspend` is true: nothing is touched.
    Suspended,
    /// The registered model has no such alias.
    AliasNotFound,
    /// No version of the model is in the stage that the binding follows.
    StageNotFound,
    /// The registry has no such registered model.
    ModelNotFound,
    /// The registry has no such version of the model.
    VersionNotFound,
    /// The registry did not answer, or answered that it is ill.
    RegistryUnreachable,
    /// The registry answered, and refused.
    RegistryRefused,
    /// Something answered that is not an MLflow registry, or not in words that can be trusted.
    RegistryAnswerInvalid,
    /// There is no such `ModelRegistry`, or it lies in a namespace that does not allow this one.
    RegistryNotFound,
    /// The `ModelRegistry` lies in another namespace, and its owner does not allow this one.
    RegistryNotAllowed,
    /// A Secret or `ConfigMap` that is named, or a key in it, is missing.
    CredentialsNotFound,
    /// The version's source leads to no artifact, or the artifact cannot be read.
    ArtifactUnavailable,
    /// The Deployment that the binding drives does not exist.
    TargetNotFound,
    /// Another binding, or another owner, drives that Deployment already.
    TargetClaimed,
    /// A field that the binding would set belongs to another manager.
    FieldConflict,
    /// The API server refused the change.
    ApplyRefused,
    /// What the spec asks for cannot be done as written.
    InvalidSpec,
    /// The registry answers (on a `ModelRegistry`).
    Reachable,
    /// Aliases and versions are those that the registry named last (on a `RegisteredModel`).
    Mirrored,
    /// The alias resolved to a version with an artifact URI.
    Resolved,
    /// Deliveries of the registry's webhook are accepted; with mode Managed it is registered and was seen to arrive.
    WebhookReady,
    /// The webhook was registered less than a minute ago; until MLflow's own list of webhooks is renewed, only polling sees moves.
    WebhookSettling,
    /// `spec.webhook` asks for webhooks, and this operator was started without a receiver.
    WebhookNotServed,
    /// MLflow refuses the receiver's address: a private one, or one that is not https.
    WebhookAddressRefused,
    /// MLflow's own test of the webhook did not reach the receiver, or the receiver refused it.
    WebhookUnreachable,
    /// The MLflow server has no key of its own to keep webhook secrets with, and so loses most deliveries.
    WebhookKeyMissing,
    /// MLflow does not let Pointsman register webhooks: that takes an administrator where sign-in is on.
    WebhookRefused,
    /// The MLflow server has no webhooks: it is older than 3.3, or keeps the registry in files.
    WebhookUnsupported,
    /// Polling found moves that no delivery had announced.
    WebhookSilent,
    /// A webhook stays in an MLflow server that could not be asked to delete it, or that the spec does not name any more; told by an Event.
    WebhookLeftBehind,
    /// Nothing has been decided yet: the first look is under way.
    Pending,
}

impl Reason {
    /// The word as it stands in conditions, Events and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "Live",
            Self::RollingOut => "RollingOut",
            Self::ProgressDeadlineExceeded => "ProgressDeadlineExceeded",
            Self::Baking => "Baking",
            Self::RolledBack => "RolledBack",
            Self::NoRollbackTarget => "NoRollbackTarget",
            Self::CrashLoop => "CrashLoop",
            Self::InitFailed => "InitFailed",
            Self::ImageUnavailable => "ImageUnavailable",
            Self::ContainerNotCreated => "ContainerNotCreated",
            Self::ReadinessLost => "ReadinessLost",
            Self::Held => "Held",
            Self::Pinned => "Pinned",
            Self::Suspended => "Suspended",
            Self::AliasNotFound => "AliasNotFound",
            Self::StageNotFound => "StageNotFound",
            Self::ModelNotFound => "ModelNotFound",
            Self::VersionNotFound => "VersionNotFound",
            Self::RegistryUnreachable => "RegistryUnreachable",
            Self::RegistryRefused => "RegistryRefused",
            Self::RegistryAnswerInvalid => "RegistryAnswerInvalid",
            Self::RegistryNotFound => "RegistryNotFound",
            Self::RegistryNotAllowed => "RegistryNotAllowed",
            Self::CredentialsNotFound => "CredentialsNotFound",
            Self::ArtifactUnavailable => "ArtifactUnavailable",
            Self::TargetNotFound => "TargetNotFound",
            Self::TargetClaimed => "TargetClaimed",
            Self::FieldConflict => "FieldConflict",
            Self::ApplyRefused => "ApplyRefused",
            Self::InvalidSpec => "InvalidSpec",
            Self::Reachable => "Reachable",
            Self::Mirrored => "Mirrored",
            Self::Resolved => "Resolved",
            Self::WebhookReady => "WebhookReady",
            Self::WebhookSettling => "WebhookSettling",
            Self::WebhookNotServed => "WebhookNotServed",
            Self::WebhookAddressRefused => "WebhookAddressRefused",
            Self::WebhookUnreachable => "WebhookUnreachable",
            Self::WebhookKeyMissing => "WebhookKeyMissing",
            Self::WebhookRefused => "WebhookRefused",
            Self::WebhookUnsupported => "WebhookUnsupported",
            Self::WebhookSilent => "WebhookSilent",
            Self::WebhookLeftBehind => "WebhookLeftBehind",
            Self::Pending => "Pending",
        }
    }

    /// The reason that a word in a condition stands for; `None` for a word of another release.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Something that stands in the way: the reason as one word, the cause and the remedy as a sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The word.
    pub reason: Reason,
    /// The cause and the remedy, for people. Free of credentials.
    pub message: String,
}

impl Problem {
    /// A problem with its sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}
