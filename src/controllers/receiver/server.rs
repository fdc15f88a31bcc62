//! The port that deliveries come in by: so many connections, so much time for each part of a request, so large a body.
//!
//! Absent: what a request means.

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
/// How many connections are open at the same time; others wait to be taken.
const CONNECTIONS: usize = 256;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a request's head may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(15);
/// How long a request's body may take.
const BODY: Duration = Duration::from_secs(5);

/// Why a body was not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unread {
    /// It is larger than [`LARGEST_BODY`].
    TooLarge,
    /// It broke off, or took too long.
    Broken,
}

/// Takes connections for ever.
pub async fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, router: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let tls = tls.map(TlsAcceptor::from);
    // The semaphore is never closed.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, tls.clone(), router.clone(), slot));
            }
            Err(error) => rest(&error).await,
        }
    }
}

/// A connection that was gone before it was taken is nothing; for want of files or memory it helps to wait.
async fn rest(error: &io::Error) {
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        tracing::warn!(%error, "a connection to the webhook receiver could not be taken");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn converse(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    slot: OwnedSemaphorePermit,
) {
    // Without this the answer's last part may wait for 40 ms; where it cannot be set, it waits.
    let _ = stream.set_nodelay(true);
    match tls {
        None => exchange(stream, router).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => exchange(stream, router).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake with the webhook receiver failed");
            }
            Err(_) => tracing::debug!("a TLS handshake with the webhook receiver took too long"),
        },
    }
    drop(slot);
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 << 10);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the webhook receiver broke off");
    }
}

/// The whole body, where it is small enough and comes in time.
///
/// # Errors
/// Where it is not, or does not.
pub async fn read_body(body: Body) -> Result<Bytes, Unread> {
    let whole = Limited::new(body, LARGEST_BODY).collect();
    match tokio::time::timeout(BODY, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::TooLarge),
        _ => Err(Unread::Broken),
    }
}
