//! `/healthz`, `/readyz` and `/metrics`.
//!
//! Absent: anything that a caller could change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::controllers::context::Context;
use crate::controllers::metrics;

/// Whether the caches are filled.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// The caches are filled.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Says whether the caches are filled.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }
}

/// Serves health, metrics and `more` until the process ends.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    ctx: Arc<Context>,
    more: Router,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "health and metrics are served");
    axum::serve(listener, router(readiness, ctx).merge(more)).await
}

fn router(readiness: Readiness, ctx: Arc<Context>) -> Router {
    let ready = move || {
        let answer = if readiness.is_ready() {
            (StatusCode::OK, "ok\n")
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the caches are not filled yet\n",
            )
        };
        std::future::ready(answer)
    };
    let content_type = [(
        "content-type",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )];
    Router::new()
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(move || std::future::ready((content_type, metrics::text(&ctx)))),
        )
}
