//! The controller of `ModelRegistry`: polls the registry, enqueues the models that changed, and
//! writes the status.
//!
//! Absent: writes to the registry, but for the webhook and the deployment tags. Those belong to the
//! model that declares them.

pub mod access;
pub mod credentials;
pub mod known_tags;
pub mod namespace_labels;
pub mod poll;
pub mod refresh;
pub mod refresh_batcher;
pub mod refresh_requests;
pub mod registry_status;
pub mod state;
pub mod webhook;
pub mod write_back;

use std::sync::Arc;
use std::time::Instant;

use crate::api::ModelRegistry;
use crate::api::model_registry::AllowedFrom;
use crate::controllers::context::Context;
use crate::controllers::model::size_reader::read_sizes_later;
use crate::controllers::model::uri_reader::recheck_uris_later;
use crate::controllers::registry::access::{refresh_labels, watched_models};
use crate::controllers::registry::poll::poll_if_due;
use crate::controllers::registry::registry_status::publish;
use crate::controllers::registry::webhook::webhook_finalizer;
use crate::controllers::registry::write_back::write_back;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::work_queue::Requeue;

/// Reconciles a registry.
pub async fn reconcile(
    registry: Arc<ModelRegistry>,
    ctx: Arc<Context>,
) -> Result<Requeue, ReconcileError> {
    if registry.metadata.deletion_timestamp.is_some() {
        return webhook_finalizer::finalize(&registry, &ctx).await;
    }
    let own = ObjectKey::of(registry.as_ref());
    if ctx.keeps(&own) && webhook_finalizer::add_finalizer(&registry, &ctx).await? {
        // The watch reports the write, and the registry is reconciled again.
        return Ok(Requeue::await_change());
    }
    let state = ctx.registries.of_object(&registry);
    refresh_labels(&registry, &ctx).await;
    let watched = watched_models(&ctx, &registry);
    poll_if_due(&registry, &ctx, &state, &watched).await;
    write_back(&registry, &ctx);
    read_sizes_later(&ctx, &own);
    recheck_uris_later(&ctx, &own);
    if ctx.keeps(&own) {
        webhook::reconcile_webhook(&registry, &ctx, &state);
        publish(&registry, &ctx, &state, watched.len()).await?;
    }
    if registry.spec.suspend {
        return Ok(while_suspended(&registry));
    }
    let until_poll = state.schedule.until_next_poll(Instant::now());
    Ok(Requeue::after(until_poll.min(state.webhook.until_due())))
}

/// A suspended registry is not polled, but a selector may admit or dismiss a namespace meanwhile.
fn while_suspended(registry: &ModelRegistry) -> Requeue {
    match registry.spec.allowed_namespaces.from {
        AllowedFrom::Selector => Requeue::after(registry.interval()),
        AllowedFrom::Same | AllowedFrom::All => Requeue::await_change(),
    }
}
