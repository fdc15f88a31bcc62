//! Why a pass could not be brought to its end, and how soon it is tried again.
//!
//! Absent: the registry's failures. Those are values that flow into the status.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;

use super::context::Context;

/// A pass that could not be brought to its end, because of the Kubernetes API.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Reading or writing an object failed.
    #[error("{doing}: {source}")]
    Kubernetes {
        /// What was being done.
        doing: &'static str,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Failure {
    /// Says what was being done when the API failed.
    pub fn when(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Kubernetes { doing, source: Box::new(source) }
    }

    /// Whether somebody else changed the object meanwhile, so that a fresh look decides.
    pub fn is_conflict(&self) -> bool {
        let Self::Kubernetes { source, .. } = self;
        matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409)
    }
}

/// How soon a failed pass is tried again: at once where the object only changed meanwhile.
#[allow(clippy::needless_pass_by_value)] // the signature is kube's
pub fn try_again<K>(_: Arc<K>, failure: &Failure, ctx: Arc<Context>) -> Action {
    if failure.is_conflict() {
        return Action::requeue(Duration::from_millis(50));
    }
    ctx.metrics.failed_passes.inc();
    tracing::warn!(error = %failure, "a pass failed and is tried again");
    Action::requeue(Duration::from_secs(2))
}
