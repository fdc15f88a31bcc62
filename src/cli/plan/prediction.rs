//! What the operator would do with a binding now: its own functions, on objects as they were read.
//!
//! Absent: any rule of its own, and any request. The artifact's state is the one that the status tells.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};

use super::field_diff::{FieldChange, changes};
use super::rollout_room::room;
use crate::api::alias_binding::TargetKind;
use crate::api::conditions::{ARTIFACT_AVAILABLE, find};
use crate::api::reason::Problem;
use crate::api::registered_model::{MirroredAlias, MirroredStage};
use crate::api::{AliasBinding, Availability, ModelVersion, Reason, RegisteredModel};
use crate::cli::Failure;
use crate::controllers::workloads::with_kind;
use crate::rollout::{
    Applied, ArtifactCheck, CheckResults, Course, Decided, Decision, Freeze, GateInput, Observed,
    Reconciled, Resolution, Verdict, Waiting, Warnings, claim, decide, forward_check,
    needed_checks, paused, resolve, summarize, verdicts,
};
use crate::targets::{
    AnyObject, DesiredVersion, Injection, Pod, ReplicaSet, Target, Workload, fields_of,
    newest_pods, patch, template_changed,
};

/// The reconciles that may only record something before one acts on it.
const RECORDING_RECONCILES: usize = 3;
/// The artifact of a version whose files nobody has looked for yet.
const NOT_CHECKED: &str = "not checked yet: the operator does it before the rollout";

/// The objects that a decision is made from.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The binding, in the cluster or in a manifest.
    pub binding: AliasBinding,
    /// Its model.
    pub model: Option<RegisteredModel>,
    /// The outage of the registry, if its status tells one.
    pub outage: Option<Problem>,
    /// The freeze in force.
    pub freeze: Option<Freeze>,
    /// The workload, with all its fields.
    pub workload: Option<Value>,
    /// The pods with the binding's label.
    pub pods: Vec<Pod>,
    /// The ReplicaSets with the binding's label.
    pub replica_sets: Vec<ReplicaSet>,
    /// The other bindings of the namespace that name the same workload.
    pub rivals: Vec<AliasBinding>,
}

/// What would happen, and why.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prediction {
    /// The binding.
    pub binding: String,
    /// Its namespace.
    pub namespace: String,
    /// The workload as kubectl takes it, such as deployment/server.
    pub workload: String,
    /// The version that is wanted, with the alias, stage or pin that names it; or why there is none.
    pub wanted: String,
    /// The version in the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// The URI of the wanted version's files.
    #[serde(rename = "artifactURI", skip_serializing_if = "Option::is_none")]
    pub artifact_uri: Option<String>,
    /// Whether these files can be read, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Every gate with its result.
    pub gates: Vec<PredictedGate>,
    /// The room that the rollout needs, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// What happens first, before the outcome.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// The reason of the outcome, as in the column REASON.
    pub reason: String,
    /// What happens.
    pub outcome: String,
    /// The fields of the workload that change. Empty if nothing changes.
    pub changes: Vec<FieldChange>,
    /// What should be known beside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A gate with its result.
#[derive(Clone, Debug, Serialize)]
pub struct PredictedGate {
    /// Its name.
    pub gate: String,
    /// Passes, Waits, Refuses or Skipped.
    pub result: &'static str,
    /// Why it does not pass, or is skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Prediction {
    /// Whether the workload would be written.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !self.changes.is_empty()
    }
}

/// The model as it is when the binding's alias or stage names this version. Details of a version that the mirror lacks come from
/// the registry, if somebody asked it.
pub fn point_at(
    model: &mut RegisteredModel,
    binding: &AliasBinding,
    number: &str,
    details: Option<&ModelVersion>,
    now: Timestamp,
) {
    let status = model.status.get_or_insert_default();
    let (version, since) = (number.to_owned(), Time(now));
    let name = binding.spec.follows().to_owned();
    if binding.spec.alias.is_some() {
        status.aliases.retain(|alias| alias.name != name);
        status.aliases.push(MirroredAlias {
            name,
            version,
            since,
        });
    } else {
        let is_other = |stage: &MirroredStage| !stage.name.eq_ignore_ascii_case(&name);
        status.stages.retain(is_other);
        status.stages.push(MirroredStage {
            name,
            version,
            since,
        });
    }
    let is_known = status.versions.iter().any(|each| each.version == number);
    if let Some(details) = details.filter(|_| !is_known) {
        status.versions.push(details.clone());
    }
}

/// The last of the reconciles that would follow each other now.
struct LastReconcile {
    binding: AliasBinding,
    checks: CheckResults,
    decided: Decided,
    /// What the reconciles before recorded.
    steps: Vec<String>,
}

/// Decides as the operator would.
///
/// # Errors
/// If the workload cannot be read as one of its kind.
pub fn predict(inputs: &Inputs, now: Timestamp) -> Result<Prediction, Failure> {
    let target = target(&inputs.binding, inputs.workload.as_ref())?;
    let target = target.as_ref();
    let resolution = resolve(&inputs.binding, inputs.model.as_ref());
    let resolution = resolution.in_outage(inputs.outage.clone());
    let last = last_reconcile(inputs, target, &resolution, now);
    let (binding, decided) = (&last.binding, &last.decided);
    let changes = match &decided.decision {
        Decision::Write(injection, _) => {
            let patch = patch(binding, target, injection).unwrap_or_default();
            changes(inputs.workload.as_ref(), &patch)?
        }
        _ => Vec::new(),
    };
    let desired = resolution.desired.as_ref().ok();
    let gates = desired.map(|desired| {
        let input = GateInput {
            binding,
            resolution: &resolution,
            desired,
            checks: &last.checks,
            freeze: inputs.freeze.as_ref(),
            records_approver: true,
            now,
        };
        gates(&input, target)
    });
    let workload = binding.workload_reference();
    let (reason, outcome) = outcome(&decided.decision, &workload, target);
    let running = target.and_then(|target| target.version().map(str::to_owned));
    Ok(Prediction {
        wanted: wanted(binding, &resolution),
        running,
        artifact_uri: desired.map(|desired| desired.artifact_uri().to_owned()),
        artifact: desired.map(|desired| artifact(binding, desired)),
        gates: gates.unwrap_or_default(),
        room: room_of(inputs, &changes),
        reason,
        outcome,
        notes: notes(decided, &changes),
        changes,
        workload,
        namespace: binding.namespace().unwrap_or_default(),
        binding: binding.name_any(),
        steps: last.steps,
    })
}

/// Reconciles until one does more than to record something.
fn last_reconcile(
    inputs: &Inputs,
    target: Option<&Target>,
    resolution: &Resolution,
    now: Timestamp,
) -> LastReconcile {
    let mut binding = inputs.binding.clone();
    let mut steps = Vec::new();
    let (mut checks, mut decided) = decision(inputs, &binding, target, resolution, now);
    for _ in 0..RECORDING_RECONCILES {
        let Decision::Record(news) = &decided.decision else {
            break;
        };
        steps.push(news.message.clone());
        let applied = Applied {
            target,
            failure: None,
            retrain: None,
        };
        let reconciled = Reconciled {
            resolution,
            checks: &checks,
            decided: &decided,
            applied: &applied,
        };
        binding.status = Some(summarize(&binding, &reconciled, now));
        (checks, decided) = decision(inputs, &binding, target, resolution, now);
    }
    LastReconcile {
        binding,
        checks,
        decided,
        steps,
    }
}

/// The room for the pods of a changed template.
fn room_of(inputs: &Inputs, changes: &[FieldChange]) -> Option<String> {
    // What another kind makes of its fields is not known.
    if changes.is_empty() || matches!(inputs.binding.target_kind(), TargetKind::Other(_)) {
        return None;
    }
    let template = inputs.binding.spec.template.as_ref();
    let new = template.map(|template| json!({"kind": "Deployment", "spec": template.spec}));
    Some(room(inputs.workload.as_ref().or(new.as_ref())?))
}

/// The workload as decisions see it.
fn target(binding: &AliasBinding, workload: Option<&Value>) -> Result<Option<Target>, Failure> {
    let Some(workload) = workload.cloned() else {
        return Ok(None);
    };
    let kind = binding.target_kind();
    let unreadable = |error: serde_json::Error| {
        let name = binding.workload_name();
        format!("{} {name} cannot be read: {error}", kind.as_str())
    };
    with_kind!(&kind,
    K => {
        let workload: Workload<K> = serde_json::from_value(workload).map_err(unreadable)?;
        Ok(Some(workload.with_owners().into()))
    },
    _other => {
        let object: AnyObject = serde_json::from_value(workload).map_err(unreadable)?;
        let object = object.with_owners();
        Ok(Some(object.read(binding.target_kind(), &fields_of(binding))))
    })
}

/// One reconcile up to its decision, with the artifact checks as the status tells them.
fn decision(
    inputs: &Inputs,
    binding: &AliasBinding,
    target: Option<&Target>,
    resolution: &Resolution,
    now: Timestamp,
) -> (CheckResults, Decided) {
    let rivals: Vec<&AliasBinding> = inputs.rivals.iter().collect();
    let claim = claim(binding, &rivals, target);
    let pods = target.map(|target| newest_pods(target, &inputs.replica_sets, &inputs.pods));
    let pods = pods.unwrap_or_default();
    let (warnings, nothing) = (Warnings::new(), CheckResults::new());
    let observed = Observed {
        resolution,
        target,
        pods: &pods,
        warnings: &warnings,
        claim: claim.as_ref(),
        template_changed: template_changed(binding, target),
        checks: &nothing,
        freeze: inputs.freeze.as_ref(),
        // The person sees the annotation that the operator would see; whether the chart's policy wrote it is not known here.
        records_approver: true,
    };
    let needed = needed_checks(binding, &observed, now);
    let checks: CheckResults = needed
        .into_iter()
        .map(|check| {
            let result = last_result(binding, &check);
            (check, result)
        })
        .collect();
    let observed = Observed {
        checks: &checks,
        ..observed
    };
    let decided = decide(binding, &observed, now);
    (checks, decided)
}

/// The result of a check as the status tells it. It tells that of the version that was wanted when it was written.
fn last_result(binding: &AliasBinding, check: &ArtifactCheck) -> Availability {
    let unchecked = || Availability::Unchecked(NOT_CHECKED.to_owned());
    let Some(status) = &binding.status else {
        return unchecked();
    };
    if check.must_exist || status.wanted.as_ref() != Some(&check.version.version) {
        return unchecked();
    }
    let Some(condition) = find(&status.conditions, ARTIFACT_AVAILABLE) else {
        return unchecked();
    };
    let message = || condition.message.clone();
    match (condition.status.as_str(), Reason::parse(&condition.reason)) {
        ("True", _) => Availability::Readable,
        ("False", Some(Reason::ArtifactUnavailable)) => Availability::Missing(message()),
        (_, Some(Reason::ArtifactCheckFailed)) => Availability::Unknown(message()),
        (_, Some(Reason::Resolved)) => Availability::Unchecked(message()),
        _ => unchecked(),
    }
}

fn artifact(binding: &AliasBinding, desired: &DesiredVersion) -> String {
    match last_result(binding, &forward_check(desired)) {
        Availability::Readable | Availability::Moved(_) => "readable when last checked".to_owned(),
        Availability::Missing(why) | Availability::Unknown(why) | Availability::Unchecked(why) => {
            why
        }
    }
}

fn gates(input: &GateInput<'_>, target: Option<&Target>) -> Vec<PredictedGate> {
    let runs = target.is_some_and(|target| target.runs(&input.desired.version));
    let unchecked = if runs {
        "the version runs already"
    } else {
        "the version was good before, or a person chose it"
    };
    let result = |(gate, verdict): (&'static str, Option<Verdict>)| {
        let (result, message) = match verdict {
            None => ("Skipped", Some(unchecked.to_owned())),
            Some(Verdict::Pass) => ("Passes", None),
            Some(Verdict::Pending(problem) | Verdict::Retry(problem) | Verdict::Wait(problem)) => {
                ("Waits", Some(problem.message))
            }
            Some(Verdict::Pause { reason, note, .. }) => {
                ("Waits", Some(paused(input, reason, &note).message))
            }
            Some(Verdict::Refuse(problem)) => ("Refuses", Some(problem.message)),
        };
        PredictedGate {
            gate: gate.to_owned(),
            result,
            message,
        }
    };
    verdicts(input, runs).map(result).collect()
}

/// The version that is wanted, and what names it.
fn wanted(binding: &AliasBinding, resolution: &Resolution) -> String {
    let source = match &binding.spec.pinned_version {
        Some(_) => "pinned".to_owned(),
        None if binding.spec.alias.is_some() => format!("alias {}", binding.spec.follows()),
        None => format!("stage {}", binding.spec.follows()),
    };
    match &resolution.desired {
        Ok(desired) => format!("version {} ({source})", desired.number()),
        Err(problem) => format!("none ({source}): {}", problem.message),
    }
}

/// The reason of a decision, and the decision in words.
fn outcome(decision: &Decision, workload: &str, target: Option<&Target>) -> (String, String) {
    let told = |problem: &Problem| (problem.reason.to_string(), problem.message.clone());
    match decision {
        Decision::Suspended(problem)
        | Decision::Claimed(problem)
        | Decision::Held(problem)
        | Decision::Record(problem)
        | Decision::NoRollbackTarget(problem)
        | Decision::Settled(Course::Rollback(problem))
        | Decision::Write(_, Course::Rollback(problem))
        | Decision::Waiting(
            Waiting::Unresolved(problem)
            | Waiting::Target(problem)
            | Waiting::Checks(problem)
            | Waiting::Gate { problem, .. },
        ) => told(problem),
        Decision::Settled(Course::Forward | Course::Restore(_)) => {
            let version = target.and_then(Target::version).unwrap_or_default();
            let sentence = format!("nothing: {workload} holds version {version} already");
            (Reason::Live.to_string(), sentence)
        }
        Decision::Write(injection, course) => (
            Reason::RollingOut.to_string(),
            written(injection, course, workload, target),
        ),
    }
}

fn written(
    injection: &Injection,
    course: &Course,
    workload: &str,
    target: Option<&Target>,
) -> String {
    let version = &injection.version;
    let before = target.and_then(Target::version);
    match (course, before) {
        (Course::Restore(_), _) => {
            format!("version {version}, which ran before, is put back into {workload}")
        }
        (_, Some(before)) if before == version => {
            format!("the fields of version {version} in {workload} are written again")
        }
        (_, Some(before)) => {
            format!("version {version} replaces version {before} in {workload}")
        }
        (_, None) if target.is_none() => {
            format!("{workload} is created with version {version}")
        }
        (_, None) => format!("version {version} is written into {workload}"),
    }
}

fn notes(decided: &Decided, changes: &[FieldChange]) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(blocked) = &decided.blocked {
        notes.push(blocked.message.clone());
    }
    if let Some(note) = &decided.note {
        notes.push(format!("{}; {}", note.cause, note.remedy));
    }
    let withholds = matches!(&decided.decision, Decision::Write(injection, _) if injection.withheld_uri.is_some());
    if withholds {
        notes.push("the URI's query is written too, and shown nowhere".to_owned());
    }
    let rolls = changes
        .iter()
        .any(|change| change.field.starts_with("spec.template"));
    if rolls {
        notes.push("the pod template changes, so its pods are replaced".to_owned());
    }
    notes
}

#[cfg(test)]
#[path = "prediction_tests.rs"]
mod tests;
