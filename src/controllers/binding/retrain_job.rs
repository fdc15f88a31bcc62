//! Creates the Job that trains a lost version again, once, and reads its status.
//!
//! Absent: the training. The new version is deployed when an alias names it.

use k8s_openapi::api::batch::v1::Job as WholeJob;
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use crate::api::public_uri::without_secrets;
use crate::api::rollback::{RetrainOutcome, RetrainState};
use crate::api::{AliasBinding, Word};
use crate::controllers::context::{Context, labelled};
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::rollout::{Decided, Decision, Job, Resolution, RetrainJob, retrain_job};

/// The state of the retrain Job; the Job is created if there is no rollback target and it does not exist yet.
pub async fn retrain(
    binding: &AliasBinding,
    ctx: &Context,
    resolution: &Resolution,
    decided: &Decided,
) -> Result<Option<RetrainState>, ReconcileError> {
    let known = binding
        .status
        .as_ref()
        .and_then(|status| status.retrain.clone());
    let is_lost = matches!(decided.decision, Decision::NoRollbackTarget(_));
    let wanted = match (&binding.spec.retrain, &decided.memory.lost) {
        (Some(retrain), Some(lost)) if is_lost => {
            let model = resolution.model.clone().unwrap_or_default();
            Some(retrain_job(
                binding,
                retrain,
                &model,
                resolution.tracking_uri.as_deref(),
                lost,
            ))
        }
        _ => None,
    };
    match (wanted, known) {
        (Some(job), known) if !is_begun(binding, &job, known.as_ref()) => {
            begin(binding, ctx, job).await.map(Some)
        }
        (_, known) => Ok(known.map(|known| refresh(binding, ctx, known))),
    }
}

/// Whether the Job was created, or refused for the spec as it is.
fn is_begun(binding: &AliasBinding, job: &RetrainJob, known: Option<&RetrainState>) -> bool {
    let Some(known) = known.filter(|known| known.job == job.name) else {
        return false;
    };
    known.outcome != RetrainOutcome::Refused || known.spec_generation == binding.metadata.generation
}

async fn begin(
    binding: &AliasBinding,
    ctx: &Context,
    job: RetrainJob,
) -> Result<RetrainState, ReconcileError> {
    let jobs: Api<WholeJob> =
        Api::namespaced(ctx.client.clone(), &binding.namespace().unwrap_or_default());
    let state = |outcome: RetrainOutcome, message: String| RetrainState {
        job: job.name.clone(),
        version: job.version.clone(),
        outcome: Word::from(outcome),
        message: without_secrets(&message).into_owned(),
        spec_generation: binding.metadata.generation,
    };
    let manifest = match serde_json::from_value(job.manifest.clone()) {
        Ok(manifest) => manifest,
        Err(error) => {
            return Ok(state(
                RetrainOutcome::Refused,
                format!("spec.retrain.jobTemplate is no Job: {error}"),
            ));
        }
    };
    match jobs.create(&PostParams::default(), &manifest).await {
        Ok(_) => {
            tracing::info!(
                binding = binding.name_any(),
                job = job.name,
                version = job.version,
                "began to train a lost version again"
            );
            Ok(state(RetrainOutcome::Running, String::new()))
        }
        // Made by a pass that was cut short before it could say so.
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            Ok(state(RetrainOutcome::Running, String::new()))
        }
        Err(kube::Error::Api(answer)) if answer.code < 500 => {
            Ok(state(RetrainOutcome::Refused, answer.message.clone()))
        }
        Err(error) => Err(ReconcileError::when("making the Job that trains again")(
            error,
        )),
    }
}

/// The state in the Job's status; the known state if the Job is gone.
fn refresh(binding: &AliasBinding, ctx: &Context, known: RetrainState) -> RetrainState {
    let jobs = labelled(&ctx.stores.jobs, &ObjectKey::of(binding));
    let Some(job) = jobs.iter().find(|job| job.name_any() == known.job) else {
        return known;
    };
    let (outcome, message) = outcome(job);
    RetrainState {
        outcome: outcome.into(),
        message: without_secrets(&message).into_owned(),
        ..known
    }
}

fn outcome(job: &Job) -> (RetrainOutcome, String) {
    let is = |type_: &str| {
        job.status
            .conditions
            .iter()
            .find(|each| each.type_ == type_ && each.status == "True")
    };
    match (is("Complete"), is("Failed")) {
        (Some(_), _) => (RetrainOutcome::Succeeded, String::new()),
        (None, Some(failed)) => (
            RetrainOutcome::Failed,
            failed.message.clone().unwrap_or_default(),
        ),
        (None, None) => (RetrainOutcome::Running, String::new()),
    }
}
