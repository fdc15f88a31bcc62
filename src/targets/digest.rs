//! The digest by which a change of the user's part of a pod template is seen.
//!
//! Absent: secrecy; the digest only compares. Labels, annotations, restart stamps, and fields that the API server sets by
//! default.

use serde_json::{Map, Value};

use crate::api::inject::{InjectedVariable, from_annotation, usual_variables};
use crate::api::names;
use crate::api::version::fnv1a;

/// The fields of a pod spec that the digest covers, beside its containers. The list is part of the scheme: a new field
/// needs a new scheme, so that neither a release nor a newer API server changes a digest.
const POD_FIELDS: [&str; 13] = [
    "affinity",
    "hostNetwork",
    "imagePullSecrets",
    "nodeName",
    "nodeSelector",
    "priorityClassName",
    "resourceClaims",
    "runtimeClassName",
    "securityContext",
    "serviceAccountName",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];

/// The fields of a container that the digest covers, beside its environment.
const CONTAINER_FIELDS: [&str; 15] = [
    "args",
    "command",
    "envFrom",
    "image",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

/// The digest of the user's part of a pod template: 16 hexadecimal digits. Its labels and annotations are no part of it.
#[must_use]
pub fn pod_template_digest(template: &Value) -> String {
    let list = template["metadata"]["annotations"][names::VARIABLES_ANNOTATION].as_str();
    digest(
        &template["spec"],
        &list.map_or_else(usual_variables, from_annotation),
    )
}

/// The digest of the user's part of a pod spec whose injected variables have their usual names.
#[must_use]
pub fn pod_spec_digest(spec: &Value) -> String {
    digest(spec, &usual_variables())
}

fn digest(spec: &Value, injected: &[InjectedVariable]) -> String {
    let mut covered = picked(spec, &POD_FIELDS);
    for list in ["containers", "initContainers"] {
        let containers = spec[list].as_array();
        let containers = containers.into_iter().flatten();
        let containers: Vec<Value> = containers.map(|each| container(each, injected)).collect();
        if !containers.is_empty() {
            covered.insert(list.to_owned(), Value::Array(containers));
        }
    }
    format!(
        "{:016x}",
        fnv1a(Value::Object(covered).to_string().as_bytes())
    )
}

fn container(whole: &Value, injected: &[InjectedVariable]) -> Value {
    let mut covered = picked(whole, &CONTAINER_FIELDS);
    let env = whole["env"].as_array().into_iter().flatten();
    let is_no_users = |name: &str| injected.iter().any(|each| each.name == name) || is_stamp(name);
    let env = env.filter(|variable| !variable["name"].as_str().is_some_and(is_no_users));
    let env: Vec<Value> = env.map(without_empty).collect();
    if !env.is_empty() {
        covered.insert("env".to_owned(), Value::Array(env));
    }
    Value::Object(covered)
}

/// Whether a variable is a restart stamp: Stakater's Reloader sets one to a digest of each `ConfigMap` and Secret that
/// changed.
fn is_stamp(name: &str) -> bool {
    let kinds = ["_CONFIGMAP", "_SECRET", "_SECRETPROVIDERCLASS"];
    name.starts_with("STAKATER_") && kinds.iter().any(|kind| name.ends_with(kind))
}

fn picked(object: &Value, fields: &[&str]) -> Map<String, Value> {
    let mut picked = Map::new();
    for field in fields {
        let value = without_empty(&object[*field]);
        if !is_empty(&value) {
            picked.insert((*field).to_owned(), value);
        }
    }
    picked
}

/// The value without empty members: an API server may write them or leave them out.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(name, value)| (name.clone(), without_empty(value)));
            Value::Object(members.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_empty).collect()),
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn users() -> Value {
        json!({"containers": [{"name": "server", "image": "a"}]})
    }

    #[test]
    fn our_variables_and_defaults_of_the_api_server_do_not_change_the_digest() {
        let mut written = users();
        written["containers"][0]["env"] = json!([{"name": "MODEL_URI", "value": "s3://m/3"}]);
        written["containers"][0]["resources"] = json!({});
        written["containers"][0]["terminationMessagePath"] = json!("/dev/termination-log");
        written["restartPolicy"] = json!("Always");
        written["schedulerName"] = json!("default-scheduler");
        written["securityContext"] = json!({});
        assert_eq!(pod_spec_digest(&written), pod_spec_digest(&users()));
    }

    #[test]
    fn restart_stamps_do_not_change_the_digest() {
        let whole = json!({"metadata": {"annotations": {"a": "1"}}, "spec": users()});
        let mut stamped = whole.clone();
        stamped["spec"]["containers"][0]["env"] =
            json!([{"name": "STAKATER_SETTINGS_CONFIGMAP", "value": "5f2b"}]);
        stamped["metadata"]["annotations"]["checksum/config"] = json!("2");
        assert_eq!(pod_template_digest(&stamped), pod_template_digest(&whole));
    }

    #[test]
    fn a_variable_of_a_usual_name_is_the_users_if_the_spec_chose_other_names() {
        let with = |uri: &str, list: &str| {
            let mut template = json!({"metadata": {"annotations": {"pointsman.dev/variables": list}}, "spec": users()});
            template["spec"]["containers"][0]["env"] =
                json!([{"name": "MODEL_URI", "value": uri}, {"name": "STORAGE_URI", "value": uri}]);
            pod_template_digest(&template)
        };
        let both = "MODEL_URI=ModelURI,STORAGE_URI=ModelURI";
        assert_eq!(with("a", both), with("b", both));
        assert_ne!(
            with("a", "STORAGE_URI=ModelURI"),
            with("b", "STORAGE_URI=ModelURI")
        );
    }

    #[test]
    fn another_image_or_variable_changes_the_digest() {
        let image = json!({"containers": [{"name": "server", "image": "b"}]});
        let variable = json!({"containers": [{"name": "server", "image": "a", "env": [{"name": "PORT", "value": "1"}]}]});
        assert_ne!(pod_spec_digest(&image), pod_spec_digest(&users()));
        assert_ne!(pod_spec_digest(&variable), pod_spec_digest(&users()));
    }

    #[test]
    fn the_digest_of_a_scheme_stays_the_same_for_ever() {
        assert_eq!(pod_spec_digest(&users()), "a263f3ab37d1758f");
    }
}
