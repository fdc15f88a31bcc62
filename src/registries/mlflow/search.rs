//! How a server can be searched: the limits that were found out, and a walk through pages that
//! ends.
//!
//! Absent: requests.

use std::collections::BTreeSet;
use std::time::Duration;

use super::wire;
use crate::registries::error::RegistryError;

/// The most names that one request asks for. MLflow returns at most as many models.
pub(super) const BATCH: usize = wire::PAGE;
/// The longest request lines that MLflow 3 accepts (uvicorn: more than 90,000 bytes were accepted),
/// and that every server accepts (gunicorn: 4094).
const LONG_LINE: usize = 60_000;
pub(super) const SHORT_LINE: usize = 4_000;
/// The most pages of one search.
pub(super) const MOST_PAGES: usize = 10_000;
/// The longest page token that is sent back.
pub(super) const LONGEST_TOKEN: usize = 2048;

/// The way of searching that a server accepts. It starts with the fastest, and falls back when the
/// server refuses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SearchStrategy {
    /// How long a request line may be.
    pub(super) line: usize,
    /// Whether the server refuses `IN`.
    pub(super) refuses_in: bool,
    /// How many models a page holds at most, because of its bytes.
    pub(super) page_size: usize,
    /// How many models a page holds at most, because the server needs long for more.
    pub(super) in_time: usize,
    /// How many pages the whole list has, or more than which.
    pub(super) pages: usize,
}

impl Default for SearchStrategy {
    fn default() -> Self {
        Self {
            line: LONG_LINE,
            refuses_in: false,
            page_size: BATCH,
            in_time: BATCH,
            pages: 1,
        }
    }
}

/// A page that comes faster than this leaves time for more models.
const FAST_PAGE: Duration = Duration::from_secs(1);
/// By which factor pages become smaller and larger, and the smallest one.
const STEP: usize = 10;
const SMALLEST_PAGE: usize = 10;

impl SearchStrategy {
    /// How many models a page holds.
    pub(super) fn page(self) -> usize {
        self.page_size.min(self.in_time)
    }

    /// The way for the next poll after one that took too long. This one has taken its time already.
    pub(super) fn after_timeout(self) -> Self {
        Self {
            in_time: (self.page() / STEP).max(SMALLEST_PAGE),
            ..self
        }
    }

    /// The way for the next poll after one whose slowest page took this long.
    pub(super) fn after_success(self, slowest: Duration) -> Self {
        if slowest > FAST_PAGE {
            return self;
        }
        Self {
            in_time: (self.in_time * STEP).min(BATCH),
            ..self
        }
    }

    /// The next way to try after this error; `None` if no other way will help.
    pub(super) fn after(self, error: &RegistryError) -> Option<Self> {
        match error {
            RegistryError::TooLarge { .. } | RegistryError::NoRoom { .. }
                if self.page_size > SMALLEST_PAGE =>
            {
                Some(Self {
                    page_size: self.page_size / STEP,
                    ..self
                })
            }
            _ if self.line > SHORT_LINE && is_about_length(error) => Some(Self {
                line: SHORT_LINE,
                ..self
            }),
            _ if !self.refuses_in && error.code() == Some("INVALID_PARAMETER_VALUE") => {
                Some(Self {
                    refuses_in: true,
                    ..self
                })
            }
            _ => None,
        }
    }
}

/// Whether a server may return this error for a request line that is too long.
fn is_about_length(error: &RegistryError) -> bool {
    match error {
        RegistryError::Refused {
            status: 400 | 413 | 414 | 431,
            code,
            ..
        } => code.is_none(),
        RegistryError::Unreachable { connected, .. } => *connected,
        _ => false,
    }
}

/// A walk through the pages of a search. It fails instead of going in a circle.
pub(super) struct Pages<'a> {
    pub(super) filter: &'a str,
    /// The most models that a page may hold, and the most pages.
    pub(super) size: usize,
    most: usize,
    pub(super) token: String,
    pub(super) taken: usize,
    pub(super) ended: bool,
    seen: BTreeSet<String>,
}

impl<'a> Pages<'a> {
    /// A walk that has read no page yet.
    pub(super) fn new(filter: &'a str, size: usize, most: usize) -> Self {
        Self {
            filter,
            size,
            most,
            token: String::new(),
            taken: 0,
            ended: false,
            seen: BTreeSet::new(),
        }
    }

    /// Advances to the page after this one.
    pub(super) fn advance(&mut self, page: &wire::ModelPage) -> Result<(), &'static str> {
        self.taken += 1;
        let models = &page.registered_models;
        if models.is_cut || models.len() > self.size {
            return Err("more models than were asked for");
        }
        let token = page.next_page_token.clone().unwrap_or_default();
        if token.is_empty() {
            self.ended = true;
            return Ok(());
        }
        if models.is_empty() {
            return Err("an empty page that names a next one");
        }
        if token.len() > LONGEST_TOKEN || !self.seen.insert(token.clone()) {
            return Err("pages that go in a circle");
        }
        if self.taken >= self.most {
            return Err("more pages than were asked for");
        }
        self.token = token;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_smaller_after_timeouts_and_larger_when_they_are_fast_again() {
        let (slow, fast) = (Duration::from_secs(9), Duration::from_millis(40));
        let mut strategy = SearchStrategy::default();
        let mut sizes = vec![strategy.page()];
        for _ in 0..3 {
            strategy = strategy.after_timeout();
            sizes.push(strategy.page());
        }
        assert_eq!(sizes, [1000, 100, 10, 10]);
        assert_eq!(strategy.after_success(slow).page(), 10);
        let recovered = strategy.after_success(fast).after_success(fast);
        assert_eq!(recovered, SearchStrategy::default());
    }
}
