//! How the operator is to run.
//!
//! Absent: where settings come from; see `cli`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use kube::api::ApiResource;

use crate::api::alias_binding::TargetKind;
use crate::http::guard::AddressGuard;
use crate::kubernetes::lease::Election;

/// How the operator is to run.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent switches
pub struct OperatorSettings {
    /// The address of health and metrics.
    pub health_address: SocketAddr,
    /// How to receive webhooks; `None` if registries are only polled.
    pub webhook: Option<WebhookSettings>,
    /// The namespaces to watch; all if it is empty.
    pub watch_namespaces: BTreeSet<String>,
    /// This process's name in Events.
    pub instance: Option<String>,
    /// This cluster's name in registries. Empty: the UID of the namespace kube-system.
    pub cluster_name: String,
    /// Whether `file:` artifacts are checked in this process's own file system.
    pub allow_file_artifacts: bool,
    /// A label selector for the registered models and bindings of this process; `None` for all.
    pub shard: Option<String>,
    /// The kinds of workloads that bindings may drive.
    pub targets: Vec<TargetKind>,
    /// What bindings may have made for them.
    pub features: Features,
    /// Whether namespaces are watched for freezes, which takes a right on the cluster.
    pub namespace_freezes: bool,
    /// The other kinds that bindings may drive by fields.
    pub other_targets: Vec<ApiResource>,
    /// The addresses to which requests to registries and stores may go.
    pub guard: AddressGuard,
    /// Whether there is a metric for each binding.
    pub binding_info_metric: bool,
    /// Whether a policy of the cluster writes the user who approves into an annotation.
    pub records_approver: bool,
    /// Whether the metrics are only for those whose token allows it.
    pub metrics_authentication: bool,
    /// How to take part in the leader election; `None` for a single replica.
    pub election: Option<Election>,
}

/// What bindings may have made for them. Each needs rights of its own.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Deployments (`spec.template`).
    pub templates: bool,
    /// Jobs that train a lost version again (`spec.retrain`).
    pub retrain: bool,
}

/// How to receive webhooks.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The address to listen at.
    pub address: SocketAddr,
    /// A folder with `tls.crt` and `tls.key`, for https.
    pub tls_folder: Option<PathBuf>,
}

impl OperatorSettings {
    /// Whether Jobs are watched: those of CronJobs, and those that train a lost version again.
    #[must_use]
    pub fn reads_jobs(&self) -> bool {
        self.features.retrain || self.targets.contains(&TargetKind::CronJob)
    }

    /// The scope of each watch of a kind, in the order of their numbers: one for each namespace, or `None` for all of them at once.
    #[must_use]
    pub fn scopes(&self) -> Vec<Option<&str>> {
        if self.watch_namespaces.is_empty() {
            return vec![None];
        }
        self.watch_namespaces
            .iter()
            .map(|namespace| Some(namespace.as_str()))
            .collect()
    }

    /// Whether other processes reconcile other shards of the same cluster.
    #[must_use]
    pub fn is_sharded(&self) -> bool {
        self.shard.is_some()
    }

    /// Whether this process receives webhooks.
    #[must_use]
    pub fn receives_webhooks(&self) -> bool {
        self.webhook.is_some()
    }
}
