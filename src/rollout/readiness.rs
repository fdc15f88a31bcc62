//! The conditions of a binding after a reconcile.
//!
//! Absent: time. The time of a transition is set when conditions are merged.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::artifact_check::forward_check;
use super::assess::baked_at;
use super::decide::{Course, Decision, Waiting};
use super::gates::{Verdict, hindrance, invalid_gate};
use super::messages::{self, namespace};
use super::reconciled::Reconciled;
use super::resolve::Resolution;
use crate::api::alias_binding::{HistoryEntry, Outcome};
use crate::api::conditions::{
    ARTIFACT_AVAILABLE, ConditionUpdate, GATES_PASSED, READY, RESOLVED, find, not_ready,
    reconciling, stalled,
};
use crate::api::promotion::GateState;
use crate::api::reason::Problem;
use crate::api::{AliasBinding, Availability, Reason};
use crate::targets::{Form, RolloutState, Target};

/// The workload and the history entry of its version, as they are after the reconcile.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The workload, if this binding drives it.
    pub target: Option<&'a Target>,
    /// The history entry of the running version.
    pub current: Option<&'a HistoryEntry>,
    /// The results of the gates for the wanted version.
    pub gates: &'a [GateState],
}

impl View<'_> {
    fn is_complete(&self) -> bool {
        self.target.is_some_and(Target::is_complete)
    }

    /// Whether the version serves: its rollout is complete, or it was live before and the workload's own minimum is available.
    fn serves(&self) -> bool {
        let is_live = self
            .current
            .is_some_and(|entry| entry.outcome == Outcome::Live);
        let has_minimum = self
            .target
            .is_some_and(|target| target.capacity.has_minimum);
        self.is_complete() || (is_live && has_minimum)
    }
}

/// The conditions after a reconcile.
pub fn conditions(
    binding: &AliasBinding,
    reconciled: &Reconciled<'_>,
    old: &[Condition],
    view: View<'_>,
) -> Vec<ConditionUpdate> {
    let mut conditions = readiness(binding, reconciled, view);
    let is_waiting = matches!(reconciled.decided.decision, Decision::Waiting(_));
    conditions.push(resolved(reconciled.resolution, is_waiting));
    conditions.extend(artifact(reconciled, old));
    conditions.extend(gates_passed(binding, view));
    conditions
}

fn readiness(
    binding: &AliasBinding,
    reconciled: &Reconciled<'_>,
    view: View<'_>,
) -> Vec<ConditionUpdate> {
    if let Some(failure) = &reconciled.applied.failure {
        return not_ready(failure);
    }
    match &reconciled.decided.decision {
        Decision::Suspended(problem) | Decision::Held(problem) => by_choice(problem, view),
        Decision::Claimed(problem) | Decision::NoRollbackTarget(problem) => not_ready(problem),
        Decision::Record(problem) => reconciling(problem),
        Decision::Waiting(waiting)
        | Decision::Settled(Course::Restore(waiting))
        | Decision::Write(_, Course::Restore(waiting)) => {
            waits(waiting, reconciled.resolution, view)
        }
        Decision::Settled(_) | Decision::Write(..) if reconciled.decided.blocked.is_some() => {
            let blocked = reconciled.decided.blocked.as_ref();
            blocked.map(reconciling).unwrap_or_default()
        }
        Decision::Settled(Course::Rollback(problem))
        | Decision::Write(_, Course::Rollback(problem)) => {
            if problem.reason == Reason::Blocked {
                reconciling(problem)
            } else if view.is_complete() {
                stalled(problem)
            } else {
                reconciling(problem)
            }
        }
        Decision::Settled(Course::Forward) | Decision::Write(_, Course::Forward) => {
            forward(binding, reconciled, view)
        }
    }
}

/// Whether a gate of the spec is in the wanted version's way.
fn gates_passed(binding: &AliasBinding, view: View<'_>) -> Option<ConditionUpdate> {
    let first = binding.gates().first()?;
    if let Some(problem) = invalid_gate(binding) {
        return Some(ConditionUpdate::no(
            GATES_PASSED,
            problem.reason,
            problem.message,
        ));
    }
    let version = view.gates.first().map_or("", |gate| gate.version.as_str());
    Some(match hindrance(view.gates) {
        Some((_, sentence)) => {
            let message = format!("version {version}: {sentence}");
            ConditionUpdate::no(GATES_PASSED, Reason::GateFailed, message)
        }
        None if view.gates.is_empty() => {
            let message = format!("no version waits for gate {} or another one", first.name);
            ConditionUpdate::yes(GATES_PASSED, Reason::GatesPassed, message)
        }
        None => {
            let message = format!("version {version} passed {} gates", view.gates.len());
            ConditionUpdate::yes(GATES_PASSED, Reason::GatesPassed, message)
        }
    })
}

/// A person chose that nothing is changed: Ready as long as the workload is well.
fn by_choice(problem: &Problem, view: View<'_>) -> Vec<ConditionUpdate> {
    match view.target {
        None => vec![ConditionUpdate::yes(
            READY,
            problem.reason,
            &problem.message,
        )],
        Some(target) => rollout(problem.reason, &problem.message, target, view.current),
    }
}

/// People hold the wanted version: Ready as long as the version that runs is well. Nothing is well if none runs yet.
fn paused(problem: &Problem, view: View<'_>) -> Vec<ConditionUpdate> {
    match view.current {
        Some(_) => by_choice(problem, view),
        None => reconciling(problem),
    }
}

fn waits(waiting: &Waiting, resolution: &Resolution, view: View<'_>) -> Vec<ConditionUpdate> {
    match waiting {
        Waiting::Checks(problem)
        | Waiting::Gate {
            verdict: Verdict::Retry(problem),
            ..
        } => reconciling(problem),
        Waiting::Gate {
            verdict: Verdict::Pause { .. },
            problem,
            ..
        } => paused(problem, view),
        Waiting::Unresolved(problem) | Waiting::Target(problem) | Waiting::Gate { problem, .. } => {
            match serving_in_outage(problem, resolution, view) {
                Some(ready) => vec![ready],
                None => not_ready(problem),
            }
        }
    }
}

/// `fail_static`: in a registry outage a workload that runs the last resolved version stays Ready.
fn serving_in_outage(
    problem: &Problem,
    resolution: &Resolution,
    view: View<'_>,
) -> Option<ConditionUpdate> {
    let is_outage =
        resolution.stale.as_ref() == Some(problem) && problem.reason.is_registry_outage();
    let desired = resolution.desired.as_ref().ok()?;
    let runs_desired = view.target?.runs(&desired.version);
    (is_outage && view.serves() && runs_desired).then(|| outage_but_serving(resolution, problem))
}

fn outage_but_serving(resolution: &Resolution, problem: &Problem) -> ConditionUpdate {
    let number = resolution
        .desired
        .as_ref()
        .map_or("", |desired| desired.number());
    let message = format!(
        "version {number} keeps running, as the registry named it last; {}",
        problem.message
    );
    ConditionUpdate::yes(READY, problem.reason, message)
}

fn forward(
    binding: &AliasBinding,
    reconciled: &Reconciled<'_>,
    view: View<'_>,
) -> Vec<ConditionUpdate> {
    let resolution = reconciled.resolution;
    let note = reconciled.decided.note.as_ref();
    let with_note = |sentence: String| note.map_or(sentence.clone(), |note| note.behind(&sentence));
    let number = resolution
        .desired
        .as_ref()
        .map_or("", |desired| desired.number());
    if let Some(entry) = view.current {
        if entry.outcome == Outcome::Failed {
            return failed(number, entry);
        }
        if entry.outcome == Outcome::Baking && view.is_complete() {
            return baking(binding, entry);
        }
    }
    let Some(target) = view.target else {
        return not_ready(&missing_target(binding));
    };
    if resolution
        .alias
        .as_deref()
        .is_none_or(|alias| alias != number)
    {
        let message = with_note(format!(
            "version {number} is pinned by spec.pinnedVersion and runs"
        ));
        return rollout(Reason::Pinned, &message, target, view.current);
    }
    match &resolution.stale {
        // An outage that hinders nothing is told by the registry's own status.
        Some(stale) if view.serves() && !resolution.is_outage => {
            vec![outage_but_serving(resolution, stale)]
        }
        _ => {
            let message = with_note(format!("version {number} runs"));
            rollout(Reason::Live, &message, target, view.current)
        }
    }
}

fn missing_target(binding: &AliasBinding) -> Problem {
    let (kind, name) = (binding.target_kind().resource(), binding.workload_name());
    messages::problem(
        Reason::TargetNotFound,
        &format!("there is no {kind}/{name}"),
        &format!("list them: kubectl get {kind} -n {}", namespace(binding)),
    )
}

fn failed(number: &str, entry: &HistoryEntry) -> Vec<ConditionUpdate> {
    let message = format!(
        "version {number} failed and is still in the workload: {}",
        entry.message
    );
    let reason = entry.reason.known().unwrap_or(Reason::CrashLoop);
    stalled(&Problem::new(reason, message))
}

fn baking(binding: &AliasBinding, entry: &HistoryEntry) -> Vec<ConditionUpdate> {
    let number = entry.version.number();
    let message = match baked_at(binding, entry) {
        Some(until) => format!("version {number} runs and is observed until {until}"),
        None => format!("version {number} runs and is observed"),
    };
    reconciling(&Problem::new(Reason::Baking, message))
}

/// Ready with this reason once the rollout is complete; a version that was live stays Ready as long as the workload's own
/// minimum of pods is available.
fn rollout(
    reason: Reason,
    message: &str,
    target: &Target,
    current: Option<&HistoryEntry>,
) -> Vec<ConditionUpdate> {
    let is_live = current.is_some_and(|entry| entry.outcome == Outcome::Live);
    match &target.rollout {
        RolloutState::ScaledToZero => vec![scaled_to_zero(target)],
        _ if is_live && target.serves_its_template() => {
            vec![ConditionUpdate::yes(READY, reason, message)]
        }
        state if is_live && !target.capacity.has_minimum && *state != RolloutState::Complete => {
            not_ready(&unavailable(target))
        }
        RolloutState::Complete => vec![ConditionUpdate::yes(READY, reason, message)],
        RolloutState::InProgress(hint) => reconciling(&Problem::new(Reason::RollingOut, hint)),
        RolloutState::Aborted(abort) => stalled(&messages::problem(
            Reason::RolloutAborted,
            &format!("the {} says: {}", target.kind, abort.words),
            &abort.remedy,
        )),
        RolloutState::DeadlineExceeded(words) => {
            let namespace = target.namespace();
            stalled(&messages::problem(
                Reason::ProgressDeadlineExceeded,
                &format!("the {} says: {words}", target.kind),
                &format!("look at its newest pods: kubectl get pods -n {namespace}"),
            ))
        }
    }
}

fn scaled_to_zero(target: &Target) -> ConditionUpdate {
    let version = target.version().unwrap_or_default();
    let workload = target.reference();
    let message = if target.form == Form::JobTemplate {
        format!("{workload} has version {version}, and is live when a Job of it is complete")
    } else {
        format!("{workload} has no replicas: version {version} is observed when it first has pods")
    };
    ConditionUpdate::yes(READY, Reason::ScaledToZero, message)
}

fn unavailable(target: &Target) -> Problem {
    let namespace = target.namespace();
    messages::problem(
        Reason::Unavailable,
        &format!(
            "{} has fewer available pods than it requires, and its version was good",
            target.reference()
        ),
        &format!("look at its pods: kubectl get pods -n {namespace}"),
    )
}

fn resolved(resolution: &Resolution, is_waiting: bool) -> ConditionUpdate {
    let desired = resolution.desired.as_ref();
    let stale = resolution.stale.as_ref();
    let is_told = is_waiting || !resolution.is_outage;
    let problem = match (stale.filter(|_stale| is_told), desired) {
        (None, Ok(desired)) => {
            let message = format!("version {}", desired.number());
            return ConditionUpdate::yes(RESOLVED, Reason::Resolved, message);
        }
        (None, Err(problem)) if problem.reason == Reason::ArtifactUnavailable => {
            return ConditionUpdate::yes(RESOLVED, Reason::Resolved, "the version is known");
        }
        (Some(problem), _) | (None, Err(problem)) => problem,
    };
    ConditionUpdate::no(RESOLVED, problem.reason, &problem.message)
}

/// The result of the artifact check; if it is too old, the condition of the same artifact stays as it was.
fn artifact(reconciled: &Reconciled<'_>, old: &[Condition]) -> Option<ConditionUpdate> {
    let type_ = ARTIFACT_AVAILABLE;
    let desired = match &reconciled.resolution.desired {
        Ok(desired) => desired,
        Err(problem) if problem.reason == Reason::ArtifactUnavailable => {
            return Some(ConditionUpdate::no(type_, problem.reason, &problem.message));
        }
        Err(_) => return None,
    };
    let uri = desired.artifact_uri();
    let about = |sentence: &str| about_artifact(uri, sentence);
    Some(match reconciled.checks.get(&forward_check(desired)) {
        Some(Availability::Readable | Availability::Moved(_)) => {
            ConditionUpdate::yes(type_, Reason::Resolved, about("can be read"))
        }
        Some(Availability::Missing(why)) => {
            ConditionUpdate::no(type_, Reason::ArtifactUnavailable, about(why))
        }
        Some(Availability::Unknown(why)) => {
            ConditionUpdate::unknown(type_, Reason::ArtifactCheckFailed, about(why))
        }
        Some(Availability::Unchecked(why)) => {
            ConditionUpdate::unknown(type_, Reason::Resolved, about(why))
        }
        None => as_before(old, uri).unwrap_or_else(|| {
            ConditionUpdate::unknown(type_, Reason::Pending, about("not checked yet"))
        }),
    })
}

/// A sentence that begins with the artifact's URI, so that an older condition shows which artifact it is about.
fn about_artifact(uri: &str, sentence: &str) -> String {
    match sentence.strip_prefix(uri) {
        Some(rest) => format!("{uri}: {}", rest.trim_start_matches([' ', ':', ','])),
        None => format!("{uri}: {sentence}"),
    }
}

fn as_before(old: &[Condition], uri: &str) -> Option<ConditionUpdate> {
    let old = find(old, ARTIFACT_AVAILABLE)?;
    let rest = old.message.strip_prefix(uri)?;
    if !rest.starts_with(": ") {
        return None;
    }
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
