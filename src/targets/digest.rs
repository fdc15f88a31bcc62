//! Short digests, by which a change of somebody else's is seen without keeping what was there.
//!
//! Absent: secrecy. These digests only compare.

use serde_json::Value;

use crate::api::names;

/// The variables that Pointsman sets.
const OUR_VARIABLES: [&str; 7] = [
    names::MODEL_NAME,
    names::MODEL_VERSION,
    names::MODEL_ALIAS,
    names::MODEL_URI,
    names::MODEL_RUN_ID,
    names::MLFLOW_MODEL_URI,
    names::MLFLOW_TRACKING_URI,
];

/// FNV-1a: short, stable between releases, and not for secrets.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A part of a pod template that Pointsman writes into beside others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The template's labels.
    Label,
    /// The template's annotations.
    Annotation,
    /// A container's environment.
    Variable,
}

/// Whether Pointsman writes what has this name, or it is the moment of a `kubectl rollout restart`, which changes nothing.
#[must_use]
pub fn is_ours(part: Part, name: &str) -> bool {
    match part {
        Part::Label => name == names::BINDING_LABEL,
        Part::Annotation => {
            [names::VERSION_ANNOTATION, names::RESTARTED_AT_ANNOTATION].contains(&name)
        }
        Part::Variable => OUR_VARIABLES.contains(&name),
    }
}

/// Takes out of a pod template what is ours.
pub(super) fn without_ours(template: &mut Value) {
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
    }
    take_ours(
        template.pointer_mut("/metadata/annotations"),
        Part::Annotation,
    );
    take_ours(template.pointer_mut("/metadata/labels"), Part::Label);
    drop_empty(template.get_mut("metadata"), &["annotations", "labels"]);
    drop_empty(Some(template), &["metadata"]);
    let containers = template
        .pointer_mut("/spec/containers")
        .and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        if let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) {
            env.retain(|variable| {
                !variable["name"]
                    .as_str()
                    .is_some_and(|name| is_ours(Part::Variable, name))
            });
        }
        drop_empty(Some(container), &["env"]);
    }
}

fn take_ours(members: Option<&mut Value>, part: Part) {
    if let Some(members) = members.and_then(Value::as_object_mut) {
        members.retain(|name, _| !is_ours(part, name));
    }
}

fn drop_empty(object: Option<&mut Value>, members: &[&str]) {
    let Some(object) = object.and_then(Value::as_object_mut) else {
        return;
    };
    object.retain(|name, value| !(members.contains(&name.as_str()) && is_empty(value)));
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

    fn bare(mut template: Value) -> Value {
        without_ours(&mut template);
        template
    }

    #[test]
    fn what_pointsman_writes_and_a_restart_are_no_change_of_the_template() {
        let users = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "server", "image": "a"}]}});
        let mut ours = users.clone();
        ours["metadata"]["annotations"] = json!({"pointsman.dev/model-version": "3", "kubectl.kubernetes.io/restartedAt": "2026-11-23T12:00:00Z"});
        ours["metadata"]["labels"]["pointsman.dev/binding"] = json!("taxi");
        ours["spec"]["containers"][0]["env"] = json!([{"name": "MODEL_URI", "value": "s3://m/3"}]);
        assert_eq!(bare(ours), bare(users));
    }

    #[test]
    fn another_image_or_variable_is_a_change_of_the_template() {
        let users = json!({"spec": {"containers": [{"name": "server", "image": "a"}]}});
        let image = json!({"spec": {"containers": [{"name": "server", "image": "b"}]}});
        let variable = json!({"spec": {"containers": [{"name": "server", "image": "a", "env": [{"name": "PORT", "value": "1"}]}]}});
        assert_ne!(bare(users.clone()), bare(image));
        assert_ne!(bare(users), bare(variable));
    }
}
