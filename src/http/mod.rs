//! HTTP with peers that nobody vouches for: a server with limits on connections and requests,
//! bounded bodies in both directions, redaction, URIs as people may see them.
//!
//! Absent: clients and routes. `registries`, `artifacts` and `controllers` have their own.

pub(crate) mod body;
pub(crate) mod budget;
mod connections;
pub(crate) mod guard;
pub(crate) mod redact;
pub(crate) mod server;
pub(crate) mod uri;

#[cfg(test)]
pub(crate) mod hostile;
