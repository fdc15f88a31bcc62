//! Remembers the soonest moment at which a decision may be another one although nothing has changed.
//!
//! Absent: a clock. `now` is given.

use jiff::{SignedDuration, Timestamp};

/// The present, and the soonest end of a time that is not over.
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    now: Timestamp,
    next: Option<Timestamp>,
}

impl Timer {
    /// A timer that waits for nothing yet.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { now, next: None }
    }

    /// Whether this time is over; if it is not, its end is remembered. A time that overflows is never over.
    pub fn is_over(&mut self, since: Timestamp, after: SignedDuration) -> bool {
        let Ok(end) = since.saturating_add(after) else {
            return false;
        };
        self.is_past(end)
    }

    /// Whether this moment is past; if it is not, it is remembered.
    pub fn is_past(&mut self, end: Timestamp) -> bool {
        if self.now >= end {
            return true;
        }
        self.next = Some(self.next.map_or(end, |known| known.min(end)));
        false
    }

    /// The soonest end of a time that is not over.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.next
    }
}
