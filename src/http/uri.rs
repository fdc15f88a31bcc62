//! URIs: joined, and cut to what people may see.
//!
//! Absent: requests.

use url::Url;

use super::redact::cut;
use crate::api::public_uri::{public, without_secrets};

/// The longest URI or path that is shown, in characters.
const SHOWN: usize = 200;

/// A URI with a path below it. A query stays at the end.
pub(crate) fn below(root: &str, path: &str) -> String {
    let (base, query) = match root.split_once('?') {
        Some((base, query)) => (base, Some(query)),
        None => (root, None),
    };
    let base = base.trim_end_matches('/');
    let mut joined = base.to_owned();
    if !path.is_empty() {
        joined = format!("{base}/{path}");
    }
    match query {
        Some(query) => format!("{joined}?{query}"),
        None => joined,
    }
}

/// A URI as people may see it: without user, password and query, on one line, cut short.
pub(crate) fn shown(uri: &str) -> String {
    brief(&without_secrets(public(uri)))
}

/// One short line.
pub(crate) fn brief(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    cut(&line, SHOWN)
}

/// Origin and path of a URL, without a slash at the end.
pub(crate) fn origin_and_path(url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    format!("{origin}{}", url.path().trim_end_matches('/'))
}

/// Host and port as they stand in the `Host` header.
pub(crate) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_before_the_query() {
        assert_eq!(
            below("s3://b/1/artifacts/", "model"),
            "s3://b/1/artifacts/model"
        );
        assert_eq!(
            below("mlflow-artifacts:/1/r/artifacts", ""),
            "mlflow-artifacts:/1/r/artifacts"
        );
        assert_eq!(below("x://h/a?k=v", "m"), "x://h/a/m?k=v");
    }

    #[test]
    fn passwords_and_queries_are_never_shown() {
        assert_eq!(
            shown("https://token@host/x?X-Amz-Signature=abc#y"),
            "https://host/x"
        );
        assert_eq!(shown("abfss://c:pw@host/x"), "abfss://host/x");
        assert_eq!(
            shown(&format!("s3://b/{}", "x".repeat(900)))
                .chars()
                .count(),
            201
        );
    }
}
