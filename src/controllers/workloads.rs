//! The stored kinds of workloads.
//!
//! Absent: how a kind is read; see `targets`. A new kind is one arm of [`with_kind`], and one line each below it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use kube::api::ApiResource;

use crate::api::alias_binding::{OtherKind, TargetKind};
use crate::kubernetes::store::Store;
use crate::targets::{Adapter, AnyObject, ArgoRollout, Workload};

/// The one match over the kinds: evaluates an expression with `$adapter` as the type of the workload, or another one with
/// `$other` as the name of a kind that no type stands for.
macro_rules! with_kind {
    ($kind:expr, $adapter:ident => $body:expr, $other:ident => $otherwise:expr) => {
        match $kind {
            $crate::api::alias_binding::TargetKind::Deployment => {
                type $adapter = k8s_openapi::api::apps::v1::Deployment;
                $body
            }
            $crate::api::alias_binding::TargetKind::StatefulSet => {
                type $adapter = k8s_openapi::api::apps::v1::StatefulSet;
                $body
            }
            $crate::api::alias_binding::TargetKind::DaemonSet => {
                type $adapter = k8s_openapi::api::apps::v1::DaemonSet;
                $body
            }
            $crate::api::alias_binding::TargetKind::Rollout => {
                type $adapter = $crate::targets::ArgoRollout;
                $body
            }
            $crate::api::alias_binding::TargetKind::CronJob => {
                type $adapter = k8s_openapi::api::batch::v1::CronJob;
                $body
            }
            $crate::api::alias_binding::TargetKind::Other($other) => $otherwise,
        }
    };
}

/// A kind whose workloads are stored.
pub trait Stored: Adapter {
    /// Its store.
    fn store(stores: &WorkloadStores) -> &Store<Workload<Self>>;
}

impl Stored for Deployment {
    fn store(stores: &WorkloadStores) -> &Store<Workload<Self>> {
        &stores.deployments
    }
}

impl Stored for StatefulSet {
    fn store(stores: &WorkloadStores) -> &Store<Workload<Self>> {
        &stores.stateful_sets
    }
}

impl Stored for DaemonSet {
    fn store(stores: &WorkloadStores) -> &Store<Workload<Self>> {
        &stores.daemon_sets
    }
}

impl Stored for ArgoRollout {
    fn store(stores: &WorkloadStores) -> &Store<Workload<Self>> {
        &stores.rollouts
    }
}

impl Stored for CronJob {
    fn store(stores: &WorkloadStores) -> &Store<Workload<Self>> {
        &stores.cron_jobs
    }
}

pub(crate) use with_kind;

/// The workloads with the binding's label, by kind.
#[derive(Default)]
pub struct WorkloadStores {
    /// Deployments.
    pub deployments: Store<Workload<Deployment>>,
    /// StatefulSets.
    pub stateful_sets: Store<Workload<StatefulSet>>,
    /// DaemonSets.
    pub daemon_sets: Store<Workload<DaemonSet>>,
    /// Argo Rollouts.
    pub rollouts: Store<Workload<ArgoRollout>>,
    /// CronJobs.
    pub cron_jobs: Store<Workload<CronJob>>,
    /// Objects of other kinds.
    pub others: BTreeMap<OtherKind, OtherStore>,
    none: Store<AnyObject>,
}

/// The objects of a kind that no type stands for.
pub struct OtherStore {
    /// How the kind is addressed.
    pub resource: ApiResource,
    /// The objects.
    pub objects: Store<AnyObject>,
}

impl WorkloadStores {
    /// Stores for the kinds with types, and for these.
    #[must_use]
    pub fn with(others: &[ApiResource]) -> Self {
        let store = |resource: &ApiResource| {
            let kind = OtherKind {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            };
            let objects = Store::default();
            let resource = resource.clone();
            (kind, OtherStore { resource, objects })
        };
        Self {
            others: others.iter().map(store).collect(),
            ..Self::default()
        }
    }

    /// The objects of a kind that no type stands for; none if it is not switched on.
    #[must_use]
    pub fn other(&self, kind: &OtherKind) -> &Store<AnyObject> {
        let store = self.others.get(kind);
        store.map_or(&self.none, |store| &store.objects)
    }

    /// Waits until so many watches of these kinds are synced.
    pub async fn wait_until_synced(&self, kinds: &[TargetKind], watches: usize) {
        for kind in kinds {
            with_kind!(kind,
                K => K::store(self).wait_until_synced(watches).await,
                _other => {});
        }
        for store in self.others.values() {
            store.objects.wait_until_synced(watches).await;
        }
    }
}
