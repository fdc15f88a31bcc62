//! Artifact checks and their results.
//!
//! Absent: the requests. They run beside the reconciles, so that a slow store delays nobody else.

use std::collections::BTreeMap;

use crate::api::{Availability, VersionId, VersionRef};
use crate::targets::DesiredVersion;

/// The check of one version's artifact.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ArtifactCheck {
    /// The URI of its files.
    pub artifact_uri: String,
    /// The version.
    pub version: VersionId,
    /// Whether the URI has a query that only the registry says.
    pub query_withheld: bool,
    /// Whether the registry must still have the version: for one that the mirror may have dropped.
    pub must_exist: bool,
}

/// The results that are known and not too old.
pub type CheckResults = BTreeMap<ArtifactCheck, Availability>;

/// The check before a mirrored version goes forward.
#[must_use]
pub fn forward_check(desired: &DesiredVersion) -> ArtifactCheck {
    check(&desired.version, false)
}

/// The check before a version of the history is rolled back to.
#[must_use]
pub fn rollback_check(version: &VersionRef) -> ArtifactCheck {
    check(version, true)
}

fn check(version: &VersionRef, must_exist: bool) -> ArtifactCheck {
    ArtifactCheck {
        artifact_uri: version.artifact_uri.clone().unwrap_or_default(),
        version: version.id.clone(),
        query_withheld: version.query_withheld,
        must_exist,
    }
}
