//! Fixtures: well-formed bindings, models, workloads and pods, for unit tests and the model check.
//!
//! Absent: any use outside tests. The feature `testing` is enabled by test crates only, never in a release build.

#![allow(clippy::expect_used)] // a test fails by a panic

mod binding;
#[cfg(test)]
pub mod fuzz;
mod pod;
mod workload;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

pub use binding::{binding, binding_with, check, entry, mirrored_version, model, ready, version};
pub use pod::{
    condition, container, owned_by, pod, pod_with, replica_set, running, terminated, waiting,
};
pub use workload::{WorkloadFixture, deployment};

/// The time of everything in a fixture, unless a test sets another one.
pub const NOW: &str = "2026-11-23T12:00:00Z";
/// The registered model.
pub const MODEL: &str = "nyc-taxi";
/// The registry's address for pods.
pub const TRACKING_URI: &str = "http://mlflow";

/// [`NOW`].
#[must_use]
pub fn now() -> Timestamp {
    at(NOW)
}

/// A timestamp.
///
/// # Panics
/// If the text is no timestamp.
#[must_use]
pub fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

/// A timestamp as objects have it.
#[must_use]
pub fn time(text: &str) -> Time {
    Time(at(text))
}

/// A fixture with a change.
pub trait With: Sized {
    /// The same value after a change.
    #[must_use]
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl<T> With for T {}

/// An object with one annotation more.
#[must_use]
pub fn annotated<K: kube::Resource>(mut object: K, name: &str, value: &str) -> K {
    object
        .annotations_mut()
        .insert(name.to_owned(), value.to_owned());
    object
}
