//! Checks files on a web server: the file MLmodel below the URI and the file that it names, else the
//! URI itself. One byte is read of all but MLmodel.
//!
//! Absent: credentials. None are sent, so a redirect can carry none to another host.

use std::sync::Arc;

use reqwest::header::{LOCATION, RANGE};
use reqwest::{Response, StatusCode};
use url::Url;

use super::bucket::lacks;
use super::transport::{HttpClients, failure_cause, is_not_trusted, not_trusted};
use crate::api::Availability;
use crate::api::model_file::{LONGEST_MODEL_FILE, MODEL_FILE, is_file_name, named_data};
use crate::http::body::{ResponseBodyError, is_html, read_bounded};
use crate::http::redact::Redactor;
use crate::http::uri::{below, shown};

/// The most redirects that are followed.
const MOST_REDIRECTS: usize = 3;

/// The outcome of a request for one address.
enum WebOutcome {
    /// At least a byte was read.
    Read(Vec<u8>),
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
    let file = |path: &str| Url::parse(&below(without_fragment, path));
    let outcome = match file(MODEL_FILE) {
        Ok(model_file) => read(model_file, LONGEST_MODEL_FILE, clients).await,
        Err(_) => WebOutcome::Missing(StatusCode::NOT_FOUND),
    };
    let outcome = match outcome {
        WebOutcome::Missing(_) | WebOutcome::Page => read(url.clone(), 1, clients).await,
        WebOutcome::Read(model_file) => {
            // A folder has no address of its own.
            let data = named_data(&model_file).filter(|path| is_file_name(path));
            if let Some(path) = data
                && let Ok(url) = file(&path)
                && let WebOutcome::Missing(_) = read(url, 1, clients).await
            {
                return Availability::Missing(lacks(&shown_url, &path));
            }
            return Availability::Readable;
        }
        outcome @ WebOutcome::Inconclusive(_) => outcome,
    };
    match outcome {
        WebOutcome::Read(_) => Availability::Readable,
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

/// Requests the first bytes, following redirects.
async fn read(mut url: Url, length: usize, clients: &HttpClients) -> WebOutcome {
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
        let range = format!("bytes=0-{}", length.saturating_sub(1));
        let request = client.get(url.clone()).header(RANGE, range);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return no_response(&shown_url, &error),
        };
        if !response.status().is_redirection() {
            return read_response(&shown_url, response, length, &clients.tenant).await;
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

async fn read_response(
    shown_url: &str,
    response: Response,
    length: usize,
    tenant: &Arc<str>,
) -> WebOutcome {
    let status = response.status();
    match status.as_u16() {
        200 | 206 if is_html(&response) => WebOutcome::Page,
        200 | 206 => match read_bounded(response, length, tenant).await {
            Ok(body) if !body.bytes.is_empty() => WebOutcome::Read(body.bytes),
            Ok(_) => WebOutcome::Missing(status),
            Err(ResponseBodyError::Broken(error)) => no_response(shown_url, &error),
            Err(ResponseBodyError::NoRoom) => {
                WebOutcome::Inconclusive(Availability::Unknown(format!(
                    "the response of {shown_url} had no room beside others; it is requested again"
                )))
            }
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
