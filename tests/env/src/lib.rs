//! A real control plane, a real MLflow and the operator, started on one machine for tests and the demo.
//! Absent: code of the operator, which does not depend on this crate.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Only tests and the demo run this, and a panic with a message fails them.
#![allow(
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::must_use_candidate
)] // For the same reason nearly every function can fail, with a message.
#![allow(clippy::doc_markdown)] // MLflow and SQLite are names of products, not of code.

pub mod azurite;
pub mod bucket;
pub mod cache;
pub mod certificates;
pub mod chart;
pub mod control_plane;
pub mod error;
mod failure_report;
pub mod gateway_api;
pub mod gitops;
pub mod hostile;
pub mod interceptor;
pub mod kinds;
pub mod kwok;
pub mod load;
pub mod manifests;
pub mod mlflow;
pub mod node;
pub mod observe;
pub mod oci;
pub mod operator;
pub mod pages;
pub mod peer;
pub mod ports;
pub mod prerequisites;
pub mod process;
pub mod progress;
pub mod python;
pub mod registrar;
pub mod resources;
mod supervisor;
pub mod test_namespace;
pub mod tools;
pub mod usage;
pub mod values_table;
pub mod workload;

pub use control_plane::{ControlPlane, ControlPlaneOptions};
pub use error::{Error, Result};
pub use kinds::Kind;
pub use observe::{Objects, Selection};
pub use operator::{Operator, OperatorOptions};
pub use peer::Peer;
pub use supervisor::{descendants, supervise_if_asked};
pub use test_namespace::TestNamespace;
pub use tools::{NodeTools, Tools};
pub use workload::Workload;

/// The folder of this crate, with Go modules and Python requirements.
#[must_use]
pub fn crate_folder() -> std::path::PathBuf {
    std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
