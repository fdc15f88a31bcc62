//! The error of a reconcile that could not be completed.
//!
//! Absent: the errors of a registry. Those are values that reach the status.

use kube::core::Status;

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

    /// The error of the client.
    #[must_use]
    pub fn client_error(&self) -> &kube::Error {
        let Self::Kubernetes { source, .. } = self;
        source
    }
}

/// Whether the object was changed since it was read, so that it has to be reconciled again at once. A webhook may refuse a
/// request with the same status, but has another reason.
#[must_use]
pub fn is_conflict(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(answer) => {
            answer.code == 409 && matches!(answer.reason.as_str(), "Conflict" | "AlreadyExists")
        }
        _ => false,
    }
}

/// Whether the API server does not know the kind: its definition is not installed. An object that is missing has a reason.
#[must_use]
pub fn is_missing_kind(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(answer) => answer.code == 404 && answer.reason != "NotFound",
        _ => false,
    }
}

/// The API server's refusal of a request, unless it is a conflict; `None` too if it did not answer.
#[must_use]
pub fn refusal(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(answer) if !is_conflict(error) => Some(answer),
        _ => None,
    }
}
