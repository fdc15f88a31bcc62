//! The controllers that join registry, decision and workload: observe → decide → build → apply → summarize → publish.
//!
//! Absent: decisions. They are in `rollout`; here is only IO, and the order of it.

mod binding;
mod cached;
mod context;
mod http;
mod metrics;
mod model;
mod receiver;
mod registry;
mod run;
mod watches;

pub use run::{Settings, WebhookSettings, run};
