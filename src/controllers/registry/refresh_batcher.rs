//! Names of models that are to be refreshed, collected by registry while a request is under way.
//!
//! Absent: requests, and timers. A name that comes while nothing is under way is requested at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// How many names wait at most; where more come, the whole registry is looked at.
const MOST: usize = 10_000;
/// The names that were heard and not asked for yet, by registry.
#[derive(Default)]
pub struct RefreshBatcher {
    /// A registry is in here while a task asks for its names.
    waiting: Mutex<HashMap<ObjectKey, PendingRefresh>>,
}

#[derive(Default)]
pub struct PendingRefresh {
    pub models: BTreeSet<String>,
    pub too_many: bool,
}

impl PendingRefresh {
    fn add(&mut self, model: String) {
        if self.models.len() < MOST {
            self.models.insert(model);
        } else {
            self.too_many = true;
        }
    }

    fn is_empty(&self) -> bool {
        self.models.is_empty() && !self.too_many
    }
}

impl RefreshBatcher {
    /// Adds a name. True where a task is needed that asks.
    pub fn add(&self, registry: &ObjectKey, model: String) -> bool {
        let mut waiting = lock(&self.waiting);
        let is_first = !waiting.contains_key(registry);
        waiting.entry(registry.clone()).or_default().add(model);
        is_first
    }

    /// All that waits; where nothing does, the task ends, and the next name begins another.
    pub fn take(&self, registry: &ObjectKey) -> Option<PendingRefresh> {
        let mut waiting = lock(&self.waiting);
        let heard = waiting
            .get_mut(registry)
            .map(std::mem::take)
            .filter(|heard| !heard.is_empty());
        if heard.is_none() {
            waiting.remove(registry);
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_a_question_is_put_is_asked_with_the_next_one() {
        let (refresh_batcher, mlflow) = (RefreshBatcher::default(), ObjectKey::new("ml", "mlflow"));
        assert!(
            refresh_batcher.add(&mlflow, "a".to_owned()),
            "the first name begins a task"
        );
        assert!(!refresh_batcher.add(&mlflow, "b".to_owned()));
        assert_eq!(refresh_batcher.take(&mlflow).unwrap().models.len(), 2);
        assert!(
            !refresh_batcher.add(&mlflow, "c".to_owned()),
            "the task is still there"
        );
        assert!(refresh_batcher.add(&ObjectKey::new("ml", "another"), "c".to_owned()));
        assert_eq!(
            refresh_batcher.take(&mlflow).unwrap().models,
            BTreeSet::from(["c".to_owned()])
        );
        assert!(refresh_batcher.take(&mlflow).is_none());
        assert!(
            refresh_batcher.add(&mlflow, "d".to_owned()),
            "the task had ended"
        );
    }

    #[test]
    fn more_names_than_fit_have_the_whole_registry_looked_at() {
        let mut heard = PendingRefresh::default();
        for number in 0..=MOST {
            heard.add(number.to_string());
        }
        assert!(heard.too_many && heard.models.len() == MOST);
    }
}
