//! The one table of reasons, shared by conditions, Events and metric labels.
//!
//! Absent: free-form reasons. A new situation is a new row here, and everything else follows from its class.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::public_uri::without_secrets;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How soon an object is reconciled again while its workload is in the way: a workload without our label is not watched.
const TARGET_RETRY: Option<Duration> = Some(Duration::from_secs(5));
/// How soon an artifact check that failed is repeated: stores are not watched.
const STORE_RETRY: Option<Duration> = Some(Duration::from_secs(30));

/// The meaning of a reason for conditions, Events and requeues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Ready is True; the Event is Normal.
    Well,
    /// Ready is False and Reconciling True; the rollout has an Event of its own.
    Progressing,
    /// Ready is False and Reconciling True, with a Warning; retried after this time, if one is given.
    Recovering(Option<Duration>),
    /// Ready is False and Stalled True, with a Warning; retried after this time, if one is given.
    NeedsPerson(Option<Duration>),
}

impl Class {
    /// How soon the object is reconciled again, although nothing may have changed by then.
    #[must_use]
    pub const fn retry(self) -> Option<Duration> {
        match self {
            Self::Well | Self::Progressing => None,
            Self::Recovering(retry) | Self::NeedsPerson(retry) => retry,
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $class:expr,)+) => {
        /// Why something is as it is, as one word for people and alerts.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All reasons, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word in conditions, Events and metric labels.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// The meaning, for docs/reasons.md.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+),)+
                }
            }

            /// Its class.
            #[must_use]
            pub const fn class(self) -> Class {
                use Class::{NeedsPerson, Progressing, Recovering, Well};
                match self {
                    $(Self::$name => $class,)+
                }
            }
        }
    };
}

reasons! {
    /// The wanted version runs and is available.
    Live = Well,
    /// The workload has no replicas: the version is in its pod template, and is observed when it first has pods.
    ScaledToZero = Well,
    /// The version was good and is in the workload, but fewer pods are available than the workload itself requires.
    Unavailable = Recovering(None),
    /// A version is being rolled out.
    RollingOut = Progressing,
    /// The new version's containers ran, and were not ready when the progress deadline was over.
    ProgressDeadlineExceeded = NeedsPerson(None),
    /// The workload's own controller aborted the rollout: an analysis, an experiment or a step failed, or its deadline was over.
    RolloutAborted = NeedsPerson(None),
    /// All replicas run the version and are available; it is observed for `rollback.bakeSeconds`.
    Baking = Progressing,
    /// The wanted version failed; a good one runs in its place, and the failed one is held back.
    RolledBack = NeedsPerson(None),
    /// The version failed, and no earlier good version still exists and can be read.
    NoRollbackTarget = NeedsPerson(STORE_RETRY),
    /// A chosen container of the new version restarted more often than `rollback.maxRestarts` allows.
    CrashLoop = NeedsPerson(None),
    /// A chosen init container of the new version restarted more often than `rollback.maxRestarts` allows.
    InitFailed = NeedsPerson(None),
    /// The rollout cannot go on, and the version is not to blame: no room, quota, a policy, an image, a Secret, a volume, another container. It goes on by itself when the cause ends.
    Blocked = Recovering(None),
    /// The version that was rolled back to fails like the version that failed before: neither is to blame. The failed one is tried once more when the good one is well again.
    SharedFault = Recovering(None),
    /// A chosen container of the new version was ready and lost its readiness.
    ReadinessLost = NeedsPerson(None),
    /// A person changed the workload by hand; it is left alone until the alias moves or a person resumes.
    Held = Well,
    /// `spec.pinnedVersion` decides, whatever the alias says.
    Pinned = Well,
    /// `spec.suspend` is true: nothing is changed.
    Suspended = Well,
    /// The registry, the namespace or the binding is frozen: the wanted version waits, and goes forward when the freeze ends.
    Frozen = Well,
    /// No window of `spec.promotion.windows` is open: the wanted version waits, and goes forward when the next one opens.
    OutsideWindow = Well,
    /// `spec.promotion.approval` is Manual: the wanted version waits until `approvedVersion` names it.
    AwaitingApproval = Well,
    /// The registered model has no such alias.
    AliasNotFound = NeedsPerson(None),
    /// No version of the model is in the stage that the binding follows.
    StageNotFound = NeedsPerson(None),
    /// The registry has no such registered model.
    ModelNotFound = NeedsPerson(None),
    /// The registry has no such version of the model.
    VersionNotFound = NeedsPerson(None),
    /// The registry did not answer, or answered with a server error.
    RegistryUnreachable = Recovering(None),
    /// The registry answered with a refusal, for instance because of missing permissions.
    RegistryRefused = NeedsPerson(None),
    /// The answer is not that of a model registry, or cannot be trusted.
    RegistryAnswerInvalid = NeedsPerson(None),
    /// There is no such `ModelRegistry`, or its owner does not allow this namespace.
    RegistryNotFound = NeedsPerson(None),
    /// The `ModelRegistry` is in another namespace, and its owner does not allow this one.
    RegistryNotAllowed = NeedsPerson(None),
    /// The `ModelRegistry`'s owner lets this namespace read only, and the spec asks for changes in the registry; none is made.
    RegistryReadOnly = NeedsPerson(None),
    /// A Secret or `ConfigMap` that the spec names, or a key in it, is missing.
    CredentialsNotFound = NeedsPerson(None),
    /// The version has no usable artifact URI, or the store says that it does not have the files.
    ArtifactUnavailable = NeedsPerson(STORE_RETRY),
    /// The store could not be asked for the version's files; it is asked again.
    ArtifactCheckFailed = Recovering(STORE_RETRY),
    /// A gate of `spec.promotion.gates` does not let the version go forward: its expression is false, or reads a value that is missing. What runs stays.
    GateFailed = NeedsPerson(None),
    /// No gate of `spec.promotion.gates` is in the version's way.
    GatesPassed = Well,
    /// The workload that the binding drives does not exist.
    TargetNotFound = NeedsPerson(TARGET_RETRY),
    /// The cluster has no custom resource definition of the workload's kind; it is waited for.
    KindNotInstalled = NeedsPerson(TARGET_RETRY),
    /// Another binding, or another owner, drives the workload already.
    TargetClaimed = NeedsPerson(TARGET_RETRY),
    /// A field that the binding sets belongs to another manager, or is changed at each write by a policy or a manager.
    FieldConflict = NeedsPerson(TARGET_RETRY),
    /// The API server refused a write: a policy, a webhook that is down, missing rights. It is repeated by itself.
    ApplyRefused = Recovering(TARGET_RETRY),
    /// The spec cannot be carried out as it is written.
    InvalidSpec = NeedsPerson(TARGET_RETRY),
    /// The registry answers (on a `ModelRegistry`).
    Reachable = Well,
    /// Aliases and versions are those of the registry's last answer (on a `RegisteredModel`).
    Mirrored = Well,
    /// More aliases or versions are followed than fit into one object; the others are mirrored (on a `RegisteredModel`).
    MirrorTruncated = NeedsPerson(None),
    /// The alias resolved to a version with an artifact URI.
    Resolved = Well,
    /// Deliveries of the registry's webhook are accepted; with mode Managed the webhook is registered and a delivery has arrived.
    WebhookReady = Well,
    /// The webhook was registered less than a minute ago; until MLflow reloads its list of webhooks, moves are seen by polling only.
    WebhookSettling = Progressing,
    /// `spec.webhook` asks for webhooks, but this operator runs without a receiver.
    WebhookNotServed = NeedsPerson(None),
    /// MLflow refuses the receiver's address: a private one, or one that is not https.
    WebhookAddressRefused = NeedsPerson(None),
    /// MLflow's own test of the webhook did not reach the receiver, or the receiver refused it.
    WebhookUnreachable = NeedsPerson(None),
    /// The MLflow server has no encryption key for webhook secrets, so it loses most deliveries.
    WebhookKeyMissing = NeedsPerson(None),
    /// MLflow does not let Pointsman register webhooks: with sign-in on, that takes an administrator.
    WebhookRefused = NeedsPerson(None),
    /// The MLflow server has no webhooks: it is older than 3.3, or keeps the registry in files.
    WebhookUnsupported = NeedsPerson(None),
    /// Polling found moves that no delivery had announced.
    WebhookSilent = NeedsPerson(None),
    /// A webhook remains in an MLflow server that could not delete it, or that the spec no longer names; an Event says so.
    WebhookLeftBehind = NeedsPerson(None),
    /// A registered model remains in the registry although its object asked for its deletion; an Event says so.
    ModelLeftBehind = NeedsPerson(None),
    /// Nothing has been decided yet: the first poll or an artifact check is under way.
    Pending = Progressing,
}

impl Reason {
    /// The reason for a word in a condition; `None` for a word of another release.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == word)
    }

    /// Whether the registry's answers cannot be had or trusted now. A workload that runs the version of the last good answer
    /// stays Ready (`fail_static`).
    #[must_use]
    pub const fn is_registry_outage(self) -> bool {
        matches!(
            self,
            Self::RegistryUnreachable | Self::RegistryRefused | Self::RegistryAnswerInvalid
        )
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::parse(&word).ok_or_else(|| serde::de::Error::custom(format!("no reason {word}")))
    }
}

impl JsonSchema for Reason {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Reason".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Z][A-Za-z0-9]*$", "maxLength": 64})
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Something that hinders the object: the reason as one word, the cause and the remedy as a sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The word.
    pub reason: Reason,
    /// The cause and the remedy, for people. Free of credentials.
    pub message: String,
}

impl Problem {
    /// A problem with its sentence. A URI in it is shown without user and query, whoever wrote the sentence: an API server, a
    /// container's last words, a store.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            reason,
            message: without_secrets(&message).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_no_signature_whoever_wrote_its_sentence() {
        let words =
            "version 4 failed: exit code 1: cannot GET https://host/m?X-Amz-Signature=hunter2: 403";
        let problem = Problem::new(Reason::CrashLoop, words);
        assert_eq!(
            problem.message,
            "version 4 failed: exit code 1: cannot GET https://host/m: 403"
        );
    }
}
