//! A request to MLflow's API and the response to it.
//!
//! Absent: sending. `client` does that.

use std::time::Duration;

use reqwest::Method;
use serde::de::DeserializeOwned;

use super::wire::DECODED_ENTRY;
use crate::http::budget::ByteShare;
use crate::registries::error::RegistryError;

/// The most bytes that are read of an ordinary response.
pub(super) const SMALL_RESPONSE: usize = 1 << 20;
/// The most bytes that are read of a page of a search, and of a run.
pub(super) const PAGE_RESPONSE: usize = 4 << 20;
/// The most objects and lists in a response. A few bytes of JSON become hundreds in memory.
pub(super) const MOST_ENTRIES: usize = 40_000;

/// A request to the server.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: Option<serde_json::Value>,
    /// The most bytes that are read of the response.
    pub(super) limit: usize,
    /// Whether a response that is longer than the limit is cut instead of refused.
    pub(super) is_cut: bool,
    /// Whether it is sent again after a failure that may pass.
    pub(super) is_retried: bool,
    pub(super) timeout: Option<Duration>,
}

impl<'a> Request<'a> {
    /// A request that changes nothing. The path is relative to the base address; each part is a
    /// segment, or several joined by `/`.
    pub(super) fn get(path: &'a [&'a str], query: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            method: Method::GET,
            path,
            query,
            body: None,
            limit: SMALL_RESPONSE,
            is_cut: false,
            is_retried: true,
            timeout: None,
        }
    }

    /// A request that changes something. It is never retried.
    pub(super) fn change(method: Method, path: &'a [&'a str], body: serde_json::Value) -> Self {
        Self {
            method,
            body: Some(body),
            is_retried: false,
            ..Self::get(path, &[])
        }
    }

    /// The same with another limit on the response.
    pub(super) fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// The same, but only the first bytes are requested (`Range`), and the response is cut if the
    /// server ignores that.
    pub(super) fn first_bytes(self, limit: usize) -> Self {
        Self {
            limit,
            is_cut: true,
            ..self
        }
    }

    /// The same with a shorter timeout.
    pub(super) fn timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// The same without a retry, for details that are optional.
    pub(super) fn without_retry(self) -> Self {
        Self {
            is_retried: false,
            ..self
        }
    }
}

/// A successful response, read to its end.
pub(super) struct ApiResponse {
    pub(super) at: String,
    pub(super) body: Vec<u8>,
    pub(super) is_html: bool,
    /// The share of the budget that the body takes, and its values while they are read.
    pub(super) share: ByteShare,
}

impl ApiResponse {
    /// The response as JSON of the expected shape.
    pub(super) async fn json<T: DeserializeOwned>(mut self) -> Result<T, RegistryError> {
        let first = self
            .body
            .iter()
            .copied()
            .find(|byte| !byte.is_ascii_whitespace());
        if self.is_html || first == Some(b'<') {
            return Err(self.wrong_server("an HTML page"));
        }
        if first != Some(b'{') {
            return Err(self.wrong_server("something that is not JSON"));
        }
        let entries = count_entries(&self.body);
        if entries > MOST_ENTRIES {
            return Err(RegistryError::TooLarge {
                at: self.at,
                limit: MOST_ENTRIES,
                unit: "objects and lists",
            });
        }
        let decoded = self.body.len() + entries * DECODED_ENTRY;
        if self.share.grow(decoded).await.is_err() {
            return Err(RegistryError::NoRoom { at: self.at });
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| RegistryError::invalid(&self.at, json_fault(&error)))
    }

    /// The error of a response that is not one of MLflow's.
    pub(super) fn wrong_server(&self, response: &str) -> RegistryError {
        RegistryError::WrongServer {
            at: self.at.clone(),
            status: 200,
            response: response.to_owned(),
        }
    }
}

/// The number of objects and lists in JSON. Nothing is kept of it.
pub(super) fn count_entries(json: &[u8]) -> usize {
    let (mut entries, mut is_text, mut is_escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => entries += 1,
            _ => {}
        }
    }
    entries
}

/// The fault of JSON that cannot be parsed, without quoting from it.
fn json_fault(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Eof => "JSON that ends too early",
        serde_json::error::Category::Data => "JSON of an unexpected shape",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "broken JSON",
    };
    format!("{kind} (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_lists_are_counted_outside_of_texts() {
        for (json, entries) in [
            (r#"{"a":[{},{"b":[]}]}"#, 5),
            (r#"{"a":"{[{[","\"{":"\\"}"#, 1),
            (r#""\\\"{""#, 0),
            ("[[],[],[]]", 4),
            ("", 0),
        ] {
            assert_eq!(count_entries(json.as_bytes()), entries, "{json}");
        }
    }
}
