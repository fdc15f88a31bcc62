//! The health of a pod in words, as kubectl's column STATUS and a little more.
//!
//! Absent: blame. Whether a version is at fault is the operator's decision, in the binding's status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::ResourceExt;

use super::tree_node::TreeNode;
use super::units::since;
use crate::api::names;

/// A pod with its health.
pub fn pod_node(pod: &Pod, now: Timestamp) -> TreeNode {
    let none = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&none);
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let ready = containers
        .iter()
        .filter(|container| container.ready)
        .count();
    let mut conditions = status.conditions.iter().flatten();
    let is_ready = conditions.any(|each| each.type_ == "Ready" && each.status == "True");
    let total = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let mut words = vec![phase(pod, status), format!("{ready}/{total} ready")];
    if let Some(version) = pod.annotations().get(names::VERSION_ANNOTATION) {
        words.insert(0, format!("version {version}"));
    }
    let restarts: i32 = containers
        .iter()
        .map(|container| container.restart_count)
        .sum();
    if restarts > 0 {
        words.push(format!("{restarts} restarts"));
    }
    words.push(since(pod.creation_timestamp().as_ref(), now));
    TreeNode::new(
        format!("Pod/{}", pod.name_any()),
        Some(is_ready),
        words.join(", "),
    )
}

/// The first trouble of its containers, or its phase.
fn phase(pod: &Pod, status: &PodStatus) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    if let Some(reason) = &status.reason {
        return reason.clone();
    }
    let mut init = status.init_container_statuses.iter().flatten();
    let mut containers = status.container_statuses.iter().flatten();
    let of_init = init.find_map(trouble).map(|word| format!("Init:{word}"));
    let found = of_init.or_else(|| containers.find_map(trouble).map(str::to_owned));
    let unscheduled = || {
        let mut conditions = status.conditions.iter().flatten();
        let found = conditions.find(|each| each.type_ == "PodScheduled" && each.status == "False");
        found.and_then(|each| each.reason.clone())
    };
    found
        .or_else(unscheduled)
        .or_else(|| status.phase.clone())
        .unwrap_or_else(|| "Unknown".to_owned())
}

/// Why a container does not run; `None` if it runs, or has ended well.
fn trouble(container: &ContainerStatus) -> Option<&str> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref();
        return reason.filter(|reason| !matches!(*reason, "PodInitializing" | "ContainerCreating"));
    }
    let ended = state.terminated.as_ref()?;
    (ended.exit_code != 0).then(|| ended.reason.as_deref().unwrap_or("Error"))
}
