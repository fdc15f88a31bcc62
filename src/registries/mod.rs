//! Model registries behind one client. `RegistryClient` has one variant for each kind of registry,
//! and `capabilities` says which operations that kind has. A new kind is a folder here and one arm
//! in each `match` of this file.
//!
//! Absent: Kubernetes, polling, caching and decisions. Each call asks the registry now and returns
//! its response.

mod announced_change;
mod capability;
mod connection;
mod delivery;
mod delivery_error;
mod error;
mod mlflow;
mod operation;
mod request_metrics;
mod snapshot;

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use announced_change::AnnouncedChange;
pub use capability::Capabilities;
pub use connection::{Connection, Credentials, MayWrite, Server};
pub use delivery::{DeliveryProtocol, SignedDelivery};
pub use delivery_error::{DeliveryError, InvalidEvent};
pub use error::RegistryError;
pub use mlflow::{
    DesiredWebhook, ListedWebhook, VersionTags, VersionTagsClient, WebhookClient, WebhookTest,
};
pub use operation::Operation;
pub use request_metrics::RequestMetrics;
pub use snapshot::{ListedVersion, ModelSnapshot};

use crate::api::{Availability, ModelVersion};
#[cfg(test)]
use memory::MemoryRegistry;
use snapshot::ListedDetails;

/// A client of one registry. Clones share its state.
#[derive(Clone, Debug)]
pub enum RegistryClient {
    /// MLflow's Model Registry.
    Mlflow(mlflow::Client),
    /// A registry in this process, for tests.
    #[cfg(test)]
    Memory(MemoryRegistry),
}

type Result<T> = std::result::Result<T, RegistryError>;

impl RegistryClient {
    /// A client for this connection, which counts its requests in `metrics`. Nothing is sent yet.
    ///
    /// # Errors
    /// `Configuration` if the address, the credentials or the certificates cannot be used as
    /// written.
    pub fn connect(connection: Connection, metrics: RequestMetrics) -> Result<Self> {
        Self::connect_fenced(connection, metrics, Arc::new(|| true))
    }

    /// The same, but nothing that changes something is sent unless `may_write` says so. It is asked for each request.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_fenced(
        connection: Connection,
        metrics: RequestMetrics,
        may_write: MayWrite,
    ) -> Result<Self> {
        match &connection.server {
            Server::Mlflow { .. } => {
                mlflow::Client::connect_fenced(connection, metrics, may_write).map(Self::Mlflow)
            }
            #[cfg(test)]
            Server::Memory(registry) => Ok(Self::Memory(registry.clone())),
        }
    }

    /// The operations that this kind of registry has.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        match self {
            Self::Mlflow(_) => mlflow::CAPABILITIES,
            #[cfg(test)]
            Self::Memory(_) => memory::CAPABILITIES,
        }
    }

    /// How many bytes of responses were read since the last call.
    #[must_use]
    pub fn take_received(&self) -> usize {
        match self {
            Self::Mlflow(client) => client.take_received(),
            #[cfg(test)]
            Self::Memory(_) => 0,
        }
    }

    /// How long the server asked not to be sent requests, from now; zero if it did not.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Mlflow(client) => client.retry_after(),
            #[cfg(test)]
            Self::Memory(_) => Duration::ZERO,
        }
    }

    /// The server's version, if it tells one.
    pub async fn server_version(&self) -> Option<String> {
        match self {
            Self::Mlflow(client) => client.server_version().await,
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }

    /// The snapshots of many models, with as few requests as the server allows. A model that is
    /// missing from the result may still exist: confirm with [`RegistryClient::model`].
    ///
    /// # Errors
    /// If the registry cannot be reached, refuses, or sends a response that cannot be used.
    pub async fn snapshots(
        &self,
        names: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, ModelSnapshot>> {
        let mut snapshots = BTreeMap::new();
        let insert = |model: ModelSnapshot| _ = snapshots.insert(model.name.clone(), model);
        self.for_each_snapshot(names, insert).await?;
        Ok(snapshots)
    }

    /// The same, but each snapshot is passed on when its page is read, so that at most one page is
    /// held in memory. If the search has to start again in another way, a model may be passed
    /// twice; if it fails, some may have been passed.
    ///
    /// # Errors
    /// As [`RegistryClient::snapshots`].
    pub async fn for_each_snapshot(
        &self,
        names: &BTreeSet<String>,
        visit: impl FnMut(ModelSnapshot),
    ) -> Result<()> {
        match self {
            Self::Mlflow(client) => client.for_each_snapshot(names, visit).await,
            #[cfg(test)]
            Self::Memory(registry) => {
                registry.snapshots(names).into_iter().for_each(visit);
                Ok(())
            }
        }
    }

    /// One model. `None` if the registry says that there is none.
    ///
    /// # Errors
    /// As [`RegistryClient::snapshots`].
    pub async fn model(&self, name: &str) -> Result<Option<ModelSnapshot>> {
        match self {
            Self::Mlflow(client) => client.model(name).await,
            #[cfg(test)]
            Self::Memory(registry) => Ok(registry.model(name)),
        }
    }

    /// One version with its details, without its size. `None` if the registry says that there is
    /// none. If its source leads to no files, `problem` says why and the artifact URI is absent.
    ///
    /// # Errors
    /// As [`RegistryClient::snapshots`]. A detail that is missing or refused is left out.
    pub async fn version(&self, model: &str, version: &str) -> Result<Option<ModelVersion>> {
        match self {
            Self::Mlflow(client) => client.version(model, version).await,
            #[cfg(test)]
            Self::Memory(registry) => Ok(registry.version(model, version)),
        }
    }

    /// Whether the registry resolves a source to a URI, so that it may be another one later.
    #[must_use]
    pub fn resolves(&self, source: &str) -> bool {
        match self {
            Self::Mlflow(_) => mlflow::resolves(source),
            #[cfg(test)]
            Self::Memory(_) => true,
        }
    }

    /// The URI of a version's files with its query, which may hold a signature: for pod templates
    /// and artifact checks, and for nothing that people see. `None` if there is no such version, or
    /// its source leads to no files.
    ///
    /// # Errors
    /// As [`RegistryClient::snapshots`].
    pub async fn artifact_uri(&self, model: &str, version: &str) -> Result<Option<String>> {
        match self {
            Self::Mlflow(client) => client.artifact_uri(model, version).await,
            #[cfg(test)]
            Self::Memory(registry) => {
                let found = registry.version(model, version);
                Ok(found.and_then(|version| version.artifact_uri))
            }
        }
    }

    /// A listed version with its details.
    ///
    /// # Errors
    /// As [`RegistryClient::version`].
    pub async fn describe(&self, model: &str, listed: ListedVersion) -> Result<ModelVersion> {
        let ListedVersion { version, details } = listed;
        match (self, details) {
            (Self::Mlflow(client), ListedDetails::Mlflow(details)) => {
                client.describe(model, &version, *details).await
            }
            #[cfg(test)]
            (Self::Memory(registry), _) => {
                Ok(registry.version(model, &version).unwrap_or_default())
            }
            #[cfg(test)]
            (Self::Mlflow(_), ListedDetails::Memory) => Ok(ModelVersion::default()),
        }
    }

    /// The size of a version's files at `uri`; `None` if it cannot be determined.
    ///
    /// # Errors
    /// If the registry cannot be reached.
    pub async fn version_size(&self, model: &str, version: &str, uri: &str) -> Result<Option<i64>> {
        match self {
            Self::Mlflow(client) => client.version_size(model, version, uri).await,
            #[cfg(test)]
            Self::Memory(_) => Ok(None),
        }
    }

    /// The newest versions of a model, newest first.
    ///
    /// # Errors
    /// As [`RegistryClient::snapshots`].
    pub async fn newest_versions(&self, model: &str, count: u32) -> Result<Vec<ListedVersion>> {
        match self {
            Self::Mlflow(client) => client.newest_versions(model, count).await,
            #[cfg(test)]
            Self::Memory(registry) => Ok(registry.newest_versions(model, count)),
        }
    }

    /// The newest versions of many models, with few requests. Models whose newest `count` versions
    /// are not certain to be in the responses are left out.
    ///
    /// # Errors
    /// As [`RegistryClient::snapshots`]. MLflow servers before 3.0 refuse.
    pub async fn newest_versions_of(
        &self,
        models: &[&str],
        count: u32,
    ) -> Result<BTreeMap<String, Vec<ListedVersion>>> {
        match self {
            Self::Mlflow(client) => client.newest_versions_of(models, count).await,
            #[cfg(test)]
            Self::Memory(registry) => Ok(models
                .iter()
                .map(|model| ((*model).to_owned(), registry.newest_versions(model, count)))
                .collect()),
        }
    }

    /// Creates a registered model, and returns it. `None` if it exists already; then it is left as
    /// it is.
    ///
    /// # Errors
    /// `Unsupported` if the registry has no such operation; else as [`RegistryClient::snapshots`].
    pub async fn create_model(
        &self,
        name: &str,
        description: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Result<Option<ModelSnapshot>> {
        self.capabilities().require(Operation::CreateModel)?;
        match self {
            Self::Mlflow(client) => client.create_model(name, description, tags).await,
            #[cfg(test)]
            Self::Memory(_) => Ok(None),
        }
    }

    /// Sets a model's description.
    ///
    /// # Errors
    /// As [`RegistryClient::create_model`].
    pub async fn set_description(&self, name: &str, text: &str) -> Result<()> {
        self.capabilities().require(Operation::SetDescription)?;
        match self {
            Self::Mlflow(client) => client.set_description(name, text).await,
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }

    /// Sets a tag of a model.
    ///
    /// # Errors
    /// As [`RegistryClient::create_model`].
    pub async fn set_tag(&self, name: &str, key: &str, value: &str) -> Result<()> {
        self.capabilities().require(Operation::SetTag)?;
        match self {
            Self::Mlflow(client) => client.set_tag(name, key, value).await,
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }

    /// Points an alias at a version.
    ///
    /// # Errors
    /// As [`RegistryClient::create_model`].
    pub async fn set_alias(&self, name: &str, alias: &str, version: &str) -> Result<()> {
        self.capabilities().require(Operation::SetAlias)?;
        match self {
            Self::Mlflow(client) => client.set_alias(name, alias, version).await,
            #[cfg(test)]
            Self::Memory(registry) => registry.set_alias(name, alias, version),
        }
    }

    /// Deletes a model with all its versions. Deleting one that does not exist succeeds.
    ///
    /// # Errors
    /// As [`RegistryClient::create_model`].
    pub async fn delete_model(&self, name: &str) -> Result<()> {
        self.capabilities().require(Operation::DeleteModel)?;
        match self {
            Self::Mlflow(client) => client.delete_model(name).await,
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }

    /// The registry's webhooks; `None` if it has none.
    #[must_use]
    pub fn webhooks(&self) -> Option<WebhookClient<'_>> {
        match self {
            Self::Mlflow(client) => Some(client.webhooks()),
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }

    /// The tags of versions; `None` if the registry has none.
    #[must_use]
    pub fn version_tags(&self) -> Option<VersionTagsClient<'_>> {
        match self {
            Self::Mlflow(client) => Some(client.version_tags()),
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }

    /// Whether artifacts that the registry's own server hands out can be read now. `host` is the
    /// host that the URI names, if any.
    pub async fn check_proxied_artifact(&self, host: Option<&str>, path: &str) -> Availability {
        match self {
            Self::Mlflow(client) => client.check_proxied_artifact(host, path).await,
            #[cfg(test)]
            Self::Memory(_) => {
                Availability::Unchecked("the registry hands out no artifacts".to_owned())
            }
        }
    }
}
