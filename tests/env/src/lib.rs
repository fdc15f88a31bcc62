//! The real control plane, the real MLflow and the operator, started on one machine for tests and the demo.
//! Absent: anything that the operator itself needs; it depends on nothing here.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Only tests and the demo run this: a panic that says why is their way to fail.
#![allow(clippy::missing_panics_doc, clippy::missing_errors_doc, clippy::must_use_candidate)] // For the same reason nearly every function can fail, and each message says why.

pub mod cache;
pub mod certificates;
pub mod control_plane;
pub mod error;
pub mod interceptor;
pub mod kwok;
mod leash;
pub mod ports;
pub mod prerequisites;
pub mod process;
pub mod progress;
pub mod tools;

pub use control_plane::{ControlPlane, ControlPlaneOptions};
pub use error::{Error, Result};
pub use leash::leash_if_asked;
pub use tools::Tools;

/// Where the files beside this crate's sources are: Go modules and Python requirements.
#[must_use]
pub fn crate_folder() -> std::path::PathBuf {
    std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
