//! Artifacts behind a registry's own server (`mlflow-artifacts:`), checked by a function that the
//! caller gives.
//!
//! Absent: the registry's client. Registries and artifacts do not depend on each other.

use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::api::Availability;

type Check = dyn Fn(Option<String>, String) -> BoxFuture<'static, Availability> + Send + Sync;

/// Checks artifacts behind a registry's own server.
pub struct ProxiedArtifacts(Box<Check>);

impl ProxiedArtifacts {
    /// Checks with this function. Its arguments are the host in the URI, if any, and the path.
    pub fn new<F>(check: impl Fn(Option<String>, String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Availability> + Send + 'static,
    {
        Self(Box::new(move |host, path| check(host, path).boxed()))
    }

    /// Whether the files at a path can be read now.
    pub(super) async fn check(&self, host: Option<String>, path: String) -> Availability {
        (self.0)(host, path).await
    }
}

impl fmt::Debug for ProxiedArtifacts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProxiedArtifacts")
    }
}
