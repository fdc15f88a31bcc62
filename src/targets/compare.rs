//! Whether a target holds a version already, and which fields of other managers conflict with it.
//!
//! Absent: any change. These functions only compare.

use super::injection::Injection;
use super::literal::gives;
use super::owners::{FieldOwners, OwnedField};
use super::target::Target;
use crate::api::names;

/// A field of another manager that Pointsman would have to overwrite.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conflict {
    /// The variable.
    pub variable: String,
    /// The container.
    pub container: String,
    /// The other manager.
    pub manager: String,
}

/// An injected field of a target with another value than the version sets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// The field, for people.
    pub field: String,
    /// Its value in the target; `None` if it is not there.
    pub found: Option<String>,
}

/// Whether every injected field of the target has the value that the version sets.
#[must_use]
pub fn holds(target: &Target, injection: &Injection) -> bool {
    difference(target, injection).is_none()
}

/// The first injected field of the target that has another value than the version sets.
#[must_use]
pub fn difference(target: &Target, injection: &Injection) -> Option<Difference> {
    let template = &target.template.metadata;
    let annotations = injection.annotations().into_iter().map(|(name, value)| {
        let found = template.annotations.get(name);
        ("the pod template's annotation", name, found, value)
    });
    let own_label = target.metadata.labels.as_ref();
    let (label, binding) = (names::BINDING_LABEL, injection.binding.as_str());
    let metadata = [
        (
            "the pod template's label",
            label,
            template.labels.get(label),
            binding,
        ),
        (
            "label",
            label,
            own_label.and_then(|labels| labels.get(label)),
            binding,
        ),
        (
            "annotation",
            names::CHANGE_CAUSE_ANNOTATION,
            change_cause(target),
            injection.change_cause.as_str(),
        ),
    ];
    let different = annotations
        .chain(metadata)
        .find(|(.., found, value)| found.map(String::as_str) != Some(*value));
    match different {
        Some((kind, name, found, _)) => Some(Difference {
            field: format!("{kind} {name}"),
            found: found.cloned(),
        }),
        None => env_difference(target, injection),
    }
}

fn change_cause(target: &Target) -> Option<&String> {
    target
        .metadata
        .annotations
        .as_ref()?
        .get(names::CHANGE_CAUSE_ANNOTATION)
}

fn env_difference(target: &Target, injection: &Injection) -> Option<Difference> {
    for container in &injection.containers {
        for (name, value) in variables(target, injection, container) {
            if has_value(target, container, name, value) {
                continue;
            }
            let found = target.env(container, name);
            return Some(Difference {
                field: format!("{name} of container {container}"),
                found: found.map(|env| match &env.value_from {
                    Some(_) => "a reference".to_owned(),
                    None => env.value.clone().unwrap_or_default(),
                }),
            });
        }
    }
    None
}

fn has_value(target: &Target, container: &str, name: &str, value: &str) -> bool {
    target.env(container, name).is_some_and(|env| {
        env.value_from.is_none() && gives(env.value.as_deref().unwrap_or_default(), value)
    })
}

/// The variables of a container. The tracking URI is left out if the user sets it.
pub(super) fn variables<'a>(
    target: &Target,
    injection: &'a Injection,
    container: &str,
) -> Vec<(&'static str, &'a str)> {
    let field = env_field(container, names::MLFLOW_TRACKING_URI);
    let users = target.env(container, names::MLFLOW_TRACKING_URI).is_some()
        && !target.owners.of(&field).is_empty()
        && !target.owners.is_ours(&field);
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
pub fn conflicts(target: &Target, injection: &Injection) -> Vec<Conflict> {
    let mut found = Vec::new();
    for container in &injection.containers {
        for (name, value) in variables(target, injection, container) {
            if target.env(container, name).is_none() || has_value(target, container, name, value) {
                continue;
            }
            if let Some(manager) = foreign_manager(&target.owners, &env_field(container, name)) {
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
