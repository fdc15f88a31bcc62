//! The API of users: the three kinds, their conditions and the table of reasons.
//!
//! Absent: clients, the clock and decisions. These types only describe.

pub mod alias_binding;
pub mod availability;
pub mod conditions;
pub mod model_registry;
pub mod names;
pub mod reason;
pub mod registered_model;
pub mod rollback;
mod schema;
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
    use super::*;

    #[test]
    fn no_field_may_be_null() {
        for definition in custom_resource_definitions() {
            let yaml = to_yaml(&definition).expect("as YAML");
            assert!(!yaml.contains("nullable"), "{}", definition.spec.names.kind);
        }
    }
}
