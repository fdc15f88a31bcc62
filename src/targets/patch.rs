//! The server-side-apply patch that puts a version into a workload of any kind.
//!
//! Absent: any field of a target beyond the injected ones; a change of replicas.

use serde_json::{Map, Value, json};

use super::compare::{anchors, variables};
use super::element_patch::operations;
use super::injection::Injection;
use super::literal::escape;
use super::owners::OwnedField;
use super::target::{Form, Target};
use crate::api::alias_binding::{DeploymentTemplate, TargetKind, WorkloadDeletionPolicy};
use crate::api::version::fnv1a;
use crate::api::{AliasBinding, names};

/// Annotation on an owned Deployment: a digest of the binding's template, by which a changed template is seen.
pub const TEMPLATE_DIGEST_ANNOTATION: &str = "pointsman.dev/template-digest";

const REPLICAS: &str = "replicas";

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

impl Owner {
    /// A binding as the owner of its Deployment.
    #[must_use]
    pub fn of(binding: &AliasBinding) -> Self {
        let metadata = &binding.metadata;
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            takes_workload_along: binding.spec.deletion_policy == WorkloadDeletionPolicy::Delete,
        }
    }
}

/// The patch that puts a version into a binding's workload; `None` if there is no workload and no template to make one. An
/// object is a server-side apply, an array a JSON patch.
///
/// A patch of an existing workload names the resource version of the decision, so that a change in between is a conflict and
/// not lost.
#[must_use]
pub fn patch(
    binding: &AliasBinding,
    target: Option<&Target>,
    injection: &Injection,
) -> Option<Value> {
    match (&binding.spec.template, target) {
        (Some(template), target) => {
            let owner = Owner::of(binding);
            Some(patch_for_template(template, &owner, injection, target))
        }
        (None, Some(target)) if target.has_plain_lists() => Some(operations(target, injection)),
        (None, Some(target)) => Some(patch_for_target(target, injection)),
        (None, None) => None,
    }
}

/// Whether a binding's workload was made from another template than the one in its spec.
#[must_use]
pub fn template_changed(binding: &AliasBinding, target: Option<&Target>) -> bool {
    let (Some(template), Some(target)) = (&binding.spec.template, target) else {
        return false;
    };
    let annotations = target.metadata.annotations.as_ref();
    let applied = annotations.and_then(|all| all.get(TEMPLATE_DIGEST_ANNOTATION));
    applied != Some(&template_digest(template, &Owner::of(binding)))
}

/// The fewest fields that put a version into a workload that others own.
fn patch_for_target(target: &Target, injection: &Injection) -> Value {
    let mut spec = json!({});
    for name in &injection.containers {
        let mut env = env_list(&variables(target, injection, name));
        let anchors = anchors(target, injection, name);
        env.extend(anchors.iter().map(|name| json!({"name": name})));
        let list = if target.is_init(name) {
            "initContainers"
        } else {
            "containers"
        };
        let containers = spec[list].take();
        let mut containers = containers.as_array().cloned().unwrap_or_default();
        containers.push(json!({"name": name, "env": env}));
        spec[list] = json!(containers);
    }
    let mut patch = frame(&target.kind, injection);
    patch["metadata"]["name"] = json!(target.metadata.name);
    patch["metadata"]["namespace"] = json!(target.metadata.namespace);
    patch["metadata"]["resourceVersion"] = json!(target.metadata.resource_version);
    patch["spec"]["template"]["spec"] = spec;
    in_place(patch, target)
}

/// The patch with its pod template where the kind has it.
pub(super) fn in_place(mut patch: Value, target: &Target) -> Value {
    if target.form == Form::JobTemplate {
        // The Jobs are found by the label, and their version is told by the annotations.
        let metadata = patch["spec"]["template"]["metadata"].clone();
        let spec = patch["spec"].take();
        patch["spec"] = json!({"jobTemplate": {"metadata": metadata, "spec": spec}});
    }
    patch
}

fn frame(kind: &TargetKind, injection: &Injection) -> Value {
    let annotations: Map<String, Value> = injection
        .annotations()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    let mut frame = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.as_str(),
        "metadata": {"labels": {names::BINDING_LABEL: injection.binding}},
        "spec": {"template": {"metadata": {
            "labels": {names::BINDING_LABEL: injection.binding},
            "annotations": annotations,
        }}},
    });
    if let Some(cause) = &injection.change_cause {
        frame["metadata"]["annotations"] = json!({names::CHANGE_CAUSE_ANNOTATION: cause});
    }
    frame
}

fn env_list(variables: &[(&str, &str)]) -> Vec<Value> {
    variables
        .iter()
        .map(|(name, value)| json!({"name": name, "value": escape(value)}))
        .collect()
}

/// The whole Deployment of a template, with the version in it. Injected fields win over the template.
fn patch_for_template(
    template: &DeploymentTemplate,
    owner: &Owner,
    injection: &Injection,
    target: Option<&Target>,
) -> Value {
    let mut deployment = json!({"metadata": template.metadata, "spec": template.spec});
    overlay(&mut deployment, frame(&TargetKind::Deployment, injection));
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
    for list in [
        "/spec/template/spec/containers",
        "/spec/template/spec/initContainers",
    ] {
        inject_into_containers(&mut deployment, list, injection);
    }
    deployment["metadata"]["annotations"][TEMPLATE_DIGEST_ANNOTATION] =
        json!(template_digest(template, owner));
    if let Some(target) = target {
        deployment["metadata"]["resourceVersion"] = json!(target.metadata.resource_version);
        keep_replicas(&mut deployment, target);
    }
    deployment
}

/// The template's number of replicas counts at creation only. As long as nobody else has set it, Pointsman owns it, and a
/// patch without it would remove it: such a patch repeats the present number.
fn keep_replicas(deployment: &mut Value, target: &Target) {
    if let Some(spec) = deployment["spec"].as_object_mut() {
        spec.remove(REPLICAS);
    }
    if target.owners.is_ours(&OwnedField::Replicas) {
        deployment["spec"][REPLICAS] = json!(target.replicas);
    }
}

/// A digest of what the template and its ownership ask for, without the version and the number of replicas.
#[must_use]
pub fn template_digest(template: &DeploymentTemplate, owner: &Owner) -> String {
    let mut spec = template.spec.clone();
    spec.remove(REPLICAS);
    let text = json!([template.metadata, spec, owner.takes_workload_along]).to_string();
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

fn inject_into_containers(deployment: &mut Value, list: &str, injection: &Injection) {
    let containers = deployment.pointer_mut(list).and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let chosen = container["name"]
            .as_str()
            .is_some_and(|name| injection.containers.iter().any(|each| each == name));
        if let (true, Some(container)) = (chosen, container.as_object_mut()) {
            inject_into(container, injection);
        }
    }
}

/// The injected variables come first, so that the container's own may refer to them.
fn inject_into(container: &mut Map<String, Value>, injection: &Injection) {
    let users = container.remove("env");
    let users = users.as_ref().and_then(Value::as_array).cloned();
    let mut users = users.unwrap_or_default();
    let variables = injection.variables(|name| users.iter().any(|each| each["name"] == name));
    let mut env = env_list(&variables);
    users.retain(|each| !variables.iter().any(|(name, _)| each["name"] == *name));
    env.extend(users);
    container.insert("env".to_owned(), json!(env));
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};

    use super::*;
    use crate::targets::injection::Variable;
    use crate::targets::{Workload, difference};

    fn variable(name: &str, value: &str, yields: bool) -> Variable {
        Variable {
            name: name.to_owned(),
            value: value.to_owned(),
            yields,
        }
    }

    fn injection(version: &str) -> Injection {
        Injection {
            binding: "taxi".into(),
            version: version.into(),
            change_cause: Some(format!("nyc version {version} (champion)")),
            containers: vec!["server".into()],
            variables: vec![
                variable("MODEL_VERSION", version, false),
                variable("MLFLOW_TRACKING_URI", "http://mlflow", true),
            ],
            ..Injection::default()
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
            patch_for_template(&template(), &owner(), &injection(version), None).to_string()
        };
        assert_eq!(build("1"), build("1"));
        assert_ne!(build("1"), build("2"));
    }

    #[test]
    fn the_users_own_tracking_uri_stays_and_other_containers_are_left_alone() {
        let deployment = patch_for_template(&template(), &owner(), &injection("4"), None);
        let containers = &deployment["spec"]["template"]["spec"]["containers"];
        assert_eq!(
            containers[0]["env"],
            json!([
            {"name": "MODEL_VERSION", "value": "4"}, {"name": "MLFLOW_TRACKING_URI", "value": "mine"}])
        );
        assert!(containers[1].get("env").is_none());
    }

    #[test]
    fn a_withheld_query_is_in_the_template_and_nowhere_else() {
        let mut signed = injection("4");
        signed.variables = vec![
            variable("MODEL_VERSION", "4", false),
            variable("MODEL_URI", "https://host/m", false),
        ];
        signed.withheld_uri = Some("https://host/m".to_owned());
        let read = |injection: &Injection| -> Target {
            let written = patch_for_template(&template(), &owner(), injection, None);
            let workload: Workload<Deployment> =
                serde_json::from_value(written).expect("a workload");
            Target::from(workload)
        };
        let whole = read(&signed.with_query("?sig=a$b"));
        let env = whole.env("server", "MODEL_URI");
        let value = env.and_then(|env| env.value.as_deref());
        assert_eq!(value, Some("https://host/m?sig=a$$b"));
        let different = difference(&whole, &signed);
        assert_eq!(different, None, "whatever the query is");
        let seen = whole.held_version(std::iter::empty()).expect("a version");
        assert_eq!(seen.artifact_uri.as_deref(), Some("https://host/m"));
        assert!(seen.query_withheld && !format!("{seen:?}").contains("sig"));
        let without = difference(&read(&signed), &signed);
        assert!(without.is_some(), "the query is missing");
    }

    #[test]
    fn a_template_without_a_selector_selects_the_bindings_label() {
        let deployment = patch_for_template(&template(), &owner(), &injection("4"), None);
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

    /// A Deployment whose container has the user's variables, all owned by `kubectl`; some managers own its replicas.
    fn deployment(env: &Value, managers_of_replicas: &[&str]) -> Target {
        let names = env.as_array().into_iter().flatten();
        let owned: Map<String, Value> = names
            .map(|each| {
                (
                    format!("k:{{\"name\":{}}}", each["name"]),
                    json!({"f:value": {}}),
                )
            })
            .collect();
        let container = json!({"k:{\"name\":\"server\"}": {"f:env": owned}});
        let template = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": container}}}});
        let mut managed =
            vec![json!({"manager": "kubectl", "operation": "Update", "fieldsV1": template})];
        for manager in managers_of_replicas {
            managed.push(json!({"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}));
        }
        let workload: Workload<Deployment> = serde_json::from_value(json!({
            "metadata": {"name": "taxi", "resourceVersion": "7", "managedFields": managed},
            "spec": {"replicas": 6, "template": {"spec": {"containers": [{"name": "server", "env": env}]}}}}))
        .expect("a workload");
        workload.with_owners().into()
    }

    #[test]
    fn variables_that_refer_to_injected_ones_are_named_behind_them() {
        let env = json!([{"name": "PORT", "value": "1"}, {"name": "URI", "value": "x/$(MODEL_VERSION)"},
            {"name": "LAST", "value": "$(URI)"}]);
        let patch = patch_for_target(&deployment(&env, &[]), &injection("4"));
        let written = &patch["spec"]["template"]["spec"]["containers"][0]["env"];
        let names: Vec<_> = written
            .as_array()
            .into_iter()
            .flatten()
            .map(|each| each["name"].as_str().expect("a name"))
            .collect();
        assert_eq!(
            names,
            ["MODEL_VERSION", "MLFLOW_TRACKING_URI", "URI", "LAST"]
        );
        assert!(
            written[2].get("value").is_none(),
            "the value stays its owner's"
        );
    }

    #[test]
    fn variables_without_references_are_not_named() {
        let env = json!([{"name": "PRICE", "value": "$$(MODEL_VERSION) $(OTHER)"}]);
        let patch = patch_for_target(&deployment(&env, &[]), &injection("4"));
        let written = &patch["spec"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!(written.as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn the_templates_replicas_count_at_creation_only() {
        let patch = |target: Option<&Target>| {
            patch_for_template(&template(), &owner(), &injection("4"), target)["spec"]["replicas"]
                .clone()
        };
        assert_eq!(patch(None), 2);
        let scaled = deployment(&json!([]), &["kube-controller-manager"]);
        assert_eq!(
            patch(Some(&scaled)),
            Value::Null,
            "they are somebody else's"
        );
        let untouched = deployment(&json!([]), &["pointsman"]);
        assert_eq!(
            patch(Some(&untouched)),
            6,
            "without them they would be removed"
        );
    }

    #[test]
    fn other_replicas_are_no_other_template() {
        let mut scaled = template();
        scaled.spec.insert(REPLICAS.to_owned(), json!(9));
        assert_eq!(
            template_digest(&scaled, &owner()),
            template_digest(&template(), &owner())
        );
    }
}
