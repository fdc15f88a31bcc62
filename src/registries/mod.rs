//! Model registries: one folder for each kind of registry.
//!
//! Absent: Kubernetes, polling, caching and decisions.

pub mod mlflow;
