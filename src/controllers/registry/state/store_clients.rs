//! The clients of a registry's artifact stores, kept for a short time so that one Secret read
//! serves many checks.
//!
//! Absent: making them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::artifacts::ArtifactStores;
use crate::kubernetes::lock::lock;

/// The clients of a registry's artifact stores, with the time at which they were made.
#[derive(Default)]
pub struct StoreClients {
    made: Mutex<Option<(Instant, Arc<ArtifactStores>)>>,
}

impl StoreClients {
    /// The clients, if they were made within this time.
    pub fn get(&self, within: Duration) -> Option<Arc<ArtifactStores>> {
        match &*lock(&self.made) {
            Some((at, stores)) if at.elapsed() < within => Some(Arc::clone(stores)),
            _ => None,
        }
    }

    /// Keeps clients that were made now.
    pub fn record(&self, stores: &Arc<ArtifactStores>) {
        *lock(&self.made) = Some((Instant::now(), Arc::clone(stores)));
    }

    /// Drops the clients.
    pub fn clear(&self) {
        *lock(&self.made) = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn clients_are_used_until_they_are_too_old_or_dropped() {
        let clients = StoreClients::default();
        let made = Arc::new(ArtifactStores::new(None, BTreeMap::new(), false));
        clients.record(&made);
        assert!(clients.get(Duration::from_secs(60)).is_some());
        assert!(clients.get(Duration::ZERO).is_none());
        clients.clear();
        assert!(clients.get(Duration::from_secs(60)).is_none());
    }
}
