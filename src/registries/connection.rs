//! Where a registry is and how to connect to it.
//!
//! Absent: reading Secrets and `ConfigMap`s. Controllers do that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::error::RegistryError;
#[cfg(test)]
use super::memory::MemoryRegistry;
use crate::api::model_registry::ModelRegistrySpec;
use crate::http::guard::AddressGuard;
use crate::http::uri::origin_and_path;

/// Whether requests that change something may be sent now: not by a replica that does not lead.
pub type MayWrite = Arc<dyn Fn() -> bool + Send + Sync>;

/// The server of a registry, one variant for each member of `ModelRegistry`'s spec.
#[derive(Clone, Eq, PartialEq)]
pub enum Server {
    /// An MLflow tracking server.
    Mlflow {
        /// The server's base address, such as `http://mlflow.mlflow.svc:5000`.
        uri: String,
        /// The workspace to use, if the server has workspaces.
        workspace: Option<String>,
    },
    /// A registry in this process, for tests.
    #[cfg(test)]
    Memory(MemoryRegistry),
}

/// Where a registry is and how to connect to it.
#[derive(Clone, Eq, PartialEq)]
pub struct Connection {
    /// The server.
    pub server: Server,
    /// How requests are authenticated.
    pub credentials: Credentials,
    /// Headers of every request, each with its value.
    pub headers: BTreeMap<String, String>,
    /// The certificate authorities to trust (PEM) instead of the well-known ones.
    pub ca_pem: Option<String>,
    /// The client's certificate and its key (PEM).
    pub identity_pem: Option<String>,
    /// How long it may take to connect.
    pub connect_timeout: Duration,
    /// How long a request may take from its start to the end of the response.
    pub total_timeout: Duration,
    /// The namespace of the registry's object: responses take its share of the memory.
    pub tenant: Arc<str>,
    /// The addresses to which requests may go.
    pub guard: AddressGuard,
}

/// How requests are authenticated.
#[derive(Clone, Default, Eq, PartialEq)]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// User name and password.
    Basic {
        /// The user's name.
        username: String,
        /// The password.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
}

impl Connection {
    /// A connection without credentials: 5 s to connect, 15 s for a request.
    #[must_use]
    pub fn new(server: Server) -> Self {
        Self {
            server,
            credentials: Credentials::None,
            headers: BTreeMap::new(),
            ca_pem: None,
            identity_pem: None,
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(15),
            tenant: Arc::from(""),
            guard: AddressGuard::default(),
        }
    }

    /// Whether the server is at this address.
    #[must_use]
    pub fn is_at(&self, address: &str) -> bool {
        match &self.server {
            Server::Mlflow { uri, .. } => uri == address,
            #[cfg(test)]
            Server::Memory(_) => true,
        }
    }

    /// A connection to an MLflow server.
    pub fn mlflow(uri: impl Into<String>) -> Self {
        Self::new(Server::Mlflow {
            uri: uri.into(),
            workspace: None,
        })
    }

    /// A connection to the server that a `ModelRegistry` names, still without credentials.
    ///
    /// # Errors
    /// `Configuration` if the spec names no server. Admission refuses such a spec.
    pub fn of(spec: &ModelRegistrySpec) -> Result<Self, RegistryError> {
        let Some(mlflow) = &spec.mlflow else {
            return Err(RegistryError::configuration(
                "the ModelRegistry names no server: set spec.mlflow.uri, such as http://mlflow.mlflow.svc:5000",
            ));
        };
        Ok(Self::new(Server::Mlflow {
            uri: mlflow.uri.clone(),
            workspace: mlflow.workspace.clone(),
        }))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("server", &self.server)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mlflow { uri, .. } => match Url::parse(uri) {
                Ok(uri) => formatter.write_str(&origin_and_path(&uri)),
                Err(_) => formatter.write_str("an invalid URI"),
            },
            #[cfg(test)]
            Self::Memory(_) => formatter.write_str("memory"),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind())
    }
}

impl Credentials {
    /// The kind of credentials, as error messages name it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "no credentials",
            Self::Basic { .. } => "a user name and password",
            Self::Bearer(_) => "a bearer token",
        }
    }

    /// The same without the line breaks that files and editors leave at the end of a Secret.
    pub(super) fn trimmed(self) -> Self {
        let trim = |text: String| text.trim_end_matches(['\r', '\n']).to_owned();
        match self {
            Self::None => Self::None,
            Self::Basic { username, password } => Self::Basic {
                username: trim(username),
                password: trim(password),
            },
            Self::Bearer(token) => Self::Bearer(trim(token)),
        }
    }

    /// The parts that must not be seen.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Basic { password, .. } => vec![password.clone()],
            Self::Bearer(token) => vec![token.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_credentials() {
        let connection = Connection {
            credentials: Credentials::Basic {
                username: "ada".to_owned(),
                password: "hunter2-hunter2".to_owned(),
            },
            ..Connection::mlflow("http://ada:hunter2@mlflow/x?hunter2")
        };
        let bearer = Credentials::Bearer("hunter2".to_owned());
        assert!(!format!("{connection:?} {bearer:?}").contains("hunter2"));
    }
}
