//! Whether a workload holds a version already, and which fields stand in the way.
//!
//! Absent: any change. These functions only look.

use super::{FieldOwners, Injection, OwnedField, Workload};
use crate::api::names;

/// A field that another manager set, and which Pointsman would have to overwrite.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conflict {
    /// The variable.
    pub variable: String,
    /// The container.
    pub container: String,
    /// The other manager.
    pub manager: String,
}

/// Whether every injected field of the workload is as the version sets it.
#[must_use]
pub fn holds(workload: &Workload, injection: &Injection) -> bool {
    let template = &workload.spec.template.metadata;
    let labelled = |labels: Option<&String>| labels == Some(&injection.binding);
    workload.version() == Some(&injection.version)
        && labelled(template.labels.get(names::BINDING_LABEL))
        && workload.binding() == Some(&injection.binding)
        && change_cause(workload) == Some(&injection.change_cause)
        && injection
            .containers
            .iter()
            .all(|container| container_holds(workload, injection, container))
}

fn change_cause(workload: &Workload) -> Option<&String> {
    workload
        .metadata
        .annotations
        .as_ref()?
        .get(names::CHANGE_CAUSE_ANNOTATION)
}

fn container_holds(workload: &Workload, injection: &Injection, container: &str) -> bool {
    variables(workload, injection, container)
        .iter()
        .all(|(name, value)| has_value(workload, container, name, value))
}

fn has_value(workload: &Workload, container: &str, name: &str, value: &str) -> bool {
    workload.env(container, name).is_some_and(|env| {
        env.value_from.is_none() && env.value.as_deref().unwrap_or_default() == value
    })
}

/// The variables that a container gets: the tracking URI only where the user has not set it.
pub(super) fn variables<'a>(
    workload: &Workload,
    injection: &'a Injection,
    container: &str,
) -> Vec<(&'static str, &'a str)> {
    let field = env_field(container, names::MLFLOW_TRACKING_URI);
    let users = workload
        .env(container, names::MLFLOW_TRACKING_URI)
        .is_some()
        && !workload.owners.of(&field).is_empty()
        && !workload.owners.is_ours(&field);
    injection.variables(users)
}

fn env_field(container: &str, name: &str) -> OwnedField {
    OwnedField::Env {
        container: container.to_owned(),
        name: name.to_owned(),
    }
}

/// The variables that another manager set to something else.
///
/// A person's `kubectl rollout undo` brings an older template of ours back under that person's manager, which then owns
/// annotation and variables alike; those are ours by name, and no conflict.
#[must_use]
pub fn conflicts(workload: &Workload, injection: &Injection) -> Vec<Conflict> {
    let mut found = Vec::new();
    for container in &injection.containers {
        for (name, value) in variables(workload, injection, container) {
            if workload.env(container, name).is_none()
                || has_value(workload, container, name, value)
            {
                continue;
            }
            if let Some(manager) = foreign_manager(&workload.owners, &env_field(container, name)) {
                found.push(Conflict {
                    variable: name.to_owned(),
                    container: container.clone(),
                    manager,
                });
            }
        }
    }
    found
}

fn foreign_manager(owners: &FieldOwners, field: &OwnedField) -> Option<String> {
    let writers = owners.of(field);
    if owners.is_ours(field) {
        return None;
    }
    let version_writers = owners.foreign_version_writers();
    let came_back_with_annotation = |manager: &str| {
        version_writers
            .iter()
            .any(|writer| writer.manager == manager)
    };
    writers
        .iter()
        .map(|writer| &writer.manager)
        .find(|manager| !came_back_with_annotation(manager))
        .cloned()
}
