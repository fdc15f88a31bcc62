//! Permits for work that waits for others, such as requests to slow servers: a number in all, and a smaller one for each
//! namespace, so that no namespace takes all of them or fills the queue for them.
//!
//! Absent: the work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::kubernetes::lock::lock;
use crate::kubernetes::work_queue::Limits;

/// The permits of one kind of work.
pub struct Permits {
    all: Arc<Semaphore>,
    of_namespace: usize,
    namespaces: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A permit, which is returned when this is dropped.
pub struct Permit {
    _of_namespace: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Permits {
    /// As many permits as the limits allow.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.all)),
            of_namespace: limits.of_namespace,
            namespaces: Mutex::default(),
        }
    }

    /// Waits for a permit of the namespace, and then for one of all: few tasks of one namespace wait for the latter.
    pub async fn acquire(&self, namespace: &str) -> Option<Permit> {
        let own = self.of(namespace);
        // The semaphores are never closed.
        let of_namespace = own.acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Permit {
            _of_namespace: of_namespace,
            _of_all: of_all,
        })
    }

    /// How many permits a namespace has.
    #[must_use]
    pub const fn of_namespace(&self) -> usize {
        self.of_namespace
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut namespaces = lock(&self.namespaces);
        if let Some(own) = namespaces.get(namespace) {
            return Arc::clone(own);
        }
        // Those of namespaces without work are forgotten, so that the map stays as small as the work.
        namespaces.retain(|_, own| Arc::strong_count(own) > 1);
        let own = Arc::new(Semaphore::new(self.of_namespace));
        namespaces.insert(namespace.to_owned(), Arc::clone(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_namespace_with_much_work_leaves_permits_to_others() {
        let permits = Permits::new(Limits {
            all: 4,
            of_namespace: 2,
        });
        let mut taken = Vec::new();
        for _ in 0..2 {
            taken.push(permits.acquire("busy").now_or_never().flatten());
        }
        let mut third = Box::pin(permits.acquire("busy"));
        assert!((&mut third).now_or_never().is_none());
        let is_at_limit = |namespace: &str| permits.of(namespace).available_permits() == 0;
        assert!(is_at_limit("busy") && !is_at_limit("other"));
        let other = permits.acquire("other").now_or_never().flatten();
        assert!(other.is_some());
        taken.pop();
        assert!((&mut third).now_or_never().flatten().is_some());
    }

    #[test]
    fn namespaces_without_work_are_forgotten() {
        let permits = Permits::new(Limits {
            all: 2,
            of_namespace: 1,
        });
        for namespace in ["a", "b", "c"] {
            let permit = permits.acquire(namespace).now_or_never().flatten();
            assert!(permit.is_some());
        }
        assert_eq!(lock(&permits.namespaces).len(), 1);
    }
}
