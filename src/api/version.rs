//! The identity of a version of a model.
//!
//! Absent: what is only known of some versions, such as metrics and lineage.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The identity of a version: the number alone is not enough, because a model that is deleted and made again starts at 1.
#[derive(
    Clone, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "camelCase")]
pub struct VersionId {
    /// The registered model's name in the registry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// The version's number.
    pub version: String,
    /// When it was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// What it was registered from, as the registry keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl VersionId {
    /// Whether the identity is known in full, so that it differs from the same number of a model that was made again.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.created_at.is_some()
    }

    /// A short digest of the identity, for the pod template: 16 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        let created = self
            .created_at
            .as_ref()
            .map_or_else(String::new, |at| at.0.to_string());
        let source = self.source.as_deref().unwrap_or_default();
        let text = format!("{}\n{}\n{created}\n{source}", self.model, self.version);
        format!("{:016x}", fnv1a(text.as_bytes()))
    }
}

/// A version with the attributes that go into the pod template. They may change without making it another version.
#[derive(
    Clone, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "camelCase")]
pub struct VersionRef {
    /// Which version.
    #[serde(flatten)]
    pub id: VersionId,
    /// The URI of its files.
    #[serde(
        default,
        rename = "artifactURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_uri: Option<String>,
    /// True: the URI has a query, such as a signature. It is written into pod templates and shown nowhere else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub query_withheld: bool,
    /// The run that logged it.
    #[serde(default, rename = "runID", skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The registry's address that pods get with it.
    #[serde(
        default,
        rename = "trackingURI",
        skip_serializing_if = "Option::is_none"
    )]
    pub tracking_uri: Option<String>,
    /// The registry's workspace that pods get with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

impl VersionRef {
    /// The version's number.
    #[must_use]
    pub fn number(&self) -> &str {
        &self.id.version
    }

    /// Whether both are of one model, as far as their models are known.
    #[must_use]
    pub fn is_same_model(&self, other: &Self) -> bool {
        let (own, others) = (&self.id.model, &other.id.model);
        own == others || own.is_empty() || others.is_empty()
    }

    /// Whether both are written in the same way: the same version with the same location of its files, address and
    /// workspace. An address that one of them does not know is no difference.
    #[must_use]
    pub fn is_written_as(&self, other: &Self) -> bool {
        let is_alike = |own: &Option<String>, others: &Option<String>| {
            own.is_none() || others.is_none() || own == others
        };
        self.is_same(other)
            && is_alike(&self.artifact_uri, &other.artifact_uri)
            && is_alike(&self.tracking_uri, &other.tracking_uri)
            && self.workspace == other.workspace
    }

    /// Whether both are the same version: by identity if both have it, else by number and artifact URI.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let (own, others) = (&self.id, &other.id);
        if own.version != others.version || !self.is_same_model(other) {
            return false;
        }
        if own.is_complete() && others.is_complete() {
            own.created_at == others.created_at && own.source == others.source
        } else {
            self.artifact_uri == other.artifact_uri
        }
    }
}

/// A stable 64-bit digest: it is stored, so it must be the same in every release.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_of_a_model_made_again_is_another_version() {
        let old = VersionId {
            model: "taxi".into(),
            version: "1".into(),
            created_at: Some(Time(jiff::Timestamp::from_second(1).unwrap())),
            source: Some("s3://m/1".into()),
        };
        let new = VersionId {
            created_at: Some(Time(jiff::Timestamp::from_second(2).unwrap())),
            ..old.clone()
        };
        assert_ne!(old, new);
        assert_ne!(old.digest(), new.digest());
        assert_eq!(old.digest(), old.clone().digest());
    }

    #[test]
    fn a_reference_is_written_flat() {
        let written = serde_json::to_value(VersionRef {
            id: VersionId {
                version: "5".into(),
                ..VersionId::default()
            },
            artifact_uri: Some("s3://m/5".into()),
            ..VersionRef::default()
        });
        assert_eq!(
            written.unwrap(),
            serde_json::json!({"version": "5", "artifactURI": "s3://m/5"})
        );
    }
}
