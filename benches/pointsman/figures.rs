//! Durations put in order: minimum, percentiles, maximum.
//!
//! Absent: means. One slow move is lost in them.

use std::time::Duration;

/// Durations in ascending order; there is at least one.
pub struct Durations(Vec<Duration>);

impl Durations {
    pub fn of(mut durations: Vec<Duration>) -> Self {
        assert!(!durations.is_empty(), "nothing was measured");
        durations.sort_unstable();
        Self(durations)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn min(&self) -> Duration {
        self.0[0]
    }

    pub fn max(&self) -> Duration {
        self.0[self.0.len() - 1]
    }

    /// The smallest duration that this many percent do not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent)
            .div_ceil(100)
            .clamp(1, self.0.len())
            - 1]
    }

    /// All of them in one line, for a table.
    pub fn in_milliseconds(&self) -> String {
        self.told(milliseconds)
    }

    pub fn in_seconds(&self) -> String {
        self.told(seconds)
    }

    /// Of few, a percentile says nothing that the middle does not.
    fn told(&self, unit: fn(Duration) -> String) -> String {
        let [min, p50, p99, max] = [
            self.min(),
            self.percentile(50),
            self.percentile(99),
            self.max(),
        ]
        .map(unit);
        match self.count() {
            1 => p50,
            2..50 => format!("min {min}, p50 {p50}, max {max}"),
            _ => format!("min {min}, p50 {p50}, p99 {p99}, max {max}"),
        }
    }
}

pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

pub fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

#[allow(clippy::cast_precision_loss)] // what is measured is far from 2^52 bytes
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1_000_000.0)
}
