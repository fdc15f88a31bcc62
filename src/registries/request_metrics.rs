//! Counts the requests to registries and measures their duration.
//!
//! Absent: labels for the registry and the model. Object names would make the number of series
//! grow.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::error::RegistryError;

/// From an idle server to the client's own timeout, in seconds.
const BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0];

/// Requests by operation and outcome. Clones share the counts.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    total: Family<RequestLabels, Counter>,
    seconds: Family<OperationLabels, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    operation: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OperationLabels {
    operation: String,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            total: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }
    }
}

impl RequestMetrics {
    /// Counts a request. `route` is its path without the names of objects.
    pub(super) fn count<T>(
        &self,
        route: &str,
        outcome: &Result<T, RegistryError>,
        duration: Duration,
    ) {
        let operation = route.rsplit("mlflow/").next().unwrap_or_default();
        let labels = OperationLabels {
            operation: operation.to_owned(),
        };
        self.seconds
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
        let outcome = match outcome {
            Ok(_) => "Success",
            Err(error) => error.kind(),
        };
        let labels = RequestLabels {
            operation: operation.to_owned(),
            outcome,
        };
        self.total.get_or_create(&labels).inc();
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "registry_requests",
            "Requests to registries, by operation and outcome",
            self.total.clone(),
        );
        registry.register(
            "registry_request_seconds",
            "Duration of requests to registries",
            self.seconds.clone(),
        );
    }
}
