//! Publishes the transitions of a binding: Events, metrics, log.
//!
//! Absent: the status itself.

use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};

use crate::api::alias_binding::HistoryEntry;
use crate::api::model_registry::Access;
use crate::api::{AliasBinding, AliasBindingStatus};
use crate::controllers::cached::registry_of;
use crate::controllers::context::Context;
use crate::controllers::metrics::TransitionLabels;
use crate::controllers::registry::access::access;
use crate::rollout::{Transition, history_changes, transitions};

/// Publishes the differences between a binding's old status and its new one.
pub fn publish(binding: &AliasBinding, ctx: &Context, old: &AliasBindingStatus) {
    let Some(new) = &binding.status else { return };
    let changed = history_changes(old, new);
    for entry in &changed {
        ctx.metrics.count_entry(old, entry);
        log(binding, entry);
    }
    if !changed.is_empty() {
        enqueue_registry(binding, ctx);
    }
    for transition in transitions(old, new) {
        record_event(binding, ctx, &transition);
    }
}

/// A registry with write-back writes its tags when the history changes.
fn enqueue_registry(binding: &AliasBinding, ctx: &Context) {
    let namespace = binding.namespace().unwrap_or_default();
    let Some(model) = ctx.stores.model(&namespace, &binding.spec.model_ref.name) else {
        return;
    };
    let key = registry_of(&model);
    let Some(registry) = ctx.stores.registries.get(&key) else {
        return;
    };
    let access = access(ctx, &registry, &namespace);
    if registry.spec.write_back.deployment_tags && access == Some(Access::Write) {
        ctx.enqueue_registry_delayed(key);
    }
}

/// The whole history, for logs that are kept longer than the status keeps entries.
fn log(binding: &AliasBinding, entry: &HistoryEntry) {
    let entry = serde_json::to_string(entry).unwrap_or_default();
    tracing::info!(target: "pointsman::history", namespace = binding.namespace(), binding = binding.name_any(), entry, "history");
}

fn record_event(binding: &AliasBinding, ctx: &Context, transition: &Transition) {
    let Transition {
        is_warning,
        reason,
        note,
        action,
    } = transition;
    let labels = TransitionLabels {
        reason: reason.as_str(),
    };
    ctx.metrics.transitions.get_or_create(&labels).inc();
    tracing::info!(
        namespace = binding.namespace(), binding = binding.name_any(), %reason, note, "transition"
    );
    let event = Event {
        type_: if *is_warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: reason.as_str().to_owned(),
        note: Some(note.clone()),
        action: action.clone(),
        secondary: None,
    };
    ctx.event_recorder.publish(binding.object_ref(&()), event);
}
