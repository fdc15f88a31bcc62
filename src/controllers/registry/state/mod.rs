//! The state of each registry since the start of the process. Each part has a type, a file and a
//! lock of its own.
//!
//! Absent: state that must survive a restart. That is in the cluster.

pub mod connection_health;
pub mod negative_cache;
pub mod poll_schedule;
pub mod readable_artifacts;
pub mod request_log;
pub mod snapshot_cache;
pub mod store_clients;
pub mod version_sizes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::controllers::registry::known_tags::KnownTags;
use crate::controllers::registry::refresh_batcher::RefreshBatcher;
use crate::controllers::registry::state::connection_health::ConnectionHealth;
use crate::controllers::registry::state::negative_cache::NegativeCache;
use crate::controllers::registry::state::poll_schedule::PollSchedule;
use crate::controllers::registry::state::readable_artifacts::ReadableArtifacts;
use crate::controllers::registry::state::request_log::RequestLog;
use crate::controllers::registry::state::snapshot_cache::SnapshotCache;
use crate::controllers::registry::state::store_clients::StoreClients;
use crate::controllers::registry::state::version_sizes::VersionSizes;
use crate::controllers::registry::webhook::webhook_state::WebhookState;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;
use crate::registries::{Connection, RegistryClient};

/// The states of all registries.
#[derive(Default)]
pub struct RegistryStates {
    /// Models to refresh that are not requested yet.
    pub refresh_batcher: RefreshBatcher,
    all: Mutex<HashMap<ObjectKey, Arc<RegistryState>>>,
}

impl RegistryStates {
    /// The state of a registry; a new one if there is none yet.
    pub fn of(&self, registry: &ObjectKey) -> Arc<RegistryState> {
        Arc::clone(lock(&self.all).entry(registry.clone()).or_default())
    }

    /// Removes the state of a registry that was deleted.
    pub fn forget(&self, registry: &ObjectKey) {
        lock(&self.all).remove(registry);
    }
}

/// The state of one registry.
#[derive(Default)]
pub struct RegistryState {
    /// The connection, and whether it works.
    pub connection: ConnectionHealth,
    /// When the registry is polled, and for which models.
    pub schedule: PollSchedule,
    /// The last snapshot of each model.
    pub snapshots: SnapshotCache,
    /// Versions that are absent or unusable.
    pub unusable_versions: NegativeCache,
    /// The sizes of new versions.
    pub sizes: VersionSizes,
    /// Artifacts that were read a short time ago.
    pub readable_artifacts: ReadableArtifacts,
    /// The requests of people that were acted on.
    pub requests: RequestLog,
    /// The clients of the artifact stores.
    pub store_clients: StoreClients,
    /// The webhook.
    pub webhook: WebhookState,
    /// The deployment tags.
    pub tags: KnownTags,
}

impl RegistryState {
    /// Records that a poll succeeded over this connection. Returns true if the registry could not
    /// be used before.
    pub fn record_success(&self, connection: Connection, client: RegistryClient) -> bool {
        if !self.connection.is_for(&connection) {
            self.store_clients.clear();
        }
        self.connection.record_success(connection, client)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::artifacts::ArtifactStores;

    #[test]
    fn store_clients_are_dropped_with_the_connection_that_they_were_made_for() {
        let state = RegistryState::default();
        let connected = |uri: &str| connection_health::tests::connected(uri);
        let (first, client) = connected("http://127.0.0.1:1");
        state.record_success(first.clone(), client.clone());
        let stores = Arc::new(ArtifactStores::new(None, BTreeMap::new(), false));
        state.store_clients.record(&stores);
        state.record_success(first, client);
        assert!(state.store_clients.get(Duration::from_secs(60)).is_some());
        let (other, client) = connected("http://127.0.0.1:2");
        state.record_success(other, client);
        assert!(state.store_clients.get(Duration::from_secs(60)).is_none());
    }
}
