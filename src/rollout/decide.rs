//! The one decision: leave the workload as it is, or write a version into it. The rules are in docs/rules.md.
//!
//! Absent: any effect.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::assess::{Assessment, assess, keeps_out, running_good_version, runs_failed};
use super::claim::Claim;
use super::gates::{
    GateInput, GateResults, Verdict, approval_of, evaluate, first_hindrance, invalid, is_exempt,
    overrode, paused,
};
use super::hold::{
    hold, hold_in_rollback, hold_while_suspended, hold_while_unresolved, standing_hold,
};
use super::messages::{self, Note, namespace, retry_command};
use super::observed::Observed;
use super::reapply;
use super::rollback_target::{
    RollbackTarget, candidates, choose, has_failed, lineage, lost_version, missing,
    retrain_sentence,
};
use crate::api::alias_binding::{AppliedRequest, ApprovalRecord, Hold, Overrode};
use crate::api::inject::InjectedValue;
use crate::api::reason::Problem;
use crate::api::rollback::{GoodVersion, HeldBack, Lost, Postponed};
use crate::api::{AliasBinding, AliasBindingStatus, Reason, VersionRef};
use crate::targets::{self, DesiredVersion, Injection, Target};

/// The direction of a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Course {
    /// To the version that is wanted.
    Forward,
    /// To an earlier version, because the wanted one failed; with the sentence for people.
    Rollback(Problem),
    /// The version that ran, into a workload that was deleted or replaced; with the reason why nothing goes forward.
    Restore(Waiting),
}

/// Why nothing is written for now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Waiting {
    /// No version can be resolved.
    Unresolved(Problem),
    /// The workload does not exist, or the version cannot be written into it.
    Target(Problem),
    /// The results of artifact checks are not known yet.
    Checks(Problem),
    /// A gate does not let the version go forward.
    Gate {
        /// The gate's name.
        gate: &'static str,
        /// Its result.
        verdict: Verdict,
        /// Its sentence.
        problem: Problem,
    },
}

/// What to do. Each case is a sentence of docs/rules.md.
#[derive(Clone, Debug, Eq, PartialEq)]
#[allow(clippy::large_enum_variant)] // there is one for each reconcile
pub enum Decision {
    /// `spec.suspend`: nothing is changed.
    Suspended(Problem),
    /// Somebody else drives the workload.
    Claimed(Problem),
    /// A person's change stands.
    Held(Problem),
    /// News of a version are written into the status before the next reconcile acts on them.
    Record(Problem),
    /// Nothing is written for now.
    Waiting(Waiting),
    /// The version failed, and there is none to roll back to.
    NoRollbackTarget(Problem),
    /// The workload holds the right version already.
    Settled(Course),
    /// A version is written.
    Write(Injection, Course),
}

impl Decision {
    /// The direction of the version in the workload, if the decision has one.
    #[must_use]
    pub fn course(&self) -> Option<&Course> {
        match self {
            Self::Settled(course) | Self::Write(_, course) => Some(course),
            _ => None,
        }
    }
}

/// What the status must remember.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The person's hold in force.
    pub hold: Option<Hold>,
    /// The versions that are held back.
    pub held_back: Option<HeldBack>,
    /// The version that is tried again later.
    pub postponed: Option<Postponed>,
    /// The version that cannot be rolled back to any more.
    pub lost: Option<Lost>,
    /// The last request for the registry's present address and the present location of the files.
    pub apply: Option<AppliedRequest>,
}

/// A decision with everything that goes into the status beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// What to do.
    pub decision: Decision,
    /// What the status must remember.
    pub memory: Memory,
    /// Why the version in the workload fails, if it does.
    pub failure: Option<Problem>,
    /// Why its rollout is blocked, if it is.
    pub blocked: Option<Problem>,
    /// The bake begins no earlier: when its pods were replaced, or a chosen container of them was restarted.
    pub bakes_from: Option<Timestamp>,
    /// When to reconcile again, although nothing may have changed by then.
    pub look_again: Option<Timestamp>,
    /// What people should know beside the decision.
    pub note: Option<Note>,
    /// The rule that a person has the wanted version go past.
    pub overrode: Option<Overrode>,
    /// The results of the gates of the spec, if they were evaluated for a version that does not run yet.
    pub gates: Option<GateResults>,
    /// The approval by which the wanted version goes forward.
    pub approval: Option<ApprovalRecord>,
}

impl Decided {
    /// The decision if the workload may not be read at all.
    #[must_use]
    pub fn unreadable_target(binding: &AliasBinding, problem: Problem) -> Self {
        let decision = Decision::Waiting(Waiting::Target(problem));
        untouched(binding, decision, standing_hold(binding))
    }
}

/// A decision with the parts of the memory that depend on it.
struct PartialDecision {
    decision: Decision,
    hold: Option<Hold>,
    lost: Option<Lost>,
    note: Option<Note>,
    /// When a gate may let the wanted version pass although nothing has changed by then.
    look_again: Option<Timestamp>,
}

impl From<Decision> for PartialDecision {
    fn from(decision: Decision) -> Self {
        Self {
            decision,
            hold: None,
            lost: None,
            note: None,
            look_again: None,
        }
    }
}

impl From<Waiting> for PartialDecision {
    fn from(waiting: Waiting) -> Self {
        Decision::Waiting(waiting).into()
    }
}

/// Decides what to do with a binding's workload now.
#[must_use]
pub fn decide(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> Decided {
    if binding.spec.suspend {
        let hold = hold_while_suspended(binding, observed, now);
        return untouched(binding, Decision::Suspended(suspended()), hold);
    }
    if let Some(claim) = observed.claim {
        let decision = Decision::Claimed(claimed(binding, observed, claim));
        return untouched(binding, decision, standing_hold(binding));
    }
    let assessment = assess(binding, observed, now);
    let is_failure = assessment.failure.is_some();
    let gates = gate_results(binding, observed, now);
    let look_again = gates.as_ref().and_then(|gates| gates.look_again);
    let step = match &assessment.news {
        // Written down before it is acted on: an operator that dies in between must not try the failed version again.
        Some(news) => Decision::Record(news.clone()).into(),
        None => choose_course(binding, observed, &assessment, now),
    };
    Decided {
        memory: Memory {
            hold: step.hold,
            held_back: assessment.held_back,
            postponed: assessment.postponed,
            lost: step.lost,
            apply: apply_memory(binding, observed, &step.decision, is_failure, now),
        },
        overrode: forward_input(binding, observed, &step.decision, now)
            .and_then(|input| overrode(&input)),
        approval: forward_input(binding, observed, &step.decision, now)
            .and_then(|input| approval_of(&input)),
        decision: step.decision,
        failure: assessment.failure,
        blocked: assessment.blocked,
        bakes_from: assessment.bakes_from,
        look_again: [assessment.look_again, step.look_again, look_again]
            .into_iter()
            .flatten()
            .min(),
        note: step.note,
        gates,
    }
}

/// The results of the gates of the spec for the desired version, unless it runs or needs none.
fn gate_results(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    now: Timestamp,
) -> Option<GateResults> {
    let desired = observed.resolution.desired.as_ref().ok()?;
    let runs = observed
        .target
        .is_some_and(|target| target.runs(&desired.version));
    if runs {
        return None;
    }
    let input = GateInput::of(binding, observed, desired, now);
    if is_exempt(&input) {
        return None;
    }
    evaluate(&input)
}

/// What the gates saw of the wanted version, if it goes forward.
fn forward_input<'a>(
    binding: &'a AliasBinding,
    observed: &Observed<'a>,
    decision: &Decision,
    now: Timestamp,
) -> Option<GateInput<'a>> {
    let desired = observed.resolution.desired.as_ref().ok()?;
    let is_forward = decision.course() == Some(&Course::Forward);
    is_forward.then(|| GateInput::of(binding, observed, desired, now))
}

/// A decision that changes neither the workload nor what is held back.
fn untouched(binding: &AliasBinding, decision: Decision, hold: Option<Hold>) -> Decided {
    let status = binding.status.as_ref();
    Decided {
        decision,
        memory: Memory {
            hold,
            held_back: status.and_then(|status| status.held_back.clone()),
            postponed: status.and_then(|status| status.postponed.clone()),
            lost: standing_loss(binding),
            apply: status.and_then(|status| status.last_handled_apply.clone()),
        },
        failure: None,
        blocked: None,
        bakes_from: None,
        look_again: None,
        note: None,
        overrode: None,
        gates: None,
        approval: None,
    }
}

/// What the status must remember of the last request for the registry's present address.
fn apply_memory(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    decision: &Decision,
    is_failure: bool,
    now: Timestamp,
) -> Option<AppliedRequest> {
    match decision {
        Decision::Record(problem) if is_failure => reapply::after_failure(binding, problem),
        Decision::Settled(Course::Forward) => reapply::after_nothing(binding, now),
        Decision::Write(injection, course) => {
            let forward = (*course == Course::Forward).then_some(injection.version.as_str());
            reapply::after_write(binding, observed.target, forward, now)
        }
        _ => binding.status.as_ref()?.last_handled_apply.clone(),
    }
}

fn standing_loss(binding: &AliasBinding) -> Option<Lost> {
    binding.status.as_ref()?.lost.clone()
}

fn suspended() -> Problem {
    Problem::new(
        Reason::Suspended,
        "spec.suspend is true: nothing is changed until it is set to false",
    )
}

fn claimed(binding: &AliasBinding, observed: &Observed<'_>, claim: &Claim) -> Problem {
    let target = observed
        .target
        .map_or_else(|| binding.workload_name().to_owned(), Target::reference);
    claim.problem(binding, &target)
}

/// Forward or back; while neither is possible, the version that ran is restored if the workload has lost it.
fn choose_course(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    assessment: &Assessment,
    now: Timestamp,
) -> PartialDecision {
    let step = forward_or_back(binding, observed, assessment, now);
    match &step.decision {
        Decision::Waiting(
            waiting @ (Waiting::Unresolved(_) | Waiting::Checks(_) | Waiting::Gate { .. }),
        ) => match restore(binding, observed, assessment, waiting) {
            Some(decision) => PartialDecision { decision, ..step },
            None => step,
        },
        _ => step,
    }
}

/// The write that puts the version that ran into a workload that was deleted or replaced. The status has all of it, so that
/// neither the registry nor a store is needed (`fail_static`).
fn restore(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    assessment: &Assessment,
    waiting: &Waiting,
) -> Option<Decision> {
    // people_win: an undo to the template before the first version removes the version, and leaves the workload's label.
    let has_lost_it = observed
        .target
        .is_none_or(|target| target.version().is_none() && target.binding().is_none());
    let entry = binding.status.as_ref()?.current()?;
    let held_back = assessment.held_back.as_ref();
    let is_bad = has_failed(entry) || held_back.is_some_and(|all| all.contains(&entry.version));
    if !has_lost_it || is_bad || entry.version.artifact_uri.is_none() {
        return None;
    }
    let desired = recorded_version(binding, observed, entry.version.clone());
    let course = Course::Restore(waiting.clone());
    Some(match observed.target {
        None => Decision::Write(new_workload(binding, &desired).ok()?, course),
        Some(target) => {
            let injection = Injection::of(binding, Some(target), &desired).ok()?;
            write(binding, target, injection, course)
        }
    })
}

/// Forward to the wanted version; back if that is held back, or if the workload holds a failed version and cannot go forward.
fn forward_or_back(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    assessment: &Assessment,
    now: Timestamp,
) -> PartialDecision {
    if let Some(step) = restore_capacity(binding, observed, assessment, now) {
        return step;
    }
    let Some(held_back) = &assessment.held_back else {
        return forward(binding, observed, now);
    };
    if let Ok(desired) = &observed.resolution.desired
        && held_back.contains(&desired.version)
    {
        return roll_back(binding, observed, held_back, now);
    }
    let forward = forward(binding, observed, now);
    let holds_failed = observed
        .target
        .is_some_and(|target| runs_failed(target, held_back));
    match &forward.decision {
        Decision::Waiting(Waiting::Checks(_)) => forward,
        Decision::Waiting(_) if holds_failed && forward.hold.is_none() => PartialDecision {
            look_again: forward.look_again,
            ..roll_back(binding, observed, held_back, now)
        },
        _ => forward,
    }
}

/// An earlier good version runs for the time being, because the blocked rollout of the wanted one cost serving capacity.
/// `None` if there is no such version: then the rollout waits as it is.
fn restore_capacity(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    assessment: &Assessment,
    now: Timestamp,
) -> Option<PartialDecision> {
    let postponed = assessment.postponed.as_ref()?;
    if !keeps_out(postponed, binding, observed.target, now) {
        return None;
    }
    let mut kept_out = postponed.as_held_back();
    let failed = assessment
        .held_back
        .iter()
        .flat_map(|held_back| &held_back.versions);
    kept_out.versions.extend(failed.cloned());
    let step = roll_back(binding, observed, &kept_out, now);
    (!matches!(step.decision, Decision::NoRollbackTarget(_))).then_some(step)
}

fn forward(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> PartialDecision {
    match (&observed.resolution.desired, observed.target) {
        // fail_static: a version that cannot be resolved changes nothing.
        (Err(problem), target) => PartialDecision {
            hold: hold_while_unresolved(binding, target, now),
            ..Waiting::Unresolved(problem.clone()).into()
        },
        (Ok(desired), None) => {
            match new_workload(binding, &reapply::as_written(binding, None, desired)) {
                Err(problem) => Waiting::Target(problem).into(),
                Ok(injection) => pass_gates(binding, observed, desired, false, now)
                    .unwrap_or_else(|| Decision::Write(injection, Course::Forward).into()),
            }
        }
        (Ok(desired), Some(target)) => forward_on(binding, observed, target, desired, now),
    }
}

fn forward_on(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    target: &Target,
    desired: &DesiredVersion,
    now: Timestamp,
) -> PartialDecision {
    let kept = reapply::as_written(binding, Some(target), desired);
    let injections = Injection::of(binding, Some(target), &kept)
        .and_then(|kept| Ok((kept, Injection::of(binding, Some(target), desired)?)));
    let (injection, present) = match injections {
        Ok(injections) => injections,
        Err(problem) => return Waiting::Target(problem).into(),
    };
    let is_asked = reapply::is_requested(binding);
    let is_drifted = !targets::holds(target, &present);
    let is_settled = targets::holds(target, &injection) && !observed.template_changed;
    if is_settled && !(is_asked && is_drifted) {
        if let Some((gate, problem)) = invalid(binding) {
            return refused_by(gate, problem).into();
        }
        let drift = is_drifted.then(|| reapply::drift(binding, target, &kept, desired));
        return PartialDecision {
            note: drift.or_else(|| note(target, &injection)),
            ..Decision::Settled(Course::Forward).into()
        };
    }
    if let Some(hold) = hold(binding, target, desired, now) {
        return held(binding, target, hold);
    }
    if let Some(problem) = reapply::taken_back(binding, target) {
        return write(binding, target, injection, Course::Rollback(problem)).into();
    }
    let same_version =
        target.runs(&desired.version) && (!is_asked || target.has_artifact_of(&desired.version));
    let injection = if is_asked { present } else { injection };
    pass_gates(binding, observed, desired, same_version, now)
        .unwrap_or_else(|| write(binding, target, injection, Course::Forward).into())
}

/// Nothing hinders the version that runs, but the next one would not pass: its gate cannot be read.
fn refused_by(gate: &'static str, problem: Problem) -> Waiting {
    Waiting::Gate {
        gate,
        verdict: Verdict::Wait(problem.clone()),
        problem,
    }
}

/// What people should know of a container's own variables.
fn note(target: &Target, injection: &Injection) -> Option<Note> {
    if let Some(variable) = targets::refers_too_early(target, injection) {
        return Some(Note {
            cause: format!("{variable} refers to a variable of Pointsman's that is set after it"),
            remedy: "set it with spec.inject.variables instead".to_owned(),
        });
    }
    let (container, variable) = targets::may_hide(target, injection)?;
    Some(Note {
        cause: format!("container {container} has envFrom: a {variable} from there is hidden"),
        remedy: "if it brings one, rename Pointsman's with spec.inject.variables".to_owned(),
    })
}

/// The step to take because a gate does not let the version pass; `None` if all do.
fn pass_gates(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    desired: &DesiredVersion,
    same_version: bool,
    now: Timestamp,
) -> Option<PartialDecision> {
    let input = GateInput::of(binding, observed, desired, now);
    let (gate, verdict) = first_hindrance(&input, same_version)?;
    let (problem, look_again) = match &verdict {
        Verdict::Pass => return None,
        Verdict::Pending(problem) => return Some(Waiting::Checks(problem.clone()).into()),
        Verdict::Retry(problem) | Verdict::Wait(problem) | Verdict::Refuse(problem) => {
            (problem.clone(), None)
        }
        Verdict::Pause {
            reason,
            note,
            until,
        } => (paused(&input, *reason, note), *until),
    };
    let waiting = Waiting::Gate {
        gate,
        verdict,
        problem,
    };
    Some(PartialDecision {
        look_again,
        ..waiting.into()
    })
}

/// An earlier good version runs instead of the wanted one, which failed (`automatic_rollback`, `no_loops`).
fn roll_back(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: &HeldBack,
    now: Timestamp,
) -> PartialDecision {
    if let Some(target) = observed.target
        && let Some(hold) = hold_in_rollback(binding, target, held_back, now)
    {
        return held(binding, target, hold);
    }
    let status = binding.status.clone().unwrap_or_default();
    let chosen = if let Some(running) = running_good_version(binding, observed, held_back) {
        RollbackTarget::To(running)
    } else {
        let mirrored = &observed.resolution.mirrored;
        let candidates = candidates(&status, &held_back.versions, mirrored);
        choose(&candidates, observed.checks)
    };
    match chosen {
        RollbackTarget::To(version) => roll_back_to(binding, observed, held_back, version),
        RollbackTarget::Pending(version) => {
            let failure = failure_of(held_back);
            let message = format!(
                "{}; checking whether version {} can still be read",
                failure.message,
                version.number()
            );
            let waiting = Waiting::Checks(Problem::new(failure.reason, message));
            PartialDecision {
                lost: standing_loss(binding),
                ..waiting.into()
            }
        }
        RollbackTarget::None(missing) => {
            no_rollback_target(binding, observed, held_back, &missing, now)
        }
    }
}

/// The failed version with its reason; of several the one that is wanted.
fn failure_of(held_back: &HeldBack) -> Problem {
    let wanted = held_back.find(&held_back.wanted);
    let Some(failed) = wanted.or(held_back.versions.first()) else {
        return Problem::new(Reason::RolledBack, "a version failed");
    };
    let reason = failed.reason.known().unwrap_or(Reason::RolledBack);
    if reason == Reason::Blocked {
        // The message names the version.
        return Problem::new(reason, failed.message.clone());
    }
    let number = failed.version.number();
    let message = format!(
        "version {number} failed ({}): {}",
        failed.reason, failed.message
    );
    Problem::new(reason, message)
}

fn roll_back_to(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: &HeldBack,
    version: VersionRef,
) -> PartialDecision {
    let failure = failure_of(held_back);
    let reason = if failure.reason == Reason::Blocked {
        Reason::Blocked
    } else {
        Reason::RolledBack
    };
    let course = Course::Rollback(messages::problem(
        reason,
        &format!("version {} runs: {}", version.number(), failure.message),
        &format!("try again: {}", retry_command(binding)),
    ));
    let desired = recorded_version(binding, observed, version);
    let Some(target) = observed.target else {
        return match new_workload(binding, &desired) {
            Err(problem) => Waiting::Target(problem).into(),
            Ok(injection) => Decision::Write(injection, course).into(),
        };
    };
    let injection = match Injection::of(binding, Some(target), &desired) {
        Ok(injection) => injection,
        Err(problem) => return Waiting::Target(problem).into(),
    };
    if targets::holds(target, &injection) && !observed.template_changed {
        return Decision::Settled(course).into();
    }
    write(binding, target, injection, course).into()
}

/// A version of the history as the workload should hold it.
fn recorded_version(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    mut version: VersionRef,
) -> DesiredVersion {
    let injected = |value| {
        let target = observed.target?;
        target.injected(value).map(Cow::into_owned)
    };
    if version.id.model.is_empty() {
        // The binding may follow another model since.
        let model = observed.resolution.model.clone();
        version.id.model = injected(InjectedValue::ModelName)
            .or(model)
            .unwrap_or_default();
    }
    let status = binding.status.as_ref();
    let known = status
        .into_iter()
        .flat_map(AliasBindingStatus::known_versions);
    if let Some(known) = known.into_iter().find(|known| known.is_same(&version)) {
        version.id = VersionRef::clone(known).id;
    }
    // The address that it ran with, and not the present one, which may be why the other version fails.
    version.tracking_uri = version
        .tracking_uri
        .or_else(|| observed.resolution.tracking_uri.clone())
        .or_else(|| injected(InjectedValue::TrackingUri));
    DesiredVersion { version }
}

fn no_rollback_target(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: &HeldBack,
    gone: &[(VersionRef, String)],
    now: Timestamp,
) -> PartialDecision {
    let status = binding.status.as_ref();
    let lost = status.and_then(|status| lost_version(status, gone));
    let failure = failure_of(held_back).message;
    let (head, details) = match gone.first() {
        None => ("no earlier version was good for this binding", failure),
        Some((version, why)) => (
            "no version is left to go back to",
            format!("{failure}; version {}: {why}", version.number()),
        ),
    };
    let wanted = observed.resolution.details.as_ref();
    let wanted = wanted.map(|details| GoodVersion {
        version: details.reference(""),
        since: None,
        lineage: lineage(details),
    });
    // The code to train the version again comes first: it is the remedy, and an Event may be cut.
    let remedy = match lost.as_ref().or(wanted.as_ref()) {
        Some(lost) => retrain_sentence(lost),
        None => "move the alias to a version that works".to_owned(),
    };
    let problem = messages::remedy_first(
        Reason::NoRollbackTarget,
        &format!("{head}; {remedy}"),
        &details,
    );
    let lost = lost.map(|lost| Lost {
        missing: missing(&lost),
        since: lost_since(binding, &lost.version).unwrap_or(Time(now)),
        version: lost.version,
        lineage: lost.lineage,
    });
    PartialDecision {
        lost,
        ..Decision::NoRollbackTarget(problem).into()
    }
}

fn lost_since(binding: &AliasBinding, version: &VersionRef) -> Option<Time> {
    let known = binding.status.as_ref()?.lost.as_ref()?;
    known.version.is_same(version).then(|| known.since.clone())
}

/// The fields of a version in a workload that does not exist yet: only a template makes one.
fn new_workload(binding: &AliasBinding, desired: &DesiredVersion) -> Result<Injection, Problem> {
    if binding.spec.template.is_none() {
        return Err(messages::problem(
            Reason::TargetNotFound,
            &format!(
                "there is no {} in namespace {}",
                binding.workload_reference(),
                namespace(binding)
            ),
            &format!(
                "create it, and version {} is written into it",
                desired.number()
            ),
        ));
    }
    Injection::of(binding, None, desired)
}

/// Writes a version, unless that overwrites a field of another manager (`gitops_in_peace`).
fn write(
    binding: &AliasBinding,
    target: &Target,
    injection: Injection,
    course: Course,
) -> Decision {
    let conflicts = if binding.spec.template.is_some() {
        Vec::new()
    } else {
        targets::conflicts(target, &injection)
    };
    let Some(conflict) = conflicts.first() else {
        return Decision::Write(injection, course);
    };
    let message = if target.object().is_some() {
        format!(
            "{} sets {}: remove it there, or leave it out of spec.inject.fields",
            conflict.manager, conflict.variable
        )
    } else {
        format!(
            "{} sets {} in container {}: remove it there, or rename Pointsman's with spec.inject.variables",
            conflict.manager, conflict.variable, conflict.container
        )
    };
    Decision::Waiting(Waiting::Target(Problem::new(
        Reason::FieldConflict,
        message,
    )))
}

fn held(binding: &AliasBinding, target: &Target, hold: Hold) -> PartialDecision {
    let running = target.version().map_or_else(
        || "no version".to_owned(),
        |version| format!("version {version}"),
    );
    let problem = messages::problem(
        Reason::Held,
        &format!(
            "{} changed the workload to {running} while version {} was wanted",
            hold.manager,
            hold.wanted.number()
        ),
        &format!("resume: {}", messages::resume_command(binding)),
    );
    PartialDecision {
        hold: Some(hold),
        ..Decision::Held(problem).into()
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
