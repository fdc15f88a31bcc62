//! The client: sends a request over a fresh connection, retries a read once, and returns a bounded
//! response.
//!
//! Absent: redirects and pooled connections, and the meaning of the responses.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderValue, RANGE};
use reqwest::{Method, RequestBuilder};
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use url::Url;

use super::request::{ApiResponse, Request};
use super::search::SearchStrategy;
use super::setup::{authenticate, authorization, build_client, parse_base, workspace_header};
use super::wire;
use crate::http::body::{ResponseBodyError, is_html, read_bounded};
use crate::http::redact::{Redactor, cut};
use crate::http::uri::{host_and_port, origin_and_path};
use crate::registries::connection::{Connection, Credentials, MayWrite, Server};
use crate::registries::error::RegistryError;
use crate::registries::request_metrics::RequestMetrics;

/// The pause before a retry.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// The most characters of an address in an error.
const LONGEST_ADDRESS: usize = 90;
/// How many requests that make the server fetch files run at the same time. Each keeps the server
/// busy for long: with sixteen of them a busy server was seen to answer polls with 500.
const FETCHES: usize = 4;
/// How many requests to one server run at the same time.
const REQUESTS: usize = 32;

/// A client of one MLflow server. Clones share its state.
#[derive(Clone)]
pub struct Client {
    inner: Arc<ClientInner>,
}

struct ClientInner {
    http: reqwest::Client,
    base: Url,
    workspace: Option<HeaderValue>,
    workspace_confirmed: OnceCell<()>,
    credentials: Credentials,
    redactor: Redactor,
    total_timeout: Duration,
    /// The namespace whose share of the memory responses take.
    tenant: Arc<str>,
    search: Mutex<SearchStrategy>,
    metrics: RequestMetrics,
    may_write: MayWrite,
    /// The bytes of all bodies since they were asked for.
    received: AtomicUsize,
    /// Permits for requests, and for those that make the server fetch files.
    requests: Semaphore,
    fetches: Semaphore,
    /// The time until which the server asked not to be sent requests.
    paused_until: Mutex<Option<Instant>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("uri", &origin_and_path(&self.inner.base))
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that may write.
    #[cfg(test)]
    pub fn connect(connection: Connection, metrics: RequestMetrics) -> Result<Self, RegistryError> {
        Self::connect_fenced(connection, metrics, Arc::new(|| true))
    }

    /// A client for this connection, which counts its requests in `metrics`. Nothing is sent yet, and nothing that changes
    /// something unless `may_write` says so.
    ///
    /// # Errors
    /// `Configuration` if the URI, the credentials or the certificates cannot be used as written.
    pub fn connect_fenced(
        connection: Connection,
        metrics: RequestMetrics,
        may_write: MayWrite,
    ) -> Result<Self, RegistryError> {
        let (uri, workspace) = match &connection.server {
            Server::Mlflow { uri, workspace } => (uri, workspace),
            #[cfg(test)]
            Server::Memory(_) => return Err(RegistryError::configuration("not an MLflow server")),
        };
        let base = parse_base(uri)?;
        let http = build_client(&connection, &base)?;
        let workspace = workspace.as_deref().map(workspace_header).transpose()?;
        let credentials = connection.credentials.trimmed();
        let authorization = authorization(&http, &base, &credentials)?;
        let header_values = connection.headers.values();
        // A short value, such as a version, may be part of any text.
        let header_values = header_values.filter(|value| value.len() > 5);
        let header_values = header_values.map(|value| value.trim().to_owned());
        let inner = ClientInner {
            http,
            base,
            workspace,
            workspace_confirmed: OnceCell::new(),
            redactor: Redactor::new(
                credentials
                    .secrets()
                    .into_iter()
                    .chain(authorization)
                    .chain(header_values),
            ),
            credentials,
            total_timeout: connection.total_timeout,
            tenant: Arc::clone(&connection.tenant),
            search: Mutex::new(SearchStrategy::default()),
            metrics,
            may_write,
            received: AtomicUsize::new(0),
            requests: Semaphore::new(REQUESTS),
            fetches: Semaphore::new(FETCHES),
            paused_until: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// How long the server asked not to be sent requests, from now; zero if it did not.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let until = *self
            .inner
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) => until.saturating_duration_since(Instant::now()),
            None => Duration::ZERO,
        }
    }

    /// How many bytes of responses were read since the last call.
    #[must_use]
    pub fn take_received(&self) -> usize {
        self.inner.received.swap(0, Ordering::Relaxed)
    }

    /// MLflow's version, if the server tells it.
    pub async fn server_version(&self) -> Option<String> {
        let request = Request::get(&["version"], &[]);
        let response = self.send_without_workspace(&request).await.ok()?;
        let version = String::from_utf8(response.body).ok()?.trim().to_owned();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".+-_".contains(c);
        let is_version = version.len() <= 64
            && version.starts_with(|c: char| c.is_ascii_digit())
            && version.chars().all(is_plain);
        is_version.then_some(version)
    }

    /// Sends a request, in the workspace if one is set.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<ApiResponse, RegistryError> {
        self.confirm_workspace().await?;
        self.send_without_workspace(request).await
    }

    /// Sends a request and parses the response as JSON.
    pub(super) async fn send_json<T: DeserializeOwned>(
        &self,
        request: &Request<'_>,
    ) -> Result<T, RegistryError> {
        self.send(request).await?.json().await
    }

    /// Waits for a permit to make the server fetch a file. The semaphore is never closed.
    pub(super) async fn fetch_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.inner.fetches.acquire().await.ok()
    }

    /// The way of searching that worked last.
    pub(super) fn search_strategy(&self) -> SearchStrategy {
        *self
            .inner
            .search
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a way of searching that worked.
    pub(super) fn set_search_strategy(&self, strategy: SearchStrategy) {
        *self
            .inner
            .search
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = strategy;
    }

    /// How many bytes of a request line the base address takes.
    pub(super) fn base_length(&self) -> usize {
        self.inner.base.path().len()
    }

    /// Origin and path of a URL below the base address.
    pub(super) fn address(&self, path: &[&str]) -> String {
        shown_address(&self.url(path, &[]))
    }

    /// Whether a host, with or without a port, is the one of this server.
    pub(super) fn is_at(&self, host: &str) -> bool {
        host == self.host() || Some(host) == self.inner.base.host_str()
    }

    /// The host of the base address, with the port if one is written.
    pub(super) fn host(&self) -> String {
        host_and_port(&self.inner.base)
    }

    /// A text of the server as people may see it.
    pub(super) fn redact(&self, text: &str) -> String {
        self.inner.redactor.clean(text)
    }

    /// The namespace of the registry's object.
    pub(super) fn tenant(&self) -> &Arc<str> {
        &self.inner.tenant
    }

    /// The kind of credentials that requests are sent with.
    pub(super) fn credentials_kind(&self) -> &'static str {
        self.inner.credentials.kind()
    }

    /// Checks once that the server has workspaces: without them it answers the header with 500.
    async fn confirm_workspace(&self) -> Result<(), RegistryError> {
        if self.inner.workspace.is_none() {
            return Ok(());
        }
        let confirmed = &self.inner.workspace_confirmed;
        confirmed
            .get_or_try_init(|| self.require_workspaces())
            .await
            .copied()
    }

    async fn require_workspaces(&self) -> Result<(), RegistryError> {
        let request = Request::get(&["api/3.0/mlflow/server-info"], &[]);
        let info = match self.send_without_workspace(&request).await {
            Ok(response) => response.json::<wire::ServerInfo>().await,
            Err(error) => Err(error),
        };
        match info {
            Ok(info) if info.workspaces_enabled => Ok(()),
            Ok(_) | Err(RegistryError::WrongServer { status: 404, .. }) => {
                Err(RegistryError::configuration(format!(
                    "spec.mlflow.workspace is set, and the MLflow server at {} has no workspaces: leave it out, or start the server with `--enable-workspaces`",
                    origin_and_path(&self.inner.base)
                )))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a request. A read is retried once after a failure that may pass.
    async fn send_without_workspace(
        &self,
        request: &Request<'_>,
    ) -> Result<ApiResponse, RegistryError> {
        match self.attempt(request).await {
            Err(error) if request.is_retried && may_pass(&error) => {
                tokio::time::sleep(RETRY_PAUSE).await;
                self.attempt(request).await
            }
            outcome => outcome,
        }
    }

    /// One attempt, counted. While the server asked for a pause, nothing is sent.
    async fn attempt(&self, request: &Request<'_>) -> Result<ApiResponse, RegistryError> {
        // The semaphore is never closed.
        let _permit = self.inner.requests.acquire().await;
        let started = Instant::now();
        let wait = self.retry_after();
        if !wait.is_zero() {
            return Err(RegistryError::Busy {
                at: self.address(request.path),
                status: 429,
                wait,
            });
        }
        if request.method != Method::GET && !(self.inner.may_write)() {
            return Err(RegistryError::NotLeading);
        }
        let outcome = self.exchange(request).await;
        if let Err(RegistryError::Busy { wait, .. }) = &outcome {
            *self
                .inner
                .paused_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + *wait);
        }
        let route = request.path.first().copied().unwrap_or_default();
        self.inner.metrics.count(route, &outcome, started.elapsed());
        outcome
    }

    async fn exchange(&self, request: &Request<'_>) -> Result<ApiResponse, RegistryError> {
        let url = self.url(request.path, request.query);
        let at = shown_address(&url);
        let longest = self.inner.total_timeout;
        let timeout = request.timeout.unwrap_or(longest).min(longest);
        let response = self.build(request, url, timeout).send().await;
        let response = response.map_err(|error| self.connection_error(&at, timeout, &error))?;
        if !response.status().is_success() {
            return Err(self.refusal(at, response).await);
        }
        let is_html = is_html(&response);
        let body = match read_bounded(response, request.limit, self.tenant()).await {
            Ok(body) => body,
            Err(ResponseBodyError::Broken(error)) => {
                return Err(self.body_error(&at, timeout, &error));
            }
            Err(ResponseBodyError::NoRoom) => return Err(RegistryError::NoRoom { at }),
        };
        self.inner
            .received
            .fetch_add(body.bytes.len(), Ordering::Relaxed);
        if !body.is_whole && !request.is_cut {
            return Err(RegistryError::TooLarge {
                at,
                limit: request.limit,
                unit: "bytes",
            });
        }
        Ok(ApiResponse {
            at,
            body: body.bytes,
            is_html,
            share: body.share,
        })
    }

    fn build(&self, request: &Request<'_>, url: Url, timeout: Duration) -> RequestBuilder {
        let http = self.inner.http.request(request.method.clone(), url);
        let mut built = authenticate(http.timeout(timeout), &self.inner.credentials);
        if let Some(workspace) = &self.inner.workspace
            && self.inner.workspace_confirmed.initialized()
        {
            built = built.header("X-MLFLOW-WORKSPACE", workspace);
        }
        if request.is_cut && request.limit > 0 {
            built = built.header(RANGE, format!("bytes=0-{}", request.limit - 1));
        }
        match &request.body {
            Some(body) => built.json(body),
            None => built,
        }
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.inner.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .extend(path.iter().flat_map(|part| part.split('/')));
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }
}

/// Origin and path of a URL for an error.
fn shown_address(url: &Url) -> String {
    cut(&origin_and_path(url), LONGEST_ADDRESS)
}

/// Whether a retry a moment later may succeed.
fn may_pass(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Unreachable {
            connected: false,
            ..
        } | RegistryError::ServerError {
            status: 502..=504,
            ..
        }
    )
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
