//! Exponential backoff with jitter for each object.
//!
//! Absent: the retry itself, and the reason for it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// The delays between the failures of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// The delay after the first failure. It doubles with each further one.
    pub first: Duration,
    /// The longest delay.
    pub longest: Duration,
}

impl Delays {
    /// The delay after so many failures in a row, with jitter: objects that fail together are not retried together.
    #[must_use]
    pub fn after(self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        jittered(self.first.saturating_mul(factor).min(self.longest), 0.25)
    }
}

/// A delay, shorter by a random part of at most this share of it.
#[must_use]
pub fn jittered(delay: Duration, share: f64) -> Duration {
    delay.mul_f64(1.0 - share) + at_random(delay.mul_f64(share))
}

/// Between nothing and all of a delay, each equally likely.
#[must_use]
pub fn at_random(delay: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 1_000_000;
    let millionths = u32::try_from(random).unwrap_or_default();
    delay.mul_f64(f64::from(millionths) / 1e6)
}

/// The failures in a row of the objects of one kind.
#[derive(Default)]
pub struct Failures {
    counts: Mutex<HashMap<ObjectKey, u32>>,
}

impl Failures {
    /// Counts a failure of an object, and returns how many there were in a row.
    pub fn count(&self, object: &ObjectKey) -> u32 {
        let mut counts = lock(&self.counts);
        let count = counts.entry(object.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// Forgets the failures of an object: it succeeded, or is gone.
    pub fn forget(&self, object: &ObjectKey) {
        lock(&self.counts).remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_are_jittered() {
        let delays = Delays {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(16),
        };
        for (failures, seconds) in [(1, 1), (2, 2), (4, 8), (5, 16), (6, 16), (u32::MAX, 16)] {
            let delay = delays.after(failures);
            let whole = Duration::from_secs(seconds);
            assert!(delay <= whole && delay >= whole * 3 / 4, "{delay:?}");
        }
        let varied = (0..20).map(|_| delays.after(3));
        assert!(varied.collect::<std::collections::HashSet<_>>().len() > 1);
    }

    #[test]
    fn failures_in_a_row_are_counted_for_each_object() {
        let (failures, taxi) = (Failures::default(), ObjectKey::new("ml", "taxi"));
        assert_eq!((failures.count(&taxi), failures.count(&taxi)), (1, 2));
        assert_eq!(failures.count(&ObjectKey::new("ml", "bus")), 1);
        failures.forget(&taxi);
        assert_eq!(failures.count(&taxi), 1);
    }
}
