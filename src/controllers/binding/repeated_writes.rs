//! Writes that are accepted and then undone: after a few repetitions each waits longer than the one before.
//!
//! Absent: who undoes them, and writes that the API server refuses; see `refused_writes`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::kubernetes::backoff::Delays;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// So many writes of the same fields follow each other without a delay.
const WITHOUT_DELAY: u32 = 6;
/// The delays after that.
const DELAYS: Delays = Delays {
    first: Duration::from_secs(5),
    longest: Duration::from_secs(5 * 60),
};
/// Writes that are further apart than this are not counted together.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);

/// The last write to the workload of each binding, and how often it was repeated.
#[derive(Default)]
pub struct RepeatedWrites {
    writes: Mutex<HashMap<ObjectKey, RepeatedWrite>>,
}

struct RepeatedWrite {
    digest: u64,
    count: u32,
    last: Instant,
    not_before: Instant,
}

impl RepeatedWrites {
    /// The time until a write may be repeated; `None` if it may be sent now.
    pub fn pending(&self, binding: &ObjectKey, digest: u64, now: Instant) -> Option<Duration> {
        let writes = lock(&self.writes);
        let write = writes.get(binding).filter(|write| write.digest == digest)?;
        let wait = write.not_before.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Records that a write was accepted. Returns the time until it may be repeated, if it was repeated too often.
    pub fn record(&self, binding: &ObjectKey, digest: u64, now: Instant) -> Option<Duration> {
        let mut writes = lock(&self.writes);
        writes.retain(|_, write| now.saturating_duration_since(write.last) < FORGOTTEN_AFTER);
        let known = writes.get(binding).filter(|write| write.digest == digest);
        let count = known.map_or(1, |write| write.count.saturating_add(1));
        let delay = count
            .checked_sub(WITHOUT_DELAY)
            .filter(|late| *late > 0)
            .map(|late| DELAYS.after(late));
        let write = RepeatedWrite {
            digest,
            count,
            last: now,
            not_before: now + delay.unwrap_or_default(),
        };
        writes.insert(binding.clone(), write);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::new("ml", "taxi")
    }

    #[test]
    fn a_write_that_is_undone_again_and_again_is_repeated_less_and_less_often() {
        let (writes, start) = (RepeatedWrites::default(), Instant::now());
        let (mut now, mut count) = (start, 0);
        while now < start + Duration::from_secs(3600) {
            if let Some(wait) = writes.pending(&key(), 1, now) {
                now += wait;
            } else {
                writes.record(&key(), 1, now);
                count += 1;
                now += Duration::from_millis(50);
            }
        }
        assert!((15..30).contains(&count), "{count} writes in an hour");
    }

    #[test]
    fn another_write_and_one_after_a_long_time_have_no_delay() {
        let (writes, now) = (RepeatedWrites::default(), Instant::now());
        for _ in 0..=WITHOUT_DELAY {
            writes.record(&key(), 1, now);
        }
        assert!(writes.pending(&key(), 1, now).is_some());
        assert_eq!(writes.pending(&key(), 2, now), None);
        assert_eq!(writes.record(&key(), 1, now + FORGOTTEN_AFTER), None);
    }
}
