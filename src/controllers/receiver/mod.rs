//! Receives webhook deliveries on every replica: verified, deduplicated, and acted on by the leader
//! or forwarded to it.
//!
//! Absent: details for the sender. A refusal is a status code and nothing else.

pub mod limits;
pub mod signing_keys;
pub mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::api::ModelRegistry;
use crate::api::model_registry::{WebhookMode, WebhookSecretReference};
use crate::controllers::context::Context;
use crate::controllers::http::Readiness;
use crate::controllers::metrics::OutcomeLabel;
use crate::controllers::receiver::limits::{SeenDeliveries, TokenBucket};
use crate::controllers::receiver::signing_keys::SigningKeys;
use crate::controllers::registry::refresh_requests::refresh_announced;
use crate::http::server::{LARGEST_BODY, OpenConnection, RequestBody, RequestBodyError, read_body};
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lease::Leader;
use crate::kubernetes::lock::lock;
use crate::registries::{DeliveryError, DeliveryProtocol, SignedDelivery};

/// The path that registries deliver to and replicas forward to.
const ROUTE: &str = "/webhooks/{namespace}/{name}";
/// The most deliveries of one registry that are processed at the same time.
const CONCURRENCY: usize = 128;
/// The rate limit on genuine deliveries of one registry: burst, and per second.
const GENUINE_RATE: (u32, u32) = (5_000, 500);
/// The rate limit on log lines about forged deliveries for one registry: burst, and per second.
const FORGED_RATE: (u32, u32) = (20, 1);
/// The most delivery ids that are kept for each registry: a megabyte at most.
const MOST_SEEN: usize = 20_000;
/// The shortest time until a delivery without a valid signature is refused. It hides whether its
/// registry exists and a key was read for it.
const REFUSAL_DELAY: Duration = Duration::from_millis(50);
/// The timeout for a delivery that is forwarded to the leader.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(3);

/// The outcome of a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum DeliveryOutcome {
    Accepted,
    Repeated,
    Forwarded,
    Old,
    BadSignature,
    UnknownRegistry,
    NoSecret,
    TooLarge,
    TooMany,
    Malformed,
    NotForwarded,
    NotReady,
}

impl DeliveryOutcome {
    /// The value of the label in metrics.
    fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Repeated => "repeated",
            Self::Forwarded => "forwarded",
            Self::Old => "old",
            Self::BadSignature => "bad_signature",
            Self::UnknownRegistry => "unknown_registry",
            Self::NoSecret => "no_secret",
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
            Self::Malformed => "malformed",
            Self::NotForwarded => "not_forwarded",
            Self::NotReady => "not_ready",
        }
    }

    /// MLflow retries after 429 and 5xx, and gives up after any other refusal.
    fn status(self) -> StatusCode {
        match self {
            // MLflow repeats a delivery if our response was lost; an error would make it repeat it
            // again.
            Self::Accepted | Self::Repeated | Self::Forwarded => StatusCode::OK,
            Self::Old | Self::Malformed => StatusCode::BAD_REQUEST,
            // The same response, so that nobody without the Secret learns which registries there are.
            Self::BadSignature | Self::UnknownRegistry | Self::NoSecret => StatusCode::UNAUTHORIZED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NotForwarded | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for DeliveryOutcome {
    fn into_response(self) -> Response {
        match self.status() {
            status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                (status, [(RETRY_AFTER, "1")]).into_response()
            }
            status => status.into_response(),
        }
    }
}

/// The sender of a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// The registry, by the webhook port.
    Registry,
    /// Another replica, by the health port. Such a delivery is not forwarded again.
    Replica,
}

/// Receives deliveries on this replica.
pub struct Receiver {
    ctx: Arc<Context>,
    readiness: Readiness,
    leader: Leader,
    keys: SigningKeys,
    limits: Mutex<HashMap<ObjectKey, Arc<DeliveryLimits>>>,
    http: reqwest::Client,
}

/// The limits on the deliveries of one registry, and the deliveries that were seen.
struct DeliveryLimits {
    permits: Semaphore,
    seen: Mutex<SeenDeliveries>,
    genuine: Mutex<TokenBucket>,
    forged: Mutex<TokenBucket>,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            permits: Semaphore::new(CONCURRENCY),
            seen: Mutex::new(SeenDeliveries::new(MOST_SEEN)),
            genuine: Mutex::new(TokenBucket::new(GENUINE_RATE.0, GENUINE_RATE.1, now)),
            forged: Mutex::new(TokenBucket::new(FORGED_RATE.0, FORGED_RATE.1, now)),
        }
    }
}

/// A delivery before its body is read.
struct Delivery<'a> {
    namespace: &'a str,
    name: &'a str,
    headers: &'a HeaderMap,
    origin: Origin,
    connection: &'a OpenConnection,
}

/// A registry that receives deliveries.
struct ReceivingRegistry {
    protocol: DeliveryProtocol,
    secret: WebhookSecretReference,
}

/// A delivery with its signature headers and its body.
struct SignedBody {
    protocol: DeliveryProtocol,
    signature: SignedDelivery,
    body: RequestBody,
}

impl Receiver {
    /// A receiver that acts on deliveries while this replica leads, and otherwise forwards them to
    /// `leader`.
    ///
    /// # Errors
    /// If the HTTP client cannot be built.
    pub fn new(
        ctx: Arc<Context>,
        readiness: Readiness,
        leader: Leader,
    ) -> Result<Arc<Self>, reqwest::Error> {
        // Replicas are reached by plain http inside the cluster. It must work if no certificates
        // are installed.
        let http = reqwest::Client::builder()
            .no_proxy()
            // The leader closes idle connections.
            .pool_max_idle_per_host(0)
            .timeout(FORWARD_TIMEOUT)
            .tls_certs_only([])
            .build()?;
        Ok(Arc::new(Self {
            ctx,
            readiness,
            leader,
            keys: SigningKeys::default(),
            limits: Mutex::default(),
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

    fn routes(self: Arc<Self>, origin: Origin) -> Router {
        let handler = move |State(receiver): State<Arc<Self>>,
                            Path((namespace, name)): Path<(String, String)>,
                            Extension(connection): Extension<OpenConnection>,
                            headers: HeaderMap,
                            body: Body| async move {
            let started = Instant::now();
            let delivery = Delivery {
                namespace: &namespace,
                name: &name,
                headers: &headers,
                origin,
                connection: &connection,
            };
            let (Ok(outcome) | Err(outcome)) = receiver.receive(&delivery, body).await;
            let label = OutcomeLabel {
                outcome: outcome.label(),
            };
            let counts = &receiver.ctx.metrics.webhook_deliveries;
            counts.get_or_create(&label).inc();
            if outcome.status() == StatusCode::UNAUTHORIZED {
                let since = started.elapsed();
                tokio::time::sleep(REFUSAL_DELAY.saturating_sub(since)).await;
            }
            outcome
        };
        Router::new().route(ROUTE, post(handler)).with_state(self)
    }

    /// Processes a delivery. Cheap checks come first, and nothing is kept of a delivery that is
    /// refused. Whether its registry exists changes nothing before the signature is verified.
    async fn receive(
        &self,
        delivery: &Delivery<'_>,
        body: Body,
    ) -> Result<DeliveryOutcome, DeliveryOutcome> {
        if !self.readiness.is_ready() {
            return Err(DeliveryOutcome::NotReady);
        }
        let registry = self.receiving_registry(delivery);
        let protocol = match &registry {
            Some(registry) => registry.protocol,
            None => DeliveryProtocol::Mlflow,
        };
        let signature = match protocol.read(delivery.headers) {
            Ok(signature) => signature,
            Err(DeliveryError::Malformed) => return Err(DeliveryOutcome::Malformed),
            Err(DeliveryError::NoSignature) => return Err(DeliveryOutcome::BadSignature),
        };
        if !signature.is_recent(Timestamp::now()) {
            return Err(DeliveryOutcome::Old);
        }
        if content_length(delivery.headers) > LARGEST_BODY {
            return Err(DeliveryOutcome::TooLarge);
        }
        let body = match read_body(body).await {
            Ok(body) => body,
            Err(RequestBodyError::TooLarge) => return Err(DeliveryOutcome::TooLarge),
            Err(RequestBodyError::Incomplete) => return Err(DeliveryOutcome::Malformed),
            Err(RequestBodyError::NoRoom) => return Err(DeliveryOutcome::TooMany),
        };
        let signed = SignedBody {
            protocol,
            signature,
            body,
        };
        let registry = registry.ok_or(DeliveryOutcome::UnknownRegistry)?;
        let limits = self.limits_of(delivery);
        self.verify(delivery, &limits, &registry.secret, &signed)
            .await?;
        // From here on the sender is known: no forged delivery holds a permit or keeps a connection.
        delivery.connection.trust();
        let Ok(_permit) = limits.permits.try_acquire() else {
            return Err(DeliveryOutcome::TooMany);
        };
        self.accept(delivery, &limits, &signed).await
    }

    /// The registry of a delivery; `None` if there is no such registry, or it receives none.
    fn receiving_registry(&self, delivery: &Delivery<'_>) -> Option<ReceivingRegistry> {
        let stores = &self.ctx.stores;
        let registry = stores.registry(delivery.namespace, delivery.name)?;
        Some(ReceivingRegistry {
            protocol: DeliveryProtocol::of(&registry.spec)?,
            secret: secret_reference(&registry)?.clone(),
        })
    }

    /// The limits of a delivery's registry. Those of registries that were deleted are dropped when
    /// a new one is added.
    fn limits_of(&self, delivery: &Delivery<'_>) -> Arc<DeliveryLimits> {
        let mut all = lock(&self.limits);
        let registry = ObjectKey::new(delivery.namespace, delivery.name);
        if !all.contains_key(&registry) {
            let stores = &self.ctx.stores;
            all.retain(|key, _| stores.registry(key.namespace(), key.name()).is_some());
        }
        Arc::clone(all.entry(registry).or_default())
    }

    /// Verifies the signature. If no known key made it and the Secret was not read just now, the
    /// Secret is read again.
    async fn verify(
        &self,
        delivery: &Delivery<'_>,
        limits: &DeliveryLimits,
        secret: &WebhookSecretReference,
        signed: &SignedBody,
    ) -> Result<(), DeliveryOutcome> {
        let (client, namespace) = (&self.ctx.client, delivery.namespace);
        let (keys, may_be_stale) = self.keys.cached(client, namespace, secret).await;
        if signed.is_signed_with(&keys) {
            return Ok(());
        }
        if may_be_stale {
            let refreshed = self.keys.refreshed(client, namespace, secret).await;
            if signed.is_signed_with(&refreshed) {
                return Ok(());
            }
        }
        if keys.is_empty() {
            return Err(DeliveryOutcome::NoSecret);
        }
        // Forged deliveries never use up the limit of genuine ones; only their log lines are
        // limited.
        if lock(&limits.forged).take(Instant::now()) {
            tracing::info!(
                namespace,
                registry = delivery.name,
                "refused a delivery that is not signed with the Secret of spec.webhook"
            );
        }
        Err(DeliveryOutcome::BadSignature)
    }

    /// Acts on a genuine delivery once, within the rate limit.
    async fn accept(
        &self,
        delivery: &Delivery<'_>,
        limits: &DeliveryLimits,
        signed: &SignedBody,
    ) -> Result<DeliveryOutcome, DeliveryOutcome> {
        let signature = &signed.signature;
        if lock(&limits.seen).contains(signature.id()) {
            return Ok(DeliveryOutcome::Repeated);
        }
        if !lock(&limits.genuine).take(Instant::now()) {
            return Err(DeliveryOutcome::TooMany);
        }
        let Ok(change) = signed.protocol.change(&signed.body.bytes) else {
            return Err(DeliveryOutcome::Malformed);
        };
        let outcome = if self.ctx.fence.is_open() {
            if let Some(change) = change {
                let registry = ObjectKey::new(delivery.namespace, delivery.name);
                refresh_announced(&self.ctx, &registry, change);
            }
            DeliveryOutcome::Accepted
        } else {
            self.forward(delivery, signed).await?
        };
        // Recorded last: a delivery that failed is retried under the same id.
        lock(&limits.seen).insert(signature.id(), signature.valid_until(), Timestamp::now());
        Ok(outcome)
    }

    /// Forwards a delivery to the leader, with its signature headers.
    async fn forward(
        &self,
        delivery: &Delivery<'_>,
        signed: &SignedBody,
    ) -> Result<DeliveryOutcome, DeliveryOutcome> {
        if delivery.origin == Origin::Replica {
            return Err(DeliveryOutcome::NotForwarded);
        }
        let leader = self.leader.address().ok_or(DeliveryOutcome::NotForwarded)?;
        let url = url_of(leader, delivery).ok_or(DeliveryOutcome::NotForwarded)?;
        let mut request = self
            .http
            .post(url)
            .body(signed.body.bytes.clone())
            .header(CONTENT_TYPE, "application/json");
        for name in signed.protocol.headers() {
            if let Some(value) = delivery.headers.get(*name) {
                request = request.header(*name, value);
            }
        }
        match request.send().await {
            Ok(response) if response.status().is_success() => Ok(DeliveryOutcome::Forwarded),
            Ok(response) => {
                tracing::warn!(%leader, status = response.status().as_u16(), "the leader refused a forwarded delivery");
                Err(DeliveryOutcome::NotForwarded)
            }
            Err(error) => {
                tracing::warn!(%leader, %error, "a delivery could not be forwarded to the leader");
                Err(DeliveryOutcome::NotForwarded)
            }
        }
    }
}

impl SignedBody {
    fn is_signed_with(&self, keys: &[Vec<u8>]) -> bool {
        let keys = keys.iter().map(Vec::as_slice);
        self.signature.is_signed_with(keys, &self.body.bytes)
    }
}

fn url_of(leader: SocketAddr, delivery: &Delivery<'_>) -> Option<url::Url> {
    let mut url = url::Url::parse(&format!("http://{leader}/")).ok()?;
    url.path_segments_mut()
        .ok()?
        .extend(["webhooks", delivery.namespace, delivery.name]);
    Some(url)
}

/// The Secret that a registry's deliveries are signed with; `None` if it receives none.
fn secret_reference(registry: &ModelRegistry) -> Option<&WebhookSecretReference> {
    let webhook = registry.spec.webhook.as_ref()?;
    let is_deleted = registry.metadata.deletion_timestamp.is_some();
    if webhook.mode == WebhookMode::Disabled || is_deleted {
        return None;
    }
    webhook.secret_ref.as_ref()
}

/// The length that a request announces; zero if it announces none.
fn content_length(headers: &HeaderMap) -> usize {
    let Some(length) = headers.get(CONTENT_LENGTH) else {
        return 0;
    };
    length
        .to_str()
        .unwrap_or_default()
        .parse()
        .unwrap_or_default()
}
