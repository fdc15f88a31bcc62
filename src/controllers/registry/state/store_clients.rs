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

/// The clients, with the generation of the spec that they were made by, and the time.
type MadeClients = Option<(i64, Instant, Arc<ArtifactStores>)>;

/// The clients of a registry's artifact stores.
#[derive(Default)]
pub struct StoreClients {
    made: Mutex<Arc<AsyncMutex<MadeClients>>>,
}

impl StoreClients {
    /// The clients by this generation of the registry's spec; made if there are none or if those
    /// are too old. Callers that come meanwhile wait for the same ones.
    pub async fn get_or_make<E>(
        &self,
        generation: i64,
        make: impl Future<Output = Result<ArtifactStores, E>>,
    ) -> Result<Arc<ArtifactStores>, E> {
        let slot = Arc::clone(&lock(&self.made));
        let mut known = slot.lock().await;
        if let Some((made_by, at, stores)) = &*known
            && *made_by == generation
            && at.elapsed() < TTL
        {
            return Ok(Arc::clone(stores));
        }
        let stores = Arc::new(make.await?);
        *known = Some((generation, Instant::now(), Arc::clone(&stores)));
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
        get_by(clients, 1).await
    }

    async fn get_by(clients: &StoreClients, generation: i64) -> Arc<ArtifactStores> {
        let make = async { Ok::<_, Infallible>(ArtifactStores::new(None, BTreeMap::new(), false)) };
        let Ok(stores) = clients.get_or_make(generation, make).await;
        stores
    }

    #[tokio::test]
    async fn clients_are_used_until_they_are_dropped() {
        let clients = StoreClients::default();
        let (first, second) = tokio::join!(get(&clients), get(&clients));
        assert!(Arc::ptr_eq(&first, &second));
        clients.clear();
        let third = get(&clients).await;
        assert!(!Arc::ptr_eq(&first, &third));
        let fourth = get_by(&clients, 2).await;
        assert!(!Arc::ptr_eq(&third, &fourth), "another spec");
    }
}
