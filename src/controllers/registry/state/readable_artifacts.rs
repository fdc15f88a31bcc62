//! The artifacts that were read successfully a short time ago, so that a move does not check them
//! again.
//!
//! Absent: artifacts that could not be read. Those are checked again each time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::kubernetes::lock::lock;

/// For how long a successful read counts.
const MAX_AGE: Duration = Duration::from_secs(600);
/// The most artifacts that are recorded.
const MAX_ENTRIES: usize = 20_000;

/// Artifact URIs, each with the time of the last successful read.
#[derive(Default)]
pub struct ReadableArtifacts {
    read_at: Mutex<HashMap<String, Instant>>,
}

impl ReadableArtifacts {
    /// Records that an artifact was read.
    pub fn record(&self, uri: &str, now: Instant) {
        let mut read_at = lock(&self.read_at);
        if read_at.len() >= MAX_ENTRIES {
            read_at.retain(|_, at| now.saturating_duration_since(*at) < MAX_AGE);
        }
        if read_at.len() < MAX_ENTRIES {
            read_at.insert(uri.to_owned(), now);
        }
    }

    /// Whether an artifact was read within the last ten minutes.
    pub fn contains(&self, uri: &str, now: Instant) -> bool {
        match lock(&self.read_at).get(uri) {
            Some(at) => now.saturating_duration_since(*at) < MAX_AGE,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_counts_for_ten_minutes() {
        let (artifacts, now) = (ReadableArtifacts::default(), Instant::now());
        artifacts.record("mlflow-artifacts:/1/a", now);
        assert!(artifacts.contains("mlflow-artifacts:/1/a", now));
        assert!(!artifacts.contains("mlflow-artifacts:/1/b", now));
        assert!(!artifacts.contains("mlflow-artifacts:/1/a", now + MAX_AGE));
    }

    #[test]
    fn old_entries_make_way_when_the_cache_is_full() {
        let (artifacts, now) = (ReadableArtifacts::default(), Instant::now());
        for number in 0..MAX_ENTRIES {
            artifacts.record(&number.to_string(), now);
        }
        artifacts.record("late", now);
        assert!(!artifacts.contains("late", now), "the others still count");
        artifacts.record("later", now + MAX_AGE);
        assert!(artifacts.contains("later", now + MAX_AGE));
    }
}
