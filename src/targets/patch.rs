//! The server-side-apply patch that puts a version into a workload of any kind.
//!
//! Absent: replicas, and any field of a target beyond the injected ones.

use serde_json::{Map, Value, json};

use super::compare::variables;
use super::injection::Injection;
use super::literal::escape;
use super::target::Target;
use crate::api::alias_binding::{DeploymentTemplate, TargetKind};
use crate::api::names;
use crate::api::version::fnv1a;

/// Annotation on an owned Deployment: a digest of the binding's template, by which a changed template is seen.
pub const TEMPLATE_DIGEST_ANNOTATION: &str = "pointsman.dev/template-digest";

/// The binding as an owner.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether the Deployment goes when the binding goes.
    pub takes_workload_along: bool,
}

/// The fewest fields that put a version into a workload that others own.
///
/// The patch names the resource version of the decision, so that a change in between is a conflict and not lost.
#[must_use]
pub fn patch_for_target(target: &Target, injection: &Injection) -> Value {
    let containers: Vec<Value> = injection
        .containers
        .iter()
        .map(|name| json!({"name": name, "env": env_list(&variables(target, injection, name))}))
        .collect();
    let mut patch = frame(target.kind, injection);
    patch["metadata"]["name"] = json!(target.metadata.name);
    patch["metadata"]["namespace"] = json!(target.metadata.namespace);
    patch["metadata"]["resourceVersion"] = json!(target.metadata.resource_version);
    patch["spec"]["template"]["spec"] = json!({"containers": containers});
    patch
}

fn frame(kind: TargetKind, injection: &Injection) -> Value {
    let annotations: Map<String, Value> = injection
        .annotations()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    json!({
        "apiVersion": "apps/v1",
        "kind": kind.as_str(),
        "metadata": {
            "labels": {names::BINDING_LABEL: injection.binding},
            "annotations": {names::CHANGE_CAUSE_ANNOTATION: injection.change_cause},
        },
        "spec": {"template": {"metadata": {
            "labels": {names::BINDING_LABEL: injection.binding},
            "annotations": annotations,
        }}},
    })
}

fn env_list(variables: &[(&'static str, &str)]) -> Vec<Value> {
    variables
        .iter()
        .map(|(name, value)| json!({"name": name, "value": escape(value)}))
        .collect()
}

/// The whole Deployment of a template, with the version in it. Injected fields win over the template.
#[must_use]
pub fn patch_for_template(
    template: &DeploymentTemplate,
    owner: &Owner,
    injection: &Injection,
) -> Value {
    let mut deployment = json!({"metadata": template.metadata, "spec": template.spec});
    overlay(&mut deployment, frame(TargetKind::Deployment, injection));
    deployment["metadata"]["name"] = json!(owner.name);
    deployment["metadata"]["namespace"] = json!(owner.namespace);
    if owner.takes_workload_along {
        deployment["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding", "name": owner.name, "uid": owner.uid,
            "controller": true, "blockOwnerDeletion": true,
        }]);
    }
    if deployment["spec"].get("selector").is_none() {
        deployment["spec"]["selector"] =
            json!({"matchLabels": {names::BINDING_LABEL: injection.binding}});
    }
    inject_into_containers(&mut deployment, injection);
    deployment["metadata"]["annotations"][TEMPLATE_DIGEST_ANNOTATION] =
        json!(template_digest(template, owner));
    deployment
}

/// A digest of what the template and its ownership ask for, without the version.
#[must_use]
pub fn template_digest(template: &DeploymentTemplate, owner: &Owner) -> String {
    let text = json!([template.metadata, template.spec, owner.takes_workload_along]).to_string();
    format!("{:016x}", fnv1a(text.as_bytes()))
}

/// Lays one object over another, member by member.
fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

fn inject_into_containers(deployment: &mut Value, injection: &Injection) {
    let containers = deployment
        .pointer_mut("/spec/template/spec/containers")
        .and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let chosen = container["name"]
            .as_str()
            .is_some_and(|name| injection.containers.iter().any(|each| each == name));
        if let (true, Some(container)) = (chosen, container.as_object_mut()) {
            inject_into(container, injection);
        }
    }
}

fn inject_into(container: &mut Map<String, Value>, injection: &Injection) {
    let env = container.entry("env").or_insert_with(|| json!([]));
    let Some(env) = env.as_array_mut() else {
        return;
    };
    let variables = injection.variables(
        env.iter()
            .any(|each| each["name"] == names::MLFLOW_TRACKING_URI),
    );
    env.retain(|each| !variables.iter().any(|(name, _)| each["name"] == *name));
    env.extend(env_list(&variables));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::apps::v1::StatefulSet;

    use super::*;
    use crate::targets::Workload;

    fn injection(version: &str) -> Injection {
        Injection {
            binding: "taxi".into(),
            version: version.into(),
            version_id: None,
            change_cause: format!("nyc version {version} (champion)"),
            containers: vec!["server".into()],
            env: BTreeMap::from([(names::MODEL_VERSION, version.to_owned())]),
            tracking_uri: Some("http://mlflow".into()),
        }
    }

    fn template() -> DeploymentTemplate {
        serde_json::from_value(json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [
            {"name": "server", "image": "a", "env": [{"name": "MLFLOW_TRACKING_URI", "value": "mine"}]},
            {"name": "sidecar", "image": "b"}]}}}}))
        .expect("a template")
    }

    fn owner() -> Owner {
        Owner {
            namespace: "ml".into(),
            name: "taxi".into(),
            uid: "u".into(),
            takes_workload_along: true,
        }
    }

    #[test]
    fn a_rollback_gives_byte_for_byte_the_template_that_ran_before() {
        let build = |version: &str| {
            patch_for_template(&template(), &owner(), &injection(version)).to_string()
        };
        assert_eq!(build("1"), build("1"));
        assert_ne!(build("1"), build("2"));
    }

    #[test]
    fn the_users_own_tracking_uri_stays_and_other_containers_are_left_alone() {
        let deployment = patch_for_template(&template(), &owner(), &injection("4"));
        let containers = &deployment["spec"]["template"]["spec"]["containers"];
        assert_eq!(
            containers[0]["env"],
            json!([
            {"name": "MLFLOW_TRACKING_URI", "value": "mine"}, {"name": "MODEL_VERSION", "value": "4"}])
        );
        assert!(containers[1].get("env").is_none());
    }

    #[test]
    fn a_template_without_a_selector_selects_the_bindings_label() {
        let deployment = patch_for_template(&template(), &owner(), &injection("4"));
        assert_eq!(
            deployment["spec"]["selector"]["matchLabels"],
            json!({"pointsman.dev/binding": "taxi"})
        );
        assert_eq!(
            deployment["spec"]["template"]["metadata"]["labels"],
            json!({"pointsman.dev/binding": "taxi"})
        );
    }

    #[test]
    fn a_targets_patch_holds_no_replicas_and_names_the_resource_version() {
        let workload: Workload<StatefulSet> =
            serde_json::from_value(json!({"metadata": {"name": "taxi", "resourceVersion": "7"}}))
                .expect("a workload");
        let patch = patch_for_target(&Target::from(workload), &injection("4"));
        assert_eq!(patch["kind"], "StatefulSet");
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(
            patch["spec"]
                .as_object()
                .map(|spec| spec.keys().cloned().collect::<Vec<_>>()),
            Some(vec!["template".to_owned()])
        );
    }
}
