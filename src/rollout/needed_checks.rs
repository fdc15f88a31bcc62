//! The artifact checks that a decision needs.
//!
//! Absent: the decision. The checks are known before it, so that a move is decided once.

use jiff::Timestamp;

use super::artifact_check::{ArtifactCheck, forward_check, rollback_check};
use super::assess::{assess, keeps_out, running_good_version, runs_failed};
use super::observed::Observed;
use super::rollback_target::candidates;
use crate::api::rollback::Postponed;
use crate::api::{AliasBinding, VersionRef};

/// The checks whose results `decide` looks at: of the desired version if the target does not run it, and of every rollback
/// candidate if a rollback may be due. They are known before the decision, so that a move is decided once.
#[must_use]
pub fn needed_checks(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    now: Timestamp,
) -> Vec<ArtifactCheck> {
    if binding.spec.suspend || observed.claim.is_some() {
        return Vec::new();
    }
    let assessment = assess(binding, observed, now);
    let held_back = assessment.held_back.as_ref();
    let desired = observed.resolution.desired.as_ref().ok();
    let is_held_back =
        |version: &VersionRef| held_back.is_some_and(|held_back| held_back.contains(version));
    let mut checks = Vec::new();
    if let Some(desired) = desired
        && !is_held_back(&desired.version)
        && !observed.runs(&desired.version)
    {
        checks.push(forward_check(desired));
    }
    let postponed = assessment.postponed.as_ref();
    let kept_out = postponed
        .filter(|postponed| keeps_out(postponed, binding, observed.target, now))
        .map(Postponed::as_held_back);
    let Some(held_back) = kept_out.as_ref().or(held_back) else {
        return checks;
    };
    let desired_failed = desired.is_some_and(|desired| held_back.contains(&desired.version));
    let target_failed = observed
        .target
        .is_some_and(|target| runs_failed(target, held_back));
    let runs_a_good_version = running_good_version(binding, observed, held_back).is_some();
    if (desired_failed || target_failed) && !runs_a_good_version {
        let status = binding.status.clone().unwrap_or_default();
        let mirrored = &observed.resolution.mirrored;
        let candidates = candidates(&status, &held_back.versions, mirrored);
        checks.extend(candidates.iter().map(rollback_check));
    }
    checks
}
