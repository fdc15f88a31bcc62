//! The digest by which a change of the user's part of a pod template is seen.
//!
//! Absent: secrecy; the digest only compares. Labels, annotations and fields that the API server sets by default.

use serde_json::{Map, Value};

use crate::api::names;
use crate::api::version::fnv1a;

/// The environment variables that Pointsman sets.
const OUR_VARIABLES: [&str; 7] = [
    names::MODEL_NAME,
    names::MODEL_VERSION,
    names::MODEL_ALIAS,
    names::MODEL_URI,
    names::MODEL_RUN_ID,
    names::MLFLOW_MODEL_URI,
    names::MLFLOW_TRACKING_URI,
];

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

/// Whether Pointsman sets an environment variable of this name.
#[must_use]
pub fn is_ours(variable: &str) -> bool {
    OUR_VARIABLES.contains(&variable)
}

/// The digest of the user's part of a pod spec: 16 hexadecimal digits.
#[must_use]
pub fn pod_spec_digest(spec: &Value) -> String {
    let mut covered = picked(spec, &POD_FIELDS);
    for list in ["containers", "initContainers"] {
        let containers = spec[list].as_array();
        let containers: Vec<Value> = containers.into_iter().flatten().map(container).collect();
        if !containers.is_empty() {
            covered.insert(list.to_owned(), Value::Array(containers));
        }
    }
    format!(
        "{:016x}",
        fnv1a(Value::Object(covered).to_string().as_bytes())
    )
}

fn container(whole: &Value) -> Value {
    let mut covered = picked(whole, &CONTAINER_FIELDS);
    let env = whole["env"].as_array().into_iter().flatten();
    let env = env.filter(|variable| !variable["name"].as_str().is_some_and(is_ours));
    let env: Vec<Value> = env.map(without_empty).collect();
    if !env.is_empty() {
        covered.insert("env".to_owned(), Value::Array(env));
    }
    Value::Object(covered)
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
