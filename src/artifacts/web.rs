//! Checks files on a web server: the file MLmodel below the URI, else the URI itself. One byte is
//! read.
//!
//! Absent: credentials. None are sent, so a redirect can carry none to another host.

use reqwest::header::{LOCATION, RANGE};
use reqwest::{Response, StatusCode};
use url::Url;

use super::location::MODEL_FILE;
use super::transport::{HttpClients, failure_cause, is_not_trusted, not_trusted};
use crate::api::Availability;
use crate::http::body::is_html;
use crate::http::redact::Redactor;
use crate::http::uri::{below, shown};

/// The most redirects that are followed.
const MOST_REDIRECTS: usize = 3;

/// The outcome of a request for one address.
enum WebOutcome {
    /// A byte was read.
    Byte,
    /// The file does not exist, or is empty.
    Missing(StatusCode),
    /// An HTML page.
    Page,
    /// The response says nothing about the file.
    Inconclusive(Availability),
}

/// Whether the files at a URI can be read now.
pub(super) async fn check(url: &Url, clients: &HttpClients) -> Availability {
    let shown_url = shown(url.as_str());
    let without_fragment = url.as_str().split('#').next().unwrap_or_default();
    let outcome = match Url::parse(&below(without_fragment, MODEL_FILE)) {
        Ok(model_file) => read_byte(model_file, clients).await,
        Err(_) => WebOutcome::Missing(StatusCode::NOT_FOUND),
    };
    let outcome = match outcome {
        WebOutcome::Missing(_) | WebOutcome::Page => read_byte(url.clone(), clients).await,
        outcome => outcome,
    };
    match outcome {
        WebOutcome::Byte => Availability::Readable,
        WebOutcome::Missing(status) => Availability::Missing(format!(
            "{shown_url} returned {}, and so did {MODEL_FILE} below it; restore the files, or register the version again",
            status.as_u16()
        )),
        WebOutcome::Page => Availability::Unchecked(format!(
            "{shown_url} returned an HTML page and has no {MODEL_FILE} below it; register the version from the address of its files, which must be readable by everybody"
        )),
        WebOutcome::Inconclusive(availability) => availability,
    }
}

/// Requests one byte, following redirects.
async fn read_byte(mut url: Url, clients: &HttpClients) -> WebOutcome {
    for _ in 0..=MOST_REDIRECTS {
        let shown_url = shown(url.as_str());
        let client = match clients.for_url(&url) {
            Ok(client) => client,
            Err(cause) => {
                return WebOutcome::Inconclusive(Availability::Unchecked(format!(
                    "no request was sent to {shown_url}: {cause}; register the version from a store that pods can read"
                )));
            }
        };
        let request = client.get(url.clone()).header(RANGE, "bytes=0-0");
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return no_response(&shown_url, &error),
        };
        if !response.status().is_redirection() {
            return read_response(&shown_url, response).await;
        }
        match redirect_target(&url, &response) {
            Ok(next) => url = next,
            Err(availability) => return WebOutcome::Inconclusive(availability),
        }
    }
    WebOutcome::Inconclusive(Availability::Unchecked(format!(
        "{} is reached by more than {MOST_REDIRECTS} redirects; register the version from the final address",
        shown(url.as_str())
    )))
}

/// The address that a redirect leads to. Only addresses of the same scheme without a password are
/// followed.
fn redirect_target(url: &Url, response: &Response) -> Result<Url, Availability> {
    let location = match response.headers().get(LOCATION) {
        Some(value) => value.to_str().unwrap_or_default(),
        None => "",
    };
    let refuse = |to: &str| {
        Err(Availability::Unchecked(format!(
            "{} redirects to {to}, which Pointsman does not follow; register the version from the final address",
            shown(url.as_str())
        )))
    };
    match url.join(location) {
        Ok(next) if location.is_empty() || shown(next.as_str()).is_empty() => refuse("nowhere"),
        Ok(next) if next.scheme() != url.scheme() => refuse(&shown(next.as_str())),
        Ok(next) if !next.username().is_empty() || next.password().is_some() => {
            refuse("an address with a password")
        }
        Ok(next) => Ok(next),
        Err(_) => refuse("nowhere"),
    }
}

async fn read_response(shown_url: &str, mut response: Response) -> WebOutcome {
    let status = response.status();
    match status.as_u16() {
        200 | 206 if is_html(&response) => WebOutcome::Page,
        200 | 206 => match response.chunk().await {
            Ok(Some(chunk)) if !chunk.is_empty() => WebOutcome::Byte,
            Ok(_) => WebOutcome::Missing(status),
            Err(error) => no_response(shown_url, &error),
        },
        404 | 410 | 416 => WebOutcome::Missing(status),
        401 | 403 | 407 => WebOutcome::Inconclusive(Availability::Unchecked(format!(
            "{shown_url} returned {}, and Pointsman has no credentials for web servers; register the version from a store whose credentials a Secret can hold",
            status.as_u16()
        ))),
        408 | 425 | 429 | 500.. => WebOutcome::Inconclusive(Availability::Unknown(format!(
            "{shown_url} returned {}; check that server's log",
            status.as_u16()
        ))),
        _ => WebOutcome::Inconclusive(Availability::Unchecked(format!(
            "{shown_url} returned {}, which says nothing about the files; register the version from the address of its files",
            status.as_u16()
        ))),
    }
}

fn no_response(shown_url: &str, error: &reqwest::Error) -> WebOutcome {
    let cause = Redactor::default().clean(&failure_cause(error));
    if is_not_trusted(error) {
        return WebOutcome::Inconclusive(not_trusted(shown_url, &cause));
    }
    WebOutcome::Inconclusive(Availability::Unknown(format!(
        "no response from {shown_url}: {cause}; check that the server runs and can be reached"
    )))
}
