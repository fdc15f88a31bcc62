//! The artifact checks that a decision needs.
//!
//! Absent: the requests. They run beside the reconciles, so that a slow store delays nobody else.

use std::collections::BTreeMap;

use super::assess::{runs_failed, standing_held_back};
use super::decide::Observed;
use super::rollback_target::candidates;
use crate::api::{AliasBinding, Availability, VersionRef};
use crate::targets::DesiredVersion;

/// The check of one version's artifact.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ArtifactCheck {
    /// The registered model's name in the registry.
    pub model: String,
    /// The version's number.
    pub version: String,
    /// The URI of its files.
    pub artifact_uri: String,
    /// Whether the registry must still know the version by that artifact: for versions that the mirror may have dropped.
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
        model: version.id.model.clone(),
        version: version.number().to_owned(),
        artifact_uri: version.artifact_uri.clone().unwrap_or_default(),
        must_exist,
    }
}

/// The checks whose results `decide` looks at: of the desired version if the target does not run it, and of every rollback
/// candidate if a rollback may be due. They are known before the decision, so that a move is decided once.
#[must_use]
pub fn needed_checks(binding: &AliasBinding, observed: &Observed<'_>) -> Vec<ArtifactCheck> {
    if binding.spec.suspend || observed.claim.is_some() {
        return Vec::new();
    }
    let held_back = standing_held_back(binding, observed);
    let desired = observed.resolution.desired.as_ref().ok();
    let is_held_back = |version: &VersionRef| {
        held_back
            .as_ref()
            .is_some_and(|held_back| held_back.contains(version))
    };
    let mut checks = Vec::new();
    if let Some(desired) = desired
        && !is_held_back(&desired.version)
        && !observed.runs(&desired.version)
    {
        checks.push(forward_check(desired));
    }
    let Some(held_back) = &held_back else {
        return checks;
    };
    let desired_failed = desired.is_some_and(|desired| held_back.contains(&desired.version));
    let target_failed = observed
        .target
        .is_some_and(|target| runs_failed(target, held_back));
    let runs_a_good_one = observed
        .target
        .is_some_and(|target| target.version().is_some());
    if target_failed || (desired_failed && !runs_a_good_one) {
        let status = binding.status.clone().unwrap_or_default();
        let candidates = candidates(&status, &held_back.versions);
        checks.extend(candidates.iter().map(rollback_check));
    }
    checks
}
