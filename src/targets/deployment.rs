//! Deployments: progress by the same rules as `kubectl rollout status`, pods by way of ReplicaSets.
//!
//! Absent: patches. Those are the same for every kind.

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;

use super::target::{Adapter, Deadline, NewestPods, RolloutState, Target};
use super::workload::Workload;
use crate::api::alias_binding::TargetKind;
use crate::api::names;

/// The progress deadline of a Deployment that sets none.
const DEFAULT_DEADLINE: i64 = 600;

impl Adapter for Deployment {
    const KIND: TargetKind = TargetKind::Deployment;

    fn read(workload: Workload<Self>) -> Target {
        let newest_pods = if workload.is_observed() {
            NewestPods::ReplicaSetOfRevision(workload.annotation(names::REVISION_ANNOTATION))
        } else {
            NewestPods::None
        };
        let seconds = workload.spec.progress_deadline_seconds;
        Target {
            kind: Self::KIND,
            replicas: workload.spec.replicas,
            rollout: rollout(&workload),
            deadline: Deadline::Controller {
                after: SignedDuration::from_secs(seconds.map_or(DEFAULT_DEADLINE, i64::from)),
                exceeded: exceeded(&workload),
            },
            newest_pods,
            broken_pods_block: false,
            metadata: workload.metadata,
            template: workload.spec.template,
            owners: workload.owners,
        }
    }
}

fn rollout(workload: &Workload<Deployment>) -> RolloutState {
    if !workload.is_observed() {
        return in_progress(workload);
    }
    if let Some(condition) = deadline_condition(workload) {
        return RolloutState::DeadlineExceeded(condition.message.clone().unwrap_or_default());
    }
    let status = &workload.status;
    let asked = workload.spec.replicas.unwrap_or(1);
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

fn deadline_condition(
    workload: &Workload<Deployment>,
) -> Option<&k8s_openapi::api::apps::v1::DeploymentCondition> {
    let conditions = &workload.status.conditions;
    let progressing = conditions.iter().find(|each| each.type_ == "Progressing")?;
    let is_exceeded = progressing.reason.as_deref() == Some("ProgressDeadlineExceeded");
    is_exceeded.then_some(progressing)
}

fn exceeded(workload: &Workload<Deployment>) -> Option<(jiff::Timestamp, String)> {
    if !workload.is_observed() {
        return None;
    }
    let condition = deadline_condition(workload)?;
    let at = condition.last_transition_time.as_ref();
    let at = at.or(condition.last_update_time.as_ref())?.0;
    let words = condition.message.as_deref();
    Some((
        at,
        words
            .unwrap_or("its progress deadline is exceeded")
            .to_owned(),
    ))
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
}
