//! A user's workload to be bound: a Deployment, a StatefulSet, a DaemonSet or a Rollout.
//! Absent: fields that no test needs.

use serde_json::{Value, json};

use crate::kinds::{DAEMON_SET, DEPLOYMENT, Kind, STATEFUL_SET};
use crate::kwok::BEHAVIOR_ANNOTATION;

/// A user's workload; its pods have the label `app` with its name.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Deployment, StatefulSet, DaemonSet or Rollout.
    pub kind: &'static Kind,
    /// Its name.
    pub name: String,
    /// The number of pods; a DaemonSet has one on each node instead.
    pub replicas: u32,
    /// The behavior of its pods, see [`crate::kwok`].
    pub behavior: Option<String>,
    /// The names of its containers.
    pub containers: Vec<String>,
    /// The environment of the first container.
    pub environment: Vec<(String, String)>,
    /// The progress deadline of a Deployment or Rollout; other kinds have none.
    pub progress_deadline_seconds: u32,
}

impl Workload {
    /// A Deployment with two pods of one container named `server`.
    pub fn deployment(name: &str) -> Self {
        Self::of_kind(&DEPLOYMENT, name)
    }

    /// A StatefulSet with two pods of one container named `server`.
    pub fn stateful_set(name: &str) -> Self {
        Self::of_kind(&STATEFUL_SET, name)
    }

    /// A DaemonSet with pods of one container named `server`.
    pub fn daemon_set(name: &str) -> Self {
        Self::of_kind(&DAEMON_SET, name)
    }

    /// A workload of this kind with pods of one container named `server`.
    pub fn of_kind(kind: &'static Kind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            replicas: 2,
            behavior: None,
            containers: vec!["server".to_owned()],
            environment: Vec::new(),
            progress_deadline_seconds: 600,
        }
    }

    /// Sets the behavior of its pods: `<version>=<behavior>,…`, see [`crate::kwok`].
    #[must_use]
    pub fn with_behavior(mut self, behavior: &str) -> Self {
        self.behavior = Some(behavior.to_owned());
        self
    }

    /// The `spec.targetRef` of a binding for it.
    pub fn target_ref(&self) -> Value {
        let api_version = self.kind.resource().api_version;
        json!({"apiVersion": api_version, "kind": self.kind.kind, "name": self.name})
    }

    /// The manifest.
    pub fn manifest(&self) -> Value {
        let mut spec = json!({
            "selector": {"matchLabels": {"app": self.name}},
            "template": self.template(),
        });
        match self.kind.kind {
            "Deployment" | "Rollout" => {
                spec["replicas"] = json!(self.replicas);
                spec["progressDeadlineSeconds"] = json!(self.progress_deadline_seconds);
            }
            "StatefulSet" => {
                spec["replicas"] = json!(self.replicas);
                spec["serviceName"] = json!(self.name);
            }
            _ => (),
        }
        json!({
            "apiVersion": self.kind.resource().api_version,
            "kind": self.kind.kind,
            "metadata": {"name": self.name},
            "spec": spec,
        })
    }

    fn template(&self) -> Value {
        let container = |name: &String| json!({"name": name, "image": "registry.example/server:1"});
        let mut containers: Vec<Value> = self.containers.iter().map(container).collect();
        if !self.environment.is_empty() {
            let variable = |(name, value): &(String, String)| json!({"name": name, "value": value});
            containers[0]["env"] = self.environment.iter().map(variable).collect();
        }
        let mut template =
            json!({"metadata": {"labels": {"app": self.name}}, "spec": {"containers": containers}});
        if let Some(behavior) = &self.behavior {
            template["metadata"]["annotations"] = json!({BEHAVIOR_ANNOTATION: behavior});
        }
        template
    }
}
