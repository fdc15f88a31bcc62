//! The loops that join registry, decision and workload: observe → decide → build → apply → summarize → publish.
//!
//! Absent: decisions. They are in `rollout`; here is only IO, and the order of it.

mod announce;
mod binding;
mod context;
mod evidence;
mod failure;
mod finalizer;
mod health;
mod hearing;
mod keys;
mod lease;
mod listing;
mod locked;
mod metrics;
mod model;
mod name;
mod pack;
mod queue;
mod receiver;
mod registry;
mod registry_state;
mod retrain;
mod run;
mod shelf;
mod shelved;
mod status;
mod telling;
mod watch;
mod watched;
mod webhook;
mod webhook_state;
mod webhook_words;
mod write_back;

pub use lease::{Election, Fence};
pub use run::{Settings, WebhookSettings, run};
