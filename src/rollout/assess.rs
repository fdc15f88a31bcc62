//! Whether the version under observation fails, and which versions are held back because they did.
//!
//! Absent: the consequences. Those are in `decide`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::gates::{GateInput, first_hindrance};
use super::health::{Examined, Health, health};
use super::observed::Observed;
use super::reapply;
use crate::api::alias_binding::{HistoryEntry, Outcome};
use crate::api::reason::Problem;
use crate::api::rollback::{FailedVersion, HeldBack, OnFailure};
use crate::api::version::fnv1a;
use crate::api::{AliasBinding, AliasBindingStatus, VersionRef};
use crate::targets::{Target, pod_spec_digest};

/// The prefix of digests of this scheme. A digest of another scheme cannot be compared and counts as unchanged.
const DIGEST_SCHEME: &str = "v1:";

/// What the pods say of the version in the workload, and what is held back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assessment {
    /// Why the version in the workload fails, if it does.
    pub failure: Option<Problem>,
    /// The versions that are held back now.
    pub held_back: Option<HeldBack>,
    /// Whether a version is held back that the status does not name yet.
    pub is_news: bool,
    /// When to reconcile again, although nothing may have changed by then.
    pub look_again: Option<Timestamp>,
}

/// Assesses the version in the workload.
#[must_use]
pub fn assess(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> Assessment {
    let held_back = standing_held_back(binding, observed);
    let Some((target, entry)) = under_observation(binding, observed) else {
        return Assessment {
            held_back,
            ..Assessment::default()
        };
    };
    let examined = Examined {
        target,
        pods: observed.pods,
        entry,
    };
    let look_again = match health(&examined, &binding.spec.rollback, now) {
        Health::Failing(problem) => {
            return failing(binding, observed, held_back, entry, problem, now);
        }
        Health::Doubtful(until) => Some(until),
        Health::Fine => baked_at(binding, entry),
    };
    Assessment {
        held_back,
        look_again,
        ..Assessment::default()
    }
}

fn failing(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: Option<HeldBack>,
    entry: &HistoryEntry,
    problem: Problem,
    now: Timestamp,
) -> Assessment {
    if binding.spec.rollback.on_failure == OnFailure::Report {
        return Assessment {
            failure: Some(problem),
            ..Assessment::default()
        };
    }
    if reapply::is_observed(binding, entry) {
        return Assessment {
            failure: Some(problem),
            held_back,
            is_news: !reapply::is_failure_recorded(binding),
            look_again: None,
        };
    }
    let recorded = binding
        .status
        .as_ref()
        .and_then(|status| status.held_back.as_ref());
    let known = recorded.and_then(|known| known.find(&entry.version));
    let mut held_back = held_back.unwrap_or_else(|| begin(binding, observed, entry));
    if !held_back.contains(&entry.version) {
        let failed = known.cloned().unwrap_or_else(|| FailedVersion {
            version: entry.version.clone(),
            reason: problem.reason.into(),
            message: problem.message.clone(),
            since: Time(now),
        });
        held_back.versions.push(failed);
    }
    Assessment {
        failure: Some(problem),
        is_news: recorded != Some(&held_back),
        held_back: Some(held_back),
        look_again: None,
    }
}

fn begin(binding: &AliasBinding, observed: &Observed<'_>, entry: &HistoryEntry) -> HeldBack {
    let wanted = match &observed.resolution.desired {
        Ok(desired) => desired.version.clone(),
        Err(_) => entry.version.clone(),
    };
    HeldBack {
        wanted,
        spec_digest: spec_digest(binding, observed.target),
        versions: Vec::new(),
    }
}

/// The versions that are still held back: until the alias moves, a spec changes, or a person asks (`no_loops`).
fn standing_held_back(binding: &AliasBinding, observed: &Observed<'_>) -> Option<HeldBack> {
    let held_back = binding.status.as_ref()?.held_back.as_ref()?;
    let is_moved = match &observed.resolution.desired {
        Ok(desired) => !desired.version.is_same(&held_back.wanted),
        Err(_) => false,
    };
    let is_kept = binding.spec.rollback.on_failure == OnFailure::Rollback
        && !is_moved
        && !is_spec_changed(binding, observed.target, &held_back.spec_digest)
        && !binding.has_new_retry_request();
    is_kept.then(|| held_back.clone())
}

fn is_spec_changed(binding: &AliasBinding, target: Option<&Target>, digest: &str) -> bool {
    target.is_some() && digest.starts_with(DIGEST_SCHEME) && spec_digest(binding, target) != digest
}

/// The target and the history entry of its version, if Pointsman wrote that version and it is not proven yet.
fn under_observation<'a>(
    binding: &'a AliasBinding,
    observed: &Observed<'a>,
) -> Option<(&'a Target, &'a HistoryEntry)> {
    let target = observed.target?;
    let entry = binding.status.as_ref()?.current()?;
    let is_unproven = matches!(
        entry.outcome.known()?,
        Outcome::RollingOut | Outcome::Baking | Outcome::Failed
    );
    // people_win: a version that a person put there is not assessed.
    let is_ours = target.owners.foreign_version_writers().is_empty();
    let is_assessed = target.runs(&entry.version) && !is_replaced(binding, observed);
    (is_assessed && is_unproven && is_ours).then_some((target, entry))
}

/// Whether the same version goes forward with another template now: its pods say nothing about that template.
fn is_replaced(binding: &AliasBinding, observed: &Observed<'_>) -> bool {
    let Ok(desired) = &observed.resolution.desired else {
        return false;
    };
    let input = GateInput {
        binding,
        resolution: observed.resolution,
        desired,
        checks: observed.checks,
    };
    observed.template_changed
        && observed
            .target
            .is_some_and(|target| target.runs(&desired.version))
        && first_hindrance(&input, true).is_none()
}

/// Whether the target runs a version that is held back.
pub fn runs_failed(target: &Target, held_back: &HeldBack) -> bool {
    held_back
        .versions
        .iter()
        .any(|failed| target.runs(&failed.version))
}

/// The version in the workload, if it did not fail: then there is nothing to roll back from any more.
pub fn running_good_version(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: &HeldBack,
) -> Option<VersionRef> {
    let target = observed.target?;
    let status = binding.status.as_ref();
    let known = status
        .into_iter()
        .flat_map(AliasBindingStatus::known_versions);
    let running = target.held_version(known)?;
    running.artifact_uri.as_ref()?;
    (!runs_failed(target, held_back)).then_some(running)
}

/// When a version under observation has been available for long enough.
#[must_use]
pub fn baked_at(binding: &AliasBinding, entry: &HistoryEntry) -> Option<Timestamp> {
    if entry.live_at.is_some() {
        return None;
    }
    let bake = SignedDuration::from_secs(i64::from(binding.spec.rollback.bake_seconds));
    entry.available_at.as_ref()?.0.saturating_add(bake).ok()
}

/// A digest of everything beside the version that its success may depend on: the binding's injection, rollback settings and
/// template, and the user's part of the workload's pod spec.
pub fn spec_digest(binding: &AliasBinding, target: Option<&Target>) -> String {
    let spec = &binding.spec;
    let template = spec.template.as_ref().map(|template| {
        let pods = template.spec.get("template").map(|pods| &pods["spec"]);
        pods.map(pod_spec_digest)
    });
    // The operator itself writes the pod spec of a Deployment that it owns.
    let users_part = target
        .filter(|_target| template.is_none())
        .map(|target| &target.template.users_digest);
    let rollback = &spec.rollback;
    let covered = json!([
        [spec.model_ref.name.as_str(), spec.follows()],
        spec.inject.containers,
        spec.inject.variables,
        [rollback.max_restarts, rollback.bake_seconds],
        template,
        users_part,
    ]);
    format!(
        "{DIGEST_SCHEME}{:016x}",
        fnv1a(covered.to_string().as_bytes())
    )
}
