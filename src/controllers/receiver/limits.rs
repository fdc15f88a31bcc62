//! How many deliveries are let in, and which were let in before: both bounded.
//!
//! Absent: the clock.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ring::digest;

/// Ids of deliveries that were acted on, each until its time would have it refused anyway.
///
/// Where there are more than fit, the oldest is forgotten: repeating that one would only have the registry looked at again.
#[derive(Debug)]
pub struct Memory {
    most: usize,
    known: HashSet<[u8; 16]>,
    order: VecDeque<(Timestamp, [u8; 16])>,
}

impl Memory {
    /// A memory of so many ids at most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            known: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether a delivery was acted on before.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.known.contains(&key(id))
    }

    /// Remembers a delivery until its time is over.
    pub fn remember(&mut self, id: &str, until: Timestamp, now: Timestamp) {
        while self.order.front().is_some_and(|(until, _)| *until < now)
            || self.order.len() >= self.most
        {
            let Some((_, oldest)) = self.order.pop_front() else {
                break;
            };
            self.known.remove(&oldest);
        }
        let key = key(id);
        if self.known.insert(key) {
            self.order.push_back((until, key));
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

/// Ids may be long, and come by the thousand.
fn key(id: &str) -> [u8; 16] {
    let mut key = [0; 16];
    let digest = digest::digest(&digest::SHA256, id.as_bytes());
    key.copy_from_slice(&digest.as_ref()[..16]);
    key
}

/// So many at once, and then so many a second.
#[derive(Debug)]
pub struct Bucket {
    burst: f64,
    each_second: f64,
    left: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(burst: u32, each_second: u32, now: Instant) -> Self {
        Self {
            burst: burst.into(),
            each_second: each_second.into(),
            left: burst.into(),
            filled_at: now,
        }
    }

    /// Takes one. False where there is none left.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed: Duration = now.saturating_duration_since(self.filled_at);
        self.left = (self.left + passed.as_secs_f64() * self.each_second).min(self.burst);
        self.filled_at = now.max(self.filled_at);
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_delivery_is_known_until_its_time_is_over() {
        let mut memory = Memory::new(10);
        assert!(!memory.knows("a"));
        memory.remember("a", at(100), at(0));
        memory.remember("b", at(200), at(100));
        assert!(memory.knows("a") && memory.knows("b"));
        memory.remember("c", at(300), at(101));
        assert!(!memory.knows("a") && memory.knows("b") && memory.knows("c"));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let mut memory = Memory::new(1000);
        for number in 0..5000 {
            memory.remember(&format!("delivery {number}"), at(600), at(0));
        }
        assert_eq!(memory.len(), 1000);
        assert!(
            memory.knows("delivery 4999")
                && memory.knows("delivery 4000")
                && !memory.knows("delivery 3999")
        );
    }

    #[test]
    fn remembering_twice_takes_one_place() {
        let mut memory = Memory::new(2);
        for id in ["a", "a", "a", "b"] {
            memory.remember(id, at(600), at(0));
        }
        assert!(memory.knows("a") && memory.knows("b"));
    }

    #[test]
    fn a_bucket_lets_a_burst_pass_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1000, 100, start);
        assert!((0..1000).all(|_| bucket.take(start)));
        assert!(!bucket.take(start));
        let later = start + Duration::from_secs(1);
        assert!((0..100).all(|_| bucket.take(later)));
        assert!(!bucket.take(later));
        assert!(!bucket.take(start), "a moment that is past gives nothing");
    }
}
