//! The HTTP transport to stores: bounded responses, no redirects, no addresses that are refused. It keeps
//! the last response.
//!
//! Absent: credentials, and the meaning of the responses.

use std::error::Error;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use reqwest::header::{ETAG, LAST_MODIFIED};
use reqwest::{Response, StatusCode};
use url::Url;

use crate::api::Availability;
use crate::http::body::{BoundedBody, ResponseBodyError, is_html, read_bounded, root_cause};
use crate::http::budget::NoRoom;
use crate::http::guard::AddressGuard;

/// The most bytes that are read of a response, which is a listing of a hundred names, and of a
/// refusal. The store's library keeps several times as much while it reads a listing.
const LONGEST_RESPONSE: usize = 512 << 10;
const LONGEST_REFUSAL: usize = 16 << 10;
/// How often the store's library keeps a response while it reads it.
const COPIES: usize = 3;
const NO_ROOM: &str = "its response had no room beside those of other servers";
/// How long a connection, and a whole request, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(8);

/// The clients for http and https, built when they are first needed.
#[derive(Clone, Debug)]
pub(super) struct HttpClients {
    /// The authorities to trust (PEM) instead of the well-known ones.
    authorities: Option<Arc<str>>,
    /// The namespace whose share of the memory responses take.
    pub(super) tenant: Arc<str>,
    guard: AddressGuard,
    plain: Arc<OnceLock<Result<reqwest::Client, String>>>,
    secure: Arc<OnceLock<Result<reqwest::Client, String>>>,
}

impl HttpClients {
    /// Clients for a namespace that send requests where the guard lets them.
    pub(super) fn new(tenant: &str, guard: &AddressGuard) -> Self {
        Self {
            authorities: None,
            tenant: tenant.into(),
            guard: guard.with_pod_credentials(),
            plain: Arc::default(),
            secure: Arc::default(),
        }
    }

    /// The same that trust these authorities (PEM) instead of the well-known ones.
    pub(super) fn trusting(self, authorities: Option<String>) -> Self {
        Self {
            authorities: authorities.map(Arc::from),
            ..self
        }
    }

    /// The client for an address.
    pub(super) fn for_url(&self, url: &Url) -> Result<&reqwest::Client, String> {
        if !self.guard.admits_url(url) {
            return Err("no request is sent to its address".to_owned());
        }
        let (slot, secure) = if url.scheme() == "https" {
            (&self.secure, true)
        } else {
            (&self.plain, false)
        };
        slot.get_or_init(|| self.build(secure))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn build(&self, secure: bool) -> Result<reqwest::Client, String> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .dns_resolver(self.guard.resolver())
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT);
        // Plain http stays in the cluster and needs no certificates; https uses HTTPS_PROXY if that is
        // set.
        let builder = match &self.authorities {
            _ if !secure => builder.no_proxy().tls_certs_only([]),
            Some(pem) => builder.tls_certs_only(parse_authorities(pem)?),
            None => builder,
        };
        builder
            .build()
            .map_err(|error| format!("TLS cannot be set up ({})", root_cause(&error)))
    }
}

fn parse_authorities(pem: &str) -> Result<Vec<reqwest::Certificate>, String> {
    match reqwest::Certificate::from_pem_bundle(pem.as_bytes()) {
        Ok(authorities) if !authorities.is_empty() => Ok(authorities),
        _ => Err("the ConfigMap that spec.artifacts.caConfigMapRef names holds no certificates in PEM form".to_owned()),
    }
}

/// The body of a response, with its share of the budget, and that of the copies of it.
struct Counted(BoundedBody);

impl Counted {
    async fn new(mut body: BoundedBody) -> Result<Self, String> {
        let copies = COPIES * body.bytes.len();
        match body.share.grow(copies).await {
            Ok(()) => Ok(Self(body)),
            Err(NoRoom) => Err(NO_ROOM.to_owned()),
        }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// The last exchange with a store.
#[derive(Clone, Debug)]
pub(super) struct LastExchange {
    /// The origin of the request.
    pub(super) origin: String,
    /// The outcome.
    pub(super) outcome: ExchangeOutcome,
}

/// The outcome of a request to a store.
#[derive(Clone, Debug)]
pub(super) enum ExchangeOutcome {
    /// A response: its status, whether it is an HTML page, whether it has an `ETag` or a date, and
    /// the text of a refusal.
    Response {
        status: StatusCode,
        html: bool,
        tagged: bool,
        text: String,
    },
    /// No response, for this cause.
    NoResponse(String),
    /// No request was sent, because the certificate is not trusted, for this cause.
    NotTrusted(String),
}

/// The transport to one store, which keeps the last exchange. The store's library hides statuses
/// and texts in its errors.
#[derive(Clone, Debug)]
pub(super) struct RecordingTransport {
    clients: HttpClients,
    last: Arc<Mutex<Option<LastExchange>>>,
}

impl RecordingTransport {
    /// A transport without an exchange yet.
    pub(super) fn new(clients: &HttpClients) -> Self {
        Self {
            clients: clients.clone(),
            last: Arc::default(),
        }
    }

    /// Takes the last exchange; `None` if no request was sent since.
    pub(super) fn take(&self) -> Option<LastExchange> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn record(&self, origin: &str, outcome: ExchangeOutcome) {
        let exchange = LastExchange {
            origin: origin.to_owned(),
            outcome,
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(exchange);
    }

    fn fail(&self, kind: HttpErrorKind, origin: &str, cause: String) -> HttpError {
        self.record(origin, ExchangeOutcome::NoResponse(cause.clone()));
        HttpError::new_boxed(kind, cause.into())
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let Ok(url) = Url::parse(&parts.uri.to_string()) else {
            let cause = "its address cannot be used".to_owned();
            return Err(self.fail(HttpErrorKind::Unknown, "", cause));
        };
        let origin = url.origin().ascii_serialization();
        let client = match self.clients.for_url(&url) {
            Ok(client) => client,
            Err(cause) => return Err(self.fail(HttpErrorKind::Unknown, &origin, cause)),
        };
        let mut built = reqwest::Request::new(parts.method, url);
        *built.headers_mut() = parts.headers;
        *built.body_mut() = body.as_bytes().map(|bytes| bytes.clone().into());
        match client.execute(built).await {
            Ok(response) => self.receive(&origin, response).await,
            Err(error) if is_not_trusted(&error) => {
                let cause = failure_cause(&error);
                self.record(&origin, ExchangeOutcome::NotTrusted(cause.clone()));
                Err(HttpError::new_boxed(HttpErrorKind::Unknown, cause.into()))
            }
            Err(error) => Err(self.fail(kind_of(&error), &origin, failure_cause(&error))),
        }
    }

    async fn receive(&self, origin: &str, response: Response) -> Result<HttpResponse, HttpError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let html = is_html(&response);
        let limit = if status.is_success() {
            LONGEST_RESPONSE
        } else {
            LONGEST_REFUSAL
        };
        let body = read_bounded(response, limit, &self.clients.tenant).await;
        let body = match body {
            // A listing that is cut cannot be parsed; of a file the beginning is enough.
            Ok(body) => Counted::new(body).await,
            Err(ResponseBodyError::Broken(error)) => Err(failure_cause(&error)),
            Err(ResponseBodyError::NoRoom) => Err(NO_ROOM.to_owned()),
        };
        let body = match body {
            Ok(body) => Bytes::from_owner(body),
            Err(cause) if status.is_success() => {
                return Err(self.fail(HttpErrorKind::Decode, origin, cause));
            }
            Err(_) => Bytes::new(),
        };
        let text = if status.is_success() {
            String::new()
        } else {
            String::from_utf8_lossy(&body).into_owned()
        };
        let outcome = ExchangeOutcome::Response {
            status,
            html,
            tagged: headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED),
            text,
        };
        self.record(origin, outcome);
        let mut received = HttpResponse::new(HttpResponseBody::from(body));
        *received.status_mut() = status;
        *received.headers_mut() = headers;
        Ok(received)
    }
}

#[async_trait]
impl HttpService for RecordingTransport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.send(request).await
    }
}

impl HttpConnector for RecordingTransport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// The cause of a request without a response. It leaves out the address, which may hold a
/// signature.
pub(super) fn failure_cause(error: &reqwest::Error) -> String {
    match (error.is_timeout(), error.is_connect()) {
        (true, true) => format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
        (true, false) => format!("no response within {} s", TOTAL_TIMEOUT.as_secs()),
        _ => root_cause(error),
    }
}

/// The availability of files at a server whose certificate is not trusted: pods may trust it.
pub(super) fn not_trusted(server: &str, cause: &str) -> Availability {
    Availability::Unchecked(format!(
        "Pointsman may not look: it does not trust the certificate of {server} ({cause}); name its authority in spec.artifacts.caConfigMapRef of the ModelRegistry, or renew it"
    ))
}

/// Whether a request failed because of the server's certificate.
pub(super) fn is_not_trusted(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return matches!(error, rustls::Error::InvalidCertificate(_));
    }
    // The source of an io::Error is that of the error in it.
    let inner = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    match inner {
        Some(inner) => is_not_trusted(inner),
        None => error.source().is_some_and(is_not_trusted),
    }
}

fn kind_of(error: &reqwest::Error) -> HttpErrorKind {
    if error.is_connect() && !error.is_timeout() {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untrusted_certificate_is_recognized_below_other_errors() {
        let certificate =
            || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let nested = std::io::Error::other(std::io::Error::other(certificate()));
        assert!(is_not_trusted(&nested) && is_not_trusted(&certificate()));
        assert!(!is_not_trusted(&std::io::Error::other("refused")));
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        assert!(!is_not_trusted(&std::io::Error::other(alert)));
    }
}
