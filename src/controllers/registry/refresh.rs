//! What was heard of models: gathered by registry, and looked at with one question for all that came meanwhile.
//!
//! Absent: waiting. A name that comes while nothing is being asked is asked for at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::controllers::cached::of_registered_name;
use crate::controllers::context::Context;
use crate::controllers::registry::listing::{is_unlisted, list_together, mirrors};
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;
use crate::registries::mlflow::{ModelFacts, Registry, RegistryError};

/// How many names wait at most; where more come, the whole registry is looked at.
const MOST: usize = 10_000;
/// How soon a question that failed is put again; after the last time the registry's own loop takes over.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// The names that were heard and not asked for yet, by registry.
#[derive(Default)]
pub struct RefreshBatcher {
    /// A registry is in here while a task asks for its names.
    waiting: Mutex<HashMap<ObjectKey, PendingRefresh>>,
}

#[derive(Default)]
struct PendingRefresh {
    models: BTreeSet<String>,
    too_many: bool,
}

impl PendingRefresh {
    fn add(&mut self, model: String) {
        if self.models.len() < MOST {
            self.models.insert(model);
        } else {
            self.too_many = true;
        }
    }

    fn is_empty(&self) -> bool {
        self.models.is_empty() && !self.too_many
    }
}

impl RefreshBatcher {
    /// Adds a name. True where a task is needed that asks.
    fn add(&self, registry: &ObjectKey, model: String) -> bool {
        let mut waiting = lock(&self.waiting);
        let is_first = !waiting.contains_key(registry);
        waiting.entry(registry.clone()).or_default().add(model);
        is_first
    }

    /// All that waits; where nothing does, the task ends, and the next name begins another.
    fn take(&self, registry: &ObjectKey) -> Option<PendingRefresh> {
        let mut waiting = lock(&self.waiting);
        let heard = waiting
            .get_mut(registry)
            .map(std::mem::take)
            .filter(|heard| !heard.is_empty());
        if heard.is_none() {
            waiting.remove(registry);
        }
        heard
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_a_question_is_put_is_asked_with_the_next_one() {
        let (refresh_batcher, mlflow) = (RefreshBatcher::default(), ObjectKey::new("ml", "mlflow"));
        assert!(
            refresh_batcher.add(&mlflow, "a".to_owned()),
            "the first name begins a task"
        );
        assert!(!refresh_batcher.add(&mlflow, "b".to_owned()));
        assert_eq!(refresh_batcher.take(&mlflow).unwrap().models.len(), 2);
        assert!(
            !refresh_batcher.add(&mlflow, "c".to_owned()),
            "the task is still there"
        );
        assert!(refresh_batcher.add(&ObjectKey::new("ml", "another"), "c".to_owned()));
        assert_eq!(
            refresh_batcher.take(&mlflow).unwrap().models,
            BTreeSet::from(["c".to_owned()])
        );
        assert!(refresh_batcher.take(&mlflow).is_none());
        assert!(
            refresh_batcher.add(&mlflow, "d".to_owned()),
            "the task had ended"
        );
    }

    #[test]
    fn more_names_than_fit_have_the_whole_registry_looked_at() {
        let mut heard = PendingRefresh::default();
        for number in 0..=MOST {
            heard.add(number.to_string());
        }
        assert!(heard.too_many && heard.models.len() == MOST);
    }
}
