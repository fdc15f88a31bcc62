//! Pointsman: moves of a model-registry alias become Kubernetes deployments, and moves back become rollbacks.
//!
//! Absent: anything that a user of the binary configures; that is in `cli`.

pub mod api;
pub mod cli;
pub mod controller;
pub mod registry;
pub mod rollout;
pub mod workload;
