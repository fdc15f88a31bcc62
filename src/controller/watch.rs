//! The watches: each keeps a store and wakes the loops that a change concerns, in this order.
//!
//! Absent: reconciliation. A change only says "look".

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::context::{Context, registry_namespace};
use crate::api::{AliasBinding, ModelRegistry, RegisteredModel, names};
use crate::workload::Workload;

/// Follows one kind for ever: keeps its store, then tells of each change.
pub async fn follow<K>(api: Api<K>, config: watcher::Config, writer: Writer<K>, slim: fn(&mut K), changed: impl Fn(&K))
where
    K: Clone
        + Debug
        + DeserializeOwned
        + Resource<DynamicType: Clone + Debug + Default + Eq + Hash + Unpin>
        + Send
        + Sync
        + 'static,
{
    let events = watcher(api, config).default_backoff().modify(slim);
    let mut events = std::pin::pin!(reflector::reflector(writer, events));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) => {
                changed(&object);
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => {
                tracing::warn!(kind = %K::kind(&K::DynamicType::default()), %error, "a watch broke off and is taken up again");
            }
        }
    }
}

/// Drops what is never read of our own kinds.
pub fn without_managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Reads the managed fields of a workload, and drops them.
pub fn digest_workload(workload: &mut Workload) {
    *workload = std::mem::take(workload).digested();
}

/// A registry changed: it is looked at again, and the models that name it learn of it.
pub fn registry_changed(ctx: &Context, registry: &ModelRegistry) {
    let namespace = registry.namespace().unwrap_or_default();
    ctx.wake_registry(&namespace, &registry.name_any());
    for model in ctx.models_of(&namespace, &registry.name_any()) {
        ctx.wake_model(&model.namespace().unwrap_or_default(), &model.name_any());
    }
}

/// A model changed: its own loop, its registry's count, and the bindings that follow it.
pub fn model_changed(ctx: &Context, model: &RegisteredModel) {
    let namespace = model.namespace().unwrap_or_default();
    let name = model.name_any();
    ctx.wake_model(&namespace, &name);
    ctx.wake_registry(&registry_namespace(model), &model.spec.registry_ref.name);
    for binding in ctx.bindings(&namespace, |binding| binding.spec.model_ref.name == name) {
        ctx.wake_binding(&namespace, &binding.name_any());
    }
}

/// A binding changed: its own loop, its model's mirror, and its rivals for the same Deployment.
pub fn binding_changed(ctx: &Context, binding: &AliasBinding) {
    let namespace = binding.namespace().unwrap_or_default();
    ctx.wake_binding(&namespace, &binding.name_any());
    ctx.wake_model(&namespace, &binding.spec.model_ref.name);
    let workload = binding.workload_name();
    for rival in ctx.bindings(&namespace, |other| other.workload_name() == workload) {
        ctx.wake_binding(&namespace, &rival.name_any());
    }
}

/// A labelled Deployment changed: the binding that it names looks, and all that would drive it.
pub fn workload_changed(ctx: &Context, workload: &Workload) {
    let namespace = workload.namespace().unwrap_or_default();
    let label = workload.labels().get(names::BINDING_LABEL);
    let name = workload.name_any();
    let concerns = |binding: &AliasBinding| binding.workload_name() == name || binding.metadata.name.as_ref() == label;
    for binding in ctx.bindings(&namespace, concerns) {
        ctx.wake_binding(&namespace, &binding.name_any());
    }
}

/// A pod, ReplicaSet or Job changed: the binding that its label names looks.
pub fn attendant_changed(ctx: &Arc<Context>) -> impl Fn(&str, &str) + use<> {
    let ctx = Arc::clone(ctx);
    move |namespace, binding| ctx.wake_binding(namespace, binding)
}

/// A function that tells the context of each change.
pub fn telling<K>(ctx: &Arc<Context>, tell: fn(&Context, &K)) -> impl Fn(&K) + use<K> {
    let ctx = Arc::clone(ctx);
    move |object| tell(&ctx, object)
}
