//! Creates the Job that trains a lost version again, once, and reads its status.
//!
//! Absent: the training. The new version is deployed when an alias names it.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job as WholeJob;
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use crate::api::public_uri::without_secrets;
use crate::api::rollback::{RetrainOutcome, RetrainState};
use crate::api::{AliasBinding, Word};
use crate::controllers::binding::apply::{digest, record};
use crate::controllers::context::{Context, labelled};
use crate::kubernetes::failure::{ReconcileError, is_conflict, refusal};
use crate::kubernetes::key::ObjectKey;
use crate::rollout::{Decided, Decision, Resolution, RetrainJob, refused, retrain_job};
use crate::targets::Job;

/// The state of the retrain Job, and when one that was refused is tried again.
pub type Retraining = (Option<RetrainState>, Option<Duration>);

/// Creates the Job if there is no rollback target and it does not exist yet.
///
/// # Errors
/// The API server did not answer.
pub async fn retrain(
    binding: &AliasBinding,
    ctx: &Context,
    resolution: &Resolution,
    decided: &Decided,
) -> Result<Retraining, ReconcileError> {
    let status = binding.status.as_ref();
    let known = status.and_then(|status| status.retrain.clone());
    let is_lost = matches!(decided.decision, Decision::NoRollbackTarget(_));
    let wanted = match (&binding.spec.retrain, &decided.memory.lost) {
        (Some(retrain), Some(lost)) if is_lost => {
            let uri = resolution.tracking_uri.as_deref();
            Some(retrain_job(binding, retrain, uri, lost))
        }
        _ => None,
    };
    match (wanted, known) {
        (Some(job), known) if !is_created(&job, known.as_ref()) => create(binding, ctx, &job).await,
        (_, known) => Ok((known.map(|known| refresh(binding, ctx, known)), None)),
    }
}

fn is_created(job: &RetrainJob, known: Option<&RetrainState>) -> bool {
    known.is_some_and(|known| known.job == job.name && known.outcome != RetrainOutcome::Refused)
}

async fn create(
    binding: &AliasBinding,
    ctx: &Context,
    job: &RetrainJob,
) -> Result<Retraining, ReconcileError> {
    let state = |outcome: RetrainOutcome, message: &str| RetrainState {
        job: job.name.clone(),
        version: job.version.clone(),
        outcome: Word::from(outcome),
        message: without_secrets(message).into_owned(),
    };
    let refused_until =
        |message: &str, retry| (Some(state(RetrainOutcome::Refused, message)), retry);
    let manifest = match serde_json::from_value(job.manifest.clone()) {
        Ok(manifest) => manifest,
        Err(error) => {
            let message = format!("spec.retrain.jobTemplate is no Job: {error}");
            return Ok(refused_until(&message, None));
        }
    };
    if !ctx.settings.features.retrain {
        let message = "this operator creates no Jobs: set features.retrain=true in the values of its chart (option --features)";
        return Ok(refused_until(message, None));
    }
    let own = ObjectKey::of(binding);
    let write = digest(&(&job.name, binding.metadata.generation));
    if let Some((problem, wait)) = ctx.refused_writes.pending(&own, write, Instant::now()) {
        return Ok(refused_until(&problem.message, Some(wait)));
    }
    let jobs: Api<WholeJob> = Api::namespaced(ctx.client.clone(), own.namespace());
    match jobs.create(&PostParams::default(), &manifest).await {
        Ok(_) => tracing::info!(
            namespace = own.namespace(),
            binding = own.name(),
            job = job.name,
            version = job.version,
            "created the Job that trains a lost version again"
        ),
        // Created by a reconcile that ended before it wrote the status.
        Err(error) if is_conflict(&error) => {}
        Err(error) => {
            let Some(answer) = refusal(&error) else {
                let doing = "creating the Job that trains a lost version again";
                return Err(ReconcileError::when(doing)(error));
            };
            let problem = refused(binding, "the Job is not created", answer);
            let effect = record(ctx, &own, write, problem.clone());
            return Ok(refused_until(&problem.message, effect.retry));
        }
    }
    ctx.refused_writes.forget(&own);
    Ok((Some(state(RetrainOutcome::Running, "")), None))
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
    match (job.met("Complete"), job.met("Failed")) {
        (Some(_), _) => (RetrainOutcome::Succeeded, String::new()),
        (None, Some(failed)) => (
            RetrainOutcome::Failed,
            failed.message.clone().unwrap_or_default(),
        ),
        (None, None) => (RetrainOutcome::Running, String::new()),
    }
}
