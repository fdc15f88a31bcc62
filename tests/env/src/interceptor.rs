//! A reverse proxy on loopback, in tests, before the real MLflow or the real API server: it records, breaks and pauses requests.
//!
//! Absent: any knowledge of MLflow or Kubernetes, TLS towards the client, HTTP/2, protocol upgrades (exec, port-forward).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

pub use hyper::{Method, StatusCode};

/// How many requests are remembered; older ones are forgotten, their indexes stay valid.
const REMEMBERED_REQUESTS: usize = 100_000;

/// How long [`Fault::SlowDrip`] waits between two bytes.
const DRIP_INTERVAL: Duration = Duration::from_millis(200);

/// Headers that belong to one connection and are never passed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type AnswerBody = BoxBody<Bytes, BoxError>;
type Answer = hyper::Response<AnswerBody>;

/// Says by method and by path with query whether a rule or a pause concerns a request.
pub type Matcher = Box<dyn Fn(&Method, &str) -> bool + Send + Sync>;

/// Why an interceptor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No loopback port could be opened.
    #[error("cannot listen on loopback: {0}; check that ports are left to this user")]
    Listen(#[from] std::io::Error),
    /// The client towards the upstream could not be made.
    #[error(
        "cannot make the HTTP client for {upstream}: {cause}; check the CA certificate given for it"
    )]
    Client {
        /// The URL requests were to be forwarded to.
        upstream: String,
        /// The client library's message.
        cause: reqwest::Error,
    },
}

/// Ready-made matchers.
pub mod matching {
    use super::{Matcher, Method};

    /// Every request.
    #[must_use]
    pub fn everything() -> Matcher {
        Box::new(|_, _| true)
    }

    /// Requests whose path or query contains the text.
    #[must_use]
    pub fn path_contains(text: impl Into<String>) -> Matcher {
        let text = text.into();
        Box::new(move |_, path| path.contains(&text))
    }

    /// Requests with this method whose path or query contains the text.
    #[must_use]
    pub fn request(method: Method, text: impl Into<String>) -> Matcher {
        let text = text.into();
        Box::new(move |candidate, path| *candidate == method && path.contains(&text))
    }

    /// Writes whose path or query contains the text.
    #[must_use]
    pub fn write(text: impl Into<String>) -> Matcher {
        let text = text.into();
        Box::new(move |method, path| super::is_write(method) && path.contains(&text))
    }

    /// Kubernetes watches whose path or query contains the text.
    #[must_use]
    pub fn watch(text: impl Into<String>) -> Matcher {
        let text = text.into();
        Box::new(move |_, path| path.contains("watch=") && path.contains(&text))
    }
}

/// The response that a client gets instead of, or before, the upstream's.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This response; the request is not forwarded.
    Status {
        /// HTTP status code.
        code: u16,
        /// The Content-Type header.
        content_type: String,
        /// The body.
        body: String,
    },
    /// A 429 with so many seconds in Retry-After; the request is not forwarded.
    Busy(u32),
    /// A 200 with a login page, as a misplaced ingress sends it; the request is not forwarded.
    Html,
    /// A 200 whose JSON ends in the middle; the request is not forwarded.
    TruncatedJson,
    /// A 200 whose JSON never ends and comes as fast as it is read; the request is not forwarded.
    EndlessJson,
    /// The request is forwarded only after this time.
    Slow(Duration),
    /// A 200 whose JSON comes byte by byte and never ends; the request is not forwarded.
    SlowDrip,
    /// The connection is closed without a response; the request is not forwarded.
    CloseConnection,
}

impl Fault {
    /// A response with a JSON body in the form of MLflow's and the API server's.
    #[must_use]
    pub fn json(code: u16, body: impl Into<String>) -> Self {
        Self::Status {
            code,
            content_type: "application/json".into(),
            body: body.into(),
        }
    }
}

/// One request that arrived here.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it arrived.
    pub at: Instant,
    /// Its method.
    pub method: Method,
    /// Its path, as sent.
    pub path: String,
    /// Its query, as sent, without the question mark.
    pub query: Option<String>,
    /// The response's status; None while the request is running, or if the connection was closed instead.
    pub status: Option<u16>,
    /// The time at which the newest part of its response came.
    pub answered: Option<Instant>,
    /// The size of its response's body so far, in bytes.
    pub bytes: u64,
}

impl Request {
    /// The time from the request to the last byte of the upstream's response; None before its first byte.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.answered.map(|answered| answered - self.at)
    }

    /// Whether this request can have changed something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        is_write(&self.method)
    }
}

/// Names an injected fault, to take it away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(u64);

/// On which side of the upstream a pause stops a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the upstream sees the request.
    Before,
    /// After the upstream's response, before the client gets it.
    After,
}

/// Stops one request; dropping it lets the request go on.
#[derive(Debug)]
pub struct Pause {
    reached: oneshot::Receiver<()>,
    release: oneshot::Sender<Infallible>,
}

impl Pause {
    /// Resolves when a matching request is stopped.
    ///
    /// # Panics
    /// When the interceptor was dropped before any matching request came.
    pub async fn reached(&mut self) {
        assert!(
            (&mut self.reached).await.is_ok(),
            "the interceptor ended before a request reached the pause; keep it alive for the whole test"
        );
    }

    /// Lets the stopped request go on.
    pub fn release(self) {
        drop(self.release);
    }
}

struct Rule {
    id: RuleId,
    matcher: Matcher,
    fault: Fault,
    times: Option<usize>,
}

struct PendingPause {
    matcher: Matcher,
    when: When,
    reached: oneshot::Sender<()>,
    release: oneshot::Receiver<Infallible>,
}

#[derive(Default)]
struct Journal {
    forgotten: usize,
    requests: VecDeque<Request>,
}

#[derive(Default)]
struct Rules {
    last_id: u64,
    faults: Vec<Rule>,
    pauses: Vec<PendingPause>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    journal: Mutex<Journal>,
    rules: Mutex<Rules>,
}

/// The proxy; it stops, and its connections close, when it is dropped.
pub struct Interceptor {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Interceptor {
    /// Listens on a free loopback port and forwards to `upstream_url`, trusting only `ca_pem` if it is given.
    ///
    /// # Errors
    /// When no port can be opened or the CA certificate cannot be read.
    pub async fn start(
        upstream_url: impl Into<String>,
        ca_pem: Option<String>,
    ) -> Result<Self, Error> {
        Self::with_headers(upstream_url, ca_pem, HeaderMap::new()).await
    }

    /// The same, and adds headers to each request that lacks them: some clients send no token over plain HTTP.
    ///
    /// # Errors
    /// When no port can be opened or the CA certificate cannot be read.
    pub async fn with_headers(
        upstream_url: impl Into<String>,
        ca_pem: Option<String>,
        added: HeaderMap,
    ) -> Result<Self, Error> {
        let upstream = upstream_url.into().trim_end_matches('/').to_owned();
        let client = upstream_client(ca_pem.as_deref(), added).map_err(|cause| Error::Client {
            upstream: upstream.clone(),
            cause,
        })?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            client,
            journal: Mutex::default(),
            rules: Mutex::default(),
        });
        let accepting = Mutex::new(Some(tokio::spawn(accept(listener, Arc::clone(&shared)))));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Breaks all connections and refuses new ones, as a server does that is not running.
    pub async fn refuse(&self) {
        let accepting = self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // It ends by being aborted: only then is the port closed.
            let _aborted = accepting.await;
        }
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    /// When another program took the port meanwhile.
    pub async fn accept_again(&self) -> Result<(), Error> {
        self.refuse().await;
        let listener = TcpListener::bind(self.address).await?;
        let accepting = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
        *self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(accepting);
        Ok(())
    }

    /// The URL for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The index that the next request will have.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.shared.journal().next_index()
    }

    /// The requests that arrived since the mark was taken, oldest first.
    #[must_use]
    pub fn since(&self, mark: usize) -> Vec<Request> {
        let journal = self.shared.journal();
        let skipped = mark.saturating_sub(journal.forgotten);
        journal.requests.iter().skip(skipped).cloned().collect()
    }

    /// The requests since the mark that can have changed something, without renewals of the Lease.
    #[must_use]
    pub fn writes_since(&self, mark: usize) -> Vec<Request> {
        self.since(mark)
            .into_iter()
            .filter(|request| request.is_write() && !request.path.contains("/leases/"))
            .collect()
    }

    /// From now on matching requests meet this fault: `times` of them, or all; of several rules the newest counts.
    pub fn inject(&self, matcher: Matcher, fault: Fault, times: Option<usize>) -> RuleId {
        let mut rules = self.shared.rules();
        rules.last_id += 1;
        let id = RuleId(rules.last_id);
        rules.faults.push(Rule {
            id,
            matcher,
            fault,
            times,
        });
        id
    }

    /// Takes one fault away.
    pub fn remove(&self, id: RuleId) {
        self.shared.rules().faults.retain(|rule| rule.id != id);
    }

    /// Takes all faults away; pauses stay.
    pub fn clear(&self) {
        self.shared.rules().faults.clear();
    }

    /// Stops the next matching request, once.
    pub fn pause(&self, matcher: Matcher, when: When) -> Pause {
        let (reached_sender, reached) = oneshot::channel();
        let (release, release_receiver) = oneshot::channel();
        let pending = PendingPause {
            matcher,
            when,
            reached: reached_sender,
            release: release_receiver,
        };
        self.shared.rules().pauses.push(pending);
        Pause { reached, release }
    }
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        // The accepting task owns the tasks of all connections: they end with it.
        let accepting = self
            .accepting
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(accepting) = accepting {
            accepting.abort();
        }
    }
}

impl Journal {
    fn next_index(&self) -> usize {
        self.forgotten + self.requests.len()
    }

    fn record(&mut self, request: Request) -> usize {
        if self.requests.len() == REMEMBERED_REQUESTS {
            self.requests.pop_front();
            self.forgotten += 1;
        }
        self.requests.push_back(request);
        self.next_index() - 1
    }

    fn find(&mut self, index: usize) -> Option<&mut Request> {
        index
            .checked_sub(self.forgotten)
            .and_then(|position| self.requests.get_mut(position))
    }

    fn answered(&mut self, index: usize, status: StatusCode) {
        if let Some(request) = self.find(index) {
            request.status = Some(status.as_u16());
            request.answered = Some(Instant::now());
        }
    }

    fn received(&mut self, index: usize, bytes: usize) {
        if let Some(request) = self.find(index) {
            request.bytes += bytes as u64;
            request.answered = Some(Instant::now());
        }
    }
}

impl Rules {
    fn take_fault(&mut self, method: &Method, path_and_query: &str) -> Option<Fault> {
        let matches = |rule: &Rule| rule.times != Some(0) && (rule.matcher)(method, path_and_query);
        let rule = self.faults.iter_mut().rev().find(|rule| matches(rule))?;
        rule.times = rule.times.map(|times| times - 1);
        Some(rule.fault.clone())
    }

    fn take_pause(
        &mut self,
        when: When,
        method: &Method,
        path_and_query: &str,
    ) -> Option<PendingPause> {
        // A pause dropped before it was reached must not swallow the request that a later one waits for.
        self.pauses.retain(|pause| !pause.reached.is_closed());
        let matches =
            |pause: &PendingPause| pause.when == when && (pause.matcher)(method, path_and_query);
        let position = self.pauses.iter().position(matches)?;
        Some(self.pauses.remove(position))
    }
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait_for_pause(&self, when: When, method: &Method, path_and_query: &str) {
        let pause = self.rules().take_pause(when, method, path_and_query);
        if let Some(PendingPause {
            reached, release, ..
        }) = pause
            && reached.send(()).is_ok()
        {
            // Nothing is ever sent: the channel closes when the pause is released or dropped.
            let _closed = release.await;
        }
    }
}

/// Whether requests with this method can change something.
#[must_use]
pub fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn upstream_client(
    ca_pem: Option<&str>,
    added: HeaderMap,
) -> Result<reqwest::Client, reqwest::Error> {
    // An error means that another part of this process has installed a provider already.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    // Connections are not kept: a restarted upstream must never be met through a dead one.
    let mut builder = reqwest::Client::builder()
        .http1_only()
        .no_proxy()
        .default_headers(added)
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(pem) = ca_pem {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem.as_bytes())?);
    }
    builder.build()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    // Watch events are small: without this each would wait for the client's delayed ACK.
                    let _unsupported = socket.set_nodelay(true);
                    connections.spawn(serve(socket, Arc::clone(&shared)));
                }
                // Out of descriptors, most likely: leave time for some to close.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(socket: tokio::net::TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    // An error is a client that left or an injected fault; both are expected in tests.
    let _ended = http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

async fn answer(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Result<Answer, BoxError> {
    let method = request.method().clone();
    let path_and_query = request
        .uri()
        .path_and_query()
        .map_or("/", |both| both.as_str())
        .to_owned();
    let index = shared.journal().record(Request {
        at: Instant::now(),
        method: method.clone(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().map(ToOwned::to_owned),
        status: None,
        answered: None,
        bytes: 0,
    });
    shared
        .wait_for_pause(When::Before, &method, &path_and_query)
        .await;
    let fault = shared.rules().take_fault(&method, &path_and_query);
    let response = match fault {
        None => forward(&shared, index, request, &path_and_query).await?,
        Some(Fault::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            forward(&shared, index, request, &path_and_query).await?
        }
        Some(fault) => faulty_answer(fault)?,
    };
    shared
        .wait_for_pause(When::After, &method, &path_and_query)
        .await;
    shared.journal().answered(index, response.status());
    Ok(response)
}

async fn forward(
    shared: &Arc<Shared>,
    index: usize,
    request: hyper::Request<Incoming>,
    path_and_query: &str,
) -> Result<Answer, BoxError> {
    let (parts, body) = request.into_parts();
    let mut headers = passed_on(&parts.headers);
    // The upstream gets its own name: MLflow refuses Host headers that it does not know.
    headers.remove(header::HOST);
    let url = format!("{}{path_and_query}", shared.upstream);
    let mut outgoing = shared.client.request(parts.method, url).headers(headers);
    if !body.is_end_stream() {
        outgoing = outgoing.body(reqwest::Body::wrap(body));
    }
    // A dead upstream is shown as a closed connection, not as a proxy's 502.
    let response = outgoing.send().await?;
    let (status, headers) = (response.status(), passed_on(response.headers()));
    let counting = Arc::clone(shared);
    let counted = response.bytes_stream().inspect(move |chunk| {
        if let Ok(bytes) = chunk {
            counting.journal().received(index, bytes.len());
        }
    });
    let mut answer = streaming(counted.map(|chunk| chunk.map_err(BoxError::from)));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    let named_by_connection: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_owned()))
        .collect();
    for name in named_by_connection {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers
}

fn faulty_answer(fault: Fault) -> Result<Answer, BoxError> {
    match fault {
        Fault::Status {
            code,
            content_type,
            body,
        } => {
            let mut answer = whole(&content_type, body)?;
            *answer.status_mut() = StatusCode::from_u16(code)?;
            Ok(answer)
        }
        Fault::Busy(seconds) => {
            let mut answer = whole("text/plain", "too many requests".to_owned())?;
            *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            answer
                .headers_mut()
                .insert(hyper::header::RETRY_AFTER, seconds.into());
            Ok(answer)
        }
        Fault::Html => whole(
            "text/html; charset=utf-8",
            "<!doctype html><html><body><h1>Sign in</h1></body></html>".to_owned(),
        ),
        Fault::TruncatedJson => whole(
            "application/json",
            r#"{"registered_models": [{"name": "cut-in-the-mid"#.to_owned(),
        ),
        Fault::EndlessJson => Ok(json_stream(endless_json())),
        Fault::SlowDrip => Ok(json_stream(dripping_json())),
        Fault::CloseConnection => Err("the connection is closed by a fault".into()),
        Fault::Slow(_) => unreachable!("a slow request is forwarded by the caller"),
    }
}

fn whole(content_type: &str, body: String) -> Result<Answer, BoxError> {
    let body = Full::new(Bytes::from(body))
        .map_err(|never: Infallible| match never {})
        .boxed();
    let mut answer = hyper::Response::new(body);
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type)?);
    Ok(answer)
}

fn json_stream(chunks: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Answer {
    let mut answer = streaming(chunks.map(Ok));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

fn streaming(
    chunks: impl Stream<Item = Result<Bytes, BoxError>> + Send + Sync + 'static,
) -> Answer {
    hyper::Response::new(BodyExt::boxed(StreamBody::new(
        chunks.map(|chunk| chunk.map(Frame::data)),
    )))
}

fn endless_json() -> impl Stream<Item = Bytes> + Send + Sync {
    let models = Bytes::from(
        r#"{"name":"endless","aliases":[{"alias":"champion","version":"1"}]},"#.repeat(1000),
    );
    let start = Bytes::from_static(br#"{"registered_models":["#);
    stream::once(std::future::ready(start)).chain(stream::repeat(models))
}

fn dripping_json() -> impl Stream<Item = Bytes> + Send + Sync {
    stream::unfold(Bytes::from_static(b"{"), |byte| async move {
        tokio::time::sleep(DRIP_INTERVAL).await;
        Some((byte, Bytes::from_static(b" ")))
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(10);

    /// An upstream that echoes requests; under `/stream` it sends the chunks that the test gives it.
    struct Upstream {
        url: String,
        chunks: mpsc::UnboundedSender<&'static str>,
        seen: Arc<Mutex<Vec<String>>>,
        _serving: JoinSet<()>,
    }

    impl Upstream {
        async fn start() -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let (chunks, to_send) = mpsc::unbounded_channel();
            let (to_send, seen) = (
                Arc::new(tokio::sync::Mutex::new(to_send)),
                Arc::new(Mutex::new(Vec::new())),
            );
            let mut serving = JoinSet::new();
            let seen_there = Arc::clone(&seen);
            serving.spawn(async move {
                let mut connections = JoinSet::new();
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    let (to_send, seen) = (Arc::clone(&to_send), Arc::clone(&seen_there));
                    let service = service_fn(move |request| {
                        echo(request, Arc::clone(&to_send), Arc::clone(&seen))
                    });
                    connections.spawn(async move {
                        let _ended = http1::Builder::new()
                            .serve_connection(TokioIo::new(socket), service)
                            .await;
                    });
                }
            });
            Self {
                url,
                chunks,
                seen,
                _serving: serving,
            }
        }

        fn seen(&self) -> usize {
            self.seen.lock().unwrap().len()
        }
    }

    type Chunks = Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<&'static str>>>;

    async fn echo(
        request: hyper::Request<Incoming>,
        chunks: Chunks,
        seen: Arc<Mutex<Vec<String>>>,
    ) -> Result<Answer, BoxError> {
        seen.lock().unwrap().push(request.uri().to_string());
        if request.uri().path() == "/stream" {
            let next = move || {
                let chunks = Arc::clone(&chunks);
                async move { chunks.lock().await.recv().await }
            };
            return Ok(json_stream(stream::unfold(next, |next| async move {
                Some((Bytes::from(next().await?), next))
            })));
        }
        let (parts, body) = request.into_parts();
        let value = |name: &str| {
            parts
                .headers
                .get(name)
                .map_or("-", |value| value.to_str().unwrap())
        };
        let about = format!(
            "{} {} host={} authorization={} keep-alive={} body=",
            parts.method,
            parts.uri,
            value("host"),
            value("authorization"),
            value("keep-alive")
        );
        let body = body.collect().await?.to_bytes();
        let mut answer = whole("text/plain", about + std::str::from_utf8(&body)?)?;
        *answer.status_mut() = StatusCode::CREATED;
        answer
            .headers_mut()
            .insert("x-upstream", HeaderValue::from_static("yes"));
        Ok(answer)
    }

    async fn both() -> (Upstream, Interceptor) {
        let upstream = Upstream::start().await;
        let interceptor = Interceptor::start(&upstream.url, None).await.unwrap();
        (upstream, interceptor)
    }

    async fn get(interceptor: &Interceptor, path: &str) -> reqwest::Result<reqwest::Response> {
        let url = format!("{}{path}", interceptor.url());
        reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .get(url)
            .send()
            .await
    }

    #[tokio::test]
    async fn method_headers_query_and_body_pass_untouched() {
        let (upstream, interceptor) = both().await;
        let url = format!("{}/a%20b?name=x%2Fy&name=%C3%A9", interceptor.url());
        let request = reqwest::Client::new()
            .patch(url)
            .header("authorization", "Bearer t")
            .header("keep-alive", "5");
        let answer = request.body("hello").send().await.unwrap();
        assert_eq!(
            (
                answer.status().as_u16(),
                answer.headers()["x-upstream"].as_bytes()
            ),
            (201, &b"yes"[..])
        );
        let host = upstream.url.trim_start_matches("http://");
        let expected = format!(
            "PATCH /a%20b?name=x%2Fy&name=%C3%A9 host={host} authorization=Bearer t keep-alive=- body=hello"
        );
        assert_eq!(answer.text().await.unwrap(), expected);
        let recorded = interceptor.writes_since(0);
        assert_eq!(
            (
                recorded.len(),
                recorded[0].path.as_str(),
                recorded[0].status
            ),
            (1, "/a%20b", Some(201))
        );
        assert_eq!(recorded[0].query.as_deref(), Some("name=x%2Fy&name=%C3%A9"));
    }

    #[tokio::test]
    async fn a_stream_passes_chunk_by_chunk() {
        let (upstream, interceptor) = both().await;
        let mut answer = get(&interceptor, "/stream?watch=true").await.unwrap();
        for chunk in ["{\"type\":\"ADDED\"}\n", "{\"type\":\"DELETED\"}\n"] {
            assert!(
                timeout(SHORT, answer.chunk()).await.is_err(),
                "nothing was sent yet"
            );
            upstream.chunks.send(chunk).unwrap();
            assert_eq!(
                timeout(LONG, answer.chunk())
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap(),
                chunk
            );
        }
        drop(interceptor);
        assert!(
            timeout(LONG, answer.chunk()).await.unwrap().is_err(),
            "its connections close with it"
        );
    }

    #[tokio::test]
    async fn an_upload_passes_chunk_by_chunk() {
        let (upstream, interceptor) = both().await;
        let chunks = stream::iter(["one ", "two"]).map(Ok::<_, std::io::Error>);
        let request = reqwest::Client::new()
            .put(interceptor.url())
            .body(reqwest::Body::wrap_stream(chunks));
        assert!(
            request
                .send()
                .await
                .unwrap()
                .text()
                .await
                .unwrap()
                .ends_with("body=one two")
        );
        assert_eq!(upstream.seen(), 1);
    }

    #[tokio::test]
    async fn an_answer_in_place_of_the_upstream_is_given_as_often_as_asked() {
        let (upstream, interceptor) = both().await;
        interceptor.inject(
            matching::path_contains("/a"),
            Fault::json(503, r#"{"error_code":"X"}"#),
            Some(1),
        );
        let answer = get(&interceptor, "/a").await.unwrap();
        assert_eq!(
            (
                answer.status().as_u16(),
                answer.headers()["content-type"].as_bytes()
            ),
            (503, &b"application/json"[..])
        );
        assert_eq!(upstream.seen(), 0);
        assert_eq!(get(&interceptor, "/a").await.unwrap().status(), 201);
        assert_eq!(
            interceptor
                .since(0)
                .iter()
                .map(|request| request.status)
                .collect::<Vec<_>>(),
            [Some(503), Some(201)]
        );
    }

    #[tokio::test]
    async fn faults_are_taken_away_one_by_one_or_all() {
        let (_upstream, interceptor) = both().await;
        let html = interceptor.inject(matching::everything(), Fault::Html, None);
        let truncated = interceptor.inject(matching::everything(), Fault::TruncatedJson, None);
        let text = get(&interceptor, "/").await.unwrap().text().await.unwrap();
        assert!(
            text.starts_with('{') && serde_json::from_str::<serde_json::Value>(&text).is_err(),
            "{text}"
        );
        interceptor.remove(truncated);
        assert!(
            get(&interceptor, "/")
                .await
                .unwrap()
                .text()
                .await
                .unwrap()
                .contains("<html>")
        );
        assert_ne!(html, truncated);
        interceptor.clear();
        assert_eq!(get(&interceptor, "/").await.unwrap().status(), 201);
    }

    #[tokio::test]
    async fn json_can_be_without_end() {
        let (_upstream, interceptor) = both().await;
        interceptor.inject(matching::everything(), Fault::EndlessJson, None);
        let mut answer = get(&interceptor, "/").await.unwrap();
        let mut length = 0;
        while length < 5_000_000 {
            length += timeout(LONG, answer.chunk())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
                .len();
        }
    }

    #[tokio::test]
    async fn json_can_come_byte_by_byte() {
        let (_upstream, interceptor) = both().await;
        interceptor.inject(matching::everything(), Fault::SlowDrip, None);
        let mut answer = get(&interceptor, "/").await.unwrap();
        for expected in ["{", " ", " "] {
            assert_eq!(
                timeout(LONG, answer.chunk())
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap(),
                expected
            );
        }
    }

    #[tokio::test]
    async fn a_slow_request_still_arrives() {
        let (_upstream, interceptor) = both().await;
        interceptor.inject(matching::everything(), Fault::Slow(SHORT), None);
        let started = Instant::now();
        assert_eq!(get(&interceptor, "/").await.unwrap().status(), 201);
        assert!(started.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn a_connection_can_be_closed_without_an_answer() {
        let (upstream, interceptor) = both().await;
        interceptor.inject(matching::everything(), Fault::CloseConnection, None);
        let mut socket = tokio::net::TcpStream::connect(interceptor.address)
            .await
            .unwrap();
        socket
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(
            timeout(LONG, socket.read_to_end(&mut Vec::new()))
                .await
                .unwrap()
                .unwrap_or(0),
            0
        );
        assert_eq!((upstream.seen(), interceptor.since(0)[0].status), (0, None));
    }

    #[tokio::test]
    async fn a_dead_upstream_shows_as_a_closed_connection() {
        let interceptor = Interceptor::start("http://127.0.0.1:1", None)
            .await
            .unwrap();
        assert!(
            timeout(LONG, get(&interceptor, "/"))
                .await
                .unwrap()
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_pause_before_keeps_the_request_from_the_upstream() {
        let (upstream, interceptor) = both().await;
        let mut pause = interceptor.pause(matching::everything(), When::Before);
        let mut answer = Box::pin(get(&interceptor, "/"));
        tokio::select! { _ = &mut answer => panic!("it is paused"), () = pause.reached() => {} }
        assert!(timeout(SHORT, &mut answer).await.is_err());
        assert_eq!(upstream.seen(), 0);
        pause.release();
        assert_eq!(timeout(LONG, answer).await.unwrap().unwrap().status(), 201);
    }

    #[tokio::test]
    async fn a_pause_after_keeps_the_answer_from_the_client() {
        let (upstream, interceptor) = both().await;
        let mut pause = interceptor.pause(matching::everything(), When::After);
        let mut answer = Box::pin(get(&interceptor, "/"));
        tokio::select! { _ = &mut answer => panic!("it is paused"), () = pause.reached() => {} }
        assert!(timeout(SHORT, &mut answer).await.is_err());
        assert_eq!(upstream.seen(), 1);
        assert_eq!(
            timeout(LONG, get(&interceptor, "/other"))
                .await
                .unwrap()
                .unwrap()
                .status(),
            201
        );
        drop(pause);
        assert_eq!(timeout(LONG, answer).await.unwrap().unwrap().status(), 201);
    }

    #[tokio::test]
    async fn a_dropped_pause_stops_nothing_and_leaves_the_request_to_the_next() {
        let (_upstream, interceptor) = both().await;
        drop(interceptor.pause(matching::everything(), When::Before));
        let mut next = interceptor.pause(matching::everything(), When::Before);
        let mut answer = Box::pin(get(&interceptor, "/"));
        tokio::select! { _ = &mut answer => panic!("it is paused"), () = next.reached() => {} }
        assert!((&mut answer).now_or_never().is_none());
        next.release();
        assert_eq!(timeout(LONG, answer).await.unwrap().unwrap().status(), 201);
    }

    #[test]
    fn the_journal_forgets_the_oldest_and_keeps_its_indexes() {
        let mut journal = Journal::default();
        let request = |path: usize| Request {
            at: Instant::now(),
            method: Method::GET,
            path: path.to_string(),
            query: None,
            status: None,
            answered: None,
            bytes: 0,
        };
        for number in 0..REMEMBERED_REQUESTS + 5 {
            assert_eq!(journal.record(request(number)), number);
        }
        journal.answered(2, StatusCode::OK);
        journal.answered(7, StatusCode::OK);
        assert_eq!(
            (journal.requests.len(), journal.forgotten),
            (REMEMBERED_REQUESTS, 5)
        );
        assert_eq!(
            (
                journal.requests[2].path.as_str(),
                journal.requests[2].status
            ),
            ("7", Some(200))
        );
    }
}
