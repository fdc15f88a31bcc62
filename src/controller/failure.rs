//! Why a pass could not be brought to its end, and how soon it is tried again.
//!
//! Absent: the registry's failures. Those are values that flow into the status.

use std::time::Duration;

use super::context::Context;
use super::name::Name;
use super::queue::Next;

/// A pass that could not be brought to its end.
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
    /// What was packed while it waited cannot be read again.
    #[error("what was to be written could not be kept while it waited")]
    Unreadable,
}

impl Failure {
    /// Says what was being done when the API failed.
    pub fn when(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Kubernetes {
            doing,
            source: Box::new(source),
        }
    }

    /// Whether somebody else changed the object meanwhile, so that a fresh look decides.
    pub fn is_conflict(&self) -> bool {
        let Self::Kubernetes { source, .. } = self else {
            return false;
        };
        matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409)
    }
}

/// How soon a failed pass is tried again: at once where the object only changed meanwhile.
pub fn try_again(name: &Name, failure: &Failure, ctx: &Context) -> Next {
    if failure.is_conflict() {
        return Next::requeue(Duration::from_millis(50));
    }
    ctx.metrics.failed_passes.inc();
    tracing::warn!(namespace = name.namespace(), name = name.name(), error = %failure, "a pass failed and is tried again");
    Next::requeue(Duration::from_secs(2))
}
