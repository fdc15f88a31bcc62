//! The API of users: the three kinds, their conditions and the table of reasons.
//!
//! Absent: clients, the clock and decisions. These types only describe.

pub mod alias_binding;
pub mod availability;
pub mod conditions;
pub mod duration;
pub mod inject;
pub mod model_file;
pub mod model_registry;
pub mod names;
pub mod promotion;
pub mod public_uri;
pub mod reason;
pub mod reference;
pub mod registered_model;
pub mod rollback;
mod schema;
pub mod template;
pub mod version;
pub mod word;

pub use alias_binding::{AliasBinding, AliasBindingSpec, AliasBindingStatus};
pub use availability::Availability;
pub use model_registry::{ModelRegistry, ModelRegistrySpec, ModelRegistryStatus};
pub use reason::Reason;
pub use registered_model::{
    ModelVersion, RegisteredModel, RegisteredModelSpec, RegisteredModelStatus,
};
pub use version::{VersionId, VersionRef};
pub use word::Word;

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

/// The API group of every kind here.
pub const GROUP: &str = "pointsman.dev";

/// The definitions of all three kinds.
#[must_use]
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![
        ModelRegistry::crd(),
        RegisteredModel::crd(),
        AliasBinding::crd(),
    ];
    for definition in &mut definitions {
        for version in &mut definition.spec.versions {
            let validation = version.schema.as_mut();
            if let Some(root) = validation.and_then(|all| all.open_api_v3_schema.as_mut()) {
                forbid_null(root);
            }
        }
    }
    definitions
}

/// Removes `nullable`, which schemars gives every optional field: an absent field is left out, never null.
fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(BTreeMap::values_mut) {
        forbid_null(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        forbid_null(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        forbid_null(values);
    }
}

/// The YAML of a definition, as in crds/.
///
/// # Errors
/// If the definition cannot be written as YAML, which would be a fault of its schema.
pub fn to_yaml(definition: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(definition)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_field_may_be_null() {
        for definition in custom_resource_definitions() {
            let yaml = to_yaml(&definition).expect("as YAML");
            assert!(!yaml.contains("nullable"), "{}", definition.spec.names.kind);
        }
    }

    #[test]
    fn an_object_of_another_release_is_read_and_its_words_are_kept() {
        let entry = json!({
            "version": "1", "outcome": "Paused", "reason": "Blocked9", "trigger": "Schedule",
            "startedAt": "2026-11-23T12:00:00Z", "later": true});
        let binding: AliasBinding = serde_json::from_value(json!({
            "apiVersion": "pointsman.dev/v1alpha9", "kind": "AliasBinding", "metadata": {"name": "taxi"},
            "spec": {
                "modelRef": {"name": "taxi", "later": 1}, "alias": "champion",
                "targetRef": {"name": "server"}, "later": {"approval": "Manual"}},
            "status": {"history": [entry], "later": 1}}))
        .expect("a binding");
        let written = serde_json::to_value(&binding).expect("as JSON");
        let kept = &written["status"]["history"][0];
        assert_eq!(
            [&kept["outcome"], &kept["reason"], &kept["trigger"]],
            ["Paused", "Blocked9", "Schedule"]
        );
    }

    #[test]
    fn no_status_has_a_closed_list_of_words() {
        for definition in custom_resource_definitions() {
            let schema =
                serde_json::to_value(&definition.spec.versions[0].schema).expect("as JSON");
            let status = &schema["openAPIV3Schema"]["properties"]["status"];
            assert!(status.is_object(), "{}", definition.spec.names.kind);
            let text = status.to_string();
            assert!(!text.contains("\"enum\""), "{}", definition.spec.names.kind);
        }
    }
}
