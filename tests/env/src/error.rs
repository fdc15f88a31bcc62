//! The error type of this crate: the attempted action, the cause, and a remedy.
//! Absent: error codes; people read these errors, code does not.

use std::fmt::Display;

/// An error with the attempted action, the cause, and a remedy.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}: {cause}{}", .remedy.as_ref().map(|remedy| format!("\n  remedy: {remedy}")).unwrap_or_default())]
pub struct Error {
    what: String,
    cause: String,
    remedy: Option<String>,
}

/// The result of nearly everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of an action with its cause.
    pub fn new(what: impl Display, cause: impl Display) -> Self {
        Self {
            what: what.to_string(),
            cause: cause.to_string(),
            remedy: None,
        }
    }

    /// Adds a remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }
}

/// Turns any error into an [`Error`] by naming the action.
pub trait Context<T> {
    /// Names the action that failed.
    fn context(self, what: impl Display) -> Result<T>;
}

impl<T, E: std::error::Error> Context<T> for Result<T, E> {
    fn context(self, what: impl Display) -> Result<T> {
        self.map_err(|error| Error::new(what, chain(&error)))
    }
}

/// Joins an error with its sources: `kube`'s and `reqwest`'s own texts leave the real cause to the source.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
