//! Pods and ReplicaSets, as the kubelet and the controllers report them.
//!
//! Absent: pod specs. Nothing reads them.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use super::{NOW, With, annotated, time};
use crate::api::names;
use crate::targets::{ContainerStatus, Pod, ReplicaSet};

/// The pod `server-1`, which runs and is ready.
#[must_use]
pub fn pod() -> Pod {
    pod_with(container())
}

/// The pod `server-1` with one container.
#[must_use]
pub fn pod_with(container: ContainerStatus) -> Pod {
    Pod::default().with(|pod| {
        pod.metadata.name = Some("server-1".to_owned());
        pod.metadata.creation_timestamp = Some(time(NOW));
        pod.status.phase = Some("Running".to_owned());
        pod.status.start_time = Some(time(NOW));
        pod.status.container_statuses = vec![container];
    })
}

/// The container `server`, which runs and is ready.
#[must_use]
pub fn container() -> ContainerStatus {
    ContainerStatus {
        name: "server".to_owned(),
        ready: true,
        started: Some(true),
        state: Some(running(NOW)),
        ..ContainerStatus::default()
    }
}

/// The state of a container that waits, for instance in `CrashLoopBackOff`.
#[must_use]
pub fn waiting(reason: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: None,
        }),
        ..ContainerState::default()
    }
}

/// The state of a container that runs.
#[must_use]
pub fn running(since: &str) -> ContainerState {
    ContainerState {
        running: Some(ContainerStateRunning {
            started_at: Some(time(since)),
        }),
        ..ContainerState::default()
    }
}

/// The state of a container that ended.
#[must_use]
pub fn terminated(exit_code: i32, finished_at: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code,
            finished_at: Some(time(finished_at)),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// A condition of a pod.
#[must_use]
pub fn condition(type_: &str, status: &str, since: &str) -> PodCondition {
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        last_transition_time: Some(time(since)),
        ..PodCondition::default()
    }
}

/// An object that is owned by the object with this UID.
#[must_use]
pub fn owned_by<K: Resource>(mut object: K, uid: &str) -> K {
    object.owner_references_mut().push(OwnerReference {
        uid: uid.to_owned(),
        ..OwnerReference::default()
    });
    object
}

/// A ReplicaSet of one revision of the Deployment in [`super::deployment`].
#[must_use]
pub fn replica_set(uid: &str, revision: &str) -> ReplicaSet {
    let set = ReplicaSet::default().with(|set| set.metadata.uid = Some(uid.to_owned()));
    annotated(owned_by(set, "d"), names::REVISION_ANNOTATION, revision)
}
