//! The error of a reconcile that could not be completed.
//!
//! Absent: the errors of a registry. Those are values that reach the status.

/// A reconcile that could not be completed; it is retried.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Reading or writing an object failed.
    #[error("{doing}: {source}")]
    Kubernetes {
        /// What was being done.
        doing: &'static str,
        /// The API server's error.
        #[source]
        source: Box<kube::Error>,
    },
}

impl ReconcileError {
    /// Makes an error from that of the client; `doing` says what failed, such as `writing a status`.
    pub fn when(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Kubernetes {
            doing,
            source: Box::new(source),
        }
    }

    /// Whether the object was changed since it was read, so that it has to be reconciled again at once.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Kubernetes { source, .. } = self;
        matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409)
    }
}
