//! The controller of `AliasBinding`: observe → decide → build → apply → summarize → publish.
//!
//! Absent: an exit before the status is written, except if the Kubernetes API fails.

pub mod artifact_checks;
pub mod check_cache;
mod publish;
pub mod retrain_job;
pub mod target_client;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{Api, ResourceExt};

use crate::api::reason::Problem;
use crate::api::{AliasBinding, AliasBindingStatus, Reason};
use crate::controllers::binding::artifact_checks::request;
use crate::controllers::binding::check_cache::BRIEF;
use crate::controllers::binding::publish::publish;
use crate::controllers::binding::retrain_job::retrain;
use crate::controllers::cached::registry_of;
use crate::controllers::context::{Context, labelled};
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::status::StatusWrite;
use crate::kubernetes::work_queue::Requeue;
use crate::rollout::{
    self, Applied, CheckResults, Claim, Decided, Decision, Observed, Reconciled, Resolution,
    Waiting, decide, needed_checks, resolve, summarize,
};
use crate::targets::{
    Injection, Pod, ReplicaSet, Target, blocking_pods, newest_pods, patch, template_changed,
};

/// Everything that a reconcile reads before it decides, but for the artifact checks.
struct Observation {
    own: ObjectKey,
    registry: Option<ObjectKey>,
    resolution: Resolution,
    target: Option<Target>,
    claim: Option<Claim>,
    pods: Vec<Pod>,
    replica_sets: Vec<ReplicaSet>,
}

/// One reconcile of a binding.
///
/// # Errors
/// The API server's error. Everything else is a value that reaches the status.
pub async fn reconcile(
    binding: Arc<AliasBinding>,
    ctx: Arc<Context>,
) -> Result<Requeue, ReconcileError> {
    if binding.metadata.deletion_timestamp.is_some() {
        // delete_is_harmless: a target keeps its fields, and the garbage collector deletes an owned Deployment.
        return Ok(Requeue::await_change());
    }
    let observation = observe(&binding, &ctx).await?;
    let newest = observation.newest_pods();
    let nothing = CheckResults::new();
    let observed = observation.observed(&binding, &newest, &nothing);
    let now = Timestamp::now();
    let needed = needed_checks(&binding, &observed, now);
    let registry = observation
        .registry
        .clone()
        .unwrap_or_else(|| observation.own.clone());
    let also = observation.resolution.forward_check();
    let checks = request(&ctx, &registry, &observation.own, &needed, also.as_ref());
    if checks.is_brief_wait {
        // The result enqueues the binding; until then nothing is worth a write.
        return Ok(Requeue::after(BRIEF));
    }
    let observed = Observed {
        checks: &checks.results,
        ..observed
    };
    let decided = match disabled_kind(&binding, &ctx) {
        Some(problem) => Decided::unreadable_target(&binding, problem),
        None => decide(&binding, &observed, now),
    };
    let (target, failure) = apply(&binding, &ctx, &observation, &decided).await?;
    let retrain = retrain(&binding, &ctx, &observation.resolution, &decided).await?;
    let applied = Applied {
        target: target.as_ref().or(observation.target.as_ref()),
        failure,
        retrain,
    };
    let reconciled = Reconciled {
        resolution: &observation.resolution,
        checks: &checks.results,
        decided: &decided,
        applied: &applied,
    };
    let status = summarize(&binding, &reconciled, now);
    let requeue = requeue(&decided, applied.failure.as_ref(), now);
    write_status(Arc::unwrap_or_clone(binding), &ctx, status).await?;
    Ok(requeue)
}

impl Observation {
    fn newest_pods(&self) -> Vec<&Pod> {
        let Some(target) = &self.target else {
            return Vec::new();
        };
        newest_pods(target, &self.replica_sets, &self.pods)
    }

    fn observed<'a>(
        &'a self,
        binding: &AliasBinding,
        pods: &'a [&'a Pod],
        checks: &'a CheckResults,
    ) -> Observed<'a> {
        Observed {
            resolution: &self.resolution,
            target: self.target.as_ref(),
            pods,
            claim: self.claim.as_ref(),
            template_changed: template_changed(binding, self.target.as_ref()),
            checks,
        }
    }
}

async fn observe(binding: &AliasBinding, ctx: &Context) -> Result<Observation, ReconcileError> {
    let own = ObjectKey::of(binding);
    let model = ctx
        .stores
        .model(own.namespace(), &binding.spec.model_ref.name);
    let key = ObjectKey::new(own.namespace(), binding.workload_name());
    let target = match disabled_kind(binding, ctx) {
        Some(_) => None,
        None => target_client::read(ctx, binding.target_kind(), &key).await?,
    };
    let rivals = rivals(binding, ctx, target.as_ref()).await?;
    let rivals: Vec<&AliasBinding> = rivals.iter().collect();
    Ok(Observation {
        registry: model.as_ref().map(registry_of),
        resolution: resolve(binding, model.as_ref()),
        claim: unreadable_holder(ctx, &own, target.as_ref())
            .or_else(|| rollout::claim(binding, &rivals, target.as_ref())),
        pods: labelled(&ctx.stores.pods, &own),
        replica_sets: labelled(&ctx.stores.replica_sets, &own),
        target,
        own,
    })
}

/// Why the kind of a binding's workload cannot be driven, if it is not switched on.
fn disabled_kind(binding: &AliasBinding, ctx: &Context) -> Option<Problem> {
    let kind = binding.target_kind();
    if ctx.settings.targets.contains(&kind) {
        return None;
    }
    let message = format!(
        "this operator does not drive {kind}s: switch them on in the chart's values, under targets (option --targets)"
    );
    Some(Problem::new(Reason::InvalidSpec, message))
}

/// The binding in the workload's label, if it exists and cannot be decoded: it may still want its workload.
fn unreadable_holder(ctx: &Context, own: &ObjectKey, target: Option<&Target>) -> Option<Claim> {
    let labelled = target?.binding()?;
    let key = ObjectKey::new(own.namespace(), labelled);
    let bindings = &ctx.stores.bindings;
    if key == *own || bindings.has(&key) || !bindings.is_unreadable(&key) {
        return None;
    }
    let holder = format!("AliasBinding {labelled}, which cannot be read");
    Some(Claim::Binding(holder))
}

/// The other bindings that want to drive the same workload. In a shard the one in its label may belong to another shard.
async fn rivals(
    binding: &AliasBinding,
    ctx: &Context,
    target: Option<&Target>,
) -> Result<Vec<AliasBinding>, ReconcileError> {
    let (own, kind, workload) = (
        ObjectKey::of(binding),
        binding.target_kind(),
        binding.workload_name(),
    );
    let mut rivals = ctx.stores.rivals(&own, kind, workload);
    let Some(labelled) = target.and_then(Target::binding) else {
        return Ok(rivals);
    };
    let is_known = labelled == own.name()
        || ctx
            .stores
            .bindings
            .has(&ObjectKey::new(own.namespace(), labelled));
    if is_known || !ctx.settings.is_sharded() {
        return Ok(rivals);
    }
    let api: Api<AliasBinding> = Api::namespaced(ctx.client.clone(), own.namespace());
    let found = api.get_opt(labelled).await;
    let found = found.map_err(ReconcileError::when("reading a binding of another shard"))?;
    rivals.extend(
        found.filter(|found| found.workload_name() == workload && found.target_kind() == kind),
    );
    Ok(rivals)
}

/// Carries out a decision; returns the workload if it was written. An answer of the API server that refuses it is a value.
async fn apply(
    binding: &AliasBinding,
    ctx: &Context,
    observation: &Observation,
    decided: &Decided,
) -> Result<(Option<Target>, Option<Problem>), ReconcileError> {
    match &decided.decision {
        Decision::Write(injection, _) => write(binding, ctx, observation, injection).await,
        Decision::Settled(_) => {
            unblock(ctx, observation).await?;
            Ok((None, None))
        }
        Decision::Suspended(_)
        | Decision::Claimed(_)
        | Decision::Held(_)
        | Decision::RecordFailure(_)
        | Decision::Waiting(_)
        | Decision::NoRollbackTarget(_) => Ok((None, None)),
    }
}

/// Deletes the broken pods of older templates that block the rollout of the version that is written.
async fn unblock(ctx: &Context, observation: &Observation) -> Result<(), ReconcileError> {
    let Some(target) = &observation.target else {
        return Ok(());
    };
    if target.is_complete() {
        return Ok(());
    }
    for pod in blocking_pods(target, &observation.pods) {
        target_client::delete_pod(ctx, pod).await?;
    }
    Ok(())
}

async fn write(
    binding: &AliasBinding,
    ctx: &Context,
    observation: &Observation,
    injection: &Injection,
) -> Result<(Option<Target>, Option<Problem>), ReconcileError> {
    let kind = binding.target_kind();
    let key = ObjectKey::new(observation.own.namespace(), binding.workload_name());
    // Nothing is written to a target that does not exist: `decide` waits for it.
    let Some(patch) = patch(binding, observation.target.as_ref(), injection) else {
        return Ok((None, None));
    };
    match target_client::apply(ctx, kind, &key, patch).await {
        Ok(written) => {
            count(binding, ctx, observation, injection);
            tracing::info!(
                namespace = key.namespace(),
                binding = binding.name_any(),
                workload = written.reference(),
                version = injection.version,
                "wrote a version into the workload"
            );
            Ok((Some(written), None))
        }
        Err(kube::Error::Api(answer)) if answer.code != 409 && answer.code < 500 => {
            let reason = match answer.code {
                400 | 422 => Reason::InvalidSpec,
                _ => Reason::ApplyRefused,
            };
            let message = format!("the API server refused the {kind}: {}", answer.message);
            Ok((None, Some(Problem::new(reason, message))))
        }
        Err(error) => Err(ReconcileError::when("writing the workload")(error)),
    }
}

fn count(binding: &AliasBinding, ctx: &Context, observation: &Observation, injection: &Injection) {
    ctx.metrics.workload_patches.inc();
    if observation.resolution.alias.as_deref() == Some(injection.version.as_str()) {
        ctx.metrics
            .count_patch(binding, injection, first_seen(ctx, observation));
    }
}

/// When a poll or webhook first showed the present state of the binding's model.
fn first_seen(ctx: &Context, observation: &Observation) -> Option<Instant> {
    let (registry, model) = (
        observation.registry.as_ref()?,
        observation.resolution.model.as_ref()?,
    );
    ctx.registries.of(registry).snapshots.changed_at(model)
}

/// When to reconcile again, although nothing may have changed by then.
fn requeue(decided: &Decided, failure: Option<&Problem>, now: Timestamp) -> Requeue {
    let until =
        |moment: Timestamp| Duration::try_from(moment.duration_since(now)).unwrap_or_default();
    let problem = failure.or(match &decided.decision {
        Decision::Waiting(
            Waiting::Unresolved(problem) | Waiting::Target(problem) | Waiting::Gate { problem, .. },
        )
        | Decision::Claimed(problem)
        | Decision::NoRollbackTarget(problem) => Some(problem),
        _ => None,
    });
    let retry = problem.and_then(|problem| problem.reason.class().retry());
    let moments = [decided.look_again.map(until), retry];
    let soonest = moments.into_iter().flatten().min();
    soonest.map_or_else(Requeue::await_change, Requeue::after)
}

async fn write_status(
    mut binding: AliasBinding,
    ctx: &Context,
    new: AliasBindingStatus,
) -> Result<(), ReconcileError> {
    if binding.status.as_ref() == Some(&new) {
        return Ok(());
    }
    let old = binding.status.replace(new).unwrap_or_default();
    match ctx.write_status(&ctx.stores.bindings, &binding).await? {
        // The next reconcile acts on the written status: a failure is recorded before the rollback.
        StatusWrite::Changed => ctx.queues.bindings.enqueue(ObjectKey::of(&binding)),
        StatusWrite::Unchanged => return Ok(()),
        StatusWrite::Gone => {}
    }
    publish(&binding, ctx, &old);
    Ok(())
}
