//! Helpers for HTTP clients that talk to servers nobody vouches for: bounded bodies, redaction,
//! URIs as people may see them.
//!
//! Absent: clients and requests. `registries` and `artifacts` have their own.

pub(crate) mod body;
pub(crate) mod redact;
pub(crate) mod uri;

#[cfg(test)]
pub(crate) mod hostile;
