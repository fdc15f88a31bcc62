//! The one decision: leave the workload as it is, or write a version into it. The rules are in docs/rules.md.
//!
//! Absent: any effect.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::assess::{Assessment, assess, running_good_version, runs_failed};
use super::claim::Claim;
use super::gates::{GateInput, Verdict, first_hindrance};
use super::hold::{
    hold, hold_in_rollback, hold_while_suspended, hold_while_unresolved, standing_hold,
};
use super::messages::{self, name, namespace, retry_command};
use super::observed::Observed;
use super::rollback_target::{
    RollbackTarget, candidates, choose, has_failed, lost_version, missing, retrain_sentence,
};
use crate::api::alias_binding::Hold;
use crate::api::reason::Problem;
use crate::api::rollback::{HeldBack, Lost};
use crate::api::{AliasBinding, AliasBindingStatus, Reason, VersionRef, names};
use crate::targets::{
    self, DesiredVersion, Injection, Target, chosen_containers, template_containers,
};

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
pub enum Decision {
    /// `spec.suspend`: nothing is changed.
    Suspended(Problem),
    /// Somebody else drives the workload.
    Claimed(Problem),
    /// A person's change stands.
    Held(Problem),
    /// A failure is written into the status before the next reconcile acts on it.
    RecordFailure(Problem),
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
    /// The version that cannot be rolled back to any more.
    pub lost: Option<Lost>,
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
    /// When to reconcile again, although nothing may have changed by then.
    pub look_again: Option<Timestamp>,
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
struct Step {
    decision: Decision,
    hold: Option<Hold>,
    lost: Option<Lost>,
}

impl From<Decision> for Step {
    fn from(decision: Decision) -> Self {
        Self {
            decision,
            hold: None,
            lost: None,
        }
    }
}

impl From<Waiting> for Step {
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
    let step = match &assessment.failure {
        // Written down before it is acted on: an operator that dies in between must not try the failed version again.
        Some(failure) if assessment.is_news => Decision::RecordFailure(failure.clone()).into(),
        _ => choose_course(binding, observed, &assessment, now),
    };
    Decided {
        decision: step.decision,
        memory: Memory {
            hold: step.hold,
            held_back: assessment.held_back,
            lost: step.lost,
        },
        failure: assessment.failure,
        look_again: assessment.look_again,
    }
}

/// A decision that changes neither the workload nor what is held back.
fn untouched(binding: &AliasBinding, decision: Decision, hold: Option<Hold>) -> Decided {
    let status = binding.status.as_ref();
    Decided {
        decision,
        memory: Memory {
            hold,
            held_back: status.and_then(|status| status.held_back.clone()),
            lost: standing_loss(binding),
        },
        failure: None,
        look_again: None,
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
    messages::problem(
        Reason::TargetClaimed,
        &format!("{target} is driven by {} already", claim.holder),
        &format!(
            "delete one of the two: kubectl delete abind {} -n {} (the workload keeps serving)",
            name(binding),
            namespace(binding)
        ),
    )
}

/// Forward or back; while neither is possible, the version that ran is restored if the workload has lost it.
fn choose_course(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    assessment: &Assessment,
    now: Timestamp,
) -> Step {
    let step = forward_or_back(binding, observed, assessment, now);
    match &step.decision {
        Decision::Waiting(
            waiting @ (Waiting::Unresolved(_) | Waiting::Checks(_) | Waiting::Gate { .. }),
        ) => match restore(binding, observed, assessment, waiting) {
            Some(decision) => Step { decision, ..step },
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
            let injection = injection(binding, target, &desired).ok()?;
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
) -> Step {
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
        Decision::Waiting(_) if holds_failed && forward.hold.is_none() => {
            roll_back(binding, observed, held_back, now)
        }
        _ => forward,
    }
}

fn forward(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> Step {
    match (&observed.resolution.desired, observed.target) {
        // fail_static: a version that cannot be resolved changes nothing.
        (Err(problem), target) => Step {
            hold: hold_while_unresolved(binding, target, now),
            ..Waiting::Unresolved(problem.clone()).into()
        },
        (Ok(desired), None) => match new_workload(binding, desired) {
            Err(problem) => Waiting::Target(problem).into(),
            Ok(injection) => pass_gates(binding, observed, desired, false)
                .unwrap_or_else(|| Decision::Write(injection, Course::Forward).into()),
        },
        (Ok(desired), Some(target)) => forward_on(binding, observed, target, desired, now),
    }
}

fn forward_on(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    target: &Target,
    desired: &DesiredVersion,
    now: Timestamp,
) -> Step {
    let injection = match injection(binding, target, desired) {
        Ok(injection) => injection,
        Err(problem) => return Waiting::Target(problem).into(),
    };
    if targets::holds(target, &injection) && !observed.template_changed {
        return Decision::Settled(Course::Forward).into();
    }
    if let Some(hold) = hold(binding, target, desired, now) {
        return held(binding, target, hold);
    }
    let same_version = observed.runs(&desired.version);
    pass_gates(binding, observed, desired, same_version)
        .unwrap_or_else(|| write(binding, target, injection, Course::Forward).into())
}

/// The step to take because a gate does not let the version pass; `None` if all do.
fn pass_gates(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    desired: &DesiredVersion,
    same_version: bool,
) -> Option<Step> {
    let input = GateInput {
        binding,
        resolution: observed.resolution,
        desired,
        checks: observed.checks,
    };
    let (gate, verdict) = first_hindrance(&input, same_version)?;
    let problem = match &verdict {
        Verdict::Pass => return None,
        Verdict::Pending(problem) => return Some(Waiting::Checks(problem.clone()).into()),
        Verdict::Retry(problem) | Verdict::Wait(problem) | Verdict::Refuse(problem) => {
            problem.clone()
        }
    };
    Some(
        Waiting::Gate {
            gate,
            verdict,
            problem,
        }
        .into(),
    )
}

/// An earlier good version runs instead of the wanted one, which failed (`automatic_rollback`, `no_loops`).
fn roll_back(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: &HeldBack,
    now: Timestamp,
) -> Step {
    if let Some(target) = observed.target
        && let Some(hold) = hold_in_rollback(binding, target, held_back, now)
    {
        return held(binding, target, hold);
    }
    let status = binding.status.clone().unwrap_or_default();
    let chosen = match running_good_version(observed, held_back) {
        Some(running) => RollbackTarget::To(running),
        None => choose(&candidates(&status, &held_back.versions), observed.checks),
    };
    match chosen {
        RollbackTarget::To(version) => roll_back_to(binding, observed, held_back, version),
        RollbackTarget::Pending(check) => {
            let failure = failure_of(held_back);
            let message = format!(
                "{}; checking whether version {} can still be read",
                failure.message, check.version
            );
            let waiting = Waiting::Checks(Problem::new(failure.reason, message));
            Step {
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
) -> Step {
    let course = Course::Rollback(messages::problem(
        Reason::RolledBack,
        &format!(
            "version {} runs: {}",
            version.number(),
            failure_of(held_back).message
        ),
        &format!("try again: {}", retry_command(binding)),
    ));
    let desired = recorded_version(binding, observed, version);
    let Some(target) = observed.target else {
        return match new_workload(binding, &desired) {
            Err(problem) => Waiting::Target(problem).into(),
            Ok(injection) => Decision::Write(injection, course).into(),
        };
    };
    let injection = match injection(binding, target, &desired) {
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
    let injected = |name| {
        let target = observed.target?;
        target.injected(name).map(Cow::into_owned)
    };
    if version.id.model.is_empty() {
        // The binding may follow another model since.
        let model = observed.resolution.model.clone();
        version.id.model = injected(names::MODEL_NAME).or(model).unwrap_or_default();
    }
    let status = binding.status.as_ref();
    let known = status
        .into_iter()
        .flat_map(AliasBindingStatus::known_versions);
    if let Some(known) = known.into_iter().find(|known| known.is_same(&version)) {
        version.id = VersionRef::clone(known).id;
    }
    let tracking_uri = observed.resolution.tracking_uri.clone();
    DesiredVersion {
        version,
        tracking_uri: tracking_uri.or_else(|| injected(names::MLFLOW_TRACKING_URI)),
    }
}

fn no_rollback_target(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: &HeldBack,
    unavailable: &[(String, String)],
    now: Timestamp,
) -> Step {
    let lost = lost_version(binding, observed.resolution.details.as_ref());
    let why = match unavailable.first() {
        None => "no earlier version was good for this binding".to_owned(),
        Some((version, why)) => {
            format!("no earlier version can be read (version {version}: {why})")
        }
    };
    // The code to train the version again comes first: it is the remedy, and an Event may be cut.
    let remedy = lost
        .as_ref()
        .map_or_else(String::new, |lost| format!("; {}", retrain_sentence(lost)));
    let message = format!("{why}{remedy}; {}", failure_of(held_back).message);
    let lost = lost.map(|lost| Lost {
        missing: missing(&lost),
        since: lost_since(binding, &lost.version).unwrap_or(Time(now)),
        version: lost.version,
        lineage: lost.lineage,
    });
    Step {
        lost,
        ..Decision::NoRollbackTarget(Problem::new(Reason::NoRollbackTarget, message)).into()
    }
}

fn lost_since(binding: &AliasBinding, version: &VersionRef) -> Option<Time> {
    let known = binding.status.as_ref()?.lost.as_ref()?;
    known.version.is_same(version).then(|| known.since.clone())
}

/// The fields of a version in a workload that does not exist yet: only a template makes one.
fn new_workload(binding: &AliasBinding, desired: &DesiredVersion) -> Result<Injection, Problem> {
    let Some(template) = &binding.spec.template else {
        return Err(messages::problem(
            Reason::TargetNotFound,
            &format!(
                "there is no {}/{} in namespace {}",
                binding.target_kind().resource(),
                binding.workload_name(),
                namespace(binding)
            ),
            &format!(
                "create it, and version {} is written into it",
                desired.number()
            ),
        ));
    };
    checked_injection(binding, desired, &template_containers(&template.spec))
}

/// The fields of a version in an existing workload, if it has the chosen containers.
fn injection(
    binding: &AliasBinding,
    target: &Target,
    desired: &DesiredVersion,
) -> Result<Injection, Problem> {
    let present = match &binding.spec.template {
        Some(template) => template_containers(&template.spec),
        None => target.containers(),
    };
    checked_injection(binding, desired, &present)
}

fn checked_injection(
    binding: &AliasBinding,
    desired: &DesiredVersion,
    present: &[&str],
) -> Result<Injection, Problem> {
    let injection = Injection::new(binding, desired, chosen_containers(binding, present));
    let is_missing = |name: &&String| !present.contains(&name.as_str());
    let missing: Vec<_> = injection
        .containers
        .iter()
        .filter(is_missing)
        .cloned()
        .collect();
    if missing.is_empty() && !injection.containers.is_empty() {
        return Ok(injection);
    }
    let chosen = if missing.is_empty() {
        "no container".to_owned()
    } else {
        missing.join(", ")
    };
    let present = if present.is_empty() {
        "none".to_owned()
    } else {
        present.join(", ")
    };
    Err(Problem::new(
        Reason::InvalidSpec,
        format!(
            "spec.inject.containers names {chosen}, but the pod template has {present}: correct one of the two"
        ),
    ))
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
    Decision::Waiting(Waiting::Target(Problem::new(
        Reason::FieldConflict,
        format!(
            "{} sets {} in container {}: remove it there, or choose other containers with spec.inject.containers",
            conflict.manager, conflict.variable, conflict.container
        ),
    )))
}

fn held(binding: &AliasBinding, target: &Target, hold: Hold) -> Step {
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
    Step {
        hold: Some(hold),
        ..Decision::Held(problem).into()
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
