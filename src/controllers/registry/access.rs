//! The access of namespaces to a registry, and the registered models that may use it. A model of a namespace without
//! access reaches neither polls nor the registry's credentials.
//!
//! Absent: the rule itself, which is `ModelRegistry::access`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube::ResourceExt;

use crate::api::model_registry::{Access, AllowedFrom};
use crate::api::{ModelRegistry, RegisteredModel};
use crate::controllers::cached::{of_registry, registry_of};
use crate::controllers::context::Context;
use crate::kubernetes::key::ObjectKey;

/// The access of a namespace, by its labels as they were read last.
pub fn access(ctx: &Context, registry: &ModelRegistry, namespace: &str) -> Option<Access> {
    let labels = match registry.spec.allowed_namespaces.from {
        AllowedFrom::Selector => ctx.namespace_labels.get(namespace),
        AllowedFrom::Same | AllowedFrom::All => Some(BTreeMap::new()),
    };
    registry.access(namespace, labels.as_ref())
}

/// Whether a namespace may use the registry of this name.
pub fn may_use(ctx: &Context, registry: &ObjectKey, namespace: &str) -> bool {
    let found = ctx.stores.registries.get(registry);
    found.is_some_and(|registry| access(ctx, &registry, namespace).is_some())
}

/// The registered models that reference a registry and have at least this access, decoded one at a time.
pub fn models_with(
    ctx: &Context,
    registry: &ModelRegistry,
    least: Access,
) -> impl Iterator<Item = RegisteredModel> {
    let own = ObjectKey::of(registry);
    let mut known: HashMap<String, bool> = HashMap::new();
    let mut names = ctx.stores.models.names(of_registry(&own));
    names.retain(|name| {
        let namespace = name.namespace();
        if let Some(known) = known.get(namespace) {
            return *known;
        }
        let has_access = access(ctx, registry, namespace) >= Some(least);
        known.insert(namespace.to_owned(), has_access);
        has_access
    });
    let models = names.into_iter();
    models
        .filter_map(|name| ctx.stores.models.get(&name))
        .filter(move |model| registry_of(model) == own)
}

/// Reads the labels of the namespaces that the registry's selector decides on, if they are older than the interval. A
/// change of access enqueues the registry's models.
pub async fn refresh_labels(registry: &ModelRegistry, ctx: &Context) {
    if registry.spec.allowed_namespaces.from != AllowedFrom::Selector {
        return;
    }
    let own = ObjectKey::of(registry);
    let names = ctx.stores.models.names(of_registry(&own));
    let mut namespaces: BTreeSet<&str> = names.iter().map(ObjectKey::namespace).collect();
    namespaces.remove(own.namespace());
    let mut is_changed = false;
    for namespace in namespaces {
        let labels = &ctx.namespace_labels;
        if labels.is_fresh(namespace, registry.interval() / 2) {
            continue;
        }
        let before = access(ctx, registry, namespace);
        if let Err(error) = labels.read(&ctx.client, namespace).await {
            tracing::warn!(namespace, %error, "the labels of a namespace cannot be read");
        }
        is_changed |= access(ctx, registry, namespace) != before;
    }
    if is_changed {
        let state = ctx.registries.of(&own);
        state.schedule.invalidate_watched();
        ctx.enqueue_models_of(&own);
    }
}

/// The names of the models that a registry is polled for.
pub fn watched_models(ctx: &Context, registry: &ModelRegistry) -> Arc<BTreeSet<String>> {
    let state = ctx.registries.of(&ObjectKey::of(registry));
    state.schedule.watched(|| {
        let models = models_with(ctx, registry, Access::Read);
        models.map(|model| model.model_name().to_owned()).collect()
    })
}

/// The sentence that names a registry in messages to its guests.
pub fn title(registry: &ModelRegistry) -> String {
    let namespace = registry.namespace().unwrap_or_default();
    format!("ModelRegistry {namespace}/{}", registry.name_any())
}
