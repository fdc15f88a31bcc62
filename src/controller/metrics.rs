//! What is counted, in the text format of Prometheus.
//!
//! Absent: object names in labels.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The counters.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Passes that the Kubernetes API cut short.
    pub failed_passes: Counter,
    /// Passes, by kind.
    pub passes: Family<Kind, Counter>,
    /// Looks at registries, by outcome.
    pub looks: Family<Outcome, Counter>,
    /// Versions written into Deployments.
    pub deployments: Counter,
    /// Statuses written, by kind.
    pub status_writes: Family<Kind, Counter>,
    /// Transitions of bindings, by reason.
    pub transitions: Family<Transition, Counter>,
    /// Deliveries of webhooks, by what became of them.
    pub webhook_deliveries: Family<Outcome, Counter>,
    /// 1 where this replica leads an election.
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

/// What a binding became.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Transition {
    /// The reason of its condition Ready.
    pub reason: &'static str,
}

impl Metrics {
    /// All counters as text.
    pub fn text(&self) -> String {
        let mut registry = Registry::with_prefix("pointsman");
        registry.register("failed_passes", "Passes that the Kubernetes API cut short", self.failed_passes.clone());
        registry.register("passes", "Passes, by kind", self.passes.clone());
        registry.register("registry_looks", "Looks at registries, by outcome", self.looks.clone());
        registry.register("workload_patches", "Versions written into Deployments", self.deployments.clone());
        registry.register("status_writes", "Statuses written, by kind", self.status_writes.clone());
        registry.register("binding_transitions", "Transitions of bindings, by reason", self.transitions.clone());
        let deliveries = self.webhook_deliveries.clone();
        registry.register("webhook_deliveries", "Deliveries of webhooks, by what became of them", deliveries);
        registry.register("leader", "1 where this replica leads an election", self.leader.clone());
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
