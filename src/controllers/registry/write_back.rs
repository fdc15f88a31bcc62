//! Writes the outcome of each version into the registry as tags, if the spec asks for it, in a task
//! beside the polls.
//!
//! Absent: any effect on workloads. If the registry refuses a tag, the registry's status says so, and it is
//! tried again later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;

use crate::api::model_registry::Access;
use crate::api::reason::Problem;
use crate::api::{ModelRegistry, RegisteredModel};
use crate::controllers::context::Context;
use crate::controllers::registry::access::models_with;
use crate::controllers::registry::known_tags::{KnownTags, TagId};
use crate::kubernetes::key::ObjectKey;
use crate::registries::{RegistryClient, RegistryError, VersionTagsClient};
use crate::rollout::{binding_of_key, tag_key, tag_values};

/// Starts a task that writes the tags, unless one is running. Waits until the bindings are known,
/// because tags of unknown bindings are deleted.
pub fn write_back(registry: &Arc<ModelRegistry>, ctx: &Arc<Context>) {
    if !registry.spec.write_back.deployment_tags || registry.spec.suspend || !ctx.knows_bindings() {
        return;
    }
    let own = ObjectKey::of(registry.as_ref());
    let state = ctx.registries.of(&own);
    let Some(client) = state.connection.healthy_client() else {
        return;
    };
    if !state.tags.begin() {
        return;
    }
    let ctx = Arc::clone(ctx);
    tokio::spawn(async move {
        loop {
            write_tags(&ctx, &state.tags, &client, &own).await;
            if !state.tags.end() {
                return;
            }
        }
    });
}

async fn write_tags(
    ctx: &Context,
    known: &KnownTags,
    client: &RegistryClient,
    registry: &ObjectKey,
) {
    let Some(client) = client.version_tags() else {
        tracing::debug!(
            registry = registry.name(),
            "this kind of registry has no tags of versions"
        );
        return;
    };
    let mut wanted = BTreeMap::new();
    let mut models = BTreeSet::new();
    let object = ctx.stores.registries.get(registry);
    // A namespace that may only read the registry changes nothing in it.
    let writers = object
        .iter()
        .flat_map(|object| models_with(ctx, object, Access::Write));
    for model in writers {
        wanted.extend(wanted_tags(ctx, &model));
        models.insert(model.model_name().to_owned());
    }
    let is_own = |key: &str| binding_of_key(&ctx.settings.cluster_name, key).is_some();
    if let Err(error) = read_tags(known, client, models, is_own).await {
        tracing::debug!(registry = registry.name(), %error, "the deployment tags cannot be read");
    }
    let mut problem = None;
    for (tag, value) in known.missing(&wanted) {
        let outcome = client.set(&tag.model, &tag.version, &tag.key, &value).await;
        let failed = record_outcome(known, tag, Some(value), outcome);
        problem = problem.or(failed);
    }
    for tag in known.orphans(|key| is_orphan(ctx, key)) {
        let outcome = client.delete(&tag.model, &tag.version, &tag.key).await;
        let failed = record_outcome(known, tag, None, outcome);
        problem = problem.or(failed);
    }
    if known.record_problem(problem) {
        ctx.queues.registries.enqueue(registry.clone());
    }
}

/// Why the tag could not be written; `None` if it was.
fn record_outcome(
    known: &KnownTags,
    tag: TagId,
    value: Option<String>,
    outcome: Result<(), RegistryError>,
) -> Option<Problem> {
    match outcome {
        Ok(()) => known.record(tag, value),
        // The version is gone, and its tags with it.
        Err(error) if error.is_not_found() => known.record(tag, value),
        Err(error) => {
            let TagId { model, version, .. } = tag;
            return Some(error.of_change(&format!("a tag of version {version} of {model}")));
        }
    }
    None
}

/// The tags that the bindings of a model ask for.
fn wanted_tags(ctx: &Context, model: &RegisteredModel) -> BTreeMap<TagId, String> {
    let namespace = model.namespace().unwrap_or_default();
    let mut tags = BTreeMap::new();
    for binding in ctx.stores.bindings_of_model(&namespace, &model.name_any()) {
        let key = tag_key(&ctx.settings.cluster_name, &namespace, &binding.name_any());
        for (version, value) in tag_values(&binding, model.model_name()) {
            let tag = TagId {
                model: model.model_name().to_owned(),
                version,
                key: key.clone(),
            };
            tags.insert(tag, value);
        }
    }
    tags
}

/// Whether a tag belongs to a binding in a watched namespace that does not exist any more.
fn is_orphan(ctx: &Context, key: &str) -> bool {
    let Some((namespace, binding)) = binding_of_key(&ctx.settings.cluster_name, key) else {
        return false;
    };
    // A shard does not see the bindings of other shards.
    if ctx.settings.is_sharded() || !ctx.knows_bindings_of(namespace) {
        return false;
    }
    !ctx.stores.bindings.has(&ObjectKey::new(namespace, binding))
}

/// Reads the own tags of models that were not read yet, so that a restart writes nothing twice.
async fn read_tags(
    known: &KnownTags,
    client: VersionTagsClient<'_>,
    models: BTreeSet<String>,
    is_own: impl Fn(&str) -> bool,
) -> Result<(), RegistryError> {
    let unread = known.unread(models);
    if unread.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = unread.iter().map(String::as_str).collect();
    let found = client.read(&names, is_own).await;
    known.record_read(unread);
    for ((model, version), tags) in found? {
        for (key, value) in tags {
            let tag = TagId {
                model: model.clone(),
                version: version.clone(),
                key,
            };
            known.record(tag, Some(value));
        }
    }
    Ok(())
}
