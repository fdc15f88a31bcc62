//! Whether the version in the workload fails, and which versions are held back because they did.
//!
//! Absent: what is done about it. That is `decide`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::back::is_same;
use super::decide::Observed;
use super::health::{Examined, Health, health};
use crate::api::alias_binding::{HeldVersion, HistoryEntry, Outcome};
use crate::api::reason::Problem;
use crate::api::rollback::{FailedVersion, HeldBack, OnFailure};
use crate::api::{AliasBinding, names};
use crate::targets::{Wanted, Workload, fnv1a};

/// What the pods say of the version in the workload, and what is held back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// Why the version in the workload fails, where it does.
    pub failure: Option<Problem>,
    /// The versions that are held back now.
    pub held_back: Option<HeldBack>,
    /// Whether a version is held back that the status does not name yet.
    pub is_news: bool,
    /// When to look again, though nothing may have changed by then.
    pub look_again: Option<Timestamp>,
}

/// Judges the version in the workload.
#[must_use]
pub fn judge(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> Judgement {
    let held_back = standing(binding, observed);
    let Some((workload, entry)) = on_trial(binding, observed) else {
        return Judgement {
            held_back,
            ..Judgement::default()
        };
    };
    let examined = Examined {
        workload,
        pods: observed.pods,
        entry,
    };
    match health(&examined, &binding.spec.rollback, now) {
        Health::Failing(problem) => failing(binding, observed, held_back, entry, problem, now),
        Health::Doubtful(until) => Judgement {
            held_back,
            look_again: Some(until),
            ..Judgement::default()
        },
        Health::Fine => Judgement {
            held_back,
            look_again: baked_at(binding, entry),
            ..Judgement::default()
        },
    }
}

fn failing(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: Option<HeldBack>,
    entry: &HistoryEntry,
    problem: Problem,
    now: Timestamp,
) -> Judgement {
    if binding.spec.rollback.on_failure == OnFailure::Report {
        return Judgement {
            failure: Some(problem),
            ..Judgement::default()
        };
    }
    let known = binding
        .status
        .as_ref()
        .and_then(|status| status.held_back.as_ref());
    let known = known.and_then(|known| {
        known
            .versions
            .iter()
            .find(|each| is_same(each, &entry.version, entry.artifact_uri.as_deref()))
    });
    let failed = known.cloned().unwrap_or_else(|| FailedVersion {
        version: entry.version.clone(),
        artifact_uri: entry.artifact_uri.clone(),
        reason: problem.reason,
        message: problem.message.clone(),
        since: Time(now),
    });
    let mut held_back = held_back.unwrap_or_else(|| begin(binding, observed, entry));
    if !contains(&held_back, &entry.version, entry.artifact_uri.as_deref()) {
        held_back.versions.push(failed);
    }
    let is_news = binding
        .status
        .as_ref()
        .and_then(|status| status.held_back.as_ref())
        != Some(&held_back);
    Judgement {
        failure: Some(problem),
        held_back: Some(held_back),
        is_news,
        look_again: None,
    }
}

fn begin(binding: &AliasBinding, observed: &Observed<'_>, entry: &HistoryEntry) -> HeldBack {
    let wanted = observed.resolution.wanted.as_ref().map_or_else(
        |_| HeldVersion {
            version: entry.version.clone(),
            artifact_uri: entry.artifact_uri.clone(),
        },
        identity,
    );
    HeldBack {
        wanted,
        spec_digest: spec_digest(binding, observed.workload),
        versions: Vec::new(),
    }
}

/// A version's identity, as statuses keep it.
#[must_use]
pub fn identity(wanted: &Wanted) -> HeldVersion {
    HeldVersion {
        version: wanted.version.clone(),
        artifact_uri: Some(wanted.artifact_uri.clone()),
    }
}

/// Whether a version is held back.
#[must_use]
pub fn contains(held_back: &HeldBack, version: &str, artifact_uri: Option<&str>) -> bool {
    held_back
        .versions
        .iter()
        .any(|each| is_same(each, version, artifact_uri))
}

/// Rule 6: what is held back stays so until the alias moves, a spec changes, or a person asks.
fn standing(binding: &AliasBinding, observed: &Observed<'_>) -> Option<HeldBack> {
    let held_back = binding.status.as_ref()?.held_back.as_ref()?;
    let moved = observed
        .resolution
        .wanted
        .as_ref()
        .is_ok_and(|wanted| identity(wanted) != held_back.wanted);
    let changed = observed.workload.is_some()
        && spec_digest(binding, observed.workload) != held_back.spec_digest;
    let kept = binding.spec.rollback.on_failure == OnFailure::Rollback
        && !moved
        && !changed
        && !binding.has_new_retry_request();
    kept.then(|| held_back.clone())
}

/// The workload and the ledger's entry of its version, where that version is Pointsman's own doing and not yet proven.
fn on_trial<'a>(
    binding: &'a AliasBinding,
    observed: &Observed<'a>,
) -> Option<(&'a Workload, &'a HistoryEntry)> {
    let workload = observed.workload?;
    let entry = binding.status.as_ref()?.current()?;
    let is_its_entry = entry.is_version(workload.version()?, workload.injected(names::MODEL_URI));
    let is_unproven = matches!(
        entry.outcome,
        Outcome::RollingOut | Outcome::Baking | Outcome::Failed
    );
    // Rule 7: what a person put there is theirs to judge.
    let is_ours = workload.owners.foreign_version_writers().is_empty();
    (is_its_entry && is_unproven && is_ours).then_some((workload, entry))
}

/// When a version that is being watched has stayed well for long enough.
#[must_use]
pub fn baked_at(binding: &AliasBinding, entry: &HistoryEntry) -> Option<Timestamp> {
    let available = entry
        .available_at
        .as_ref()
        .filter(|_| entry.live_at.is_none())?;
    available
        .0
        .saturating_add(SignedDuration::from_secs(i64::from(
            binding.spec.rollback.bake_seconds,
        )))
        .ok()
}

/// A digest of what a version's success may depend on beside the version: the binding's spec, and the user's own part of
/// the workload's pod template.
#[must_use]
pub fn spec_digest(binding: &AliasBinding, workload: Option<&Workload>) -> String {
    let mut spec = serde_json::to_value(&binding.spec).unwrap_or_default();
    if let Value::Object(members) = &mut spec {
        for no_matter in [
            "suspend",
            "historyLimit",
            "deletionPolicy",
            "retrain",
            "pinnedVersion",
        ] {
            members.remove(no_matter);
        }
    }
    let template = workload
        .map(|workload| workload.spec.template.users_digest)
        .unwrap_or_default();
    format!("{:016x}", fnv1a(format!("{spec}{template:x}").as_bytes()))
}
