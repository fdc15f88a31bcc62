//! The webhook that a registry announces moves by: registered and kept, its state told, and removed with its `ModelRegistry`.
//!
//! Absent: any effect on looks and rollouts. All of it happens beside them, and polling goes on whatever comes of it. What is said of
//! it is in `webhook_words`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use ring::digest;

use crate::api::conditions::{WEBHOOK_READY, find, shorten};
use crate::api::model_registry::{RegisteredWebhook, WebhookMode};
use crate::api::{ModelRegistry, Reason, names, reason::Problem};
use crate::controllers::context::Context;
use crate::controllers::receiver::signing_keys::signing_key;
use crate::controllers::registry::credentials::{connection, secret};
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::webhook_messages::{answered, failed, problem};
use crate::controllers::registry::webhook_state::{Registration, WebhookState};
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::finalizer::set_finalizer;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::work_queue::Requeue;
use crate::registries::mlflow::{Registry, RegistryError, Trial, WantedWebhook, Webhook};

/// How soon what our own cluster did not let us do is tried again.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How often the webhook is looked at, at most, and while something is wrong with it.
const SELDOM: Duration = Duration::from_secs(60);
/// How soon registering is tried again on a server that loses what is registered.
const WITHOUT_KEY: Duration = Duration::from_secs(600);
/// How often a new webhook is read back, and how often one that is known: each time another of the server's workers may answer.
const READ_BACK: (usize, usize) = (12, 2);
/// How often, and with what pauses, deleting is tried on such a server: only the worker that wrote a webhook can read, and so
/// delete, it. Without a pause a busy machine gives one connection after another to the same worker.
const DELETE_ATTEMPTS: (usize, Duration) = (24, Duration::from_millis(200));
/// How long an object that is being deleted waits for its webhook to be removed.
const LET_GO: SignedDuration = SignedDuration::from_secs(60);
/// The longest name that MLflow takes.
const LONGEST_NAME: usize = 63;

/// Looks after the webhook, where that is due, in a task of its own.
pub fn attend(registry: &Arc<ModelRegistry>, ctx: &Arc<Context>, state: &Arc<RegistryState>) {
    let mode = registry.webhook_mode();
    if mode == WebhookMode::Disabled && !has_finalizer(registry) {
        return state.webhook.rest();
    }
    if registry.spec.suspend || (mode != WebhookMode::Disabled && !ctx.settings.receives_webhooks())
    {
        return state.webhook.wait();
    }
    let Some(client) = state.registry().filter(|_| state.problem().is_none()) else {
        return state.webhook.wait();
    };
    let request = registry
        .annotations()
        .get(names::REQUESTED_AT_ANNOTATION)
        .cloned();
    if !state.webhook.begin(registry.metadata.generation, request) {
        return;
    }
    let (registry, ctx, state) = (Arc::clone(registry), Arc::clone(ctx), Arc::clone(state));
    tokio::spawn(async move {
        let kept = look_after(&registry, &ctx, &state, &client).await;
        let next = until_next(&kept, registry.interval());
        state.webhook.end(kept, next);
        ctx.queues
            .registries
            .enqueue(ObjectKey::of(registry.as_ref()));
    });
}

/// How long until the next look at a webhook.
fn until_next(kept: &Registration, interval: Duration) -> Duration {
    match &kept.problem {
        None => interval.max(SELDOM),
        Some(problem) if problem.reason == Reason::Pending => AT_ONCE,
        Some(problem) if is_lost(Some(problem)) && kept.webhook.is_none() => WITHOUT_KEY,
        Some(_) => SELDOM,
    }
}

async fn look_after(
    registry: &ModelRegistry,
    ctx: &Context,
    state: &RegistryState,
    client: &Registry,
) -> Registration {
    let mode = registry.webhook_mode();
    let signing = if mode == WebhookMode::Disabled {
        None
    } else {
        Some(key(registry, ctx).await)
    };
    match signing {
        Some(Err(problem)) => Registration::hindered(problem),
        Some(Ok(secret)) if mode == WebhookMode::Managed => {
            RegistrationStep::of(registry, ctx, state, client, secret)
                .keep()
                .await
        }
        Some(Ok(_)) | None => match leave(registry, ctx, client).await {
            Ok(()) => Registration {
                is_gone: true,
                ..Registration::default()
            },
            Err(problem) => Registration {
                stays: true,
                ..Registration::hindered(problem)
            },
        },
    }
}

/// What deliveries are signed with.
async fn key(registry: &ModelRegistry, ctx: &Context) -> Result<String, Problem> {
    let reference = registry
        .spec
        .webhook
        .as_ref()
        .and_then(|webhook| webhook.secret_ref.as_ref());
    let reference = reference.ok_or_else(|| {
        Problem::new(
            Reason::InvalidSpec,
            "spec.webhook.secretRef is missing: name the Secret",
        )
    })?;
    let found = secret(registry, ctx, &reference.name).await?;
    let key = signing_key(&found, &reference.key).and_then(|key| String::from_utf8(key).ok());
    key.ok_or_else(|| {
        let message = format!(
            "Secret {} has no text under the key {}, which spec.webhook signs with: add it, such as 32 random bytes in hex",
            reference.name, reference.key
        );
        Problem::new(Reason::CredentialsNotFound, message)
    })
}

/// A webhook that was registered before the spec said otherwise goes, and the finalizer with it.
async fn leave(registry: &ModelRegistry, ctx: &Context, client: &Registry) -> Result<(), Problem> {
    if has_finalizer(registry) {
        remove(registry, ctx, client).await?;
        let written = set_finalizer(
            &ctx.client,
            &ctx.stores.registries,
            registry,
            names::WEBHOOK_FINALIZER,
            false,
        )
        .await;
        written.map_err(|failure| Problem::new(Reason::Pending, failure.to_string()))?;
    }
    Ok(())
}

/// One look at a webhook that is to be kept.
struct RegistrationStep<'a> {
    registry: &'a ModelRegistry,
    ctx: &'a Context,
    state: &'a WebhookState,
    client: &'a Registry,
    name: String,
    url: String,
    secret: String,
}

impl<'a> RegistrationStep<'a> {
    fn of(
        registry: &'a ModelRegistry,
        ctx: &'a Context,
        state: &'a RegistryState,
        client: &'a Registry,
        secret: String,
    ) -> Self {
        let (name, url) = (
            name_of(registry, &ctx.settings.cluster_name),
            url_of(registry),
        );
        Self {
            registry,
            ctx,
            state: &state.webhook,
            client,
            name,
            url,
            secret,
        }
    }

    fn wanted(&self) -> WantedWebhook<'_> {
        WantedWebhook {
            name: &self.name,
            url: &self.url,
            secret: &self.secret,
        }
    }

    async fn keep(&self) -> Registration {
        if let Some(left) = self.left_behind()
            && let Err(problem) = self.withdraw(&left.id).await
        {
            return Registration {
                webhook: Some(left.clone()),
                problem: Some(problem),
                ..Registration::default()
            };
        }
        let (id, made) = match self.register().await {
            Ok(registered) => registered,
            Err(problem) => return Registration::hindered(problem),
        };
        tell_moved_away(self.registry, self.ctx, Some(&id));
        let proven = self.prove(&id, made).await;
        let is_new = made || *proven.as_ref().unwrap_or(&false);
        let read_back = if proven.is_ok() {
            self.read_back(is_new).await
        } else {
            Ok(())
        };
        let problem = proven.err().or(read_back.err());
        if is_lost(problem.as_ref()) && self.withdraw(&id).await.is_ok() {
            return Registration {
                is_gone: true,
                problem,
                ..Registration::default()
            };
        }
        let server = Some(self.registry.spec.mlflow.uri.clone());
        let webhook = RegisteredWebhook {
            id,
            url: self.url.clone(),
            server,
        };
        Registration {
            webhook: Some(webhook),
            is_new,
            problem,
            ..Registration::default()
        }
    }

    /// The webhook that an earlier look could not withdraw from a server without a key.
    fn left_behind(&self) -> Option<&RegisteredWebhook> {
        let status = self.registry.status.as_ref()?;
        let told = find(&status.conditions, WEBHOOK_READY)?;
        status
            .webhook
            .as_ref()
            .filter(|_| told.reason == Reason::WebhookKeyMissing.as_str())
    }

    /// The id of the webhook, which is there and as it should be then; and whether MLflow's workers do not know it so yet.
    async fn register(&self) -> Result<(String, bool), Problem> {
        let listed = self.client.webhooks().await.map_err(problem)?;
        let before = on_record(self.registry);
        let (kept, doubles) = ours(listed, &self.name, &self.url, before);
        self.leads()?;
        for double in doubles {
            self.client
                .delete_webhook(&double.id)
                .await
                .map_err(problem)?;
        }
        let Some(kept) = kept else {
            let id = self
                .client
                .create_webhook(self.wanted())
                .await
                .map_err(problem)?;
            self.state.signs(&id, &self.secret);
            return Ok((id, true));
        };
        let has_other_secret = self
            .state
            .secret_of(&kept.id)
            .is_some_and(|secret| secret != self.secret);
        let is_new = !kept.is_whole || kept.url != self.url || has_other_secret;
        if is_new {
            self.update(&kept.id).await?;
        }
        Ok((kept.id, is_new))
    }

    async fn update(&self, id: &str) -> Result<(), Problem> {
        let is_known = self.state.secret_of(id).as_ref() == Some(&self.secret);
        self.client
            .update_webhook(id, self.wanted(), !is_known)
            .await
            .map_err(problem)?;
        self.state.signs(id, &self.secret);
        Ok(())
    }

    /// Has MLflow deliver an example, until one arrived. That it signs with another secret than ours is found out by that, too,
    /// for MLflow never shows it: true where it was changed.
    async fn prove(&self, id: &str, is_new: bool) -> Result<bool, Problem> {
        if !is_new && self.state.is_proven(id) {
            return Ok(false);
        }
        let mut is_changed = false;
        let mut trial = self.client.try_webhook(id).await;
        if matches!(trial, Ok(Trial::Answered(401))) && self.state.secret_of(id).is_none() {
            self.update(id).await?;
            is_changed = true;
            trial = self.client.try_webhook(id).await;
        }
        match trial {
            Ok(Trial::Arrived) => {
                self.state.signs(id, &self.secret);
                self.state.proven(id);
                Ok(is_changed)
            }
            Ok(Trial::Answered(status)) => Err(Problem::new(
                Reason::WebhookUnreachable,
                answered(&self.url, status),
            )),
            Ok(Trial::Failed(words)) => Err(failed(&self.url, &words)),
            Err(error @ RegistryError::TimedOut { .. }) => {
                Err(failed(&self.url, &error.to_string()))
            }
            Err(error) => Err(problem(error)),
        }
    }

    /// Each connection may meet another of the server's workers, and one that lacks the others' key cannot read the webhook.
    async fn read_back(&self, is_new: bool) -> Result<(), Problem> {
        for _ in 0..(if is_new { READ_BACK.0 } else { READ_BACK.1 }) {
            self.client.webhooks().await.map_err(problem)?;
        }
        Ok(())
    }

    /// On a server without a key a webhook of ours would silence everybody's.
    async fn withdraw(&self, id: &str) -> Result<(), Problem> {
        let (attempts, pause) = DELETE_ATTEMPTS;
        for _ in 1..attempts {
            self.leads()?;
            if self.client.delete_webhook(id).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
        self.leads()?;
        self.client.delete_webhook(id).await.map_err(problem)
    }

    /// MLflow knows no fence, so it is asked before each of our writes there.
    fn leads(&self) -> Result<(), Problem> {
        let lost = || Problem::new(Reason::Pending, "another replica leads");
        self.ctx.fence.is_open().then_some(()).ok_or_else(lost)
    }
}

/// Whether the server loses what is registered, for want of a key.
fn is_lost(problem: Option<&Problem>) -> bool {
    problem.is_some_and(|problem| problem.reason == Reason::WebhookKeyMissing)
}

/// Of what is registered, the one to keep and those too many. Names are not unique in MLflow, and another cluster may use ours;
/// so the address, or the id in our own status, has to be ours too.
fn ours(
    listed: Vec<Webhook>,
    name: &str,
    url: &str,
    before: Option<&RegisteredWebhook>,
) -> (Option<Webhook>, Vec<Webhook>) {
    let is_known = |webhook: &Webhook| before.is_some_and(|before| before.id == webhook.id);
    let is_ours =
        |webhook: &Webhook| webhook.name == name && (webhook.url == url || is_known(webhook));
    let mut ours: Vec<Webhook> = listed.into_iter().filter(is_ours).collect();
    ours.sort_by_key(|webhook| !is_known(webhook));
    let mut ours = ours.into_iter();
    (ours.next(), ours.collect())
}

/// Deletes what is registered for a registry.
async fn remove(registry: &ModelRegistry, ctx: &Context, client: &Registry) -> Result<(), Problem> {
    let before = on_record(registry);
    let name = name_of(registry, &ctx.settings.cluster_name);
    let url = before.map_or_else(|| url_of(registry), |before| before.url.clone());
    let listed = match client.webhooks().await.map_err(problem) {
        // A server that has no webhooks, or never let us register one, has none of ours; an id in the status says otherwise.
        Err(problem) if before.is_none() && is_for_good(problem.reason) => Vec::new(),
        listed => listed?,
    };
    let (kept, doubles) = ours(listed, &name, &url, before);
    tell_moved_away(registry, ctx, kept.as_ref().map(|kept| kept.id.as_str()));
    for webhook in kept.into_iter().chain(doubles) {
        client.delete_webhook(&webhook.id).await.map_err(problem)?;
    }
    Ok(())
}

/// Whether a server says so of every webhook.
fn is_for_good(reason: Reason) -> bool {
    matches!(reason, Reason::WebhookUnsupported | Reason::WebhookRefused)
}

/// A name that is the same whenever it is made, unlike that of another registry, and readable.
fn name_of(registry: &ModelRegistry, cluster: &str) -> String {
    let (namespace, name) = (
        registry.namespace().unwrap_or_default(),
        registry.name_any(),
    );
    let digest = digest::digest(
        &digest::SHA256,
        format!("{cluster}/{namespace}/{name}").as_bytes(),
    );
    let digest = digest
        .as_ref()
        .iter()
        .take(4)
        .fold(0, |number: u32, byte| (number << 8) | u32::from(*byte));
    let whole = format!("pointsman.{digest:08x}.{namespace}.{name}");
    let short: String = whole.chars().take(LONGEST_NAME).collect();
    short
        .trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_owned()
}

/// Where MLflow delivers to.
fn url_of(registry: &ModelRegistry) -> String {
    let base = registry
        .spec
        .webhook
        .as_ref()
        .and_then(|webhook| webhook.url.as_deref())
        .unwrap_or_default();
    let (namespace, name) = (
        registry.namespace().unwrap_or_default(),
        registry.name_any(),
    );
    format!("{}/webhooks/{namespace}/{name}", base.trim_end_matches('/'))
}

/// What the status shows of the webhook: what was written last, until it was looked at anew.
pub fn registered(registry: &ModelRegistry, state: &RegistryState) -> Option<RegisteredWebhook> {
    match state.webhook.tell().kept {
        Some(kept) if kept.webhook.is_some() || kept.is_gone => kept.webhook,
        // What was not looked at is as it was.
        _ => on_record(registry)
            .cloned()
            .filter(|_| has_finalizer(registry)),
    }
}

fn has_finalizer(registry: &ModelRegistry) -> bool {
    registry
        .finalizers()
        .iter()
        .any(|name| name == names::WEBHOOK_FINALIZER)
}

/// Puts the finalizer on before a webhook is registered. True where written.
pub async fn keep_finalizer(
    registry: &ModelRegistry,
    ctx: &Context,
) -> Result<bool, ReconcileError> {
    let is_missing = registry.webhook_mode() == WebhookMode::Managed
        && ctx.settings.receives_webhooks()
        && !has_finalizer(registry);
    if is_missing {
        set_finalizer(
            &ctx.client,
            &ctx.stores.registries,
            registry,
            names::WEBHOOK_FINALIZER,
            true,
        )
        .await?;
    }
    Ok(is_missing)
}

/// Removes the webhook before the object goes; but no object stays for a registry that cannot be asked.
pub async fn finalize(registry: &ModelRegistry, ctx: &Context) -> Result<Requeue, ReconcileError> {
    let (namespace, name) = (
        registry.namespace().unwrap_or_default(),
        registry.name_any(),
    );
    if has_finalizer(registry) {
        if let Err(problem) = remove_last(registry, ctx).await {
            if waits(registry, Timestamp::now()) {
                tracing::info!(
                    namespace,
                    registry = name,
                    message = problem.message,
                    "the webhook cannot be removed yet"
                );
                return Ok(Requeue::after(Duration::from_secs(5)));
            }
            tell_left_behind(registry, ctx, &problem.message);
        }
        set_finalizer(
            &ctx.client,
            &ctx.stores.registries,
            registry,
            names::WEBHOOK_FINALIZER,
            false,
        )
        .await?;
    }
    ctx.registries.forget(&ObjectKey::of(registry));
    ctx.metrics.forget(&namespace, &name);
    Ok(Requeue::await_change())
}

fn waits(registry: &ModelRegistry, now: Timestamp) -> bool {
    registry
        .metadata
        .deletion_timestamp
        .as_ref()
        .is_some_and(|since| now.duration_since(since.0) < LET_GO)
}

/// By the connection that was used last, for in a namespace that goes the Secret may be gone already.
async fn remove_last(registry: &ModelRegistry, ctx: &Context) -> Result<(), Problem> {
    let state = ctx.registries.of(&ObjectKey::of(registry));
    let client = if let Some(client) = state.registry() {
        client
    } else {
        let requests = ctx.metrics.requests.clone();
        Registry::connect_counted(connection(registry, ctx).await?, requests)
            .map_err(Problem::from)?
    };
    remove(registry, ctx, &client).await
}

/// The webhook that the status names.
fn on_record(registry: &ModelRegistry) -> Option<&RegisteredWebhook> {
    registry.status.as_ref()?.webhook.as_ref()
}

/// The webhook in the status, where it was registered at another address of MLflow than the spec has now. With the credentials of
/// now it is not asked for there: they may be meant for another server.
fn moved_away(registry: &ModelRegistry) -> Option<&RegisteredWebhook> {
    on_record(registry).filter(|webhook| {
        webhook
            .server
            .as_ref()
            .is_some_and(|server| *server != registry.spec.mlflow.uri)
    })
}

/// Tells of a webhook in a server of before, unless it is the one that is `here`: the same server, by another address.
fn tell_moved_away(registry: &ModelRegistry, ctx: &Context, here: Option<&str>) {
    if moved_away(registry).is_some_and(|left| here != Some(left.id.as_str())) {
        tell_left_behind(registry, ctx, "spec.mlflow.uri names another server since");
    }
}

fn tell_left_behind(registry: &ModelRegistry, ctx: &Context, why: &str) {
    let webhook = on_record(registry);
    let id = webhook.map_or("without a known id", |webhook| webhook.id.as_str());
    let server = webhook
        .and_then(|webhook| webhook.server.as_ref())
        .unwrap_or(&registry.spec.mlflow.uri);
    let name = name_of(registry, &ctx.settings.cluster_name);
    let note = format!(
        "the webhook {name} ({id}) stays behind in MLflow at {server}: delete it there; it was not removed: {why}"
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
        note: Some(shorten(&note, 1000)),
        action: "RemoveWebhook".to_owned(),
        secondary: None,
    };
    ctx.event_recorder.publish(registry.object_ref(&()), event);
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
