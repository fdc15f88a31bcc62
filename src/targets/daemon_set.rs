//! DaemonSets: one pod a node.
//!
//! Absent: a progress deadline of its own. The API has none, so Pointsman takes ten minutes.

use k8s_openapi::api::apps::v1::DaemonSet;

use super::target::{Adapter, Capacity, NewestPods, RolloutState, Target, minimum_available};
use super::workload::Workload;
use crate::api::alias_binding::TargetKind;
use crate::api::names;

/// The annotation in which the API server counts the changes of the template.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

impl Adapter for DaemonSet {
    const KIND: TargetKind = TargetKind::DaemonSet;

    fn read(workload: Workload<Self>) -> Target {
        let generation = workload.annotation(GENERATION_ANNOTATION);
        // After a rollback pods that were never replaced keep an older number; they are of a version that was good.
        let newest = NewestPods::OwnedWithLabel(names::TEMPLATE_GENERATION_LABEL, generation);
        let state = (rollout(&workload), capacity(&workload));
        workload.target(Self::KIND, state, newest)
    }
}

fn capacity(workload: &Workload<DaemonSet>) -> Capacity {
    let desired = workload.status.desired_number_scheduled.unwrap_or_default();
    let available = workload.status.number_available.unwrap_or_default();
    let rolling_update = &workload.spec.update_strategy.rolling_update;
    Capacity {
        desired,
        available,
        has_minimum: available
            >= minimum_available(desired, rolling_update.max_unavailable.as_ref()),
        has_old_pods: desired > workload.status.updated_number_scheduled.unwrap_or_default(),
    }
}

fn rollout(workload: &Workload<DaemonSet>) -> RolloutState {
    let status = &workload.status;
    let asked = status.desired_number_scheduled.unwrap_or_default();
    if asked == 0 && workload.is_observed() {
        return RolloutState::ScaledToZero;
    }
    let is_complete = workload.is_observed()
        && status.updated_number_scheduled.unwrap_or_default() >= asked
        && status.number_available.unwrap_or_default() >= asked;
    if is_complete {
        return RolloutState::Complete;
    }
    let (name, namespace) = (workload.name(), workload.namespace());
    RolloutState::InProgress(
        if workload.spec.update_strategy.type_.as_deref() == Some("OnDelete") {
            format!(
                "the DaemonSet replaces a pod only when it is deleted (updateStrategy OnDelete); list them: kubectl get pods -n {namespace}"
            )
        } else {
            format!(
                "the DaemonSet is rolling out; watch it: kubectl rollout status daemonset/{name} -n {namespace}"
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::deployment;
    use serde_json::{Value, json};

    fn target(status: &Value) -> Target {
        let generation = json!({"deprecated.daemonset.template.generation": "2"});
        let change = json!({"metadata": {"annotations": generation}, "status": status});
        deployment().changed(&change).target_of::<DaemonSet>()
    }

    #[test]
    fn a_rollout_is_complete_when_every_node_has_an_available_new_pod() {
        let numbers = |updated: i32, available: i32| {
            json!({"desiredNumberScheduled": 2,
            "updatedNumberScheduled": updated, "numberAvailable": available})
        };
        assert!(target(&numbers(2, 2)).is_complete());
        assert!(!target(&numbers(1, 2)).is_complete());
        assert!(!target(&numbers(2, 1)).is_complete());
    }

    #[test]
    fn the_newest_pods_have_the_generation_of_the_template() {
        assert_eq!(
            target(&json!({})).newest_pods,
            NewestPods::OwnedWithLabel("pod-template-generation", Some("2".into()))
        );
        assert_eq!(
            target(&json!({"observedGeneration": 1})).newest_pods,
            NewestPods::None
        );
    }
}
