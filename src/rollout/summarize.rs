//! What the status says after a pass: from what was decided and what was really applied.
//!
//! Absent: intentions. `running` is what the workload holds, not what was sent.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::history::{Running, ledger};
use super::{Action, Decision, Resolution};
use crate::api::alias_binding::{AliasState, HistoryEntry, Outcome, Trigger, VersionState};
use crate::api::conditions::{ARTIFACT_AVAILABLE, READY, RECONCILING, RESOLVED, STALLED, Wanted, transition};
use crate::api::{AliasBinding, AliasBindingStatus, Reason, names, reason::Problem};
use crate::workload::{Progress, Workload, progress};

/// What came of applying a decision.
#[derive(Clone, Debug)]
pub struct Applied<'a> {
    /// The workload as it is after the pass.
    pub workload: Option<&'a Workload>,
    /// Why the write failed, where it did.
    pub failure: Option<Problem>,
}

/// The status after a pass.
#[must_use]
pub fn summarize(
    binding: &AliasBinding,
    resolution: &Resolution,
    decision: &Decision,
    applied: &Applied<'_>,
    now: Timestamp,
) -> AliasBindingStatus {
    let old = binding.status.clone().unwrap_or_default();
    let ours = !matches!(&decision.action, Action::Leave(problem) if problem.reason == Reason::TargetClaimed);
    let workload = applied.workload.filter(|_| ours);
    let progress = workload.map(progress);
    let running = workload.and_then(|workload| running(binding, workload, &old));
    let limit = usize::try_from(binding.spec.history_limit).unwrap_or(1).max(1);
    let history = ledger(&old.history, running.as_ref(), progress.as_ref(), resolution.details.as_ref(), limit, now);
    let conditions = conditions(resolution, decision, applied, progress.as_ref());
    AliasBindingStatus {
        observed_generation: binding.metadata.generation,
        follows: Some(binding.spec.follows().to_owned()),
        wanted: wanted_number(binding, resolution),
        alias: alias_state(old.alias.as_ref(), resolution, now),
        running: running.as_ref().map(|running| running_state(running, history.first())),
        last_good: last_good(&history, old.last_good.as_ref()),
        hold: decision.hold.clone(),
        last_handled_resume: binding.resume_request().cloned(),
        history,
        conditions: transition(&old.conditions, conditions, binding.metadata.generation, now),
    }
}

fn wanted_number(binding: &AliasBinding, resolution: &Resolution) -> Option<String> {
    binding.spec.pinned_version.clone().or_else(|| resolution.alias.clone())
}

fn alias_state(old: Option<&AliasState>, resolution: &Resolution, now: Timestamp) -> Option<AliasState> {
    let version = resolution.alias.clone()?;
    let since = old.filter(|old| old.version == version).map_or(Time(now), |old| old.since.clone());
    Some(AliasState { version, since })
}

/// What the pod template holds, and what wrote it there.
fn running<'a>(binding: &AliasBinding, workload: &'a Workload, old: &AliasBindingStatus) -> Option<Running<'a>> {
    let version = workload.version()?;
    let env = |name: &str| {
        let containers = &workload.spec.template.spec.containers;
        let value = containers.iter().find_map(|container| workload.env(&container.name, name));
        value.and_then(|value| value.value.as_deref())
    };
    let foreign = workload.owners.foreign_version_writers().first();
    let (trigger, writer) = match foreign {
        Some(writer) => (Trigger::Person, format!("written by {}", writer.manager)),
        _ if binding.spec.pinned_version.as_deref() == Some(version) => (Trigger::Pin, "spec.pinnedVersion".to_owned()),
        _ => (Trigger::AliasMove, format!("{} named version {version}", binding.spec.follows())),
    };
    let is_new = old.running.as_ref().is_none_or(|running| running.version != version);
    let written_at = foreign.map_or_else(|| workload.owners.our_last_write(), |writer| writer.at);
    Some(Running {
        version,
        artifact_uri: env(names::MODEL_URI),
        run_id: env(names::MODEL_RUN_ID),
        written_at: written_at.filter(|_| is_new),
        trigger,
        writer,
    })
}

fn running_state(running: &Running<'_>, head: Option<&HistoryEntry>) -> VersionState {
    VersionState {
        version: running.version.to_owned(),
        artifact_uri: running.artifact_uri.map(str::to_owned),
        run_id: running.run_id.filter(|id| !id.is_empty()).map(str::to_owned),
        since: head.map(|head| head.started_at.clone()),
    }
}

fn last_good(history: &[HistoryEntry], old: Option<&VersionState>) -> Option<VersionState> {
    let newest = history.first().filter(|head| head.outcome == Outcome::Live);
    let state = |entry: &HistoryEntry| VersionState {
        version: entry.version.clone(),
        artifact_uri: entry.artifact_uri.clone(),
        run_id: entry.run_id.clone(),
        since: entry.live_at.clone(),
    };
    newest.map(state).or_else(|| old.cloned())
}

fn conditions(
    resolution: &Resolution,
    decision: &Decision,
    applied: &Applied<'_>,
    progress: Option<&Progress>,
) -> Vec<Wanted> {
    let mut conditions = readiness(resolution, decision, applied, progress);
    conditions.push(resolved(resolution));
    conditions.extend(artifact(resolution));
    conditions
}

fn resolved(resolution: &Resolution) -> Wanted {
    match (&resolution.stale, &resolution.wanted) {
        (Some(problem), _) => Wanted::no(RESOLVED, problem.reason, &problem.message),
        (None, Err(problem)) if problem.reason != Reason::ArtifactUnavailable => {
            Wanted::no(RESOLVED, problem.reason, &problem.message)
        }
        (None, Ok(wanted)) => Wanted::yes(RESOLVED, Reason::Resolved, format!("version {}", wanted.version)),
        (None, Err(_)) => Wanted::yes(RESOLVED, Reason::Resolved, "the version is known"),
    }
}

fn artifact(resolution: &Resolution) -> Option<Wanted> {
    match &resolution.wanted {
        Ok(wanted) => Some(Wanted::yes(ARTIFACT_AVAILABLE, Reason::Resolved, &wanted.artifact_uri)),
        Err(problem) if problem.reason == Reason::ArtifactUnavailable => {
            Some(Wanted::no(ARTIFACT_AVAILABLE, problem.reason, &problem.message))
        }
        Err(_) => None,
    }
}

fn readiness(
    resolution: &Resolution,
    decision: &Decision,
    applied: &Applied<'_>,
    progress: Option<&Progress>,
) -> Vec<Wanted> {
    if let Some(failure) = &applied.failure {
        return not_ready(failure);
    }
    match &decision.action {
        Action::Leave(problem) => left(problem, resolution, applied, progress),
        Action::Settled | Action::Apply(_) => rolled(resolution, progress),
    }
}

/// What is left alone is well where it serves and nobody need do anything about it.
fn left(problem: &Problem, resolution: &Resolution, applied: &Applied<'_>, progress: Option<&Progress>) -> Vec<Wanted> {
    let serves = matches!(progress, Some(Progress::Complete));
    let chosen = matches!(problem.reason, Reason::Held | Reason::Suspended);
    if chosen && (serves || applied.workload.is_none()) {
        return vec![Wanted::yes(READY, problem.reason, &problem.message)];
    }
    if chosen {
        return rolled_with(problem.reason, &problem.message, progress);
    }
    // A registry outage leaves a well workload well: what was wanted last is what runs.
    let outage = resolution.stale.as_ref().is_some_and(|stale| *stale == *problem) && is_outage(problem.reason);
    if outage && serves && holds_what_is_wanted(resolution, applied) {
        return vec![outage_but_serving(resolution, problem)];
    }
    not_ready(problem)
}

fn is_outage(reason: Reason) -> bool {
    matches!(reason, Reason::RegistryUnreachable | Reason::RegistryRefused | Reason::RegistryAnswerInvalid)
}

fn holds_what_is_wanted(resolution: &Resolution, applied: &Applied<'_>) -> bool {
    let wanted = resolution.wanted.as_ref().ok().map(|wanted| wanted.version.as_str());
    wanted.is_some() && applied.workload.and_then(Workload::version) == wanted
}

fn outage_but_serving(resolution: &Resolution, problem: &Problem) -> Wanted {
    let version = resolution.wanted.as_ref().map(|wanted| wanted.version.as_str()).unwrap_or_default();
    let message = format!("version {version} keeps running, as the registry named it last; {}", problem.message);
    Wanted::yes(READY, problem.reason, message)
}

/// Whether work goes on by itself, or a person is needed.
fn not_ready(problem: &Problem) -> Vec<Wanted> {
    let heals_by_itself = is_outage(problem.reason) || matches!(problem.reason, Reason::Pending | Reason::ApplyRefused);
    let beside = if heals_by_itself { RECONCILING } else { STALLED };
    vec![Wanted::no(READY, problem.reason, &problem.message), Wanted::yes(beside, problem.reason, &problem.message)]
}

fn rolled(resolution: &Resolution, progress: Option<&Progress>) -> Vec<Wanted> {
    let version = resolution.wanted.as_ref().map(|wanted| wanted.version.clone()).unwrap_or_default();
    let pinned = resolution.alias.as_deref().is_none_or(|alias| alias != version);
    if let (Some(stale), Some(Progress::Complete), false) = (&resolution.stale, progress, pinned) {
        return vec![outage_but_serving(resolution, stale)];
    }
    let (reason, message) = if pinned {
        (Reason::Pinned, format!("version {version} is pinned by spec.pinnedVersion and runs"))
    } else {
        (Reason::Live, format!("version {version} runs"))
    };
    rolled_with(reason, &message, progress)
}

fn rolled_with(reason: Reason, message: &str, progress: Option<&Progress>) -> Vec<Wanted> {
    match progress {
        Some(Progress::Complete) => vec![Wanted::yes(READY, reason, message)],
        Some(Progress::DeadlineExceeded(words)) => {
            not_ready(&Problem::new(Reason::ProgressDeadlineExceeded, deadline_message(words)))
        }
        Some(Progress::Going(how_far)) => {
            vec![Wanted::no(READY, Reason::RollingOut, how_far), Wanted::yes(RECONCILING, Reason::RollingOut, how_far)]
        }
        None => not_ready(&Problem::new(Reason::TargetNotFound, "there is no Deployment")),
    }
}

fn deadline_message(words: &str) -> String {
    format!("the Deployment says: {words}; look at its newest pods, or move the alias back")
}
