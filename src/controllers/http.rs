//! `/healthz`, `/readyz` and `/metrics`.
//!
//! Absent: anything that changes state, and limits. The server has them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::controllers::context::{Context, LoopProgress, RECONCILE_DEADLINE};
use crate::controllers::metrics_access::MetricsAccess;
use crate::http::server;
use crate::kubernetes::lock::lock;

/// A loop is stuck if objects wait and it made no progress for so long.
const STUCK_AFTER: Duration = RECONCILE_DEADLINE.saturating_add(Duration::from_secs(60));
/// How old the text of the metrics may be.
const EXPOSITION_AGE: Duration = Duration::from_secs(1);
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
    let listener = server::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    server::serve(listener, None, router(readiness, ctx).merge(more)).await;
    Ok(())
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
    let progress = ctx.progress.clone();
    let alive = move || std::future::ready(liveness(&progress, STUCK_AFTER));
    let cache = Arc::new(ExpositionCache::default());
    let access = ctx
        .settings
        .metrics_authentication
        .then(|| Arc::new(MetricsAccess::new(ctx.client.clone())));
    let metrics = move |headers: HeaderMap| {
        let (access, cache, ctx) = (access.clone(), Arc::clone(&cache), Arc::clone(&ctx));
        async move {
            if let Some(access) = access {
                let status = access.check(&headers).await;
                if status != StatusCode::OK {
                    return status.into_response();
                }
            }
            ([("content-type", OPEN_METRICS)], cache.text(&ctx)).into_response()
        }
    };
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Whether every loop makes progress.
fn liveness(progress: &LoopProgress, longest: Duration) -> (StatusCode, String) {
    match progress.stuck(longest) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(kind) => {
            let seconds = longest.as_secs();
            let message = format!("nothing of kind {kind} was reconciled for {seconds} s\n");
            (StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}

/// The text of all metrics, kept for a second so that nobody makes the operator write it all the
/// time.
#[derive(Default)]
struct ExpositionCache(Mutex<Option<Bytes>>);

impl ExpositionCache {
    fn text(self: &Arc<Self>, ctx: &Context) -> Bytes {
        let mut cached = lock(&self.0);
        if let Some(text) = &*cached {
            return text.clone();
        }
        let text = Bytes::from(metrics(ctx));
        *cached = Some(text.clone());
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(EXPOSITION_AGE).await;
            *lock(&cache.0) = None;
        });
        text
    }
}

fn metrics(ctx: &Context) -> String {
    // Of several replicas one describes the objects, so that nothing is counted twice.
    let leads = ctx.metrics.leader.get() == 1;
    let registries = leads.then(|| ctx.stores.registries.all());
    let describes_bindings = leads && ctx.settings.binding_info_metric;
    let bindings = describes_bindings.then(|| ctx.stores.bindings.all());
    let (registries, bindings) = (registries.into_iter(), bindings.into_iter());
    ctx.metrics.text(registries.flatten(), bindings.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_without_progress_is_not_alive() {
        let progress = LoopProgress::default();
        assert_eq!(liveness(&progress, STUCK_AFTER).0, StatusCode::OK);
        std::thread::sleep(Duration::from_millis(20));
        progress.registries.record();
        progress.bindings.record();
        let (status, text) = liveness(&progress, Duration::from_millis(15));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("RegisteredModel"), "{text}");
    }
}
