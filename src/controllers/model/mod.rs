//! The controller of `RegisteredModel`: declares description, tags and aliases in the registry, and
//! mirrors the registry in the status.
//!
//! Absent: workloads. Bindings watch the status that is written here.

pub mod mirror;
pub mod mirrored_names;
pub mod mirrored_versions;
pub mod model_finalizer;
pub mod model_status;
pub mod registry_access;
pub mod size_reader;

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;

use crate::api::{Reason, RegisteredModel, reason::Problem};
use crate::controllers::cached::registry_of;
use crate::controllers::context::Context;
use crate::controllers::model::mirror::{Mirror, ModelReconcile};
use crate::controllers::model::mirrored_versions::{MIN_RETRY, has_unusable_version};
use crate::controllers::model::model_finalizer::{finalize, sync_finalizer};
use crate::controllers::model::model_status::publish;
use crate::controllers::model::registry_access::{UsableRegistry, usable_registry};
use crate::controllers::model::size_reader::read_sizes_later;
use crate::controllers::registry::refresh_requests::request_refresh;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::work_queue::Requeue;

/// The time until the next reconcile after a problem that no event ends.
const PROBLEM_RETRY: Duration = Duration::from_secs(5);

/// Reconciles a registered model.
pub async fn reconcile(
    model: Arc<RegisteredModel>,
    ctx: Arc<Context>,
) -> Result<Requeue, ReconcileError> {
    if model.metadata.deletion_timestamp.is_some() {
        return finalize(&model, &ctx).await;
    }
    if sync_finalizer(&model, &ctx).await? {
        // The watch reports the write, and the model is reconciled again.
        return Ok(Requeue::await_change());
    }
    let usable = usable_registry(&model, &ctx).await;
    if let Ok(usable) = &usable
        && usable.state.snapshots.is_unknown(model.model_name())
    {
        // It is requested together with all other new models. The response enqueues it.
        let model_name = model.model_name().to_owned();
        request_refresh(&ctx, &registry_of(&model), model_name);
        return Ok(Requeue::after(MIN_RETRY));
    }
    let mirrored = match usable {
        Ok(usable) => mirror(&model, &ctx, usable).await,
        Err(problem) => Err(problem),
    };
    if let Err(problem) = &mirrored
        && keeps_status(&model, problem)
    {
        return Ok(Requeue::await_change());
    }
    let requeue = requeue(&mirrored, &model, &ctx);
    let is_mirrored = mirrored.is_ok();
    publish(&model, &ctx, mirrored).await?;
    if is_mirrored {
        read_sizes_later(&ctx, &registry_of(&model));
    }
    Ok(requeue)
}

async fn mirror(
    model: &RegisteredModel,
    ctx: &Context,
    usable: UsableRegistry,
) -> Result<Mirror, Problem> {
    let namespace = model.namespace().unwrap_or_default();
    let bindings = ctx.stores.bindings_of_model(&namespace, &model.name_any());
    let reconcile = ModelReconcile {
        own: ObjectKey::of(model),
        model,
        registry: &usable.registry,
        access: usable.access,
        state: &usable.state,
        client: usable.client,
        bindings,
    };
    reconcile.run().await
}

/// The time until the next reconcile. A registry that cannot be used enqueues all its models when
/// it can be used again.
fn requeue(mirrored: &Result<Mirror, Problem>, model: &RegisteredModel, ctx: &Context) -> Requeue {
    let state = ctx.registries.of(&registry_of(model));
    match mirrored {
        Err(_) if state.connection.problem().is_some() => Requeue::await_change(),
        Err(problem) => match problem.reason {
            // The registry enqueues its models when it appears, or admits their namespace.
            Reason::Pending
            | Reason::RegistryNotFound
            | Reason::RegistryNotAllowed
            | Reason::Suspended => Requeue::await_change(),
            _ => Requeue::after(PROBLEM_RETRY),
        },
        Ok(mirror) if has_unusable_version(&mirror.status) => Requeue::after(MIN_RETRY * 2),
        Ok(mirror) => match &mirror.problem {
            // The registry enqueues its models when its spec changes.
            None => Requeue::await_change(),
            Some(problem) if problem.reason == Reason::RegistryReadOnly => Requeue::await_change(),
            Some(_) => Requeue::after(PROBLEM_RETRY),
        },
    }
}

/// Whether the status stays as it is: after a start, until the registry was polled for the first
/// time.
fn keeps_status(model: &RegisteredModel, problem: &Problem) -> bool {
    let Some(status) = &model.status else {
        return false;
    };
    problem.reason == Reason::Pending
        && !status.conditions.is_empty()
        && status.observed_generation == model.metadata.generation
}
