//! The client for the API server: its transport, and the fence that stops the writes of a replica that does not lead.
//!
//! Absent: where the cluster is. That comes as kube's `Config`.

use std::time::Duration;

use http::{Method, Request, Response};
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
/// Sent data that is not acknowledged for so long ends a connection: the machine at the other end is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest time until an answer begins, also that of a watch, whose headers come at once.
const DEADLINE: Duration = Duration::from_secs(10);
/// The same for a watch that goes on after a resource version: no list has to be made for it.
const RESUME_DEADLINE: Duration = Duration::from_secs(5);
/// The same for writes of others' objects: the API server waits up to 30 s for an admission webhook, and then names it.
const ADMISSION_DEADLINE: Duration = Duration::from_secs(35);
/// The API groups whose objects have a short deadline for writes too.
const OWN_GROUPS: [&str; 3] = [
    "/apis/pointsman.dev/",
    "/apis/coordination.k8s.io/",
    "/apis/events.k8s.io/",
];

/// Makes a client whose writes are sent only while the fence is open.
///
/// # Errors
/// If the configuration's certificates or credentials cannot be used.
pub fn fenced_client(config: Config, fence: Fence) -> Result<Client, kube::Error> {
    // The innermost layer asks the fence, so that it is asked for each attempt.
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryPolicy::default()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .layer(FilterLayer::new(move |request| admit(&fence, request)))
        .service(with_deadline(http_client(&config)?));
    Ok(Client::new(service, config.default_namespace))
}

fn admit(fence: &Fence, request: Request<Body>) -> Result<Request<Body>, &'static str> {
    if fence.admits(request.method(), request.uri().path()) {
        Ok(request)
    } else {
        Err("this replica does not lead: the write was not sent")
    }
}

/// How long a request may take until its answer begins.
fn deadline(request: &Request<Body>) -> Duration {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    if query.contains("watch=true") && !query.contains("sendInitialEvents") {
        return RESUME_DEADLINE;
    }
    let is_own = OWN_GROUPS.iter().any(|group| path.contains(group));
    if is_own || request.method() == Method::GET {
        DEADLINE
    } else {
        ADMISSION_DEADLINE
    }
}

/// The client with a deadline for each attempt of a request: a server that accepts connections and never answers must not hold a
/// reconcile or a watch for ever.
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
            let deadline = deadline(&request);
            match tokio::time::timeout(deadline, client.call(request)).await {
                Ok(answer) => answer.map_err(BoxError::from),
                Err(_) => Err(format!("no answer within {} s", deadline.as_secs()).into()),
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
    connector.set_tcp_user_timeout(Some(USER_TIMEOUT));
    config.rustls_https_connector_with_connector(connector)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::StatusCode;
    use tower::ServiceExt;

    use super::*;

    fn request(method: &Method, path: &str) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method.clone();
        *request.uri_mut() = path.parse().expect("a path");
        request
    }

    #[test]
    fn only_writes_of_others_objects_wait_for_admission_webhooks() {
        for (method, path, expected) in [
            (
                Method::GET,
                "/apis/apps/v1/deployments?watch=true&sendInitialEvents=true",
                DEADLINE,
            ),
            (
                Method::GET,
                "/apis/apps/v1/deployments?watch=true&resourceVersion=7",
                RESUME_DEADLINE,
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/ml/deployments/a",
                ADMISSION_DEADLINE,
            ),
            (
                Method::POST,
                "/apis/batch/v1/namespaces/ml/jobs",
                ADMISSION_DEADLINE,
            ),
            (
                Method::PUT,
                "/apis/pointsman.dev/v1alpha1/namespaces/ml/aliasbindings/a/status",
                DEADLINE,
            ),
            (
                Method::PUT,
                "/k8s/c/apis/coordination.k8s.io/v1/namespaces/p/leases/p",
                DEADLINE,
            ),
        ] {
            assert_eq!(
                deadline(&request(&method, path)),
                expected,
                "{method} {path}"
            );
        }
    }

    #[tokio::test]
    async fn the_fence_is_asked_for_every_attempt_of_a_write() {
        let (fence, sent) = (Fence::open(), Arc::new(AtomicUsize::new(0)));
        let (closed, counted) = (fence.clone(), Arc::clone(&sent));
        // A server that is overloaded, while the Lease ends.
        let server = service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::SeqCst);
            closed.close();
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let retry = RetryPolicy::new(Duration::from_millis(1), Duration::from_millis(2), 3, false);
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(retry.expect("a policy")))
            .layer(FilterLayer::new(move |request| admit(&fence, request)))
            .service(server);
        let path = "/apis/apps/v1/namespaces/ml/deployments/a";
        let written = service.oneshot(request(&Method::PATCH, path)).await;
        assert!(written.is_err());
        assert_eq!(sent.load(Ordering::SeqCst), 1, "it was not sent again");
    }
}
