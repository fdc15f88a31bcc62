//! The client for the API server: its transport, and the fence that stops the writes of a replica that does not lead.
//!
//! Absent: where the cluster is. That comes as kube's `Config`.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt, retry::RetryPolicy};
use kube::{Client, Config};
use tower::filter::FilterLayer;
use tower::retry::RetryLayer;
use tower::{BoxError, Service, ServiceBuilder, service_fn};

use crate::kubernetes::lease::Fence;

/// After this time an idle connection is closed: the connections of a burst hold buffers at both ends.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A watch may be silent for minutes, so a dead connection is found by TCP keep-alive, within about a minute.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// The longest time until an answer begins. The API server waits up to 30 s for an admission webhook, and then names it.
const DEADLINE: Duration = Duration::from_secs(35);

/// Makes a client whose writes are sent only while the fence is open.
///
/// # Errors
/// If the configuration's certificates or credentials cannot be used.
pub fn fenced_client(config: Config, fence: Fence) -> Result<Client, kube::Error> {
    let admit = move |request: Request<Body>| {
        if fence.admits(request.method(), request.uri().path()) {
            Ok(request)
        } else {
            Err("this replica does not lead: the write was not sent")
        }
    };
    let service = ServiceBuilder::new()
        .layer(FilterLayer::new(admit))
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryPolicy::default()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(with_deadline(http_client(&config)?));
    Ok(Client::new(service, config.default_namespace))
}

/// The client with a deadline for each attempt of a request but a watch, which may be silent for minutes: a server that accepts
/// connections and never answers must not hold a reconcile for ever.
fn with_deadline<Transport>(
    client: Transport,
) -> impl Service<Request<Body>, Response = Response<Incoming>, Error = BoxError, Future: Send> + Clone
where
    Transport: Service<Request<Body>, Response = Response<Incoming>, Error = legacy::Error>
        + Clone
        + Send
        + 'static,
    Transport::Future: Send,
{
    service_fn(move |request: Request<Body>| {
        let mut client = client.clone();
        async move {
            let is_watch = request
                .uri()
                .query()
                .is_some_and(|query| query.contains("watch=true"));
            let answer = client.call(request);
            if is_watch {
                return answer.await.map_err(BoxError::from);
            }
            match tokio::time::timeout(DEADLINE, answer).await {
                Ok(answer) => answer.map_err(BoxError::from),
                Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs()).into()),
            }
        }
    })
}

fn http_client(
    config: &Config,
) -> Result<legacy::Client<HttpsConnector<HttpConnector>, Body>, kube::Error> {
    let mut client = legacy::Client::builder(TokioExecutor::new());
    client
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT);
    Ok(client.build(connector(config)?))
}

/// kube's own connector without Nagle's algorithm: hyper writes the head and the body of a request apart, and the body would wait
/// for the acknowledgement of the head, which the API server's kernel delays by 40 ms.
fn connector(config: &Config) -> Result<HttpsConnector<HttpConnector>, kube::Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_keepalive(Some(KEEPALIVE_TIME));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    config.rustls_https_connector_with_connector(connector)
}
