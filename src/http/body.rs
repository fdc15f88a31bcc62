//! Reads response bodies up to a limit, and names the cause of a failed request.
//!
//! Absent: trust in `Content-Length`.

use std::sync::Arc;

use reqwest::Response;
use reqwest::header::CONTENT_TYPE;

use super::budget::{ByteBudget, ByteShare, NoRoom};

/// The budget of all responses of registries and stores that are in memory, as text and as values.
/// The chart limits the process to 128 MiB.
static RESPONSES: ByteBudget = ByteBudget::new(44 << 20);
/// The first allocation for a body.
const FIRST_BYTES: usize = 16 << 10;

/// A body that was read, with its share of the budget.
pub(crate) struct BoundedBody {
    pub(crate) bytes: Vec<u8>,
    /// Whether that was all of it.
    pub(crate) is_whole: bool,
    pub(crate) share: ByteShare,
}

/// Why a body cannot be read.
#[derive(Debug)]
pub(crate) enum ResponseBodyError {
    /// The connection failed.
    Broken(reqwest::Error),
    /// Other responses use the memory that there is for them.
    NoRoom,
}

impl From<reqwest::Error> for ResponseBodyError {
    fn from(error: reqwest::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<NoRoom> for ResponseBodyError {
    fn from(NoRoom: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// The body up to `limit` bytes, in memory of this tenant.
pub(crate) async fn read_bounded(
    mut response: Response,
    limit: usize,
    tenant: &Arc<str>,
) -> Result<BoundedBody, ResponseBodyError> {
    let mut body = BoundedBody {
        bytes: Vec::new(),
        is_whole: true,
        share: RESPONSES.share(tenant),
    };
    while let Some(chunk) = response.chunk().await? {
        let left = limit - body.bytes.len();
        body.is_whole = chunk.len() <= left;
        body.append(&chunk[..chunk.len().min(left)], limit).await?;
        if !body.is_whole {
            break;
        }
    }
    Ok(body)
}

impl BoundedBody {
    /// Adds a part. What is allocated is in the share, and doubles.
    async fn append(&mut self, part: &[u8], limit: usize) -> Result<(), NoRoom> {
        let (needed, capacity) = (self.bytes.len() + part.len(), self.bytes.capacity());
        if needed > capacity {
            let doubled = (2 * capacity).max(FIRST_BYTES).min(limit).max(needed);
            self.share.grow(doubled - capacity).await?;
            self.bytes.reserve_exact(doubled - self.bytes.len());
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }
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
