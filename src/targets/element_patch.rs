//! The JSON patch that puts a version into a workload whose schema has no keys for containers and variables: server-side apply
//! would replace whole lists there, with the user's containers in them.
//!
//! Absent: any element beyond the injected ones; a write to another version of the object than the one that was decided on.

use serde_json::{Map, Value, json};

use super::compare::variables;
use super::injection::{Injection, Variable};
use super::literal::escape;
use super::owners::{FieldOwners, OwnedField, Writer};
use super::target::Target;
use super::workload::{Container, EnvVar, PodTemplate};
use super::{field_path, fields};
use crate::api::names;

/// The patch. Its first operation makes it a conflict if the object has changed since.
pub(super) fn operations(target: &Target, injection: &Injection) -> Value {
    let version = &target.metadata.resource_version;
    let mut changes =
        vec![json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version})];
    let metadata = &target.metadata;
    let label = [(names::BINDING_LABEL, injection.binding.as_str())];
    set(
        &mut changes,
        "/metadata/labels",
        metadata.labels.is_some(),
        &label,
    );
    if let Some(cause) = &injection.change_cause {
        let cause = [(names::CHANGE_CAUSE_ANNOTATION, cause.as_str())];
        let has_annotations = metadata.annotations.is_some();
        set(
            &mut changes,
            "/metadata/annotations",
            has_annotations,
            &cause,
        );
    }
    if let Some(spec) = target.object() {
        let annotations = injection.annotations();
        let has_annotations = metadata.annotations.is_some();
        set(
            &mut changes,
            "/metadata/annotations",
            has_annotations,
            &annotations,
        );
        changes.extend(field_changes(spec.clone(), target, injection));
    } else {
        template_changes(&mut changes, target, injection, &label);
    }
    json!(changes)
}

/// Sets the label, the annotations and the variables in the pod template.
fn template_changes(
    changes: &mut Vec<Value>,
    target: &Target,
    injection: &Injection,
    label: &[(&str, &str)],
) {
    let annotations = injection.annotations();
    let template = &target.template.metadata;
    if template.labels.is_empty() && template.annotations.is_empty() {
        let value = json!({"labels": object(label), "annotations": object(&annotations)});
        changes.push(json!({"op": "add", "path": "/spec/template/metadata", "value": value}));
    } else {
        let path = |map: &str| format!("/spec/template/metadata/{map}");
        let (has_labels, has_annotations) = (
            !template.labels.is_empty(),
            !template.annotations.is_empty(),
        );
        set(changes, &path("labels"), has_labels, label);
        set(changes, &path("annotations"), has_annotations, &annotations);
    }
    let spec = &target.template.spec;
    let lists = [
        ("containers", &spec.containers),
        ("initContainers", &spec.init_containers),
    ];
    for (list, containers) in lists {
        changes.extend(environments(target, injection, list, containers));
    }
}

/// Sets the fields of the version, and removes those that an earlier one set and this one does not.
fn field_changes(mut object: Value, target: &Target, injection: &Injection) -> Vec<Value> {
    let listed = target.variable_list().unwrap_or_default();
    let left = fields::paths(listed).filter(|path| !injection.names_variable(path));
    let mut changes: Vec<Value> = left
        .filter_map(|path| field_path::remove(&mut object, path))
        .collect();
    // `Injection::of` has checked that every path leads somewhere.
    let set = |each: &Variable| field_path::set(&mut object, &each.name, &each.value).ok();
    changes.extend(injection.variables.iter().filter_map(set));
    changes
}

/// Sets members of a map, which is made if it is not there.
fn set(changes: &mut Vec<Value>, path: &str, is_there: bool, members: &[(&str, &str)]) {
    if !is_there {
        changes.push(json!({"op": "add", "path": path, "value": object(members)}));
        return;
    }
    for (name, value) in members {
        let name = field_path::token(name);
        changes.push(json!({"op": "add", "path": format!("{path}/{name}"), "value": value}));
    }
}

fn object(members: &[(&str, &str)]) -> Map<String, Value> {
    let members = members.iter();
    members
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect()
}

/// The variables of each container that has other ones than before.
fn environments(
    target: &Target,
    injection: &Injection,
    list: &str,
    containers: &[Container],
) -> Vec<Value> {
    let mut changes = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let path = format!("/spec/template/spec/{list}/{index}/env");
        if let Some(env) = environment(target, injection, container) {
            changes.push(json!({"op": "add", "path": path, "value": env}));
        }
    }
    changes
}

/// The injected variables, then the container's own; `None` if the container is not chosen and has none of ours.
fn environment(
    target: &Target,
    injection: &Injection,
    container: &Container,
) -> Option<Vec<Value>> {
    let is_chosen = injection.containers.contains(&container.name);
    let is_ours = |variable: &EnvVar| target.is_injected(&container.name, &variable.name);
    if !is_chosen && !container.env.iter().any(is_ours) {
        return None;
    }
    let ours = if is_chosen {
        variables(target, injection, &container.name)
    } else {
        Vec::new()
    };
    let users = container.env.iter().filter(|variable| {
        !is_ours(variable) && ours.iter().all(|(name, _)| variable.name != *name)
    });
    let injected = ours
        .iter()
        .map(|(name, value)| json!({"name": name, "value": escape(value)}));
    Some(injected.chain(users.map(as_it_was)).collect())
}

fn as_it_was(variable: &EnvVar) -> Value {
    let mut members = Map::new();
    members.insert("name".to_owned(), json!(variable.name));
    if let Some(value) = &variable.value {
        members.insert("value".to_owned(), json!(value));
    }
    if let Some(source) = &variable.value_from {
        members.insert("valueFrom".to_owned(), source.clone());
    }
    Value::Object(members)
}

/// The owners of all variables: the template's annotations list those that came with the version.
pub(super) fn listed_owners(mut owners: FieldOwners, template: &PodTemplate) -> FieldOwners {
    let annotations = &template.metadata.annotations;
    let field = OwnedField::TemplateAnnotation(names::VERSION_ANNOTATION.to_owned());
    let of_version = owners.of(&field).to_vec();
    // Whoever brought the version back brought the other variables along, but did not set them.
    let others = owners.last_other_writer();
    let others = others.filter(|writer| of_version.iter().all(|each| each != *writer));
    let others = others.cloned().unwrap_or(Writer {
        manager: "another manager".to_owned(),
        at: None,
    });
    let list = |name: &str| annotations.get(name).map_or("", String::as_str);
    let containers: Vec<&str> = list(names::CONTAINERS_ANNOTATION).split(',').collect();
    let variables: Vec<&str> = fields::paths(list(names::VARIABLES_ANNOTATION)).collect();
    let spec = &template.spec;
    for container in spec.containers.iter().chain(&spec.init_containers) {
        for variable in &container.env {
            let is_listed = containers.contains(&container.name.as_str())
                && variables.contains(&variable.name.as_str());
            let writers = if is_listed {
                of_version.clone()
            } else {
                vec![others.clone()]
            };
            owners.set_variable(&container.name, &variable.name, writers);
        }
    }
    owners
}
