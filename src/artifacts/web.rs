//! Looks at a web server: the model's file below the URI, else the URI itself, a byte of it.
//!
//! Absent: credentials. None are sent, so none can reach another host by a redirect.

use reqwest::header::{LOCATION, RANGE};
use reqwest::{Response, StatusCode};
use url::Url;

use super::transport::{Clients, cause_of, is_html};
use super::{MODEL_FILE, Verdict, place};
use crate::registries::mlflow::redact::Redactor;
use crate::registries::mlflow::source::below;

/// How many redirects are followed.
const MOST_REDIRECTS: usize = 3;

/// What one address gave.
enum Found {
    /// A byte.
    Byte,
    /// Nothing: it is not there, or it is empty.
    Missing(StatusCode),
    /// A page for people.
    Page,
    /// No answer that says anything of the file.
    Other(Verdict),
}

/// Whether the files at a URI can be read now.
pub(super) async fn look(url: &Url, clients: &Clients) -> Verdict {
    let shown = place::shown(url.as_str());
    let model = Url::parse(&below(
        url.as_str().split('#').next().unwrap_or_default(),
        MODEL_FILE,
    ));
    let first = match model {
        Ok(model) => ask(model, clients).await,
        Err(_) => Found::Missing(StatusCode::NOT_FOUND),
    };
    let found = match first {
        Found::Missing(_) | Found::Page => ask(url.clone(), clients).await,
        found => found,
    };
    match found {
        Found::Byte => Verdict::Readable,
        Found::Missing(status) => Verdict::Unreadable(format!(
            "{shown} answered {}, and so did {MODEL_FILE} below it; restore the files, or register the version again",
            status.as_u16()
        )),
        Found::Page => Verdict::Unchecked(format!(
            "{shown} answered with an HTML page and has no {MODEL_FILE} below it; register the version from the address of its files, which must be open to all"
        )),
        Found::Other(verdict) => verdict,
    }
}

/// Asks one address, and where it sends us.
async fn ask(mut url: Url, clients: &Clients) -> Found {
    for _ in 0..=MOST_REDIRECTS {
        let shown = place::shown(url.as_str());
        let client = match clients.for_url(&url) {
            Ok(client) => client,
            Err(why) => {
                return Found::Other(Verdict::Unchecked(format!(
                    "{shown} cannot be asked: {why}; register the version from a store that pods can read"
                )));
            }
        };
        let answer = client
            .get(url.clone())
            .header(RANGE, "bytes=0-0")
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return unheard(&shown, &error),
        };
        if !answer.status().is_redirection() {
            return read(&shown, answer).await;
        }
        match target(&url, &answer) {
            Ok(next) => url = next,
            Err(verdict) => return Found::Other(verdict),
        }
    }
    Found::Other(Verdict::Unchecked(format!(
        "{} is reached by more than {MOST_REDIRECTS} redirects; register the version from the final address",
        place::shown(url.as_str())
    )))
}

/// Where a redirect leads, if we go there.
fn target(url: &Url, answer: &Response) -> Result<Url, Verdict> {
    let location = answer
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let shown = place::shown(url.as_str());
    let refuse = |to: &str| {
        Verdict::Unchecked(format!(
            "{shown} redirects to {to}, where Pointsman does not follow; register the version from the final address"
        ))
    };
    match url.join(location) {
        Ok(next) if location.is_empty() || place::shown(next.as_str()).is_empty() => {
            Err(refuse("nowhere"))
        }
        Ok(next) if next.scheme() != url.scheme() => Err(refuse(&place::shown(next.as_str()))),
        Ok(next) if !next.username().is_empty() || next.password().is_some() => {
            Err(refuse("an address with a password"))
        }
        Ok(next) => Ok(next),
        Err(_) => Err(refuse("nowhere")),
    }
}

async fn read(shown: &str, mut answer: Response) -> Found {
    let status = answer.status();
    match status.as_u16() {
        200 | 206 if is_html(&answer) => Found::Page,
        200 | 206 => match answer.chunk().await {
            Ok(Some(chunk)) if !chunk.is_empty() => Found::Byte,
            Ok(_) => Found::Missing(status),
            Err(error) => unheard(shown, &error),
        },
        404 | 410 | 416 => Found::Missing(status),
        401 | 403 | 407 => Found::Other(Verdict::Unchecked(format!(
            "{shown} answered {}: it asks who we are, and Pointsman has no credentials for web servers; register the version from a store whose credentials a Secret can hold",
            status.as_u16()
        ))),
        408 | 425 | 429 | 500.. => Found::Other(Verdict::Unknown(format!(
            "{shown} answered {}; look into that server's log",
            status.as_u16()
        ))),
        _ => Found::Other(Verdict::Unchecked(format!(
            "{shown} answered {}, which says nothing of the files; register the version from the address of its files",
            status.as_u16()
        ))),
    }
}

fn unheard(shown: &str, error: &reqwest::Error) -> Found {
    let cause = Redactor::default().clean(&cause_of(error));
    Found::Other(Verdict::Unknown(format!(
        "no answer from {shown}: {cause}; check that the server runs and can be reached"
    )))
}
