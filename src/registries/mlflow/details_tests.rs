//! Tests of a version's details: which are read, cut and left out.
//!
//! Absent: real servers; those are in the test target `registry`.

use serde_json::json;

use super::*;
use crate::api::Reason;
use crate::http::hostile::{HostileServer, Reply};
use crate::registries::connection::Credentials;
use crate::registries::testing::{TestResult, mlflow_client};

fn run(value: serde_json::Value) -> Result<RunDetails, serde_json::Error> {
    serde_json::from_value(value).map(RunDetails::of)
}

/// A server with a version of this source, which sends `rest` to every other request.
async fn server_of(source: &'static str, rest: Reply) -> std::io::Result<HostileServer> {
    HostileServer::start(move |_, head| {
        if head.contains("model-versions/get?") {
            let version = json!({"name": "m", "version": "1", "source": source, "run_id": "r1", "creation_timestamp": 1_795_420_212_449_i64});
            return Reply::json("200 OK", &json!({"model_version": version}).to_string());
        }
        rest.clone()
    })
    .await
}

#[test]
fn a_run_has_duration_metrics_parameters_and_code() -> TestResult {
    let run = run(json!({
        "info": {"start_time": 1000, "end_time": 6999},
        "data": {
            "metrics": [{"key": "r2", "value": 0.51}, {"key": "loss", "value": "NaN"}, {"value": 1}],
            "params": [{"key": "alpha", "value": "0.1"}, {"key": "long", "value": "x".repeat(300)}],
            "tags": [
                {"key": "mlflow.source.git.commit", "value": "abc"}, {"key": "mlflow.source.git.repoURL", "value": "https://token:x@git.example.test/r.git"},
                {"key": "mlflow.source.name", "value": "train.py"}
            ]
        }
    }))?;
    let version = run.describe(ModelVersion::default());
    assert_eq!(version.duration_seconds, Some(5));
    assert_eq!(
        version.metrics,
        BTreeMap::from([
            ("loss".to_owned(), "NaN".to_owned()),
            ("r2".to_owned(), "0.51".to_owned())
        ])
    );
    assert_eq!(
        version
            .parameters
            .get("long")
            .map(|value| value.chars().count()),
        Some(251)
    );
    let code = version.code.ok_or("no code")?;
    assert_eq!(
        code.repository.as_deref(),
        Some("https://git.example.test/r.git")
    );
    assert_eq!(
        (code.commit.as_deref(), code.entry_point.as_deref()),
        (Some("abc"), Some("train.py"))
    );
    Ok(())
}

#[test]
fn parameters_that_look_like_secrets_are_left_out_and_uris_lose_theirs() -> TestResult {
    let run = run(json!({
        "data": {
            "params": [
                {"key": "alpha", "value": "0.1"}, {"key": "max_tokens", "value": "512"},
                {"key": "aws_secret_access_key", "value": "hunter2"}, {"key": "apiKey", "value": "hunter2"},
                {"key": "HF_TOKEN", "value": "hunter2"}, {"key": "db.password", "value": "hunter2"},
                {"key": "data", "value": "https://hunter2@host/d?X-Amz-Signature=hunter2"}
            ],
            "tags": [
                {"key": "mlflow.source.git.repoURL", "value": "https://hunter2@git.example.test/r.git?private_token=hunter2"},
                {"key": "mlflow.source.name", "value": "https://host/train.py?sig=hunter2"}
            ]
        },
        "inputs": {"dataset_inputs": [{"dataset": {"name": "https://host/d?sig=hunter2", "digest": "abc"}}]}
    }))?;
    let version = run.describe(ModelVersion::default());
    let parameters: Vec<_> = version.parameters.iter().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let kept = [
        pair("alpha", "0.1"),
        pair("data", "https://host/d"),
        pair("max_tokens", "512"),
    ];
    assert_eq!(
        parameters,
        kept.iter()
            .map(|(name, value)| (name, value))
            .collect::<Vec<_>>()
    );
    let shown = format!("{version:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.contains("https://git.example.test/r.git") && shown.contains("https://host/train.py")
    );
    Ok(())
}

#[tokio::test]
async fn the_query_of_a_source_is_withheld_and_read_when_it_is_needed() -> TestResult {
    let source = "wasbs://models@acct.blob.core.windows.net/m?sig=hunter2";
    let server = server_of(
        source,
        Reply::json(
            "404 Not Found",
            r#"{"error_code":"RESOURCE_DOES_NOT_EXIST"}"#,
        ),
    )
    .await?;
    let client = mlflow_client(&server, Credentials::None)?;
    let version = client.version("m", "1").await?.ok_or("no version")?;
    let shown = "wasbs://models@acct.blob.core.windows.net/m";
    assert_eq!(version.artifact_uri.as_deref(), Some(shown));
    assert_eq!(version.source.as_deref(), Some(shown));
    assert!(version.query_withheld);
    assert!(!format!("{version:?}").contains("hunter2"));
    let whole = client.artifact_uri("m", "1").await?;
    assert_eq!(whole.as_deref(), Some(source));
    Ok(())
}

#[test]
fn the_first_metrics_by_name_are_kept() -> TestResult {
    let metrics: Vec<_> = (0..100)
        .rev()
        .map(|i| json!({"key": format!("m{i:03}"), "value": i}))
        .collect();
    let version = run(json!({"data": {"metrics": metrics}}))?.describe(ModelVersion::default());
    assert_eq!(version.metrics.len(), 32);
    assert_eq!(
        version.metrics.keys().next().map(String::as_str),
        Some("m000")
    );
    Ok(())
}

#[test]
fn a_run_without_an_end_has_no_duration() -> TestResult {
    assert_eq!(
        run(json!({"info": {"start_time": 1000}}))?
            .describe(ModelVersion::default())
            .duration_seconds,
        None
    );
    assert_eq!(
        run(json!({"info": {"start_time": 1000, "end_time": 1}}))?
            .describe(ModelVersion::default())
            .duration_seconds,
        None
    );
    Ok(())
}

#[test]
fn the_size_is_read_from_the_mlmodel_file() {
    assert_eq!(
        model_size(b"flavors:\n  x: 1\nmodel_size_bytes: 7491\nrun_id: a\n"),
        Some(7491)
    );
    assert_eq!(model_size(b"flavors:\n  model_size_bytes: 3\n"), None);
    assert_eq!(model_size(b"model_size_bytes: -1\n"), None);
    assert_eq!(model_size(&[0xff, 0xfe]), None);
}

#[test]
fn only_proxied_artifacts_are_listed() {
    assert_eq!(
        proxied_path("mlflow-artifacts:/1/models/m-x/artifacts"),
        Some("1/models/m-x/artifacts")
    );
    assert_eq!(
        proxied_path("mlflow-artifacts://host:5000/1/x"),
        Some("1/x")
    );
    assert_eq!(proxied_path("s3://bucket/x"), None);
    assert_eq!(proxied_path("mlflow-artifacts:/"), None);
}

#[test]
fn a_listing_with_paths_is_refused() -> TestResult {
    for name in ["..", "/etc/passwd", "a/../b", "", "a\\b"] {
        let listing = serde_json::from_value(json!({"files": [{"path": name, "file_size": 1}]}))?;
        assert_eq!(ListingSum::default().add(listing), None, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn missing_details_are_left_out() -> TestResult {
    for rest in [
        Reply::json(
            "404 Not Found",
            r#"{"error_code":"RESOURCE_DOES_NOT_EXIST"}"#,
        ),
        Reply::typed("200 OK", "text/html", "<html>"),
        Reply::json("500 Oops", "{}"),
        Reply::json("200 OK", "{}"),
    ] {
        let server = server_of("s3://bucket/model", rest).await?;
        let version = mlflow_client(&server, Credentials::None)?
            .version("m", "1")
            .await?
            .ok_or("no version")?;
        assert_eq!(
            (version.artifact_uri.as_deref(), version.problem.as_deref()),
            (Some("s3://bucket/model"), None)
        );
        assert_eq!((version.size_bytes, version.duration_seconds), (None, None));
    }
    Ok(())
}

/// A run of a million metrics fails, or comes late; the server itself is well.
#[tokio::test]
async fn a_run_that_cannot_be_read_concerns_its_version_alone() -> TestResult {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{";
    let late = Reply::Drip(format!("{head}{}", " ".repeat(900)));
    for rest in [Reply::typed("500 Oops", "text/plain", "oops"), late] {
        let server = server_of("s3://bucket/model", rest.clone()).await?;
        let client = mlflow_client(&server, Credentials::None)?;
        let version = client.version("m", "1").await?.ok_or("no version")?;
        assert_eq!(version.artifact_uri.as_deref(), Some("s3://bucket/model"));
        assert!(
            version.details_omitted && version.problem.is_none(),
            "{version:?}"
        );
        let server = server_of("runs:/r1/model", rest).await?;
        let client = mlflow_client(&server, Credentials::None)?;
        let version = client.version("m", "1").await?.ok_or("no version")?;
        assert!(
            version.artifact_uri.is_none() && version.problem.is_some(),
            "{version:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_unreachable_server_fails_the_whole_version() -> TestResult {
    for source in ["s3://bucket/model", "runs:/r1/model"] {
        let server = server_of(source, Reply::HangUp).await?;
        let error = mlflow_client(&server, Credentials::None)?
            .version("m", "1")
            .await
            .err()
            .ok_or("no error")?;
        assert_eq!(error.reason(), Reason::RegistryUnreachable, "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_source_without_files_is_a_problem_of_the_version() -> TestResult {
    for source in ["runs:/gone/model", "models:/m-gone", "mlruns/1/model", ""] {
        let server = server_of(
            source,
            Reply::json(
                "404 Not Found",
                r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"Run not found"}"#,
            ),
        )
        .await?;
        let version = mlflow_client(&server, Credentials::None)?
            .version("m", "1")
            .await?
            .ok_or("no version")?;
        assert!(
            version.artifact_uri.is_none() && version.problem.is_some(),
            "{source}: {version:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_version_that_is_no_number_does_not_exist() -> TestResult {
    let server = HostileServer::start(|_, _| Reply::HangUp).await?;
    assert_eq!(
        mlflow_client(&server, Credentials::None)?
            .version("m", "latest")
            .await?,
        None
    );
    assert!(server.heads().is_empty());
    Ok(())
}

/// A server on which version 1 of `c` is a copy of `b`, that of `a`, and a run logged that; or `b` is a copy of `c` again.
async fn server_of_copies(in_a_circle: bool) -> std::io::Result<HostileServer> {
    HostileServer::start(move |_, head| {
        let of = |name: &str, source: &str, run: Option<&str>| {
            let version = json!({"name": name, "version": "1", "source": source, "run_id": run});
            Reply::json("200 OK", &json!({"model_version": version}).to_string())
        };
        if head.contains("runs/get?") {
            let tags = json!([{"key": "mlflow.source.git.commit", "value": "abc"}]);
            let run = json!({"run": {"info": {}, "data": {"tags": tags}}});
            return Reply::json("200 OK", &run.to_string());
        }
        if !head.contains("model-versions/get?") {
            return Reply::json("200 OK", r#"{"artifact_uri": "s3://bucket/model"}"#);
        }
        match head {
            _ if head.contains("name=c") => of("c", "models:/b/1", None),
            _ if head.contains("name=b") && in_a_circle => of("b", "models:/c/1", None),
            _ if head.contains("name=b") => of("b", "models:/a/1", None),
            _ => of("a", "runs:/r1/model", Some("r1")),
        }
    })
    .await
}

#[tokio::test]
async fn a_copy_of_a_copy_has_the_code_of_the_first_run() -> TestResult {
    for (in_a_circle, expected) in [(false, Some("abc")), (true, None)] {
        let server = server_of_copies(in_a_circle).await?;
        let client = mlflow_client(&server, Credentials::None)?;
        let version = client.version("c", "1").await?.ok_or("no version")?;
        let commit = version.code.and_then(|code| code.commit);
        assert_eq!(commit.as_deref(), expected);
        assert!(server.heads().len() < 16, "{:?}", server.heads());
    }
    Ok(())
}
