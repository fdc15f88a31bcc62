//! Reconciles the webhook by which a registry announces moves, in a task of its own beside the
//! polls.
//!
//! Absent: any effect on polls and rollouts. Polling goes on, whether the webhook works or not.

pub mod ownership;
pub mod registration;
pub mod webhook_finalizer;
pub mod webhook_messages;
pub mod webhook_state;

use std::sync::Arc;
use std::time::Duration;

use crate::api::model_registry::WebhookMode;
use crate::api::{ModelRegistry, Reason, reason::Problem};
use crate::controllers::context::Context;
use crate::controllers::receiver::signing_keys::{KeyFault, signing_key};
use crate::controllers::registry::credentials::secret;
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::state::poll_schedule::PollTrigger;
use crate::controllers::registry::webhook::registration::WebhookRegistration;
use crate::controllers::registry::webhook::webhook_finalizer::{has_finalizer, unregister};
use crate::controllers::registry::webhook::webhook_state::Registration;
use crate::kubernetes::key::ObjectKey;
use crate::registries::RegistryClient;

/// The time until the next attempt after a problem in this cluster, such as a conflict.
const CONFLICT_RETRY: Duration = Duration::from_secs(1);
/// The time until the next attempt after any other problem, and the shortest interval between two
/// reconciles.
const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// The time until the next attempt on a server without an encryption key, which loses webhooks.
const KEY_MISSING_RETRY: Duration = Duration::from_secs(600);

/// Reconciles the webhook, if that is due, in a task of its own.
pub fn reconcile_webhook(
    registry: &Arc<ModelRegistry>,
    ctx: &Arc<Context>,
    state: &Arc<RegistryState>,
) {
    let mode = registry.webhook_mode();
    if mode == WebhookMode::Disabled && !has_finalizer(registry) {
        return state.webhook.reset();
    }
    let is_served = mode == WebhookMode::Disabled || ctx.settings.receives_webhooks();
    if registry.spec.suspend || !is_served {
        return state.webhook.postpone();
    }
    let Some(client) = state.connection.healthy_client() else {
        return state.webhook.postpone();
    };
    if !state.webhook.begin(PollTrigger::of(registry)) {
        return;
    }
    let (registry, ctx, state) = (Arc::clone(registry), Arc::clone(ctx), Arc::clone(state));
    tokio::spawn(async move {
        let registration = register_or_remove(&registry, &ctx, &state, &client).await;
        let until_next = until_next(&registration, registry.interval());
        state.webhook.end(registration, until_next);
        let own = ObjectKey::of(registry.as_ref());
        ctx.queues.registries.enqueue(own);
    });
}

/// The time until the webhook is reconciled again.
fn until_next(registration: &Registration, interval: Duration) -> Duration {
    match &registration.problem {
        None => interval.max(MIN_INTERVAL),
        Some(problem) => match problem.reason {
            Reason::Pending => CONFLICT_RETRY,
            Reason::WebhookKeyMissing if registration.webhook.is_none() => KEY_MISSING_RETRY,
            _ => MIN_INTERVAL,
        },
    }
}

async fn register_or_remove(
    registry: &ModelRegistry,
    ctx: &Context,
    state: &RegistryState,
    client: &RegistryClient,
) -> Registration {
    let mode = registry.webhook_mode();
    if mode != WebhookMode::Disabled {
        let secret = match signing_secret(registry, ctx).await {
            Ok(secret) => secret,
            Err(problem) => return Registration::failed(problem),
        };
        if mode == WebhookMode::Managed {
            let Some(client) = client.webhooks() else {
                return Registration::failed(Problem::new(
                    Reason::WebhookUnsupported,
                    "this kind of registry has no webhooks: remove spec.webhook",
                ));
            };
            let registration = WebhookRegistration::new(registry, ctx, state, client, secret);
            return registration.reconcile().await;
        }
    }
    match unregister(registry, ctx, client).await {
        Ok(()) => Registration {
            is_removed: true,
            ..Registration::default()
        },
        Err(problem) => Registration {
            is_removal_failed: true,
            ..Registration::failed(problem)
        },
    }
}

/// The secret that deliveries are signed with.
async fn signing_secret(registry: &ModelRegistry, ctx: &Context) -> Result<String, Problem> {
    let webhook = registry.spec.webhook.as_ref();
    let Some(reference) = webhook.and_then(|webhook| webhook.secret_ref.as_ref()) else {
        return Err(Problem::new(
            Reason::InvalidSpec,
            "spec.webhook.secretRef is missing: name the Secret",
        ));
    };
    let found = secret(registry, &ctx.client, &reference.name).await?;
    signing_key(&found, &reference.key).map_err(|fault| {
        let state = match fault {
            KeyFault::Missing => "has no text",
            KeyFault::Weak => "has text that can be guessed",
        };
        let text = format!(
            "Secret {} {state} under the key {}, which spec.webhook signs with: set it to 32 random bytes in hex",
            reference.name, reference.key
        );
        Problem::new(Reason::CredentialsNotFound, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_attempt_depends_on_the_problem() {
        let interval = Duration::from_secs(30);
        let after = |reason: Reason| {
            let registration = Registration::failed(Problem::new(reason, ""));
            until_next(&registration, interval)
        };
        assert_eq!(after(Reason::Pending), CONFLICT_RETRY);
        assert_eq!(after(Reason::WebhookKeyMissing), KEY_MISSING_RETRY);
        assert_eq!(after(Reason::WebhookUnreachable), MIN_INTERVAL);
        let well = Registration::default();
        assert_eq!(until_next(&well, interval), MIN_INTERVAL);
        assert_eq!(until_next(&well, MIN_INTERVAL * 5), MIN_INTERVAL * 5);
    }
}
