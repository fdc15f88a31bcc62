//! Turns failed requests into errors: a connection that broke, and a response whose status is not
//! 2xx.
//!
//! Absent: retries. The texts of servers are redacted and cut.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderName, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::client::Client;
use super::wire;
use crate::http::body::{is_html, read_bounded, root_cause};
use crate::http::redact::cut;
use crate::registries::error::RegistryError;

/// The most bytes that are read of a refusal.
const REFUSAL: usize = 16 << 10;
/// The most characters of the cause of a response that breaks off.
const LONGEST_CAUSE: usize = 45;
/// The pause after a 429 without `Retry-After`, and the longest pause that a server may ask for.
const DEFAULT_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

impl Client {
    /// The error of a request that got no response.
    pub(super) fn connection_error(
        &self,
        at: &str,
        limit: Duration,
        error: &reqwest::Error,
    ) -> RegistryError {
        let at = at.to_owned();
        if error.is_timeout() && !error.is_connect() {
            return RegistryError::TimedOut { at, limit };
        }
        let mut cause = self.redact(&root_cause(error));
        if cause.contains("CertificateRequired") {
            cause.push_str(" (set spec.tls.clientCertificateSecretRef)");
        } else if cause.contains("certificate") {
            cause.push_str(" (spec.tls names the authorities to trust)");
        }
        RegistryError::Unreachable {
            at,
            cause,
            connected: !error.is_connect(),
        }
    }

    /// The error of a response whose body could not be read to its end.
    pub(super) fn body_error(
        &self,
        at: &str,
        limit: Duration,
        error: &reqwest::Error,
    ) -> RegistryError {
        if error.is_timeout() {
            return RegistryError::TimedOut {
                at: at.to_owned(),
                limit,
            };
        }
        let cause = cut(&self.redact(&root_cause(error)), LONGEST_CAUSE);
        RegistryError::invalid(at, format!("a response that breaks off ({cause})"))
    }

    /// The error of a response whose status is not 2xx.
    pub(super) async fn refusal(&self, at: String, response: Response) -> RegistryError {
        let status = response.status();
        if status.is_redirection() {
            return RegistryError::Redirected {
                at,
                to: self.redact(&redirect_origin(&response)),
            };
        }
        if let Some(wait) =
            requested_pause(status, &header(&response, &RETRY_AFTER), Timestamp::now())
        {
            return RegistryError::Busy {
                at,
                status: status.as_u16(),
                wait,
            };
        }
        let html = is_html(&response);
        let body = match read_bounded(response, REFUSAL, self.tenant()).await {
            Ok(body) => body.bytes,
            Err(_) => Vec::new(),
        };
        self.parse_refusal(at, status, html, &String::from_utf8_lossy(&body))
    }

    pub(super) fn parse_refusal(
        &self,
        at: String,
        status: StatusCode,
        html: bool,
        body: &str,
    ) -> RegistryError {
        let html = html || body.trim_start().starts_with('<');
        let refusal: Option<wire::Refusal> = serde_json::from_str(body).ok();
        let (code, message) = match refusal {
            Some(refusal) => (refusal.error_code, refusal.message),
            None => (None, None),
        };
        let fallback = if html { "" } else { body };
        let text = self.redact(message.as_deref().unwrap_or(fallback));
        let code = code.filter(|code| is_error_code(code));
        let sent = self.credentials_kind();
        match status.as_u16() {
            401 => RegistryError::Unauthenticated { at, sent },
            403 if body.contains("Invalid Host header") => RegistryError::HostRefused {
                at,
                host: self.host(),
            },
            403 => RegistryError::Forbidden { at, sent, text },
            status @ (404 | 405) if code.is_none() => RegistryError::WrongServer {
                at,
                status,
                response: if html {
                    "an HTML page".to_owned()
                } else {
                    "an error that is not MLflow's".to_owned()
                },
            },
            status @ 500.. => RegistryError::ServerError {
                at,
                status,
                code,
                text,
            },
            status => RegistryError::Refused {
                at,
                status,
                code,
                text,
            },
        }
    }
}

/// The pause that a server asks for (RFC 9110, Retry-After: seconds or a date); `None` if it asks
/// for none.
fn requested_pause(status: StatusCode, retry_after: &str, now: Timestamp) -> Option<Duration> {
    let pause = parse_retry_after(retry_after, now);
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(pause.unwrap_or(DEFAULT_PAUSE).min(LONGEST_PAUSE)),
        StatusCode::SERVICE_UNAVAILABLE => pause.map(|pause| pause.min(LONGEST_PAUSE)),
        _ => None,
    }
}

fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    // The value is in lower case here; dates are parsed without regard to case.
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(value)
        .ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// Whether a text has the form of MLflow's error codes: capitals and underscores.
fn is_error_code(code: &str) -> bool {
    code.len() <= 64
        && !code.is_empty()
        && code
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

fn header(response: &Response, name: &HeaderName) -> String {
    match response.headers().get(name) {
        Some(value) => value.to_str().unwrap_or_default().to_ascii_lowercase(),
        None => String::new(),
    }
}

/// The origin that a redirect leads to. The rest of the address may hold a session's secrets.
fn redirect_origin(response: &Response) -> String {
    let location = match response.headers().get(LOCATION) {
        Some(value) => value.to_str().unwrap_or_default(),
        None => "",
    };
    match response.url().join(location) {
        Ok(target) if !location.is_empty() => target.origin().ascii_serialization(),
        _ => "nowhere".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
        let now: Timestamp = "2026-11-23T08:00:00Z".parse().expect("a time");
        let pause = |status: u16, header: &str| {
            requested_pause(StatusCode::from_u16(status).expect("a status"), header, now)
                .map(|wait| wait.as_secs())
        };
        assert_eq!(pause(429, "7"), Some(7));
        assert_eq!(pause(429, ""), Some(DEFAULT_PAUSE.as_secs()));
        assert_eq!(pause(429, "999999"), Some(3600));
        assert_eq!(pause(503, "mon, 23 nov 2026 08:01:00 gmt"), Some(60));
        assert_eq!(pause(503, "mon, 23 nov 2026 07:00:00 gmt"), Some(0));
        assert_eq!(
            (pause(503, ""), pause(503, "soon"), pause(500, "7")),
            (None, None, None)
        );
    }
}
