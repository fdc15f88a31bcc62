//! Carries out a decision: writes the workload, or deletes the broken pods that block its rollout.
//!
//! Absent: the decision, and the status. A request that the API server refuses, or that an admission policy changes, is a value.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::core::Status;

use crate::api::reason::Problem;
use crate::api::{AliasBinding, names};
use crate::controllers::binding::target_client;
use crate::controllers::binding::withheld_query::{Written, completed};
use crate::controllers::context::Context;
use crate::kubernetes::failure::{ReconcileError, refusal};
use crate::kubernetes::key::ObjectKey;
use crate::rollout::{Decision, Resolution, altered, refused, undone};
use crate::targets::{Injection, Pod, Target, blocking_pods, keep, patch, template_changed};

/// What is carried out, and for which objects.
pub struct Plan<'a> {
    /// The binding.
    pub binding: &'a AliasBinding,
    /// Its key.
    pub own: &'a ObjectKey,
    /// The decision.
    pub decision: &'a Decision,
    /// The workload as it was when that was decided.
    pub target: Option<&'a Target>,
    /// The pods with the binding's label.
    pub pods: &'a [Pod],
    /// What the mirror says.
    pub resolution: &'a Resolution,
    /// The registry of the binding's model.
    pub registry: Option<&'a ObjectKey>,
}

impl<'a> Plan<'a> {
    fn written(&self, injection: &'a Injection) -> Written<'a> {
        Written {
            own: self.own,
            registry: self.registry,
            model: self.resolution.model.as_deref(),
            target: self.target,
            injection,
        }
    }
}

/// The result of carrying out a decision.
#[derive(Default)]
pub struct Effect {
    /// The workload as it is after the write; `None` if nothing was written.
    pub target: Option<Target>,
    /// Why it was not carried out.
    pub failure: Option<Problem>,
    /// When it is tried again, if it was not carried out.
    pub retry: Option<Duration>,
}

impl Effect {
    fn failed(failure: Problem, retry: Duration) -> Self {
        Self {
            target: None,
            failure: Some(failure),
            retry: Some(retry),
        }
    }
}

/// Carries out a decision.
pub async fn apply(ctx: &Context, plan: &Plan<'_>) -> Result<Effect, ReconcileError> {
    let effect = match plan.decision {
        Decision::Write(injection, _) => write(ctx, plan, injection).await?,
        Decision::Settled(_) => {
            keep_brought_back(ctx, plan).await?;
            unblock(ctx, plan).await?
        }
        Decision::Suspended(_)
        | Decision::Held(_)
        | Decision::Record(_)
        | Decision::Waiting(_)
        | Decision::NoRollbackTarget(_) => {
            keep_brought_back(ctx, plan).await?;
            return Ok(Effect::default());
        }
        Decision::Claimed(_) => return Ok(Effect::default()),
    };
    let was_refused = effect.failure.is_none() && ctx.refused_writes.forget(plan.own);
    if was_refused && effect.target.is_some() {
        let others = ctx.refused_writes.release(Instant::now());
        ctx.queues.bindings.enqueue_all(others);
    }
    Ok(effect)
}

/// Becomes an owner of the fields of a version that a person brought back; their values stay.
async fn keep_brought_back(ctx: &Context, plan: &Plan<'_>) -> Result<(), ReconcileError> {
    let (binding, own) = (plan.binding, plan.own);
    let patch = plan.target.and_then(keep);
    let (Some(patch), None) = (patch, &binding.spec.template) else {
        return Ok(());
    };
    let key = ObjectKey::new(own.namespace(), binding.workload_name());
    match target_client::apply(ctx, binding, &key, patch).await {
        Ok(_) => Ok(()),
        Err(error) if refusal(&error).is_some() => {
            tracing::warn!(
                namespace = own.namespace(), binding = own.name(), %error,
                "the fields that a person brought back have no owner beside that person"
            );
            Ok(())
        }
        Err(error) => Err(ReconcileError::when("keeping a person's change")(error)),
    }
}

/// Deletes the broken pods of older templates that block the rollout of the version that is written.
async fn unblock(ctx: &Context, plan: &Plan<'_>) -> Result<Effect, ReconcileError> {
    let Some(target) = plan.target.filter(|target| !target.is_complete()) else {
        return Ok(Effect::default());
    };
    for pod in blocking_pods(target, plan.pods) {
        let digest = digest(&pod.metadata.uid);
        if let Some(effect) = still_refused(ctx, plan.own, digest) {
            return Ok(effect);
        }
        if let Err(error) = target_client::delete_pod(ctx, pod).await {
            let effect = format!("pod {} is not deleted", pod.name_any());
            let doing = "deleting a broken pod";
            return record_refusal(ctx, plan.binding, digest, &effect, doing, error);
        }
    }
    Ok(Effect::default())
}

async fn write(
    ctx: &Context,
    plan: &Plan<'_>,
    injection: &Injection,
) -> Result<Effect, ReconcileError> {
    let Plan {
        binding,
        own,
        target,
        ..
    } = *plan;
    let digest = write_digest(binding, target, injection);
    if let Some(effect) = still_refused(ctx, own, digest) {
        return Ok(effect);
    }
    let whole = match completed(ctx, &plan.written(injection)).await {
        Ok(whole) => whole,
        Err(problem) => return Ok(record(ctx, own, digest, problem)),
    };
    let key = ObjectKey::new(own.namespace(), binding.workload_name());
    if let Some(effect) = still_undone(ctx, plan, injection) {
        return Ok(effect);
    }
    // Nothing is written to a target that does not exist: `decide` waits for it.
    let Some(patch) = patch(binding, target, &whole) else {
        return Ok(Effect::default());
    };
    let written = match target_client::apply(ctx, binding, &key, patch).await {
        Ok(written) => written,
        Err(error) => {
            let doing = "writing the workload";
            return record_refusal(ctx, binding, digest, "not written", doing, error);
        }
    };
    let has_template_digest = !template_changed(binding, Some(&written));
    let Some(problem) = altered(binding, &written, injection, has_template_digest) else {
        return Ok(accepted(ctx, plan, injection, written));
    };
    // The digest of the workload as the policy left it: another change of it is tried at once.
    let digest = write_digest(binding, Some(&written), injection);
    let effect = record(ctx, own, digest, problem);
    Ok(Effect {
        target: Some(written),
        ..effect
    })
}

/// The effect of a write that the API server accepted as it was sent.
fn accepted(ctx: &Context, plan: &Plan<'_>, injection: &Injection, written: Target) -> Effect {
    count(ctx, plan, injection);
    tracing::info!(
        namespace = plan.own.namespace(),
        binding = plan.own.name(),
        workload = written.reference(),
        version = injection.version,
        "wrote a version into the workload"
    );
    let repetition = repetition(plan.binding, injection);
    let wait = ctx
        .repeated_writes
        .record(plan.own, repetition, Instant::now());
    let undone_on = wait.and(plan.target);
    Effect {
        failure: undone_on.map(|target| undone(plan.binding, target)),
        target: Some(written),
        retry: wait,
    }
}

/// The failure of a write that is not to be repeated yet.
fn still_refused(ctx: &Context, own: &ObjectKey, digest: u64) -> Option<Effect> {
    let (problem, wait) = ctx.refused_writes.pending(own, digest, Instant::now())?;
    Some(Effect::failed(problem, wait))
}

/// The failure of a write that somebody undoes again and again, until it is due.
fn still_undone(ctx: &Context, plan: &Plan<'_>, injection: &Injection) -> Option<Effect> {
    let writes = &ctx.repeated_writes;
    let wait = writes.pending(
        plan.own,
        repetition(plan.binding, injection),
        Instant::now(),
    )?;
    Some(Effect::failed(undone(plan.binding, plan.target?), wait))
}

/// A digest by which the same write is recognized, whatever the workload has become since.
fn repetition(binding: &AliasBinding, injection: &Injection) -> u64 {
    digest(&(binding.metadata.generation, format!("{injection:?}")))
}

/// A refusal as a value. A conflict and an API server that does not answer are errors.
fn record_refusal(
    ctx: &Context,
    binding: &AliasBinding,
    digest: u64,
    effect: &str,
    doing: &'static str,
    error: kube::Error,
) -> Result<Effect, ReconcileError> {
    let Some(answer) = refusal(&error) else {
        return Err(ReconcileError::when(doing)(error));
    };
    let problem = refused(binding, effect, answer);
    Ok(record(ctx, &ObjectKey::of(binding), digest, problem))
}

/// Records a write that was refused or changed; it is repeated later.
pub fn record(ctx: &Context, own: &ObjectKey, digest: u64, problem: Problem) -> Effect {
    let now = Instant::now();
    let retry = ctx.refused_writes.record(own, digest, problem.clone(), now);
    tracing::warn!(
        namespace = own.namespace(), binding = own.name(), reason = %problem.reason, message = problem.message,
        seconds = retry.as_secs(), "a write was refused or changed; it is tried again"
    );
    Effect::failed(problem, retry)
}

/// The effect if the API server does not let the operator read the workload.
pub fn unreadable(ctx: &Context, binding: &AliasBinding, answer: &Status) -> Effect {
    let problem = refused(binding, "the workload is not readable", answer);
    record(ctx, &ObjectKey::of(binding), digest(&"read"), problem)
}

/// A digest of a write and of the objects that it is made for: if it changes, so may the API server's answer. Of the workload
/// only those parts count that its own controller does not write.
fn write_digest(binding: &AliasBinding, target: Option<&Target>, injection: &Injection) -> u64 {
    let of_binding = (
        binding.metadata.generation,
        &binding.metadata.annotations,
        format!("{injection:?}"),
    );
    let of_target = target.map(|target| {
        let metadata = &target.metadata;
        let annotations = metadata.annotations.iter().flatten();
        let of_controllers = names::CONTROLLER_PREFIXES;
        let users = |name: &str| !of_controllers.iter().any(|prefix| name.starts_with(prefix));
        let annotations: Vec<_> = annotations.filter(|(name, _)| users(name)).collect();
        (
            &metadata.uid,
            metadata.generation,
            &metadata.labels,
            format!("{annotations:?}"),
        )
    });
    digest(&(of_binding, of_target))
}

/// A digest by which a write is recognized within this process.
pub fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn count(ctx: &Context, plan: &Plan<'_>, injection: &Injection) {
    ctx.metrics.workload_patches.inc();
    if plan.resolution.alias.as_deref() == Some(injection.version.as_str()) {
        ctx.metrics
            .count_patch(plan.binding, injection, first_seen(ctx, plan));
    }
}

/// When a poll or webhook first showed the present state of the binding's model.
fn first_seen(ctx: &Context, plan: &Plan<'_>) -> Option<Instant> {
    let (registry, model) = (plan.registry?, plan.resolution.model.as_ref()?);
    ctx.registries.of(registry).snapshots.changed_at(model)
}
