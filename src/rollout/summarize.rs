//! What the status says after a pass: from what was decided and what was really applied.
//!
//! Absent: intentions. `running` is what the workload holds, not what was sent.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::back::lineage;
use super::decide::{foreign_writer, forward_question};
use super::evidence::{Answer, Evidence};
use super::history::{Running, Turn, ledger};
use super::judge::baked_at;
use super::{Action, Decision, Resolution};
use crate::api::alias_binding::{
    AliasState, HandledRequest, HistoryEntry, Outcome, Trigger, VersionState,
};
use crate::api::conditions::{
    ARTIFACT_AVAILABLE, ConditionUpdate, READY, RECONCILING, RESOLVED, STALLED, find, transition,
};
use crate::api::rollback::{GoodVersion, RetrainState};
use crate::api::{AliasBinding, AliasBindingStatus, ModelVersion, Reason, names, reason::Problem};
use crate::targets::{Progress, Workload, progress};

/// What came of applying a decision.
#[derive(Clone, Debug)]
pub struct Applied<'a> {
    /// The workload as it is after the pass.
    pub workload: Option<&'a Workload>,
    /// Why the write failed, where it did.
    pub failure: Option<Problem>,
    /// The Job that trains a lost version again, where there is one.
    pub retrain: Option<RetrainState>,
}

/// What a pass knows in the end.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// What the mirror said.
    pub resolution: &'a Resolution,
    /// What registry and stores answered of late.
    pub evidence: &'a Evidence,
    /// What was decided.
    pub decision: &'a Decision,
    /// What came of it.
    pub applied: &'a Applied<'a>,
}

/// The status after a pass.
#[must_use]
pub fn summarize(binding: &AliasBinding, pass: &Pass<'_>, now: Timestamp) -> AliasBindingStatus {
    let old = binding.status.clone().unwrap_or_default();
    let Pass {
        resolution,
        decision,
        applied,
        ..
    } = *pass;
    let ours = !matches!(&decision.action, Action::Leave(problem) if problem.reason == Reason::TargetClaimed);
    let workload = applied.workload.filter(|_| ours);
    let progress = workload.map(progress);
    let alias = alias_state(old.alias.as_ref(), resolution, now);
    let last_handled_retry = handled_retry(binding, &old, decision, now);
    let memory = Memory {
        alias: alias.as_ref(),
        retry: last_handled_retry.as_ref(),
    };
    let running = workload.and_then(|workload| running(binding, workload, &old, decision, &memory));
    let turn = Turn {
        running: running.as_ref(),
        progress: progress.as_ref(),
        failure: decision
            .failure
            .as_ref()
            .filter(|_| !matches!(decision.action, Action::Apply(_))),
        bake: SignedDuration::from_secs(i64::from(binding.spec.rollback.bake_seconds)),
        refused: refused(decision, resolution),
        details: resolution.details.as_ref(),
    };
    let limit = usize::try_from(binding.spec.history_limit)
        .unwrap_or(1)
        .max(1);
    let history = ledger(&old.history, &turn, limit, now);
    let current = history.iter().find(|entry| entry.finished_at.is_none());
    let conditions = conditions(
        binding,
        pass,
        &old.conditions,
        Seen {
            workload,
            progress: progress.as_ref(),
            current,
        },
    );
    AliasBindingStatus {
        observed_generation: binding.metadata.generation,
        follows: Some(binding.spec.follows().to_owned()),
        wanted: wanted_number(binding, resolution),
        alias,
        running: running
            .as_ref()
            .map(|running| running_state(running, current)),
        last_good: last_good(current, old.last_good.as_ref(), resolution.details.as_ref()),
        hold: decision.hold.clone(),
        held_back: decision.held_back.clone(),
        lost: decision.lost.clone(),
        retrain: applied.retrain.clone(),
        last_handled_resume: handled_resume(binding, &old, decision, workload),
        last_handled_retry,
        conditions: transition(
            &old.conditions,
            &conditions,
            binding.metadata.generation,
            now,
        ),
        history,
    }
}

/// A retry is acted on when nothing is held back any more because of it. A binding that touches nothing only puts it off.
fn handled_retry(
    binding: &AliasBinding,
    old: &AliasBindingStatus,
    decision: &Decision,
    now: Timestamp,
) -> Option<HandledRequest> {
    let touches_nothing =
        |problem: &Problem| matches!(problem.reason, Reason::Suspended | Reason::TargetClaimed);
    if matches!(&decision.action, Action::Leave(problem) if touches_nothing(problem)) {
        return old.last_handled_retry.clone();
    }
    let value = binding.retry_request()?;
    let known = old
        .last_handled_retry
        .clone()
        .filter(|known| known.value == *value);
    known.or_else(|| {
        Some(HandledRequest {
            value: value.clone(),
            at: Time(now),
        })
    })
}

/// A resume is acted on when a person's change is written over. Whatever hinders that only puts it off.
fn handled_resume(
    binding: &AliasBinding,
    old: &AliasBindingStatus,
    decision: &Decision,
    workload: Option<&Workload>,
) -> Option<String> {
    let is_persons = workload.is_some_and(|workload| foreign_writer(workload).is_some());
    let is_put_off = is_persons && matches!(decision.action, Action::Leave(_));
    if is_put_off {
        old.last_handled_resume.clone()
    } else {
        binding.resume_request().cloned()
    }
}

fn refused<'a>(
    decision: &'a Decision,
    resolution: &'a Resolution,
) -> Option<(&'a ModelVersion, &'a Problem)> {
    match &decision.action {
        Action::Leave(problem) if decision.is_refused => {
            Some((resolution.details.as_ref()?, problem))
        }
        _ => None,
    }
}

fn wanted_number(binding: &AliasBinding, resolution: &Resolution) -> Option<String> {
    binding
        .spec
        .pinned_version
        .clone()
        .or_else(|| resolution.alias.clone())
}

fn alias_state(
    old: Option<&AliasState>,
    resolution: &Resolution,
    now: Timestamp,
) -> Option<AliasState> {
    let version = resolution.alias.clone()?;
    let since = old
        .filter(|old| old.version == version)
        .map_or(Time(now), |old| old.since.clone());
    Some(AliasState { version, since })
}

/// What happened of late that may have changed the workload.
struct Memory<'a> {
    alias: Option<&'a AliasState>,
    retry: Option<&'a HandledRequest>,
}

/// What the pod template holds, and what wrote it there.
fn running<'a>(
    binding: &AliasBinding,
    workload: &'a Workload,
    old: &AliasBindingStatus,
    decision: &Decision,
    memory: &Memory<'_>,
) -> Option<Running<'a>> {
    let version = workload.version()?;
    let foreign = workload.owners.foreign_version_writers().first();
    let (trigger, writer) = match foreign {
        Some(writer) => (Trigger::Person, format!("written by {}", writer.manager)),
        None => our_cause(binding, version, old.current(), decision, memory),
    };
    let is_new = old
        .running
        .as_ref()
        .is_none_or(|running| running.version != version);
    let written_at = foreign.map_or_else(|| workload.owners.our_last_write(), |writer| writer.at);
    Some(Running {
        version,
        artifact_uri: workload.injected(names::MODEL_URI),
        run_id: workload.injected(names::MODEL_RUN_ID),
        written_at: written_at.filter(|_| is_new),
        trigger,
        writer,
    })
}

/// Why Pointsman wrote a version, for people.
fn our_cause(
    binding: &AliasBinding,
    version: &str,
    before: Option<&HistoryEntry>,
    decision: &Decision,
    memory: &Memory<'_>,
) -> (Trigger, String) {
    if let Some(held_back) = decision
        .held_back
        .as_ref()
        .filter(|_| decision.gone_back.is_some())
    {
        let failed: Vec<_> = held_back
            .versions
            .iter()
            .map(|failed| format!("version {} failed ({})", failed.version, failed.reason))
            .collect();
        return (Trigger::Failure, failed.join(", "));
    }
    if binding.spec.pinned_version.as_deref() == Some(version) {
        return (Trigger::Pin, "spec.pinnedVersion".to_owned());
    }
    let since = |moment: &Time| before.is_none_or(|before| moment.0 >= before.started_at.0);
    let follows = binding.spec.follows();
    if memory.alias.is_none_or(|alias| since(&alias.since)) {
        (
            Trigger::AliasMove,
            format!("{follows} named version {version}"),
        )
    } else if memory.retry.is_some_and(|retry| since(&retry.at)) {
        (
            Trigger::Person,
            format!("somebody asked to try version {version} again"),
        )
    } else {
        (
            Trigger::SpecChange,
            format!("a spec changed while {follows} named version {version}"),
        )
    }
}

fn running_state(running: &Running<'_>, head: Option<&HistoryEntry>) -> VersionState {
    VersionState {
        version: running.version.to_owned(),
        artifact_uri: running.artifact_uri.map(str::to_owned),
        run_id: running
            .run_id
            .filter(|id| !id.is_empty())
            .map(str::to_owned),
        since: head.map(|head| head.started_at.clone()),
    }
}

/// The version that is live, with what can train it again, as long as the mirror knows that.
fn last_good(
    current: Option<&HistoryEntry>,
    old: Option<&GoodVersion>,
    details: Option<&ModelVersion>,
) -> Option<GoodVersion> {
    let Some(entry) = current.filter(|entry| entry.outcome == Outcome::Live) else {
        return old.cloned();
    };
    let same = old.filter(|old| entry.is_version(&old.version, old.artifact_uri.as_deref()));
    let known = details
        .filter(|details| entry.is_version(&details.version, details.artifact_uri.as_deref()));
    Some(GoodVersion {
        version: entry.version.clone(),
        artifact_uri: entry.artifact_uri.clone(),
        run_id: entry.run_id.clone(),
        since: entry.live_at.clone(),
        lineage: known
            .map(lineage)
            .or_else(|| same.map(|old| old.lineage.clone()))
            .unwrap_or_default(),
    })
}

/// What is seen of the workload after a pass.
#[derive(Clone, Copy)]
struct Seen<'a> {
    workload: Option<&'a Workload>,
    progress: Option<&'a Progress>,
    current: Option<&'a HistoryEntry>,
}

fn conditions(
    binding: &AliasBinding,
    pass: &Pass<'_>,
    old: &[Condition],
    seen: Seen<'_>,
) -> Vec<ConditionUpdate> {
    let mut conditions = readiness(binding, pass, seen);
    conditions.push(resolved(pass.resolution));
    conditions.extend(artifact(pass, old));
    conditions
}

fn resolved(resolution: &Resolution) -> ConditionUpdate {
    match (&resolution.stale, &resolution.wanted) {
        (Some(problem), _) => ConditionUpdate::no(RESOLVED, problem.reason, &problem.message),
        (None, Err(problem)) if problem.reason != Reason::ArtifactUnavailable => {
            ConditionUpdate::no(RESOLVED, problem.reason, &problem.message)
        }
        (None, Ok(wanted)) => ConditionUpdate::yes(
            RESOLVED,
            Reason::Resolved,
            format!("version {}", wanted.version),
        ),
        (None, Err(_)) => ConditionUpdate::yes(RESOLVED, Reason::Resolved, "the version is known"),
    }
}

/// What the store answered; where it was not asked of late, what the condition said of the same artifact before.
fn artifact(pass: &Pass<'_>, old: &[Condition]) -> Option<ConditionUpdate> {
    let wanted = match &pass.resolution.wanted {
        Ok(wanted) => wanted,
        Err(problem) if problem.reason == Reason::ArtifactUnavailable => {
            return Some(ConditionUpdate::no(
                ARTIFACT_AVAILABLE,
                problem.reason,
                &problem.message,
            ));
        }
        Err(_) => return None,
    };
    let told = |why: &str| of_artifact(&wanted.artifact_uri, why);
    Some(match pass.evidence.get(&forward_question(wanted)) {
        Some(Answer::Readable) => {
            ConditionUpdate::yes(ARTIFACT_AVAILABLE, Reason::Resolved, told("can be read"))
        }
        Some(Answer::Gone(why) | Answer::Silent(why)) => {
            ConditionUpdate::no(ARTIFACT_AVAILABLE, Reason::ArtifactUnavailable, told(why))
        }
        Some(Answer::Unchecked(why)) => {
            ConditionUpdate::unknown(ARTIFACT_AVAILABLE, Reason::Resolved, told(why))
        }
        None => as_before(old, &wanted.artifact_uri).unwrap_or_else(|| {
            ConditionUpdate::unknown(ARTIFACT_AVAILABLE, Reason::Pending, told("not asked yet"))
        }),
    })
}

/// A sentence that begins with the artifact's URI: by that it is known what an older condition speaks of.
fn of_artifact(uri: &str, why: &str) -> String {
    match why.strip_prefix(uri) {
        Some(rest) => format!("{uri}: {}", rest.trim_start_matches([' ', ':', ','])),
        None => format!("{uri}: {why}"),
    }
}

fn as_before(old: &[Condition], uri: &str) -> Option<ConditionUpdate> {
    let speaks_of_it = |message: &str| {
        message
            .strip_prefix(uri)
            .is_some_and(|rest| rest.starts_with(": "))
    };
    let old = find(old, ARTIFACT_AVAILABLE).filter(|old| speaks_of_it(&old.message))?;
    let status = match old.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    };
    Some(ConditionUpdate {
        type_: ARTIFACT_AVAILABLE,
        status,
        reason: Reason::parse(&old.reason)?,
        message: old.message.clone(),
    })
}

fn readiness(binding: &AliasBinding, pass: &Pass<'_>, seen: Seen<'_>) -> Vec<ConditionUpdate> {
    if let Some(failure) = &pass.applied.failure {
        return not_ready(failure, false);
    }
    match (&pass.decision.action, &pass.decision.gone_back) {
        (Action::Leave(problem), _) => left(problem, pass, seen),
        (Action::Settled | Action::Apply(_), Some(problem)) => {
            not_ready(problem, !matches!(seen.progress, Some(Progress::Complete)))
        }
        (Action::Settled | Action::Apply(_), None) => rolled(binding, pass.resolution, seen),
    }
}

/// What is left alone is well where it serves and nobody need do anything about it.
fn left(problem: &Problem, pass: &Pass<'_>, seen: Seen<'_>) -> Vec<ConditionUpdate> {
    let serves = matches!(seen.progress, Some(Progress::Complete));
    let chosen = matches!(problem.reason, Reason::Held | Reason::Suspended);
    if chosen && (serves || seen.workload.is_none()) {
        return vec![ConditionUpdate::yes(
            READY,
            problem.reason,
            &problem.message,
        )];
    }
    if chosen {
        return rolled_with(problem.reason, &problem.message, seen.progress);
    }
    // A registry outage leaves a well workload well: what was wanted last is what runs.
    let outage = pass
        .resolution
        .stale
        .as_ref()
        .is_some_and(|stale| *stale == *problem)
        && is_outage(problem.reason);
    if outage && serves && holds_what_is_wanted(pass.resolution, seen.workload) {
        return vec![outage_but_serving(pass.resolution, problem)];
    }
    not_ready(problem, pass.decision.goes_on)
}

fn is_outage(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RegistryUnreachable | Reason::RegistryRefused | Reason::RegistryAnswerInvalid
    )
}

fn holds_what_is_wanted(resolution: &Resolution, workload: Option<&Workload>) -> bool {
    let wanted = resolution
        .wanted
        .as_ref()
        .ok()
        .map(|wanted| wanted.version.as_str());
    wanted.is_some() && workload.and_then(Workload::version) == wanted
}

fn outage_but_serving(resolution: &Resolution, problem: &Problem) -> ConditionUpdate {
    let version = resolution
        .wanted
        .as_ref()
        .map(|wanted| wanted.version.as_str())
        .unwrap_or_default();
    let message = format!(
        "version {version} keeps running, as the registry named it last; {}",
        problem.message
    );
    ConditionUpdate::yes(READY, problem.reason, message)
}

/// Whether work goes on by itself, or a person is needed.
fn not_ready(problem: &Problem, goes_on: bool) -> Vec<ConditionUpdate> {
    let heals_by_itself = is_outage(problem.reason)
        || matches!(problem.reason, Reason::Pending | Reason::ApplyRefused);
    let beside = if goes_on || heals_by_itself {
        RECONCILING
    } else {
        STALLED
    };
    vec![
        ConditionUpdate::no(READY, problem.reason, &problem.message),
        ConditionUpdate::yes(beside, problem.reason, &problem.message),
    ]
}

fn rolled(binding: &AliasBinding, resolution: &Resolution, seen: Seen<'_>) -> Vec<ConditionUpdate> {
    let version = resolution
        .wanted
        .as_ref()
        .map(|wanted| wanted.version.clone())
        .unwrap_or_default();
    match seen.current {
        Some(entry) if entry.outcome == Outcome::Failed => {
            let message = format!(
                "version {version} failed and is still in the workload: {}",
                entry.message
            );
            return not_ready(&Problem::new(entry.reason, message), false);
        }
        Some(entry) if entry.outcome == Outcome::Baking => return baking(binding, entry),
        _ => {}
    }
    let pinned = resolution
        .alias
        .as_deref()
        .is_none_or(|alias| alias != version);
    if let (Some(stale), Some(Progress::Complete), false) =
        (&resolution.stale, seen.progress, pinned)
    {
        return vec![outage_but_serving(resolution, stale)];
    }
    let (reason, message) = if pinned {
        (
            Reason::Pinned,
            format!("version {version} is pinned by spec.pinnedVersion and runs"),
        )
    } else {
        (Reason::Live, format!("version {version} runs"))
    };
    rolled_with(reason, &message, seen.progress)
}

fn baking(binding: &AliasBinding, entry: &HistoryEntry) -> Vec<ConditionUpdate> {
    let until =
        baked_at(binding, entry).map_or_else(String::new, |until| format!(" until {until}"));
    let message = format!("version {} runs and is watched{until}", entry.version);
    vec![
        ConditionUpdate::no(READY, Reason::Baking, &message),
        ConditionUpdate::yes(RECONCILING, Reason::Baking, &message),
    ]
}

fn rolled_with(reason: Reason, message: &str, progress: Option<&Progress>) -> Vec<ConditionUpdate> {
    match progress {
        Some(Progress::Complete) => vec![ConditionUpdate::yes(READY, reason, message)],
        Some(Progress::DeadlineExceeded(words)) => not_ready(
            &Problem::new(Reason::ProgressDeadlineExceeded, deadline_message(words)),
            false,
        ),
        Some(Progress::Going(how_far)) => {
            vec![
                ConditionUpdate::no(READY, Reason::RollingOut, how_far),
                ConditionUpdate::yes(RECONCILING, Reason::RollingOut, how_far),
            ]
        }
        None => not_ready(
            &Problem::new(Reason::TargetNotFound, "there is no Deployment"),
            false,
        ),
    }
}

fn deadline_message(words: &str) -> String {
    format!("the Deployment says: {words}; look at its newest pods, or move the alias back")
}
