//! Requests to refresh single models, from webhooks and from new models. Those that come while a
//! request to the registry is under way are sent together with the next one.
//!
//! Absent: the batches themselves, which are in `refresh_batcher`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::controllers::cached::of_registered_name;
use crate::controllers::context::Context;
use crate::controllers::registry::access::access;
use crate::controllers::registry::refresh::Refresh;
use crate::controllers::registry::refresh_batcher::PendingRefresh;
use crate::controllers::registry::state::RegistryState;
use crate::kubernetes::key::ObjectKey;
use crate::registries::AnnouncedChange;

/// The pauses between attempts. After the last attempt the registry is polled, with the poll's
/// backoff.
const RETRY_DELAYS: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Refreshes what a webhook announced. `registry` is one that exists.
pub fn refresh_announced(ctx: &Arc<Context>, registry: &ObjectKey, change: AnnouncedChange) {
    let state = ctx.registries.of(registry);
    let model = match change {
        AnnouncedChange::Model(model) => model,
        AnnouncedChange::VersionTags(model) => return request_tags(ctx, registry, &state, &model),
    };
    if state.webhook.record_delivery(&model) {
        ctx.queues.registries.enqueue(registry.clone());
    }
    request_refresh(ctx, registry, model);
}

/// Reads the tags of the versions of a model that wait for gates. Without such versions tags mean nothing: Pointsman's own
/// are announced too.
fn request_tags(ctx: &Context, registry: &ObjectKey, state: &RegistryState, model: &str) {
    let mirrors = ctx.stores.models.names(of_registered_name(registry, model));
    for mirror in mirrors {
        if state.candidate_tags.request(&mirror) {
            ctx.queues.models.enqueue(mirror);
        }
    }
}

/// Refreshes a model, together with all others that are requested meanwhile.
pub fn request_refresh(ctx: &Arc<Context>, registry: &ObjectKey, model: String) {
    if ctx.registries.refresh_batcher.add(registry, model) {
        tokio::spawn(drain(Arc::clone(ctx), registry.clone()));
    }
}

async fn drain(ctx: Arc<Context>, registry: ObjectKey) {
    while let Some(pending) = ctx.registries.refresh_batcher.take(&registry) {
        let is_suspended = match ctx.stores.registries.get(&registry) {
            Some(object) => object.spec.suspend,
            None => true,
        };
        if is_suspended {
            continue;
        }
        let state = ctx.registries.of(&registry);
        if !refresh_pending(&ctx, &registry, &state, &pending).await {
            state.schedule.poll_now();
            ctx.queues.registries.enqueue(registry.clone());
        }
    }
}

/// Refreshes the watched ones of these models and enqueues those that changed. Returns false if the
/// registry is to be polled instead.
async fn refresh_pending(
    ctx: &Context,
    registry: &ObjectKey,
    state: &RegistryState,
    pending: &PendingRefresh,
) -> bool {
    if pending.is_overfull {
        return false;
    }
    let watched = watched_among(ctx, registry, &pending.models);
    if watched.is_empty() {
        return true;
    }
    let Some(client) = state.connection.client() else {
        return false;
    };
    let mut delays = RETRY_DELAYS.into_iter();
    loop {
        let refresh = Refresh::new(ctx, registry, state);
        match refresh.run(&client, &watched).await {
            Ok(models) => {
                ctx.enqueue_models_named(registry, &models.changed);
                return true;
            }
            Err(error) => tracing::debug!(%error, "models cannot be refreshed now"),
        }
        let Some(delay) = delays.next() else {
            return false;
        };
        tokio::time::sleep(delay).await;
    }
}

/// One lookup for each model, so that the cost does not depend on the number of watched models.
fn watched_among(
    ctx: &Context,
    registry: &ObjectKey,
    models: &BTreeSet<String>,
) -> BTreeSet<String> {
    let Some(object) = ctx.stores.registries.get(registry) else {
        return BTreeSet::new();
    };
    let stored = &ctx.stores.models;
    let is_watched = |model: &&String| {
        let names = stored.names(of_registered_name(registry, model));
        let mut namespaces = names.iter().map(ObjectKey::namespace);
        namespaces.any(|namespace| access(ctx, &object, namespace).is_some())
    };
    models.iter().filter(is_watched).cloned().collect()
}
