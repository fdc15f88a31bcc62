//! The one decision: leave the workload as it is, or write a version into it.
//!
//! Absent: any effect. The rules' numbers are those of the design's section on what happens.

use crate::api::alias_binding::{HeldVersion, Hold};
use crate::api::{AliasBinding, Reason, names, reason::Problem};
use crate::rollout::{Claim, Resolution};
use crate::workload::{self, Injection, Wanted, Workload, chosen_containers};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Everything that the decision looks at, beside the binding itself.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// What the mirror says.
    pub resolution: &'a Resolution,
    /// The Deployment; `None` where there is none.
    pub workload: Option<&'a Workload>,
    /// Who else holds the Deployment.
    pub claim: Option<&'a Claim>,
    /// Whether an owned Deployment's template text is another than the one that was applied.
    pub template_changed: bool,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Touch nothing, because of this.
    Leave(Problem),
    /// Everything is as wanted already.
    Settled,
    /// Write this version.
    Apply(Injection),
}

/// What to do, and what the status must remember of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// The hold that is in force from now on.
    pub hold: Option<Hold>,
}

/// Decides what to do with a binding's workload now.
#[must_use]
pub fn decide(binding: &AliasBinding, observed: &Observed<'_>, now: Timestamp) -> Decision {
    if let Some(problem) = suspended(binding).or_else(|| claimed(observed.claim)) {
        return Decision { action: Action::Leave(problem), hold: standing_hold(binding) };
    }
    let wanted = match &observed.resolution.wanted {
        Ok(wanted) => wanted,
        // Rule 3, fail static: what cannot be resolved changes nothing.
        Err(problem) => return Decision { action: Action::Leave(problem.clone()), hold: standing_hold(binding) },
    };
    let Some(workload) = observed.workload else {
        return Decision { action: on_missing_workload(binding, observed, wanted), hold: None };
    };
    on_present_workload(binding, observed, workload, wanted, now)
}

fn standing_hold(binding: &AliasBinding) -> Option<Hold> {
    binding.status.as_ref().and_then(|status| status.hold.clone())
}

/// Rule 7: suspended means untouched.
fn suspended(binding: &AliasBinding) -> Option<Problem> {
    binding
        .spec
        .suspend
        .then(|| Problem::new(Reason::Suspended, "spec.suspend is true: nothing is touched until it is set to false"))
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

fn on_missing_workload(binding: &AliasBinding, observed: &Observed<'_>, wanted: &Wanted) -> Action {
    let Some(template) = &binding.spec.template else {
        return Action::Leave(Problem::new(
            Reason::TargetNotFound,
            format!(
                "there is no Deployment {} in this namespace: create it and version {} is put into it",
                binding.workload_name(),
                wanted.version
            ),
        ));
    };
    if let Some(stale) = stale_unless_pinned(binding, observed) {
        return Action::Leave(stale);
    }
    let present = template_containers(&template.spec);
    let injection = Injection::new(binding, wanted, chosen_containers(binding, &present));
    match unknown_containers(&injection, &present) {
        Some(problem) => Action::Leave(problem),
        None => Action::Apply(injection),
    }
}

fn template_containers(spec: &serde_json::Map<String, serde_json::Value>) -> Vec<&str> {
    let containers = spec.get("template").and_then(|template| template.pointer("/spec/containers"));
    let containers = containers.and_then(serde_json::Value::as_array);
    containers.into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
}

fn unknown_containers(injection: &Injection, present: &[&str]) -> Option<Problem> {
    let missing: Vec<_> =
        injection.containers.iter().filter(|name| !present.contains(&name.as_str())).map(String::as_str).collect();
    if missing.is_empty() && !injection.containers.is_empty() {
        return None;
    }
    let message = format!(
        "spec.inject.containers names {}, but the pod template has {}: correct one of the two",
        if missing.is_empty() { "no container".to_owned() } else { missing.join(", ") },
        if present.is_empty() { "none".to_owned() } else { present.join(", ") },
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
    let from_template = binding.spec.template.as_ref().map(|template| template_containers(&template.spec));
    let live = || workload.spec.template.spec.containers.iter().map(|each| each.name.as_str()).collect();
    let present: Vec<&str> = from_template.unwrap_or_else(live);
    let injection = Injection::new(binding, wanted, chosen_containers(binding, &present));
    if let Some(problem) = unknown_containers(&injection, &present) {
        return Decision { action: Action::Leave(problem), hold: None };
    }
    if workload::holds(workload, &injection) && !observed.template_changed {
        return Decision { action: Action::Settled, hold: None };
    }
    if let Some(hold) = hold(binding, workload, wanted, now) {
        return Decision { action: Action::Leave(held(workload, &hold)), hold: Some(hold) };
    }
    Decision { action: change(binding, observed, workload, injection), hold: None }
}

fn change(binding: &AliasBinding, observed: &Observed<'_>, workload: &Workload, injection: Injection) -> Action {
    if let Some(stale) = stale_unless_pinned(binding, observed) {
        return Action::Leave(stale);
    }
    let conflicts =
        if binding.spec.template.is_some() { Vec::new() } else { workload::conflicts(workload, &injection) };
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

/// While the registry cannot be read, nothing new is written; a pin is a person's word, and needs no registry.
fn stale_unless_pinned(binding: &AliasBinding, observed: &Observed<'_>) -> Option<Problem> {
    if binding.spec.pinned_version.is_some() {
        return None;
    }
    observed.resolution.stale.clone()
}

/// Rule 7, people win: the hold in force, an old one or one that begins now.
fn hold(binding: &AliasBinding, workload: &Workload, wanted: &Wanted, now: Timestamp) -> Option<Hold> {
    if resume_asked(binding) {
        return None;
    }
    let writer = foreign_writer(workload)?;
    let status = binding.status.as_ref()?;
    let wanted = HeldVersion { version: wanted.version.clone(), artifact_uri: Some(wanted.artifact_uri.clone()) };
    if let Some(old) = &status.hold {
        return (old.wanted == wanted).then(|| old.clone());
    }
    let latest = status.history.first()?;
    let was_running = latest.version == wanted.version && latest.artifact_uri == wanted.artifact_uri;
    was_running.then_some(Hold { wanted, manager: writer, since: Time(now) })
}

/// Whether a resume was asked for that has not been acted on.
fn resume_asked(binding: &AliasBinding) -> bool {
    let asked = binding.resume_request();
    let handled = binding.status.as_ref().and_then(|status| status.last_handled_resume.as_ref());
    asked.is_some() && asked != handled
}

/// The manager other than Pointsman that wrote the version into the pod template, as `kubectl rollout undo` does; or that
/// took the whole injection away by going back to a time before it.
fn foreign_writer(workload: &Workload) -> Option<String> {
    if workload.version().is_some() {
        return workload.owners.foreign_version_writers().first().map(|writer| writer.manager.clone());
    }
    // Whoever replaces the whole Deployment takes our label along; an undo takes the pod template alone.
    workload.binding()?;
    let last = workload.owners.last_template_writer().filter(|writer| writer.manager != names::FIELD_MANAGER);
    Some(last.map_or_else(|| "somebody".to_owned(), |writer| writer.manager.clone()))
}

fn held(workload: &Workload, hold: &Hold) -> Problem {
    let running = workload.version().map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
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
