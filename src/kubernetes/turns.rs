//! A queue in which namespaces take turns. Within a namespace it is first in, first out.
//!
//! Absent: limits. The caller decides whether a namespace may have its turn.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Items that wait.
pub struct Turns<T> {
    /// The items of each namespace that has some.
    waiting: HashMap<Arc<str>, VecDeque<T>>,
    /// The namespaces in `waiting`, in the order of their turns.
    turns: VecDeque<Arc<str>>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<T> Turns<T> {
    /// Adds an item behind the others of its namespace.
    pub fn push(&mut self, namespace: &str, item: T) {
        if let Some(waiting) = self.waiting.get_mut(namespace) {
            waiting.push_back(item);
            return;
        }
        let namespace: Arc<str> = namespace.into();
        self.turns.push_back(Arc::clone(&namespace));
        self.waiting.insert(namespace, VecDeque::from([item]));
    }

    /// Whether an item of a namespace waits.
    #[must_use]
    pub fn waits(&self, namespace: &str) -> bool {
        self.waiting.contains_key(namespace)
    }

    /// The first item that `take` takes from the items of a namespace, which is asked in the order of the turns. A namespace
    /// without further items has no more turns.
    pub fn pop(&mut self, mut take: impl FnMut(&str, &mut VecDeque<T>) -> Option<T>) -> Option<T> {
        for _ in 0..self.turns.len() {
            let namespace = self.turns.pop_front()?;
            let waiting = self.waiting.get_mut(&namespace)?;
            let next = take(&namespace, waiting);
            if waiting.is_empty() {
                self.waiting.remove(&namespace);
            } else {
                self.turns.push_back(namespace);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(turns: &mut Turns<u8>) -> Vec<u8> {
        std::iter::from_fn(|| turns.pop(|_, waiting| waiting.pop_front())).collect()
    }

    #[test]
    fn namespaces_take_turns_and_the_items_of_one_keep_their_order() {
        let mut turns = Turns::default();
        for item in 1..=4 {
            turns.push("noisy", item);
        }
        turns.push("quiet", 11);
        turns.push("quiet", 12);
        assert_eq!(all(&mut turns), [1, 11, 2, 12, 3, 4]);
        assert!(!turns.waits("noisy") && !turns.waits("quiet"));
    }

    #[test]
    fn a_namespace_that_may_not_have_its_turn_keeps_its_items() {
        let mut turns = Turns::default();
        turns.push("noisy", 1);
        turns.push("quiet", 11);
        let take = |namespace: &str, waiting: &mut VecDeque<u8>| match namespace {
            "quiet" => waiting.pop_front(),
            _ => None,
        };
        assert_eq!(turns.pop(take), Some(11));
        assert_eq!(turns.pop(take), None);
        assert!(turns.waits("noisy"));
        assert_eq!(all(&mut turns), [1]);
    }
}
