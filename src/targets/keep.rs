//! The patch by which Pointsman becomes an owner of the fields of a version that a person brought back, as they are.
//!
//! Some tools take over the fields that only kubectl owns, and remove those that Git does not have (Flux does). Without this, an
//! undo by a person would lose its variables at the next sync, and its pods would start without a version.
//!
//! Absent: any change of a value, and workloads that Pointsman makes from a template: nobody else applies those.

use serde_json::{Value, json};

use super::owners::OwnedField;
use super::patch::in_place;
use super::target::Target;
use super::workload::{Container, EnvVar};
use crate::api::inject::{from_annotation, usual_variables};
use crate::api::names;

/// The longest value of a label.
const LONGEST: usize = 63;

/// The patch; `None` if nobody else brought the version back, or if Pointsman is an owner of it already.
///
/// All that Pointsman owns is repeated, because a server-side apply removes what it leaves out. Without a resource version the
/// patch is not forced: if another value was set meanwhile, it is a conflict.
#[must_use]
pub fn keep(target: &Target) -> Option<Value> {
    if target.has_plain_lists() || target.owners.is_version_ours() {
        return None;
    }
    let restorer = &target.owners.foreign_version_writers().first()?.manager;
    let metadata = &target.metadata;
    let mut labels = json!({names::RESTORED_BY_LABEL: label_value(restorer)});
    if let Some(binding) = target.binding() {
        labels[names::BINDING_LABEL] = json!(binding);
    }
    let template = &target.template;
    let mut patch = json!({
        "apiVersion": target.kind.api_version(),
        "kind": target.kind.as_str(),
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "labels": labels,
        },
        "spec": {"template": {"metadata": {}, "spec": {}}},
    });
    if let Some(cause) = our_change_cause(target) {
        patch["metadata"]["annotations"] = json!({names::CHANGE_CAUSE_ANNOTATION: cause});
    }
    let kept = &mut patch["spec"]["template"];
    for name in names::TEMPLATE_ANNOTATIONS {
        if let Some(value) = template.metadata.annotations.get(name) {
            kept["metadata"]["annotations"][name] = json!(value);
        }
    }
    if let Some(label) = template.metadata.labels.get(names::BINDING_LABEL) {
        kept["metadata"]["labels"] = json!({names::BINDING_LABEL: label});
    }
    let spec = &template.spec;
    for (list, containers) in [
        ("containers", &spec.containers),
        ("initContainers", &spec.init_containers),
    ] {
        let ours = our_containers(target, containers);
        if !ours.is_empty() {
            kept["spec"][list] = json!(ours);
        }
    }
    Some(in_place(patch, target))
}

fn our_change_cause(target: &Target) -> Option<&String> {
    let annotations = target.metadata.annotations.as_ref()?;
    let cause = annotations.get(names::CHANGE_CAUSE_ANNOTATION)?;
    let field = OwnedField::ChangeCause;
    let is_ours = target.owners.is_ours(&field) || target.owners.came_back(&field);
    is_ours.then_some(cause)
}

/// The containers with variables of Pointsman's, and of them only those.
fn our_containers(target: &Target, containers: &[Container]) -> Vec<Value> {
    let list = target.variable_list();
    let listed = list.map_or_else(usual_variables, from_annotation);
    let is_listed = |name: &str| listed.iter().any(|each| each.name == name);
    let mut ours = Vec::new();
    for container in containers {
        let is_ours = |variable: &&EnvVar| {
            let (container, name) = (container.name.clone(), variable.name.clone());
            let field = OwnedField::Env { container, name };
            let owners = &target.owners;
            owners.is_ours(&field) || (is_listed(&variable.name) && owners.came_back(&field))
        };
        let env: Vec<Value> = container.env.iter().filter(is_ours).map(as_it_is).collect();
        if !env.is_empty() {
            ours.push(json!({"name": container.name, "env": env}));
        }
    }
    ours
}

/// A variable without a literal value is another manager's: only its name is Pointsman's, which keeps an order.
fn as_it_is(variable: &EnvVar) -> Value {
    match (&variable.value, &variable.value_from) {
        (Some(value), None) => json!({"name": variable.name, "value": value}),
        _ => json!({"name": variable.name}),
    }
}

/// A manager's name with only the characters that a label may have.
fn label_value(manager: &str) -> String {
    let allowed = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => character,
        _ => '-',
    };
    let value: String = manager.chars().map(allowed).take(LONGEST).collect();
    let value = value.trim_matches(['-', '_', '.']);
    if value.is_empty() {
        "somebody".to_owned()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;

    use super::*;
    use crate::targets::Workload;

    /// A Deployment whose version annotation and variables these managers own: the annotation, `MODEL_URI`, `PORT`.
    fn undone(version: &[&str], uri: &[&str], port: &[&str]) -> Target {
        let entries = |managers: &[&str], fields: &Value| -> Vec<Value> {
            let entry = |manager: &&str| json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:template": fields}}});
            managers.iter().map(entry).collect()
        };
        let annotation =
            json!({"f:metadata": {"f:annotations": {"f:pointsman.dev/model-version": {}}}});
        let variable = |name: &str| {
            let env = json!({format!("k:{{\"name\":\"{name}\"}}"): {"f:value": {}}});
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"server\"}": {"f:env": env}}}})
        };
        let mut managed = entries(version, &annotation);
        managed.extend(entries(uri, &variable("MODEL_URI")));
        managed.extend(entries(port, &variable("PORT")));
        let workload: Workload<Deployment> = serde_json::from_value(json!({
            "metadata": {"name": "server", "namespace": "ml", "uid": "u", "resourceVersion": "7",
                "labels": {"pointsman.dev/binding": "taxi"}, "managedFields": managed},
            "spec": {"template": {
                "metadata": {"annotations": {"pointsman.dev/model-version": "1", "other": "x"}},
                "spec": {"containers": [
                    {"name": "server", "env": [{"name": "PORT", "value": "80"}, {"name": "MODEL_URI", "value": "s3://m/1"}]},
                    {"name": "sidecar"}]}}}}))
        .expect("a workload");
        workload.with_owners().into()
    }

    #[test]
    fn the_fields_of_a_version_that_was_brought_back_are_kept_as_they_are() {
        let target = undone(
            &["kubectl rollout"],
            &["kubectl rollout", "pointsman"],
            &["helm"],
        );
        let patch = keep(&target).expect("a patch");
        assert_eq!(
            patch,
            json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "server", "namespace": "ml", "uid": "u", "labels": {
                    "pointsman.dev/binding": "taxi", "pointsman.dev/restored-by": "kubectl-rollout"}},
                "spec": {"template": {
                    "metadata": {"annotations": {"pointsman.dev/model-version": "1"}},
                    "spec": {"containers": [
                        {"name": "server", "env": [{"name": "MODEL_URI", "value": "s3://m/1"}]}]}}},
            })
        );
    }

    #[test]
    fn a_version_of_our_own_and_a_template_without_one_are_left_alone() {
        assert_eq!(keep(&undone(&["pointsman"], &["pointsman"], &[])), None);
        assert_eq!(keep(&undone(&[], &["pointsman"], &[])), None);
        let kept = undone(&["kubectl", "pointsman"], &["pointsman"], &[]);
        assert_eq!(keep(&kept), None, "it is kept already");
    }
}
