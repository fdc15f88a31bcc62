//! MLflow's Model Registry: its REST API, its artifact proxy and its webhooks.
//!
//! Absent: polling, caching and decisions. Outside of `registries` nothing names these types.

#[cfg(test)]
mod answers_fuzz_tests;
mod client;
mod details;
mod event;
mod filter;
mod models;
mod proxied_artifacts;
mod refusal;
mod request;
mod search;
mod setup;
mod signature;
mod source;
mod version_tags;
mod versions;
mod webhook_client;
pub(super) mod wire;

pub use client::Client;
pub use event::change;
pub use signature::{DELIVERY_HEADERS, DeliverySignature};
pub(super) use source::resolves;
pub use version_tags::{VersionTags, VersionTagsClient};
pub use webhook_client::{DesiredWebhook, ListedWebhook, WebhookClient, WebhookTest};

use super::capability::Capabilities;

/// MLflow has all of it.
pub const CAPABILITIES: Capabilities = Capabilities {
    aliases: true,
    stages: true,
    tags: true,
    webhooks: true,
    create: true,
};
