//! What every loop shares: the client, the stores by namespace, and the ways to wake each other.
//!
//! Absent: any copy of what a store holds.

use std::sync::Arc;

use futures::channel::mpsc::UnboundedSender;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};

use super::evidence::Book;
use super::hearing::Hearing;
use super::labelled::Labelled;
use super::lease::Fence;
use super::metrics::Metrics;
use super::registry_state::RegistryStates;
use super::written::Written;
use crate::api::{AliasBinding, ModelRegistry, RegisteredModel};
use crate::workload::{Job, Pod, ReplicaSet, Workload};

/// What every loop shares.
pub struct Context {
    /// The Kubernetes client.
    pub client: Client,
    /// One scope for each watched namespace, or one for all.
    pub scopes: Vec<Scope>,
    /// What was learned of each registry since the start.
    pub registries: RegistryStates,
    /// Pods of driven Deployments.
    pub pods: Arc<Labelled<Pod>>,
    /// ReplicaSets of driven Deployments.
    pub replica_sets: Arc<Labelled<ReplicaSet>>,
    /// Jobs that train again.
    pub jobs: Arc<Labelled<Job>>,
    /// Bindings as they were written last, where the watch lags behind.
    pub written: Written,
    /// What registries and stores answered of versions.
    pub book: Book,
    /// This cluster's name in the registry's tags.
    pub cluster_name: String,
    /// Whether `file:` artifacts are looked for in this process's own file system.
    pub allow_file_artifacts: bool,
    /// Models that were heard of and not asked for yet.
    pub hearing: Hearing,
    /// Open while this replica leads.
    pub fence: Fence,
    /// Whether deliveries of webhooks are listened to.
    pub hears_webhooks: bool,
    /// Writes Events.
    pub recorder: Recorder,
    /// Counts.
    pub metrics: Metrics,
}

/// The stores of one watched namespace, or of all, and the queues of their loops.
pub struct Scope {
    /// The namespace; `None` for all.
    pub namespace: Option<String>,
    /// Registries.
    pub registries: Store<ModelRegistry>,
    /// Registered models.
    pub models: Store<RegisteredModel>,
    /// Bindings.
    pub bindings: Store<AliasBinding>,
    /// Deployments that carry the binding's label.
    pub workloads: Store<Workload>,
    /// Wakes the registry loop.
    pub wake_registry: UnboundedSender<ObjectRef<ModelRegistry>>,
    /// Wakes the model loop.
    pub wake_model: UnboundedSender<ObjectRef<RegisteredModel>>,
    /// Wakes the binding loop.
    pub wake_binding: UnboundedSender<ObjectRef<AliasBinding>>,
}

impl Context {
    /// The scope that a namespace lies in; `None` where it is not watched.
    pub fn scope(&self, namespace: &str) -> Option<&Scope> {
        self.scopes.iter().find(|scope| scope.namespace.as_deref().is_none_or(|own| own == namespace))
    }

    /// A registry by namespace and name.
    pub fn registry(&self, namespace: &str, name: &str) -> Option<Arc<ModelRegistry>> {
        self.scope(namespace)?.registries.get(&ObjectRef::new(name).within(namespace))
    }

    /// A registered model by namespace and name.
    pub fn model(&self, namespace: &str, name: &str) -> Option<Arc<RegisteredModel>> {
        self.scope(namespace)?.models.get(&ObjectRef::new(name).within(namespace))
    }

    /// A labelled Deployment by namespace and name.
    pub fn workload(&self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        self.scope(namespace)?.workloads.get(&ObjectRef::new(name).within(namespace))
    }

    /// The registered models that name a registry, in all watched namespaces.
    pub fn models_of(&self, namespace: &str, registry: &str) -> Vec<Arc<RegisteredModel>> {
        let names_it = |model: &RegisteredModel| {
            let reference = &model.spec.registry_ref;
            reference.name == registry && registry_namespace(model) == namespace
        };
        self.scopes.iter().flat_map(|scope| scope.models.state()).filter(|model| names_it(model)).collect()
    }

    /// The bindings of a namespace that fulfil a condition.
    pub fn bindings(&self, namespace: &str, fulfils: impl Fn(&AliasBinding) -> bool) -> Vec<Arc<AliasBinding>> {
        let all = self.scope(namespace).map(|scope| scope.bindings.state()).unwrap_or_default();
        let in_namespace = |binding: &AliasBinding| binding.metadata.namespace.as_deref() == Some(namespace);
        all.into_iter().filter(|binding| in_namespace(binding) && fulfils(binding)).collect()
    }

    /// Wakes the loop of a registered model.
    pub fn wake_model(&self, namespace: &str, name: &str) {
        if let Some(scope) = self.scope(namespace) {
            // A closed queue means that the operator is stopping.
            let _ = scope.wake_model.unbounded_send(ObjectRef::new(name).within(namespace));
        }
    }

    /// Wakes the loop of a binding.
    pub fn wake_binding(&self, namespace: &str, name: &str) {
        if let Some(scope) = self.scope(namespace) {
            let _ = scope.wake_binding.unbounded_send(ObjectRef::new(name).within(namespace));
        }
    }

    /// Wakes the loop of a registry.
    pub fn wake_registry(&self, namespace: &str, name: &str) {
        if let Some(scope) = self.scope(namespace) {
            let _ = scope.wake_registry.unbounded_send(ObjectRef::new(name).within(namespace));
        }
    }
}

/// The namespace of the registry that a model names.
pub fn registry_namespace(model: &RegisteredModel) -> String {
    model.spec.registry_ref.namespace.clone().or_else(|| model.namespace()).unwrap_or_default()
}
