//! The parts of pods and ReplicaSets that show how a rollout goes, decoded straight into these few fields.
//!
//! Absent: assessment. Whether a version failed is decided in `rollout`.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ReplicaSet as WholeReplicaSet;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    Pod as WholePod, PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::metadata::without_managed_fields;
use super::target::{NewestPods, Target};

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
    /// Why it is in this phase, as one word, for instance `Evicted`.
    pub reason: Option<String>,
    /// Why it is in this phase, as a sentence.
    pub message: Option<String>,
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

impl Pod {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// A condition.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&PodCondition> {
        let conditions = &self.status.conditions;
        conditions.iter().find(|each| each.type_ == type_)
    }

    /// A condition that is True.
    #[must_use]
    pub fn met(&self, type_: &str) -> Option<&PodCondition> {
        self.condition(type_).filter(|each| each.status == "True")
    }

    /// A condition that is False.
    #[must_use]
    pub fn unmet(&self, type_: &str) -> Option<&PodCondition> {
        self.condition(type_).filter(|each| each.status == "False")
    }

    /// Whether it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.met("Ready").is_some()
    }

    /// The init containers, then the containers.
    pub fn all_containers(&self) -> impl Iterator<Item = &ContainerStatus> {
        let status = &self.status;
        let init = status.init_container_statuses.iter();
        init.chain(&status.container_statuses)
    }
}

impl ContainerStatus {
    /// The present state, if it runs.
    #[must_use]
    pub fn running(&self) -> Option<&ContainerStateRunning> {
        self.state.as_ref()?.running.as_ref()
    }

    /// Since when it has run, if it runs.
    #[must_use]
    pub fn running_since(&self) -> Option<Timestamp> {
        let started = self.running()?.started_at.as_ref()?;
        Some(started.0)
    }

    /// The present state, if it waits.
    #[must_use]
    pub fn waiting(&self) -> Option<&ContainerStateWaiting> {
        self.state.as_ref()?.waiting.as_ref()
    }

    /// The reason why it waits, if it waits.
    #[must_use]
    pub fn waiting_reason(&self) -> Option<&str> {
        self.waiting()?.reason.as_deref()
    }

    /// The present state, if it has ended.
    #[must_use]
    pub fn ended(&self) -> Option<&ContainerStateTerminated> {
        self.state.as_ref()?.terminated.as_ref()
    }

    /// The last end: in its present state, or in its last state if the kubelet has started it again or waits to do so.
    #[must_use]
    pub fn last_end(&self) -> Option<&ContainerStateTerminated> {
        let before = self.last_state.as_ref();
        self.ended()
            .or_else(|| before.and_then(|state| state.terminated.as_ref()))
    }
}

/// A ReplicaSet, as far as it matters here: which template of a Deployment or Rollout it is.
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

/// The pods of a target's newest template that run its version. While a rollout is paused, the newest pods are those of the
/// version before.
#[must_use]
pub fn newest_pods<'a>(
    target: &Target,
    replica_sets: &[impl AsRef<ReplicaSet>],
    pods: &'a [impl AsRef<Pod>],
) -> Vec<&'a Pod> {
    let (owner_uid, label) = match &target.newest_pods {
        NewestPods::None => return Vec::new(),
        NewestPods::OfReplicaSet(name, value) => {
            let sets = replica_sets.iter().map(AsRef::as_ref);
            (set_uid(target, name, value.as_deref(), sets), None)
        }
        NewestPods::OwnedWithLabel(name, value) => {
            let Some(value) = value else {
                return Vec::new();
            };
            (target.metadata.uid.as_deref(), Some((*name, value)))
        }
    };
    let Some(owner_uid) = owner_uid else {
        return Vec::new();
    };
    let owned = pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| is_owned(&pod.metadata, owner_uid));
    owned
        .filter(|pod| target.is_version_of(&pod.metadata))
        .filter(|pod| label.is_none_or(|(name, value)| has_label(pod, name, value)))
        .collect()
}

/// The UID of the ReplicaSet that the target owns and whose annotation or label of this name has this value.
fn set_uid<'a>(
    target: &Target,
    name: &str,
    value: Option<&str>,
    mut replica_sets: impl Iterator<Item = &'a ReplicaSet>,
) -> Option<&'a str> {
    let (uid, value) = (target.metadata.uid.as_deref()?, value?);
    let newest = replica_sets.find(|set| {
        let maps = [&set.metadata.annotations, &set.metadata.labels];
        let mut found = maps.into_iter().flatten().filter_map(|all| all.get(name));
        is_owned(&set.metadata, uid) && found.any(|found| found == value)
    })?;
    newest.metadata.uid.as_deref()
}

fn has_label(pod: &Pod, name: &str, value: &str) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.get(name).is_some_and(|found| found == value))
}

/// The broken pods of older templates that keep the target's controller from replacing them: owned, not ready, not yet
/// being deleted. Only a StatefulSet with OrderedReady has such pods (kubernetes/kubernetes#67250).
#[must_use]
pub fn blocking_pods<'a>(target: &Target, pods: &'a [impl AsRef<Pod>]) -> Vec<&'a Pod> {
    let NewestPods::OwnedWithLabel(name, Some(newest)) = &target.newest_pods else {
        return Vec::new();
    };
    let (Some(uid), true) = (target.metadata.uid.as_deref(), target.broken_pods_block) else {
        return Vec::new();
    };
    let owned = pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| is_owned(&pod.metadata, uid));
    let broken = owned.filter(|pod| {
        let is_leaving = pod.metadata.deletion_timestamp.is_some();
        !is_leaving && !has_label(pod, name, newest) && !pod.is_ready()
    });
    broken.collect()
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
    use k8s_openapi::api::apps::v1::StatefulSet;
    use serde_json::json;

    use super::*;
    use crate::api::names;
    use crate::testing::{
        self, NOW, With, WorkloadFixture, condition, deployment, owned_by, replica_set,
    };

    fn pod(name: &str, owner: &str) -> Pod {
        owned_by(testing::pod(), owner).with(|pod| pod.metadata.name = Some(name.to_owned()))
    }

    fn target() -> WorkloadFixture {
        deployment()
            .changed(&json!({"metadata": {"annotations": {names::REVISION_ANNOTATION: "7"}}}))
    }

    fn stateful_pod(name: &str, revision: &str, ready: &str) -> Pod {
        pod(name, "s").with(|pod| {
            let labels = [("controller-revision-hash".to_owned(), revision.to_owned())];
            pod.metadata.labels = Some(labels.into());
            pod.status.conditions = vec![condition("Ready", ready, NOW)];
        })
    }

    fn names(pods: &[&Pod]) -> Vec<String> {
        pods.iter()
            .filter_map(|pod| pod.metadata.name.clone())
            .collect()
    }

    #[test]
    fn old_pods_are_not_of_the_newest_template() {
        let (sets, pods) = (
            [replica_set("old", "6"), replica_set("new", "7")],
            [pod("a", "old"), pod("b", "new")],
        );
        assert_eq!(names(&newest_pods(&target().target(), &sets, &pods)), ["b"]);
    }

    #[test]
    fn a_template_that_the_controller_has_not_observed_has_no_pods() {
        let target = target().unobserved().target();
        assert!(newest_pods(&target, &[replica_set("new", "7")], &[pod("b", "new")]).is_empty());
    }

    #[test]
    fn a_broken_old_pod_blocks_a_stateful_set_that_replaces_in_order() {
        let workload = |policy: &str| {
            let change = json!({"metadata": {"uid": "s"}, "spec": {"podManagementPolicy": policy},
                "status": {"updateRevision": "good"}});
            deployment().changed(&change).target_of::<StatefulSet>()
        };
        let pods = [
            stateful_pod("x-0", "bad", "True"),
            stateful_pod("x-1", "bad", "False"),
            stateful_pod("x-2", "good", "False"),
        ];
        assert_eq!(
            names(&blocking_pods(&workload("OrderedReady"), &pods)),
            ["x-1"]
        );
        assert!(blocking_pods(&workload("Parallel"), &pods).is_empty());
        assert_eq!(
            names(&newest_pods(
                &workload("Parallel"),
                &[] as &[ReplicaSet],
                &pods
            )),
            ["x-2"]
        );
    }
}
