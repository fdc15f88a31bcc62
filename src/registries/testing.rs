//! Clients of scripted servers, for tests.
//!
//! Absent: real servers; those are in the test target `registry`.

use std::time::Duration;

use super::connection::{Connection, Credentials};
use super::error::RegistryError;
use super::mlflow::Client;
use super::request_metrics::RequestMetrics;
use crate::http::hostile::HostileServer;

/// The outcome of a test.
pub(super) type TestResult = Result<(), Box<dyn std::error::Error>>;

/// A connection to a scripted server, with a short timeout.
pub(super) fn connection(server: &HostileServer, credentials: Credentials) -> Connection {
    // Another test may have installed the provider already.
    _ = rustls::crypto::ring::default_provider().install_default();
    Connection {
        credentials,
        total_timeout: Duration::from_millis(1500),
        ..Connection::mlflow(&server.uri)
    }
}

/// An MLflow client of a scripted server.
pub(super) fn mlflow_client(
    server: &HostileServer,
    credentials: Credentials,
) -> Result<Client, RegistryError> {
    Client::connect(connection(server, credentials), RequestMetrics::default())
}
