//! The state of each registry since the start of the process. Each part has a type, a file and a
//! lock of its own.
//!
//! Absent: state that must survive a restart. That is in the cluster.

pub mod artifact_cache;
pub mod candidate_tags;
pub mod connection_health;
pub mod negative_cache;
pub mod poll_schedule;
pub mod request_log;
pub mod snapshot_cache;
pub mod store_clients;
pub mod uri_rechecks;
pub mod version_sizes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kube::ResourceExt;

use crate::api::ModelRegistry;
use crate::controllers::registry::known_tags::KnownTags;
use crate::controllers::registry::refresh_batcher::RefreshBatcher;
use crate::controllers::registry::state::artifact_cache::ArtifactCache;
use crate::controllers::registry::state::candidate_tags::CandidateTags;
use crate::controllers::registry::state::connection_health::ConnectionHealth;
use crate::controllers::registry::state::negative_cache::NegativeCache;
use crate::controllers::registry::state::poll_schedule::PollSchedule;
use crate::controllers::registry::state::request_log::RequestLog;
use crate::controllers::registry::state::snapshot_cache::SnapshotCache;
use crate::controllers::registry::state::store_clients::StoreClients;
use crate::controllers::registry::state::uri_rechecks::UriRechecks;
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
    all: Mutex<HashMap<ObjectKey, KeyedState>>,
}

/// The state of a registry, and the UID of the object that it belongs to, once that is known.
#[derive(Default)]
struct KeyedState {
    uid: Option<String>,
    state: Arc<RegistryState>,
}

impl RegistryStates {
    /// The state of a registry; a new one if there is none yet.
    pub fn of(&self, registry: &ObjectKey) -> Arc<RegistryState> {
        let mut all = lock(&self.all);
        Arc::clone(&all.entry(registry.clone()).or_default().state)
    }

    /// The state of this very object. The state of another object of the same name, which was
    /// deleted, is dropped.
    pub fn of_object(&self, registry: &ModelRegistry) -> Arc<RegistryState> {
        let mut all = lock(&self.all);
        let keyed = all.entry(ObjectKey::of(registry)).or_default();
        let uid = registry.uid();
        if keyed.uid != uid {
            *keyed = KeyedState {
                uid,
                state: Arc::default(),
            };
        }
        Arc::clone(&keyed.state)
    }

    /// Whether this is still the state of the registry of that name.
    pub fn is_current(&self, registry: &ObjectKey, state: &RegistryState) -> bool {
        let all = lock(&self.all);
        all.get(registry)
            .is_some_and(|keyed| std::ptr::eq(Arc::as_ptr(&keyed.state), state))
    }

    /// Visits all states.
    pub fn for_each(&self, visit: impl Fn(&RegistryState)) {
        for keyed in lock(&self.all).values() {
            visit(&keyed.state);
        }
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
    /// The models whose artifact URIs are requested again.
    pub rechecks: UriRechecks,
    /// The models whose candidates' tags are read.
    pub candidate_tags: CandidateTags,
    /// The sizes of new versions.
    pub sizes: VersionSizes,
    /// The results of artifact checks.
    pub artifacts: ArtifactCache,
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
    use std::convert::Infallible;

    use serde_json::json;

    use super::*;
    use crate::artifacts::ArtifactStores;

    #[tokio::test]
    async fn store_clients_are_dropped_with_the_connection_that_they_were_made_for() {
        let state = RegistryState::default();
        let connected = |uri: &str| connection_health::tests::connected(uri);
        let get = async || {
            let make =
                async { Ok::<_, Infallible>(ArtifactStores::new(None, BTreeMap::new(), false)) };
            let Ok(stores) = state.store_clients.get_or_make(1, make).await;
            stores
        };
        let (first, client) = connected("http://127.0.0.1:1");
        state.record_success(first.clone(), client.clone());
        let stores = get().await;
        state.record_success(first, client);
        assert!(Arc::ptr_eq(&stores, &get().await));
        let (other, client) = connected("http://127.0.0.1:2");
        state.record_success(other, client);
        assert!(!Arc::ptr_eq(&stores, &get().await));
    }

    #[test]
    fn a_registry_that_is_made_again_begins_with_a_state_of_its_own() {
        let states = RegistryStates::default();
        let registry = |uid: &str| -> ModelRegistry {
            let object = json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": "ModelRegistry",
                "metadata": {"namespace": "ml", "name": "mlflow", "uid": uid},
                "spec": {"mlflow": {"uri": "http://mlflow:5000"}}});
            serde_json::from_value(object).expect("a registry")
        };
        let key = ObjectKey::new("ml", "mlflow");
        let first = states.of_object(&registry("1"));
        assert!(Arc::ptr_eq(&first, &states.of_object(&registry("1"))));
        assert!(states.is_current(&key, &first));
        let second = states.of_object(&registry("2"));
        assert!(!Arc::ptr_eq(&first, &second) && !states.is_current(&key, &first));
        assert!(Arc::ptr_eq(&second, &states.of(&key)));
        states.forget(&key);
        assert!(!states.is_current(&key, &second));
    }
}
