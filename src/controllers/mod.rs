//! The controllers of registries, models and bindings: observe → decide → build → apply → summarize → publish.
//!
//! Absent: decisions. Those are in `rollout`; here is only IO and its order.

mod binding;
mod cached;
mod context;
mod freezes;
mod frozen_namespaces;
mod http;
mod leadership;
mod loops;
mod metrics;
mod metrics_access;
mod model;
mod receiver;
mod registry;
mod run;
mod settings;
mod watches;
pub mod workloads;

pub use run::run;
pub use settings::{Features, OperatorSettings, WebhookSettings};

pub use crate::http::guard::AddressGuard;
