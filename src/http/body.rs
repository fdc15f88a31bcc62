//! Reads response bodies up to a limit, and names the cause of a failed request.
//!
//! Absent: trust in `Content-Length`.

use reqwest::Response;
use reqwest::header::CONTENT_TYPE;

/// The body up to `limit` bytes, and whether that was all of it.
pub(crate) async fn read_bounded(
    mut response: Response,
    limit: usize,
) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let left = limit - body.len();
        if chunk.len() > left {
            body.extend_from_slice(&chunk[..left]);
            return Ok((body, false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, true))
}

/// Whether the response is an HTML page instead of data.
pub(crate) fn is_html(response: &Response) -> bool {
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.to_ascii_lowercase().contains("html"))
}

/// The innermost cause of an error. It names the fault, and unlike the outer ones no URL.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
