//! The loops that join registry, decision and workload: observe → decide → build → apply → summarize → publish.
//!
//! Absent: decisions. They are in `rollout`; here is only IO, and the order of it.

mod binding;
mod context;
mod evidence;
mod failure;
mod health;
mod hearing;
mod keys;
mod labelled;
mod lease;
mod locked;
mod metrics;
mod model;
mod receiver;
mod registry;
mod registry_state;
mod retrain;
mod run;
mod status;
mod watch;
mod webhook;
mod webhook_state;
mod write_back;
mod written;

pub use lease::{Election, Fence};
pub use run::{Settings, WebhookSettings, run};
