//! The state that all controllers share.
//!
//! Absent: decisions and watches.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::{Client, Resource};

use crate::api::alias_binding::TargetKind;
use crate::api::{AliasBinding, ModelRegistry, RegisteredModel};
use crate::controllers::binding::check_permits::CheckPermits;
use crate::controllers::binding::object_events::ObjectEvents;
use crate::controllers::binding::refused_writes::RefusedWrites;
use crate::controllers::binding::repeated_writes::RepeatedWrites;
use crate::controllers::cached::{
    binding_of, of_binding, of_model, of_registered_name, of_registry, of_workload,
};
use crate::controllers::frozen_namespaces::FrozenNamespace;
use crate::controllers::metrics::{Kind, Metrics};
use crate::controllers::registry::namespace_labels::NamespaceLabels;
use crate::controllers::registry::state::RegistryStates;
use crate::controllers::settings::OperatorSettings;
use crate::controllers::workloads::WorkloadStores;
use crate::kubernetes::event_recorder::EventRecorder;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lease::Fence;
use crate::kubernetes::progress::Progress;
use crate::kubernetes::status::{self, StatusWrite};
use crate::kubernetes::store::{Cached, Store};
use crate::kubernetes::work_queue::WorkQueue;
use crate::registries::{Connection, RegistryClient, RegistryError};
use crate::targets::{Job, Pod, ReplicaSet};

/// The delay of a registry's reconcile that a thousand objects may ask for within a moment.
const REGISTRY_DELAY: Duration = Duration::from_millis(500);

/// How long a reconcile may take. Requests, polls and checks have shorter deadlines, which the status tells.
pub const RECONCILE_DEADLINE: Duration = Duration::from_secs(240);

/// The state that all controllers share.
pub struct Context {
    /// The Kubernetes client.
    pub client: Client,
    /// How the operator is to run.
    pub settings: OperatorSettings,
    /// The objects of the cluster.
    pub stores: Stores,
    /// The work queues.
    pub queues: WorkQueues,
    /// What is known about each registry since the start.
    pub registries: RegistryStates,
    /// The labels of the namespaces that use registries of other namespaces.
    pub namespace_labels: NamespaceLabels,
    /// Writes that the API server refused.
    pub refused_writes: RefusedWrites,
    /// Writes that somebody undid.
    pub repeated_writes: RepeatedWrites,
    /// The permits for artifact checks.
    pub check_permits: CheckPermits,
    /// When each loop made progress last.
    pub progress: LoopProgress,
    /// The newest Warning Events about objects of blocked rollouts.
    pub object_events: ObjectEvents,
    /// Open while this replica leads.
    pub fence: Fence,
    /// Writes Events.
    pub event_recorder: EventRecorder,
    /// The metrics.
    pub metrics: Metrics,
}

/// The objects of the cluster, by kind.
#[derive(Default)]
pub struct Stores {
    /// Registries.
    pub registries: Store<ModelRegistry>,
    /// The registries whose status this shard writes. Only used in a shard.
    pub kept: Store<ModelRegistry>,
    /// Registered models.
    pub models: Store<RegisteredModel>,
    /// Bindings.
    pub bindings: Store<AliasBinding>,
    /// Workloads with the binding's label.
    pub workloads: WorkloadStores,
    /// Pods with the binding's label.
    pub pods: Store<Pod>,
    /// ReplicaSets with the binding's label.
    pub replica_sets: Store<ReplicaSet>,
    /// Retrain Jobs with the binding's label.
    pub jobs: Store<Job>,
    /// Namespaces that are frozen.
    pub frozen: Store<FrozenNamespace>,
}

/// When each loop made progress last.
#[derive(Clone, Default)]
pub struct LoopProgress {
    /// That of registries.
    pub registries: Progress,
    /// That of registered models.
    pub models: Progress,
    /// That of bindings.
    pub bindings: Progress,
}

impl LoopProgress {
    /// The kind whose loop has made no progress for so long; `None` if all have.
    pub fn stuck(&self, longest: Duration) -> Option<&'static str> {
        let loops = [
            ("ModelRegistry", &self.registries),
            ("RegisteredModel", &self.models),
            ("AliasBinding", &self.bindings),
        ];
        let (kind, _) = loops
            .iter()
            .find(|(_, progress)| progress.age() > longest)?;
        Some(kind)
    }
}

/// The work queues, by kind.
pub struct WorkQueues {
    /// Registries.
    pub registries: WorkQueue,
    /// Registered models.
    pub models: WorkQueue,
    /// Bindings.
    pub bindings: WorkQueue,
}

impl Stores {
    /// A registry by namespace and name.
    pub fn registry(&self, namespace: &str, name: &str) -> Option<Arc<ModelRegistry>> {
        let registry = self.registries.get(&ObjectKey::new(namespace, name));
        registry.map(Arc::new)
    }

    /// A registered model by namespace and name.
    pub fn model(&self, namespace: &str, name: &str) -> Option<RegisteredModel> {
        self.models.get(&ObjectKey::new(namespace, name))
    }

    /// The bindings that follow a registered model.
    pub fn bindings_of_model(&self, namespace: &str, model: &str) -> Vec<AliasBinding> {
        self.bindings.find(of_model(namespace, model), |binding| {
            binding.metadata.namespace.as_deref() == Some(namespace)
                && binding.spec.model_ref.name == model
        })
    }

    /// The other bindings that drive, or want to drive, the same workload as this one.
    pub fn rivals(
        &self,
        binding: &ObjectKey,
        kind: &TargetKind,
        workload: &str,
    ) -> Vec<AliasBinding> {
        let namespace = binding.namespace();
        self.bindings
            .find(of_workload(namespace, workload), |rival| {
                let key = ObjectKey::of(rival);
                key != *binding
                    && key.namespace() == namespace
                    && rival.workload_name() == workload
                    && rival.target_kind() == *kind
            })
    }
}

impl Context {
    /// A client of a registry, which sends changes only while this replica leads.
    pub fn connect(&self, mut connection: Connection) -> Result<RegistryClient, RegistryError> {
        connection.guard = self.settings.guard.clone();
        let (metrics, fence) = (self.metrics.requests.clone(), self.fence.clone());
        RegistryClient::connect_fenced(connection, metrics, Arc::new(move || fence.is_open()))
    }

    /// Replaces an object's status and counts the write.
    pub async fn write_status<K>(
        &self,
        store: &Store<K>,
        object: &K,
    ) -> Result<StatusWrite, ReconcileError>
    where
        K: Clone + Debug + Resource<Scope = NamespaceResourceScope> + Cached,
    {
        let written = status::write(&self.client, store, object).await;
        if !matches!(written, Ok(StatusWrite::Unchanged)) {
            self.metrics
                .status_writes
                .get_or_create(&Kind::of::<K>())
                .inc();
        }
        written
    }

    /// Whether the store holds all bindings, but for those of namespaces that are forbidden.
    pub fn knows_bindings(&self) -> bool {
        let watches = self.settings.scopes().len();
        self.stores.bindings.is_synced_as_allowed(watches)
    }

    /// Whether the store holds all bindings of a namespace.
    pub fn knows_bindings_of(&self, namespace: &str) -> bool {
        let scopes = self.settings.scopes();
        let mut scopes = scopes.iter().copied();
        let number = scopes.position(|scope| scope.is_none_or(|scope| scope == namespace));
        let number = number.and_then(|number| u16::try_from(number).ok());
        number.is_some_and(|number| self.stores.bindings.is_synced_by(number))
    }

    /// Whether this process writes a registry's status and registers its webhook: of several shards only one does.
    pub fn keeps(&self, registry: &ObjectKey) -> bool {
        !self.settings.is_sharded() || self.stores.kept.has(registry)
    }

    /// Enqueues all registered models that reference a registry.
    pub fn enqueue_models_of(&self, registry: &ObjectKey) {
        let models = self.stores.models.names(of_registry(registry));
        self.queues.models.enqueue_all(models);
    }

    /// Enqueues the same at low priority.
    pub fn enqueue_models_low_priority(&self, registry: &ObjectKey) {
        let models = self.stores.models.names(of_registry(registry));
        self.queues.models.enqueue_low_priority(models);
    }

    /// Enqueues the registered models with one of these names in a registry.
    pub fn enqueue_models_named(&self, registry: &ObjectKey, models: &BTreeSet<String>) {
        for model in models {
            self.enqueue_model_named(registry, model);
        }
    }

    /// Enqueues the registered models with this name in a registry.
    pub fn enqueue_model_named(&self, registry: &ObjectKey, model: &str) {
        let models = self
            .stores
            .models
            .names(of_registered_name(registry, model));
        self.queues.models.enqueue_all(models);
    }

    /// Enqueues the bindings that follow a registered model.
    pub fn enqueue_bindings_of_model(&self, model: &ObjectKey) {
        let key = of_model(model.namespace(), model.name());
        self.queues
            .bindings
            .enqueue_all(self.stores.bindings.names(key));
    }

    /// Enqueues the bindings that follow any model of a registry, at low priority.
    pub fn enqueue_bindings_low_priority(&self, registry: &ObjectKey) {
        for model in self.stores.models.names(of_registry(registry)) {
            let bindings = of_model(model.namespace(), model.name());
            let bindings = self.stores.bindings.names(bindings);
            self.queues.bindings.enqueue_low_priority(bindings);
        }
    }

    /// Enqueues the bindings that drive, or want to drive, a workload.
    pub fn enqueue_bindings_of_workload(&self, namespace: &str, workload: &str) {
        let key = of_workload(namespace, workload);
        self.queues
            .bindings
            .enqueue_all(self.stores.bindings.names(key));
    }

    /// Enqueues a registry after a short delay.
    pub fn enqueue_registry_delayed(&self, registry: ObjectKey) {
        self.queues
            .registries
            .enqueue_after(registry, REGISTRY_DELAY);
    }
}

/// The pods, ReplicaSets or Jobs whose label names a binding.
pub fn labelled<K: Cached>(store: &Store<K>, binding: &ObjectKey) -> Vec<K> {
    let key = of_binding(binding.namespace(), binding.name());
    store.find(key, |object| binding_of(object).as_ref() == Some(binding))
}
