//! Whether a target holds a version already, and which fields of other managers conflict with it.
//!
//! Absent: any change. These functions only compare.

use super::injection::Injection;
use super::literal::gives;
use super::owners::OwnedField;
use super::target::Target;
use super::workload::EnvVar;
use crate::api::inject::{from_annotation, usual_variables};
use crate::api::names;
use crate::api::public_uri::split_query;

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

/// Whether every injected field of the target has the value that the version sets, and Pointsman owns no other.
#[must_use]
pub fn holds(target: &Target, injection: &Injection) -> bool {
    let is_in_order = |container: &String| is_in_order(target, injection, container);
    difference(target, injection).is_none()
        && injection.containers.iter().all(is_in_order)
        && !owns_more(target, injection)
}

/// The first injected field of the target that has another value than the version sets.
#[must_use]
pub fn difference(target: &Target, injection: &Injection) -> Option<Difference> {
    let different = metadata_difference(target, injection);
    if let Some((kind, name, found)) = different {
        return Some(Difference {
            field: format!("{kind} {name}"),
            found: found.map(str::to_owned),
        });
    }
    env_difference(target, injection)
}

/// The kind and name of the first label or annotation that differs, with its value in the target.
fn metadata_difference<'a>(
    target: &'a Target,
    injection: &Injection,
) -> Option<(&'static str, &'static str, Option<&'a str>)> {
    let template = &target.template.metadata;
    let annotation = |name: &str| template.annotations.get(name).map(String::as_str);
    let differs = |found: Option<&str>, value: &str| found != Some(value);
    let annotations = [
        (names::VERSION_ANNOTATION, Some(&injection.version)),
        (names::VERSION_ID_ANNOTATION, injection.version_id.as_ref()),
        (
            names::CONTAINERS_ANNOTATION,
            injection.container_list.as_ref(),
        ),
    ];
    for (name, value) in annotations {
        let found = annotation(name);
        if value.is_some_and(|value| differs(found, value)) {
            return Some(("the pod template's annotation", name, found));
        }
    }
    let name = names::VARIABLES_ANNOTATION;
    if !has_same_variables(target, injection) {
        return Some(("the pod template's annotation", name, annotation(name)));
    }
    let (label, binding) = (names::BINDING_LABEL, injection.binding.as_str());
    let of_template = template.labels.get(label).map(String::as_str);
    if differs(of_template, binding) {
        return Some(("the pod template's label", label, of_template));
    }
    if differs(target.binding(), binding) {
        return Some(("label", label, target.binding()));
    }
    let found = change_cause(target).map(String::as_str);
    let cause = injection.change_cause.as_ref();
    cause.is_some_and(|cause| differs(found, cause)).then_some((
        "annotation",
        names::CHANGE_CAUSE_ANNOTATION,
        found,
    ))
}

/// Whether the template's list of variables is that of the binding's spec, with or without an annotation for it.
fn has_same_variables(target: &Target, injection: &Injection) -> bool {
    let variables = |list: Option<&str>| list.map_or_else(usual_variables, from_annotation);
    let list = injection.list.as_deref();
    target.variable_list() == list || variables(target.variable_list()) == variables(list)
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
            if has_value(target, injection, container, name, value) {
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

fn has_value(
    target: &Target,
    injection: &Injection,
    container: &str,
    name: &str,
    value: &str,
) -> bool {
    let Some(env) = target.env(container, name) else {
        return false;
    };
    let written = env.value.as_deref().unwrap_or_default();
    env.value_from.is_none()
        && match split_query(written) {
            // The query is known only while the version is written.
            (base, Some(_)) if injection.withholds_query_of(value) => gives(base, value),
            (_, None) if injection.withholds_query_of(value) => false,
            _ => gives(written, value),
        }
}

/// The variables of a container. Those that the user sets are left out if they yield.
pub(super) fn variables<'a>(
    target: &Target,
    injection: &'a Injection,
    container: &str,
) -> Vec<(&'a str, &'a str)> {
    injection.variables(|name| target.is_set_by_others(container, name))
}

fn env_field(container: &str, name: &str) -> OwnedField {
    OwnedField::Env {
        container: container.to_owned(),
        name: name.to_owned(),
    }
}

/// Whether each injected variable stands before the user's variables that refer to it: the kubelet expands only those.
fn is_in_order(target: &Target, injection: &Injection, container: &str) -> bool {
    first_too_early(target, injection, container).is_none()
        || anchors(target, injection, container).is_empty()
}

/// Whether a user's variable refers to an injected one that cannot be set before it, because nobody owns the user's.
#[must_use]
pub fn refers_too_early<'a>(target: &'a Target, injection: &Injection) -> Option<&'a str> {
    let mut early = injection.containers.iter().filter_map(|container| {
        let env = &target.container(container)?.env;
        let index = first_too_early(target, injection, container)?;
        Some(env[index].name.as_str())
    });
    early.next()
}

/// The index of the first variable of the user's that refers to an injected one which does not stand before it.
fn first_too_early(target: &Target, injection: &Injection, container: &str) -> Option<usize> {
    let env = &target.container(container)?.env;
    let ours = variables(target, injection, container);
    let is_set_before =
        |name: &str, index: usize| env[..index].iter().any(|each| each.name == name);
    env.iter().enumerate().position(|(index, user)| {
        let refers_too_early = |name: &str| refers(user, name) && !is_set_before(name, index);
        !injection.names_variable(&user.name) && ours.iter().any(|(name, _)| refers_too_early(name))
    })
}

fn refers(variable: &EnvVar, name: &str) -> bool {
    let value = variable.value.as_deref().unwrap_or_default();
    value.contains("$(") && value.replace("$$", "").contains(&format!("$({name})"))
}

/// The user's variables that a patch has to name behind the injected ones, so that the API server puts those first:
/// server-side apply appends a new item of a list, unless the patch names an old one after it. Only the names are patched,
/// and the next patch lets go of them. Empty if the order is right, or if a variable has no owner who would keep it then.
pub(super) fn anchors<'a>(
    target: &'a Target,
    injection: &Injection,
    container: &str,
) -> Vec<&'a str> {
    let Some(first) = first_too_early(target, injection, container) else {
        return Vec::new();
    };
    let env = target
        .container(container)
        .map_or(&[][..], |found| &found.env);
    let mut anchors: Vec<&str> = Vec::new();
    for variable in &env[first..] {
        let name = variable.name.as_str();
        if !injection.names_variable(name) && !anchors.contains(&name) {
            anchors.push(name);
        }
    }
    let is_others = |name: &&str| {
        let writers = target.owners.of(&env_field(container, name));
        writers
            .iter()
            .any(|writer| writer.manager != names::FIELD_MANAGER)
    };
    if injection.is_whole || !anchors.iter().all(is_others) {
        anchors.clear();
    }
    anchors
}

/// Whether Pointsman owns variables that it has to let go of: those that kept an order once, and those of containers that are
/// not chosen any more.
fn owns_more(target: &Target, injection: &Injection) -> bool {
    if injection.is_whole {
        return false;
    }
    target
        .owners
        .our_variables()
        .any(|(container, name, is_shared)| {
            let is_chosen = injection.containers.iter().any(|each| each == container);
            let is_empty = target
                .env(container, name)
                .is_some_and(|env| env.value.is_none() && env.value_from.is_none());
            let is_injected = is_chosen && injection.names_variable(name);
            !is_injected && (is_shared || is_empty || !is_chosen)
        })
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
            if target.env(container, name).is_none()
                || has_value(target, injection, container, name, value)
            {
                continue;
            }
            if let Some(manager) = foreign_manager(target, &env_field(container, name)) {
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

fn foreign_manager(target: &Target, field: &OwnedField) -> Option<String> {
    let owners = &target.owners;
    if owners.is_ours(field) {
        return None;
    }
    let brought_back = owners.foreign_version_writers();
    let is_other = |manager: &&String| brought_back.iter().all(|each| each.manager != **manager);
    let mut managers = owners.of(field).iter().map(|writer| &writer.manager);
    managers.find(is_other).cloned()
}

/// A chosen container with `envFrom` that may bring a variable of an injected name, which the injected one then hides: the
/// container and that name. `None` if the spec chose the names.
#[must_use]
pub fn may_hide<'a>(target: &Target, injection: &'a Injection) -> Option<(&'a str, &'a str)> {
    if injection.list.is_some() {
        return None;
    }
    let mut hidden = injection.containers.iter().filter_map(|name| {
        let container = target.container(name)?;
        let mut sources = container.env_from.iter();
        let variable = sources.find_map(|source| {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let mut variables = injection.variables.iter();
            variables.find(|each| each.name.starts_with(prefix))
        })?;
        Some((name.as_str(), variable.name.as_str()))
    });
    hidden.next()
}
