//! What the registry says: a client of MLflow's Model Registry, and nothing of Kubernetes in it.
//!
//! Absent: polling, caching of answers and any decision. Each call asks the server now and answers with what it said.

mod artifacts;
pub(crate) mod client;
mod count;
mod details;
mod error;
mod event;
mod filter;
mod models;
pub(crate) mod redact;
mod signature;
pub(crate) mod source;
mod tags;
mod versions;
mod webhooks;
mod wire;

#[cfg(test)]
pub(crate) mod hostile;

pub use client::{Connection, Credentials, Registry};
pub use count::Requests;
pub use error::RegistryError;
pub use event::{Malformed, model_named};
pub use models::ModelFacts;
pub use signature::{ID_HEADER, SIGNATURE_HEADER, Signed, TIMESTAMP_HEADER, Unsigned, WINDOW};
pub use versions::ListedVersion;
pub use webhooks::{Trial, WantedWebhook, Webhook};
