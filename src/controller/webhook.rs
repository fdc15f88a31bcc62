//! The webhook that a registry announces moves by: registered and kept, its state told, and removed with its `ModelRegistry`.
//!
//! Absent: any effect on looks and rollouts. All of it happens beside them, and polling goes on whatever comes of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use ring::digest;

use super::context::Context;
use super::failure::Failure;
use super::finalizer::set_finalizer;
use super::keys::signing_key;
use super::name::Name;
use super::queue::Next;
use super::registry::{connection, interval, secret};
use super::registry_state::RegistryState;
pub use super::webhook_state::{Kept, WebhookState};
use crate::api::conditions::{WEBHOOK_READY, Wanted, find};
use crate::api::model_registry::{RegisteredWebhook, WebhookMode};
use crate::api::{ModelRegistry, Reason, names, reason::Problem};
use crate::registry::{Registry, RegistryError, Trial, WantedWebhook, Webhook};

/// How often the webhook is looked at, at most.
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
    if mode == WebhookMode::Off && !has_finalizer(registry) {
        return state.webhook.rest();
    }
    if registry.spec.suspend || (mode != WebhookMode::Off && !ctx.hears_webhooks) {
        return state.webhook.wait();
    }
    let Some(client) = state.registry().filter(|_| state.problem().is_none()) else { return state.webhook.wait() };
    let request = registry.annotations().get(names::REQUESTED_AT_ANNOTATION).cloned();
    if !state.webhook.begin(registry.metadata.generation, request) {
        return;
    }
    let (registry, ctx, state) = (Arc::clone(registry), Arc::clone(ctx), Arc::clone(state));
    tokio::spawn(async move {
        let kept = look_after(&registry, &ctx, &state, &client).await;
        let next = if is_lost(kept.problem.as_ref()) && kept.webhook.is_none() {
            WITHOUT_KEY
        } else {
            interval(&registry).max(SELDOM)
        };
        state.webhook.end(kept, next);
        ctx.queues.registries.wake(Name::of(registry.as_ref()));
    });
}

async fn look_after(registry: &ModelRegistry, ctx: &Context, state: &RegistryState, client: &Registry) -> Kept {
    let signing = || async { key(registry, ctx).await };
    let done = match registry.webhook_mode() {
        WebhookMode::Managed => match signing().await {
            Ok(secret) => return Keeping::of(registry, ctx, state, client, secret).keep().await,
            Err(problem) => Err(problem),
        },
        WebhookMode::External => match signing().await {
            Ok(_) => leave(registry, ctx, client).await,
            Err(problem) => Err(problem),
        },
        WebhookMode::Off => leave(registry, ctx, client).await,
    };
    match done {
        Ok(()) => Kept { is_gone: true, ..Kept::default() },
        Err(problem) => Kept::hindered(problem),
    }
}

/// What deliveries are signed with.
async fn key(registry: &ModelRegistry, ctx: &Context) -> Result<String, Problem> {
    let reference = registry.spec.webhook.as_ref().and_then(|webhook| webhook.secret_ref.as_ref());
    let reference = reference
        .ok_or_else(|| Problem::new(Reason::InvalidSpec, "spec.webhook.secretRef is missing: name the Secret"))?;
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
        let written = set_finalizer(ctx, &ctx.shelves.registries, registry, names::WEBHOOK_FINALIZER, false).await;
        written.map_err(|failure| Problem::new(Reason::Pending, failure.to_string()))?;
    }
    Ok(())
}

/// One look at a webhook that is to be kept.
struct Keeping<'a> {
    registry: &'a ModelRegistry,
    ctx: &'a Context,
    state: &'a WebhookState,
    client: &'a Registry,
    name: String,
    url: String,
    secret: String,
}

impl<'a> Keeping<'a> {
    fn of(
        registry: &'a ModelRegistry,
        ctx: &'a Context,
        state: &'a RegistryState,
        client: &'a Registry,
        secret: String,
    ) -> Self {
        let (name, url) = (name_of(registry, &ctx.cluster_name), url_of(registry));
        Self { registry, ctx, state: &state.webhook, client, name, url, secret }
    }

    fn wanted(&self) -> WantedWebhook<'_> {
        WantedWebhook { name: &self.name, url: &self.url, secret: &self.secret }
    }

    async fn keep(&self) -> Kept {
        if let Some(left) = self.left_behind()
            && let Err(problem) = self.withdraw(&left.id).await
        {
            return Kept { webhook: Some(left.clone()), problem: Some(problem), ..Kept::default() };
        }
        let (id, made) = match self.register().await {
            Ok(registered) => registered,
            Err(problem) => return Kept::hindered(problem),
        };
        let proven = self.prove(&id, made).await;
        let is_new = made || *proven.as_ref().unwrap_or(&false);
        let read_back = if proven.is_ok() { self.read_back(is_new).await } else { Ok(()) };
        let problem = proven.err().or(read_back.err());
        if is_lost(problem.as_ref()) && self.withdraw(&id).await.is_ok() {
            return Kept { is_gone: true, problem, ..Kept::default() };
        }
        let webhook = RegisteredWebhook { id, url: self.url.clone() };
        Kept { webhook: Some(webhook), is_new, is_gone: false, problem }
    }

    /// The webhook that an earlier look could not withdraw from a server without a key.
    fn left_behind(&self) -> Option<&RegisteredWebhook> {
        let status = self.registry.status.as_ref()?;
        let told = find(&status.conditions, WEBHOOK_READY)?;
        status.webhook.as_ref().filter(|_| told.reason == Reason::WebhookKeyMissing.as_str())
    }

    /// The id of the webhook, which is there and as it should be then; and whether MLflow's workers do not know it so yet.
    async fn register(&self) -> Result<(String, bool), Problem> {
        let listed = self.client.webhooks().await.map_err(problem)?;
        let before = self.registry.status.as_ref().and_then(|status| status.webhook.as_ref());
        let (kept, doubles) = ours(listed, &self.name, &self.url, before);
        self.leads()?;
        for double in doubles {
            self.client.delete_webhook(&double.id).await.map_err(problem)?;
        }
        let Some(kept) = kept else {
            let id = self.client.create_webhook(self.wanted()).await.map_err(problem)?;
            self.state.signs(&id, &self.secret);
            return Ok((id, true));
        };
        let has_other_secret = self.state.secret_of(&kept.id).is_some_and(|secret| secret != self.secret);
        let is_new = !kept.is_whole || kept.url != self.url || has_other_secret;
        if is_new {
            self.update(&kept.id).await?;
        }
        Ok((kept.id, is_new))
    }

    async fn update(&self, id: &str) -> Result<(), Problem> {
        let is_known = self.state.secret_of(id).as_ref() == Some(&self.secret);
        self.client.update_webhook(id, self.wanted(), !is_known).await.map_err(problem)?;
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
            Ok(Trial::Answered(status)) => Err(Problem::new(Reason::WebhookUnreachable, answered(&self.url, status))),
            Ok(Trial::Failed(words)) => Err(failed(&self.url, &words)),
            Err(error @ RegistryError::TimedOut { .. }) => Err(failed(&self.url, &error.to_string())),
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
    let is_ours = |webhook: &Webhook| webhook.name == name && (webhook.url == url || is_known(webhook));
    let mut ours: Vec<Webhook> = listed.into_iter().filter(is_ours).collect();
    ours.sort_by_key(|webhook| !is_known(webhook));
    let mut ours = ours.into_iter();
    (ours.next(), ours.collect())
}

/// Deletes what is registered for a registry.
async fn remove(registry: &ModelRegistry, ctx: &Context, client: &Registry) -> Result<(), Problem> {
    let before = registry.status.as_ref().and_then(|status| status.webhook.as_ref());
    let name = name_of(registry, &ctx.cluster_name);
    let url = before.map_or_else(|| url_of(registry), |before| before.url.clone());
    let listed = match client.webhooks().await.map_err(problem) {
        // A server that has no webhooks, or never let us register one, has none of ours; an id in the status says otherwise.
        Err(problem) if before.is_none() && is_for_good(problem.reason) => Vec::new(),
        listed => listed?,
    };
    let (kept, doubles) = ours(listed, &name, &url, before);
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
    let (namespace, name) = (registry.namespace().unwrap_or_default(), registry.name_any());
    let digest = digest::digest(&digest::SHA256, format!("{cluster}/{namespace}/{name}").as_bytes());
    let digest = digest.as_ref().iter().take(4).fold(0, |number: u32, byte| (number << 8) | u32::from(*byte));
    let whole = format!("pointsman.{digest:08x}.{namespace}.{name}");
    let short: String = whole.chars().take(LONGEST_NAME).collect();
    short.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// Where MLflow delivers to.
fn url_of(registry: &ModelRegistry) -> String {
    let base = registry.spec.webhook.as_ref().and_then(|webhook| webhook.url.as_deref()).unwrap_or_default();
    let (namespace, name) = (registry.namespace().unwrap_or_default(), registry.name_any());
    format!("{}/webhooks/{namespace}/{name}", base.trim_end_matches('/'))
}

/// What a refusal means for a webhook.
fn problem(error: RegistryError) -> Problem {
    let (reason, remedy) = match &error {
        RegistryError::Forbidden { .. } => (
            Reason::WebhookRefused,
            "registering webhooks takes an administrator of MLflow: make the user of spec.auth one, or register the webhook by hand and set spec.webhook.mode: External",
        ),
        RegistryError::NotMlflow { status: 404 | 405, .. } => (
            Reason::WebhookUnsupported,
            "MLflow has webhooks from 3.3 on: upgrade the server, or set spec.webhook.mode: Off",
        ),
        RegistryError::Unwell { status: 500, code: Some(_), .. } => (
            Reason::WebhookKeyMissing,
            "a worker of the MLflow server cannot read what another wrote, and so loses most deliveries of all webhooks: set MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY for the server (the same Fernet key for all workers and replicas) and restart it; see docs/webhooks.md for webhooks that stay unreadable",
        ),
        RegistryError::Unwell { status: 500 | 501, code: None, .. } => (
            Reason::WebhookUnsupported,
            "an MLflow server that keeps its registry in files has no webhooks: give it a database (--backend-store-uri), or set spec.webhook.mode: Off",
        ),
        RegistryError::Refused { status: 400, words, .. } if words.to_lowercase().contains("webhook url") => {
            (Reason::WebhookAddressRefused, ADDRESS_REMEDY)
        }
        _ => return error.into(),
    };
    Problem::new(reason, format!("{error}; {remedy}"))
}

const ADDRESS_REMEDY: &str = "for a receiver inside the cluster start the MLflow server with MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true, and for http with MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https; and let spec.webhook.url name a host that the server can resolve";

fn answered(url: &str, status: u16) -> String {
    let remedy = match status {
        401 => "the receiver reads another Secret, or something on the way alters requests",
        404 => {
            "another receiver answers there: let spec.webhook.url name this operator's webhook Service, without a path"
        }
        503 => {
            "no replica leads yet, or the one that leads cannot be reached by the others: see that they reach each other's health port"
        }
        _ => "see that spec.webhook.url names this operator's webhook Service and that nothing stands in between",
    };
    format!("MLflow delivered an example to {url}, and {status} was answered: {remedy}")
}

fn failed(url: &str, words: &str) -> Problem {
    if words.contains("not a public IP") {
        let message = format!("MLflow refuses to deliver to {url}: “{words}”; {ADDRESS_REMEDY}");
        return Problem::new(Reason::WebhookAddressRefused, message);
    }
    let remedy = if words.contains("certificate") || words.contains("SSL") {
        "MLflow trusts well-known authorities only, and cannot be told of others: use a certificate of one of those, or http inside the cluster"
    } else {
        "see that spec.webhook.url names this operator's webhook Service, that webhook.enabled is set in the chart, and that no NetworkPolicy is in the way"
    };
    Problem::new(Reason::WebhookUnreachable, format!("MLflow cannot deliver to {url}: “{words}”; {remedy}"))
}

/// The condition that tells of the webhook; none where no webhook is wanted.
pub fn condition(registry: &ModelRegistry, ctx: &Context, state: &RegistryState) -> Option<Wanted> {
    if registry.webhook_mode() == WebhookMode::Off {
        return None;
    }
    if !ctx.hears_webhooks {
        let message =
            "this operator was started without --webhook-address: set webhook.enabled in the chart; polling goes on";
        return Some(Wanted::no(WEBHOOK_READY, Reason::WebhookNotServed, message));
    }
    let told = state.webhook.tell();
    Some(match told.kept {
        Some(Kept { problem: Some(problem), .. }) => {
            Wanted::no(WEBHOOK_READY, problem.reason, format!("{}; polling goes on", problem.message))
        }
        None => as_before(registry).unwrap_or_else(|| Wanted::unknown(WEBHOOK_READY, Reason::Pending, PENDING)),
        Some(_) if told.is_settling => Wanted::unknown(WEBHOOK_READY, Reason::WebhookSettling, SETTLING),
        Some(kept) => match told.silent {
            Some(model) => Wanted::no(WEBHOOK_READY, Reason::WebhookSilent, silent(&model)),
            None => Wanted::yes(WEBHOOK_READY, Reason::WebhookReady, well(registry, &kept)),
        },
    })
}

const PENDING: &str = "the webhook is looked at when the registry answers";

/// What was told of the same spec before this process began, so that a restart by itself is no news.
fn as_before(registry: &ModelRegistry) -> Option<Wanted> {
    let before = find(&registry.status.as_ref()?.conditions, WEBHOOK_READY)?;
    let status = match before.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    };
    let reason = Reason::parse(&before.reason)?;
    let is_same = before.observed_generation == registry.metadata.generation;
    is_same.then(|| Wanted { type_: WEBHOOK_READY, status, reason, message: before.message.clone() })
}

const SETTLING: &str = "registered less than a minute ago: each worker of the MLflow server keeps its list of webhooks for 60 s, and until then only polling sees moves";

fn silent(model: &str) -> String {
    format!(
        "polling found that an alias of {model:?} moved, and no delivery had announced it: look for “Failed to deliver webhook” in the MLflow server's log; MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY must be set there, and the receiver's address be reached from there; polling goes on"
    )
}

fn well(registry: &ModelRegistry, kept: &Kept) -> String {
    if let Some(webhook) = &kept.webhook {
        return format!("registered, and an example arrived at {}", webhook.url);
    }
    let (namespace, name) = (registry.namespace().unwrap_or_default(), registry.name_any());
    format!("deliveries to /webhooks/{namespace}/{name} are accepted where they are signed with the Secret")
}

/// What the status shows of the webhook: what was written last, until it was looked at anew.
pub fn registered(registry: &ModelRegistry, state: &RegistryState) -> Option<RegisteredWebhook> {
    let before = registry.status.as_ref().and_then(|status| status.webhook.clone());
    match state.webhook.tell().kept {
        Some(kept) if kept.webhook.is_some() || kept.is_gone => kept.webhook,
        // What was not looked at is as it was.
        _ => before.filter(|_| has_finalizer(registry)),
    }
}

fn has_finalizer(registry: &ModelRegistry) -> bool {
    registry.finalizers().iter().any(|name| name == names::WEBHOOK_FINALIZER)
}

/// Puts the finalizer on before a webhook is registered. True where written.
pub async fn keep_finalizer(registry: &ModelRegistry, ctx: &Context) -> Result<bool, Failure> {
    let is_missing = registry.webhook_mode() == WebhookMode::Managed && ctx.hears_webhooks && !has_finalizer(registry);
    if is_missing {
        set_finalizer(ctx, &ctx.shelves.registries, registry, names::WEBHOOK_FINALIZER, true).await?;
    }
    Ok(is_missing)
}

/// Removes the webhook before the object goes; but no object stays for a registry that cannot be asked.
pub async fn finalize(registry: &ModelRegistry, ctx: &Context) -> Result<Next, Failure> {
    let (namespace, name) = (registry.namespace().unwrap_or_default(), registry.name_any());
    if has_finalizer(registry) {
        if let Err(problem) = remove_last(registry, ctx).await {
            if waits(registry, Timestamp::now()) {
                tracing::info!(
                    namespace,
                    registry = name,
                    message = problem.message,
                    "the webhook cannot be removed yet"
                );
                return Ok(Next::requeue(Duration::from_secs(5)));
            }
            tell_left_behind(registry, ctx, &problem);
        }
        set_finalizer(ctx, &ctx.shelves.registries, registry, names::WEBHOOK_FINALIZER, false).await?;
    }
    ctx.registries.forget(&Name::of(registry));
    ctx.metrics.forget(&namespace, &name);
    Ok(Next::await_change())
}

fn waits(registry: &ModelRegistry, now: Timestamp) -> bool {
    registry.metadata.deletion_timestamp.as_ref().is_some_and(|since| now.duration_since(since.0) < LET_GO)
}

/// By the connection that was used last, for in a namespace that goes the Secret may be gone already.
async fn remove_last(registry: &ModelRegistry, ctx: &Context) -> Result<(), Problem> {
    let state = ctx.registries.of(&Name::of(registry));
    let client = if let Some(client) = state.registry() {
        client
    } else {
        let requests = ctx.metrics.requests.clone();
        Registry::connect_counted(connection(registry, ctx).await?, requests).map_err(Problem::from)?
    };
    remove(registry, ctx, &client).await
}

fn tell_left_behind(registry: &ModelRegistry, ctx: &Context, problem: &Problem) {
    let webhook = registry.status.as_ref().and_then(|status| status.webhook.as_ref());
    let id = webhook.map_or("without a known id", |webhook| webhook.id.as_str());
    let name = name_of(registry, &ctx.cluster_name);
    let note = format!(
        "the webhook {name} ({id}) stays behind in MLflow at {}: delete it there; it could not be removed: {}",
        registry.spec.mlflow.uri, problem.message
    );
    tracing::warn!(namespace = registry.namespace(), registry = registry.name_any(), note, "a webhook was left behind");
    let event = Event {
        type_: EventType::Warning,
        reason: problem.reason.as_str().to_owned(),
        note: Some(crate::api::conditions::shorten(&note, 1000)),
        action: "RemoveWebhook".to_owned(),
        secondary: None,
    };
    ctx.announcer.announce(registry.object_ref(&()), event);
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
