//! Removes the webhook when it is no longer wanted, or before its `ModelRegistry` is deleted. A
//! finalizer holds the object until then.
//!
//! Absent: registration.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};

use crate::api::model_registry::{RegisteredWebhook, WebhookMode};
use crate::api::{ModelRegistry, Reason, names, reason::Problem};
use crate::controllers::context::Context;
use crate::controllers::registry::credentials::connection;
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::webhook::ownership::{
    OwnWebhooks, recorded_webhook, webhook_elsewhere, webhook_name, webhook_url,
};
use crate::controllers::registry::webhook::webhook_messages::problem;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::finalizer::set_finalizer;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::work_queue::Requeue;
use crate::registries::{ListedWebhook, RegistryClient, WebhookClient};

/// For how long a deleted object waits until its webhook is removed.
const REMOVAL_TIMEOUT: SignedDuration = SignedDuration::from_secs(60);
/// The time until the next attempt to remove it.
const REMOVAL_RETRY: Duration = Duration::from_secs(5);

/// Whether the object has the finalizer, so that a webhook may be registered.
pub fn has_finalizer(registry: &ModelRegistry) -> bool {
    let mut finalizers = registry.finalizers().iter();
    finalizers.any(|name| name == names::WEBHOOK_FINALIZER)
}

/// Adds the finalizer before a webhook is registered. Returns true if it was added.
pub async fn add_finalizer(
    registry: &ModelRegistry,
    ctx: &Context,
) -> Result<bool, ReconcileError> {
    let is_managed =
        registry.webhook_mode() == WebhookMode::Managed && ctx.settings.receives_webhooks();
    if !is_managed || has_finalizer(registry) {
        return Ok(false);
    }
    write_finalizer(registry, ctx, true).await?;
    Ok(true)
}

async fn write_finalizer(
    registry: &ModelRegistry,
    ctx: &Context,
    is_wanted: bool,
) -> Result<(), ReconcileError> {
    let registries = &ctx.stores.registries;
    let name = names::WEBHOOK_FINALIZER;
    set_finalizer(&ctx.client, registries, registry, name, is_wanted).await?;
    Ok(())
}

/// The webhook for the status: that of the last reconcile, or the recorded one until there was a
/// reconcile.
pub fn registered_webhook(
    registry: &ModelRegistry,
    state: &RegistryState,
) -> Option<RegisteredWebhook> {
    if let Some(registration) = state.webhook.report().registration
        && (registration.webhook.is_some() || registration.is_removed)
    {
        return registration.webhook;
    }
    if !has_finalizer(registry) {
        return None;
    }
    recorded_webhook(registry).cloned()
}

/// Removes a webhook that the spec no longer asks for, and then the finalizer.
pub async fn unregister(
    registry: &ModelRegistry,
    ctx: &Context,
    client: &RegistryClient,
) -> Result<(), Problem> {
    if !has_finalizer(registry) {
        return Ok(());
    }
    delete_webhooks(registry, ctx, client).await?;
    let written = write_finalizer(registry, ctx, false).await;
    written.map_err(|failure| Problem::new(Reason::Pending, failure.to_string()))
}

/// Removes the webhook before the object is deleted. Gives up after `REMOVAL_TIMEOUT`, so that the
/// object does not hang.
pub async fn finalize(registry: &ModelRegistry, ctx: &Context) -> Result<Requeue, ReconcileError> {
    let namespace = registry.namespace().unwrap_or_default();
    let name = registry.name_any();
    if has_finalizer(registry) {
        if let Err(problem) = delete_with_last_client(registry, ctx).await {
            let message = problem.message;
            if waits_for_removal(registry, Timestamp::now()) {
                tracing::info!(
                    namespace,
                    registry = name,
                    message,
                    "the webhook cannot be removed yet"
                );
                return Ok(Requeue::after(REMOVAL_RETRY));
            }
            report_left_behind(registry, ctx, &message);
        }
        write_finalizer(registry, ctx, false).await?;
    }
    ctx.registries.forget(&ObjectKey::of(registry));
    ctx.metrics.forget(&namespace, &name);
    Ok(Requeue::await_change())
}

fn waits_for_removal(registry: &ModelRegistry, now: Timestamp) -> bool {
    match &registry.metadata.deletion_timestamp {
        Some(deleted) => now.duration_since(deleted.0) < REMOVAL_TIMEOUT,
        None => false,
    }
}

/// The client of the last poll: in a namespace that is being deleted the Secret may be gone
/// already.
async fn last_client(registry: &ModelRegistry, ctx: &Context) -> Result<RegistryClient, Problem> {
    let state = ctx.registries.of(&ObjectKey::of(registry));
    if let Some(client) = state.connection.client() {
        return Ok(client);
    }
    let connection = connection(registry, &ctx.client).await?;
    Ok(ctx.connect(connection)?)
}

async fn delete_with_last_client(registry: &ModelRegistry, ctx: &Context) -> Result<(), Problem> {
    let client = last_client(registry, ctx).await?;
    delete_webhooks(registry, ctx, &client).await
}

/// Deletes all webhooks of a registry.
async fn delete_webhooks(
    registry: &ModelRegistry,
    ctx: &Context,
    client: &RegistryClient,
) -> Result<(), Problem> {
    let Some(client) = client.webhooks() else {
        return Ok(());
    };
    let recorded = recorded_webhook(registry);
    let url = match recorded {
        Some(webhook) => webhook.url.clone(),
        None => webhook_url(registry),
    };
    let name = webhook_name(registry, &ctx.settings.cluster_name);
    let listed = list_webhooks(client, &name, recorded.is_some()).await?;
    let own = OwnWebhooks::find(listed, &name, &url, recorded);
    let kept = own.kept.as_ref().map(|kept| kept.id.as_str());
    report_webhook_elsewhere(registry, ctx, kept);
    for webhook in own.kept.into_iter().chain(own.duplicates) {
        client.delete(&webhook.id).await.map_err(problem)?;
    }
    Ok(())
}

/// The webhooks of the server with this name. A server that refuses webhooks has none of ours, unless one is
/// recorded.
async fn list_webhooks(
    client: WebhookClient<'_>,
    name: &str,
    is_recorded: bool,
) -> Result<Vec<ListedWebhook>, Problem> {
    let refused = match client.list(name).await {
        Ok(listed) => return Ok(listed),
        Err(error) => problem(error),
    };
    match refused.reason {
        Reason::WebhookUnsupported | Reason::WebhookRefused if !is_recorded => Ok(Vec::new()),
        _ => Err(refused),
    }
}

/// Reports a webhook that stays at another server, unless `here` is the same one: that is the same
/// server at another address.
pub fn report_webhook_elsewhere(registry: &ModelRegistry, ctx: &Context, here: Option<&str>) {
    let Some(elsewhere) = webhook_elsewhere(registry) else {
        return;
    };
    if here != Some(elsewhere.id.as_str()) {
        report_left_behind(registry, ctx, "spec.mlflow.uri names another server now");
    }
}

fn report_left_behind(registry: &ModelRegistry, ctx: &Context, cause: &str) {
    let webhook = recorded_webhook(registry);
    let id = webhook.map_or("without a known id", |webhook| webhook.id.as_str());
    let server = webhook
        .and_then(|webhook| webhook.server.as_ref())
        .map_or(registry.spec.address(), String::as_str);
    let name = webhook_name(registry, &ctx.settings.cluster_name);
    let note = format!(
        "the webhook {name} ({id}) stays behind in MLflow at {server}: delete it there; {cause}"
    );
    tracing::warn!(
        namespace = registry.namespace(),
        registry = registry.name_any(),
        note,
        "a webhook was left behind"
    );
    let event = Event {
        type_: EventType::Warning,
        reason: Reason::WebhookLeftBehind.as_str().to_owned(),
        note: Some(note),
        action: "RemoveWebhook".to_owned(),
        secondary: None,
    };
    ctx.event_recorder.publish(registry.object_ref(&()), event);
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deleted_object_waits_a_minute_for_its_webhook() {
        let spec = json!({"mlflow": {"uri": "http://mlflow:5000"}});
        let mut registry = ModelRegistry::new("mlflow", serde_json::from_value(spec).unwrap());
        let at = |second| Timestamp::from_second(second).unwrap();
        registry.metadata.deletion_timestamp = Some(Time(at(100)));
        assert!(waits_for_removal(&registry, at(159)));
        assert!(!waits_for_removal(&registry, at(160)));
    }
}
