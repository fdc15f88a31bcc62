//! The controller of `AliasBinding`: observe → decide → build → apply → summarize → publish.
//!
//! Absent: an exit before the status is written, except if the Kubernetes API fails.

mod apply;
pub mod artifact_checks;
pub mod check_permits;
pub mod object_events;
mod publish;
pub mod refused_writes;
pub mod repeated_writes;
pub mod retrain_job;
pub mod target_client;
mod withheld_query;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Api;

use crate::api::alias_binding::TargetKind;
use crate::api::reason::Problem;
use crate::api::{AliasBinding, AliasBindingStatus, ModelRegistry, Reason, RegisteredModel};
use crate::controllers::binding::apply::{Plan, apply, unreadable};
use crate::controllers::binding::artifact_checks::request;
use crate::controllers::binding::object_events::warnings;
use crate::controllers::binding::publish::publish;
use crate::controllers::binding::retrain_job::retrain;
use crate::controllers::cached::registry_of;
use crate::controllers::context::{Context, labelled};
use crate::controllers::freezes::freeze;
use crate::controllers::registry::access::access;
use crate::controllers::registry::state::artifact_cache::BRIEF;
use crate::kubernetes::failure::{ReconcileError, is_missing_kind, refusal};
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::status::StatusWrite;
use crate::kubernetes::work_queue::Requeue;
use crate::rollout::{
    self, Applied, CheckResults, Claim, Decided, Decision, Freeze, Observed, Reconciled,
    Resolution, Waiting, Warnings, decide, needed_checks, resolve, summarize, unexplained,
};
use crate::targets::{Job, Pod, ReplicaSet, Target, newest_pods, template_changed};

/// How soon a workload that is gone is looked for again.
const REPLACED_AFTER: Duration = Duration::from_secs(5);

/// Everything that a reconcile reads before it decides, but for the artifact checks.
struct Observation {
    own: ObjectKey,
    registry: Option<ObjectKey>,
    resolution: Resolution,
    target: Option<Target>,
    /// Why the workload cannot be read, and when that is tried again.
    unreadable: Option<(Problem, Option<Duration>)>,
    claim: Option<Claim>,
    pods: Vec<Pod>,
    replica_sets: Vec<ReplicaSet>,
    freeze: Option<Freeze>,
    jobs: Vec<Job>,
    records_approver: bool,
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
    let now = Timestamp::now();
    let newest = observation.newest_pods();
    let nothing = (Warnings::new(), CheckResults::new());
    let observed = observation.observed(&binding, &newest, &nothing);
    let (warnings, next_read) = explain(&binding, &ctx, &observed, now).await;
    let observed = Observed {
        warnings: &warnings,
        ..observed
    };
    let needed = needed_checks(&binding, &observed, now);
    let registry = observation.registry.as_ref();
    let also = observation.resolution.forward_check();
    let checks = request(&ctx, registry, &observation.own, &needed, also.as_ref());
    if checks.is_brief_wait {
        // The result enqueues the binding; until then nothing is worth a write.
        return Ok(Requeue::after(BRIEF));
    }
    let observed = Observed {
        checks: &checks.results,
        ..observed
    };
    let decided = match &observation.unreadable {
        Some((problem, _)) => Decided::unreadable_target(&binding, problem.clone()),
        None => decide(&binding, &observed, now),
    };
    let effect = apply(&ctx, &observation.plan(&binding, &decided.decision)).await?;
    let (retrain, retrain_retry) =
        retrain(&binding, &ctx, &observation.resolution, &decided).await?;
    let written = effect.target;
    let written = written.map(|target| target.with_jobs(&observation.jobs));
    let applied = Applied {
        target: written.as_ref().or(observation.target.as_ref()),
        failure: effect.failure,
        retrain,
    };
    let reconciled = Reconciled {
        resolution: &observation.resolution,
        checks: &checks.results,
        decided: &decided,
        applied: &applied,
    };
    let status = summarize(&binding, &reconciled, now);
    let retry = effect.retry.or(retrain_retry);
    let retry = retry.or(observation.retry(&binding));
    let requeue = requeue(&decided, retry, next_read, now);
    write_status(Arc::unwrap_or_clone(binding), &ctx, status).await?;
    Ok(requeue)
}

impl Observation {
    /// When the workload is read again. One that is deleted and made again has no label of ours, so no watch shows it.
    fn retry(&self, binding: &AliasBinding) -> Option<Duration> {
        if let Some((_, retry)) = &self.unreadable {
            return *retry;
        }
        let has_run = binding
            .status
            .as_ref()
            .is_some_and(|status| status.current().is_some());
        let is_gone = self.target.is_none() && binding.spec.template.is_none() && has_run;
        is_gone.then_some(REPLACED_AFTER)
    }

    fn plan<'a>(&'a self, binding: &'a AliasBinding, decision: &'a Decision) -> Plan<'a> {
        Plan {
            binding,
            own: &self.own,
            decision,
            target: self.target.as_ref(),
            pods: &self.pods,
            resolution: &self.resolution,
            registry: self.registry.as_ref(),
        }
    }

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
        (warnings, checks): &'a (Warnings, CheckResults),
    ) -> Observed<'a> {
        Observed {
            resolution: &self.resolution,
            target: self.target.as_ref(),
            pods,
            warnings,
            claim: self.claim.as_ref(),
            template_changed: template_changed(binding, self.target.as_ref()),
            checks,
            freeze: self.freeze.as_ref(),
            records_approver: self.records_approver,
        }
    }
}

async fn observe(binding: &AliasBinding, ctx: &Context) -> Result<Observation, ReconcileError> {
    let own = ObjectKey::of(binding);
    let model = ctx
        .stores
        .model(own.namespace(), &binding.spec.model_ref.name);
    let key = ObjectKey::new(own.namespace(), binding.workload_name());
    let (target, unreadable) = read_target(binding, ctx, &key).await?;
    let jobs = labelled(&ctx.stores.jobs, &own);
    let target = target.map(|target| target.with_jobs(&jobs));
    let rivals = rivals(binding, ctx, target.as_ref()).await?;
    let rivals: Vec<&AliasBinding> = rivals.iter().collect();
    let usable = usable_registry(model.as_ref(), ctx);
    let registry = usable.as_ref().map(ObjectKey::of);
    let outage = registry
        .as_ref()
        .and_then(|registry| ctx.registries.of(registry).connection.outage());
    Ok(Observation {
        registry,
        resolution: resolve(binding, model.as_ref()).in_outage(outage),
        claim: unreadable_holder(ctx, &own, target.as_ref())
            .or_else(|| rollout::claim(binding, &rivals, target.as_ref())),
        pods: labelled(&ctx.stores.pods, &own),
        replica_sets: labelled(&ctx.stores.replica_sets, &own),
        freeze: freeze(ctx, binding, usable.as_ref()),
        records_approver: ctx.settings.records_approver,
        jobs,
        target,
        unreadable,
        own,
    })
}

/// The workload, or why it cannot be read and when that is tried again.
async fn read_target(
    binding: &AliasBinding,
    ctx: &Context,
    key: &ObjectKey,
) -> Result<(Option<Target>, Option<(Problem, Option<Duration>)>), ReconcileError> {
    if let Some(problem) = disabled_kind(binding, ctx) {
        return Ok((None, Some((problem, None))));
    }
    match target_client::read(ctx, binding, key).await {
        Ok(target) => Ok((target, None)),
        Err(error) if is_missing_kind(&error) => {
            let problem = missing_kind(binding);
            let retry = problem.reason.class().retry();
            Ok((None, Some((problem, retry))))
        }
        Err(error) => match refusal(&error) {
            Some(answer) => {
                let effect = unreadable(ctx, binding, answer);
                Ok((None, effect.failure.map(|problem| (problem, effect.retry))))
            }
            None => Err(ReconcileError::when("reading the workload")(error)),
        },
    }
}

/// The Warning Events about objects whose wait nothing else explains, and after what time they are worth reading again.
async fn explain(
    binding: &AliasBinding,
    ctx: &Context,
    observed: &Observed<'_>,
    now: Timestamp,
) -> (Warnings, Option<Duration>) {
    let unexplained = unexplained(binding, observed, now);
    let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
    let (events, client) = (&ctx.object_events, &ctx.client);
    let (warnings, next_read) = warnings(events, client, namespace, &unexplained).await;
    let look_again = unexplained.look_again.map(|at| until(at, now));
    (warnings, look_again.into_iter().chain(next_read).min())
}

fn until(moment: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(now)).unwrap_or_default()
}

/// The registry of a model; `None` if it does not allow the model's namespace, so that its credentials check no artifact.
fn usable_registry(model: Option<&RegisteredModel>, ctx: &Context) -> Option<ModelRegistry> {
    let model = model?;
    let registry = ctx.stores.registries.get(&registry_of(model))?;
    let access = access(ctx, &registry, model.metadata.namespace.as_deref()?);
    access.is_some().then_some(registry)
}

/// Why the kind of a binding's workload cannot be driven, if it is not switched on.
fn disabled_kind(binding: &AliasBinding, ctx: &Context) -> Option<Problem> {
    if binding.spec.template.is_some() && !ctx.settings.features.templates {
        let message = "this operator creates no Deployments: set features.templates=true in the values of its chart (option --features), or targetRef";
        return Some(Problem::new(Reason::InvalidSpec, message.to_owned()));
    }
    let kind = binding.target_kind();
    let is_on = match &kind {
        TargetKind::Other(other) => ctx.stores.workloads.others.contains_key(other),
        known => ctx.settings.targets.contains(known),
    };
    if is_on {
        return None;
    }
    let message = format!(
        "this operator does not drive {kind}s: {} in the values of its chart",
        kind.chart_value()
    );
    Some(Problem::new(Reason::InvalidSpec, message))
}

/// The problem if the cluster has no definition of the kind of a binding's workload.
fn missing_kind(binding: &AliasBinding) -> Problem {
    let kind = binding.target_kind();
    let message = format!(
        "the cluster has no {} {kind}: install its custom resource definition, and this binding goes on",
        kind.api_version()
    );
    Problem::new(Reason::KindNotInstalled, message)
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
    let mut rivals = ctx.stores.rivals(&own, &kind, workload);
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

/// When to reconcile again, although nothing may have changed by then.
fn requeue(
    decided: &Decided,
    retry: Option<Duration>,
    next_read: Option<Duration>,
    now: Timestamp,
) -> Requeue {
    let problem = match &decided.decision {
        Decision::Waiting(
            Waiting::Unresolved(problem) | Waiting::Target(problem) | Waiting::Gate { problem, .. },
        )
        | Decision::Claimed(problem)
        | Decision::NoRollbackTarget(problem) => Some(problem),
        _ => None,
    };
    let retry = retry.or(problem.and_then(|problem| problem.reason.class().retry()));
    let look_again = decided.look_again.map(|at| until(at, now));
    let moments = [look_again, retry, next_read];
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
    // The API server would take the entries that the store keeps for all that there are.
    binding.metadata.managed_fields = None;
    match ctx.write_status(&ctx.stores.bindings, &binding).await? {
        // The next reconcile acts on the written status: a failure is recorded before the rollback.
        StatusWrite::Changed => ctx.queues.bindings.enqueue(ObjectKey::of(&binding)),
        StatusWrite::Unchanged => return Ok(()),
        StatusWrite::Gone => {}
    }
    publish(&binding, ctx, &old);
    Ok(())
}
