//! Counts the requests to registries, and how long they take.
//!
//! Absent: which registry, which model. Both would be names in labels.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::error::RegistryError;

/// From an idle server to our own patience, in seconds.
const BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0];

/// Requests, by operation and outcome. Clones count into the same.
#[derive(Clone, Debug)]
pub struct Requests {
    all: Family<Request, Counter>,
    seconds: Family<Operation, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Request {
    operation: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Operation {
    operation: String,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            all: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }
    }
}

impl Requests {
    /// Counts a request. `operation` is the route, without what it names.
    pub(super) fn count<T>(
        &self,
        operation: &str,
        outcome: &Result<T, RegistryError>,
        took: Duration,
    ) {
        let operation = operation
            .rsplit("mlflow/")
            .next()
            .unwrap_or_default()
            .to_owned();
        self.seconds
            .get_or_create(&Operation {
                operation: operation.clone(),
            })
            .observe(took.as_secs_f64());
        let outcome = outcome
            .as_ref()
            .err()
            .map_or("Answered", RegistryError::kind);
        self.all
            .get_or_create(&Request { operation, outcome })
            .inc();
    }

    /// Shows the counts in a registry of metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "registry_requests",
            "Requests to registries, by operation and outcome",
            self.all.clone(),
        );
        registry.register(
            "registry_request_seconds",
            "How long a registry took to answer",
            self.seconds.clone(),
        );
    }
}
