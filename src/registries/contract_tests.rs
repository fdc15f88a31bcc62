//! The contract between controllers and registries, checked against every kind of registry: MLflow
//! (a scripted server) and the registry in memory, which lacks most capabilities.
//!
//! Absent: real servers; those are in the test target `registry`.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::MemoryRegistry;
use super::testing::connection;
use super::{
    Capabilities, Connection, Credentials, RegistryClient, RegistryError, RequestMetrics, Server,
};
use crate::api::Reason;
use crate::http::hostile::{HostileServer, Reply};

const NOT_FOUND: &str = r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"none"}"#;

/// MLflow with the model `taxi`, its versions 1 and 2, and the alias champion → 2.
async fn mlflow() -> (RegistryClient, HostileServer) {
    let server = HostileServer::start(|_, head| {
        let line = head.lines().next().unwrap_or_default();
        let model = r#"{"name":"taxi","aliases":[{"alias":"champion","version":"2"}],"latest_versions":[{"version":"2"}]}"#;
        let version = |number: u8| {
            format!(r#"{{"name":"taxi","version":"{number}","source":"s3://models/{number}"}}"#)
        };
        let body = match line {
            line if line.contains("registered-models/search") => {
                format!(r#"{{"registered_models":[{model}]}}"#)
            }
            line if line.contains("registered-models/get?name=taxi") => {
                format!(r#"{{"registered_model":{model}}}"#)
            }
            line if line.contains("max_results=1&") => {
                format!(
                    r#"{{"model_versions":[{}],"next_page_token":"2"}}"#,
                    version(2)
                )
            }
            line if line.contains("model-versions/search") => {
                format!(r#"{{"model_versions":[{},{}]}}"#, version(2), version(1))
            }
            line if line.contains("model-versions/get?name=taxi&version=1") => {
                format!(r#"{{"model_version":{}}}"#, version(1))
            }
            line if line.starts_with("POST") => "{}".to_owned(),
            _ => return Reply::json("404 Not Found", NOT_FOUND),
        };
        Reply::json("200 OK", &body)
    });
    let server = server.await.unwrap();
    let connection = connection(&server, Credentials::None);
    let client = RegistryClient::connect(connection, RequestMetrics::default()).unwrap();
    (client, server)
}

/// The same in memory.
async fn memory() -> RegistryClient {
    let registry = MemoryRegistry::default();
    registry.register("taxi", "s3://models/1");
    registry.register("taxi", "s3://models/2");
    let connection = Connection::new(Server::Memory(registry));
    let client = RegistryClient::connect(connection, RequestMetrics::default()).unwrap();
    client.set_alias("taxi", "champion", "2").await.unwrap();
    client
}

/// Reads that every kind of registry must support.
async fn check_reads(client: &RegistryClient) {
    let names = BTreeSet::from(["taxi".to_owned(), "gone".to_owned()]);
    let snapshots = client.snapshots(&names).await.unwrap();
    assert_eq!(snapshots.keys().collect::<Vec<_>>(), ["taxi"]);
    let taxi = client.model("taxi").await.unwrap().unwrap();
    assert_eq!(snapshots.get("taxi"), Some(&taxi));
    assert_eq!(taxi.aliases.get("champion").map(String::as_str), Some("2"));
    assert_eq!(taxi.latest_version.as_deref(), Some("2"));
    assert_eq!(client.model("gone").await.unwrap(), None);

    let newest = client.newest_versions("taxi", 2).await.unwrap();
    let numbers: Vec<&str> = newest
        .iter()
        .map(|listed| listed.version.as_str())
        .collect();
    assert_eq!(numbers, ["2", "1"]);
    let one = client.newest_versions("taxi", 1).await.unwrap();
    assert_eq!(one.len(), 1);
    let many = client.newest_versions_of(&["taxi"], 2).await.unwrap();
    assert_eq!(many.get("taxi").map(Vec::len), Some(2));

    let described = client.describe("taxi", newest[1].clone()).await.unwrap();
    let version = client.version("taxi", "1").await.unwrap().unwrap();
    assert_eq!(version.artifact_uri.as_deref(), Some("s3://models/1"));
    assert_eq!(described.artifact_uri, version.artifact_uri);
    assert_eq!(client.version("taxi", "9").await.unwrap(), None);
}

/// Whether an operation was refused because the kind of registry has none such.
fn is_unsupported(outcome: Result<(), RegistryError>) -> bool {
    match outcome {
        Err(error @ RegistryError::Unsupported { .. }) => {
            assert_eq!(error.reason(), Reason::InvalidSpec);
            assert!(error.to_string().contains("spec."), "{error}");
            true
        }
        _ => false,
    }
}

/// The operations of a registry match its declared capabilities.
async fn check_capabilities(client: &RegistryClient) {
    let Capabilities {
        aliases,
        stages,
        tags,
        webhooks,
        create,
    } = client.capabilities();
    let no_tags = BTreeMap::new();
    assert_eq!(
        is_unsupported(client.create_model("new", None, &no_tags).await.map(drop)),
        !create
    );
    assert_eq!(is_unsupported(client.delete_model("new").await), !create);
    assert_eq!(
        is_unsupported(client.set_description("taxi", "text").await),
        !tags
    );
    assert_eq!(
        is_unsupported(client.set_tag("taxi", "k", "v").await),
        !tags
    );
    assert_eq!(
        is_unsupported(client.set_alias("taxi", "champion", "2").await),
        !aliases
    );
    assert_eq!(client.webhooks().is_some(), webhooks);
    assert_eq!(client.version_tags().is_some(), tags);
    let taxi = client.model("taxi").await.unwrap().unwrap();
    assert!(stages || taxi.stages.is_empty());
}

#[tokio::test]
async fn mlflow_keeps_the_contract() {
    let (client, server) = mlflow().await;
    check_reads(&client).await;
    check_capabilities(&client).await;
    assert!(!server.heads().is_empty());
}

#[tokio::test]
async fn a_registry_with_few_capabilities_keeps_the_contract() {
    let client = memory().await;
    check_reads(&client).await;
    check_capabilities(&client).await;
    assert!(!client.capabilities().webhooks && !client.capabilities().stages);
}

#[tokio::test]
async fn an_alias_of_a_version_that_does_not_exist_is_not_found() {
    let error = memory().await.set_alias("taxi", "champion", "9").await;
    assert!(error.is_err_and(|error| error.is_not_found()));
}

#[test]
fn connections_to_the_same_registry_are_equal() {
    let registry = MemoryRegistry::default();
    let connection = Connection::new(Server::Memory(registry.clone()));
    assert!(connection == Connection::new(Server::Memory(registry)));
    assert!(connection != Connection::new(Server::Memory(MemoryRegistry::default())));
    assert!(connection != Connection::mlflow("http://mlflow"));
}
