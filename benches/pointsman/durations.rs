//! Sorted durations: minimum, percentiles, maximum, and the figures made of them.
//!
//! Absent: means. One slow move disappears in a mean.

use std::time::Duration;

/// Below this number of durations the 99th percentile is the maximum.
const ENOUGH_FOR_P99: usize = 50;

/// A value as it is shown, and the spread of the runs that it was taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    pub value: String,
    pub spread: String,
}

impl From<String> for Figure {
    fn from(value: String) -> Self {
        let spread = "-".to_owned();
        Self { value, spread }
    }
}

/// How a duration is written.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    Milliseconds,
    Seconds,
}

impl Unit {
    pub fn format(self, duration: Duration) -> String {
        match self {
            Self::Milliseconds => format!("{:.1} ms", duration.as_secs_f64() * 1000.0),
            Self::Seconds => format!("{:.2} s", duration.as_secs_f64()),
        }
    }
}

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

    /// The smallest duration that this percentage of all durations does not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// The median with the spread.
    pub fn median_figure(&self, unit: Unit) -> Figure {
        let median = unit.format(self.percentile(50));
        if self.count() == 1 {
            return median.into();
        }
        let value = format!("p50 {median}");
        let spread = self.spread(unit);
        Figure { value, spread }
    }

    /// The maximum with the spread: for a goal that no run may miss.
    pub fn max_figure(&self, unit: Unit) -> Figure {
        let max = unit.format(self.max());
        if self.count() == 1 {
            return max.into();
        }
        let value = format!("max {max}");
        let spread = format!(
            "{}, p50 {}",
            self.spread(unit),
            unit.format(self.percentile(50))
        );
        Figure { value, spread }
    }

    fn spread(&self, unit: Unit) -> String {
        let range = format!("{} to {}", unit.format(self.min()), unit.format(self.max()));
        if self.count() < ENOUGH_FOR_P99 {
            return range;
        }
        format!("{range}, p99 {}", unit.format(self.percentile(99)))
    }
}

/// How many times longer one median is than the other, with the ratio of the extremes as the spread.
pub fn ratio_figure(measured: &Durations, floor: &Durations) -> (f64, Figure) {
    let ratio = |measured: Duration, floor: Duration| measured.as_secs_f64() / floor.as_secs_f64();
    let medians = ratio(measured.percentile(50), floor.percentile(50));
    let (least, most) = (
        ratio(measured.min(), floor.max()),
        ratio(measured.max(), floor.min()),
    );
    let value = format!("{medians:.2}");
    let spread = format!("{least:.2} to {most:.2}");
    (medians, Figure { value, spread })
}

#[allow(clippy::cast_precision_loss)] // resident memory is far below 2^52 bytes
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1_000_000.0)
}
