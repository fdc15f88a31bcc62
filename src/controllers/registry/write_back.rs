//! Writes each version's outcome into the registry as tags, where its owner wants that; beside the looks and rollouts.
//!
//! Absent: any effect on what runs. A registry that refuses its tags is told in the log, and asked again later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;

use crate::api::{ModelRegistry, RegisteredModel};
use crate::controllers::context::Context;
use crate::controllers::registry::known_tags::{KnownTags, TagKey};
use crate::kubernetes::key::ObjectKey;
use crate::registries::mlflow::{Registry, RegistryError};
use crate::rollout::{binding_of_key, tag_key, tag_values};

/// Begins to write what is not written yet, unless that is under way already, or the bindings are not known yet: a tag of a
/// binding that nobody knows is taken off.
pub fn write_back(registry: &Arc<ModelRegistry>, ctx: &Arc<Context>) {
    if !registry.spec.write_back.deployment_tags || registry.spec.suspend || !ctx.knows_bindings() {
        return;
    }
    let own = ObjectKey::of(registry.as_ref());
    let state = ctx.registries.of(&own);
    let Some(client) = state.registry().filter(|_| state.problem().is_none()) else {
        return;
    };
    let ctx = Arc::clone(ctx);
    if state.written.begin() {
        tokio::spawn(async move {
            loop {
                write(&ctx, &state.written, &client, &own).await;
                if !state.written.end() {
                    return;
                }
            }
        });
    }
}

async fn write(ctx: &Context, known: &KnownTags, client: &Registry, registry: &ObjectKey) {
    let mut wanted = BTreeMap::new();
    let mut models = BTreeSet::new();
    for model in ctx.stores.models_of(registry) {
        wanted.extend(wanted_tags(ctx, &model));
        models.insert(model.model_name().to_owned());
    }
    if let Err(error) = learn(known, client, models).await {
        tracing::debug!(registry = registry.name(), %error, "the tags that are there already cannot be read");
    }
    for (place, value) in known.missing(&wanted) {
        let outcome = client
            .set_version_tag(&place.0, &place.1, &place.2, &value)
            .await;
        settle(known, registry.name(), place, Some(value), outcome);
    }
    for place in known.orphans(|key| is_orphan(ctx, key)) {
        let outcome = client
            .delete_version_tag(&place.0, &place.1, &place.2)
            .await;
        settle(known, registry.name(), place, None, outcome);
    }
}

fn settle(
    known: &KnownTags,
    registry: &str,
    place: TagKey,
    value: Option<String>,
    outcome: Result<(), RegistryError>,
) {
    match outcome {
        Ok(()) => known.note(place, value),
        // The version is gone, and its tags with it.
        Err(error) if error.is_not_found() => known.note(place, value),
        Err(error) => {
            tracing::warn!(registry, model = place.0, version = place.1, %error, "a deployment tag could not be written; it is tried again at the next look");
        }
    }
}

/// The tags that the bindings of a model ask for.
fn wanted_tags(ctx: &Context, model: &RegisteredModel) -> BTreeMap<TagKey, String> {
    let (namespace, object) = (model.namespace().unwrap_or_default(), model.name_any());
    let mut tags = BTreeMap::new();
    for binding in ctx.stores.bindings_of_model(&namespace, &object) {
        let key = tag_key(&ctx.settings.cluster_name, &namespace, &binding.name_any());
        for (version, value) in tag_values(&binding) {
            tags.insert((model.model_name().to_owned(), version, key.clone()), value);
        }
    }
    tags
}

/// Whether a tag is of a binding in a watched namespace that is not there any more.
fn is_orphan(ctx: &Context, key: &str) -> bool {
    let Some((namespace, binding)) = binding_of_key(&ctx.settings.cluster_name, key) else {
        return false;
    };
    // A shard does not see the bindings of others.
    !ctx.settings.is_sharded()
        && ctx.settings.watches(namespace)
        && !ctx.stores.bindings.has(&ObjectKey::new(namespace, binding))
}

/// Reads the tags of models that were not read yet, so that a restart writes nothing twice.
async fn learn(
    known: &KnownTags,
    client: &Registry,
    models: BTreeSet<String>,
) -> Result<(), RegistryError> {
    let unknown = known.unknown(models);
    if unknown.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = unknown.iter().map(String::as_str).collect();
    let found = client.version_tags(&names).await;
    known.know(unknown);
    for ((model, version), tags) in found? {
        for (key, value) in tags {
            known.note((model.clone(), version.clone(), key), Some(value));
        }
    }
    Ok(())
}
