//! The one decision: leave the workload as it is, or write a version into it.
//!
//! Absent: any effect. The rules' numbers are those of the design's section on what happens.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::back::{Back, Candidate, candidates, choose, lost_version, missing, retrain_sentence};
use super::evidence::{Answer, Evidence, Question};
use super::judge::{Judgement, contains, identity, judge};
use crate::api::alias_binding::{HeldVersion, Hold};
use crate::api::rollback::{HeldBack, Lost};
use crate::api::{AliasBinding, AliasBindingStatus, Reason, names, reason::Problem};
use crate::rollout::{Claim, Resolution};
use crate::targets::{self, Injection, Pod, Wanted, Workload, chosen_containers};

/// Everything that the decision looks at, beside the binding itself.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// What the mirror says.
    pub resolution: &'a Resolution,
    /// The Deployment; `None` where there is none.
    pub workload: Option<&'a Workload>,
    /// The pods of the Deployment's newest template.
    pub pods: &'a [&'a Pod],
    /// Who else holds the Deployment.
    pub claim: Option<&'a Claim>,
    /// Whether an owned Deployment's template text is another than the one that was applied.
    pub template_changed: bool,
    /// What registry and stores answered of late.
    pub evidence: &'a Evidence,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Touch nothing, because of this.
    Leave(Problem),
    /// Everything is as it should be already.
    Settled,
    /// Write this version.
    Apply(Injection),
}

/// What to do, and what the status must remember of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// Why another version than the wanted one is to run, where one is.
    pub gone_back: Option<Problem>,
    /// Why the version in the workload fails, where it does.
    pub failure: Option<Problem>,
    /// Whether the wanted version is not let into the workload, for its artifact cannot be read.
    pub is_refused: bool,
    /// The person's hold that is in force from now on.
    pub hold: Option<Hold>,
    /// The versions that are held back from now on.
    pub held_back: Option<HeldBack>,
    /// The version that cannot be gone back to any more.
    pub lost: Option<Lost>,
    /// What must be known before it goes on.
    pub questions: Vec<Question>,
    /// Whether it goes on by itself after this pass.
    pub goes_on: bool,
    /// When to look again, though nothing may have changed by then.
    pub look_again: Option<Timestamp>,
}

impl Decision {
    fn new(action: Action) -> Self {
        Self {
            action,
            gone_back: None,
            failure: None,
            is_refused: false,
            hold: None,
            held_back: None,
            lost: None,
            questions: Vec::new(),
            goes_on: false,
            look_again: None,
        }
    }

    fn leave(problem: Problem) -> Self {
        Self::new(Action::Leave(problem))
    }

    /// Leaves the workload as it is until this is known.
    fn ask(question: Question, problem: Problem) -> Self {
        Self {
            questions: vec![question],
            goes_on: true,
            ..Self::leave(problem)
        }
    }
}

/// Decides what to do with a binding's workload now.
#[must_use]
pub fn decide(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> Decision {
    if let Some(problem) = suspended(binding) {
        let hold = hold_while_suspended(binding, observed, now);
        return Decision {
            hold,
            ..remembering(binding, Decision::leave(problem))
        };
    }
    if let Some(problem) = claimed(observed.claim) {
        return remembering(binding, Decision::leave(problem));
    }
    let judgement = judge(binding, observed, now);
    let decision = match &judgement.failure {
        // Written down before it is acted on: who is killed in between must not try the failed version again.
        Some(failure) if judgement.is_news => Decision {
            goes_on: true,
            ..Decision::leave(failure.clone())
        },
        _ => choose_way(binding, observed, &judgement, now),
    };
    let look_again = decision.look_again.or(judgement.look_again);
    Decision {
        failure: judgement.failure,
        held_back: judgement.held_back,
        look_again,
        ..decision
    }
}

fn remembering(binding: &AliasBinding, decision: Decision) -> Decision {
    let held_back = binding
        .status
        .as_ref()
        .and_then(|status| status.held_back.clone());
    Decision {
        hold: standing_hold(binding),
        held_back,
        lost: standing_loss(binding),
        ..decision
    }
}

fn standing_hold(binding: &AliasBinding) -> Option<Hold> {
    binding
        .status
        .as_ref()
        .and_then(|status| status.hold.clone())
}

fn standing_loss(binding: &AliasBinding) -> Option<Lost> {
    binding
        .status
        .as_ref()
        .and_then(|status| status.lost.clone())
}

/// Forward to what is wanted; back where that is held back, or where the workload holds a failed version and there is no
/// way forward.
fn choose_way(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    judgement: &Judgement,
    now: Timestamp,
) -> Decision {
    let wanted = observed.resolution.wanted.as_ref();
    let Some(held_back) = &judgement.held_back else {
        return forward(binding, observed, now);
    };
    if wanted.is_ok_and(|wanted| contains(held_back, &wanted.version, Some(&wanted.artifact_uri))) {
        return back(binding, observed, held_back, now);
    }
    let forward = forward(binding, observed, now);
    let is_stuck = matches!(forward.action, Action::Leave(_))
        && forward.questions.is_empty()
        && forward.hold.is_none();
    if is_stuck
        && observed
            .workload
            .is_some_and(|workload| holds_failed(workload, held_back))
    {
        return back(binding, observed, held_back, now);
    }
    forward
}

fn holds_failed(workload: &Workload, held_back: &HeldBack) -> bool {
    workload
        .version()
        .is_some_and(|version| contains(held_back, version, workload.injected(names::MODEL_URI)))
}

fn forward(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> Decision {
    match (&observed.resolution.wanted, observed.workload) {
        // Rule 3, fail static: what cannot be resolved changes nothing.
        (Err(problem), workload) => Decision {
            hold: hold_while_unresolved(binding, workload, now),
            ..Decision::leave(problem.clone())
        },
        (Ok(wanted), None) => on_missing_workload(binding, observed, wanted, Direction::Forward),
        (Ok(wanted), Some(workload)) => {
            on_present_workload(binding, observed, workload, wanted, now)
        }
    }
}

/// Forward waits for evidence and for a registry that answers; back has its evidence, and waits for nothing.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Direction {
    Forward,
    Back,
}

/// Rules 5 and 6: what is wanted failed, so what was good before runs in its place.
fn back(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: &HeldBack,
    now: Timestamp,
) -> Decision {
    let status = binding.status.clone().unwrap_or_default();
    if let Some(hold) = observed
        .workload
        .and_then(|workload| hold_while_back(binding, &status, workload, held_back, now))
    {
        let problem = observed.workload.map(|workload| held(workload, &hold));
        return Decision {
            hold: Some(hold),
            ..Decision::leave(problem.unwrap_or_else(|| failure_of(held_back)))
        };
    }
    let model = model_name(observed);
    let goal = match running_candidate(observed.workload, held_back) {
        Some(running) => Back::To(running),
        None => choose(
            &model,
            &candidates(&status, &held_back.versions),
            observed.evidence,
        ),
    };
    match goal {
        Back::To(candidate) => back_to(binding, observed, held_back, &candidate, model),
        Back::Ask(question) => {
            let failure = failure_of(held_back);
            let message = format!(
                "{}; asking whether version {} can still be read",
                failure.message, question.version
            );
            let problem = Problem::new(failure.reason, message);
            Decision {
                lost: standing_loss(binding),
                ..Decision::ask(question, problem)
            }
        }
        Back::Nowhere(gone) => nowhere(binding, observed, held_back, &gone, now),
    }
}

/// The version that is wanted and failed, with its reason; of several the one that is wanted.
fn failure_of(held_back: &HeldBack) -> Problem {
    let is_wanted = |version: &&crate::api::rollback::FailedVersion| {
        version.version == held_back.wanted.version
    };
    let failed = held_back
        .versions
        .iter()
        .find(is_wanted)
        .or_else(|| held_back.versions.first());
    failed.map_or_else(
        || Problem::new(Reason::RolledBack, "a version failed"),
        |failed| {
            Problem::new(
                failed.reason,
                format!(
                    "version {} failed ({}): {}",
                    failed.version, failed.reason, failed.message
                ),
            )
        },
    )
}

fn model_name(observed: &Observed<'_>) -> String {
    let injected = || {
        observed
            .workload
            .and_then(|workload| workload.injected(names::MODEL_NAME))
            .map(str::to_owned)
    };
    observed
        .resolution
        .model
        .clone()
        .or_else(injected)
        .unwrap_or_default()
}

/// What the workload holds already, where that did not fail: there is nothing to go back from any more.
fn running_candidate(workload: Option<&Workload>, held_back: &HeldBack) -> Option<Candidate> {
    let workload = workload?;
    let (version, artifact_uri) = (workload.version()?, workload.injected(names::MODEL_URI)?);
    let run_id = workload
        .injected(names::MODEL_RUN_ID)
        .filter(|id| !id.is_empty())
        .map(str::to_owned);
    let failed = contains(held_back, version, Some(artifact_uri));
    (!failed).then(|| Candidate {
        version: version.to_owned(),
        artifact_uri: artifact_uri.to_owned(),
        run_id,
    })
}

fn back_to(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: &HeldBack,
    goal: &Candidate,
    model: String,
) -> Decision {
    let injected = || {
        observed
            .workload
            .and_then(|workload| workload.injected(names::MLFLOW_TRACKING_URI))
            .map(str::to_owned)
    };
    let wanted = Wanted {
        model,
        version: goal.version.clone(),
        artifact_uri: goal.artifact_uri.clone(),
        run_id: goal.run_id.clone().unwrap_or_default(),
        tracking_uri: observed.resolution.tracking_uri.clone().or_else(injected),
    };
    let message = format!(
        "{}; version {} runs in its place, and version {} is held back until the alias moves, a spec changes, or somebody asks: \
         kubectl annotate --overwrite aliasbinding {} {}=$(date +%s)",
        failure_of(held_back).message,
        goal.version,
        held_back.wanted.version,
        binding.metadata.name.as_deref().unwrap_or_default(),
        names::RETRY_ANNOTATION,
    );
    let decision = match observed.workload {
        None => on_missing_workload(binding, observed, &wanted, Direction::Back),
        Some(workload) => write(binding, observed, workload, &wanted),
    };
    Decision {
        gone_back: Some(Problem::new(Reason::RolledBack, message)),
        ..decision
    }
}

/// Writes a version where the workload does not hold it already, and nobody else's fields are in the way.
fn write(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    workload: &Workload,
    wanted: &Wanted,
) -> Decision {
    let injection = match injection(binding, workload, wanted) {
        Ok(injection) => injection,
        Err(problem) => return Decision::leave(problem),
    };
    if targets::holds(workload, &injection) && !observed.template_changed {
        return Decision::new(Action::Settled);
    }
    Decision::new(change(binding, workload, injection))
}

fn nowhere(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    held_back: &HeldBack,
    gone: &[(String, String)],
    now: Timestamp,
) -> Decision {
    let lost = lost_version(binding, observed.resolution.details.as_ref());
    let why = if gone.is_empty() {
        "no earlier version was good for this binding".to_owned()
    } else {
        let each: Vec<_> = gone
            .iter()
            .take(4)
            .map(|(version, why)| format!("version {version}: {why}"))
            .collect();
        format!(
            "no earlier version can be gone back to ({})",
            each.join("; ")
        )
    };
    let code = lost
        .as_ref()
        .map_or_else(String::new, |lost| format!("; {}", retrain_sentence(lost)));
    let problem = Problem::new(
        Reason::NoRollbackTarget,
        format!("{}; {why}{code}", failure_of(held_back).message),
    );
    let lost = lost.map(|lost| Lost {
        missing: missing(&lost),
        since: known_since(binding, &lost.version, lost.artifact_uri.as_ref()).unwrap_or(Time(now)),
        version: lost.version,
        artifact_uri: lost.artifact_uri,
        run_id: lost.run_id,
        lineage: lost.lineage,
    });
    Decision {
        lost,
        ..Decision::leave(problem)
    }
}

fn known_since(
    binding: &AliasBinding,
    version: &str,
    artifact_uri: Option<&String>,
) -> Option<Time> {
    let known = binding.status.as_ref()?.lost.as_ref()?;
    (known.version == version && known.artifact_uri.as_ref() == artifact_uri)
        .then(|| known.since.clone())
}

/// Rule 7: suspended means untouched.
fn suspended(binding: &AliasBinding) -> Option<Problem> {
    binding.spec.suspend.then(|| {
        Problem::new(
            Reason::Suspended,
            "spec.suspend is true: nothing is touched until it is set to false",
        )
    })
}

fn claimed(claim: Option<&Claim>) -> Option<Problem> {
    claim.map(|claim| {
        let message = format!(
            "the Deployment is driven by {} already: delete that, or name another Deployment here",
            claim.holder
        );
        Problem::new(Reason::TargetClaimed, message)
    })
}

fn on_missing_workload(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    wanted: &Wanted,
    direction: Direction,
) -> Decision {
    let Some(template) = &binding.spec.template else {
        return Decision::leave(Problem::new(
            Reason::TargetNotFound,
            format!(
                "there is no Deployment {} in this namespace: create it and version {} is put into it",
                binding.workload_name(),
                wanted.version
            ),
        ));
    };
    let present = template_containers(&template.spec);
    let injection = Injection::new(binding, wanted, chosen_containers(binding, &present));
    if let Some(problem) = unknown_containers(&injection, &present) {
        return Decision::leave(problem);
    }
    let hindrance = if direction == Direction::Forward {
        hindrance(binding, observed, wanted)
    } else {
        None
    };
    hindrance.unwrap_or_else(|| Decision::new(Action::Apply(injection)))
}

fn template_containers(spec: &serde_json::Map<String, serde_json::Value>) -> Vec<&str> {
    let containers = spec
        .get("template")
        .and_then(|template| template.pointer("/spec/containers"));
    let containers = containers.and_then(serde_json::Value::as_array);
    containers
        .into_iter()
        .flatten()
        .filter_map(|container| container["name"].as_str())
        .collect()
}

fn unknown_containers(injection: &Injection, present: &[&str]) -> Option<Problem> {
    let missing: Vec<_> = injection
        .containers
        .iter()
        .filter(|name| !present.contains(&name.as_str()))
        .map(String::as_str)
        .collect();
    if missing.is_empty() && !injection.containers.is_empty() {
        return None;
    }
    let message = format!(
        "spec.inject.containers names {}, but the pod template has {}: correct one of the two",
        if missing.is_empty() {
            "no container".to_owned()
        } else {
            missing.join(", ")
        },
        if present.is_empty() {
            "none".to_owned()
        } else {
            present.join(", ")
        },
    );
    Some(Problem::new(Reason::InvalidSpec, message))
}

fn on_present_workload(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    workload: &Workload,
    wanted: &Wanted,
    now: Timestamp,
) -> Decision {
    let injection = match injection(binding, workload, wanted) {
        Ok(injection) => injection,
        Err(problem) => return Decision::leave(problem),
    };
    if targets::holds(workload, &injection) && !observed.template_changed {
        return Decision::new(Action::Settled);
    }
    if let Some(hold) = hold(binding, workload, wanted, now) {
        return Decision {
            hold: Some(hold.clone()),
            ..Decision::leave(held(workload, &hold))
        };
    }
    let is_another_version = workload.version() != Some(&wanted.version)
        || workload.injected(names::MODEL_URI) != Some(&wanted.artifact_uri);
    let hindrance = if is_another_version {
        hindrance(binding, observed, wanted)
    } else {
        stale(binding, observed)
    };
    hindrance.unwrap_or_else(|| Decision::new(change(binding, workload, injection)))
}

/// What a version sets in a workload, where its containers are there.
fn injection(
    binding: &AliasBinding,
    workload: &Workload,
    wanted: &Wanted,
) -> Result<Injection, Problem> {
    let from_template = binding
        .spec
        .template
        .as_ref()
        .map(|template| template_containers(&template.spec));
    let live = || {
        workload
            .spec
            .template
            .spec
            .containers
            .iter()
            .map(|each| each.name.as_str())
            .collect()
    };
    let present: Vec<&str> = from_template.unwrap_or_else(live);
    let injection = Injection::new(binding, wanted, chosen_containers(binding, &present));
    match unknown_containers(&injection, &present) {
        Some(problem) => Err(problem),
        None => Ok(injection),
    }
}

fn change(binding: &AliasBinding, workload: &Workload, injection: Injection) -> Action {
    let conflicts = if binding.spec.template.is_some() {
        Vec::new()
    } else {
        targets::conflicts(workload, &injection)
    };
    if let Some(conflict) = conflicts.first() {
        // Rule 8: never a field that another manager owns.
        let message = format!(
            "{} sets {} in container {}: remove it from there, or choose other containers with spec.inject.containers",
            conflict.manager, conflict.variable, conflict.container
        );
        return Action::Leave(Problem::new(Reason::FieldConflict, message));
    }
    Action::Apply(injection)
}

/// Why a version may not be rolled out now: the registry cannot be read, or the artifact cannot.
fn hindrance(binding: &AliasBinding, observed: &Observed<'_>, wanted: &Wanted) -> Option<Decision> {
    stale(binding, observed).or_else(|| unreadable(binding, observed.evidence, wanted))
}

/// While the registry cannot be read, nothing new is written; a pin is a person's word, and needs no registry.
fn stale(binding: &AliasBinding, observed: &Observed<'_>) -> Option<Decision> {
    let stale = observed
        .resolution
        .stale
        .clone()
        .filter(|_| binding.spec.pinned_version.is_none());
    stale.map(Decision::leave)
}

/// An unreadable artifact never starts a rollout.
fn unreadable(binding: &AliasBinding, evidence: &Evidence, wanted: &Wanted) -> Option<Decision> {
    let question = forward_question(wanted);
    let unavailable = |why: &str| {
        let message = format!(
            "version {} is not rolled out, for its artifact cannot be read: {why}",
            wanted.version
        );
        Decision::leave(Problem::new(Reason::ArtifactUnavailable, message))
    };
    match evidence.get(&question) {
        Some(Answer::Readable | Answer::Unchecked(_)) => None,
        // Rule 4: what was good before waits for no store.
        Some(Answer::Silent(_)) if was_good(binding, wanted) => None,
        Some(Answer::Silent(why)) => Some(Decision {
            goes_on: true,
            ..unavailable(why)
        }),
        Some(Answer::Gone(why)) => Some(Decision {
            is_refused: true,
            ..unavailable(why)
        }),
        None => {
            let message = format!(
                "asking whether the artifact of version {} can be read",
                wanted.version
            );
            Some(Decision::ask(
                question,
                Problem::new(Reason::Pending, message),
            ))
        }
    }
}

/// Whether a version that the mirror holds can be read.
#[must_use]
pub fn forward_question(wanted: &Wanted) -> Question {
    Question {
        model: wanted.model.clone(),
        version: wanted.version.clone(),
        artifact_uri: wanted.artifact_uri.clone(),
        must_exist: false,
    }
}

/// Whether a version was good for this binding before.
fn was_good(binding: &AliasBinding, wanted: &Wanted) -> bool {
    let good = binding
        .status
        .as_ref()
        .map(|status| candidates(status, &[]))
        .unwrap_or_default();
    good.iter()
        .any(|each| each.version == wanted.version && each.artifact_uri == wanted.artifact_uri)
}

/// Rule 7, people win: the hold in force, an old one or one that begins now.
fn hold(
    binding: &AliasBinding,
    workload: &Workload,
    wanted: &Wanted,
    now: Timestamp,
) -> Option<Hold> {
    let status = binding.status.as_ref()?;
    let was_running = status
        .current()
        .is_some_and(|entry| entry.is_version(&wanted.version, Some(&wanted.artifact_uri)));
    hold_against(
        binding,
        status,
        workload,
        identity(wanted),
        was_running,
        now,
    )
}

/// The same while the wanted version is held back: a person's own choice stands until another version is wanted.
fn hold_while_back(
    binding: &AliasBinding,
    status: &AliasBindingStatus,
    workload: &Workload,
    held_back: &HeldBack,
    now: Timestamp,
) -> Option<Hold> {
    hold_against(
        binding,
        status,
        workload,
        held_back.wanted.clone(),
        is_anothers(status, workload),
        now,
    )
}

/// The same while nothing is touched: a person's choice is noticed all the same.
fn hold_while_suspended(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    now: Timestamp,
) -> Option<Hold> {
    let status = binding.status.as_ref()?;
    let workload = observed.workload.filter(|_| observed.claim.is_none());
    let (Ok(wanted), Some(workload)) = (&observed.resolution.wanted, workload) else {
        return hold_while_unresolved(binding, workload, now);
    };
    let held_back = status.held_back.as_ref();
    let held_back = held_back
        .filter(|held_back| contains(held_back, &wanted.version, Some(&wanted.artifact_uri)));
    let begun = match held_back {
        Some(held_back) => hold_while_back(binding, status, workload, held_back, now),
        None => hold(binding, workload, wanted, now),
    };
    begun.or_else(|| standing_hold(binding))
}

/// The same while nobody can say what is wanted: it is what was written last, until the alias says otherwise.
fn hold_while_unresolved(
    binding: &AliasBinding,
    workload: Option<&Workload>,
    now: Timestamp,
) -> Option<Hold> {
    let status = binding.status.as_ref()?;
    if let Some(standing) = &status.hold {
        return Some(standing.clone());
    }
    let (workload, current) = (workload?, status.current()?);
    let written = HeldVersion {
        version: current.version.clone(),
        artifact_uri: current.artifact_uri.clone(),
    };
    let wanted = status
        .held_back
        .as_ref()
        .map_or(written, |held_back| held_back.wanted.clone());
    hold_against(
        binding,
        status,
        workload,
        wanted,
        is_anothers(status, workload),
        now,
    )
}

/// Whether the workload holds another version than the ledger says.
fn is_anothers(status: &AliasBindingStatus, workload: &Workload) -> bool {
    let held = workload
        .version()
        .map(|version| (version, workload.injected(names::MODEL_URI)));
    status
        .current()
        .is_some_and(|entry| !held.is_some_and(|(version, uri)| entry.is_version(version, uri)))
}

fn hold_against(
    binding: &AliasBinding,
    status: &AliasBindingStatus,
    workload: &Workload,
    wanted: HeldVersion,
    begins: bool,
    now: Timestamp,
) -> Option<Hold> {
    if resume_asked(binding) {
        return None;
    }
    let writer = foreign_writer(workload)?;
    let standing = status.hold.clone().filter(|old| old.wanted == wanted);
    standing.or_else(|| {
        begins.then_some(Hold {
            wanted,
            manager: writer,
            since: Time(now),
        })
    })
}

/// Whether a resume was asked for that has not been acted on.
fn resume_asked(binding: &AliasBinding) -> bool {
    let asked = binding.resume_request();
    let handled = binding
        .status
        .as_ref()
        .and_then(|status| status.last_handled_resume.as_ref());
    asked.is_some() && asked != handled
}

/// The manager other than Pointsman that wrote the version into the pod template, as `kubectl rollout undo` does; or that
/// took the whole injection away by going back to a time before it.
#[must_use]
pub fn foreign_writer(workload: &Workload) -> Option<String> {
    if workload.version().is_some() {
        return workload
            .owners
            .foreign_version_writers()
            .first()
            .map(|writer| writer.manager.clone());
    }
    // Whoever replaces the whole Deployment takes our label along; an undo takes the pod template alone.
    workload.binding()?;
    let last = workload
        .owners
        .last_template_writer()
        .filter(|writer| writer.manager != names::FIELD_MANAGER);
    Some(last.map_or_else(|| "somebody".to_owned(), |writer| writer.manager.clone()))
}

fn held(workload: &Workload, hold: &Hold) -> Problem {
    let running = workload.version().map_or_else(
        || "no version".to_owned(),
        |version| format!("version {version}"),
    );
    Problem::new(
        Reason::Held,
        format!(
            "{} changed the workload to {running} by hand while version {} was wanted; it is left alone until the alias \
             moves or somebody resumes it: kubectl annotate --overwrite aliasbinding <name> {}=$(date +%s)",
            hold.manager,
            hold.wanted.version,
            names::RESUME_ANNOTATION
        ),
    )
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
