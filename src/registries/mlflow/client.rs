//! The transport: one question, one bounded answer, over a fresh connection.
//!
//! Absent: redirects, proxies and pooled connections, and what the answers mean.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use url::Url;

use super::count::Requests;
use super::error::RegistryError;
use super::models::Habit;
use super::redact::Redactor;
use super::wire;

/// How much of an ordinary answer is read at most.
pub(super) const SMALL_ANSWER: usize = 1 << 20;
/// How much of a page of a search is read at most.
pub(super) const PAGE_ANSWER: usize = 32 << 20;
/// How much of a refusal is read at most.
const REFUSAL: usize = 16 << 10;
/// How long to wait before a question is asked again.
const A_MOMENT: Duration = Duration::from_millis(300);
/// How long a server that is too busy is left alone where it names no time, and how long at most.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_PATIENCE: Duration = Duration::from_secs(3600);
/// How many questions are under way at the same time that the server has to fetch files for: each keeps it busy for long, and with
/// sixteen of them a busy server was seen to answer looks with 500.
const FETCHING: usize = 4;

/// Where a registry is and how to speak to it.
#[derive(Clone, Eq, PartialEq)]
pub struct Connection {
    /// The server's base address, such as `http://mlflow.mlflow.svc:5000`.
    pub uri: String,
    /// The workspace to ask in, where the server has workspaces.
    pub workspace: Option<String>,
    /// How to prove who asks.
    pub credentials: Credentials,
    /// The authorities to trust (PEM) instead of the well-known ones.
    pub ca_pem: Option<String>,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
    /// How long a whole answer may take.
    pub total_timeout: Duration,
}

/// How to prove who asks.
#[derive(Clone, Default, Eq, PartialEq)]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// User name and password.
    Basic {
        /// The user's name.
        username: String,
        /// The password.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
}

impl Connection {
    /// A connection without credentials: 5 s to connect, 15 s for a whole answer.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            workspace: None,
            credentials: Credentials::None,
            ca_pem: None,
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(15),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = Url::parse(&self.uri)
            .map_or_else(|_| "an invalid URI".to_owned(), |uri| origin_and_path(&uri));
        formatter
            .debug_struct("Connection")
            .field("uri", &origin)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind())
    }
}

impl Credentials {
    /// What is sent, in words.
    fn kind(&self) -> &'static str {
        match self {
            Self::None => "no credentials",
            Self::Basic { .. } => "a user name and password",
            Self::Bearer(_) => "a bearer token",
        }
    }

    /// Without the line breaks that files and editors leave at a Secret's end.
    fn trimmed(self) -> Self {
        let trim = |text: String| text.trim_end_matches(['\r', '\n']).to_owned();
        match self {
            Self::None => Self::None,
            Self::Basic { username, password } => Self::Basic {
                username: trim(username),
                password: trim(password),
            },
            Self::Bearer(token) => Self::Bearer(trim(token)),
        }
    }

    fn secrets(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Basic { password, .. } => vec![password.clone()],
            Self::Bearer(token) => vec![token.clone()],
        }
    }

    fn sign(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::None => request,
            Self::Basic { username, password } => request.basic_auth(username, Some(password)),
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

/// A reader of one registry. Clones share what was learnt of the server.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    base: Url,
    workspace: Option<HeaderValue>,
    workspace_confirmed: OnceCell<()>,
    credentials: Credentials,
    redactor: Redactor,
    total_timeout: Duration,
    habit: Mutex<Habit>,
    requests: Requests,
    /// For questions that the server has to fetch files for.
    fetching: Semaphore,
    /// Until when the server asked not to be asked.
    held_until: Mutex<Option<Instant>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Registry")
            .field("uri", &origin_and_path(&self.inner.base))
            .finish_non_exhaustive()
    }
}

/// A question to the server.
pub(super) struct Ask<'a> {
    method: Method,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    body: Option<serde_json::Value>,
    limit: usize,
    beginning: bool,
    once: bool,
    timeout: Option<Duration>,
}

impl<'a> Ask<'a> {
    /// A question that changes nothing. The path is in whole segments below the base address, or several joined by `/`.
    pub(super) fn get(path: &'a [&'a str], query: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            method: Method::GET,
            path,
            query,
            body: None,
            limit: SMALL_ANSWER,
            beginning: false,
            once: false,
            timeout: None,
        }
    }

    /// A change.
    pub(super) fn change(method: Method, path: &'a [&'a str], body: serde_json::Value) -> Self {
        Self {
            method,
            path,
            query: &[],
            body: Some(body),
            limit: SMALL_ANSWER,
            beginning: false,
            once: false,
            timeout: None,
        }
    }

    /// The same with another bound on the answer.
    pub(super) fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// The same, content with the first bytes: asked as a range, and cut where the server ignores that.
    pub(super) fn beginning(self, limit: usize) -> Self {
        Self {
            limit,
            beginning: true,
            ..self
        }
    }

    /// The same with a shorter patience.
    pub(super) fn patience(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// The same for what is good to know and not needed: not asked a second time.
    pub(super) fn once(self) -> Self {
        Self { once: true, ..self }
    }
}

/// A successful answer, read to its end.
pub(super) struct Answer {
    pub(super) at: String,
    pub(super) body: Vec<u8>,
    content_type: String,
}

impl Answer {
    /// The answer as JSON of the expected shape.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, RegistryError> {
        let first = self
            .body
            .iter()
            .copied()
            .find(|byte| !byte.is_ascii_whitespace());
        if self.content_type.contains("html") || first == Some(b'<') {
            return Err(RegistryError::NotMlflow {
                at: self.at.clone(),
                status: 200,
                what: "an HTML page".to_owned(),
            });
        }
        if first != Some(b'{') {
            return Err(RegistryError::NotMlflow {
                at: self.at.clone(),
                status: 200,
                what: "something that is not JSON".to_owned(),
            });
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| RegistryError::invalid(&self.at, json_fault(&error)))
    }
}

/// What is wrong with JSON, without quoting from it.
fn json_fault(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Eof => "JSON that ends too early",
        serde_json::error::Category::Data => "JSON of an unexpected shape",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "broken JSON",
    };
    format!("{kind} (line {}, column {})", error.line(), error.column())
}

impl Registry {
    /// A reader of the registry. Nothing is asked yet.
    ///
    /// # Errors
    /// `Configuration` where the URI, the credentials or the certificates cannot be used as written.
    pub fn connect(connection: Connection) -> Result<Self, RegistryError> {
        Self::connect_counted(connection, Requests::default())
    }

    /// The same, with its requests counted into `requests`.
    ///
    /// # Errors
    /// As [`Registry::connect`].
    pub fn connect_counted(
        connection: Connection,
        requests: Requests,
    ) -> Result<Self, RegistryError> {
        let base = parse_base(&connection.uri)?;
        let http = build_client(&connection, &base)?;
        let credentials = connection.credentials.trimmed();
        let signed = signature(&http, &base, &credentials)?;
        let inner = Inner {
            http,
            base,
            workspace: connection
                .workspace
                .as_deref()
                .map(workspace_header)
                .transpose()?,
            workspace_confirmed: OnceCell::new(),
            redactor: Redactor::new(credentials.secrets().into_iter().chain(signed)),
            credentials,
            total_timeout: connection.total_timeout,
            habit: Mutex::new(Habit::default()),
            requests,
            fetching: Semaphore::new(FETCHING),
            held_until: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// How long the server asked not to be asked, from now; zero where it did not.
    #[must_use]
    pub fn hold(&self) -> Duration {
        let until = *self
            .inner
            .held_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// MLflow's version, where the server tells it.
    pub async fn server_version(&self) -> Option<String> {
        let answer = self.ask_anywhere(&Ask::get(&["version"], &[])).await.ok()?;
        let version = String::from_utf8(answer.body).ok()?.trim().to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || ".+-_".contains(c);
        (version.len() <= 64
            && version.starts_with(|c: char| c.is_ascii_digit())
            && version.chars().all(plain))
        .then_some(version)
    }

    /// Asks, in the workspace where there is one.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        self.confirm_workspace().await?;
        self.ask_anywhere(ask).await
    }

    /// Waits until the server may be asked for one more file.
    pub(super) async fn may_fetch(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.inner.fetching.acquire().await.ok()
    }

    /// Asks and reads the answer as JSON.
    pub(super) async fn ask_json<T: DeserializeOwned>(
        &self,
        ask: &Ask<'_>,
    ) -> Result<T, RegistryError> {
        self.ask(ask).await?.json()
    }

    /// What was learnt of searching on this server.
    pub(super) fn habit(&self) -> Habit {
        *self
            .inner
            .habit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was learnt.
    pub(super) fn remember(&self, habit: Habit) {
        *self
            .inner
            .habit
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = habit;
    }

    /// How many bytes of a request line the base address takes.
    pub(super) fn base_length(&self) -> usize {
        self.inner.base.path().len()
    }

    /// Origin and path of a URL below the base address.
    pub(super) fn place(&self, path: &[&str]) -> String {
        origin_and_path(&self.url(path, &[]))
    }

    /// Whether a host, with or without a port, is where this registry is.
    #[must_use]
    pub(crate) fn is_at(&self, host: &str) -> bool {
        host == host_and_port(&self.inner.base) || Some(host) == self.inner.base.host_str()
    }

    /// What the server said, fit to be seen.
    pub(super) fn clean(&self, words: &str) -> String {
        self.inner.redactor.clean(words)
    }

    /// Sent to a server without workspaces, the header is a 500; so the server is asked first, once.
    async fn confirm_workspace(&self) -> Result<(), RegistryError> {
        if self.inner.workspace.is_none() {
            return Ok(());
        }
        self.inner
            .workspace_confirmed
            .get_or_try_init(|| self.ask_for_workspaces())
            .await
            .copied()
    }

    async fn ask_for_workspaces(&self) -> Result<(), RegistryError> {
        let info = self
            .ask_anywhere(&Ask::get(&["api/3.0/mlflow/server-info"], &[]))
            .await
            .and_then(|answer| answer.json::<wire::ServerInfo>());
        match info {
            Ok(info) if info.workspaces_enabled => Ok(()),
            Ok(_) | Err(RegistryError::NotMlflow { status: 404, .. }) => {
                Err(RegistryError::configuration(format!(
                    "spec.mlflow.workspace is set, and the MLflow server at {} has no workspaces: leave it out, or start the server with `--enable-workspaces`",
                    origin_and_path(&self.inner.base)
                )))
            }
            Err(error) => Err(error),
        }
    }

    /// Asks; a question that changes nothing is asked once more where a short outage may be the cause.
    async fn ask_anywhere(&self, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        match self.ask_once(ask).await {
            Err(error) if ask.method == Method::GET && !ask.once && is_passing(&error) => {
                tokio::time::sleep(A_MOMENT).await;
                self.ask_once(ask).await
            }
            outcome => outcome,
        }
    }

    async fn ask_once(&self, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        let began = Instant::now();
        let wait = self.hold();
        if !wait.is_zero() {
            return Err(RegistryError::Busy {
                at: self.place(ask.path),
                status: 429,
                wait,
            });
        }
        let outcome = self.send(ask).await;
        if let Err(RegistryError::Busy { wait, .. }) = &outcome {
            *self
                .inner
                .held_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + *wait);
        }
        self.inner.requests.count(
            ask.path.first().copied().unwrap_or_default(),
            &outcome,
            began.elapsed(),
        );
        outcome
    }

    async fn send(&self, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        let url = self.url(ask.path, ask.query);
        let at = origin_and_path(&url);
        let timeout = ask
            .timeout
            .unwrap_or(self.inner.total_timeout)
            .min(self.inner.total_timeout);
        let fault = |error: &reqwest::Error| self.connection_fault(&at, timeout, error);
        let response = self
            .request(ask, url, timeout)
            .send()
            .await
            .map_err(|error| fault(&error))?;
        if !response.status().is_success() {
            return Err(self.refusal(at, response).await);
        }
        let content_type = header(&response, &CONTENT_TYPE);
        let (body, whole) = read_bounded(response, ask.limit)
            .await
            .map_err(|error| self.body_fault(&at, timeout, &error))?;
        if !whole && !ask.beginning {
            return Err(RegistryError::TooLarge {
                at,
                limit: ask.limit,
            });
        }
        Ok(Answer {
            at,
            body,
            content_type,
        })
    }

    fn request(&self, ask: &Ask<'_>, url: Url, timeout: Duration) -> RequestBuilder {
        let request = self
            .inner
            .http
            .request(ask.method.clone(), url)
            .timeout(timeout);
        let request = self.inner.credentials.sign(request);
        let request = match &self.inner.workspace {
            Some(workspace) if self.inner.workspace_confirmed.initialized() => {
                request.header("X-MLFLOW-WORKSPACE", workspace)
            }
            _ => request,
        };
        let request = match ask.limit.checked_sub(1).filter(|_| ask.beginning) {
            Some(last) => request.header(RANGE, format!("bytes=0-{last}")),
            None => request,
        };
        match &ask.body {
            Some(body) => request.json(body),
            None => request,
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

    fn connection_fault(&self, at: &str, limit: Duration, error: &reqwest::Error) -> RegistryError {
        let at = at.to_owned();
        if error.is_timeout() && !error.is_connect() {
            return RegistryError::TimedOut { at, limit };
        }
        let cause = self.clean(&root_cause(error));
        let hint = if cause.contains("certificate") {
            " (whom to trust is said in spec.tls)"
        } else {
            ""
        };
        RegistryError::Unreachable {
            at,
            cause: cause + hint,
            connected: !error.is_connect(),
        }
    }

    fn body_fault(&self, at: &str, limit: Duration, error: &reqwest::Error) -> RegistryError {
        if error.is_timeout() {
            return RegistryError::TimedOut {
                at: at.to_owned(),
                limit,
            };
        }
        RegistryError::invalid(
            at,
            format!(
                "an answer that breaks off ({})",
                self.clean(&root_cause(error))
            ),
        )
    }

    async fn refusal(&self, at: String, response: Response) -> RegistryError {
        let status = response.status();
        if status.is_redirection() {
            return RegistryError::Redirected {
                at,
                to: self.clean(&redirect_origin(&response)),
            };
        }
        if let Some(wait) = patience(status, &header(&response, &RETRY_AFTER), Timestamp::now()) {
            return RegistryError::Busy {
                at,
                status: status.as_u16(),
                wait,
            };
        }
        let html = header(&response, &CONTENT_TYPE).contains("html");
        let body = read_bounded(response, REFUSAL)
            .await
            .map(|(body, _)| body)
            .unwrap_or_default();
        self.refusal_of(at, status, html, &String::from_utf8_lossy(&body))
    }

    fn refusal_of(&self, at: String, status: StatusCode, html: bool, body: &str) -> RegistryError {
        let refusal: Option<wire::Refusal> = serde_json::from_str(body).ok();
        let html = html || body.trim_start().starts_with('<');
        let said = refusal
            .as_ref()
            .and_then(|refusal| refusal.message.as_deref())
            .unwrap_or(if html { "" } else { body });
        let words = self.clean(said);
        let code = refusal
            .and_then(|refusal| refusal.error_code)
            .filter(|code| is_code(code));
        let sent = self.inner.credentials.kind();
        match status.as_u16() {
            401 => RegistryError::Unauthenticated { at, sent },
            403 if body.contains("Invalid Host header") => RegistryError::HostRefused {
                at,
                host: host_and_port(&self.inner.base),
            },
            403 => RegistryError::Forbidden { at, sent, words },
            status @ (404 | 405) if code.is_none() => RegistryError::NotMlflow {
                at,
                status,
                what: what_came(html),
            },
            status @ 500.. => RegistryError::Unwell {
                at,
                status,
                code,
                words,
            },
            status => RegistryError::Refused {
                at,
                status,
                code,
                words,
            },
        }
    }
}

fn what_came(html: bool) -> String {
    if html {
        "an HTML page"
    } else {
        "no error that MLflow knows"
    }
    .to_owned()
}

/// How long a server asks to be left alone (RFC 9110, Retry-After: seconds or a date); `None` where it does not.
fn patience(status: StatusCode, retry_after: &str, now: Timestamp) -> Option<Duration> {
    let seconds = || retry_after.trim().parse().ok().map(Duration::from_secs);
    // Header values come in lower case; dates are read without regard to it.
    let date = || {
        jiff::fmt::rfc2822::DateTimeParser::new()
            .parse_timestamp(retry_after)
            .ok()
    };
    let until =
        || date().map(|date| Duration::try_from(date.duration_since(now)).unwrap_or_default());
    let named = seconds().or_else(until);
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(named.unwrap_or(PATIENCE).min(MOST_PATIENCE)),
        StatusCode::SERVICE_UNAVAILABLE => named.map(|wait| wait.min(MOST_PATIENCE)),
        _ => None,
    }
}

/// Whether the same question may be answered a moment later.
fn is_passing(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Unreachable {
            connected: false,
            ..
        } | RegistryError::Unwell {
            status: 502..=504,
            ..
        }
    )
}

/// MLflow's error codes are words in capitals.
fn is_code(code: &str) -> bool {
    code.len() <= 64
        && !code.is_empty()
        && code
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// The body up to a bound, and whether that was all of it. The header's length is not believed.
pub(crate) async fn read_bounded(
    mut response: Response,
    limit: usize,
) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body, false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, true))
}

fn header(response: &Response, name: &reqwest::header::HeaderName) -> String {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase()
}

/// Where a redirect leads: its origin only, for the rest may hold a session's secrets.
fn redirect_origin(response: &Response) -> String {
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match response.url().join(location) {
        Ok(target) if !location.is_empty() => target.origin().ascii_serialization(),
        _ => "nowhere".to_owned(),
    }
}

/// The innermost cause, which is the one that names the fault.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// A URL without user, password, query and fragment.
fn origin_and_path(url: &Url) -> String {
    format!(
        "{}{}",
        url.origin().ascii_serialization(),
        url.path().trim_end_matches('/')
    )
}

/// Host and port as they stand in the `Host` header.
fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The base address, which is never echoed where it may hold a password.
fn parse_base(uri: &str) -> Result<Url, RegistryError> {
    let invalid = |what: &str| {
        Err(RegistryError::configuration(format!(
            "spec.mlflow.uri {what}"
        )))
    };
    let Ok(url) = Url::parse(uri) else {
        return invalid("is no URI: write it as http://mlflow.mlflow.svc:5000");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return invalid(
            "must begin with http:// or https:// and name a host, such as http://mlflow.mlflow.svc:5000",
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return invalid(
            "must hold no user or password: put them into a Secret and name it in spec.auth.basic.secretRef",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return invalid("must hold no query (?) and no fragment (#)");
    }
    Ok(url)
}

fn workspace_header(workspace: &str) -> Result<HeaderValue, RegistryError> {
    HeaderValue::from_str(workspace).map_err(|_| {
        RegistryError::configuration(
            "spec.mlflow.workspace holds characters that cannot be sent: use letters, digits and -",
        )
    })
}

fn build_client(connection: &Connection, base: &Url) -> Result<reqwest::Client, RegistryError> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        // A reused connection to uvicorn stalls for 44 ms (delayed ACK); a fresh one takes about 1 ms.
        .pool_max_idle_per_host(0)
        .connect_timeout(connection.connect_timeout)
        .timeout(connection.total_timeout);
    let builder = match &connection.ca_pem {
        Some(pem) => builder.tls_certs_only(parse_authorities(pem)?),
        // Plain http needs nobody's certificates, and must work where none are installed.
        None if base.scheme() == "http" => builder.tls_certs_only([]),
        None => builder,
    };
    builder.build().map_err(|error| {
        RegistryError::configuration(format!(
            "TLS cannot be set up: {}; look at spec.tls",
            root_cause(&error)
        ))
    })
}

fn parse_authorities(pem: &str) -> Result<Vec<reqwest::Certificate>, RegistryError> {
    let fault = || {
        RegistryError::configuration(
            "the ConfigMap that spec.tls names holds no certificates in PEM form (-----BEGIN CERTIFICATE-----)",
        )
    };
    let authorities = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|_| fault())?;
    if authorities.is_empty() {
        Err(fault())
    } else {
        Ok(authorities)
    }
}

/// What follows the word Basic or Bearer in the header, which is a secret too.
fn signature(
    http: &reqwest::Client,
    base: &Url,
    credentials: &Credentials,
) -> Result<Option<String>, RegistryError> {
    let request = credentials
        .sign(http.get(base.clone()))
        .build()
        .map_err(|_| {
            RegistryError::configuration(format!(
                "spec.auth: {} cannot be sent in a header; look for line breaks in the Secret",
                credentials.kind()
            ))
        })?;
    let value = request
        .headers()
        .get(reqwest::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    Ok(value
        .and_then(|value| value.split_once(' '))
        .map(|(_, secret)| secret.to_owned()))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
