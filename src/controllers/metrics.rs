//! What is counted and timed, in the text format of Prometheus.
//!
//! Absent: object names in labels, but in `binding_info` (which can be switched off) and of registries, which are few.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::alias_binding::{HistoryEntry, Trigger};
use crate::api::conditions::READY;
use crate::api::{AliasBinding, AliasBindingStatus};
use crate::controllers::context::Context;
use crate::registries::mlflow::Requests;
use crate::targets::Injection;

/// From a few milliseconds for a webhook to the longest interval of polling, in seconds.
const PATCH_BUCKETS: [f64; 12] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0,
];
/// From a small server to a large model that is loaded slowly, in seconds.
const ROLLOUT_BUCKETS: [f64; 12] = [
    1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0,
];

/// The counters, gauges and histograms.
#[derive(Clone)]
pub struct Metrics {
    /// Passes that the Kubernetes API cut short.
    pub reconcile_errors: Counter,
    /// Passes, by kind.
    pub passes: Family<Kind, Counter>,
    /// Names that wait for a pass, by kind.
    pub queue_depth: Family<Kind, Gauge>,
    /// Looks at registries, by outcome.
    pub looks: Family<Outcome, Counter>,
    /// When a registry last answered a look, in seconds since 1970.
    pub last_look: Family<RegistryName, Gauge>,
    /// Requests to registries, by operation and outcome.
    pub requests: Requests,
    /// Versions written into Deployments.
    pub deployments: Counter,
    /// From the moment when a moved alias was seen to the Deployment patched.
    pub alias_to_patch: Histogram,
    /// From the Deployment patched to all replicas running the version and available.
    pub rollout: Histogram,
    /// Entries of the ledger that came to an outcome.
    pub rollouts: Family<Rollout, Counter>,
    /// Statuses written, by kind.
    pub status_writes: Family<Kind, Counter>,
    /// Transitions of bindings, by reason.
    pub transitions: Family<Transition, Counter>,
    /// Deliveries of webhooks, by what became of them.
    pub webhook_deliveries: Family<Outcome, Counter>,
    /// 1 where this replica acts, being alone or the leader.
    pub leader: Gauge,
}

/// The kind that a pass is for.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Kind {
    /// The kind.
    pub kind: &'static str,
}

/// How a look went.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Outcome {
    /// `Reachable`, or the reason why not.
    pub outcome: &'static str,
}

/// Which registry.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct RegistryName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub registry: String,
}

/// What a version's time in a workload came to.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Rollout {
    /// The outcome, as in the ledger.
    pub outcome: String,
    /// What changed the workload to it.
    pub trigger: String,
}

/// What a binding became.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Transition {
    /// The reason of its condition Ready.
    pub reason: &'static str,
}

/// What a binding is now: always 1, for its labels are what it tells.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct BindingInfo {
    namespace: String,
    binding: String,
    model: String,
    alias: String,
    wanted: String,
    running: String,
    ready: String,
    reason: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            reconcile_errors: Counter::default(),
            passes: Family::default(),
            queue_depth: Family::default(),
            looks: Family::default(),
            last_look: Family::default(),
            requests: Requests::default(),
            deployments: Counter::default(),
            alias_to_patch: Histogram::new(PATCH_BUCKETS),
            rollout: Histogram::new(ROLLOUT_BUCKETS),
            rollouts: Family::default(),
            status_writes: Family::default(),
            transitions: Family::default(),
            webhook_deliveries: Family::default(),
            leader: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Times a version that was written because the alias was moved to it; `seen` is when a look first showed the move. A
    /// move that had to wait for something is known by the status, to the second.
    pub fn count_patch(
        &self,
        binding: &AliasBinding,
        injection: &Injection,
        seen: Option<Instant>,
    ) {
        let Some(alias) = binding
            .status
            .as_ref()
            .and_then(|status| status.alias.as_ref())
        else {
            return;
        };
        let waited = alias.version == injection.version;
        let since_status = || {
            Timestamp::now()
                .duration_since(alias.since.0)
                .try_into()
                .ok()
        };
        let took = if waited {
            since_status()
        } else {
            seen.map(|seen| seen.elapsed())
        };
        if let Some(took) = took.filter(|_| binding.spec.pinned_version.is_none()) {
            self.alias_to_patch.observe(Duration::as_secs_f64(&took));
        }
    }

    /// Counts what an entry of the ledger came to, and times it where it became available.
    pub fn count_entry(&self, old: &AliasBindingStatus, entry: &HistoryEntry) {
        let is_same = |known: &&HistoryEntry| {
            known.started_at == entry.started_at && known.version == entry.version
        };
        let known = old.history.iter().find(is_same);
        if known.is_none_or(|known| known.outcome != entry.outcome) {
            let (outcome, trigger) = (format!("{:?}", entry.outcome), word(entry.trigger));
            self.rollouts
                .get_or_create(&Rollout { outcome, trigger })
                .inc();
        }
        if let Some(available) = entry
            .available_at
            .as_ref()
            .filter(|_| known.is_none_or(|old| old.available_at.is_none()))
        {
            self.rollout
                .observe(seconds(available.0.duration_since(entry.started_at.0)));
        }
    }

    /// Notes that a registry answered a look.
    pub fn looked(&self, namespace: &str, registry: &str) {
        let name = RegistryName {
            namespace: namespace.to_owned(),
            registry: registry.to_owned(),
        };
        self.last_look
            .get_or_create(&name)
            .set(Timestamp::now().as_second());
    }

    /// Forgets a registry that is gone.
    pub fn forget(&self, namespace: &str, registry: &str) {
        self.last_look.remove(&RegistryName {
            namespace: namespace.to_owned(),
            registry: registry.to_owned(),
        });
    }

    fn registered(&self) -> Registry {
        let mut registry = Registry::with_prefix("pointsman");
        registry.register(
            "reconcile_errors",
            "Passes that the Kubernetes API cut short",
            self.reconcile_errors.clone(),
        );
        registry.register("passes", "Passes, by kind", self.passes.clone());
        registry.register(
            "queue_depth",
            "Objects that wait for a pass, by kind",
            self.queue_depth.clone(),
        );
        registry.register(
            "registry_looks",
            "Looks at registries, by outcome",
            self.looks.clone(),
        );
        registry.register(
            "registry_last_success_timestamp_seconds",
            "When a registry last answered a look, in seconds since 1970",
            self.last_look.clone(),
        );
        self.requests.register(&mut registry);
        registry.register(
            "workload_patches",
            "Versions written into Deployments",
            self.deployments.clone(),
        );
        registry.register(
            "alias_to_patch_seconds",
            "From the moment when a moved alias was seen to the Deployment patched",
            self.alias_to_patch.clone(),
        );
        registry.register(
            "rollout_seconds",
            "From the Deployment patched to all replicas running the version and available",
            self.rollout.clone(),
        );
        registry.register(
            "rollouts",
            "Entries of the ledger, by outcome and trigger",
            self.rollouts.clone(),
        );
        registry.register(
            "status_writes",
            "Statuses written, by kind",
            self.status_writes.clone(),
        );
        registry.register(
            "binding_transitions",
            "Transitions of bindings, by reason",
            self.transitions.clone(),
        );
        let deliveries = self.webhook_deliveries.clone();
        registry.register(
            "webhook_deliveries",
            "Deliveries of webhooks, by what became of them",
            deliveries,
        );
        registry.register(
            "leader",
            "1 where this replica acts, being alone or the leader",
            self.leader.clone(),
        );
        registry
    }
}

/// All metrics as text.
pub fn text(ctx: &Context) -> String {
    let mut registry = ctx.metrics.registered();
    if ctx.binding_info_metric {
        let infos = Family::<BindingInfo, Gauge>::default();
        for binding in ctx.stores.bindings.all() {
            infos.get_or_create(&info(&binding)).set(1);
        }
        registry.register(
            "binding_info",
            "1 for each binding: what is wanted, what runs, is it well, why not",
            infos,
        );
    }
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

fn info(binding: &AliasBinding) -> BindingInfo {
    let status = binding.status.clone().unwrap_or_default();
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == READY);
    BindingInfo {
        namespace: binding.namespace().unwrap_or_default(),
        binding: binding.name_any(),
        model: binding.spec.model_ref.name.clone(),
        alias: binding
            .spec
            .alias
            .clone()
            .or_else(|| binding.spec.stage.clone())
            .unwrap_or_default(),
        wanted: status.alias.map(|alias| alias.version).unwrap_or_default(),
        running: status
            .running
            .map(|running| running.version)
            .unwrap_or_default(),
        ready: ready.map(|ready| ready.status.clone()).unwrap_or_default(),
        reason: ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
    }
}

fn word(trigger: Trigger) -> String {
    format!("{trigger:?}")
}

fn seconds(duration: SignedDuration) -> f64 {
    duration.as_secs_f64().max(0.0)
}
