//! Durations as people write them into a spec.
//!
//! Absent: limits. Each field has its own.

use std::time::Duration;

/// A Kubernetes duration (GEP-2257), such as 1h30m. kube's parser panics on a sign within the text, such as 1h-5m, and on
/// numbers that overflow, so no sign and no more than five digits in a row are given to it.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let is_short = |digits: &str| digits.len() <= 5;
    if text.contains(['-', '+']) || !text.split(|c: char| !c.is_ascii_digit()).all(is_short) {
        return None;
    }
    let parsed: kube::core::Duration = text.parse().ok()?;
    let duration = Duration::from(parsed);
    (!parsed.is_negative() && !duration.is_zero()).then_some(duration)
}
