//! Deployments: progress by the same rules as `kubectl rollout status`, pods by way of ReplicaSets.
//!
//! Absent: patches. Those are the same for every kind.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;

use super::target::{Adapter, Capacity, NewestPods, RolloutState, Target};
use super::workload::Workload;
use crate::api::alias_binding::TargetKind;
use crate::api::names;

/// The reason of the condition Progressing when the deadline is over.
const EXCEEDED: &str = "ProgressDeadlineExceeded";

impl Adapter for Deployment {
    const KIND: TargetKind = TargetKind::Deployment;

    fn read(workload: Workload<Self>) -> Target {
        let revision = workload.annotation(names::REVISION_ANNOTATION);
        let newest = NewestPods::OfReplicaSet(names::REVISION_ANNOTATION, revision);
        let state = (rollout(&workload), capacity(&workload));
        Target {
            progressed_at: progressed_at(&workload),
            refusal: refusal(&workload),
            is_paused: workload.spec.paused,
            ..workload.target(Self::KIND, state, newest)
        }
    }
}

fn capacity(workload: &Workload<Deployment>) -> Capacity {
    let desired = workload.spec.replicas.unwrap_or(1);
    let available = workload.status.available_replicas.unwrap_or_default();
    let says_so = workload
        .condition("Available")
        .map(|available| available.status == "True");
    Capacity {
        desired,
        available,
        has_minimum: says_so.unwrap_or(available >= desired),
        has_old_pods: workload.status.replicas > workload.status.updated_replicas,
    }
}

fn progressed_at(workload: &Workload<Deployment>) -> Option<Timestamp> {
    let progressing = workload
        .condition("Progressing")
        .filter(|each| each.status != "False")?;
    progressing.last_update_time.as_ref().map(|time| time.0)
}

/// The reason and message of a condition that says that pods, or their ReplicaSet, cannot be created.
fn refusal(workload: &Workload<Deployment>) -> Option<String> {
    let failure = workload
        .condition("ReplicaFailure")
        .filter(|each| each.status == "True");
    // If the ReplicaSet itself cannot be created, the observed generation stays behind.
    let no_set = workload.condition("Progressing").filter(|progressing| {
        progressing.status == "False" && progressing.reason.as_deref() != Some(EXCEEDED)
    });
    failure.or(no_set)?.message.clone()
}

fn rollout(workload: &Workload<Deployment>) -> RolloutState {
    if !workload.is_observed() {
        return in_progress(workload);
    }
    let status = &workload.status;
    let asked = workload.spec.replicas.unwrap_or(1);
    if asked == 0 {
        return RolloutState::ScaledToZero;
    }
    if let Some(progressing) = workload.condition("Progressing")
        && progressing.reason.as_deref() == Some(EXCEEDED)
    {
        return RolloutState::DeadlineExceeded(progressing.message.clone().unwrap_or_default());
    }
    let updated = status.updated_replicas.unwrap_or_default();
    let all = status.replicas.unwrap_or_default();
    let available = status.available_replicas.unwrap_or_default();
    if updated < asked || all > updated || available < updated {
        return in_progress(workload);
    }
    RolloutState::Complete
}

fn in_progress(workload: &Workload<Deployment>) -> RolloutState {
    let (name, namespace) = (workload.name(), workload.namespace());
    RolloutState::InProgress(if workload.spec.paused {
        format!(
            "the Deployment is paused; resume it: kubectl rollout resume deployment/{name} -n {namespace}"
        )
    } else {
        format!(
            "the Deployment is rolling out; watch it: kubectl rollout status deployment/{name} -n {namespace}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, WorkloadFixture, deployment};
    use serde_json::json;

    fn two_replicas() -> WorkloadFixture {
        deployment().changed(&json!({"spec": {"replicas": 2}}))
    }

    fn state(workload: &WorkloadFixture) -> RolloutState {
        workload.target().rollout
    }

    #[test]
    fn a_template_that_the_controller_has_not_observed_is_in_progress() {
        let workload = two_replicas().counts(2, 2, 2).unobserved();
        assert!(matches!(state(&workload), RolloutState::InProgress(_)));
    }

    #[test]
    fn old_pods_that_still_run_keep_a_rollout_in_progress() {
        let workload = two_replicas().counts(3, 2, 3);
        assert!(matches!(state(&workload), RolloutState::InProgress(_)));
    }

    #[test]
    fn the_sentence_stays_the_same_for_a_whole_rollout() {
        let steps = [(2, 0, 2), (3, 1, 2), (3, 2, 2), (2, 2, 1)]
            .map(|(all, updated, available)| two_replicas().counts(all, updated, available));
        let unobserved = two_replicas().counts(2, 2, 2).unobserved();
        let steps = [unobserved].into_iter().chain(steps);
        let mut states: Vec<_> = steps.map(|step| format!("{:?}", state(&step))).collect();
        states.dedup();
        assert_eq!(states.len(), 1, "{states:?}");
        assert!(
            states[0].contains("kubectl rollout status deployment/server -n ml"),
            "{states:?}"
        );
    }

    #[test]
    fn a_rollout_is_complete_when_all_pods_are_new_and_available() {
        let workload = two_replicas().counts(2, 2, 2);
        assert_eq!(state(&workload), RolloutState::Complete);
    }

    #[test]
    fn an_exceeded_deadline_has_the_words_of_the_deployment() {
        let workload = two_replicas().counts(3, 1, 2).condition(
            "Progressing",
            "False",
            "ProgressDeadlineExceeded",
            "ReplicaSet has timed out",
            NOW,
        );
        assert_eq!(
            state(&workload),
            RolloutState::DeadlineExceeded("ReplicaSet has timed out".into())
        );
    }

    #[test]
    fn without_replicas_no_version_is_rolled_out() {
        let workload: Workload<Deployment> = serde_json::from_value(json!({
            "metadata": {"generation": 3}, "spec": {"replicas": 0, "template": {}}, "status": {"observedGeneration": 3}}))
        .expect("a Deployment");
        assert_eq!(Target::from(workload).rollout, RolloutState::ScaledToZero);
    }

    #[test]
    fn a_replica_set_that_cannot_be_created_is_a_refusal_whatever_the_reason() {
        let workload: Workload<Deployment> = serde_json::from_value(json!({
            "metadata": {"generation": 3}, "spec": {"template": {}},
            "status": {"observedGeneration": 2, "conditions": [{"type": "Progressing", "status": "False",
                "reason": "ReplicaSetCreateError", "message": "exceeded quota: sets"}]}}))
        .expect("a Deployment");
        assert_eq!(
            Target::from(workload).refusal.as_deref(),
            Some("exceeded quota: sets")
        );
    }

    #[test]
    fn one_more_pod_needs_the_requests_of_all_containers() {
        let workload: Workload<Deployment> = serde_json::from_value(json!({"metadata": {}, "spec": {"template": {"spec": {
            "containers": [
                {"name": "server", "resources": {"limits": {"example.com/gpu": "1"}, "requests": {"cpu": "500m"}}},
                {"name": "proxy", "resources": {"requests": {"cpu": "100m"}}}]}}}}))
        .expect("a Deployment");
        assert_eq!(
            Target::from(workload).pod_requests(),
            "cpu: 500m + 100m, example.com/gpu: 1"
        );
    }
}
