//! The HTTP server for deliveries: a limit on connections, a timeout for each part of a request, a
//! limit on the body.
//!
//! Absent: the meaning of a request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

/// The largest body of a delivery, in bytes.
pub const LARGEST_BODY: usize = 64 << 10;
/// The most open connections. Further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 256;
/// The timeout of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a request's head, and of an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The timeout of a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyError {
    /// It is larger than [`LARGEST_BODY`].
    TooLarge,
    /// It ended early, or took too long.
    Incomplete,
}

/// Serves connections for ever.
pub async fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, router: Router) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let tls = tls.map(TlsAcceptor::from);
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(
                    stream,
                    tls.clone(),
                    router.clone(),
                    permit,
                ));
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Pauses after a failed accept, for example if the limit on open files is reached. A connection
/// that the peer closed needs none.
async fn pause_after(error: &io::Error) {
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        tracing::warn!(%error, "a connection to the webhook receiver could not be accepted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    permit: OwnedSemaphorePermit,
) {
    // Without it the last part of a response may be delayed by 40 ms (Nagle's algorithm).
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve_http(stream, router).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_http(stream, router).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake with the webhook receiver failed");
            }
            Err(_) => tracing::debug!("a TLS handshake with the webhook receiver took too long"),
        },
    }
    drop(permit);
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 << 10);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the webhook receiver failed");
    }
}

/// Reads the whole body.
///
/// # Errors
/// If it is too large or does not arrive in time.
pub async fn read_body(body: Body) -> Result<Bytes, BodyError> {
    let whole = Limited::new(body, LARGEST_BODY).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        _ => Err(BodyError::Incomplete),
    }
}
