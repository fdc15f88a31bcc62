//! The metrics of the operator, in the text format of Prometheus.
//!
//! Absent: names in labels, except for registries, which are few, namespaces at a limit, and `binding_info`, which can be switched off; on
//! replicas that stand by, the state of objects.

use std::borrow::Cow;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::api::alias_binding::{HistoryEntry, Outcome, Trigger};
use crate::api::conditions::{READY, find};
use crate::api::{AliasBinding, AliasBindingStatus, ModelRegistry};
use crate::registries::RequestMetrics;
use crate::targets::Injection;

/// From a few milliseconds for a webhook to the longest interval of polling, in seconds.
const PATCH_BUCKETS: [f64; 12] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0,
];
/// From a small server to a large model that is loaded slowly, in seconds.
const ROLLOUT_BUCKETS: [f64; 12] = [
    1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0,
];

const LAST_SUCCESS: &str = "registry_last_success_timestamp_seconds";
const LIMITED: &str = "Work that waited for other work of its namespace, by limit";
const ALIAS_TO_PATCH: &str = "From the poll or webhook that showed a moved alias to the patch";
const ROLLOUT: &str = "From the patch to all replicas running the version and available";

/// The counters, gauges and histograms. Each is made and registered by one line of [`Metrics::default`].
pub struct Metrics {
    registry: Registry,
    /// Reconciles, by kind.
    pub reconciles: Family<Kind, Counter>,
    /// Reconciles that failed at the Kubernetes API.
    pub reconcile_errors: Counter,
    /// Objects that wait to be reconciled, by kind.
    pub queue_depth: Family<Kind, Gauge>,
    /// Objects that could not be decoded, each time that a watch showed one, by kind.
    pub unreadable_objects: Family<Kind, Counter>,
    /// Polls of registries, by outcome.
    pub registry_polls: Family<OutcomeLabel, Counter>,
    /// The time of the last successful poll of each registry, in seconds since 1970.
    pub last_poll: Family<RegistryName, Gauge>,
    /// Requests to registries, by operation and outcome.
    pub requests: RequestMetrics,
    /// Versions written into workloads.
    pub workload_patches: Counter,
    /// Seconds between the poll or webhook that showed a moved alias and the patch of the workload.
    pub alias_to_patch: Histogram,
    /// Seconds between the patch and the moment when all replicas run the version and are available.
    pub rollout: Histogram,
    /// History entries that got an outcome, by outcome and trigger.
    pub rollouts: Family<Rollout, Counter>,
    /// Statuses written, by kind.
    pub status_writes: Family<Kind, Counter>,
    /// Changes of the condition Ready of bindings, by the new reason.
    pub transitions: Family<TransitionLabels, Counter>,
    /// Webhook deliveries, by outcome.
    pub webhook_deliveries: Family<OutcomeLabel, Counter>,
    /// How often work of a namespace had to wait because of a limit for each namespace, by namespace and limit.
    limited: Family<NamespaceLimit, Counter>,
    /// 1 if this replica leads or is the only one.
    pub leader: Gauge,
    /// One for each registry, filled when metrics are read.
    registries: Family<RegistryInfo, Gauge>,
    /// One for each binding, filled when metrics are read.
    bindings: Family<BindingInfo, Gauge>,
}

/// The kind of an object.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Kind {
    /// The kind.
    pub kind: &'static str,
}

impl Kind {
    /// The label of a kind.
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        match K::kind(&()) {
            Cow::Borrowed(kind) => Self { kind },
            Cow::Owned(_) => Self { kind: "unknown" },
        }
    }
}

/// The outcome of a poll or delivery.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct OutcomeLabel {
    /// `Reachable`, or the reason why not.
    pub outcome: &'static str,
}

/// A limit for each namespace, and a namespace that reached it.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct NamespaceLimit {
    namespace: String,
    limit: &'static str,
}

/// Which registry.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct RegistryName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub registry: String,
}

/// The end of a rollout.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Rollout {
    /// The outcome, as in the history.
    pub outcome: String,
    /// The trigger, as in the history.
    pub trigger: String,
}

/// A change of a binding's condition Ready.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct TransitionLabels {
    /// The new reason.
    pub reason: &'static str,
}

/// The state of a registry, as labels; the value is always 1.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RegistryInfo {
    namespace: String,
    registry: String,
    ready: String,
    reason: String,
}

/// The state of a binding, as labels; the value is always 1.
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
        let mut all = MetricsBuilder(Registry::with_prefix("pointsman"));
        let requests = RequestMetrics::default();
        requests.register(&mut all.0);
        let rollouts: Family<Rollout, Counter> =
            all.add("rollouts", "Ended rollouts, by outcome and trigger");
        // increase() of Prometheus sees a first failure only if the series was 0 before.
        for outcome in [Outcome::Failed, Outcome::RolledBack] {
            for trigger in Trigger::ALL {
                rollouts.get_or_create_owned(&Rollout {
                    outcome: outcome.to_string(),
                    trigger: trigger.to_string(),
                });
            }
        }
        Self {
            reconciles: all.add("reconciles", "Reconciles, by kind"),
            reconcile_errors: all.add("reconcile_errors", "Reconciles that failed"),
            queue_depth: all.add("queue_depth", "Objects that wait to be reconciled, by kind"),
            unreadable_objects: all.add("unreadable_objects", "Objects that were skipped, by kind"),
            registry_polls: all.add("registry_polls", "Polls of registries, by outcome"),
            last_poll: all.add(
                LAST_SUCCESS,
                "The last successful poll, in seconds since 1970",
            ),
            workload_patches: all.add("workload_patches", "Versions written into workloads"),
            alias_to_patch: all.add_histogram(
                "alias_to_patch_seconds",
                ALIAS_TO_PATCH,
                PATCH_BUCKETS,
            ),
            rollout: all.add_histogram("rollout_seconds", ROLLOUT, ROLLOUT_BUCKETS),
            rollouts,
            status_writes: all.add("status_writes", "Statuses written, by kind"),
            transitions: all.add("binding_transitions", "Changes of Ready, by reason"),
            webhook_deliveries: all.add("webhook_deliveries", "Webhook deliveries, by outcome"),
            limited: all.add("namespace_limited", LIMITED),
            leader: all.add("leader", "1 if this replica leads or is the only one"),
            registries: all.add(
                "registry_info",
                "1 for each registry, with its state as labels",
            ),
            bindings: all.add(
                "binding_info",
                "1 for each binding, with its state as labels",
            ),
            requests,
            registry: all.0,
        }
    }
}

/// Registers each metric when it is made.
struct MetricsBuilder(Registry);

impl MetricsBuilder {
    fn add<M: Clone + Default + Metric>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn add_histogram(&mut self, name: &str, help: &str, buckets: [f64; 12]) -> Histogram {
        let metric = Histogram::new(buckets);
        self.0.register(name, help, metric.clone());
        metric
    }
}

impl Metrics {
    /// Counts that work of a namespace has to wait for other work of the same namespace.
    pub fn count_limited(&self, namespace: &str, limit: &'static str) {
        let namespace = namespace.to_owned();
        let labels = NamespaceLimit { namespace, limit };
        self.limited.get_or_create(&labels).inc();
    }

    /// Records how long the patch for a moved alias took; `seen` is when a poll or webhook first showed the move. If the move had to
    /// wait for something, the time is that of the status, to the second.
    pub fn count_patch(
        &self,
        binding: &AliasBinding,
        injection: &Injection,
        seen: Option<Instant>,
    ) {
        let status = binding.status.as_ref();
        let Some(alias) = status.and_then(|status| status.alias.as_ref()) else {
            return;
        };
        if binding.spec.pinned_version.is_some() {
            return;
        }
        let has_waited = alias.version == injection.version;
        if has_waited {
            let since = Timestamp::now().duration_since(alias.since.0);
            self.alias_to_patch.observe(seconds(since));
        } else if let Some(seen) = seen {
            self.alias_to_patch.observe(seen.elapsed().as_secs_f64());
        }
    }

    /// Counts a history entry that got an outcome, and records how long it took to become available.
    pub fn count_entry(&self, old: &AliasBindingStatus, entry: &HistoryEntry) {
        let known = old
            .history
            .iter()
            .find(|known| known.is_same_rollout(entry));
        if known.is_none_or(|known| known.outcome != entry.outcome) {
            let labels = Rollout {
                outcome: entry.outcome.to_string(),
                trigger: entry.trigger.to_string(),
            };
            self.rollouts.get_or_create(&labels).inc();
        }
        let was_available = known.is_some_and(|known| known.available_at.is_some());
        if let (Some(available), false) = (&entry.available_at, was_available) {
            let took = available.0.duration_since(entry.started_at.0);
            self.rollout.observe(seconds(took));
        }
    }

    /// Records a successful poll.
    pub fn record_poll(&self, namespace: &str, registry: &str) {
        let name = RegistryName {
            namespace: namespace.to_owned(),
            registry: registry.to_owned(),
        };
        self.last_poll
            .get_or_create(&name)
            .set(Timestamp::now().as_second());
    }

    /// Removes the labels of a registry that is gone.
    pub fn forget(&self, namespace: &str, registry: &str) {
        self.last_poll.remove(&RegistryName {
            namespace: namespace.to_owned(),
            registry: registry.to_owned(),
        });
    }

    /// All metrics as text, with an info for each of these objects.
    pub fn text(
        &self,
        registries: impl Iterator<Item = ModelRegistry>,
        bindings: impl Iterator<Item = AliasBinding>,
    ) -> String {
        for registry in registries {
            let info = registry_info(&registry);
            self.registries.get_or_create(&info).set(1);
        }
        for binding in bindings {
            self.bindings.get_or_create(&info(&binding)).set(1);
        }
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        self.registries.clear();
        self.bindings.clear();
        text
    }
}

/// Status and reason of the condition Ready.
fn ready_of(conditions: &[Condition]) -> (String, String) {
    find(conditions, READY)
        .map(|ready| (ready.status.clone(), ready.reason.clone()))
        .unwrap_or_default()
}

fn registry_info(registry: &ModelRegistry) -> RegistryInfo {
    let status = registry.status.as_ref();
    let (ready, reason) = ready_of(status.map_or(&[], |status| &status.conditions));
    RegistryInfo {
        namespace: registry.namespace().unwrap_or_default(),
        registry: registry.name_any(),
        ready,
        reason,
    }
}

fn info(binding: &AliasBinding) -> BindingInfo {
    let status = binding.status.clone().unwrap_or_default();
    let (ready, reason) = ready_of(&status.conditions);
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
        wanted: status.wanted.unwrap_or_default(),
        running: status
            .running
            .map(|running| running.version.id.version)
            .unwrap_or_default(),
        ready,
        reason,
    }
}

fn seconds(duration: SignedDuration) -> f64 {
    duration.as_secs_f64().max(0.0)
}
