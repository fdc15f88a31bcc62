//! The status after a reconcile: from the decision and what was really applied.
//!
//! Absent: intentions. `running` is the version that the workload holds, not the one that was sent.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::assess::spec_digest;
use super::decide::{Course, Decided, Decision, Waiting};
use super::gates::Verdict;
use super::history::{Observations, Running, history};
use super::hold::foreign_writer;
use super::readiness::{View, conditions};
use super::reapply;
use super::reconciled::Reconciled;
use super::resolve::Resolution;
use super::rollback_target::lineage;
use crate::api::alias_binding::{
    AliasState, AppliedRequest, HandledRequest, HistoryEntry, Outcome, Trigger, VersionState,
};
use crate::api::conditions::transition;
use crate::api::promotion::GateState;
use crate::api::reason::Problem;
use crate::api::rollback::{GoodVersion, HeldBack, Lineage, Postponed};
use crate::api::{AliasBinding, AliasBindingStatus, ModelVersion, VersionRef};
use crate::targets::{Target, difference};

/// The status after a reconcile.
#[must_use]
pub fn summarize(
    binding: &AliasBinding,
    reconciled: &Reconciled<'_>,
    now: Timestamp,
) -> AliasBindingStatus {
    let old = binding.status.clone().unwrap_or_default();
    let Reconciled {
        resolution,
        decided,
        applied,
        ..
    } = *reconciled;
    let target = own_target(reconciled);
    let alias = alias_state(old.alias.as_ref(), resolution, now);
    let last_handled_retry = handled_retry(binding, &old, decided, now);
    let recent = Recent {
        alias: alias.as_ref(),
        retry: last_handled_retry.as_ref(),
    };
    let running = target.and_then(|target| running(binding, target, &old, reconciled, &recent));
    let history = new_history(binding, &old, reconciled, target, running.as_ref(), now);
    let current = history.iter().find(|entry| entry.finished_at.is_none());
    let gates = gate_states(binding, &old.gates, reconciled);
    let view = View {
        target,
        current,
        gates: &gates,
    };
    let (held_back, postponed) = not_tried(binding, reconciled);
    let conditions = conditions(binding, reconciled, &old.conditions, view);
    AliasBindingStatus {
        observed_generation: binding.metadata.generation,
        follows: Some(binding.spec.follows().to_owned()),
        wanted: wanted_number(binding, resolution),
        running: running.as_ref().map(|running| VersionState {
            version: running.version.clone(),
            since: current.map(|current| current.started_at.clone()),
        }),
        last_good: last_good(current, old.last_good.as_ref(), resolution.details.as_ref()),
        hold: decided.memory.hold.clone(),
        held_back,
        postponed,
        lost: decided.memory.lost.clone(),
        gates,
        retrain: applied.retrain.clone(),
        last_handled_resume: handled_resume(binding, &old, reconciled, target),
        last_handled_apply: handled_apply(&old, reconciled),
        conditions: transition(
            &old.conditions,
            &conditions,
            binding.metadata.generation,
            now,
        ),
        alias,
        last_handled_retry,
        history,
    }
}

/// The workload as it was left, unless another binding drives it: that says nothing about this one.
fn own_target<'a>(reconciled: &Reconciled<'a>) -> Option<&'a Target> {
    match reconciled.decided.decision {
        Decision::Claimed(_) => None,
        _ => reconciled.applied.target,
    }
}

/// The request to write everything again that was handled last.
fn handled_apply(old: &AliasBindingStatus, reconciled: &Reconciled<'_>) -> Option<AppliedRequest> {
    match reconciled.applied.failure {
        None => reconciled.decided.memory.apply.clone(),
        Some(_) => old.last_handled_apply.clone(),
    }
}

/// The results of the gates for the wanted version; those of before if it runs or needs no gate any more.
fn gate_states(
    binding: &AliasBinding,
    old: &[GateState],
    reconciled: &Reconciled<'_>,
) -> Vec<GateState> {
    if let Some(results) = &reconciled.decided.gates {
        return results.gates.clone();
    }
    let wanted = wanted_number(binding, reconciled.resolution);
    let is_kept = |state: &&GateState| {
        let mut gates = binding.gates().iter();
        wanted.as_ref() == Some(&state.version) && gates.any(|gate| gate.name == state.name)
    };
    old.iter().filter(is_kept).cloned().collect()
}

fn new_history(
    binding: &AliasBinding,
    old: &AliasBindingStatus,
    reconciled: &Reconciled<'_>,
    target: Option<&Target>,
    running: Option<&Running>,
    now: Timestamp,
) -> Vec<HistoryEntry> {
    let Reconciled {
        resolution,
        decided,
        ..
    } = *reconciled;
    let is_write = matches!(decided.decision, Decision::Write(..));
    let failure = decided.failure.as_ref().filter(|_failure| !is_write);
    let held_back = decided.memory.held_back.as_ref();
    let intended = running.map(|running| Running {
        version: intended(&running.version, target, decided),
        ..running.clone()
    });
    let observations = Observations {
        running: intended.as_ref(),
        rollout: target
            .filter(|target| !is_altered(target, decided))
            .map(|target| &target.rollout),
        failure,
        blocked: decided.blocked.as_ref().filter(|_blocked| !is_write),
        bakes_from: decided.bakes_from,
        is_held_back: running.is_some_and(|running| {
            held_back.is_some_and(|held_back| held_back.contains(&running.version))
        }),
        bakes_again: held_back
            .and_then(|held_back| held_back.shared_fault.as_ref())
            .is_some_and(|shared| shared.retried_at.is_none()),
        bake: SignedDuration::from_secs(i64::from(binding.spec.rollback.bake_seconds)),
        refused: refused(decided, resolution),
        details: resolution.details.as_ref(),
        overrode: decided.overrode.as_ref(),
        approval: decided.approval.as_ref(),
    };
    let limit = usize::try_from(binding.spec.history_limit)
        .unwrap_or(1)
        .max(1);
    history(&old.history, &observations, limit, now)
}

/// Whether the workload names the version that was just written, but not with all of its fields: an admission policy changed
/// the write, so the pods are not those of the version.
fn is_altered(target: &Target, decided: &Decided) -> bool {
    match &decided.decision {
        Decision::Write(injection, _) => {
            let is_written = target.version() == Some(injection.version.as_str());
            is_written && difference(target, injection).is_some()
        }
        _ => false,
    }
}

/// A version as it was written, also if an admission policy changed the write: the record says what should be there.
fn intended(version: &VersionRef, target: Option<&Target>, decided: &Decided) -> VersionRef {
    match &decided.decision {
        Decision::Write(injection, _) if target.is_some_and(|each| is_altered(each, decided)) => {
            injection.intended(version.clone())
        }
        _ => version.clone(),
    }
}

/// The versions that are held back, and the one that is tried again later. After our own write their digests are those of the
/// workload as it was written: a field that an admission policy changed along with it is no change of the spec (`no_loops`).
fn not_tried(
    binding: &AliasBinding,
    reconciled: &Reconciled<'_>,
) -> (Option<HeldBack>, Option<Postponed>) {
    let memory = &reconciled.decided.memory;
    let (mut held_back, mut postponed) = (memory.held_back.clone(), memory.postponed.clone());
    let is_write = matches!(reconciled.decided.decision, Decision::Write(..));
    if let (true, Some(written)) = (is_write, reconciled.applied.target) {
        let digests = [
            held_back.as_mut().map(|each| &mut each.spec_digest),
            postponed.as_mut().map(|each| &mut each.spec_digest),
        ];
        for digest in digests.into_iter().flatten() {
            *digest = spec_digest(binding, Some(written));
        }
    }
    (held_back, postponed)
}

/// A retry is handled when nothing is held back any more because of it. A suspended or claimed binding only postpones it.
fn handled_retry(
    binding: &AliasBinding,
    old: &AliasBindingStatus,
    decided: &Decided,
    now: Timestamp,
) -> Option<HandledRequest> {
    if matches!(
        decided.decision,
        Decision::Suspended(_) | Decision::Claimed(_)
    ) {
        return old.last_handled_retry.clone();
    }
    let value = binding.retry_request()?;
    match &old.last_handled_retry {
        Some(known) if known.value == *value => Some(known.clone()),
        _ => Some(HandledRequest {
            value: value.clone(),
            at: Time(now),
        }),
    }
}

/// A resume is handled when a person's change is overwritten. Anything that prevents the write only postpones it.
fn handled_resume(
    binding: &AliasBinding,
    old: &AliasBindingStatus,
    reconciled: &Reconciled<'_>,
    target: Option<&Target>,
) -> Option<String> {
    let is_persons = target.is_some_and(|target| foreign_writer(target).is_some());
    let decision = &reconciled.decided.decision;
    let is_acted_on = reconciled.applied.failure.is_none()
        && matches!(decision, Decision::Write(..) | Decision::Settled(_));
    if is_persons && !is_acted_on {
        old.last_handled_resume.clone()
    } else {
        binding.resume_request().cloned()
    }
}

/// The version that a gate refused, with the reason.
fn refused<'a>(
    decided: &'a Decided,
    resolution: &'a Resolution,
) -> Option<(VersionRef, &'a Problem)> {
    let Decision::Waiting(Waiting::Gate {
        verdict: Verdict::Refuse(problem),
        ..
    }) = &decided.decision
    else {
        return None;
    };
    let desired = resolution.desired.as_ref().ok()?;
    Some((desired.version.clone(), problem))
}

fn wanted_number(binding: &AliasBinding, resolution: &Resolution) -> Option<String> {
    let pinned = binding.spec.pinned_version.clone();
    pinned.or_else(|| resolution.alias.clone())
}

fn alias_state(
    old: Option<&AliasState>,
    resolution: &Resolution,
    now: Timestamp,
) -> Option<AliasState> {
    let version = resolution.alias.clone()?;
    let since = match old {
        Some(old) if old.version == version => old.since.clone(),
        _ => Time(now),
    };
    Some(AliasState { version, since })
}

/// Recent events that may have caused a change of the workload.
struct Recent<'a> {
    alias: Option<&'a AliasState>,
    retry: Option<&'a HandledRequest>,
}

/// The version in the pod template, and what caused it.
fn running(
    binding: &AliasBinding,
    target: &Target,
    old: &AliasBindingStatus,
    reconciled: &Reconciled<'_>,
    recent: &Recent<'_>,
) -> Option<Running> {
    let desired = reconciled.resolution.desired.as_ref().ok();
    let desired = desired.map(|desired| reapply::as_written(binding, Some(target), desired));
    let known = desired
        .iter()
        .map(|desired| &desired.version)
        .chain(old.known_versions());
    let version = target.held_version(known)?;
    let foreign = target.owners.foreign_version_writers().first();
    let (trigger, cause) = match foreign {
        Some(writer) => (Trigger::Person, format!("written by {}", writer.manager)),
        None => our_cause(binding, &version, old.current(), reconciled.decided, recent),
    };
    let is_new = old
        .running
        .as_ref()
        .is_none_or(|running| !running.version.is_same(&version));
    let written_at = match foreign {
        Some(writer) => writer.at,
        None => target.owners.our_last_write(),
    };
    Some(Running {
        written_at: written_at.filter(|_at| is_new),
        version,
        trigger,
        cause,
    })
}

/// Why Pointsman wrote an earlier version, for people.
fn rollback_cause(decided: &Decided) -> Option<String> {
    let Some(Course::Rollback(problem)) = decided.decision.course() else {
        return None;
    };
    if let Some(postponed) = &decided.memory.postponed {
        let blocked = postponed.version.number();
        return Some(format!(
            "the rollout of version {blocked} was blocked and cost serving capacity"
        ));
    }
    let Some(held_back) = &decided.memory.held_back else {
        return Some(problem.message.clone());
    };
    let failed = held_back.versions.iter().map(|failed| {
        let number = failed.version.number();
        format!("version {number} failed ({})", failed.reason)
    });
    Some(failed.collect::<Vec<_>>().join(", "))
}

/// Whether a version is tried again that was blocked, or that shared a fault with others.
fn is_own_retry(version: &VersionRef, decided: &Decided) -> bool {
    let memory = &decided.memory;
    let postponed = memory
        .postponed
        .as_ref()
        .map(|postponed| &postponed.version);
    let retried = memory
        .held_back
        .as_ref()
        .filter(|all| all.versions.is_empty());
    let retried = retried.map(|held_back| &held_back.wanted);
    let mut tried_again = postponed.into_iter().chain(retried);
    tried_again.any(|tried| tried.is_same(version))
}

/// Why Pointsman wrote a version, for people.
fn our_cause(
    binding: &AliasBinding,
    version: &VersionRef,
    before: Option<&HistoryEntry>,
    decided: &Decided,
    recent: &Recent<'_>,
) -> (Trigger, String) {
    let number = version.number();
    let follows = binding.spec.follows();
    if let Some(cause) = rollback_cause(decided) {
        return (Trigger::Failure, cause);
    }
    let was_asked = decided.memory.apply.as_ref();
    if before.is_some_and(|before| before.version.is_same(version))
        && was_asked.is_some_and(|apply| apply.before.is_some())
    {
        let cause = "somebody asked for the registry's present address and location of the files";
        return (Trigger::Person, cause.to_owned());
    }
    if is_own_retry(version, decided) {
        let cause = format!("{follows} names version {number}, which is tried again");
        return (Trigger::AliasMove, cause);
    }
    if binding.spec.pinned_version.as_deref() == Some(number) {
        return (Trigger::Pin, "spec.pinnedVersion".to_owned());
    }
    if let Some(before) = before
        && !before.version.is_same_model(version)
    {
        let model = &version.id.model;
        return (
            Trigger::SpecChange,
            format!("spec.modelRef names model {model}"),
        );
    }
    let is_since = |moment: &Time| before.is_none_or(|before| moment.0 >= before.started_at.0);
    if recent.alias.is_none_or(|alias| is_since(&alias.since)) {
        (
            Trigger::AliasMove,
            format!("{follows} named version {number}"),
        )
    } else if recent.retry.is_some_and(|retry| is_since(&retry.at)) {
        (
            Trigger::Person,
            format!("somebody asked to try version {number} again"),
        )
    } else {
        let cause = format!("a spec changed while {follows} named version {number}");
        (Trigger::SpecChange, cause)
    }
}

/// The version that is live, with its lineage as long as the mirror knows it.
fn last_good(
    current: Option<&HistoryEntry>,
    old: Option<&GoodVersion>,
    details: Option<&ModelVersion>,
) -> Option<GoodVersion> {
    let Some(entry) = current.filter(|entry| entry.outcome == Outcome::Live) else {
        return old.cloned();
    };
    let model = &entry.version.id.model;
    let lineage = match (details, old) {
        (Some(details), _) if details.reference(model).is_same(&entry.version) => lineage(details),
        (_, Some(old)) if old.version.is_same(&entry.version) => old.lineage.clone(),
        _ => Lineage::default(),
    };
    Some(GoodVersion {
        version: entry.version.clone(),
        since: entry.live_at.clone(),
        lineage,
    })
}
