//! StatefulSets: pods in order, each replaced in its place.
//!
//! Absent: a progress deadline of its own. The API has none, so Pointsman takes ten minutes.

use k8s_openapi::api::apps::v1::StatefulSet;

use super::target::{Adapter, Capacity, NewestPods, RolloutState, Target, minimum_available};
use super::workload::Workload;
use crate::api::alias_binding::TargetKind;
use crate::api::names;

impl Adapter for StatefulSet {
    const KIND: TargetKind = TargetKind::StatefulSet;

    fn read(workload: Workload<Self>) -> Target {
        let revision = workload.status.update_revision.clone();
        let newest = NewestPods::OwnedWithLabel(names::REVISION_HASH_LABEL, revision);
        // With OrderedReady the controller waits for a broken pod to become ready before it replaces it
        // (kubernetes/kubernetes#67250), also when the template is a good one again.
        let in_order = workload.spec.pod_management_policy.as_deref() != Some("Parallel");
        let state = (rollout(&workload), capacity(&workload));
        Target {
            broken_pods_block: in_order,
            ..workload.target(Self::KIND, state, newest)
        }
    }
}

fn capacity(workload: &Workload<StatefulSet>) -> Capacity {
    let desired = workload.spec.replicas.unwrap_or(1);
    let available = workload.status.available_replicas.unwrap_or_default();
    let rolling_update = &workload.spec.update_strategy.rolling_update;
    Capacity {
        desired,
        available,
        has_minimum: available
            >= minimum_available(desired, rolling_update.max_unavailable.as_ref()),
        has_old_pods: workload.status.replicas > workload.status.updated_replicas,
    }
}

fn rollout(workload: &Workload<StatefulSet>) -> RolloutState {
    let (status, strategy) = (&workload.status, &workload.spec.update_strategy);
    let asked = workload.spec.replicas.unwrap_or(1);
    if asked == 0 && workload.is_observed() {
        return RolloutState::ScaledToZero;
    }
    let to_update = (asked - strategy.rolling_update.partition.unwrap_or_default()).max(0);
    let is_complete = workload.is_observed()
        && status.replicas.unwrap_or_default() == asked
        && status.updated_replicas.unwrap_or_default() >= to_update
        && status.available_replicas.unwrap_or_default() >= asked;
    if is_complete {
        return RolloutState::Complete;
    }
    let (name, namespace) = (workload.name(), workload.namespace());
    RolloutState::InProgress(if strategy.type_.as_deref() == Some("OnDelete") {
        format!(
            "the StatefulSet replaces a pod only when it is deleted (updateStrategy OnDelete); list them: kubectl get pods -n {namespace}"
        )
    } else {
        format!(
            "the StatefulSet is rolling out; watch it: kubectl rollout status statefulset/{name} -n {namespace}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{WorkloadFixture, deployment};
    use serde_json::json;

    fn two_replicas() -> WorkloadFixture {
        deployment()
            .changed(&json!({"spec": {"replicas": 2}, "status": {"updateRevision": "s-new"}}))
    }

    #[test]
    fn equal_revisions_alone_do_not_make_a_rollout_complete() {
        let blocked = two_replicas()
            .counts(2, 1, 1)
            .changed(&json!({"status": {"currentRevision": "s-new"}}));
        assert!(matches!(
            blocked.target_of::<StatefulSet>().rollout,
            RolloutState::InProgress(_)
        ));
    }

    #[test]
    fn a_rollout_is_complete_when_all_pods_are_new_and_available() {
        let target = two_replicas().counts(2, 2, 2).target_of::<StatefulSet>();
        assert!(target.is_complete() && target.broken_pods_block);
        assert_eq!(
            target.newest_pods,
            NewestPods::OwnedWithLabel("controller-revision-hash", Some("s-new".into()))
        );
    }

    #[test]
    fn pods_below_the_partition_need_not_be_updated() {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
        let workload = two_replicas()
            .counts(2, 1, 2)
            .changed(&json!({"spec": {"updateStrategy": strategy}}));
        assert!(workload.target_of::<StatefulSet>().is_complete());
    }
}
