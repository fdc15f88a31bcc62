//! The deliveries that were seen, and a rate limit: both of bounded size.
//!
//! Absent: the clock.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use jiff::Timestamp;
use ring::digest;

/// The ids of deliveries that were acted on, each until its timestamp is too old to be accepted.
///
/// If there are more than fit, the oldest is dropped: a repetition of it would only refresh a model
/// once more.
#[derive(Debug)]
pub struct SeenDeliveries {
    most: usize,
    ids: HashSet<[u8; 16]>,
    expiry: VecDeque<(Timestamp, [u8; 16])>,
}

impl SeenDeliveries {
    /// No deliveries yet, and at most `most`.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            ids: HashSet::new(),
            expiry: VecDeque::new(),
        }
    }

    /// Whether a delivery was seen.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.ids.contains(&short_digest(id))
    }

    /// Adds a delivery until it expires.
    pub fn insert(&mut self, id: &str, until: Timestamp, now: Timestamp) {
        while let Some((expires, oldest)) = self.expiry.front() {
            if *expires >= now && self.expiry.len() < self.most {
                break;
            }
            self.ids.remove(oldest);
            self.expiry.pop_front();
        }
        let id = short_digest(id);
        if self.ids.insert(id) {
            self.expiry.push_back((until, id));
        }
    }

    /// The number of deliveries.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.ids.len()
    }
}

/// The digest of an id. Ids may be long, and there are thousands.
fn short_digest(id: &str) -> [u8; 16] {
    let mut short = [0; 16];
    let digest = digest::digest(&digest::SHA256, id.as_bytes());
    short.copy_from_slice(&digest.as_ref()[..16]);
    short
}

/// A rate limit: a burst, and then a number per second.
#[derive(Debug)]
pub struct TokenBucket {
    burst: f64,
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self {
            burst: burst.into(),
            per_second: per_second.into(),
            tokens: burst.into(),
            filled_at: now,
        }
    }

    /// Takes a token. Returns false if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let refill = elapsed.as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + refill).min(self.burst);
        self.filled_at = now.max(self.filled_at);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_delivery_is_seen_until_it_expires() {
        let mut seen = SeenDeliveries::new(10);
        assert!(!seen.contains("a"));
        seen.insert("a", at(100), at(0));
        seen.insert("b", at(200), at(100));
        assert!(seen.contains("a") && seen.contains("b"));
        seen.insert("c", at(300), at(101));
        assert!(!seen.contains("a") && seen.contains("b") && seen.contains("c"));
    }

    #[test]
    fn the_oldest_delivery_is_dropped_when_the_limit_is_reached() {
        let mut seen = SeenDeliveries::new(1000);
        for number in 0..5000 {
            seen.insert(&format!("delivery {number}"), at(600), at(0));
        }
        assert_eq!(seen.len(), 1000);
        assert!(
            seen.contains("delivery 4999")
                && seen.contains("delivery 4000")
                && !seen.contains("delivery 3999")
        );
    }

    #[test]
    fn a_delivery_that_is_inserted_twice_counts_once() {
        let mut seen = SeenDeliveries::new(2);
        for id in ["a", "a", "a", "b"] {
            seen.insert(id, at(600), at(0));
        }
        assert!(seen.contains("a") && seen.contains("b"));
    }

    #[test]
    fn a_bucket_allows_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1000, 100, start);
        assert!((0..1000).all(|_| bucket.take(start)));
        assert!(!bucket.take(start));
        let later = start + Duration::from_secs(1);
        assert!((0..100).all(|_| bucket.take(later)));
        assert!(!bucket.take(later));
        assert!(!bucket.take(start), "an earlier time adds no tokens");
    }
}
