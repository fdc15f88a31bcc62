//! What can go wrong between the registry and its reader, each with its cause and its remedy as a sentence.
//!
//! Absent: credentials, whole answers and queries. A server's words come in redacted and cut.

use std::time::Duration;

use crate::api::Reason;

/// Why the registry's word could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// Nothing answered, or the connection broke before an answer.
    #[error(
        "no answer from {at}: {cause}; check that the MLflow server runs and that spec.mlflow.uri names it"
    )]
    Unreachable {
        /// Origin and path of the URL that was asked.
        at: String,
        /// What the connection ended with.
        cause: String,
        /// Whether a connection stood, and the server closed it.
        connected: bool,
    },
    /// The answer was not complete in time.
    #[error("{at} did not answer within {}; check that the MLflow server and its database are well", seconds(.limit))]
    TimedOut {
        /// Origin and path of the URL that was asked.
        at: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The server, or a proxy before it, says that it is ill (5xx).
    #[error("{at} answered {status}{}; look into the MLflow server's log", quoted(.words))]
    Unwell {
        /// Origin and path of the URL that was asked.
        at: String,
        /// The HTTP status.
        status: u16,
        /// MLflow's error code, where there was one.
        code: Option<String>,
        /// The server's words, redacted and cut.
        words: String,
    },
    /// The server has too much to do, and says so (429, or 503 with a time to wait).
    #[error("{at} asks for patience ({status}): it is asked again after {} s; look into the load of the MLflow server", .wait.as_secs())]
    Busy {
        /// Origin and path of the URL that was asked.
        at: String,
        /// The HTTP status.
        status: u16,
        /// How long it is not asked again.
        wait: Duration,
    },
    /// The server does not accept who asks (401).
    #[error(
        "{at} refused to let us in (401) with {sent}; look at spec.auth and the Secret that it names"
    )]
    Unauthenticated {
        /// Origin and path of the URL that was asked.
        at: String,
        /// Which kind of credentials was sent.
        sent: &'static str,
    },
    /// The server does not allow what is asked (403).
    #[error("{at} answered 403 to a request with {sent}{}; give that user leave in MLflow, or look at spec.auth (MLflow answers so for a model that does not exist, too)", quoted(.words))]
    Forbidden {
        /// Origin and path of the URL that was asked.
        at: String,
        /// Which kind of credentials was sent.
        sent: &'static str,
        /// The server's words, redacted and cut.
        words: String,
    },
    /// MLflow's guard against DNS rebinding does not know the host name that was used (403).
    #[error(
        "{at} refused the host name {host} (403, invalid Host header): start the MLflow server with `--allowed-hosts {host}`, for the host in spec.mlflow.uri (see docs)"
    )]
    HostRefused {
        /// Origin and path of the URL that was asked.
        at: String,
        /// The host, with the port where one was written.
        host: String,
    },
    /// The server understood and said no (4xx).
    #[error("{at} refused with {status}{}{}", code_word(.code.as_deref()), quoted(.words))]
    Refused {
        /// Origin and path of the URL that was asked.
        at: String,
        /// The HTTP status.
        status: u16,
        /// MLflow's error code, where there was one.
        code: Option<String>,
        /// The server's words, redacted and cut.
        words: String,
    },
    /// Something answered that speaks another language.
    #[error("{at} answered {status} with {what}: is this an MLflow server? Check spec.mlflow.uri")]
    NotMlflow {
        /// Origin and path of the URL that was asked.
        at: String,
        /// The HTTP status.
        status: u16,
        /// What came instead.
        what: String,
    },
    /// The answer cannot be trusted.
    #[error(
        "{at} answered what cannot be used: {what}; check that spec.mlflow.uri names an MLflow server and that no proxy alters its answers"
    )]
    AnswerInvalid {
        /// Origin and path of the URL that was asked.
        at: String,
        /// What is wrong with it.
        what: String,
    },
    /// The answer has no end, or a far one.
    #[error(
        "{at} answered with more than {limit} bytes, and was cut off; check that spec.mlflow.uri names an MLflow server"
    )]
    TooLarge {
        /// Origin and path of the URL that was asked.
        at: String,
        /// How much is read at most.
        limit: usize,
    },
    /// The server sends us elsewhere; credentials do not follow.
    #[error(
        "{at} redirects to {to}, and redirects are not followed; write the final address into spec.mlflow.uri"
    )]
    Redirected {
        /// Origin and path of the URL that was asked.
        at: String,
        /// The origin that it names.
        to: String,
    },
    /// The connection cannot be made as written.
    #[error("{message}")]
    Configuration {
        /// What to write instead.
        message: String,
    },
}

impl RegistryError {
    /// The word for conditions, Events and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Unwell { .. }
            | Self::Busy { .. } => Reason::RegistryUnreachable,
            Self::Unauthenticated { .. }
            | Self::Forbidden { .. }
            | Self::HostRefused { .. }
            | Self::Refused { .. } => Reason::RegistryRefused,
            Self::NotMlflow { .. }
            | Self::AnswerInvalid { .. }
            | Self::TooLarge { .. }
            | Self::Redirected { .. } => Reason::RegistryAnswerInvalid,
            Self::Configuration { .. } => Reason::InvalidSpec,
        }
    }

    /// What went wrong as one word, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Unreachable",
            Self::TimedOut { .. } => "TimedOut",
            Self::Unwell { .. } => "Unwell",
            Self::Busy { .. } => "Busy",
            Self::Unauthenticated { .. } => "Unauthenticated",
            Self::Forbidden { .. } => "Forbidden",
            Self::HostRefused { .. } => "HostRefused",
            Self::Refused { .. } if self.is_not_found() => "NotFound",
            Self::Refused { .. } => "Refused",
            Self::NotMlflow { .. } => "NotMlflow",
            Self::AnswerInvalid { .. } => "AnswerInvalid",
            Self::TooLarge { .. } => "TooLarge",
            Self::Redirected { .. } => "Redirected",
            Self::Configuration { .. } => "Configuration",
        }
    }

    /// Whether MLflow itself says that what was asked for does not exist. An unknown route says no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some("RESOURCE_DOES_NOT_EXIST")
    }

    /// MLflow's error code, where the server refused with one.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// The same, free of a secret that the server may have repeated.
    pub(super) fn without(mut self, secret: &str) -> Self {
        if let Self::Unwell { words, .. }
        | Self::Forbidden { words, .. }
        | Self::Refused { words, .. } = &mut self
            && !secret.is_empty()
        {
            // What was cut may end in the secret's beginning.
            *words = if words.contains('…') {
                String::new()
            } else {
                words.replace(secret, "[redacted]")
            };
        }
        self
    }

    /// A usable URI that says what the connection cannot be made with.
    pub(super) fn configuration(message: impl Into<String>) -> Self {
        Self::Configuration {
            message: message.into(),
        }
    }

    /// An answer that cannot be trusted.
    pub(super) fn invalid(at: &str, what: impl Into<String>) -> Self {
        Self::AnswerInvalid {
            at: at.to_owned(),
            what: what.into(),
        }
    }
}

fn seconds(limit: &Duration) -> String {
    format!("{} s", limit.as_secs_f32())
}

fn quoted(words: &str) -> String {
    if words.is_empty() {
        String::new()
    } else {
        format!(": “{words}”")
    }
}

fn code_word(code: Option<&str>) -> String {
    code.map(|code| format!(" {code}")).unwrap_or_default()
}

impl From<RegistryError> for crate::api::reason::Problem {
    fn from(error: RegistryError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}
