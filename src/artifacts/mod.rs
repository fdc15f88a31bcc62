//! Whether the files behind an artifact URI can be read now: a real request to the store that holds them.
//!
//! Absent: fetching and verifying the files, and instance metadata, which is never asked.

mod bucket;
mod files;
mod place;
mod settings;
mod transport;
mod verdict;
mod web;

#[cfg(test)]
mod hostile_tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::registries::mlflow::{Registry, RegistryError};
use place::Place;
use settings::Settings;
use transport::Clients;
pub use verdict::Verdict;

/// How long a whole check may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The file that MLflow writes into each model's folder.
const MODEL_FILE: &str = "MLmodel";

/// The stores that Pointsman can ask, with what it needs to be let in.
#[derive(Debug)]
pub struct ArtifactStores {
    registry: Option<Registry>,
    settings: Settings,
    clients: Clients,
    allow_files: bool,
    patience: Duration,
}

impl ArtifactStores {
    /// `ArtifactStores` with these settings; nothing is asked yet.
    ///
    /// `registry` is asked for `mlflow-artifacts:`. `settings` are environment variables of S3, GCS and Azure clients
    /// by name, from a Secret; they are laid over this process's own environment. `allow_files` allows `file:` and
    /// plain paths, which are this machine's and not a pod's.
    #[must_use]
    pub fn new(
        registry: Option<Registry>,
        settings: BTreeMap<String, String>,
        allow_files: bool,
    ) -> Self {
        Self::with_environment(registry, settings, own_environment(), allow_files)
    }

    fn with_environment(
        registry: Option<Registry>,
        secret: BTreeMap<String, String>,
        environment: BTreeMap<String, String>,
        allow_files: bool,
    ) -> Self {
        Self {
            registry,
            settings: Settings::new(secret, environment),
            clients: Clients::default(),
            allow_files,
            patience: PATIENCE,
        }
    }

    /// Asks the store whether the files behind `uri` can be read now: one to four small requests, 10 s at most.
    ///
    /// Every failure is a [`Verdict`]. Its sentence holds no credentials and no queries.
    pub async fn check(&self, uri: &str) -> Verdict {
        match tokio::time::timeout(self.patience, self.ask(uri)).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::Unknown(format!(
                "{} could not be looked at within {} s; check that the store can be reached from here",
                place::shown(uri),
                self.patience.as_secs_f32()
            )),
        }
    }

    async fn ask(&self, uri: &str) -> Verdict {
        match Place::parse(uri) {
            Err(why) => Verdict::Unchecked(why),
            Ok(Place::Proxied { host, path }) => self.ask_registry(host.as_deref(), &path).await,
            Ok(Place::Bucket(address)) => {
                bucket::look(&address, &self.settings, &self.clients).await
            }
            Ok(Place::Web(url)) => web::look(&url, &self.clients).await,
            Ok(Place::File(path)) if self.allow_files => files::look(&path).await,
            Ok(Place::File(_)) => Verdict::Unchecked(format!(
                "{} is a path of one machine, which Pointsman does not look at; register the version from a store that pods can reach",
                place::shown(uri)
            )),
        }
    }

    async fn ask_registry(&self, host: Option<&str>, path: &str) -> Verdict {
        let Some(registry) = &self.registry else {
            return Verdict::Unchecked(format!(
                "mlflow-artifacts:/{} is served by an MLflow server, and none is known here; name it in a ModelRegistry",
                place::brief(path)
            ));
        };
        let elsewhere = host.is_some_and(|host| !registry.is_at(host));
        match registry.artifact_is_readable(path).await {
            Ok(true) => Verdict::Readable,
            Ok(false) | Err(_) if elsewhere => Verdict::Unchecked(format!(
                "mlflow-artifacts://{}/{} names another host than spec.mlflow.uri, where it was not found; Pointsman asks no other MLflow server",
                place::brief(host.unwrap_or_default()),
                place::brief(path)
            )),
            Ok(false) => Verdict::Unreadable(format!(
                "the MLflow server has no files at mlflow-artifacts:/{}; restore them, or register the version again",
                place::brief(path)
            )),
            Err(error) => refusal(&error),
        }
    }
}

/// What the registry's failure says of the artifact.
fn refusal(error: &RegistryError) -> Verdict {
    match error {
        RegistryError::Forbidden { sent, .. } if *sent != "no credentials" => {
            Verdict::Unreadable(error.to_string())
        }
        RegistryError::Forbidden { .. }
        | RegistryError::Unauthenticated { .. }
        | RegistryError::HostRefused { .. }
        | RegistryError::Redirected { .. }
        | RegistryError::Configuration { .. } => Verdict::Unchecked(error.to_string()),
        _ => Verdict::Unknown(error.to_string()),
    }
}

/// This process's environment, less what is no text.
fn own_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
