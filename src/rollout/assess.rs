//! Whether the version under observation fails, and which versions are held back because they did.
//!
//! Absent: the consequences. Those are in `decide`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::gates::{GateInput, first_hindrance};
use super::health::{Examined, Health, bakes_from, health};
use super::messages;
use super::observed::Observed;
use super::reapply;
use super::rollback_target::candidates;
use super::signs::Sign;
use crate::api::alias_binding::{HistoryEntry, Outcome, Trigger};
use crate::api::conditions::{READY, find};
use crate::api::reason::Problem;
use crate::api::rollback::{FailedVersion, HeldBack, OnFailure, Postponed, SharedFault};
use crate::api::version::fnv1a;
use crate::api::{AliasBinding, AliasBindingStatus, Reason, VersionRef};
use crate::targets::{DesiredVersion, Target, examined_containers, pod_spec_digest};

/// The least time before a postponed version is tried again.
const SHORTEST_BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// The longest time before a postponed version is tried again.
const LONGEST_BACKOFF: SignedDuration = SignedDuration::from_hours(1);
/// The prefix of digests of this scheme. A digest of another scheme cannot be compared and counts as unchanged.
const DIGEST_SCHEME: &str = "v1:";

/// What the pods say of the version in the workload, and what is held back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assessment {
    /// Why the version in the workload fails, if it does.
    pub failure: Option<Problem>,
    /// Why its rollout is blocked, if it is; or the fault that it shares with the versions that are held back.
    pub blocked: Option<Problem>,
    /// The bake begins no earlier: when its pods were replaced, or a chosen container of them was restarted.
    pub bakes_from: Option<Timestamp>,
    /// The versions that are held back now.
    pub held_back: Option<HeldBack>,
    /// The version that is tried again later.
    pub postponed: Option<Postponed>,
    /// What the status must say before anything is done about it.
    pub news: Option<Problem>,
    /// When to reconcile again, although nothing may have changed by then.
    pub look_again: Option<Timestamp>,
}

impl Assessment {
    fn look_again_at(&mut self, moment: Option<Timestamp>) {
        self.look_again = self.look_again.into_iter().chain(moment).min();
    }

    /// The version was well before a person's request: its new address or location is taken back, and the version not blamed.
    fn take_back(&mut self, binding: &AliasBinding, problem: Problem) {
        let is_news = !reapply::is_failure_recorded(binding);
        self.news = is_news.then(|| problem.clone());
        self.failure = Some(problem);
    }
}

/// Assesses the version in the workload.
#[must_use]
pub fn assess(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> Assessment {
    let held_back = standing_held_back(binding, observed);
    let mut assessment = Assessment {
        postponed: standing_postponed(binding, observed, now),
        ..Assessment::default()
    };
    if let Some((news, retried)) =
        retry_after_shared_fault(binding, observed, held_back.as_ref(), now)
    {
        assessment.held_back = Some(retried);
        assessment.news = Some(news);
        return assessment;
    }
    assessment.held_back = held_back;
    if let Some((target, entry)) = under_observation(binding, observed, now) {
        observe(binding, observed, target, entry, now, &mut assessment);
    }
    if let Some(postponed) = &assessment.postponed {
        let retry_at = Some(postponed.retry_at.0).filter(|at| *at > now);
        assessment.look_again_at(retry_at);
    }
    assessment
}

fn observe(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    target: &Target,
    entry: &HistoryEntry,
    now: Timestamp,
    assessment: &mut Assessment,
) {
    let chosen = examined_containers(binding, target);
    let examined = Examined {
        target,
        pods: observed.pods,
        warnings: observed.warnings,
        entry,
        chosen: &chosen,
    };
    let diagnosis = health(&examined, &binding.spec.rollback, now);
    assessment.look_again = diagnosis.look_again;
    assessment.bakes_from = bakes_from(observed.pods, &chosen);
    match diagnosis.health {
        Health::Failing(evidence) => {
            let problem = evidence.problem();
            failing(binding, observed, entry, problem, now, assessment);
        }
        Health::Blocked(evidence) => {
            let message = format!("version {}: {}", entry.version.number(), evidence.message);
            let advice = advice(target, evidence.needs.as_deref());
            let problem = messages::problem(Reason::Blocked, &message, &advice);
            // If its new pods are well, an earlier version restores nothing.
            if diagnosis.is_late && evidence.sign != Sign::OldPodsRemain {
                postpone(binding, observed, entry, &problem, now, assessment);
            }
            assessment.blocked = Some(problem);
        }
        Health::Fine => {
            recover(binding, target, entry, assessment);
            let baked = baked_at(binding, entry).filter(|at| *at > now);
            assessment.look_again_at(baked);
        }
    }
}

fn advice(target: &Target, needs: Option<&str>) -> String {
    let look = format!("look: kubectl get events -n {}", target.namespace());
    needs.map_or(look, str::to_owned)
}

/// A version that failed, could not be rolled back, and is well again is not held back any more.
fn recover(
    binding: &AliasBinding,
    target: &Target,
    entry: &HistoryEntry,
    assessment: &mut Assessment,
) {
    let status = binding.status.as_ref();
    let ready = status.and_then(|status| find(&status.conditions, READY));
    let stays = ready.is_some_and(|ready| ready.reason == Reason::NoRollbackTarget.as_str());
    if !stays || !target.is_complete() || entry.outcome != Outcome::Failed {
        return;
    }
    if let Some(held_back) = &mut assessment.held_back {
        let versions = &mut held_back.versions;
        versions.retain(|failed| !failed.version.is_same(&entry.version));
        if versions.is_empty() {
            assessment.held_back = None;
        }
    }
}

fn failing(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    entry: &HistoryEntry,
    problem: Problem,
    now: Timestamp,
    assessment: &mut Assessment,
) {
    if binding.spec.rollback.on_failure == OnFailure::Report {
        assessment.held_back = None;
        assessment.failure = Some(problem);
        return;
    }
    if reapply::is_observed(binding, entry) {
        assessment.take_back(binding, problem);
        return;
    }
    if let (None, Some(postponed), Some(Trigger::Failure)) = (
        &assessment.held_back,
        &assessment.postponed,
        entry.trigger.known(),
    ) {
        // The good version that took the place of a postponed one: the cluster hinders both.
        assessment.blocked = Some(shared_problem(entry, &postponed.version, &problem));
        return;
    }
    let status = binding.status.as_ref();
    let recorded = status.and_then(|status| status.held_back.as_ref());
    let standing = assessment.held_back.take();
    if let Some(mut held_back) = standing
        .clone()
        .filter(|held_back| is_alike(held_back, entry, &problem))
    {
        let shared = shared_fault(&held_back, entry, &problem);
        held_back.shared_fault.get_or_insert(SharedFault {
            message: problem.message,
            since: Time(now),
            retried_at: None,
        });
        assessment.news = (recorded != Some(&held_back)).then(|| shared.clone());
        assessment.held_back = Some(held_back);
        assessment.blocked = Some(shared);
        return;
    }
    let known = recorded.and_then(|known| known.find(&entry.version));
    let mut held_back = standing.unwrap_or_else(|| begin(binding, observed, entry));
    if !held_back.contains(&entry.version) {
        let failed = known.cloned();
        let failed = failed.unwrap_or_else(|| failed_version(entry, &problem, now));
        held_back.versions.push(failed);
    }
    // A version that failed is not tried again by itself.
    let postponed = assessment.postponed.take();
    assessment.postponed = postponed.filter(|each| !held_back.contains(&each.version));
    assessment.news = (recorded != Some(&held_back)).then(|| problem.clone());
    assessment.failure = Some(problem);
    assessment.held_back = Some(held_back);
}

fn failed_version(entry: &HistoryEntry, problem: &Problem, now: Timestamp) -> FailedVersion {
    FailedVersion {
        version: entry.version.clone(),
        reason: problem.reason.into(),
        message: problem.message.clone(),
        since: Time(now),
    }
}

/// Whether the version that was rolled back to fails like the one before it: then neither is to blame.
fn is_alike(held_back: &HeldBack, entry: &HistoryEntry, problem: &Problem) -> bool {
    let is_rollback = entry.trigger == Trigger::Failure && !held_back.contains(&entry.version);
    let last = held_back.versions.last();
    is_rollback
        && (held_back.shared_fault.is_some()
            || last.is_some_and(|last| last.reason == problem.reason))
}

fn shared_fault(held_back: &HeldBack, entry: &HistoryEntry, problem: &Problem) -> Problem {
    let failed = held_back.versions.last();
    let failed = failed.map_or(&held_back.wanted, |failed| &failed.version);
    shared_problem(entry, failed, problem)
}

fn shared_problem(entry: &HistoryEntry, other: &VersionRef, problem: &Problem) -> Problem {
    let (number, other) = (entry.version.number(), other.number());
    let cause = format!(
        "version {number} was good and fails like version {other}, so neither is to blame: {}",
        problem.message
    );
    let remedy = format!("version {other} is tried again when {number} is well");
    messages::problem(Reason::SharedFault, &cause, &remedy)
}

/// The retry of the failed versions, once, when the version that was rolled back to is live again after a shared fault.
fn retry_after_shared_fault(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: Option<&HeldBack>,
    now: Timestamp,
) -> Option<(Problem, HeldBack)> {
    let mut retried = held_back?.clone();
    let shared = retried.shared_fault.as_mut()?;
    let (target, entry) = (observed.target?, binding.status.as_ref()?.current()?);
    let is_well = entry.outcome == Outcome::Live
        && target.is_complete()
        && target.runs(&entry.version)
        && !held_back?.contains(&entry.version);
    if shared.retried_at.is_some() || !is_well {
        return None;
    }
    shared.retried_at = Some(Time(now));
    let news = Problem::new(
        Reason::RollingOut,
        format!(
            "version {} is well again: version {} is tried once more",
            entry.version.number(),
            retried.wanted.number()
        ),
    );
    retried.versions.clear();
    Some((news, retried))
}

/// If a blocked rollout without progress costs serving capacity, an earlier good version takes its place, and the version is
/// tried again later.
fn postpone(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    entry: &HistoryEntry,
    problem: &Problem,
    now: Timestamp,
    assessment: &mut Assessment,
) {
    let Some(target) = observed.target else {
        return;
    };
    let is_reapplied = reapply::is_observed(binding, entry);
    let may_go_back = entry.trigger != Trigger::Failure
        && entry.available_at.is_none()
        && binding.spec.rollback.on_failure == OnFailure::Rollback
        && target.capacity.available < target.capacity.desired
        && !is_succeeded(binding, observed, &entry.version, now)
        && (is_reapplied || has_rollback_candidate(binding, &entry.version));
    if !may_go_back {
        return;
    }
    if is_reapplied {
        assessment.take_back(binding, problem.clone());
        return;
    }
    let known = assessment.postponed.take();
    if let Some(known) = known.as_ref().filter(|known| known.retry_at.0 > now) {
        assessment.postponed = Some(known.clone());
        return;
    }
    let attempts = known.map_or(0, |known| known.attempts).saturating_add(1);
    let backoff = backoff(target.progress_deadline, attempts);
    assessment.postponed = Some(Postponed {
        version: entry.version.clone(),
        spec_digest: spec_digest(binding, observed.target),
        message: problem.message.clone(),
        attempts,
        retry_at: Time(now.saturating_add(backoff).unwrap_or(now)),
    });
    assessment.news = Some(problem.clone());
}

/// The progress deadline, twice as long for each further attempt, at most [`LONGEST_BACKOFF`].
fn backoff(deadline: SignedDuration, attempts: i32) -> SignedDuration {
    let doublings = u32::try_from(attempts.saturating_sub(1))
        .unwrap_or(0)
        .min(16);
    let factor = 2_i32.saturating_pow(doublings);
    let backoff = deadline.checked_mul(factor).unwrap_or(LONGEST_BACKOFF);
    backoff.clamp(SHORTEST_BACKOFF, LONGEST_BACKOFF)
}

fn has_rollback_candidate(binding: &AliasBinding, version: &VersionRef) -> bool {
    let Some(status) = &binding.status else {
        return false;
    };
    let candidates = candidates(status, &[], &[]);
    candidates
        .iter()
        .any(|candidate| !candidate.is_same(version))
}

/// The version that is tried again later: until the alias moves, a spec changes, a person asks, or it is live. While the
/// version that the alias names instead cannot go forward, the postponed one must still leave the workload.
fn standing_postponed(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    now: Timestamp,
) -> Option<Postponed> {
    let status = binding.status.as_ref()?;
    let postponed = status.postponed.as_ref()?;
    let is_out = observed
        .target
        .is_none_or(|target| !target.runs(&postponed.version));
    let is_moved = match &observed.resolution.desired {
        Ok(desired) if !desired.version.is_same(&postponed.version) => {
            is_out || is_succeeded(binding, observed, &postponed.version, now)
        }
        _ => false,
    };
    let is_live = status.current().is_some_and(|entry| {
        entry.outcome == Outcome::Live && entry.version.is_same(&postponed.version)
    });
    let is_kept = !is_moved && !is_live && stands(binding, observed, &postponed.spec_digest);
    is_kept.then(|| postponed.clone())
}

/// Whether a postponed version must not be in the workload now: before its time, and until the version that took its place is
/// available or has failed.
#[must_use]
pub fn keeps_out(
    postponed: &Postponed,
    binding: &AliasBinding,
    target: Option<&Target>,
    now: Timestamp,
) -> bool {
    let Some(target) = target else {
        return false;
    };
    let status = binding.status.as_ref();
    let is_over = status
        .and_then(|status| status.current())
        .is_some_and(|entry| {
            // A version that fails in its place restores no capacity.
            let fails = entry.outcome == Outcome::Failed || entry.reason == Reason::SharedFault;
            entry.outcome == Outcome::Live || fails
        });
    let is_restoring = !target.runs(&postponed.version) && !target.is_complete() && !is_over;
    now < postponed.retry_at.0 || is_restoring
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
        shared_fault: None,
    }
}

/// The versions that are still held back: until the alias moves, a spec changes, or a person asks (`no_loops`).
fn standing_held_back(binding: &AliasBinding, observed: &Observed<'_>) -> Option<HeldBack> {
    let held_back = binding.status.as_ref()?.held_back.as_ref()?;
    let is_moved = match &observed.resolution.desired {
        Ok(desired) => !desired.version.is_same(&held_back.wanted),
        Err(_) => false,
    };
    // After a retry the list is empty: it ends when the version that was tried once more is live.
    let current = binding.status.as_ref()?.current();
    let is_over = held_back.versions.is_empty()
        && current.is_some_and(|entry| {
            entry.outcome == Outcome::Live && entry.version.is_same(&held_back.wanted)
        });
    let is_kept = !is_moved && !is_over && stands(binding, observed, &held_back.spec_digest);
    is_kept.then(|| held_back.clone())
}

/// Whether what was remembered of a version still counts: no spec has changed since this digest, and no person asks for a retry.
fn stands(binding: &AliasBinding, observed: &Observed<'_>, digest: &str) -> bool {
    binding.spec.rollback.on_failure == OnFailure::Rollback
        && !is_spec_changed(binding, observed.target, digest)
        && !binding.has_new_retry_request()
}

fn is_spec_changed(binding: &AliasBinding, target: Option<&Target>, digest: &str) -> bool {
    target.is_some() && digest.starts_with(DIGEST_SCHEME) && spec_digest(binding, target) != digest
}

/// The target and the history entry of its version, if Pointsman wrote that version and it is not proven yet.
fn under_observation<'a>(
    binding: &'a AliasBinding,
    observed: &Observed<'a>,
    now: Timestamp,
) -> Option<(&'a Target, &'a HistoryEntry)> {
    let target = observed.target?;
    let entry = binding.status.as_ref()?.current()?;
    let is_unproven = matches!(
        entry.outcome.known()?,
        Outcome::RollingOut
            | Outcome::Blocked
            | Outcome::ScaledToZero
            | Outcome::Baking
            | Outcome::Failed
    );
    // people_win: a version that a person put there is not assessed.
    let is_ours = target.owners.foreign_version_writers().is_empty();
    let is_assessed = target.runs(&entry.version) && !is_replaced(binding, observed, now);
    (is_assessed && is_unproven && is_ours).then_some((target, entry))
}

/// Whether the same version goes forward with another template now: its pods say nothing about that template.
fn is_replaced(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> bool {
    let Ok(desired) = &observed.resolution.desired else {
        return false;
    };
    observed.template_changed
        && observed
            .target
            .is_some_and(|target| target.runs(&desired.version))
        && passes_gates(binding, observed, desired, true, now)
}

/// Whether another version goes forward in the place of this one now.
fn is_succeeded(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    version: &VersionRef,
    now: Timestamp,
) -> bool {
    let Ok(desired) = &observed.resolution.desired else {
        return false;
    };
    let held_back = standing_held_back(binding, observed);
    let is_held_back = held_back.is_some_and(|held_back| held_back.contains(&desired.version));
    !desired.version.is_same(version)
        && !is_held_back
        && passes_gates(binding, observed, desired, false, now)
}

fn passes_gates(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    desired: &DesiredVersion,
    same_version: bool,
    now: Timestamp,
) -> bool {
    let input = GateInput::of(binding, observed, desired, now);
    first_hindrance(&input, same_version).is_none()
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
    let mut covered = vec![json!([
        [spec.model_ref.name.as_str(), spec.follows()],
        spec.inject.containers,
        spec.inject.variables,
        [rollback.max_restarts, rollback.bake_seconds],
        template,
        users_part,
    ])];
    covered.extend(spec.inject.fields.as_ref().map(|fields| json!(fields)));
    let texts: Vec<String> = covered.iter().map(ToString::to_string).collect();
    let digest = fnv1a(texts.concat().as_bytes());
    format!("{DIGEST_SCHEME}{digest:016x}")
}

#[cfg(test)]
#[path = "assess_tests.rs"]
mod tests;
