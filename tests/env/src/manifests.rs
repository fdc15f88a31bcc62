//! Reads manifests and applies them unchanged.
//! Absent: templates and waits.

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::Value;

use crate::error::{Context, Error, Result};

/// The cluster-scoped kinds in charts and tests.
const CLUSTER_SCOPED: [&str; 10] = [
    "Namespace",
    "CustomResourceDefinition",
    "ClusterRole",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "ClusterRoleBinding",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
];

/// The objects of a text with any number of YAML documents.
pub fn parse(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| Error::new("reading a manifest", error))?;
    Ok(documents.into_iter().filter(Value::is_object).collect())
}

/// Server-side apply of one object, into `namespace` unless it names its own.
pub async fn apply(
    client: &kube::Client,
    namespace: &str,
    manager: &str,
    object: &Value,
) -> Result<Value> {
    let what = format!(
        "applying {} {}",
        text(object, "/kind"),
        text(object, "/metadata/name")
    );
    let api = api_of(client, namespace, object).map_err(|cause| Error::new(&what, cause))?;
    let applied = api
        .patch(
            text(object, "/metadata/name"),
            &PatchParams::apply(manager).force(),
            &Patch::Apply(object),
        )
        .await
        .context(&what)?;
    serde_json::to_value(applied).context(what)
}

fn api_of(
    client: &kube::Client,
    namespace: &str,
    object: &Value,
) -> Result<Api<DynamicObject>, String> {
    let kind = text(object, "/kind");
    let (group, version) = text(object, "/apiVersion")
        .split_once('/')
        .unwrap_or(("", text(object, "/apiVersion")));
    if kind.is_empty() || version.is_empty() {
        return Err("it has no kind or no apiVersion".to_owned());
    }
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if CLUSTER_SCOPED.contains(&kind) {
        return Ok(Api::all_with(client.clone(), &resource));
    }
    let own = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str);
    Ok(Api::namespaced_with(
        client.clone(),
        own.unwrap_or(namespace),
        &resource,
    ))
}

/// The text at a JSON pointer, or nothing.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The object as YAML without `managedFields`.
pub fn readable(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(metadata) = object
        .pointer_mut("/metadata")
        .and_then(Value::as_object_mut)
    {
        metadata.remove("managedFields");
    }
    serde_saphyr::to_string(&object).unwrap_or_else(|_| object.to_string())
}
