//! Registers the webhook in MLflow, keeps it as the spec asks, and tests it with a delivery.
//!
//! Absent: removal when it is no longer wanted, which is in `webhook_finalizer`.

use std::time::Duration;

use crate::api::conditions::{WEBHOOK_READY, find};
use crate::api::model_registry::RegisteredWebhook;
use crate::api::{ModelRegistry, Reason, reason::Problem};
use crate::controllers::context::Context;
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::webhook::ownership::{
    OwnWebhooks, recorded_webhook, webhook_name, webhook_url,
};
use crate::controllers::registry::webhook::webhook_finalizer::report_webhook_elsewhere;
use crate::controllers::registry::webhook::webhook_messages::{
    delivery_failed, delivery_refused, problem,
};
use crate::controllers::registry::webhook::webhook_state::{Registration, WebhookState};
use crate::registries::{DesiredWebhook, ListedWebhook, RegistryError, WebhookClient, WebhookTest};

/// How many times a new webhook is read back. Each request may reach another of the server's
/// workers.
const NEW_READS: usize = 12;
/// How many times a known webhook is read back.
const KNOWN_READS: usize = 2;
/// How many times deletion is tried on a server without an encryption key: only the worker that
/// wrote the webhook can read and delete it.
const DELETE_ATTEMPTS: usize = 24;
/// The pause between two of these attempts, so that a busy server does not give all connections to
/// the same worker.
const DELETE_PAUSE: Duration = Duration::from_millis(200);

/// One reconcile of a webhook that is to be registered.
pub struct WebhookRegistration<'a> {
    registry: &'a ModelRegistry,
    ctx: &'a Context,
    state: &'a WebhookState,
    client: WebhookClient<'a>,
    name: String,
    url: String,
    secret: String,
}

/// A webhook in MLflow after it was created or updated.
struct RegisteredId {
    id: String,
    /// Whether it was created or changed, so that MLflow's workers do not know it yet.
    is_new: bool,
}

impl<'a> WebhookRegistration<'a> {
    /// A reconcile with this signing secret.
    pub fn new(
        registry: &'a ModelRegistry,
        ctx: &'a Context,
        state: &'a RegistryState,
        client: WebhookClient<'a>,
        secret: String,
    ) -> Self {
        Self {
            registry,
            ctx,
            state: &state.webhook,
            client,
            name: webhook_name(registry, &ctx.settings.cluster_name),
            url: webhook_url(registry),
            secret,
        }
    }

    /// Registers, tests and reads back the webhook.
    pub async fn reconcile(&self) -> Registration {
        if let Some(unreadable) = self.unreadable_webhook()
            && let Err(problem) = self.delete_persistently(&unreadable.id).await
        {
            return Registration {
                webhook: Some(unreadable.clone()),
                ..Registration::failed(problem)
            };
        }
        let mut registered = match self.register().await {
            Ok(registered) => registered,
            Err(problem) => return Registration::failed(problem),
        };
        report_webhook_elsewhere(self.registry, self.ctx, Some(&registered.id));
        let problem = self.verify(&mut registered).await.err();
        if is_key_missing(problem.as_ref())
            && self.delete_persistently(&registered.id).await.is_ok()
        {
            return Registration {
                is_removed: true,
                problem,
                ..Registration::default()
            };
        }
        Registration {
            webhook: Some(RegisteredWebhook {
                id: registered.id,
                url: self.url.clone(),
                server: Some(self.registry.spec.address().to_owned()),
            }),
            is_new: registered.is_new,
            problem,
            ..Registration::default()
        }
    }

    /// The webhook that an earlier reconcile could not delete from a server without an encryption
    /// key.
    fn unreadable_webhook(&self) -> Option<&RegisteredWebhook> {
        let status = self.registry.status.as_ref()?;
        let condition = find(&status.conditions, WEBHOOK_READY)?;
        if condition.reason != Reason::WebhookKeyMissing.as_str() {
            return None;
        }
        status.webhook.as_ref()
    }

    /// Creates the webhook, or updates it if it differs from the spec, and deletes duplicates.
    async fn register(&self) -> Result<RegisteredId, Problem> {
        let listed = self.client.list(&self.name).await.map_err(problem)?;
        let recorded = recorded_webhook(self.registry);
        let own = OwnWebhooks::find(listed, &self.name, &self.url, recorded);
        for duplicate in own.duplicates {
            let deleted = self.client.delete(&duplicate.id).await;
            deleted.map_err(problem)?;
        }
        match own.kept {
            Some(kept) => self.update_if_changed(kept).await,
            None => self.create().await,
        }
    }

    async fn create(&self) -> Result<RegisteredId, Problem> {
        let created = self.client.create(self.desired()).await;
        let id = created.map_err(problem)?;
        self.state.record_secret(&id, &self.secret);
        Ok(RegisteredId { id, is_new: true })
    }

    async fn update_if_changed(&self, kept: ListedWebhook) -> Result<RegisteredId, Problem> {
        let has_other_secret = match self.state.secret_of(&kept.id) {
            Some(secret) => secret != self.secret,
            None => false,
        };
        let is_new = !kept.is_complete || kept.url != self.url || has_other_secret;
        if is_new {
            self.update(&kept.id).await?;
        }
        let id = kept.id;
        Ok(RegisteredId { id, is_new })
    }

    async fn update(&self, id: &str) -> Result<(), Problem> {
        let has_secret = self.state.secret_of(id).as_ref() == Some(&self.secret);
        let updated = self.client.update(id, self.desired(), !has_secret).await;
        updated.map_err(problem)?;
        self.state.record_secret(id, &self.secret);
        Ok(())
    }

    fn desired(&self) -> DesiredWebhook<'_> {
        DesiredWebhook {
            name: &self.name,
            url: &self.url,
            secret: &self.secret,
        }
    }

    /// Tests the webhook and reads it back.
    async fn verify(&self, registered: &mut RegisteredId) -> Result<(), Problem> {
        if registered.is_new || !self.state.is_tested(&registered.id) {
            self.test(registered).await?;
        }
        let reads = if registered.is_new {
            NEW_READS
        } else {
            KNOWN_READS
        };
        // A worker that lacks the others' encryption key cannot read the webhook.
        for _ in 0..reads {
            self.client.list(&self.name).await.map_err(problem)?;
        }
        Ok(())
    }

    /// Has MLflow send a test delivery. MLflow never shows the secret, so a refused signature is
    /// the only sign of another one.
    async fn test(&self, registered: &mut RegisteredId) -> Result<(), Problem> {
        let id = registered.id.clone();
        let mut outcome = self.client.test(&id).await;
        if matches!(outcome, Ok(WebhookTest::Rejected(401))) && self.state.secret_of(&id).is_none()
        {
            self.update(&id).await?;
            registered.is_new = true;
            outcome = self.client.test(&id).await;
        }
        match outcome {
            Ok(WebhookTest::Delivered) => {
                self.state.record_secret(&id, &self.secret);
                self.state.record_tested(&id);
                Ok(())
            }
            Ok(WebhookTest::Rejected(status)) => Err(delivery_refused(&self.url, status)),
            Ok(WebhookTest::Failed(cause)) => Err(delivery_failed(&self.url, &cause)),
            Err(error @ RegistryError::TimedOut { .. }) => {
                Err(delivery_failed(&self.url, &error.to_string()))
            }
            Err(error) => Err(problem(error)),
        }
    }

    /// Deletes a webhook from a server without an encryption key: there it would silence
    /// everybody's webhooks.
    async fn delete_persistently(&self, id: &str) -> Result<(), Problem> {
        for _ in 1..DELETE_ATTEMPTS {
            if self.client.delete(id).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(DELETE_PAUSE).await;
        }
        self.client.delete(id).await.map_err(problem)
    }
}

fn is_key_missing(problem: Option<&Problem>) -> bool {
    problem.is_some_and(|problem| problem.reason == Reason::WebhookKeyMissing)
}
