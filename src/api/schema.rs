//! Parts of the schema that Rust types cannot express: list types and opaque objects.
//!
//! Absent: descriptions. The fields carry them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// A Deployment's or Job's `spec`. The API server validates it when it is applied, so every field that the cluster knows is kept.
pub fn opaque(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A list with one item for each `type`.
pub fn keyed_by_type<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    keyed::<T>(generator, "type")
}

/// A list with one item for each `name`.
pub fn keyed_by_name<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    keyed::<T>(generator, "name")
}

/// A list with one item for each `version`.
pub fn keyed_by_version<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    keyed::<T>(generator, "version")
}

/// Container names, each once.
pub fn container_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 20, "x-kubernetes-list-type": "set",
        "items": {"type": "string", "minLength": 1, "maxLength": 63},
    })
}

/// Environment variables, one for each `name`.
pub fn variables<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = keyed_by_name::<T>(generator);
    schema.insert("minItems".into(), json!(1));
    schema.insert("maxItems".into(), json!(16));
    schema
}

/// Windows in which versions go forward.
pub fn windows<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = atomic::<T>(generator);
    schema.insert("maxItems".into(), json!(16));
    schema
}

/// Fields, one for each `path`.
pub fn fields<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = keyed::<T>(generator, "path");
    schema.insert("minItems".into(), json!(1));
    schema.insert("maxItems".into(), json!(16));
    schema
}

/// Words, each once.
pub fn words(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}})
}

/// A list that is replaced as a whole.
pub fn atomic<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
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

fn keyed<T: JsonSchema>(generator: &mut SchemaGenerator, key: &str) -> Schema {
    let items = generator.subschema_for::<T>();
    let mut schema =
        json_schema!({"type": "array", "x-kubernetes-list-type": "map", "items": items});
    schema.insert(
        "x-kubernetes-list-map-keys".into(),
        Value::Array(vec![json!(key)]),
    );
    schema
}
