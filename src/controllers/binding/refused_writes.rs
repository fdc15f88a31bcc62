//! Writes that the API server refused or changed: when each is repeated, and what its status says until then.
//!
//! Absent: the requests.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::api::reason::Problem;
use crate::kubernetes::backoff::{Delays, at_random};
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// The delays of a single binding.
const DELAYS: Delays = Delays {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(64),
};
/// So many retries do not depend on how many other bindings are refused.
const OWN_RETRIES: u32 = 6;
/// From then on all refused bindings share one retry in this time, on average: a thousand of them must not load the API server.
const SHARED_INTERVAL: Duration = Duration::from_millis(1250);
/// The longest delay, however many are refused.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// A change of the binding or its workload is tried at once; after [`OWN_RETRIES`], not sooner than this after the last try.
const CHANGE_DELAY: Duration = Duration::from_secs(5);
/// How soon one accepted write may release all others again.
const RELEASE_INTERVAL: Duration = Duration::from_secs(60);
/// An entry that was not retried for so long belongs to a binding that is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2 * 60 * 60);

/// The refused writes, by binding.
#[derive(Default)]
pub struct RefusedWrites {
    inner: Mutex<RefusedInner>,
}

#[derive(Default)]
struct RefusedInner {
    writes: HashMap<ObjectKey, RefusedWrite>,
    released: Option<Instant>,
}

struct RefusedWrite {
    /// A digest of the write and of the objects that it was made for.
    digest: u64,
    problem: Problem,
    failures: u32,
    tried: Instant,
    not_before: Instant,
}

impl RefusedWrites {
    /// The problem of a write that is not to be repeated yet, and the time until then.
    pub fn pending(
        &self,
        binding: &ObjectKey,
        digest: u64,
        now: Instant,
    ) -> Option<(Problem, Duration)> {
        let inner = lock(&self.inner);
        let refused = inner.writes.get(binding)?;
        let due = match refused.digest == digest {
            true => refused.not_before,
            false if refused.failures <= OWN_RETRIES => now,
            false => refused.not_before.min(refused.tried + CHANGE_DELAY),
        };
        let wait = due.saturating_duration_since(now);
        (!wait.is_zero()).then(|| (refused.problem.clone(), wait))
    }

    /// Records that a write was refused, and returns the time until it is repeated.
    pub fn record(
        &self,
        binding: &ObjectKey,
        digest: u64,
        problem: Problem,
        now: Instant,
    ) -> Duration {
        let mut inner = lock(&self.inner);
        let writes = &mut inner.writes;
        writes.retain(|_, write| write.not_before + FORGOTTEN_AFTER > now);
        let failures = writes
            .get(binding)
            .map_or(0, |write| write.failures)
            .saturating_add(1);
        let others = u32::try_from(writes.len()).unwrap_or(u32::MAX);
        let delay = delay(failures, others);
        let write = RefusedWrite {
            digest,
            problem,
            failures,
            tried: now,
            not_before: now + delay,
        };
        writes.insert(binding.clone(), write);
        delay
    }

    /// Forgets the refusals of a binding. True if there was one.
    pub fn forget(&self, binding: &ObjectKey) -> bool {
        lock(&self.inner).writes.remove(binding).is_some()
    }

    /// One write was accepted: the cause of the others may have ended too. Makes them due, and returns their bindings.
    pub fn release(&self, now: Instant) -> Vec<ObjectKey> {
        let mut inner = lock(&self.inner);
        if inner
            .released
            .is_some_and(|last| now < last + RELEASE_INTERVAL)
        {
            return Vec::new();
        }
        inner.released = Some(now);
        for write in inner.writes.values_mut() {
            write.not_before = now;
        }
        inner.writes.keys().cloned().collect()
    }
}

/// The delay after so many failures in a row of one binding, while so many others are refused too.
fn delay(failures: u32, others: u32) -> Duration {
    let own = DELAYS.after(failures);
    if failures <= OWN_RETRIES {
        return own;
    }
    // Even at random, from now on: bindings that were refused together must not pause together, or nobody notices that the
    // cause has ended.
    let longest = SHARED_INTERVAL
        .saturating_mul(others.saturating_mul(2))
        .min(LONGEST);
    own.max(at_random(longest))
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;
    use crate::api::Reason;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ml", name)
    }

    fn problem() -> Problem {
        Problem::new(Reason::ApplyRefused, "no")
    }

    #[test]
    fn the_same_write_waits_and_a_changed_one_is_tried_at_once() {
        let (refused, now) = (RefusedWrites::default(), Instant::now());
        assert!(refused.pending(&key("a"), 1, now).is_none());
        let delay = refused.record(&key("a"), 1, problem(), now);
        let (_, wait) = refused.pending(&key("a"), 1, now).expect("it waits");
        assert_eq!(wait, delay);
        assert!(refused.pending(&key("a"), 2, now).is_none());
        assert!(refused.pending(&key("a"), 1, now + delay).is_none());
        assert!(refused.forget(&key("a")));
        assert!(refused.pending(&key("a"), 1, now).is_none());
    }

    #[test]
    fn changes_that_are_refused_again_and_again_are_tried_every_few_seconds() {
        let (refused, now) = (RefusedWrites::default(), Instant::now());
        for digest in 0..=u64::from(OWN_RETRIES) {
            assert!(refused.pending(&key("a"), digest, now).is_none());
            refused.record(&key("a"), digest, problem(), now);
        }
        let (_, wait) = refused.pending(&key("a"), 99, now).expect("it waits");
        assert_eq!(wait, CHANGE_DELAY);
    }

    #[test]
    fn a_thousand_refused_bindings_are_retried_less_than_once_a_second_and_never_pause_together() {
        let (refused, mut now) = (RefusedWrites::default(), Instant::now());
        let start = now;
        let mut due: BinaryHeap<Reverse<(Instant, ObjectKey)>> = (0..1000)
            .map(|number| Reverse((now, key(&number.to_string()))))
            .collect();
        let (mut late, mut longest_pause) = (0_u32, Duration::ZERO);
        while let Some(Reverse((at, object))) = due.pop()
            && now < start + Duration::from_secs(1500)
        {
            longest_pause = longest_pause.max(at - now);
            now = at;
            let delay = refused.record(&object, 1, problem(), now);
            late += u32::from(now > start + Duration::from_secs(300));
            due.push(Reverse((now + delay, object)));
        }
        assert!(late < 1200, "{late} retries in 20 minutes");
        let bound = DELAYS.longest;
        assert!(longest_pause < bound, "{longest_pause:?} without a retry");
    }

    #[test]
    fn one_accepted_write_releases_the_others_once_a_minute() {
        let (refused, now) = (RefusedWrites::default(), Instant::now());
        refused.record(&key("a"), 1, problem(), now);
        refused.record(&key("b"), 1, problem(), now);
        assert!(refused.forget(&key("a")));
        assert_eq!(refused.release(now), [key("b")]);
        assert!(refused.pending(&key("b"), 1, now).is_none());
        assert!(refused.release(now + Duration::from_secs(1)).is_empty());
    }
}
