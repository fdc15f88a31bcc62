//! Refreshes the snapshots of many models with few requests, and finds the models that changed.
//! Polls and webhooks both use it.
//!
//! Absent: retries, and the queue. The caller enqueues the models.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::api::RegisteredModelStatus;
use crate::controllers::cached::of_registered_name;
use crate::controllers::context::Context;
use crate::controllers::registry::access::may_use;
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::state::snapshot_cache::Recorded;
use crate::kubernetes::key::ObjectKey;
use crate::registries::{ModelSnapshot, RegistryClient, RegistryError};

/// How many of a model's newest versions are mirrored, aliased or not.
pub const NEWEST_VERSIONS: u32 = 5;

/// The models that a refresh found changed.
#[derive(Debug, Default)]
pub struct RefreshedModels {
    /// Models with a new snapshot, and models that the response lacked.
    pub changed: BTreeSet<String>,
    /// Those of them whose mirrors name other versions. They are reconciled before the others.
    pub outdated: BTreeSet<String>,
}

/// One refresh of many models.
pub struct Refresh<'a> {
    ctx: &'a Context,
    registry: &'a ObjectKey,
    state: &'a RegistryState,
    requested_at: Instant,
    refreshed: RefreshedModels,
    /// Models whose newest version is not mirrored yet.
    unlisted: BTreeSet<String>,
    /// Models that the response lacks so far.
    missing: BTreeSet<String>,
}

impl<'a> Refresh<'a> {
    /// A refresh that begins now.
    pub fn new(ctx: &'a Context, registry: &'a ObjectKey, state: &'a RegistryState) -> Self {
        Self {
            ctx,
            registry,
            state,
            requested_at: Instant::now(),
            refreshed: RefreshedModels::default(),
            unlisted: BTreeSet::new(),
            missing: BTreeSet::new(),
        }
    }

    /// Requests the snapshots of these models and records them.
    pub async fn run(
        mut self,
        client: &RegistryClient,
        models: &BTreeSet<String>,
    ) -> Result<RefreshedModels, RegistryError> {
        self.missing.clone_from(models);
        client
            .for_each_snapshot(models, |snapshot| self.record(&snapshot))
            .await?;
        self.list_versions(client).await;
        self.invalidate_missing();
        tracing::debug!(
            registry = self.registry.name(),
            models = models.len(),
            changed = self.refreshed.changed.len(),
            outdated = self.refreshed.outdated.len(),
            missing = self.missing.len(),
            took = ?self.requested_at.elapsed(),
            "models were refreshed"
        );
        Ok(self.refreshed)
    }

    fn record(&mut self, snapshot: &ModelSnapshot) {
        let model = &snapshot.name;
        self.missing.remove(model);
        let recorded = self
            .state
            .snapshots
            .record(model, Some(snapshot), self.requested_at);
        let Recorded::Changed { alias_moved_since } = recorded else {
            return;
        };
        if let Some(since) = alias_moved_since {
            let webhook = &self.state.webhook;
            webhook.expect_delivery(model, since, self.requested_at);
        }
        self.refreshed.changed.insert(model.clone());
        for mirror in mirrors(self.ctx, self.registry, model) {
            if !lists_newest(&mirror, snapshot) {
                self.unlisted.insert(model.clone());
            }
            if is_outdated(&mirror, snapshot) {
                self.refreshed.outdated.insert(model.clone());
            }
        }
    }

    /// Lists the newest versions of models with new versions, many models in one request. A model
    /// that this leaves out requests its versions itself, and so does a single one.
    async fn list_versions(&self, client: &RegistryClient) {
        if self.unlisted.len() < 2 {
            return;
        }
        let models: Vec<&str> = self.unlisted.iter().map(String::as_str).collect();
        match client.newest_versions_of(&models, NEWEST_VERSIONS).await {
            Ok(versions) => self.state.snapshots.record_versions(versions),
            Err(error) => {
                tracing::debug!(%error, "the versions of many models cannot be listed together");
            }
        }
    }

    /// A model that one response lacks is not deleted yet (`fail_static`): its own reconcile
    /// requests it directly.
    fn invalidate_missing(&mut self) {
        for model in &self.missing {
            self.state.snapshots.invalidate(model);
            self.refreshed.changed.insert(model.clone());
        }
    }
}

/// The statuses of all `RegisteredModels` that mirror this model; an empty status if none was
/// written yet.
fn mirrors(ctx: &Context, registry: &ObjectKey, model: &str) -> Vec<RegisteredModelStatus> {
    let stored = &ctx.stores.models;
    let mut mirrors = Vec::new();
    for key in stored.names(of_registered_name(registry, model)) {
        if may_use(ctx, registry, key.namespace())
            && let Some(object) = stored.get(&key)
            && object.model_name() == model
        {
            mirrors.push(object.status.unwrap_or_default());
        }
    }
    mirrors
}

/// Whether the mirror has the model's newest version already.
fn lists_newest(mirror: &RegisteredModelStatus, snapshot: &ModelSnapshot) -> bool {
    snapshot.latest_version.is_none() || mirror.latest_version == snapshot.latest_version
}

/// Whether the mirror names other versions than the snapshot, or is one of another model of the
/// same name.
fn is_outdated(mirror: &RegisteredModelStatus, snapshot: &ModelSnapshot) -> bool {
    let aliases = mirror.aliases.iter();
    let aliases: BTreeMap<_, _> = aliases.map(|alias| (&alias.name, &alias.version)).collect();
    let stages = mirror.stages.iter();
    let stages: BTreeMap<_, _> = stages.map(|stage| (&stage.name, &stage.version)).collect();
    mirror.created_at != snapshot.created_at.map(MicroTime)
        || mirror.latest_version != snapshot.latest_version
        || aliases != snapshot.aliases.iter().collect()
        || stages != snapshot.stages.iter().collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::registered_model::MirroredAlias;

    fn snapshot() -> ModelSnapshot {
        ModelSnapshot {
            name: "taxi".to_owned(),
            latest_version: Some("2".to_owned()),
            aliases: BTreeMap::from([("champion".to_owned(), "1".to_owned())]),
            ..ModelSnapshot::default()
        }
    }

    fn mirror(alias: &str, version: &str, latest: &str) -> RegisteredModelStatus {
        RegisteredModelStatus {
            latest_version: Some(latest.to_owned()),
            aliases: vec![MirroredAlias {
                name: alias.to_owned(),
                version: version.to_owned(),
                since: Time(Timestamp::UNIX_EPOCH),
            }],
            ..RegisteredModelStatus::default()
        }
    }

    #[test]
    fn a_mirror_is_outdated_if_it_names_another_version() {
        assert!(!is_outdated(&mirror("champion", "1", "2"), &snapshot()));
        assert!(is_outdated(&mirror("champion", "2", "2"), &snapshot()));
        assert!(is_outdated(&mirror("other", "1", "2"), &snapshot()));
        assert!(is_outdated(&mirror("champion", "1", "1"), &snapshot()));
        assert!(is_outdated(&RegisteredModelStatus::default(), &snapshot()));
    }

    #[test]
    fn a_mirror_of_an_earlier_model_of_the_same_name_is_outdated() {
        let created_again = ModelSnapshot {
            created_at: Some(Timestamp::UNIX_EPOCH),
            ..snapshot()
        };
        assert!(is_outdated(&mirror("champion", "1", "2"), &created_again));
    }

    #[test]
    fn versions_are_listed_if_the_newest_is_not_mirrored() {
        assert!(lists_newest(&mirror("champion", "1", "2"), &snapshot()));
        assert!(!lists_newest(&mirror("champion", "1", "1"), &snapshot()));
        let empty = ModelSnapshot::default();
        assert!(lists_newest(&mirror("champion", "1", "1"), &empty));
    }
}
