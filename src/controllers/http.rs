//! `/healthz`, `/readyz` and `/metrics`.
//!
//! Absent: anything that changes state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::controllers::context::Context;

/// The content type of metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the stores are synced.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Whether the stores are synced.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sets whether the stores are synced.
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
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    axum::serve(listener, router(readiness, ctx).merge(more)).await
}

fn router(readiness: Readiness, ctx: Arc<Context>) -> Router {
    let ready = move || {
        let response = if readiness.is_ready() {
            (StatusCode::OK, "ok\n")
        } else {
            let message = "the caches are not synced yet\n";
            (StatusCode::SERVICE_UNAVAILABLE, message)
        };
        std::future::ready(response)
    };
    let metrics = move || std::future::ready(([("content-type", OPEN_METRICS)], metrics(&ctx)));
    Router::new()
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

fn metrics(ctx: &Context) -> String {
    if ctx.settings.binding_info_metric {
        ctx.metrics.text(ctx.stores.bindings.all())
    } else {
        ctx.metrics.text(std::iter::empty())
    }
}
