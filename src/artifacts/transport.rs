//! The line to stores: bounded answers, no redirects of its own, no instance metadata; what was last heard is kept.
//!
//! Absent: credentials, and what the answers mean.

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
use reqwest::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED};
use reqwest::{Response, StatusCode};
use url::Url;

use crate::registries::mlflow::client::{read_bounded, root_cause};

/// How much of an answer is read at most.
const MOST_ANSWER: usize = 4 << 20;
/// How much of a refusal is read at most.
const MOST_REFUSAL: usize = 16 << 10;
/// How long a connection may take to stand, and a whole answer.
const CONNECT: Duration = Duration::from_secs(3);
const WHOLE: Duration = Duration::from_secs(8);

/// Where clouds tell a machine who it is: never asked, for it is the node that would answer, and not a pod.
const METADATA_HOSTS: &[&str] = &["metadata.google.internal", "metadata"];

/// The clients for http and https, made when they are first needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    plain: Arc<OnceLock<Result<reqwest::Client, String>>>,
    secure: Arc<OnceLock<Result<reqwest::Client, String>>>,
}

impl Clients {
    /// The client for an address.
    pub(super) fn for_url(&self, url: &Url) -> Result<&reqwest::Client, String> {
        if is_metadata_host(url) {
            return Err("instance metadata is never asked".to_owned());
        }
        let (slot, secure) = if url.scheme() == "https" {
            (&self.secure, true)
        } else {
            (&self.plain, false)
        };
        slot.get_or_init(|| build(secure))
            .as_ref()
            .map_err(Clone::clone)
    }
}

fn build(secure: bool) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .dns_resolver(Arc::new(Resolver))
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT)
        .timeout(WHOLE);
    // Plain http stays in the cluster, and needs nobody's certificates; https goes through HTTPS_PROXY where that is set.
    let builder = if secure {
        builder
    } else {
        builder.no_proxy().tls_certs_only([])
    };
    builder
        .build()
        .map_err(|error| format!("TLS cannot be set up ({})", root_cause(&error)))
}

/// Resolves names, less the addresses of instance metadata.
struct Resolver;

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| !is_metadata(address.ip())).collect();
            if allowed.is_empty() {
                return Err("its name leads to no address that may be asked".into());
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

/// Link-local addresses, less the two where AWS gives a *pod or task* its own credentials.
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

/// What came of a request.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// The origin that was asked.
    pub(super) origin: String,
    /// What it answered.
    pub(super) what: Said,
}

/// What was answered.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// A status, whether a page for people came with it, whether it names or dates the bytes, and a refusal's words.
    Answer {
        status: StatusCode,
        html: bool,
        tagged: bool,
        words: String,
    },
    /// Nothing, for this reason.
    Nothing(String),
}

/// A line to one store, which remembers the last answer.
#[derive(Clone, Debug)]
pub(super) struct Line {
    clients: Clients,
    heard: Arc<Mutex<Option<Heard>>>,
}

impl Line {
    /// A line that has heard nothing yet.
    pub(super) fn new(clients: &Clients) -> Self {
        Self {
            clients: clients.clone(),
            heard: Arc::default(),
        }
    }

    /// What was heard last; `None` where nothing was asked since.
    pub(super) fn take(&self) -> Option<Heard> {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn note(&self, origin: &str, what: Said) {
        let heard = Heard {
            origin: origin.to_owned(),
            what,
        };
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
    }

    async fn pass(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let fail = |kind, origin: &str, why: String| {
            self.note(origin, Said::Nothing(why.clone()));
            HttpError::new_boxed(kind, why.into())
        };
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| {
            fail(
                HttpErrorKind::Unknown,
                "",
                "its address cannot be used".to_owned(),
            )
        })?;
        let origin = url.origin().ascii_serialization();
        let client = self
            .clients
            .for_url(&url)
            .map_err(|why| fail(HttpErrorKind::Unknown, &origin, why))?;
        let mut asked = reqwest::Request::new(parts.method, url);
        *asked.headers_mut() = parts.headers;
        *asked.body_mut() = body.as_bytes().map(|bytes| bytes.clone().into());
        let answer = client.execute(asked).await;
        let answer = answer.map_err(|error| fail(kind_of(&error), &origin, cause_of(&error)))?;
        self.hear(&origin, answer).await
    }

    async fn hear(&self, origin: &str, response: Response) -> Result<HttpResponse, HttpError> {
        let (status, headers, html) = (
            response.status(),
            response.headers().clone(),
            is_html(&response),
        );
        let (body, words) = if status.is_success() {
            let body = Limited::new(reqwest::Body::from(response), MOST_ANSWER);
            (
                HttpResponseBody::new(
                    body.map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error)),
                ),
                String::new(),
            )
        } else {
            let read = read_bounded(response, MOST_REFUSAL)
                .await
                .map(|(body, _)| body)
                .unwrap_or_default();
            let words = String::from_utf8_lossy(&read).into_owned();
            (HttpResponseBody::from(read), words)
        };
        let tagged = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
        self.note(
            origin,
            Said::Answer {
                status,
                html,
                tagged,
                words,
            },
        );
        let mut answer = HttpResponse::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

#[async_trait]
impl HttpService for Line {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.pass(request).await
    }
}

impl HttpConnector for Line {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// Whether a page for people came instead of a file.
pub(super) fn is_html(response: &Response) -> bool {
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("html"))
}

/// Why nothing was answered, without the address that was asked, which may hold a signature.
pub(super) fn cause_of(error: &reqwest::Error) -> String {
    match (error.is_timeout(), error.is_connect()) {
        (true, true) => format!("no connection within {} s", CONNECT.as_secs()),
        (true, false) => format!("no answer within {} s", WHOLE.as_secs()),
        _ => root_cause(error),
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
    fn instance_metadata_is_known_in_all_its_forms() {
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
