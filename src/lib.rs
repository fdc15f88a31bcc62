//! Pointsman: moves of a model-registry alias become Kubernetes deployments, and moves back become rollbacks.
//!
//! Absent: anything that a user of the binary configures; that is in `cli`.
//!
//! `api`, `targets` and `rollout` are pure: there the clock is a parameter. `tests/layers.rs` holds which folder imports which.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::needless_pass_by_value
    )
)] // a test's way to fail

#[deny(clippy::disallowed_methods)]
#[allow(
    clippy::doc_markdown,
    clippy::duplicated_attributes,
    rustdoc::bare_urls
)]
// the docs become `kubectl explain`, which shows backticks as they are
pub mod api;
pub mod artifacts;
#[allow(clippy::doc_markdown)] // the docs become --help
pub mod cli;
pub mod controllers;
pub mod http;
pub mod kubernetes;
pub mod registries;
#[deny(clippy::disallowed_methods)]
pub mod rollout;
#[deny(clippy::disallowed_methods)]
pub mod targets;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
