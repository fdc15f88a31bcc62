//! The managers of the few fields that Pointsman may write, read from an object's managed fields.
//!
//! Absent: every other field's owner.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::names;

/// The places of a pod template in managed fields: in a workload, and in a CronJob.
const TEMPLATES: [&str; 2] = [
    "/f:spec/f:template",
    "/f:spec/f:jobTemplate/f:spec/f:template",
];

/// A field that Pointsman may write.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum OwnedField {
    /// The change cause in `kubectl rollout history`.
    ChangeCause,
    /// The number of pods.
    Replicas,
    /// The label that names who brought the version back.
    RestoredBy,
    /// An annotation of the pod template.
    TemplateAnnotation(String),
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
    /// The manager that set `status.abort`, if it is not the workload's own controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aborted_by: Option<String>,
    /// The manager that brought the version back, if Pointsman owns the version's fields only to keep them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restored_by: Option<Writer>,
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
    /// Reads managed fields; of the status only who aborted a rollout. `restored_by` is the value of the label of this name.
    #[must_use]
    pub fn read(entries: &[ManagedFieldsEntry], restored_by: Option<&str>) -> Self {
        let mut owners = Self::default();
        for entry in entries.iter().filter(|entry| entry.subresource.is_none()) {
            owners.read_entry(entry);
        }
        owners.template.sort_by_key(|writer| writer.at);
        owners.aborted_by = aborted_by(entries);
        if owners.is_ours(&OwnedField::RestoredBy) {
            owners.restored_by = restored_by.map(|manager| Writer {
                manager: manager.to_owned(),
                at: None,
            });
        }
        owners
    }

    /// Reads the managed fields of an object without a pod template: its own annotations tell the version.
    #[must_use]
    pub fn of_object(entries: &[ManagedFieldsEntry]) -> Self {
        let mut owners = Self::default();
        for entry in entries.iter().filter(|entry| entry.subresource.is_none()) {
            let writer = writer(entry);
            let Some(fields) = entry.fields_v1.as_ref().map(|fields| &fields.0) else {
                continue;
            };
            for name in keys(fields.pointer("/f:metadata/f:annotations"), "f:") {
                owners.add(OwnedField::TemplateAnnotation(name), &writer);
            }
            if fields.get("f:spec").is_some() {
                owners.template.push(writer);
            }
        }
        owners.template.sort_by_key(|writer| writer.at);
        owners
    }

    fn read_entry(&mut self, entry: &ManagedFieldsEntry) {
        let writer = writer(entry);
        let Some(fields) = entry.fields_v1.as_ref().map(|fields| &fields.0) else {
            return;
        };
        let annotations = keys(fields.pointer("/f:metadata/f:annotations"), "f:");
        if annotations
            .iter()
            .any(|name| name == names::CHANGE_CAUSE_ANNOTATION)
        {
            self.add(OwnedField::ChangeCause, &writer);
        }
        let labels = keys(fields.pointer("/f:metadata/f:labels"), "f:");
        if labels.iter().any(|name| name == names::RESTORED_BY_LABEL) {
            self.add(OwnedField::RestoredBy, &writer);
        }
        if fields.pointer("/f:spec/f:replicas").is_some() {
            self.add(OwnedField::Replicas, &writer);
        }
        for path in TEMPLATES {
            if let Some(template) = fields.pointer(path) {
                self.read_template(template, &writer);
            }
        }
    }

    fn read_template(&mut self, template: &Value, writer: &Writer) {
        self.template.push(writer.clone());
        for name in keys(template.pointer("/f:metadata/f:annotations"), "f:") {
            self.add(OwnedField::TemplateAnnotation(name), writer);
        }
        for list in ["/f:spec/f:containers", "/f:spec/f:initContainers"] {
            let containers = template.pointer(list).and_then(Value::as_object);
            for (key, fields) in containers.into_iter().flatten() {
                let Some(container) = list_key(key) else {
                    continue;
                };
                for name in env_names(fields) {
                    let container = container.clone();
                    self.add(OwnedField::Env { container, name }, writer);
                }
            }
        }
    }

    fn add(&mut self, field: OwnedField, writer: &Writer) {
        // Any variable may be one of ours: `spec.inject.variables` chooses the names.
        let may_be_ours = match &field {
            OwnedField::TemplateAnnotation(name) => name == names::VERSION_ANNOTATION,
            OwnedField::ChangeCause
            | OwnedField::Replicas
            | OwnedField::RestoredBy
            | OwnedField::Env { .. } => true,
        };
        if may_be_ours {
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

    /// The managers of the version annotation, if Pointsman is not one of them or owns it only to keep it as they left it.
    #[must_use]
    pub fn foreign_version_writers(&self) -> &[Writer] {
        if self.is_version_ours() {
            self.restored_by.as_slice()
        } else {
            self.of(&version_field())
        }
    }

    /// Whether Pointsman is among the managers of the version annotation.
    #[must_use]
    pub fn is_version_ours(&self) -> bool {
        self.is_ours(&version_field())
    }

    /// Whether all writers of a field also wrote the version annotation: they brought a template of ours back, as
    /// `kubectl rollout undo` does.
    #[must_use]
    pub fn came_back(&self, field: &OwnedField) -> bool {
        let brought_back = self.foreign_version_writers();
        let writers = self.of(field);
        !writers.is_empty()
            && writers.iter().all(|writer| {
                let managers = brought_back.iter().map(|each| &each.manager);
                managers
                    .into_iter()
                    .any(|manager| *manager == writer.manager)
            })
    }

    /// Sets the writers of an environment variable, for a kind whose managed fields do not tell them.
    pub(super) fn set_variable(&mut self, container: &str, name: &str, writers: Vec<Writer>) {
        let field = OwnedField::Env {
            container: container.to_owned(),
            name: name.to_owned(),
        };
        self.fields.insert(field, writers);
    }

    /// The person or program other than the workload's own controller that aborted the rollout.
    #[must_use]
    pub fn aborted_by(&self) -> Option<&str> {
        self.aborted_by.as_deref()
    }

    /// The last manager other than Pointsman that wrote any field of the pod template.
    pub(super) fn last_other_writer(&self) -> Option<&Writer> {
        let mut writers = self.template.iter().rev();
        writers.find(|writer| writer.manager != names::FIELD_MANAGER)
    }

    /// The environment variables that Pointsman wrote: container, name, and whether another manager wrote it too.
    pub(super) fn our_variables(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        self.fields.iter().filter_map(|(field, writers)| {
            let OwnedField::Env { container, name } = field else {
                return None;
            };
            self.is_ours(field)
                .then_some((container.as_str(), name.as_str(), writers.len() > 1))
        })
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

fn version_field() -> OwnedField {
    OwnedField::TemplateAnnotation(names::VERSION_ANNOTATION.to_owned())
}

fn writer(entry: &ManagedFieldsEntry) -> Writer {
    Writer {
        manager: entry.manager.clone().unwrap_or_default(),
        at: entry.time.as_ref().map(|time| time.0),
    }
}

/// The manager of `status.abort`, unless it is the one that reports which generation it observed.
fn aborted_by(entries: &[ManagedFieldsEntry]) -> Option<String> {
    let mut controllers = managers_of(entries, "/f:status/f:observedGeneration");
    let controller = controllers.next()?;
    let mut aborters = managers_of(entries, "/f:status/f:abort");
    aborters.find(|manager| *manager != controller)?.clone()
}

fn managers_of<'a>(
    entries: &'a [ManagedFieldsEntry],
    field: &'a str,
) -> impl Iterator<Item = &'a Option<String>> {
    let owns = move |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| fields.0.pointer(field).is_some())
    };
    entries.iter().filter(owns).map(|entry| &entry.manager)
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
    fn writers_of_variables_and_of_our_annotations_are_found() {
        let fields = json!({"f:spec": {"f:template": {
            "f:metadata": {"f:annotations": {"f:pointsman.dev/model-version": {}, "f:other": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"server\"}": {"f:env": {
                "k:{\"name\":\"MODEL_URI\"}": {"f:value": {}}, "k:{\"name\":\"PORT\"}": {"f:value": {}}}}}}}}});
        let owners = FieldOwners::read(&[entry("kubectl", fields)], None);
        let env = |name: &str| OwnedField::Env {
            container: "server".into(),
            name: name.into(),
        };
        assert_eq!(owners.of(&env("MODEL_URI"))[0].manager, "kubectl");
        assert_eq!(owners.of(&env("PORT"))[0].manager, "kubectl");
        assert!(!owners.is_ours(&OwnedField::TemplateAnnotation(
            names::VERSION_ANNOTATION.into()
        )));
        assert_eq!(owners.fields.len(), 3, "another annotation is left out");
    }

    #[test]
    fn a_version_that_is_only_kept_is_still_that_of_the_person_who_brought_it_back() {
        let version = json!({"f:template": {"f:metadata": {"f:annotations": {
            "f:pointsman.dev/model-version": {}}}}});
        let label = json!({"f:labels": {"f:pointsman.dev/restored-by": {}}});
        let kept = entry(
            names::FIELD_MANAGER,
            json!({"f:metadata": label, "f:spec": version}),
        );
        let written = entry(names::FIELD_MANAGER, json!({"f:spec": version}));
        let labelled = entry("somebody", json!({"f:metadata": label}));
        let restorer = |entries: &[ManagedFieldsEntry]| {
            let owners = FieldOwners::read(entries, Some("kubectl-rollout"));
            assert!(owners.is_version_ours());
            let writers = owners.foreign_version_writers();
            writers.first().map(|writer| writer.manager.clone())
        };
        assert_eq!(restorer(&[kept]).as_deref(), Some("kubectl-rollout"));
        assert_eq!(
            restorer(&[written, labelled]),
            None,
            "not Pointsman's label"
        );
    }
}
