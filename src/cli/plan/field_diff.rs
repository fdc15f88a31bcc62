//! The difference that a patch makes to a workload, field by field.
//!
//! Absent: fields that the patch leaves alone, and lists whose elements have other keys than `name`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::api::names;
use crate::api::public_uri::without_secrets;

/// Members of an object that name it or belong to the API server.
const NOT_FIELDS: [&str; 8] = [
    "apiVersion",
    "kind",
    "status",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.name",
    "metadata.namespace",
    "metadata.resourceVersion",
];

/// A field that a patch sets, changes or removes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FieldChange {
    /// Its path, with the names of list elements and annotations in brackets.
    pub field: String,
    /// Its value now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Its value after the patch; `None` if it is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// The fields with a value, by their paths.
type Leaves = BTreeMap<String, String>;

/// The fields that a patch changes: a server-side apply as an object, or the operations of a JSON patch.
///
/// # Errors
/// If the operations do not fit the workload, which has changed then since it was read.
pub fn changes(
    workload: Option<&Value>,
    patch: &Value,
) -> Result<Vec<FieldChange>, json_patch::PatchError> {
    let mut whole = workload.cloned().unwrap_or_default();
    let before = leaves(&whole, true);
    let (after, mut fields): (Leaves, BTreeSet<String>) =
        if let Some(operations) = operations(patch) {
            json_patch::patch(&mut whole, &operations)?;
            let after = leaves(&whole, true);
            let fields = before.keys().chain(after.keys()).cloned().collect();
            (after, fields)
        } else {
            let after = leaves(patch, false);
            let fields = after.keys().cloned().collect();
            (after, fields)
        };
    if patch.is_object() {
        // Server-side apply removes what its manager owned alone and does not name any more.
        fields.extend(owned_alone(&whole));
    }
    let change = |field: String| {
        let (before, after) = (before.get(&field), after.get(&field));
        (before != after).then(|| FieldChange {
            before: before.cloned(),
            after: after.cloned(),
            field,
        })
    };
    Ok(fields.into_iter().filter_map(change).collect())
}

fn operations(patch: &Value) -> Option<json_patch::Patch> {
    let operations = patch.is_array().then(|| patch.clone())?;
    serde_json::from_value(operations).ok()
}

/// The leaves of an object. In one that the API server stored, a variable without a value has an empty one.
fn leaves(object: &Value, is_stored: bool) -> Leaves {
    let mut leaves = Leaves::new();
    collect("", object, is_stored, &mut leaves);
    leaves
}

fn collect(path: &str, value: &Value, is_stored: bool, leaves: &mut Leaves) {
    if NOT_FIELDS.contains(&path) {
        return;
    }
    match value {
        Value::Null => {}
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                collect(&member_path(path, name), member, is_stored, leaves);
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for (index, element) in elements.iter().enumerate() {
                collect_element(path, index, element, is_stored, leaves);
            }
        }
        Value::String(text) => {
            leaves.insert(path.to_owned(), without_secrets(text).into_owned());
        }
        other => {
            leaves.insert(path.to_owned(), other.to_string());
        }
    }
}

/// An element of a list, by its name if it has one. A variable with a value is one field.
fn collect_element(
    list: &str,
    index: usize,
    element: &Value,
    is_stored: bool,
    leaves: &mut Leaves,
) {
    let Some(name) = element["name"].as_str() else {
        collect(&format!("{list}[{index}]"), element, is_stored, leaves);
        return;
    };
    let path = format!("{list}[{name}]");
    let members = element.as_object();
    let is_variable = list.rsplit('.').next() == Some("env");
    if is_stored && is_variable && members.is_some_and(|members| members.len() == 1) {
        leaves.insert(path, String::new());
        return;
    }
    for (member, value) in members.into_iter().flatten() {
        match member.as_str() {
            "name" => {}
            "value" => collect(&path, value, is_stored, leaves),
            _ => collect(&member_path(&path, member), value, is_stored, leaves),
        }
    }
}

fn member_path(path: &str, name: &str) -> String {
    if name.contains(['.', '/']) {
        format!("{path}[{name}]")
    } else if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The fields that Pointsman owns and nobody else.
fn owned_alone(workload: &Value) -> BTreeSet<String> {
    let (mut own, mut others) = (BTreeSet::new(), BTreeSet::new());
    let entries = workload.pointer("/metadata/managedFields");
    let entries = entries.and_then(Value::as_array).into_iter().flatten();
    for entry in entries.filter(|entry| entry.get("subresource").is_none()) {
        let is_ours = entry["manager"] == names::FIELD_MANAGER;
        let fields = if is_ours { &mut own } else { &mut others };
        collect_owned("", &entry["fieldsV1"], fields);
    }
    own.difference(&others).cloned().collect()
}

/// The paths of managed fields.
fn collect_owned(path: &str, fields: &Value, owned: &mut BTreeSet<String>) {
    let Some(members) = fields.as_object().filter(|members| !members.is_empty()) else {
        owned.insert(path.to_owned());
        return;
    };
    for (key, member) in members {
        if let Some(name) = key.strip_prefix("f:") {
            match name {
                "name" => {}
                "value" => collect_owned(path, member, owned),
                _ => collect_owned(&member_path(path, name), member, owned),
            }
        } else if let Some(element) = key.strip_prefix("k:") {
            let element: Value = serde_json::from_str(element).unwrap_or_default();
            if let Some(name) = element["name"].as_str() {
                collect_owned(&format!("{path}[{name}]"), member, owned);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(field: &str, before: Option<&str>, after: Option<&str>) -> FieldChange {
        FieldChange {
            field: field.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        }
    }

    fn workload(env: &Value) -> Value {
        let owned = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"server\"}": {
            ".": {}, "f:name": {}, "f:env": {
                "k:{\"name\":\"MODEL_VERSION\"}": {".": {}, "f:name": {}, "f:value": {}},
                "k:{\"name\":\"OLD\"}": {".": {}, "f:name": {}, "f:value": {}},
                "k:{\"name\":\"SHARED\"}": {".": {}, "f:name": {}, "f:value": {}}}}}}}}});
        let shared = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"server\"}": {
            "f:env": {"k:{\"name\":\"SHARED\"}": {".": {}, "f:name": {}, "f:value": {}}}}}}}}});
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "server", "resourceVersion": "7", "managedFields": [
                {"manager": "pointsman", "operation": "Apply", "fieldsV1": owned},
                {"manager": "kubectl", "operation": "Update", "fieldsV1": shared}]},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [
                {"name": "sidecar", "image": "b"}, {"name": "server", "image": "a", "env": env}]}}}})
    }

    fn apply(env: &Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "server", "resourceVersion": "7"},
            "spec": {"template": {"spec": {"containers": [{"name": "server", "env": env}]}}}})
    }

    #[test]
    fn a_variable_whose_empty_value_the_api_server_left_out_is_no_change() {
        let before = workload(&json!([{"name": "MODEL_RUN_ID"}]));
        let patch = apply(&json!([{"name": "MODEL_RUN_ID", "value": ""}]));
        let changes = changes(Some(&before), &patch).unwrap();
        let found = changes
            .iter()
            .find(|change| change.field.contains("MODEL_RUN_ID"));
        assert_eq!(found, None);
    }

    #[test]
    fn only_fields_that_the_patch_names_are_compared_and_list_elements_by_their_names() {
        let workload = workload(
            &json!([{"name": "USERS", "value": "1"}, {"name": "MODEL_VERSION", "value": "1"}]),
        );
        let patch = apply(
            &json!([{"name": "MODEL_VERSION", "value": "2"}, {"name": "MODEL_NAME", "value": "taxi"}, {"name": "USERS"}]),
        );
        let found = changes(Some(&workload), &patch).expect("an apply");
        let env = |name: &str| format!("spec.template.spec.containers[server].env[{name}]");
        assert_eq!(
            found,
            [
                change(&env("MODEL_NAME"), None, Some("taxi")),
                change(&env("MODEL_VERSION"), Some("1"), Some("2")),
            ]
        );
    }

    #[test]
    fn a_field_that_only_pointsman_owned_and_names_no_more_is_removed() {
        let env = json!([{"name": "MODEL_VERSION", "value": "2"}, {"name": "OLD", "value": "x"}, {"name": "SHARED", "value": "y"}]);
        let patch = apply(&json!([{"name": "MODEL_VERSION", "value": "2"}]));
        let found = changes(Some(&workload(&env)), &patch).expect("an apply");
        let old = "spec.template.spec.containers[server].env[OLD]";
        assert_eq!(found, [change(old, Some("x"), None)]);
    }

    #[test]
    fn the_operations_of_a_json_patch_are_carried_out_on_a_copy() {
        let workload = json!({"metadata": {"name": "r", "resourceVersion": "7"}, "spec": {"template": {"metadata": {"annotations": {"a": "1"}}}}});
        let patch = json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/spec/template/metadata/annotations/pointsman.dev~1model-version", "value": "2"}]);
        let found = changes(Some(&workload), &patch).expect("operations");
        let field = "spec.template.metadata.annotations[pointsman.dev/model-version]";
        assert_eq!(found, [change(field, None, Some("2"))]);
        assert!(changes(None, &patch).is_err(), "there is nothing to patch");
    }

    #[test]
    fn a_signature_in_a_uri_is_neither_shown_nor_a_difference() {
        let signed = json!([{"name": "MODEL_VERSION", "value": "2"}, {"name": "MODEL_URI", "value": "https://host/m?sig=hunter2"}]);
        let plain = json!([{"name": "MODEL_VERSION", "value": "2"}, {"name": "MODEL_URI", "value": "https://host/m"}]);
        let same = changes(Some(&workload(&signed)), &apply(&plain)).expect("an apply");
        assert_eq!(same, []);
        let other = json!([{"name": "MODEL_VERSION", "value": "2"}, {"name": "MODEL_URI", "value": "https://host/n"}]);
        let found = changes(Some(&workload(&signed)), &apply(&other)).expect("an apply");
        assert!(found.len() == 1 && !format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn a_workload_that_does_not_exist_yet_is_all_new() {
        let found = changes(None, &apply(&json!([{"name": "A", "value": "1"}]))).expect("an apply");
        let field = "spec.template.spec.containers[server].env[A]";
        assert_eq!(found, [change(field, None, Some("1"))]);
    }
}
