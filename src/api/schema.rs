//! Parts of the schema that Rust types cannot express: list types and opaque objects.
//!
//! Absent: descriptions. The fields carry them.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// A Deployment's or Job's `spec`. The API server validates it when it is applied, so every field that the cluster knows is kept.
pub fn opaque(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// The standard conditions, one of each type.
pub fn conditions(generator: &mut SchemaGenerator) -> Schema {
    keyed::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>(generator, "type")
}

/// Aliases, one of each name.
pub fn declared_aliases(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = keyed::<super::registered_model::DeclaredAlias>(generator, "name");
    schema.insert("maxItems".into(), json!(100));
    schema
}

/// Mirrored aliases, one of each name.
pub fn mirrored_aliases(generator: &mut SchemaGenerator) -> Schema {
    keyed::<super::registered_model::MirroredAlias>(generator, "name")
}

/// Mirrored stages, one of each name.
pub fn mirrored_stages(generator: &mut SchemaGenerator) -> Schema {
    keyed::<super::registered_model::MirroredStage>(generator, "name")
}

/// Mirrored versions, one of each number.
pub fn mirrored_versions(generator: &mut SchemaGenerator) -> Schema {
    keyed::<super::registered_model::ModelVersion>(generator, "version")
}

/// Container names, each once.
pub fn container_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 20, "x-kubernetes-list-type": "set",
        "items": {"type": "string", "minLength": 1, "maxLength": 63},
    })
}

/// The history: newest first, replaced as a whole.
pub fn history(generator: &mut SchemaGenerator) -> Schema {
    atomic::<super::alias_binding::HistoryEntry>(generator)
}

/// Data sets of a version, replaced as a whole.
pub fn datasets(generator: &mut SchemaGenerator) -> Schema {
    atomic::<super::registered_model::Dataset>(generator)
}

/// The versions that are held back, replaced as a whole.
pub fn failed_versions(generator: &mut SchemaGenerator) -> Schema {
    atomic::<super::rollback::FailedVersion>(generator)
}

/// Words, each once.
pub fn words(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}})
}

fn atomic<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let items = generator.subschema_for::<T>();
    json_schema!({"type": "array", "x-kubernetes-list-type": "atomic", "items": items})
}

/// A label selector, replaced as a whole.
pub fn label_selector(generator: &mut SchemaGenerator) -> Schema {
    let mut schema =
        generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>();
    schema.insert("x-kubernetes-map-type".into(), json!("atomic"));
    schema
}

fn keyed<T: schemars::JsonSchema>(generator: &mut SchemaGenerator, key: &str) -> Schema {
    let items = generator.subschema_for::<T>();
    let mut schema =
        json_schema!({"type": "array", "x-kubernetes-list-type": "map", "items": items});
    schema.insert(
        "x-kubernetes-list-map-keys".into(),
        Value::Array(vec![json!(key)]),
    );
    schema
}
