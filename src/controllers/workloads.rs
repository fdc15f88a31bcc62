//! The stored kinds of workloads.
//!
//! Absent: how a kind is read; see `targets`. A new kind is one arm of [`with_kind`], and one line each below it.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};

use crate::api::alias_binding::TargetKind;
use crate::kubernetes::store::Store;
use crate::targets::{Adapter, ArgoRollout, Workload};

/// The one match over the kinds: evaluates an expression with `$adapter` as the type of the workload.
macro_rules! with_kind {
    ($kind:expr, $adapter:ident => $body:expr) => {
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
}

impl WorkloadStores {
    /// Waits until so many watches of these kinds are synced.
    pub async fn wait_until_synced(&self, kinds: &[TargetKind], watches: usize) {
        for kind in kinds {
            with_kind!(kind, K => K::store(self).wait_until_synced(watches).await);
        }
    }
}
