//! Checks whether the files behind an artifact URI can be read now, with a real request to the
//! store that holds them.
//!
//! Absent: fetching and verifying the files, and instance metadata, to which no request is sent.

mod bucket;
mod files;
mod location;
mod proxied;
mod store_settings;
mod transport;
mod web;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod responses_fuzz_tests;

use std::collections::BTreeMap;
use std::time::Duration;

use location::ArtifactLocation;
pub use proxied::ProxiedArtifacts;
use store_settings::StoreSettings;
use transport::HttpClients;

use crate::api::Availability;
use crate::http::guard::AddressGuard;
use crate::http::uri::{brief, shown};

/// The timeout of a whole check.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The stores that can be checked, with their credentials.
#[derive(Debug)]
pub struct ArtifactStores {
    proxied: Option<ProxiedArtifacts>,
    settings: StoreSettings,
    clients: HttpClients,
    allow_files: bool,
    timeout: Duration,
}

impl ArtifactStores {
    /// Stores with these settings. Nothing is sent yet.
    ///
    /// `proxied` checks artifacts behind the registry's own server (`mlflow-artifacts:`).
    /// `settings` are environment variables of S3, GCS and Azure clients by name, from a Secret;
    /// they take precedence over this process's own environment. `allow_files` allows `file:` and
    /// plain paths, which are paths of this machine and not of a pod.
    #[must_use]
    pub fn new(
        proxied: Option<ProxiedArtifacts>,
        settings: BTreeMap<String, String>,
        allow_files: bool,
    ) -> Self {
        Self::with_environment(proxied, settings, own_environment(), allow_files)
    }

    /// The same for a namespace: responses take its share of the memory, and requests go where the guard lets them.
    #[must_use]
    pub fn of_tenant(mut self, namespace: &str, guard: &AddressGuard) -> Self {
        self.clients = HttpClients::new(namespace, guard);
        self
    }

    fn with_environment(
        proxied: Option<ProxiedArtifacts>,
        secret: BTreeMap<String, String>,
        environment: BTreeMap<String, String>,
        allow_files: bool,
    ) -> Self {
        Self {
            proxied,
            settings: StoreSettings::new(secret, environment),
            clients: HttpClients::new("", &AddressGuard::default()),
            allow_files,
            timeout: TIMEOUT,
        }
    }

    /// The same stores; https trusts these authorities (PEM) instead of the well-known ones.
    #[must_use]
    pub fn trusting(mut self, authorities: Option<String>) -> Self {
        self.clients = self.clients.trusting(authorities);
        self
    }

    /// Whether the files behind `uri` can be read now. One or two small requests if there is a file
    /// MLmodel, else up to five; 10 s at most.
    ///
    /// Every failure is an [`Availability`]. Its sentence holds no credentials and no queries.
    pub async fn check(&self, uri: &str) -> Availability {
        match tokio::time::timeout(self.timeout, self.check_location(uri)).await {
            Ok(availability) => availability,
            Err(_) => Availability::Unknown(format!(
                "{} could not be read within {} s; check that the store can be reached from Pointsman's pod",
                shown(uri),
                self.timeout.as_secs_f32()
            )),
        }
    }

    async fn check_location(&self, uri: &str) -> Availability {
        match ArtifactLocation::parse(uri) {
            Err(problem) => Availability::Unchecked(problem),
            Ok(ArtifactLocation::Proxied { host, path }) => self.check_proxied(host, path).await,
            Ok(ArtifactLocation::Bucket(address)) => {
                bucket::check(&address, &self.settings, &self.clients).await
            }
            Ok(ArtifactLocation::Web(url)) => web::check(&url, &self.clients).await,
            Ok(ArtifactLocation::File(path)) if self.allow_files => files::check(&path).await,
            Ok(ArtifactLocation::File(_)) => Availability::Unchecked(format!(
                "{} is a path of one machine, which Pointsman does not check; register the version from a store that pods can reach",
                shown(uri)
            )),
        }
    }

    async fn check_proxied(&self, host: Option<String>, path: String) -> Availability {
        match &self.proxied {
            Some(proxied) => proxied.check(host, path).await,
            None => Availability::Unchecked(format!(
                "mlflow-artifacts:/{} is served by an MLflow server, and none is connected; check the ModelRegistry",
                brief(&path)
            )),
        }
    }
}

/// Whether a URI names a kind of store that can be read.
#[must_use]
pub fn is_known_store(uri: &str) -> bool {
    ArtifactLocation::parse(uri).is_ok()
}

/// The variables of this process whose values are text.
fn own_environment() -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
            variables.insert(name, value);
        }
    }
    variables
}
