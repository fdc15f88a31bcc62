//! The part of a workload that Pointsman reads, decoded straight into these few fields. One type serves every kind.
//!
//! Absent: all other fields, so that ten thousand workloads stay small; managed fields, once read into [`FieldOwners`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::argo_fields::{Analyses, PauseCondition, Strategy, TemplateReference, generation};
use super::digest::pod_template_digest;
use super::owners::FieldOwners;
use crate::api::names;

/// A workload of kind `K`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(bound = "")]
pub struct Workload<K> {
    /// Name, labels, annotations, owners, generation.
    pub metadata: ObjectMeta,
    /// The desired state.
    #[serde(default)]
    pub spec: WorkloadSpec,
    /// The observed state.
    #[serde(default)]
    pub status: WorkloadStatus,
    /// The managers of the fields that Pointsman may write; filled by [`Workload::with_owners`].
    #[serde(default)]
    pub owners: FieldOwners,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

/// The spec of a workload; a field that a kind does not have stays empty.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// The number of pods; 1 if it is not set.
    pub replicas: Option<i32>,
    /// Whether rollouts are paused.
    pub paused: bool,
    /// After how many seconds without progress a rollout has failed; 600 if it is not set.
    pub progress_deadline_seconds: Option<i32>,
    /// `OrderedReady` or `Parallel`.
    pub pod_management_policy: Option<String>,
    /// How pods are replaced.
    pub update_strategy: UpdateStrategy,
    /// How the pods of a Rollout are replaced.
    #[serde(skip_serializing_if = "Strategy::is_empty")]
    pub strategy: Strategy,
    /// The workload whose pod template a Rollout uses instead of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<TemplateReference>,
    /// The pod template.
    pub template: PodTemplate,
    /// The template of a CronJob's Jobs, with the pod template in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_template: Option<CronJobTemplate>,
}

/// The template of a CronJob's Jobs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CronJobTemplate {
    /// The spec of a Job.
    pub spec: JobSpec,
}

/// The spec of a Job.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct JobSpec {
    /// The pod template.
    pub template: PodTemplate,
}

/// How a StatefulSet or DaemonSet replaces its pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateStrategy {
    /// `RollingUpdate` or `OnDelete`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Which pods are replaced.
    pub rolling_update: RollingUpdate,
}

/// Which pods a rolling update replaces.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct RollingUpdate {
    /// Pods with a lower ordinal keep the old template.
    pub partition: Option<i32>,
    /// How many pods may be unavailable, as a number or a percentage; 1 if it is not set.
    #[serde(rename = "maxUnavailable")]
    pub max_unavailable: Option<IntOrString>,
}

/// A pod template.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(from = "WholeTemplate", rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations.
    pub metadata: TemplateMeta,
    /// Containers.
    pub spec: PodSpec,
    /// The digest of the user's part of `spec`: if it changes, somebody changed the template.
    pub users_digest: String,
}

/// A pod template with every field, only to compute the digest.
#[derive(Deserialize)]
struct WholeTemplate(Value);

impl From<WholeTemplate> for PodTemplate {
    fn from(WholeTemplate(whole): WholeTemplate) -> Self {
        // A stored template brings its digest along; the API server knows no such field.
        let stored = whole.get("usersDigest").and_then(Value::as_str);
        Self {
            metadata: TemplateMeta::deserialize(&whole["metadata"]).unwrap_or_default(),
            spec: PodSpec::deserialize(&whole["spec"]).unwrap_or_default(),
            users_digest: stored.map_or_else(|| pod_template_digest(&whole), str::to_owned),
        }
    }
}

/// The labels and annotations of a pod template.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TemplateMeta {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The containers of a pod template.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The containers, in order.
    pub containers: Vec<Container>,
    /// The init containers, in order.
    pub init_containers: Vec<Container>,
}

/// A container's name and environment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its environment variables.
    pub env: Vec<EnvVar>,
    /// The `ConfigMaps` and Secrets whose keys become variables.
    pub env_from: Vec<EnvFrom>,
    /// The resources that it asks for.
    #[serde(skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
}

/// A source of environment variables.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct EnvFrom {
    /// The beginning of the names of its variables.
    pub prefix: Option<String>,
}

/// The resources that a container asks for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Resources {
    /// The resources that a node must have free.
    pub requests: BTreeMap<String, Quantity>,
    /// The most that it may use; the request for a resource that has none.
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }
}

/// An environment variable.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its literal value.
    pub value: Option<String>,
    /// The source of a value that is not literal.
    pub value_from: Option<Value>,
}

/// The status of a workload; a field that a kind does not have stays empty. The API server leaves out counters that are 0.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatus {
    /// The generation that the workload's controller has observed.
    #[serde(deserialize_with = "generation")]
    pub observed_generation: Option<i64>,
    /// All pods.
    pub replicas: Option<i32>,
    /// Pods of the newest template.
    pub updated_replicas: Option<i32>,
    /// Available pods.
    pub available_replicas: Option<i32>,
    /// The revision of the newest template (StatefulSets).
    pub update_revision: Option<String>,
    /// Nodes that should run a pod (DaemonSets).
    pub desired_number_scheduled: Option<i32>,
    /// Nodes that run a pod of the newest template (DaemonSets).
    pub updated_number_scheduled: Option<i32>,
    /// Nodes that run an available pod (DaemonSets).
    pub number_available: Option<i32>,
    /// Whether the rollout was given up (Rollouts).
    #[serde(skip_serializing_if = "is_false")]
    pub abort: bool,
    /// Healthy, Progressing, Paused or Degraded (Rollouts).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The hash of the newest template (Rollouts).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_pod_hash: Option<String>,
    /// The hash of the template that was rolled out last (Rollouts).
    #[serde(rename = "stableRS", skip_serializing_if = "Option::is_none")]
    pub stable_hash: Option<String>,
    /// The index of the present step (Rollouts).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_step_index: Option<usize>,
    /// Why the controller waits (Rollouts).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pause_conditions: Vec<PauseCondition>,
    /// The analyses of a canary (Rollouts).
    #[serde(skip_serializing_if = "Analyses::is_empty")]
    pub canary: Analyses,
    /// The analyses of a blue-green update (Rollouts).
    #[serde(skip_serializing_if = "Analyses::is_empty")]
    pub blue_green: Analyses,
    /// The conditions of the workload's own controller.
    pub conditions: Vec<DeploymentCondition>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(value: &bool) -> bool {
    !*value
}

impl<K> Workload<K> {
    /// The same workload with its managed fields read into [`FieldOwners`] and then dropped.
    #[must_use]
    pub fn with_owners(mut self) -> Self {
        let managed = self.metadata.managed_fields.take().unwrap_or_default();
        let labels = self.metadata.labels.as_ref();
        let restored_by = labels.and_then(|labels| labels.get(names::RESTORED_BY_LABEL));
        self.owners = FieldOwners::read(&managed, restored_by.map(String::as_str));
        self
    }

    /// The name.
    pub(super) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The namespace.
    pub(super) fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// A condition of the workload's own controller.
    pub(super) fn condition(&self, type_: &str) -> Option<&DeploymentCondition> {
        let conditions = &self.status.conditions;
        conditions.iter().find(|each| each.type_ == type_)
    }

    /// An annotation.
    pub(super) fn annotation(&self, name: &str) -> Option<String> {
        self.metadata.annotations.as_ref()?.get(name).cloned()
    }

    /// Whether the workload's controller has observed the newest spec.
    pub(super) fn is_observed(&self) -> bool {
        let observed = self.status.observed_generation.unwrap_or_default();
        observed >= self.metadata.generation.unwrap_or_default()
    }
}

impl<K> Resource for Workload<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;
    use crate::api::inject::InjectedValue;
    use crate::targets::Target;

    #[test]
    fn a_sidecars_own_variable_of_the_same_name_is_not_injected() {
        let env = |uri: &str, version: Option<&str>| {
            let version = version.map(|version| json!({"name": "MODEL_VERSION", "value": version}));
            let uri = json!({"name": "MODEL_URI", "value": uri});
            version.into_iter().chain([uri]).collect::<Vec<_>>()
        };
        let workload: Workload<Deployment> = serde_json::from_value(json!({"metadata": {}, "spec": {"template": {
            "metadata": {"annotations": {"pointsman.dev/model-version": "4"}},
            "spec": {"containers": [
                {"name": "sidecar", "env": env("mine", None)}, {"name": "server", "env": env("s3://m/4", Some("4"))}]}}}}))
        .expect("a workload");
        assert_eq!(
            Target::from(workload)
                .injected(InjectedValue::ModelUri)
                .as_deref(),
            Some("s3://m/4")
        );
    }
}
