//! Why a pass could not be brought to its end, and how soon it is tried again.
//!
//! Absent: the registry's failures. Those are values that flow into the status.

/// A pass that could not be brought to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
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

impl ReconcileError {
    /// Says what was being done when the API failed.
    pub fn when(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Kubernetes {
            doing,
            source: Box::new(source),
        }
    }

    /// Whether somebody else changed the object meanwhile, so that a fresh look decides.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Kubernetes { source, .. } = self;
        matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409)
    }
}
