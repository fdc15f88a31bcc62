//! When a loop made progress last, for the liveness probe.
//!
//! Absent: what progress is. The loop knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a loop made progress last: it started or ended something, or nothing waits. Clones share it.
#[derive(Clone)]
pub struct Progress {
    since: Instant,
    /// Milliseconds after `since`.
    last: Arc<AtomicU64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            last: Arc::default(),
        }
    }
}

impl Progress {
    /// Records progress now.
    pub fn record(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// How long ago that was.
    #[must_use]
    pub fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_counts_from_the_last_progress() {
        let (progress, pause) = (Progress::default(), Duration::from_millis(20));
        std::thread::sleep(pause);
        assert!(progress.age() >= pause);
        progress.clone().record();
        let age = progress.age();
        assert!(age + pause / 2 < progress.since.elapsed(), "{age:?}");
    }
}
