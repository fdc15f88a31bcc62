//! The models that are to be refreshed, collected for each registry while a request is under way.
//!
//! Absent: requests, and timers. The first model is requested at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// The most models of a batch. If there are more, the whole registry is polled.
const MAX_MODELS: usize = 10_000;

/// The models that are to be refreshed, by registry.
#[derive(Default)]
pub struct RefreshBatcher {
    /// A registry has an entry while a task drains it.
    pending: Mutex<HashMap<ObjectKey, PendingRefresh>>,
}

/// The next batch of a registry.
#[derive(Debug, Default)]
pub struct PendingRefresh {
    /// The models.
    pub models: BTreeSet<String>,
    /// Whether models were left out because the batch is full.
    pub is_overfull: bool,
}

impl PendingRefresh {
    fn add(&mut self, model: String) {
        if self.models.len() < MAX_MODELS {
            self.models.insert(model);
        } else {
            self.is_overfull = true;
        }
    }
}

impl RefreshBatcher {
    /// Adds a model. Returns true if the caller must start a task that drains the registry's
    /// batches.
    pub fn add(&self, registry: &ObjectKey, model: String) -> bool {
        let mut pending = lock(&self.pending);
        let is_first = !pending.contains_key(registry);
        pending.entry(registry.clone()).or_default().add(model);
        is_first
    }

    /// The next batch. `None` ends the task that drains the registry; the next model needs a new
    /// one.
    pub fn take(&self, registry: &ObjectKey) -> Option<PendingRefresh> {
        let mut pending = lock(&self.pending);
        let batch = std::mem::take(pending.get_mut(registry)?);
        if batch.models.is_empty() {
            pending.remove(registry);
            return None;
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_come_during_a_request_are_in_the_next_batch() {
        let (batcher, mlflow) = (RefreshBatcher::default(), ObjectKey::new("ml", "mlflow"));
        assert!(
            batcher.add(&mlflow, "a".to_owned()),
            "the first model needs a task"
        );
        assert!(!batcher.add(&mlflow, "b".to_owned()));
        assert_eq!(batcher.take(&mlflow).unwrap().models.len(), 2);
        assert!(
            !batcher.add(&mlflow, "c".to_owned()),
            "the task is still there"
        );
        assert!(batcher.add(&ObjectKey::new("ml", "another"), "c".to_owned()));
        assert_eq!(
            batcher.take(&mlflow).unwrap().models,
            BTreeSet::from(["c".to_owned()])
        );
        assert!(batcher.take(&mlflow).is_none());
        assert!(batcher.add(&mlflow, "d".to_owned()), "the task had ended");
    }

    #[test]
    fn more_models_than_fit_into_a_batch_make_it_overfull() {
        let mut batch = PendingRefresh::default();
        for number in 0..=MAX_MODELS {
            batch.add(number.to_string());
        }
        assert!(batch.is_overfull && batch.models.len() == MAX_MODELS);
    }
}
