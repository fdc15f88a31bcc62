//! The part of a Deployment that Pointsman reads, decoded straight into these few fields.
//!
//! Absent: all else of a Deployment, so that ten thousand of them stay small; managed fields, once digested.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::digest;
use super::owners::FieldOwners;
use crate::api::names;

/// A Deployment, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, Resource, Serialize)]
#[resource(inherit = "Deployment")]
pub struct Workload {
    /// Name, labels, annotations, owners, generation.
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default)]
    pub spec: WorkloadSpec,
    /// How far it is.
    #[serde(default)]
    pub status: WorkloadStatus,
    /// Who wrote the fields that Pointsman cares for; filled by [`Workload::digested`].
    #[serde(default)]
    pub owners: FieldOwners,
}

/// A Deployment's spec, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// How many pods are asked for; 1 where nothing is said.
    pub replicas: Option<i32>,
    /// Whether rollouts are paused.
    pub paused: bool,
    /// After how many seconds without progress a rollout has failed; 600 where nothing is said.
    pub progress_deadline_seconds: Option<i32>,
    /// The pod template.
    pub template: PodTemplate,
}

/// A pod template, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(from = "WholeTemplate")]
pub struct PodTemplate {
    /// Labels and annotations.
    pub metadata: TemplateMeta,
    /// Containers.
    pub spec: PodSpec,
    /// A digest of all that is in it but what Pointsman writes: another one means that its owner changed it.
    pub users_digest: u64,
}

/// A pod template with every field, only to be digested.
#[derive(Deserialize)]
struct WholeTemplate(serde_json::Value);

impl From<WholeTemplate> for PodTemplate {
    fn from(WholeTemplate(mut whole): WholeTemplate) -> Self {
        let metadata = TemplateMeta::deserialize(&whole["metadata"]).unwrap_or_default();
        let spec = PodSpec::deserialize(&whole["spec"]).unwrap_or_default();
        // One that was kept brings its digest along; the API server knows no such field.
        let kept = whole
            .get("users_digest")
            .and_then(serde_json::Value::as_u64);
        let users_digest = kept.unwrap_or_else(|| {
            digest::without_ours(&mut whole);
            digest::fnv1a(whole.to_string().as_bytes())
        });
        Self {
            metadata,
            spec,
            users_digest,
        }
    }
}

/// A pod template's labels and annotations.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TemplateMeta {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A pod template's containers.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct PodSpec {
    /// The containers, in order.
    pub containers: Vec<Container>,
}

/// A container's name and environment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its environment variables.
    pub env: Vec<EnvVar>,
}

/// An environment variable.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its literal value.
    pub value: Option<String>,
    /// Where its value comes from, where it is not literal.
    pub value_from: Option<serde_json::Value>,
}

/// A Deployment's status, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatus {
    /// The generation that the Deployment's controller speaks of.
    pub observed_generation: Option<i64>,
    /// All pods.
    pub replicas: Option<i32>,
    /// Pods of the newest template.
    pub updated_replicas: Option<i32>,
    /// Pods that are available.
    pub available_replicas: Option<i32>,
    /// The Deployment's own conditions.
    pub conditions: Vec<DeploymentCondition>,
}

impl Workload {
    /// The same workload with its managed fields read and then dropped.
    #[must_use]
    pub fn digested(mut self) -> Self {
        let managed = self.metadata.managed_fields.take().unwrap_or_default();
        self.owners = FieldOwners::read(&managed);
        self
    }

    /// The version that the pod template names in its annotation.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.spec
            .template
            .metadata
            .annotations
            .get(names::VERSION_ANNOTATION)
            .map(String::as_str)
    }

    /// The literal value of an injected variable: that of the first container which holds the version of the template, for
    /// others may use the same names for something of their own.
    #[must_use]
    pub fn injected(&self, name: &str) -> Option<&str> {
        let literal = |container: &Container, name: &str| {
            self.env(&container.name, name)
                .and_then(|env| env.value.as_deref())
        };
        let (version, containers) = (self.version()?, &self.spec.template.spec.containers);
        let holder = containers
            .iter()
            .find(|each| literal(each, names::MODEL_VERSION) == Some(version))?;
        literal(holder, name)
    }

    /// The revision that the Deployment's controller counts.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.metadata
            .annotations
            .as_ref()?
            .get(names::REVISION_ANNOTATION)
            .map(String::as_str)
    }

    /// Whether the Deployment's controller has seen the newest spec.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.status.observed_generation.unwrap_or_default()
            >= self.metadata.generation.unwrap_or_default()
    }

    /// The literal value of an environment variable of a container.
    #[must_use]
    pub fn env(&self, container: &str, name: &str) -> Option<&EnvVar> {
        let container = self
            .spec
            .template
            .spec
            .containers
            .iter()
            .find(|each| each.name == container)?;
        container.env.iter().find(|each| each.name == name)
    }

    /// The binding that the Deployment's label names.
    #[must_use]
    pub fn binding(&self) -> Option<&str> {
        self.metadata
            .labels
            .as_ref()?
            .get(names::BINDING_LABEL)
            .map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sidecars_own_variable_of_the_same_name_is_not_what_was_injected() {
        let env = |uri: &str, version: Option<&str>| {
            let version = version.map(|version| json!({"name": "MODEL_VERSION", "value": version}));
            version
                .into_iter()
                .chain([json!({"name": "MODEL_URI", "value": uri})])
                .collect::<Vec<_>>()
        };
        let workload: Workload = serde_json::from_value(json!({"metadata": {}, "spec": {"template": {
            "metadata": {"annotations": {"pointsman.dev/model-version": "4"}},
            "spec": {"containers": [
                {"name": "sidecar", "env": env("mine", None)}, {"name": "server", "env": env("s3://m/4", Some("4"))}]}}}}))
        .expect("a workload");
        assert_eq!(workload.injected(names::MODEL_URI), Some("s3://m/4"));
    }
}
