//! What every loop shares: the client, what the cluster showed, and the ways to enqueue each other.
//!
//! Absent: decisions, and any watch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::{Client, Resource};

use crate::api::{AliasBinding, ModelRegistry, RegisteredModel};
use crate::controllers::binding::artifact_checks::ArtifactChecks;
use crate::controllers::cached::{
    binding_of, of_binding, of_model, of_registered_name, of_registry, of_workload, registry_of,
};
use crate::controllers::metrics::{Kind, Metrics};
use crate::controllers::registry::refresh_batcher::RefreshBatcher;
use crate::controllers::registry::state::RegistryStates;
use crate::kubernetes::event_recorder::EventRecorder;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lease::Fence;
use crate::kubernetes::status;
use crate::kubernetes::store::{Cached, Store};
use crate::kubernetes::work_queue::WorkQueue;
use crate::targets::{Job, Pod, ReplicaSet, Workload};

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
    pub stores: Stores,
    /// The loops' queues.
    pub queues: WorkQueues,
    /// What was learned of each registry since the start.
    pub registries: RegistryStates,
    /// What registries and stores answered of versions.
    pub artifact_checks: ArtifactChecks,
    /// This cluster's name in the registry's tags.
    pub cluster_name: String,
    /// Whether `file:` artifacts are looked for in this process's own file system.
    pub allow_file_artifacts: bool,
    /// Whether a metric names each binding.
    pub binding_info_metric: bool,
    /// Models that were heard of and not asked for yet.
    pub refresh_batcher: RefreshBatcher,
    /// Open while this replica leads.
    pub fence: Fence,
    /// Whether deliveries of webhooks are listened to.
    pub hears_webhooks: bool,
    /// Writes Events.
    pub event_recorder: EventRecorder,
    /// Counts.
    pub metrics: Metrics,
}

/// What the cluster showed, by kind.
#[derive(Default)]
pub struct Stores {
    /// Registries.
    pub registries: Store<ModelRegistry>,
    /// In a shard, those registries that it keeps: whose status it writes.
    pub kept: Store<ModelRegistry>,
    /// Registered models.
    pub models: Store<RegisteredModel>,
    /// Bindings.
    pub bindings: Store<AliasBinding>,
    /// Deployments that carry the binding's label.
    pub workloads: Store<Workload>,
    /// Pods of driven Deployments.
    pub pods: Store<Pod>,
    /// ReplicaSets of driven Deployments.
    pub replica_sets: Store<ReplicaSet>,
    /// Jobs that train again.
    pub jobs: Store<Job>,
}

/// The loops' queues.
pub struct WorkQueues {
    /// Registries.
    pub registries: WorkQueue,
    /// Registered models.
    pub models: WorkQueue,
    /// Bindings.
    pub bindings: WorkQueue,
}

impl Context {
    /// Replaces an object's status and counts the write. False if the object was deleted meanwhile.
    pub async fn write_status<K>(
        &self,
        store: &Store<K>,
        kind: &'static str,
        object: &K,
    ) -> Result<bool, ReconcileError>
    where
        K: Clone + std::fmt::Debug + Resource<Scope = NamespaceResourceScope> + Cached,
    {
        self.metrics
            .status_writes
            .get_or_create(&Kind { kind })
            .inc();
        status::write(&self.client, store, object).await
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
        self.stores.bindings.is_filled(self.scopes().len())
    }

    /// Whether this process writes a registry's status and cares for its webhook: of several shards only one does.
    pub fn keeps(&self, registry: &ObjectKey) -> bool {
        !self.is_sharded || self.stores.kept.has(registry)
    }

    /// A registry by namespace and name.
    pub fn registry(&self, namespace: &str, name: &str) -> Option<Arc<ModelRegistry>> {
        self.stores
            .registries
            .get(&ObjectKey::new(namespace, name))
            .map(Arc::new)
    }

    /// A registered model by namespace and name.
    pub fn model(&self, namespace: &str, name: &str) -> Option<RegisteredModel> {
        self.stores.models.get(&ObjectKey::new(namespace, name))
    }

    /// The registered models that name a registry, in all watched namespaces; one unpacked at a time.
    pub fn models_of(
        &self,
        registry: &ObjectKey,
    ) -> impl Iterator<Item = RegisteredModel> + use<'_> {
        let registry = registry.clone();
        let names = self.stores.models.names(of_registry(&registry));
        let models = names
            .into_iter()
            .filter_map(|name| self.stores.models.get(&name));
        models.filter(move |model| registry_of(model) == registry)
    }

    /// The bindings that follow a registered model.
    pub fn bindings_of_model(&self, namespace: &str, model: &str) -> Vec<AliasBinding> {
        let follows = |binding: &AliasBinding| {
            binding.metadata.namespace.as_deref() == Some(namespace)
                && binding.spec.model_ref.name == model
        };
        self.stores
            .bindings
            .find(of_model(namespace, model), follows)
    }

    /// The bindings, beside this one, that drive or would drive a Deployment of its namespace.
    pub fn rivals(&self, own: &ObjectKey, workload: &str) -> Vec<AliasBinding> {
        let mut names = self
            .stores
            .bindings
            .names(of_workload(own.namespace(), workload));
        names.retain(|name| name != own && name.namespace() == own.namespace());
        let rivals = names
            .iter()
            .filter_map(|name| self.stores.bindings.get(name));
        rivals
            .filter(|rival| rival.workload_name() == workload)
            .collect()
    }

    /// Wakes the loops of all registered models that name a registry.
    pub fn enqueue_models_of(&self, registry: &ObjectKey) {
        self.queues
            .models
            .enqueue_all(self.stores.models.names(of_registry(registry)));
    }

    /// Wakes the same, behind those of which there is news.
    pub fn enqueue_models_low_priority(&self, registry: &ObjectKey) {
        self.queues
            .models
            .enqueue_low_priority(self.stores.models.names(of_registry(registry)));
    }

    /// Wakes the loops of the registered models that have one of these names in a registry.
    pub fn enqueue_models_named(&self, registry: &ObjectKey, models: &BTreeSet<String>) {
        for model in models {
            self.enqueue_model_named(registry, model);
        }
    }

    /// Wakes the loops of the registered models that have this name in a registry.
    pub fn enqueue_model_named(&self, registry: &ObjectKey, model: &str) {
        self.queues.models.enqueue_all(
            self.stores
                .models
                .names(of_registered_name(registry, model)),
        );
    }

    /// Wakes the loops of the bindings that follow a registered model.
    pub fn enqueue_bindings_of_model(&self, model: &ObjectKey) {
        self.queues.bindings.enqueue_all(
            self.stores
                .bindings
                .names(of_model(model.namespace(), model.name())),
        );
    }

    /// Wakes the loops of the bindings that drive, or would drive, a Deployment.
    pub fn enqueue_bindings_of_workload(&self, namespace: &str, workload: &str) {
        self.queues
            .bindings
            .enqueue_all(self.stores.bindings.names(of_workload(namespace, workload)));
    }

    /// Wakes the loop of a registered model.
    pub fn enqueue_model(&self, namespace: &str, name: &str) {
        self.queues.models.enqueue(ObjectKey::new(namespace, name));
    }

    /// Wakes the loop of a binding.
    pub fn enqueue_binding(&self, namespace: &str, name: &str) {
        self.queues
            .bindings
            .enqueue(ObjectKey::new(namespace, name));
    }

    /// Wakes the loop of a registry soon: for what may come a thousand times within a moment.
    pub fn enqueue_registry_delayed(&self, registry: ObjectKey) {
        self.queues
            .registries
            .enqueue_after(registry, Duration::from_millis(500));
    }
}

/// The pods, ReplicaSets or Jobs that a binding's name labels.
pub fn labelled<K: Cached>(store: &Store<K>, binding: &ObjectKey) -> Vec<K> {
    let is_labelled = |object: &K| binding_of(object).as_ref() == Some(binding);
    store.find(of_binding(binding.namespace(), binding.name()), is_labelled)
}
