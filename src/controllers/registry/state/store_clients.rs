//! The clients of a registry's artifact stores, kept for a short time so that one Secret read
//! serves many checks.
//!
//! Absent: making them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;

use crate::artifacts::ArtifactStores;
use crate::kubernetes::lock::lock;

/// How long the clients are kept: a changed Secret is read again after this time.
const TTL: Duration = Duration::from_secs(5);

/// The clients, with the time at which they were made.
type MadeClients = Option<(Instant, Arc<ArtifactStores>)>;

/// The clients of a registry's artifact stores.
#[derive(Default)]
pub struct StoreClients {
    made: Mutex<Arc<AsyncMutex<MadeClients>>>,
}

impl StoreClients {
    /// The clients; made if there are none or if those are too old. Callers that come meanwhile
    /// wait for the same ones.
    pub async fn get_or_make<E>(
        &self,
        make: impl Future<Output = Result<ArtifactStores, E>>,
    ) -> Result<Arc<ArtifactStores>, E> {
        let slot = Arc::clone(&lock(&self.made));
        let mut known = slot.lock().await;
        if let Some((at, stores)) = &*known
            && at.elapsed() < TTL
        {
            return Ok(Arc::clone(stores));
        }
        let stores = Arc::new(make.await?);
        *known = Some((Instant::now(), Arc::clone(&stores)));
        Ok(stores)
    }

    /// Drops the clients.
    pub fn clear(&self) {
        *lock(&self.made) = Arc::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;

    async fn get(clients: &StoreClients) -> Arc<ArtifactStores> {
        let make = async { Ok::<_, Infallible>(ArtifactStores::new(None, BTreeMap::new(), false)) };
        let Ok(stores) = clients.get_or_make(make).await;
        stores
    }

    #[tokio::test]
    async fn clients_are_used_until_they_are_dropped() {
        let clients = StoreClients::default();
        let (first, second) = tokio::join!(get(&clients), get(&clients));
        assert!(Arc::ptr_eq(&first, &second));
        clients.clear();
        assert!(!Arc::ptr_eq(&first, &get(&clients).await));
    }
}
