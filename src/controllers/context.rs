//! What every loop shares: the client, what the cluster showed, and the ways to wake each other.
//!
//! Absent: decisions, and any watch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};

use crate::api::{AliasBinding, ModelRegistry, RegisteredModel};
use crate::controllers::binding::artifact_checks::Book;
use crate::controllers::cached::{
    binding_of, of_binding, of_model, of_registered_name, of_registry, of_workload, registry_of,
};
use crate::controllers::metrics::{Kind, Metrics};
use crate::controllers::registry::refresh::Hearing;
use crate::controllers::registry::state::RegistryStates;
use crate::kubernetes::deferred_writes::Telling;
use crate::kubernetes::event_recorder::Announcer;
use crate::kubernetes::failure::Failure;
use crate::kubernetes::key::Name;
use crate::kubernetes::lease::Fence;
use crate::kubernetes::status;
use crate::kubernetes::store::{Shelf, Shelved};
use crate::kubernetes::work_queue::{Queue, Room};
use crate::targets::{Job, Pod, ReplicaSet, Workload};

/// How many passes of one kind are under way at the same time; of bindings until their Deployments are written.
const PASSES: usize = 16;

/// What every loop shares.
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own, that whoever installs the operator sets
pub struct Context {
    /// The Kubernetes client.
    pub client: Client,
    /// The namespaces that are watched; all where it is empty.
    pub namespaces: BTreeSet<String>,
    /// Whether other processes have other shards of the same cluster.
    pub is_sharded: bool,
    /// What the cluster showed.
    pub shelves: Shelves,
    /// The loops' queues.
    pub queues: Queues,
    /// What was learned of each registry since the start.
    pub registries: RegistryStates,
    /// What registries and stores answered of versions.
    pub book: Book,
    /// How many passes are under way at the same time.
    pub rooms: Rooms,
    /// This cluster's name in the registry's tags.
    pub cluster_name: String,
    /// Whether `file:` artifacts are looked for in this process's own file system.
    pub allow_file_artifacts: bool,
    /// Whether a metric names each binding.
    pub binding_info_metric: bool,
    /// Models that were heard of and not asked for yet.
    pub hearing: Hearing,
    /// Open while this replica leads.
    pub fence: Fence,
    /// Whether deliveries of webhooks are listened to.
    pub hears_webhooks: bool,
    /// Writes Events.
    pub announcer: Announcer,
    /// Counts.
    pub metrics: Metrics,
}

/// What the cluster showed, by kind.
#[derive(Default)]
pub struct Shelves {
    /// Registries.
    pub registries: Shelf<ModelRegistry>,
    /// In a shard, those registries that it keeps: whose status it writes.
    pub kept: Shelf<ModelRegistry>,
    /// Registered models.
    pub models: Shelf<RegisteredModel>,
    /// Bindings.
    pub bindings: Shelf<AliasBinding>,
    /// Deployments that carry the binding's label.
    pub workloads: Shelf<Workload>,
    /// Pods of driven Deployments.
    pub pods: Shelf<Pod>,
    /// ReplicaSets of driven Deployments.
    pub replica_sets: Shelf<ReplicaSet>,
    /// Jobs that train again.
    pub jobs: Shelf<Job>,
}

/// The loops' queues.
pub struct Queues {
    /// Registries.
    pub registries: Queue,
    /// Registered models.
    pub models: Queue,
    /// Bindings.
    pub bindings: Queue,
}

/// How many passes of each kind are under way at the same time.
pub struct Rooms {
    /// Registries.
    pub registries: Room,
    /// Registered models.
    pub models: Room,
    /// Bindings, until their Deployments are written.
    pub bindings: Room,
    /// Bindings, from there on.
    pub telling: Telling,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            registries: Room::for_passes(PASSES),
            models: Room::for_passes(PASSES),
            bindings: Room::for_passes(PASSES),
            telling: Telling::default(),
        }
    }
}

impl Context {
    /// Replaces an object's status and counts the write. False if the object was deleted meanwhile.
    pub async fn write_status<K>(
        &self,
        shelf: &Shelf<K>,
        kind: &'static str,
        object: &K,
    ) -> Result<bool, Failure>
    where
        K: Clone + std::fmt::Debug + Resource<Scope = NamespaceResourceScope> + Shelved,
    {
        self.metrics
            .status_writes
            .get_or_create(&Kind { kind })
            .inc();
        status::write(&self.client, shelf, object).await
    }

    /// Whether a namespace is watched.
    pub fn watches(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }

    /// The namespaces that each kind is watched in, each by a watch of its own, in the order of their numbers; none for all at once.
    pub fn scopes(&self) -> Vec<Option<&str>> {
        let named: Vec<_> = self
            .namespaces
            .iter()
            .map(|namespace| Some(namespace.as_str()))
            .collect();
        if named.is_empty() { vec![None] } else { named }
    }

    /// Whether all bindings are known that there are.
    pub fn knows_bindings(&self) -> bool {
        self.shelves.bindings.is_filled(self.scopes().len())
    }

    /// Whether this process writes a registry's status and cares for its webhook: of several shards only one does.
    pub fn keeps(&self, registry: &Name) -> bool {
        !self.is_sharded || self.shelves.kept.has(registry)
    }

    /// A registry by namespace and name.
    pub fn registry(&self, namespace: &str, name: &str) -> Option<Arc<ModelRegistry>> {
        self.shelves
            .registries
            .get(&Name::new(namespace, name))
            .map(Arc::new)
    }

    /// A registered model by namespace and name.
    pub fn model(&self, namespace: &str, name: &str) -> Option<RegisteredModel> {
        self.shelves.models.get(&Name::new(namespace, name))
    }

    /// The registered models that name a registry, in all watched namespaces; one unpacked at a time.
    pub fn models_of(&self, registry: &Name) -> impl Iterator<Item = RegisteredModel> + use<'_> {
        let registry = registry.clone();
        let names = self.shelves.models.names(of_registry(&registry));
        let models = names
            .into_iter()
            .filter_map(|name| self.shelves.models.get(&name));
        models.filter(move |model| registry_of(model) == registry)
    }

    /// The bindings that follow a registered model.
    pub fn bindings_of_model(&self, namespace: &str, model: &str) -> Vec<AliasBinding> {
        let follows = |binding: &AliasBinding| {
            binding.metadata.namespace.as_deref() == Some(namespace)
                && binding.spec.model_ref.name == model
        };
        self.shelves
            .bindings
            .find(of_model(namespace, model), follows)
    }

    /// The bindings, beside this one, that drive or would drive a Deployment of its namespace.
    pub fn rivals(&self, own: &Name, workload: &str) -> Vec<AliasBinding> {
        let mut names = self
            .shelves
            .bindings
            .names(of_workload(own.namespace(), workload));
        names.retain(|name| name != own && name.namespace() == own.namespace());
        let rivals = names
            .iter()
            .filter_map(|name| self.shelves.bindings.get(name));
        rivals
            .filter(|rival| rival.workload_name() == workload)
            .collect()
    }

    /// Wakes the loops of all registered models that name a registry.
    pub fn wake_models_of(&self, registry: &Name) {
        self.queues
            .models
            .wake_all(self.shelves.models.names(of_registry(registry)));
    }

    /// Wakes the same, behind those of which there is news.
    pub fn wake_models_behind(&self, registry: &Name) {
        self.queues
            .models
            .wake_behind(self.shelves.models.names(of_registry(registry)));
    }

    /// Wakes the loops of the registered models that have one of these names in a registry.
    pub fn wake_models_named(&self, registry: &Name, models: &BTreeSet<String>) {
        for model in models {
            self.wake_model_named(registry, model);
        }
    }

    /// Wakes the loops of the registered models that have this name in a registry.
    pub fn wake_model_named(&self, registry: &Name, model: &str) {
        self.queues.models.wake_all(
            self.shelves
                .models
                .names(of_registered_name(registry, model)),
        );
    }

    /// Wakes the loops of the bindings that follow a registered model.
    pub fn wake_bindings_of_model(&self, model: &Name) {
        self.queues.bindings.wake_all(
            self.shelves
                .bindings
                .names(of_model(model.namespace(), model.name())),
        );
    }

    /// Wakes the loops of the bindings that drive, or would drive, a Deployment.
    pub fn wake_bindings_of_workload(&self, namespace: &str, workload: &str) {
        self.queues.bindings.wake_all(
            self.shelves
                .bindings
                .names(of_workload(namespace, workload)),
        );
    }

    /// Wakes the loop of a registered model.
    pub fn wake_model(&self, namespace: &str, name: &str) {
        self.queues.models.wake(Name::new(namespace, name));
    }

    /// Wakes the loop of a binding.
    pub fn wake_binding(&self, namespace: &str, name: &str) {
        self.queues.bindings.wake(Name::new(namespace, name));
    }

    /// Wakes the loop of a registry soon: for what may come a thousand times within a moment.
    pub fn wake_registry_soon(&self, registry: Name) {
        self.queues
            .registries
            .wake_after(registry, Duration::from_millis(500));
    }
}

/// The pods, ReplicaSets or Jobs that a binding's name labels.
pub fn labelled<K: Shelved>(shelf: &Shelf<K>, binding: &Name) -> Vec<K> {
    let is_labelled = |object: &K| binding_of(object).as_ref() == Some(binding);
    shelf.find(of_binding(binding.namespace(), binding.name()), is_labelled)
}

/// The namespace of the registry that a model names.
pub fn registry_namespace(model: &RegisteredModel) -> String {
    model
        .spec
        .registry_ref
        .namespace
        .clone()
        .or_else(|| model.namespace())
        .unwrap_or_default()
}
