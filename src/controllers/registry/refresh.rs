//! What was heard of models: gathered by registry, and looked at with one question for all that came meanwhile.
//!
//! Absent: waiting. A name that comes while nothing is being asked is asked for at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::controllers::cached::of_registered_name;
use crate::controllers::context::Context;
use crate::controllers::registry::listing::{is_unlisted, list_together, mirrors};
use crate::controllers::registry::refresh_batcher::PendingRefresh;
use crate::kubernetes::key::ObjectKey;
use crate::registries::mlflow::{ModelFacts, Registry, RegistryError};

/// How soon a question that failed is put again; after the last time the registry's own loop takes over.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// A delivery spoke of a model: it is looked at now. `registry` is one that exists.
pub fn refresh_announced(ctx: &Arc<Context>, registry: &ObjectKey, model: String) {
    let state = ctx.registries.of(registry);
    if state.webhook.heard(&BTreeSet::from([model.clone()])) {
        ctx.queues.registries.enqueue(registry.clone());
    }
    request_refresh(ctx, registry, model);
}

/// A model is looked at now, together with all others that are asked for in the same moment.
pub fn request_refresh(ctx: &Arc<Context>, registry: &ObjectKey, model: String) {
    if ctx.refresh_batcher.add(registry, model) {
        tokio::spawn(drain(Arc::clone(ctx), registry.clone()));
    }
}

async fn drain(ctx: Arc<Context>, registry: ObjectKey) {
    while let Some(heard) = ctx.refresh_batcher.take(&registry) {
        look(&ctx, &registry, heard).await;
    }
}

async fn look(ctx: &Context, registry: &ObjectKey, heard: PendingRefresh) {
    let is_asked = ctx
        .stores
        .registries
        .get(registry)
        .is_some_and(|registry| !registry.spec.suspend);
    if !is_asked {
        return;
    }
    let state = ctx.registries.of(registry);
    // Each by its key: what is heard of costs the same whether fifty models are watched or ten thousand.
    let is_watched = |model: &&String| {
        !ctx.stores
            .models
            .names(of_registered_name(registry, model))
            .is_empty()
    };
    let watching: BTreeSet<String> = heard.models.iter().filter(is_watched).cloned().collect();
    let answered = match state.registry() {
        _ if heard.too_many => false,
        _ if watching.is_empty() => true,
        Some(client) => ask(ctx, registry, &client, &watching).await,
        None => false,
    };
    if !answered {
        state.look_soon();
        ctx.queues.registries.enqueue(registry.clone());
    }
}

/// Asks for the models, and wakes those of which there is news. False where the registry did not answer.
async fn ask(
    ctx: &Context,
    registry: &ObjectKey,
    client: &Registry,
    names: &BTreeSet<String>,
) -> bool {
    for wait in AGAIN.into_iter().map(Some).chain([None]) {
        match (changed(ctx, registry, client, names).await, wait) {
            (Ok(changed), _) => {
                ctx.enqueue_models_named(registry, &changed);
                return true;
            }
            (Err(error), Some(wait)) => {
                tracing::debug!(%error, "the registry announced a change and could not be asked; it is asked again");
                tokio::time::sleep(wait).await;
            }
            (Err(_), None) => {}
        }
    }
    false
}

/// The models of which the registry says something new.
async fn changed(
    ctx: &Context,
    registry: &ObjectKey,
    client: &Registry,
    names: &BTreeSet<String>,
) -> Result<BTreeSet<String>, RegistryError> {
    let state = ctx.registries.of(registry);
    let asked_at = Instant::now();
    let facts = client.look(names).await?;
    // As for a look at all models: what is missing from the answer is asked for directly, by the model's own loop.
    let mut changed: BTreeSet<String> = names
        .iter()
        .filter(|name| !facts.contains_key(*name))
        .cloned()
        .collect();
    for name in &changed {
        state.doubt(name);
    }
    let news = |(_, facts): &(String, ModelFacts)| state.learn(&facts.name, Some(facts), asked_at);
    let mut unlisted = BTreeSet::new();
    for (name, facts) in facts.into_iter().filter(news) {
        if is_unlisted(&mirrors(ctx, registry, &facts), &facts) {
            unlisted.insert(name.clone());
        }
        changed.insert(name);
    }
    list_together(&state, client, &unlisted).await;
    Ok(changed)
}
