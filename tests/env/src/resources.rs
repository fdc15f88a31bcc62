//! The three custom resources as tests and benchmarks declare them, each with the usual fields, to be changed by [`with_spec`].
//! Absent: the operator's types; a test writes JSON, as a user writes YAML.

use serde_json::{Value, json};

use crate::kinds::{ALIAS_BINDING, Kind, MODEL_REGISTRY, REGISTERED_MODEL};

/// The name of the registry that [`registered_model`] refers to.
pub const REGISTRY: &str = "mlflow";

/// An object of a kind.
pub fn object(kind: &Kind, name: &str, spec: &Value) -> Value {
    let api_version = kind.resource().api_version;
    json!({"apiVersion": api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec})
}

/// A `ModelRegistry`, polled every second.
pub fn model_registry(uri: &str) -> Value {
    let spec = json!({"mlflow": {"uri": uri}, "interval": "1s"});
    object(&MODEL_REGISTRY, REGISTRY, &spec)
}

/// A `RegisteredModel` that only observes the model of this name.
pub fn registered_model(name: &str, model: &str) -> Value {
    let spec =
        json!({"registryRef": {"name": REGISTRY}, "modelName": model, "creationPolicy": "Observe"});
    object(&REGISTERED_MODEL, name, &spec)
}

/// An `AliasBinding` of `champion` to the Deployment of this name, without baking, which would slow most tests down.
pub fn alias_binding(name: &str, model: &str, deployment: &str) -> Value {
    let spec = json!({
        "modelRef": {"name": model},
        "alias": "champion",
        "targetRef": {"name": deployment},
        "rollback": {"bakeSeconds": 0},
    });
    object(&ALIAS_BINDING, name, &spec)
}

/// The object with these members of its spec set; null removes a member.
#[must_use]
pub fn with_spec(mut object: Value, members: Value) -> Value {
    merge(&mut object["spec"], members);
    object
}

/// Sets members of an object; null removes a member.
pub fn merge(base: &mut Value, members: Value) {
    let Value::Object(members) = members else {
        return;
    };
    for (key, value) in members {
        if !value.is_null() {
            base[key] = value;
        } else if let Some(base) = base.as_object_mut() {
            base.remove(&key);
        }
    }
}
