//! CronJobs: each Job takes the template of the moment in which it is created, and its end tells how the version did.
//!
//! Absent: pods. A Job retries those that fail, until its own limit is reached.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job as WholeJob, JobCondition};
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Serialize};

use super::metadata::without_managed_fields;
use super::owners::OwnedField;
use super::target::{Abort, Adapter, Capacity, Form, NewestPods, RolloutState, Target};
use super::workload::Workload;
use crate::api::alias_binding::TargetKind;
use crate::api::names;

/// The reason of a Job that ran for longer than it may: nothing tells whether its version is to blame.
const TOO_LONG: &str = "DeadlineExceeded";

/// A Job, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, Resource, Serialize)]
#[resource(inherit = "WholeJob")]
pub struct Job {
    /// Name, labels, owners.
    #[serde(deserialize_with = "without_managed_fields")]
    pub metadata: ObjectMeta,
    /// How it is.
    #[serde(default)]
    pub status: JobStatus,
}

/// A Job's status, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct JobStatus {
    /// Complete, Failed and the rest.
    pub conditions: Vec<JobCondition>,
}

impl Job {
    /// A condition that is True.
    #[must_use]
    pub fn met(&self, type_: &str) -> Option<&JobCondition> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|each| each.type_ == type_ && each.status == "True")
    }
}

impl Adapter for CronJob {
    const KIND: TargetKind = TargetKind::CronJob;

    fn read(mut workload: Workload<Self>) -> Target {
        if let Some(job) = workload.spec.job_template.take() {
            workload.spec.template = job.spec.template;
        }
        // Between two Jobs nothing runs, and nothing is missing.
        let capacity = Capacity {
            has_minimum: true,
            ..Capacity::default()
        };
        let state = (RolloutState::ScaledToZero, capacity);
        Target {
            form: Form::JobTemplate,
            ..workload.target(Self::KIND, state, NewestPods::None)
        }
    }
}

impl Target {
    /// The same with the ends of the Jobs of its version; a kind without Jobs stays as it is.
    #[must_use]
    pub fn with_jobs(mut self, jobs: &[Job]) -> Self {
        if self.form == Form::JobTemplate {
            let ended = jobs.iter().filter_map(|job| self.end_of(job));
            let newest = ended.max_by_key(|(created, _)| *created);
            self.rollout = newest.map_or(RolloutState::ScaledToZero, |(_, end)| end);
        }
        self
    }

    /// How a Job of the template's version ended. A failure from before the version was written was told before.
    fn end_of(&self, job: &Job) -> Option<(Timestamp, RolloutState)> {
        let mut owners = job.metadata.owner_references.iter().flatten();
        let is_own = owners.any(|owner| Some(&owner.uid) == self.metadata.uid.as_ref());
        if !is_own || !self.is_version_of(&job.metadata) {
            return None;
        }
        let created = job.metadata.creation_timestamp.as_ref()?.0;
        if job.met("Complete").is_some() {
            return Some((created, RolloutState::Complete));
        }
        if Some(created) < self.written_at() {
            return None;
        }
        let failed = job.met("Failed")?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (reason, message) = (text(&failed.reason), text(&failed.message));
        let (name, namespace) = (job.name_any(), self.namespace());
        let end = RolloutState::Aborted(Abort {
            words: format!("Job {name} failed: {reason}: {message}"),
            remedy: format!("see why: kubectl logs job/{name} -n {namespace}"),
            is_unmeasured: reason == TOO_LONG,
            settles_in: SignedDuration::ZERO,
        });
        Some((created, end))
    }

    /// When the version was last written.
    fn written_at(&self) -> Option<Timestamp> {
        let field = OwnedField::TemplateAnnotation(names::VERSION_ANNOTATION.to_owned());
        let writers = self.owners.of(&field).iter();
        writers.filter_map(|writer| writer.at).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{DesiredVersion, Injection, holds, patch};
    use crate::testing::{binding, version};
    use serde_json::{Value, json};

    /// The CronJob as the API server has it after a version was written at noon.
    fn holding(number: &str) -> Target {
        let bare = json!({"metadata": {"name": "server", "namespace": "ml", "uid": "c", "resourceVersion": "1"},
            "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {
                "containers": [{"name": "server", "image": "a"}]}}}}}});
        let read = |whole: &Value| -> Target {
            let workload: Workload<CronJob> =
                serde_json::from_value(whole.clone()).expect("a CronJob");
            workload.with_owners().into()
        };
        let before = read(&bare);
        let desired = DesiredVersion {
            version: version(number),
        };
        let injection = Injection::of(&binding(), Some(&before), &desired).expect("an injection");
        let patch = patch(&binding(), Some(&before), &injection).expect("a patch");
        let mut whole = bare;
        whole["metadata"]["labels"] = patch["metadata"]["labels"].clone();
        whole["metadata"]["annotations"] = patch["metadata"]["annotations"].clone();
        let job = patch["spec"]["jobTemplate"].clone();
        assert_eq!(job["metadata"], job["spec"]["template"]["metadata"]);
        whole["spec"]["jobTemplate"] = job;
        let annotations = json!({"f:annotations": {"f:pointsman.dev/model-version": {}}});
        let template = json!({"f:template": {"f:metadata": annotations}});
        let written = json!({"f:spec": {"f:jobTemplate": {"f:spec": template}}});
        whole["metadata"]["managedFields"] = json!([{"manager": "pointsman", "operation": "Apply", "apiVersion": "batch/v1",
            "time": "2026-11-23T12:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": written}]);
        let target = read(&whole);
        assert!(holds(&target, &injection), "the version is in the template");
        target
    }

    fn job(target: &Target, created: &str, condition: &str, reason: &str) -> Job {
        let annotations = &target.template.metadata.annotations;
        serde_json::from_value(json!({
            "metadata": {"name": "server-1", "creationTimestamp": created, "annotations": annotations,
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "server", "uid": "c"}]},
            "status": {"conditions": [{"type": condition, "status": "True", "reason": reason, "message": "told"}]}}))
        .expect("a Job")
    }

    const AFTER: &str = "2026-11-23T12:01:00Z";

    #[test]
    fn a_version_waits_for_a_job_of_its_own() {
        let target = holding("2");
        let waits = |jobs: &[Job]| target.clone().with_jobs(jobs).rollout;
        assert_eq!(waits(&[]), RolloutState::ScaledToZero);
        let of_before = job(&holding("1"), AFTER, "Complete", "");
        assert_eq!(waits(&[of_before]), RolloutState::ScaledToZero);
        let mut of_another = job(&target, AFTER, "Complete", "");
        of_another.metadata.owner_references = None;
        assert_eq!(waits(&[of_another]), RolloutState::ScaledToZero);
        let complete = job(&target, AFTER, "Complete", "");
        assert_eq!(waits(&[complete]), RolloutState::Complete);
    }

    #[test]
    fn the_newest_job_that_ended_decides() {
        let target = holding("2");
        let failed = job(&target, AFTER, "Failed", "BackoffLimitExceeded");
        let complete = job(&target, "2026-11-23T12:02:00Z", "Complete", "");
        let running = job(&target, "2026-11-23T12:03:00Z", "Suspended", "");
        let RolloutState::Aborted(abort) = target
            .clone()
            .with_jobs(std::slice::from_ref(&failed))
            .rollout
        else {
            panic!("not aborted");
        };
        assert_eq!(
            abort.words,
            "Job server-1 failed: BackoffLimitExceeded: told"
        );
        assert!(!abort.is_unmeasured);
        let all = target.with_jobs(&[failed, complete, running]);
        assert_eq!(all.rollout, RolloutState::Complete);
    }

    #[test]
    fn a_job_that_failed_before_the_version_was_written_again_tells_nothing() {
        let target = holding("2");
        let before = job(
            &target,
            "2026-11-23T11:00:00Z",
            "Failed",
            "BackoffLimitExceeded",
        );
        let rollout = target.with_jobs(&[before]).rollout;
        assert_eq!(rollout, RolloutState::ScaledToZero);
    }

    #[test]
    fn a_job_that_took_too_long_blames_no_version() {
        let target = holding("2");
        let too_long = job(&target, AFTER, "Failed", TOO_LONG);
        let RolloutState::Aborted(abort) = target.with_jobs(&[too_long]).rollout else {
            panic!("not aborted");
        };
        assert!(abort.is_unmeasured);
    }
}
