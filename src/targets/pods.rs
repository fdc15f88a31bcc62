//! The parts of pods and ReplicaSets that tell how a rollout goes, decoded straight into these few fields.
//!
//! Absent: judgement. Whether a version failed is decided in `rollout`.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ReplicaSet as WholeReplicaSet;
use k8s_openapi::api::core::v1::{ContainerState, Pod as WholePod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::Workload;
use super::metadata::without_managed_fields;
use crate::api::names;

/// A pod, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, Resource, Serialize)]
#[resource(inherit = "WholePod")]
pub struct Pod {
    /// Name, labels, owners, times.
    #[serde(deserialize_with = "without_managed_fields")]
    pub metadata: ObjectMeta,
    /// How it is.
    #[serde(default)]
    pub status: PodStatus,
}

/// A pod's status, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed or Unknown.
    pub phase: Option<String>,
    /// When the kubelet took it up.
    pub start_time: Option<Time>,
    /// Ready and the rest.
    pub conditions: Vec<PodCondition>,
    /// Containers.
    pub container_statuses: Vec<ContainerStatus>,
    /// Init containers.
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// A container's status, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether its start-up probe passed.
    pub started: Option<bool>,
    /// How often it was restarted.
    pub restart_count: i32,
    /// Waiting, running or terminated.
    pub state: Option<ContainerState>,
    /// How it ended the last time.
    pub last_state: Option<ContainerState>,
}

/// A ReplicaSet, as far as it matters here: which Deployment's revision it is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ReplicaSet {
    /// Name, annotations, owners.
    #[serde(deserialize_with = "without_managed_fields")]
    pub metadata: ObjectMeta,
}

/// As for a ReplicaSet, but only its metadata is requested.
impl Resource for ReplicaSet {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        WholeReplicaSet::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        WholeReplicaSet::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        WholeReplicaSet::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        WholeReplicaSet::plural(&())
    }

    fn metadata_api() -> bool {
        true
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The pods of a Deployment's newest template; none where its controller has not seen that template yet.
#[must_use]
pub fn newest_pods<'a>(
    workload: &Workload,
    replica_sets: &[impl AsRef<ReplicaSet>],
    pods: &'a [impl AsRef<Pod>],
) -> Vec<&'a Pod> {
    let newest = replica_sets
        .iter()
        .map(AsRef::as_ref)
        .find(|set| is_newest(workload, set));
    let Some(uid) = newest
        .and_then(|set| set.metadata.uid.as_ref())
        .filter(|_| workload.is_observed())
    else {
        return Vec::new();
    };
    pods.iter()
        .map(AsRef::as_ref)
        .filter(|pod| is_owned(&pod.metadata, uid))
        .collect()
}

fn is_newest(workload: &Workload, set: &ReplicaSet) -> bool {
    let revision = set
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(names::REVISION_ANNOTATION));
    let owned = workload
        .metadata
        .uid
        .as_ref()
        .is_some_and(|uid| is_owned(&set.metadata, uid));
    owned && revision.is_some() && revision.map(String::as_str) == workload.revision()
}

fn is_owned(metadata: &ObjectMeta, uid: &str) -> bool {
    metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.uid == uid)
}

impl AsRef<Self> for Pod {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsRef<Self> for ReplicaSet {
    fn as_ref(&self) -> &Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(uid: &str, revision: &str) -> ReplicaSet {
        serde_json::from_value(
            json!({"metadata": {"uid": uid, "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "server", "uid": "d"}]}}),
        )
        .expect("a ReplicaSet")
    }

    fn pod(name: &str, set: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": set}]}}))
        .expect("a pod")
    }

    fn workload(observed: i64) -> Workload {
        serde_json::from_value(json!({"metadata": {"uid": "d", "generation": 2,
            "annotations": {"deployment.kubernetes.io/revision": "7"}}, "status": {"observedGeneration": observed}}))
        .expect("a workload")
    }

    #[test]
    fn old_pods_are_not_the_newest_templates() {
        let (sets, pods) = (
            [set("old", "6"), set("new", "7")],
            [pod("a", "old"), pod("b", "new")],
        );
        let newest = newest_pods(&workload(2), &sets, &pods);
        assert_eq!(
            newest
                .iter()
                .map(|pod| pod.metadata.name.as_deref())
                .collect::<Vec<_>>(),
            [Some("b")]
        );
    }

    #[test]
    fn before_the_controller_has_seen_a_template_no_pod_is_its() {
        assert!(newest_pods(&workload(1), &[set("new", "7")], &[pod("b", "new")]).is_empty());
    }
}
