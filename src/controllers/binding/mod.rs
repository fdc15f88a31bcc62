//! The loop of `AliasBinding`: observe → decide → apply → summarize → publish.
//!
//! Absent: any way out before the status is written, but a Kubernetes API that does not answer.

pub mod artifact_checks;
pub mod retrain_job;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use serde_json::Value;

use crate::api::alias_binding::HistoryEntry;
use crate::api::{AliasBinding, AliasBindingStatus, Reason, names, reason::Problem};
use crate::controllers::binding::artifact_checks::{ASK_AGAIN, ask};
use crate::controllers::binding::retrain_job::retrain;
use crate::controllers::cached::registry_of;
use crate::controllers::context::{Context, labelled};
use crate::controllers::metrics::Transition;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::status::StatusWrite;
use crate::kubernetes::work_queue::Requeue;
use crate::rollout::{
    self, Action, Applied, Decision, Notice, Observed, Pass, Question, Resolution, decide,
    ledger_changes, notices, resolve, summarize,
};
use crate::targets::{
    Injection, Owner, TEMPLATE_DIGEST_ANNOTATION, Workload, newest_pods, patch_for_target,
    patch_for_template, template_digest,
};

/// How long an answer may take before the status says that it is waited for.
const BRIEF: Duration = Duration::from_secs(1);

/// What a pass came to.
struct Conclusion {
    /// The new status; `None` where it is not worth a write yet.
    status: Option<AliasBindingStatus>,
    next: Requeue,
    /// What is asked when the status is written.
    questions: Vec<Question>,
}

/// One pass over a binding.
pub async fn reconcile(
    binding: Arc<AliasBinding>,
    ctx: Arc<Context>,
) -> Result<Requeue, ReconcileError> {
    if binding.metadata.deletion_timestamp.is_some() {
        // Rule 9: a target's fields stay as they are, and an owned Deployment goes with its owner, by the cluster's own hand.
        return Ok(Requeue::await_change());
    }
    let (own, model) = (
        ObjectKey::of(binding.as_ref()),
        binding.spec.model_ref.name.clone(),
    );
    let Conclusion {
        status,
        next,
        questions,
    } = conclude(&binding, &own, &ctx).await?;
    if let Some(status) = status {
        publish(Arc::unwrap_or_clone(binding), &ctx, status).await?;
    }
    ask(&ctx, &own, &model, questions);
    Ok(next)
}

async fn conclude(
    binding: &AliasBinding,
    own: &ObjectKey,
    ctx: &Context,
) -> Result<Conclusion, ReconcileError> {
    let resolution = resolve(
        binding,
        ctx.stores
            .model(own.namespace(), &binding.spec.model_ref.name)
            .as_ref(),
    );
    let workload = observe_workload(binding, ctx).await?;
    let rivals = rivals(binding, ctx, workload.as_ref()).await?;
    let rivals: Vec<&AliasBinding> = rivals.iter().collect();
    let claim = rollout::claim(binding, &rivals, workload.as_ref());
    let (sets, pods) = (
        labelled(&ctx.stores.replica_sets, own),
        labelled(&ctx.stores.pods, own),
    );
    let pods = workload
        .as_ref()
        .map(|workload| newest_pods(workload, &sets, &pods))
        .unwrap_or_default();
    let evidence = ctx.artifact_checks.evidence(own);
    let observed = Observed {
        resolution: &resolution,
        workload: workload.as_ref(),
        pods: &pods,
        claim: claim.as_ref(),
        template_changed: template_changed(binding, workload.as_ref()),
        evidence: &evidence,
    };
    let now = Timestamp::now();
    let decision = decide(binding, &observed, now);
    if is_brief(ctx, own, &decision) {
        // The answer wakes the binding; nothing is worth a write until then.
        return Ok(Conclusion {
            status: None,
            next: Requeue::after(BRIEF),
            questions: decision.questions,
        });
    }
    let (workload, failure) = apply(binding, ctx, (&resolution, &decision), workload).await?;
    let retrain = retrain(binding, ctx, &resolution, &decision).await?;
    let applied = Applied {
        workload: workload.as_ref(),
        failure,
        retrain,
    };
    let pass = Pass {
        resolution: &resolution,
        evidence: &evidence,
        decision: &decision,
        applied: &applied,
    };
    let status = summarize(binding, &pass, now);
    let next = next(&decision, applied.failure.as_ref(), now);
    Ok(Conclusion {
        status: Some(status),
        next,
        questions: questions(ctx, own, decision),
    })
}

/// Whether all that a pass came to is a question that was not put long ago.
fn is_brief(ctx: &Context, own: &ObjectKey, decision: &Decision) -> bool {
    !decision.questions.is_empty() && !ctx.artifact_checks.is_kept_waiting(own, BRIEF)
}

/// What the decision lacks, and again what was answered badly while that is in the way.
fn questions(ctx: &Context, own: &ObjectKey, decision: Decision) -> Vec<Question> {
    let mut questions = decision.questions;
    if matches!(&decision.action, Action::Leave(problem) if depends_on_stores(problem.reason)) {
        questions.extend(ctx.artifact_checks.doubtful(own));
    }
    questions
}

fn depends_on_stores(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ArtifactUnavailable | Reason::NoRollbackTarget
    )
}

/// When to look again, though nothing may have changed by then.
fn next(decision: &Decision, failure: Option<&Problem>, now: Timestamp) -> Requeue {
    let problem = match &decision.action {
        Action::Leave(problem) => Some(problem),
        Action::Settled | Action::Apply(_) => failure,
    };
    let until =
        |moment: Timestamp| Duration::try_from(moment.duration_since(now)).unwrap_or_default();
    let moments = [
        decision.look_again.map(until),
        problem.and_then(|problem| look_again_after(problem.reason)),
    ];
    moments
        .into_iter()
        .flatten()
        .min()
        .map_or_else(Requeue::await_change, Requeue::after)
}

/// Deployments that carry no label of ours are not watched, so what hinders the first patch is looked at again soon; stores
/// are not watched either.
fn look_again_after(reason: Reason) -> Option<Duration> {
    match reason {
        Reason::TargetNotFound
        | Reason::TargetClaimed
        | Reason::FieldConflict
        | Reason::InvalidSpec
        | Reason::ApplyRefused => Some(Duration::from_secs(5)),
        reason if depends_on_stores(reason) => Some(ASK_AGAIN),
        _ => None,
    }
}

/// The other bindings that would drive the same Deployment. In a shard the one that its label names may be another shard's.
async fn rivals(
    binding: &AliasBinding,
    ctx: &Context,
    workload: Option<&Workload>,
) -> Result<Vec<AliasBinding>, ReconcileError> {
    let namespace = binding.namespace().unwrap_or_default();
    let mut rivals = ctx
        .stores
        .rivals(&ObjectKey::of(binding), binding.workload_name());
    let named = workload
        .and_then(Workload::binding)
        .filter(|named| *named != binding.name_any());
    if let Some(named) = named.filter(|named| {
        ctx.settings.is_sharded() && !ctx.stores.bindings.has(&ObjectKey::new(&namespace, named))
    }) {
        let api: Api<AliasBinding> = Api::namespaced(ctx.client.clone(), &namespace);
        let found = api
            .get_opt(named)
            .await
            .map_err(ReconcileError::when("reading a binding of another shard"))?;
        rivals.extend(found.filter(|found| found.workload_name() == binding.workload_name()));
    }
    Ok(rivals)
}

async fn observe_workload(
    binding: &AliasBinding,
    ctx: &Context,
) -> Result<Option<Workload>, ReconcileError> {
    let namespace = binding.namespace().unwrap_or_default();
    if let Some(watched) = ctx
        .stores
        .workloads
        .get(&ObjectKey::new(&namespace, binding.workload_name()))
    {
        return Ok(Some(watched));
    }
    let found = api(ctx, &namespace).get_opt(binding.workload_name()).await;
    found
        .map(|found| found.map(Workload::digested))
        .map_err(ReconcileError::when("reading the Deployment"))
}

fn api(ctx: &Context, namespace: &str) -> Api<Workload> {
    Api::namespaced(ctx.client.clone(), namespace)
}

fn owner(binding: &AliasBinding) -> Owner {
    Owner {
        namespace: binding.namespace().unwrap_or_default(),
        name: binding.name_any(),
        uid: binding.uid().unwrap_or_default(),
        takes_workload_along: binding.spec.deletion_policy
            == crate::api::alias_binding::WorkloadDeletionPolicy::Delete,
    }
}

fn template_changed(binding: &AliasBinding, workload: Option<&Workload>) -> bool {
    let (Some(template), Some(workload)) = (&binding.spec.template, workload) else {
        return false;
    };
    workload.annotations().get(TEMPLATE_DIGEST_ANNOTATION)
        != Some(&template_digest(template, &owner(binding)))
}

/// Carries out a decision. What the API server refuses is a value; a conflict means a fresh look.
async fn apply(
    binding: &AliasBinding,
    ctx: &Context,
    (resolution, decision): (&Resolution, &Decision),
    workload: Option<Workload>,
) -> Result<(Option<Workload>, Option<Problem>), ReconcileError> {
    let Action::Apply(injection) = &decision.action else {
        return Ok((workload, None));
    };
    let patch = patch(binding, workload.as_ref(), injection);
    // Forced, for what is not ours was ruled out on the very resource version that the patch names.
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let name = binding.workload_name();
    let written = api(ctx, &binding.namespace().unwrap_or_default())
        .patch(name, &params, &Patch::Apply(patch))
        .await;
    match written {
        Ok(written) => {
            ctx.metrics.workload_patches.inc();
            if resolution.alias.as_deref() == Some(injection.version.as_str()) {
                ctx.metrics
                    .count_patch(binding, injection, seen(binding, ctx));
            }
            tracing::info!(
                binding = binding.name_any(),
                deployment = name,
                version = injection.version,
                "wrote a version into the Deployment"
            );
            Ok((Some(written.digested()), None))
        }
        Err(kube::Error::Api(answer)) if answer.code != 409 && answer.code < 500 => {
            let reason = if matches!(answer.code, 400 | 422) {
                Reason::InvalidSpec
            } else {
                Reason::ApplyRefused
            };
            let message = format!("the API server refused the Deployment: {}", answer.message);
            Ok((workload, Some(Problem::new(reason, message))))
        }
        Err(error) => Err(ReconcileError::when("writing the Deployment")(error)),
    }
}

/// When a look first showed what the registry says of the binding's model now.
fn seen(binding: &AliasBinding, ctx: &Context) -> Option<Instant> {
    let model = ctx
        .stores
        .model(&binding.namespace()?, &binding.spec.model_ref.name)?;
    let registry = registry_of(&model);
    let state = ctx.registries.of(&registry);
    state.snapshots.changed_at(model.model_name())
}

fn patch(binding: &AliasBinding, workload: Option<&Workload>, injection: &Injection) -> Value {
    match (&binding.spec.template, workload) {
        (Some(template), _) => patch_for_template(template, &owner(binding), injection),
        (None, Some(workload)) => patch_for_target(workload, injection),
        // A missing target is never applied to: `decide` answers `TargetNotFound`.
        (None, None) => Value::Null,
    }
}

async fn publish(
    mut binding: AliasBinding,
    ctx: &Context,
    new: AliasBindingStatus,
) -> Result<(), ReconcileError> {
    if binding.status.as_ref() == Some(&new) {
        return Ok(());
    }
    let old = binding.status.take().unwrap_or_default();
    binding.status = Some(new);
    match ctx.write_status(&ctx.stores.bindings, &binding).await? {
        // The next reconcile acts on the written status: a failure is recorded before the rollback.
        StatusWrite::Changed => ctx.queues.bindings.enqueue(ObjectKey::of(&binding)),
        StatusWrite::Unchanged => return Ok(()),
        StatusWrite::Gone => {}
    }
    let Some(new) = &binding.status else {
        return Ok(());
    };
    let written = ledger_changes(&old, new);
    for entry in &written {
        ctx.metrics.count_entry(&old, entry);
        log(&binding, entry);
    }
    if !written.is_empty() {
        wake_registry(&binding, ctx);
    }
    for notice in notices(&old, new) {
        tell(&binding, ctx, &notice);
    }
    Ok(())
}

/// A registry that keeps tags of what is deployed writes them when the ledger changes.
fn wake_registry(binding: &AliasBinding, ctx: &Context) {
    let model = ctx.stores.model(
        &binding.namespace().unwrap_or_default(),
        &binding.spec.model_ref.name,
    );
    let Some(registry) = model.as_ref().map(registry_of) else {
        return;
    };
    if ctx
        .stores
        .registries
        .get(&registry)
        .is_some_and(|registry| registry.spec.write_back.deployment_tags)
    {
        ctx.enqueue_registry_delayed(registry);
    }
}

/// The ledger in full, for those who keep logs longer than the status keeps entries.
fn log(binding: &AliasBinding, entry: &HistoryEntry) {
    let entry = serde_json::to_string(entry).unwrap_or_default();
    tracing::info!(target: "pointsman::ledger", namespace = binding.namespace(), binding = binding.name_any(), entry, "ledger");
}

fn tell(binding: &AliasBinding, ctx: &Context, notice: &Notice) {
    ctx.metrics
        .transitions
        .get_or_create(&Transition {
            reason: notice.reason.as_str(),
        })
        .inc();
    tracing::info!(
        namespace = binding.namespace(), binding = binding.name_any(), reason = %notice.reason, note = notice.note, "told"
    );
    let event = Event {
        type_: if notice.is_warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: notice.reason.as_str().to_owned(),
        note: Some(notice.note.clone()),
        action: notice.action.clone(),
        secondary: None,
    };
    ctx.event_recorder.publish(binding.object_ref(&()), event);
}
