//! The HTTP server of every port: limits on connections, in total and of one peer; on the size of
//! a request; on the time of each of its parts; on requests and age of a connection.
//!
//! Absent: the meaning of a request.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CONNECTION, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::budget::{ByteBudget, ByteShare, NoRoom};
pub(crate) use super::connections::OpenConnection;
use super::connections::{ConnectionGuard, Connections};

/// Listens at an address. `[::]` means all addresses of both families; on a machine without IPv6 those of IPv4.
///
/// # Errors
/// The address cannot be listened at.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    let is_any = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match bound {
        Err(error) if is_any && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// The largest body of a request, in bytes.
pub(crate) const LARGEST_BODY: usize = 64 << 10;
/// The budget of all bodies of requests that are in memory.
static BODIES: ByteBudget = ByteBudget::new(4 << 20);
/// The largest head of a request, in bytes. A longer one is refused with 431.
const LARGEST_HEAD: usize = 8 << 10;
/// The most open connections of a port, and of one peer.
const MOST_CONNECTIONS: usize = 512;
const MOST_OF_PEER: usize = 384;
/// The most requests of a connection.
const MOST_REQUESTS: usize = 100;
/// The age at which a connection gets no further request, and how long the last one may take then.
const MOST_AGE: Duration = Duration::from_secs(60);
const LAST_REQUEST: Duration = Duration::from_secs(10);
/// The timeout of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a request's head, and of an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a request, with its share of the budget.
pub(crate) struct RequestBody {
    pub(crate) bytes: Bytes,
    _share: ByteShare,
}

/// Why the body of a request could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RequestBodyError {
    /// It is larger than [`LARGEST_BODY`].
    TooLarge,
    /// It ended early, or took too long.
    Incomplete,
    /// Other bodies use the memory that there is for them.
    NoRoom,
}

/// Serves connections for ever.
pub(crate) async fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, router: Router) {
    let connections = Connections::new(MOST_CONNECTIONS, MOST_OF_PEER);
    let tls = tls.map(TlsAcceptor::from);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => connections.admit(peer.ip().to_canonical(), |guard| {
                let serving = serve_connection(stream, tls.clone(), router.clone(), guard);
                tokio::spawn(serving).abort_handle()
            }),
            Err(error) => pause_after(&error).await,
        }
        // A request that has arrived is read before newer connections can close its own.
        tokio::task::yield_now().await;
    }
}

/// Pauses after a failed accept, for example if the limit on open files is reached. A connection
/// that the peer closed needs none.
async fn pause_after(error: &io::Error) {
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        tracing::warn!(%error, "a connection could not be accepted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    guard: ConnectionGuard,
) {
    // Without it the last part of a response may be delayed by 40 ms (Nagle's algorithm).
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve_http(stream, router, &guard.0).await,
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_http(stream, router, &guard.0).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    open: &OpenConnection,
) {
    let requests = AtomicUsize::new(0);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        let is_last = requests.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_REQUESTS;
        open.begin_request();
        request.extensions_mut().insert(open.clone());
        let response = router.clone().oneshot(request);
        async move {
            let mut response = response.await?;
            if is_last {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            open.end_request();
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let served = if let Ok(served) = timeout(MOST_AGE, connection.as_mut()).await {
        served
    } else {
        connection.as_mut().graceful_shutdown();
        let last = timeout(LAST_REQUEST, connection).await;
        last.unwrap_or(Ok(()))
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection failed");
    }
}

/// Reads the whole body.
///
/// # Errors
/// If it is too large, does not arrive in time, or there is no room for it.
pub(crate) async fn read_body(body: Body) -> Result<RequestBody, RequestBodyError> {
    let read = timeout(BODY_TIMEOUT, read_frames(body)).await;
    read.unwrap_or(Err(RequestBodyError::Incomplete))
}

async fn read_frames(mut body: Body) -> Result<RequestBody, RequestBodyError> {
    let (mut bytes, mut share) = (Vec::new(), BODIES.share(&Arc::from("")));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| RequestBodyError::Incomplete)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > LARGEST_BODY {
            return Err(RequestBodyError::TooLarge);
        }
        let grown = share.grow(data.len()).await;
        grown.map_err(|NoRoom| RequestBodyError::NoRoom)?;
        bytes.extend_from_slice(&data);
    }
    Ok(RequestBody {
        bytes: bytes.into(),
        _share: share,
    })
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
