//! The managers of the few fields that Pointsman may write, read from an object's managed fields.
//!
//! Absent: every other field's owner.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::names;

/// A field that Pointsman may write.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum OwnedField {
    /// An annotation of the pod template.
    TemplateAnnotation(String),
    /// A label of the pod template.
    TemplateLabel(String),
    /// An environment variable.
    Env {
        /// The container.
        container: String,
        /// The variable.
        name: String,
    },
}

/// A field manager that wrote a field.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Writer {
    /// Its name.
    pub manager: String,
    /// When it last wrote any field of the object.
    pub at: Option<Timestamp>,
}

/// The managers of each field that Pointsman may write.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct FieldOwners {
    #[serde(with = "pairs")]
    fields: BTreeMap<OwnedField, Vec<Writer>>,
    /// The managers of any field of the pod template, newest last.
    template: Vec<Writer>,
}

/// Serializes the map as a list of pairs, because its keys are not strings.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{OwnedField, Writer};

    type Fields = BTreeMap<OwnedField, Vec<Writer>>;

    pub fn serialize<S: Serializer>(fields: &Fields, serializer: S) -> Result<S::Ok, S::Error> {
        fields.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        Vec::<(OwnedField, Vec<Writer>)>::deserialize(deserializer)
            .map(|pairs| pairs.into_iter().collect())
    }
}

impl FieldOwners {
    /// Reads managed fields; those of the status are left out.
    #[must_use]
    pub fn read(entries: &[ManagedFieldsEntry]) -> Self {
        let mut owners = Self::default();
        for entry in entries.iter().filter(|entry| entry.subresource.is_none()) {
            owners.read_entry(entry);
        }
        owners.template.sort_by_key(|writer| writer.at);
        owners
    }

    fn read_entry(&mut self, entry: &ManagedFieldsEntry) {
        let writer = Writer {
            manager: entry.manager.clone().unwrap_or_default(),
            at: entry.time.as_ref().map(|time| time.0),
        };
        let Some(template) = entry
            .fields_v1
            .as_ref()
            .and_then(|fields| fields.0.pointer("/f:spec/f:template"))
        else {
            return;
        };
        self.template.push(writer.clone());
        for name in keys(template.pointer("/f:metadata/f:annotations"), "f:") {
            self.add(OwnedField::TemplateAnnotation(name), &writer);
        }
        for name in keys(template.pointer("/f:metadata/f:labels"), "f:") {
            self.add(OwnedField::TemplateLabel(name), &writer);
        }
        let containers = template
            .pointer("/f:spec/f:containers")
            .and_then(Value::as_object);
        for (key, fields) in containers.into_iter().flatten() {
            let Some(container) = list_key(key) else {
                continue;
            };
            for name in env_names(fields) {
                self.add(
                    OwnedField::Env {
                        container: container.clone(),
                        name,
                    },
                    &writer,
                );
            }
        }
    }

    fn add(&mut self, field: OwnedField, writer: &Writer) {
        let ours = match &field {
            OwnedField::TemplateAnnotation(name) => name == names::VERSION_ANNOTATION,
            OwnedField::TemplateLabel(name) => name == names::BINDING_LABEL,
            OwnedField::Env { name, .. } => {
                name.starts_with("MODEL_") || name.starts_with("MLFLOW_")
            }
        };
        if ours {
            self.fields.entry(field).or_default().push(writer.clone());
        }
    }

    /// The writers of a field.
    #[must_use]
    pub fn of(&self, field: &OwnedField) -> &[Writer] {
        self.fields.get(field).map_or(&[], Vec::as_slice)
    }

    /// Whether Pointsman is among a field's writers.
    #[must_use]
    pub fn is_ours(&self, field: &OwnedField) -> bool {
        self.of(field)
            .iter()
            .any(|writer| writer.manager == names::FIELD_MANAGER)
    }

    /// The managers of the version annotation, if Pointsman is not one of them.
    #[must_use]
    pub fn foreign_version_writers(&self) -> &[Writer] {
        let field = OwnedField::TemplateAnnotation(names::VERSION_ANNOTATION.to_owned());
        if self.is_ours(&field) {
            &[]
        } else {
            self.of(&field)
        }
    }

    /// The last manager that wrote any field of the pod template.
    #[must_use]
    pub fn last_template_writer(&self) -> Option<&Writer> {
        self.template.last()
    }

    /// When Pointsman last changed the pod template.
    #[must_use]
    pub fn our_last_write(&self) -> Option<Timestamp> {
        self.template
            .iter()
            .find(|writer| writer.manager == names::FIELD_MANAGER)
            .and_then(|writer| writer.at)
    }
}

fn keys(fields: Option<&Value>, prefix: &str) -> Vec<String> {
    let fields = fields.and_then(Value::as_object);
    fields
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix(prefix).map(str::to_owned))
        .collect()
}

/// `k:{"name":"server"}` → `server`.
fn list_key(key: &str) -> Option<String> {
    let parsed: Value = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
    parsed.get("name")?.as_str().map(str::to_owned)
}

fn env_names(container: &Value) -> Vec<String> {
    let env = container.get("f:env").and_then(Value::as_object);
    env.into_iter()
        .flatten()
        .filter_map(|(key, _)| list_key(key))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(manager: &str, fields: Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({
            "manager": manager, "operation": "Update", "time": "2026-11-23T08:00:00Z",
            "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields,
        }))
        .expect("an entry")
    }

    #[test]
    fn writers_of_our_variables_are_found_and_others_are_left_out() {
        let owners = FieldOwners::read(&[entry(
            "kubectl",
            json!({"f:spec": {"f:template": {
                "f:metadata": {"f:annotations": {"f:pointsman.dev/model-version": {}, "f:other": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"server\"}": {"f:env": {
                    "k:{\"name\":\"MODEL_URI\"}": {"f:value": {}}, "k:{\"name\":\"PORT\"}": {"f:value": {}}}}}}}}}),
        )]);
        let env = |name: &str| OwnedField::Env {
            container: "server".into(),
            name: name.into(),
        };
        assert_eq!(owners.of(&env("MODEL_URI"))[0].manager, "kubectl");
        assert!(owners.of(&env("PORT")).is_empty());
        assert!(!owners.is_ours(&OwnedField::TemplateAnnotation(
            names::VERSION_ANNOTATION.into()
        )));
        assert_eq!(owners.fields.len(), 2);
    }
}
