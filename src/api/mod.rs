//! What users write and read: the three kinds, their conditions and the one list of reasons.
//!
//! Absent: any client, clock or decision. These types only describe.

pub mod alias_binding;
pub mod conditions;
pub mod model_registry;
pub mod names;
pub mod reason;
pub mod registered_model;
pub mod rollback;
mod schema;

pub use alias_binding::{AliasBinding, AliasBindingSpec, AliasBindingStatus};
pub use model_registry::{ModelRegistry, ModelRegistrySpec, ModelRegistryStatus};
pub use reason::Reason;
pub use registered_model::{
    ModelVersion, RegisteredModel, RegisteredModelSpec, RegisteredModelStatus,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of every kind here.
pub const GROUP: &str = "pointsman.dev";

/// The definitions of all three kinds, in the order in which a reader meets them.
#[must_use]
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    vec![
        ModelRegistry::crd(),
        RegisteredModel::crd(),
        AliasBinding::crd(),
    ]
}

/// A definition as YAML, as it stands in crds/.
///
/// # Errors
/// Where the definition cannot be written as YAML, which would be a fault of its schema.
pub fn to_yaml(definition: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(definition)
}
