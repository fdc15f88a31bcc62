//! Tests of the check of artifacts behind an MLflow server.
//!
//! Absent: real servers; those are in the test target `artifact`.

use crate::api::Availability;
use crate::http::hostile::{HostileServer, Reply};
use crate::registries::connection::Credentials;
use crate::registries::testing::mlflow_client;

const SECRET: &str = "s3cr3t-of-the-test-0123456789";

async fn check(server: &HostileServer, credentials: Credentials, path: &str) -> Availability {
    let client = mlflow_client(server, credentials).unwrap();
    client.check_proxied_artifact(None, path).await
}

#[tokio::test]
async fn a_model_behind_the_server_takes_one_request() {
    let server = HostileServer::start(|_, _| {
        Reply::Raw("HTTP/1.1 206 Partial Content\r\nContent-Type: application/octet-stream\r\nContent-Length: 16\r\n\r\nartifact_path: m".to_owned())
    });
    let server = server.await.unwrap();
    assert_eq!(
        check(&server, Credentials::None, "1/models/m-x/artifacts").await,
        Availability::Readable
    );
    let heads = server.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(
        heads[0]
            .starts_with("GET /api/2.0/mlflow-artifacts/artifacts/1/models/m-x/artifacts/MLmodel ")
            && heads[0].to_lowercase().contains("range: bytes=0-65535"),
        "{heads:?}"
    );
}

#[tokio::test]
async fn without_a_model_file_a_listed_file_is_read() {
    let server = HostileServer::start(|_, head| match head {
        head if head.contains("path=1%2Fm%2Fdata") => Reply::json(
            "200 OK",
            r#"{"files":[{"path":"empty","is_dir":false,"file_size":0},{"path":"w.bin","is_dir":false,"file_size":9}]}"#,
        ),
        head if head.contains("path=1%2Fm") => {
            Reply::json("200 OK", r#"{"files":[{"path":"data","is_dir":true}]}"#)
        }
        head if head.contains("/1/m/data/w.bin") => Reply::typed("200 OK", "text/plain", "w"),
        _ => Reply::json(
            "404 Not Found",
            r#"{"error_code":"RESOURCE_DOES_NOT_EXIST"}"#,
        ),
    });
    let server = server.await.unwrap();
    assert_eq!(
        check(&server, Credentials::None, "1/m").await,
        Availability::Readable
    );
    assert_eq!(server.heads().len(), 4);
}

/// An MLflow server without authentication, with S3 behind it, which returns 500 for a missing key.
#[tokio::test]
async fn a_server_before_s3_returns_500_for_missing_files() {
    let server = HostileServer::start(|_, head| match head {
        head if head.contains("path=1%2Fgone") => Reply::json("200 OK", "{}"),
        head if head.contains("path=1%2Fm") => Reply::json(
            "200 OK",
            r#"{"files":[{"path":"../x","is_dir":false,"file_size":1},{"path":"weights","is_dir":false,"file_size":9}]}"#,
        ),
        head if head.contains("/1/m/weights") || head.contains("/3/m/MLmodel") => {
            Reply::Endless("HTTP/1.1 200 OK\r\n\r\n".to_owned())
        }
        _ => Reply::typed("500 Internal Server Error", "text/plain", "NoSuchKey"),
    });
    let server = server.await.unwrap();
    for path in ["1/m", "3/m"] {
        assert_eq!(
            check(&server, Credentials::None, path).await,
            Availability::Readable,
            "{path}"
        );
    }
    for path in ["1/gone", "1/../m"] {
        let availability = check(&server, Credentials::None, path).await;
        assert!(matches!(availability, Availability::Missing(_)), "{path}");
    }
    assert!(matches!(
        check(&server, Credentials::None, "2/m").await,
        Availability::Unknown(_)
    ));
}

#[tokio::test]
async fn a_server_that_refuses_differs_from_one_that_is_unreachable() {
    for (reply, credentials, expected) in [
        (
            Reply::typed("401 Unauthorized", "text/html", "<html>"),
            Credentials::None,
            "Unchecked",
        ),
        (
            Reply::typed("403 Forbidden", "text/plain", "no"),
            Credentials::None,
            "Unchecked",
        ),
        (
            Reply::typed("403 Forbidden", "text/plain", "no"),
            Credentials::Bearer(SECRET.to_owned()),
            "Unchecked",
        ),
        (
            Reply::typed("503 No", "text/plain", SECRET),
            Credentials::Bearer(SECRET.to_owned()),
            "Unknown",
        ),
        (
            Reply::typed("200 OK", "text/html", "<html>"),
            Credentials::None,
            "Unknown",
        ),
        (Reply::HangUp, Credentials::None, "Unknown"),
    ] {
        let server = HostileServer::start(move |_, _| reply.clone())
            .await
            .unwrap();
        let availability = format!("{:?}", check(&server, credentials, "1/m").await);
        assert!(availability.starts_with(expected), "{availability}");
        assert!(!availability.contains(SECRET), "{availability}");
    }
}

#[tokio::test]
async fn another_host_in_the_uri_is_not_reported_as_missing() {
    let server = HostileServer::start(|_, _| {
        Reply::json(
            "404 Not Found",
            r#"{"error_code":"RESOURCE_DOES_NOT_EXIST"}"#,
        )
    });
    let server = server.await.unwrap();
    let client = mlflow_client(&server, Credentials::None).unwrap();
    let host = Some("mlflow.example.com");
    let availability = client.check_proxied_artifact(host, "1/m").await;
    assert!(
        matches!(&availability, Availability::Unchecked(problem) if problem.contains("another host")),
        "{availability:?}"
    );
}
