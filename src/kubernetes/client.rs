//! The client for the API server: its transport, and the fence that stops the writes of a replica that does not lead.
//!
//! Absent: where the cluster is. That comes as kube's `Config`.

use std::time::Duration;

use http::Request;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt, retry::RetryPolicy};
use kube::{Client, Config};
use tower::filter::FilterLayer;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

use crate::kubernetes::lease::Fence;

/// After this time an idle connection is closed: the connections of a burst hold buffers at both ends.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A watch may be silent for minutes, so a dead connection is found by TCP keep-alive, within about a minute.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

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
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http_client(&config)?);
    Ok(Client::new(service, config.default_namespace))
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
