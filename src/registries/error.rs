//! The errors of a registry's client. Each message names the address, the cause and one remedy.
//!
//! Absent: credentials, whole responses and queries. A server's text comes in redacted and cut.

use std::time::Duration;

use super::operation::Operation;
use crate::api::Reason;
use crate::api::conditions::with_remedy;
use crate::api::reason::Problem;

/// Why a request to a registry failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke before a response.
    #[error(
        "no response from {at}: {cause}; check that the MLflow server runs and that spec.mlflow.uri names it"
    )]
    Unreachable {
        /// Origin and path of the URL.
        at: String,
        /// The cause of the failed connection.
        cause: String,
        /// Whether the connection was established, and the server closed it.
        connected: bool,
    },
    /// The response was not complete in time.
    #[error("{at} did not respond within {} s; check the MLflow server and its database", .limit.as_secs_f32())]
    TimedOut {
        /// Origin and path of the URL.
        at: String,
        /// The timeout.
        limit: Duration,
    },
    /// The server, or a proxy before it, failed (5xx).
    #[error("{at} returned {status}{}; check the MLflow server's log", quoted(.text))]
    ServerError {
        /// Origin and path of the URL.
        at: String,
        /// The HTTP status.
        status: u16,
        /// MLflow's error code, if there is one.
        code: Option<String>,
        /// The server's text, redacted and cut.
        text: String,
    },
    /// The server limits the rate of requests (429, or 503 with `Retry-After`).
    #[error("{at} limits requests ({status}), so the next one is sent after {} s; check the load of the MLflow server", .wait.as_secs())]
    Busy {
        /// Origin and path of the URL.
        at: String,
        /// The HTTP status.
        status: u16,
        /// How long no request is sent.
        wait: Duration,
    },
    /// The server does not accept the credentials (401).
    #[error("{at} returned 401 to {sent}; check spec.auth and the Secret that it names")]
    Unauthenticated {
        /// Origin and path of the URL.
        at: String,
        /// The kind of credentials that were sent.
        sent: &'static str,
    },
    /// The server does not allow the request (403).
    #[error("{at} returned 403 to {sent}{}; grant that user permission in MLflow (for a model that does not exist it returns 403 too)", quoted(.text))]
    Forbidden {
        /// Origin and path of the URL.
        at: String,
        /// The kind of credentials that were sent.
        sent: &'static str,
        /// The server's text, redacted and cut.
        text: String,
    },
    /// MLflow's protection against DNS rebinding does not know the host name that was used (403).
    #[error(
        "MLflow does not accept the host name {host}: start it with `--allowed-hosts '{host},localhost,localhost:*,127.0.0.1:*,10.*,172.*,192.168.*'`, which replaces its defaults"
    )]
    HostRefused {
        /// Origin and path of the URL.
        at: String,
        /// The host, with the port if one is written.
        host: String,
    },
    /// The server refused the request for another reason (4xx).
    #[error("{at} refused with {status}{}{}", code_suffix(.code.as_deref()), quoted(.text))]
    Refused {
        /// Origin and path of the URL.
        at: String,
        /// The HTTP status.
        status: u16,
        /// MLflow's error code, if there is one.
        code: Option<String>,
        /// The server's text, redacted and cut.
        text: String,
    },
    /// The response is not one of this kind of registry.
    #[error(
        "{at} returned {status} with {response}: is this an MLflow server? Check spec.mlflow.uri"
    )]
    WrongServer {
        /// Origin and path of the URL.
        at: String,
        /// The HTTP status.
        status: u16,
        /// The kind of response that came instead.
        response: String,
    },
    /// The response cannot be trusted.
    #[error("{at} returned {fault}; check spec.mlflow.uri and the proxies before it")]
    InvalidResponse {
        /// Origin and path of the URL.
        at: String,
        /// The fault of the response.
        fault: String,
    },
    /// The response is longer than the limit, or has more entries.
    #[error(
        "{at} returned more than {limit} {unit}; check spec.mlflow.uri, or remove some of it in MLflow"
    )]
    TooLarge {
        /// Origin and path of the URL.
        at: String,
        /// The most that is read.
        limit: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// The responses of other servers use the memory that there is for responses.
    #[error(
        "the response of {at} had no room beside those of other servers; it is requested again at the next poll"
    )]
    NoRoom {
        /// Origin and path of the URL.
        at: String,
    },
    /// The request changes something, and this replica does not lead.
    #[error("another replica leads: the request was not sent")]
    NotLeading,
    /// The server redirects. Credentials are not sent to another address.
    #[error(
        "{at} redirects to {to}, and redirects are not followed; write the final address into spec.mlflow.uri"
    )]
    Redirected {
        /// Origin and path of the URL.
        at: String,
        /// The origin of the new address.
        to: String,
    },
    /// The connection cannot be made as written.
    #[error("{message}")]
    Configuration {
        /// The fault and the remedy.
        message: String,
    },
    /// This kind of registry has no such operation.
    #[error("this kind of registry cannot {}: {}", .operation.remedy().0, .operation.remedy().1)]
    Unsupported {
        /// The operation.
        operation: Operation,
    },
}

impl RegistryError {
    /// The reason for conditions and Events.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::ServerError { .. }
            | Self::Busy { .. }
            | Self::NoRoom { .. }
            | Self::NotLeading => Reason::RegistryUnreachable,
            Self::Unauthenticated { .. }
            | Self::Forbidden { .. }
            | Self::HostRefused { .. }
            | Self::Refused { .. } => Reason::RegistryRefused,
            Self::WrongServer { .. }
            | Self::InvalidResponse { .. }
            | Self::TooLarge { .. }
            | Self::Redirected { .. } => Reason::RegistryAnswerInvalid,
            Self::Configuration { .. } | Self::Unsupported { .. } => Reason::InvalidSpec,
        }
    }

    /// The kind of error as one word, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Unreachable",
            Self::TimedOut { .. } => "TimedOut",
            Self::ServerError { .. } => "ServerError",
            Self::Busy { .. } => "Busy",
            Self::Unauthenticated { .. } => "Unauthenticated",
            Self::Forbidden { .. } => "Forbidden",
            Self::HostRefused { .. } => "HostRefused",
            Self::Refused { .. } if self.is_not_found() => "NotFound",
            Self::Refused { .. } => "Refused",
            Self::WrongServer { .. } => "WrongServer",
            Self::InvalidResponse { .. } => "InvalidResponse",
            Self::TooLarge { .. } => "TooLarge",
            Self::NoRoom { .. } => "NoRoom",
            Self::NotLeading => "NotLeading",
            Self::Redirected { .. } => "Redirected",
            Self::Configuration { .. } => "Configuration",
            Self::Unsupported { .. } => "Unsupported",
        }
    }

    /// Whether MLflow itself says that the object does not exist. A 404 without its error code, as
    /// for an unknown route, is no proof.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some("RESOURCE_DOES_NOT_EXIST")
    }

    /// MLflow's error code, if the server refused with one.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// The problem of a change that the registry refused, such as that of a tag. A missing permission is named.
    #[must_use]
    pub fn of_change(&self, what: &str) -> Problem {
        if let Self::Forbidden { sent, text, .. } = self {
            let cause = format!("MLflow does not let {sent} set {what}{}", quoted(text));
            let remedy = "grant that user the permission EDIT on the model in MLflow";
            return Problem::new(self.reason(), with_remedy(&cause, remedy));
        }
        let text = self.to_string();
        let (cause, remedy) = match text.rsplit_once("; ") {
            Some((cause, remedy)) => (cause, remedy),
            None => (text.as_str(), "correct it in the spec"),
        };
        let cause = format!("{what} cannot be set: {cause}");
        Problem::new(self.reason(), with_remedy(&cause, remedy))
    }

    /// The same without a secret that the server may have repeated.
    pub(super) fn without(mut self, secret: &str) -> Self {
        if let Self::ServerError { text, .. }
        | Self::Forbidden { text, .. }
        | Self::Refused { text, .. } = &mut self
            && !secret.is_empty()
        {
            // A text that was cut may end in the first characters of the secret.
            *text = if text.contains('…') {
                String::new()
            } else {
                text.replace(secret, "[redacted]")
            };
        }
        self
    }

    /// A connection that cannot be made as written.
    pub(super) fn configuration(message: impl Into<String>) -> Self {
        Self::Configuration {
            message: message.into(),
        }
    }

    /// A response that cannot be trusted.
    pub(super) fn invalid(at: &str, fault: impl Into<String>) -> Self {
        Self::InvalidResponse {
            at: at.to_owned(),
            fault: fault.into(),
        }
    }
}

fn quoted(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": “{text}”")
    }
}

fn code_suffix(code: Option<&str>) -> String {
    match code {
        Some(code) => format!(" {code}"),
        None => String::new(),
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        let message = match text.rsplit_once("; ") {
            Some((cause, remedy)) => with_remedy(cause, remedy),
            None => text,
        };
        Self::new(error.reason(), message)
    }
}
