//! Deliveries: refused, heard, or handed to the replica that leads.
//!
//! Absent: a word to the sender about what was wrong, beyond the status code.

mod limits;
pub mod server;
pub mod signing_keys;
pub mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::api::ModelRegistry;
use crate::api::model_registry::{WebhookMode, WebhookSecretReference};
use crate::controllers::context::Context;
use crate::controllers::http::Readiness;
use crate::controllers::metrics::OutcomeLabel;
use crate::controllers::receiver::limits::{Bucket, Memory};
use crate::controllers::receiver::server::{LARGEST_BODY, Unread, read_body};
use crate::controllers::receiver::signing_keys::SigningKeys;
use crate::controllers::registry::refresh_requests::refresh_announced;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lease::Leader;
use crate::kubernetes::lock::lock;
use crate::registries::mlflow::{
    ID_HEADER, SIGNATURE_HEADER, Signed, TIMESTAMP_HEADER, Unsigned, model_named,
};

/// Where MLflow delivers to, and replicas hand on to.
const ROUTE: &str = "/webhooks/{namespace}/{name}";
/// How many deliveries of one registry are worked on at the same time.
const AT_ONCE: usize = 128;
/// Genuine deliveries of one registry: so many at once, and then so many a second.
const GENUINE: (u32, u32) = (5_000, 500);
/// Forged deliveries for one registry: so many at once, and then so many a second, are told in the log.
const FORGED: (u32, u32) = (20, 1);
/// How many ids are remembered for each registry: a megabyte at the most.
const REMEMBERED: usize = 20_000;
/// How long the leader may take to answer.
const HAND_ON: Duration = Duration::from_secs(3);

/// What became of a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum DeliveryOutcome {
    Accepted,
    Repeated,
    Forwarded,
    Old,
    BadSignature,
    UnknownRegistry,
    TooLarge,
    TooMany,
    Malformed,
    NotForwarded,
    NotReady,
}

impl DeliveryOutcome {
    /// The word in metrics.
    fn outcome(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Repeated => "repeated",
            Self::Forwarded => "forwarded",
            Self::Old => "old",
            Self::BadSignature => "bad_signature",
            Self::UnknownRegistry => "unknown_registry",
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
            Self::Malformed => "malformed",
            Self::NotForwarded => "not_forwarded",
            Self::NotReady => "not_ready",
        }
    }

    /// MLflow tries again on 429 and on 5xx, and gives up on any other refusal.
    fn status(self) -> StatusCode {
        match self {
            // A repetition is MLflow's own, after an answer that was lost: an error would only bring another.
            Self::Accepted | Self::Repeated | Self::Forwarded => StatusCode::OK,
            Self::Old | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::BadSignature => StatusCode::UNAUTHORIZED,
            Self::UnknownRegistry => StatusCode::NOT_FOUND,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NotForwarded | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for DeliveryOutcome {
    fn into_response(self) -> Response {
        let status = self.status();
        let again = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        if again {
            (status, [(RETRY_AFTER, "1")]).into_response()
        } else {
            status.into_response()
        }
    }
}

/// Where a delivery came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// The webhook port.
    Registry,
    /// Another replica, by the health port. Such a delivery is not handed on once more.
    Replica,
}

/// Hears deliveries, on whichever replica they arrive.
pub struct Receiver {
    ctx: Arc<Context>,
    readiness: Readiness,
    leader: Leader,
    keys: SigningKeys,
    gates: Mutex<HashMap<(String, String), Arc<DeliveryLimits>>>,
    http: reqwest::Client,
}

/// What is known of one registry's deliveries.
struct DeliveryLimits {
    slots: Semaphore,
    memory: Mutex<Memory>,
    genuine: Mutex<Bucket>,
    forged: Mutex<Bucket>,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            slots: Semaphore::new(AT_ONCE),
            memory: Mutex::new(Memory::new(REMEMBERED)),
            genuine: Mutex::new(Bucket::new(GENUINE.0, GENUINE.1, now)),
            forged: Mutex::new(Bucket::new(FORGED.0, FORGED.1, now)),
        }
    }
}

/// A delivery as it came.
struct Delivery<'a> {
    namespace: &'a str,
    name: &'a str,
    headers: &'a HeaderMap,
    from: Origin,
}

impl Receiver {
    /// A receiver that acts while this replica leads, and else hands on to `leader`.
    ///
    /// # Errors
    /// Where no HTTP client can be made.
    pub fn new(
        ctx: Arc<Context>,
        readiness: Readiness,
        leader: Leader,
    ) -> Result<Arc<Self>, reqwest::Error> {
        // Inside the cluster, in plain http: no certificates, which may not be installed.
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(HAND_ON)
            .tls_certs_only([])
            .build()?;
        let (keys, gates) = (SigningKeys::default(), Mutex::default());
        Ok(Arc::new(Self {
            ctx,
            readiness,
            leader,
            keys,
            gates,
            http,
        }))
    }

    /// The routes of the webhook port.
    pub fn for_registries(self: Arc<Self>) -> Router {
        self.routes(Origin::Registry)
    }

    /// The routes that other replicas use.
    pub fn for_replicas(self: Arc<Self>) -> Router {
        self.routes(Origin::Replica)
    }

    fn routes(self: Arc<Self>, from: Origin) -> Router {
        let answer = move |State(receiver): State<Arc<Self>>,
                           Path((namespace, name)): Path<(String, String)>,
                           headers: HeaderMap,
                           body: Body| async move {
            let delivery = Delivery {
                namespace: &namespace,
                name: &name,
                headers: &headers,
                from,
            };
            let fate = receiver
                .take(&delivery, body)
                .await
                .unwrap_or_else(|refused| refused);
            receiver
                .ctx
                .metrics
                .webhook_deliveries
                .get_or_create(&OutcomeLabel {
                    outcome: fate.outcome(),
                })
                .inc();
            fate
        };
        Router::new().route(ROUTE, post(answer)).with_state(self)
    }

    /// What becomes of a delivery. The cheap questions come first, and nothing is remembered of what is refused.
    async fn take(
        &self,
        delivery: &Delivery<'_>,
        body: Body,
    ) -> Result<DeliveryOutcome, DeliveryOutcome> {
        let secret = self.secret(delivery)?;
        let signed = Signed::read(delivery.headers).map_err(|unsigned| match unsigned {
            Unsigned::Malformed => DeliveryOutcome::Malformed,
            Unsigned::NoSignature => DeliveryOutcome::BadSignature,
        })?;
        if !signed.is_timely(Timestamp::now()) {
            return Err(DeliveryOutcome::Old);
        }
        if announced_length(delivery.headers) > LARGEST_BODY {
            return Err(DeliveryOutcome::TooLarge);
        }
        let body = read_body(body).await.map_err(|unread| match unread {
            Unread::TooLarge => DeliveryOutcome::TooLarge,
            Unread::Broken => DeliveryOutcome::Malformed,
        })?;
        // The place is taken when the body is there, so that slow senders take none from others.
        let gate = self.gate(delivery);
        let _slot = gate
            .slots
            .try_acquire()
            .map_err(|_| DeliveryOutcome::TooMany)?;
        self.verify(delivery, &gate, &secret, &signed, &body)
            .await?;
        self.admit(delivery, &gate, &signed, &body).await
    }

    /// The Secret of a registry that wants to `refresh_announced`; any other registry is unknown.
    fn secret(&self, delivery: &Delivery<'_>) -> Result<WebhookSecretReference, DeliveryOutcome> {
        if !self.readiness.is_ready() {
            return Err(DeliveryOutcome::NotReady);
        }
        let registry = self.ctx.stores.registry(delivery.namespace, delivery.name);
        registry
            .as_deref()
            .and_then(wanted_secret)
            .cloned()
            .ok_or(DeliveryOutcome::UnknownRegistry)
    }

    fn gate(&self, delivery: &Delivery<'_>) -> Arc<DeliveryLimits> {
        let mut gates = lock(&self.gates);
        let key = (delivery.namespace.to_owned(), delivery.name.to_owned());
        if !gates.contains_key(&key) {
            gates
                .retain(|(namespace, name), _| self.ctx.stores.registry(namespace, name).is_some());
        }
        Arc::clone(gates.entry(key).or_default())
    }

    async fn verify(
        &self,
        delivery: &Delivery<'_>,
        gate: &DeliveryLimits,
        secret: &WebhookSecretReference,
        signed: &Signed,
        body: &Bytes,
    ) -> Result<(), DeliveryOutcome> {
        let client = &self.ctx.client;
        let is_by = |keys: &[Vec<u8>]| signed.is_by(keys.iter().map(Vec::as_slice), body);
        let (keys, may_be_newer) = self.keys.of(client, delivery.namespace, secret).await;
        if is_by(&keys)
            || (may_be_newer
                && is_by(
                    &self
                        .keys
                        .refreshed(client, delivery.namespace, secret)
                        .await,
                ))
        {
            return Ok(());
        }
        if keys.is_empty() {
            // The Secret is missing, or cannot be read: MLflow may try again.
            return Err(DeliveryOutcome::NotReady);
        }
        // Genuine deliveries never stand behind forged ones; what is bounded is how much is said of these.
        if lock(&gate.forged).take(Instant::now()) {
            let Delivery {
                namespace,
                name: registry,
                ..
            } = delivery;
            tracing::info!(
                namespace,
                registry,
                "a delivery was refused: not signed with the Secret of spec.webhook"
            );
        }
        Err(DeliveryOutcome::BadSignature)
    }

    /// A genuine delivery: once, and not too many at a time.
    async fn admit(
        &self,
        delivery: &Delivery<'_>,
        gate: &DeliveryLimits,
        signed: &Signed,
        body: &Bytes,
    ) -> Result<DeliveryOutcome, DeliveryOutcome> {
        if lock(&gate.memory).knows(signed.id()) {
            return Ok(DeliveryOutcome::Repeated);
        }
        if !lock(&gate.genuine).take(Instant::now()) {
            return Err(DeliveryOutcome::TooMany);
        }
        let model = model_named(body).map_err(|_| DeliveryOutcome::Malformed)?;
        let fate = if self.ctx.fence.is_open() {
            if let Some(model) = model {
                refresh_announced(
                    &self.ctx,
                    &ObjectKey::new(delivery.namespace, delivery.name),
                    model,
                );
            }
            DeliveryOutcome::Accepted
        } else {
            self.forward(delivery, body).await?
        };
        // Not before: a delivery that failed is tried again under the same id.
        lock(&gate.memory).remember(signed.id(), signed.valid_until(), Timestamp::now());
        Ok(fate)
    }

    async fn forward(
        &self,
        delivery: &Delivery<'_>,
        body: &Bytes,
    ) -> Result<DeliveryOutcome, DeliveryOutcome> {
        let leader = self
            .leader
            .address()
            .filter(|_| delivery.from == Origin::Registry)
            .ok_or(DeliveryOutcome::NotForwarded)?;
        let url = url_of(leader, delivery).ok_or(DeliveryOutcome::NotForwarded)?;
        let mut request = self
            .http
            .post(url)
            .body(body.clone())
            .header(CONTENT_TYPE, "application/json");
        for name in [ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER] {
            if let Some(value) = delivery.headers.get(name) {
                request = request.header(name, value);
            }
        }
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(DeliveryOutcome::Forwarded),
            Ok(answer) => {
                tracing::warn!(%leader, status = answer.status().as_u16(), "the leader did not take a webhook's delivery");
                Err(DeliveryOutcome::NotForwarded)
            }
            Err(error) => {
                tracing::warn!(%leader, %error, "the leader cannot be reached with a webhook's delivery");
                Err(DeliveryOutcome::NotForwarded)
            }
        }
    }
}

fn url_of(leader: SocketAddr, delivery: &Delivery<'_>) -> Option<url::Url> {
    let mut url = url::Url::parse(&format!("http://{leader}/")).ok()?;
    url.path_segments_mut()
        .ok()?
        .extend(["webhooks", delivery.namespace, delivery.name]);
    Some(url)
}

/// The Secret that a registry's deliveries are signed with, where it wants any.
fn wanted_secret(registry: &ModelRegistry) -> Option<&WebhookSecretReference> {
    let webhook = registry
        .spec
        .webhook
        .as_ref()
        .filter(|webhook| webhook.mode != WebhookMode::Disabled)?;
    webhook
        .secret_ref
        .as_ref()
        .filter(|_| registry.metadata.deletion_timestamp.is_none())
}

fn announced_length(headers: &HeaderMap) -> usize {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok())
        .unwrap_or_default()
}
