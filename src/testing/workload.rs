//! Workloads as the API server has them: applied by a user, then by Pointsman, then changed by people.
//!
//! Absent: a list of the injected fields. A version is written by the real patch.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{NOW, TRACKING_URI, With};
use crate::api::{AliasBinding, VersionRef, names};
use crate::targets::{Adapter, DesiredVersion, Injection, Target, Workload, patch};

/// The field manager of the user's own template.
const USER: &str = "kubectl-client-side-apply";
/// The variables whose values differ between versions.
const OF_VERSION: [&str; 4] = [
    "MODEL_VERSION",
    "MODEL_URI",
    "MODEL_RUN_ID",
    "MLFLOW_MODEL_URI",
];

/// A workload with the managers of its fields.
#[derive(Clone, Debug)]
pub struct WorkloadFixture {
    whole: Value,
    /// Each manager with its fields below `spec`, in the format of managed fields.
    managers: Vec<(String, Value)>,
    /// The same of the status, with all their fields.
    status_managers: Vec<(String, Value)>,
    written_at: String,
}

/// The Deployment `server` with a container of that name, as a user applied it; its one replica is available.
#[must_use]
pub fn deployment() -> WorkloadFixture {
    WorkloadFixture::applied(&json!({
        "metadata": {"name": "server", "namespace": "ml", "uid": "d", "resourceVersion": "1", "generation": 2},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "server", "image": "a"}]}}},
        "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}))
}

impl WorkloadFixture {
    /// A workload as a user applied it.
    #[must_use]
    pub fn applied(whole: &Value) -> Self {
        Self::created_by(USER, whole)
    }

    /// A workload that Pointsman created with a patch.
    #[must_use]
    pub fn created(patch: &Value) -> Self {
        Self::created_by(names::FIELD_MANAGER, patch)
    }

    fn created_by(manager: &str, whole: &Value) -> Self {
        Self {
            whole: whole.clone(),
            managers: vec![(manager.to_owned(), fields(&whole["spec"]))],
            status_managers: Vec::new(),
            written_at: NOW.to_owned(),
        }
    }

    /// The workload after somebody changed fields, without a trace in the managed fields.
    #[must_use]
    pub fn changed(mut self, change: &Value) -> Self {
        merge(&mut self.whole, change);
        self
    }

    /// The workload after a user applied more fields of its spec.
    #[must_use]
    pub fn user_applied(mut self, change: &Value) -> Self {
        merge(&mut self.whole, change);
        self.owns(USER, fields(&change["spec"]));
        self
    }

    /// The workload after Pointsman applied a patch.
    #[must_use]
    pub fn patched(mut self, patch: &Value) -> Self {
        if let Some(operations) = patch.as_array() {
            return self.operated(operations);
        }
        merge(&mut self.whole, patch);
        self.owns(names::FIELD_MANAGER, fields(&patch["spec"]));
        self
    }

    /// The workload after the operations of a JSON patch. Managed fields do not tell containers apart in such a kind.
    fn operated(mut self, operations: &[Value]) -> Self {
        for operation in operations {
            let path = operation["path"].as_str().unwrap_or_default();
            let (parent, name) = path.rsplit_once('/').unwrap_or_default();
            let name = name.replace("~1", "/").replace("~0", "~");
            let parent = self.whole.pointer_mut(parent).expect("the parent is there");
            parent[&name] = operation["value"].clone();
        }
        let metadata = &self.whole["spec"]["template"]["metadata"];
        let ours = |(name, _): &(&String, &Value)| name.starts_with("pointsman.dev/");
        let annotations = metadata["annotations"].as_object();
        let annotations: Map<String, Value> = annotations
            .into_iter()
            .flatten()
            .filter(ours)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let written = json!({"template": {"metadata": {"annotations": annotations}}});
        self.owns(names::FIELD_MANAGER, fields(&written));
        self
    }

    /// The workload with a manager of fields of its status, in the format of managed fields.
    #[must_use]
    pub fn status_owned_by(mut self, manager: &str, fields: &Value) -> Self {
        self.status_managers
            .push((manager.to_owned(), fields.clone()));
        self
    }

    /// The workload after Pointsman wrote a version into it, with the fewest fields also for a binding with a template.
    ///
    /// # Panics
    /// If the workload lacks a container that the binding chooses.
    #[must_use]
    pub fn holding(self, binding: &AliasBinding, version: &VersionRef) -> Self {
        self.holding_in::<k8s_openapi::api::apps::v1::Deployment>(binding, version)
    }

    /// The same of a workload of kind `K`.
    ///
    /// # Panics
    /// If the workload lacks a container that the binding chooses.
    #[must_use]
    pub fn holding_in<K: Adapter>(self, binding: &AliasBinding, version: &VersionRef) -> Self {
        let target = self.target_of::<K>();
        let desired = DesiredVersion {
            version: VersionRef {
                tracking_uri: version
                    .tracking_uri
                    .clone()
                    .or_else(|| Some(TRACKING_URI.to_owned())),
                ..version.clone()
            },
        };
        let fewest = binding.clone().with(|binding| binding.spec.template = None);
        let injection = Injection::of(&fewest, Some(&target), &desired);
        let injection = injection.expect("the chosen containers are there");
        let patch = patch(&fewest, Some(&target), &injection);
        self.patched(&patch.expect("there is a workload"))
    }

    /// The workload after a person brought the version that it holds, as `kubectl rollout undo` does: the manager owns the
    /// fields that differ between versions.
    #[must_use]
    pub fn undone_by(mut self, manager: &str) -> Self {
        let ours = |(name, _): &&mut (String, Value)| name == names::FIELD_MANAGER;
        let Some((_, fields)) = self.managers.iter_mut().find(ours) else {
            return self;
        };
        let template = &mut fields["f:template"];
        let annotations = template["f:metadata"]["f:annotations"].take();
        let mut theirs = json!({"f:metadata": {"f:annotations": annotations}, "f:spec": {}});
        let containers = template["f:spec"]["f:containers"].as_object_mut();
        for (container, fields) in containers.into_iter().flatten() {
            for name in OF_VERSION {
                let field = fields["f:env"][list_key(name)].take();
                theirs["f:spec"]["f:containers"][container]["f:env"][list_key(name)] = field;
            }
            if let Some(env) = fields["f:env"].as_object_mut() {
                env.retain(|_, field| !field.is_null());
            }
        }
        self.owns(manager, json!({"f:template": theirs}));
        self
    }

    /// The workload with the time at which every manager last wrote it.
    #[must_use]
    pub fn written_at(mut self, time: &str) -> Self {
        time.clone_into(&mut self.written_at);
        self
    }

    /// The workload with the label of a binding.
    #[must_use]
    pub fn labelled(self, binding: &str) -> Self {
        self.changed(&json!({"metadata": {"labels": {names::BINDING_LABEL: binding}}}))
    }

    /// The workload as its controller reports it: all pods, those of the newest template, and the available ones.
    #[must_use]
    pub fn counts(self, all: i32, updated: i32, available: i32) -> Self {
        let counts =
            json!({"replicas": all, "updatedReplicas": updated, "availableReplicas": available});
        self.changed(&json!({"status": counts}))
    }

    /// The workload before its controller has observed the newest template.
    #[must_use]
    pub fn unobserved(self) -> Self {
        self.changed(&json!({"status": {"observedGeneration": 1}}))
    }

    /// The workload with a condition of its controller, replacing one of the same type.
    #[must_use]
    pub fn condition(
        mut self,
        type_: &str,
        status: &str,
        reason: &str,
        message: &str,
        since: &str,
    ) -> Self {
        let condition = json!({"type": type_, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since});
        let status = &mut self.whole["status"]["conditions"];
        if !status.is_array() {
            *status = json!([]);
        }
        if let Some(conditions) = status.as_array_mut() {
            conditions.retain(|each| each["type"] != type_);
            conditions.push(condition);
        }
        self
    }

    /// The whole object, as the API server returns it.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut whole = self.whole.clone();
        let entry = |(manager, fields): &(String, Value)| {
            json!({"manager": manager, "operation": "Update", "time": self.written_at, "apiVersion": "apps/v1",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": fields}})
        };
        let of_status = |(manager, fields): &(String, Value)| {
            json!({"manager": manager, "operation": "Update", "time": self.written_at, "apiVersion": "apps/v1",
                "fieldsType": "FieldsV1", "fieldsV1": fields, "subresource": "status"})
        };
        let managers = self.managers.iter().map(entry);
        let managers = managers.chain(self.status_managers.iter().map(of_status));
        whole["metadata"]["managedFields"] = managers.collect();
        whole
    }

    /// The object of kind `K`.
    ///
    /// # Panics
    /// If it is no valid workload.
    #[must_use]
    pub fn workload<K>(&self) -> Workload<K>
    where
        Workload<K>: DeserializeOwned,
    {
        let workload: Workload<K> = serde_json::from_value(self.json()).expect("a workload");
        workload.with_owners()
    }

    /// The target of a decision, read as kind `K`.
    #[must_use]
    pub fn target_of<K: Adapter>(&self) -> Target {
        Target::from(self.workload::<K>())
    }

    /// The target of a decision, read as a Deployment.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target_of::<k8s_openapi::api::apps::v1::Deployment>()
    }

    fn owns(&mut self, manager: &str, fields: Value) {
        match self.managers.iter_mut().find(|(name, _)| name == manager) {
            Some((_, owned)) => merge(owned, &fields),
            None => self.managers.insert(0, (manager.to_owned(), fields)),
        }
    }
}

/// The fields of a value, in the format of managed fields.
fn fields(value: &Value) -> Value {
    let fields: Map<String, Value> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (format!("f:{name}"), fields(value)))
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| {
                (
                    list_key(item["name"].as_str().unwrap_or_default()),
                    fields(item),
                )
            })
            .collect(),
        _ => Map::new(),
    };
    Value::Object(fields)
}

fn list_key(name: &str) -> String {
    format!("k:{{\"name\":\"{name}\"}}")
}

/// Merges as the API server does: maps by key, containers and variables by name; null removes a field.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => {
            for item in from {
                match into.iter_mut().find(|each| each["name"] == item["name"]) {
                    Some(same) => merge(same, item),
                    None => into.push(item.clone()),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}
