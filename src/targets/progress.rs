//! How far a Deployment's rollout is, by the same reckoning as `kubectl rollout status`.
//!
//! Absent: pods. Their troubles are the Deployment's own to report.

use super::Workload;

/// How far a rollout is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// All replicas run the newest template and are available.
    Complete,
    /// Under way, with a sentence that stays the same until it is not: a status that counted pods would be written with each.
    Going(String),
    /// The Deployment's controller gave up waiting, with its own words.
    DeadlineExceeded(String),
}

/// How far the workload's rollout is.
#[must_use]
pub fn progress(workload: &Workload) -> Progress {
    if !workload.is_observed() {
        return going(workload);
    }
    if let Some(message) = deadline_exceeded(workload) {
        return Progress::DeadlineExceeded(message);
    }
    count(workload)
}

fn deadline_exceeded(workload: &Workload) -> Option<String> {
    let condition = workload
        .status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Progressing")?;
    let exceeded = condition.reason.as_deref() == Some("ProgressDeadlineExceeded");
    exceeded.then(|| condition.message.clone().unwrap_or_default())
}

fn count(workload: &Workload) -> Progress {
    let status = &workload.status;
    let asked = workload.spec.replicas.unwrap_or(1);
    let updated = status.updated_replicas.unwrap_or_default();
    let all = status.replicas.unwrap_or_default();
    let available = status.available_replicas.unwrap_or_default();
    if updated < asked || all > updated || available < updated {
        return going(workload);
    }
    Progress::Complete
}

fn going(workload: &Workload) -> Progress {
    let name = workload.metadata.name.as_deref().unwrap_or_default();
    Progress::Going(if workload.spec.paused {
        format!("the Deployment is paused: kubectl rollout resume deployment/{name} goes on")
    } else {
        format!("kubectl rollout status deployment/{name} shows how far the Deployment is")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn workload(status: Value) -> Workload {
        serde_json::from_value(json!({
            "metadata": {"generation": 3}, "spec": {"replicas": 2, "template": {}}, "status": status}))
        .expect("a workload")
    }

    #[test]
    fn a_change_that_the_controller_has_not_seen_is_under_way() {
        let seen = workload(
            json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
        );
        assert!(matches!(progress(&seen), Progress::Going(_)));
    }

    #[test]
    fn old_pods_that_still_run_keep_a_rollout_under_way() {
        let old = workload(
            json!({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}),
        );
        assert!(matches!(progress(&old), Progress::Going(_)));
    }

    #[test]
    fn the_sentence_stays_the_same_for_a_whole_rollout() {
        let steps = [
            json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
            json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 0, "availableReplicas": 2}),
            json!({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2}),
            json!({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}),
            json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}),
        ];
        let mut told: Vec<_> = steps
            .into_iter()
            .map(|status| format!("{:?}", progress(&workload(status))))
            .collect();
        told.dedup();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("kubectl rollout status"), "{told:?}");
    }

    #[test]
    fn a_rollout_whose_pods_are_all_new_and_available_is_complete() {
        let done = workload(
            json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
        );
        assert_eq!(progress(&done), Progress::Complete);
    }

    #[test]
    fn an_exceeded_deadline_is_told_in_the_deployments_own_words() {
        let late = workload(
            json!({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 1, "conditions": [
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet has timed out"}]}),
        );
        assert_eq!(
            progress(&late),
            Progress::DeadlineExceeded("ReplicaSet has timed out".into())
        );
    }
}
