//! The HTTP transport to stores: bounded responses, no redirects, no instance metadata. It keeps
//! the last response.
//!
//! Absent: credentials, and the meaning of the responses.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use reqwest::header::{ETAG, LAST_MODIFIED};
use reqwest::{Response, StatusCode};
use url::Url;

use crate::api::Availability;
use crate::http::body::{is_html, read_bounded, root_cause};

/// The most bytes that are read of a response, which is a listing of a hundred names, and of a
/// refusal. The store's library keeps several times as much while it reads a listing.
const LONGEST_RESPONSE: usize = 512 << 10;
const LONGEST_REFUSAL: usize = 16 << 10;
/// How long a connection, and a whole request, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(8);

/// The hosts of instance metadata. No request is sent there: it would return the node's
/// credentials, not a pod's.
const METADATA_HOSTS: &[&str] = &["metadata.google.internal", "metadata"];

/// The clients for http and https, built when they are first needed.
#[derive(Clone, Debug, Default)]
pub(super) struct HttpClients {
    /// The authorities to trust (PEM) instead of the well-known ones.
    authorities: Option<Arc<str>>,
    plain: Arc<OnceLock<Result<reqwest::Client, String>>>,
    secure: Arc<OnceLock<Result<reqwest::Client, String>>>,
}

impl HttpClients {
    /// Clients that trust these authorities (PEM) instead of the well-known ones.
    pub(super) fn trusting(authorities: Option<String>) -> Self {
        Self {
            authorities: authorities.map(Arc::from),
            ..Self::default()
        }
    }

    /// The client for an address.
    pub(super) fn for_url(&self, url: &Url) -> Result<&reqwest::Client, String> {
        if is_metadata_host(url) {
            return Err("no request is sent to instance metadata".to_owned());
        }
        let (slot, secure) = if url.scheme() == "https" {
            (&self.secure, true)
        } else {
            (&self.plain, false)
        };
        slot.get_or_init(|| build(secure, self.authorities.as_deref()))
            .as_ref()
            .map_err(Clone::clone)
    }
}

fn build(secure: bool, authorities: Option<&str>) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .dns_resolver(Arc::new(FilteringResolver))
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TOTAL_TIMEOUT);
    // Plain http stays in the cluster and needs no certificates; https uses HTTPS_PROXY if that is
    // set.
    let builder = match authorities {
        _ if !secure => builder.no_proxy().tls_certs_only([]),
        Some(pem) => builder.tls_certs_only(parse_authorities(pem)?),
        None => builder,
    };
    builder
        .build()
        .map_err(|error| format!("TLS cannot be set up ({})", root_cause(&error)))
}

fn parse_authorities(pem: &str) -> Result<Vec<reqwest::Certificate>, String> {
    match reqwest::Certificate::from_pem_bundle(pem.as_bytes()) {
        Ok(authorities) if !authorities.is_empty() => Ok(authorities),
        _ => Err("the ConfigMap that spec.artifacts.caConfigMapRef names holds no certificates in PEM form".to_owned()),
    }
}

/// Resolves names without the addresses of instance metadata.
struct FilteringResolver;

impl reqwest::dns::Resolve for FilteringResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| !is_metadata(address.ip())).collect();
            if allowed.is_empty() {
                return Err("its name has no address that is allowed".into());
            }
            Ok(Box::new(allowed.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

fn is_metadata_host(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => is_metadata(address.into()),
        Some(url::Host::Ipv6(address)) => is_metadata(address.into()),
        Some(url::Host::Domain(name)) => METADATA_HOSTS.contains(&name.trim_end_matches('.')),
        None => true,
    }
}

/// Link-local addresses, without the two where AWS gives a *pod or task* its own credentials.
fn is_metadata(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            (address.is_link_local() && !matches!(address.octets(), [169, 254, 170, 2 | 23]))
                || address.octets() == [100, 100, 100, 200]
        }
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
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
        let (body, text) = if status.is_success() {
            let body = Limited::new(reqwest::Body::from(response), LONGEST_RESPONSE);
            let body = body.map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error));
            (HttpResponseBody::new(body), String::new())
        } else {
            let read = match read_bounded(response, LONGEST_REFUSAL).await {
                Ok(body) => body.bytes,
                Err(_) => Vec::new(),
            };
            let text = String::from_utf8_lossy(&read).into_owned();
            (HttpResponseBody::from(read), text)
        };
        let outcome = ExchangeOutcome::Response {
            status,
            html,
            tagged: headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED),
            text,
        };
        self.record(origin, outcome);
        let mut received = HttpResponse::new(body);
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

    #[test]
    fn instance_metadata_is_recognized_in_every_form() {
        for url in [
            "http://169.254.169.254/latest",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:169.254.169.254]/",
            "http://2852039166/",
            "http://metadata.google.internal/x",
            "http://100.100.100.200/",
            "http://[fe80::1]/",
        ] {
            assert!(is_metadata_host(&Url::parse(url).unwrap()), "{url}");
        }
        for url in [
            "http://169.254.170.23/v1",
            "http://127.0.0.1/",
            "https://s3.eu-west-1.amazonaws.com/",
        ] {
            assert!(!is_metadata_host(&Url::parse(url).unwrap()), "{url}");
        }
    }
}
