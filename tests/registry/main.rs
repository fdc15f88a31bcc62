//! The client against real MLflow servers, whose addresses come by environment:
//! `POINTSMAN_TEST_MLFLOW3` and `POINTSMAN_TEST_MLFLOW2` (open servers),
//! `POINTSMAN_TEST_MLFLOW_AUTH` (basic auth) and `POINTSMAN_TEST_PYTHON3`, `POINTSMAN_TEST_PYTHON2`
//! (interpreters that have the MLflow client of that server).
//!
//! Absent: servers of its own, and servers that misbehave; those are in the unit tests.

#![allow(clippy::too_many_lines)] // one server, and one sequence of steps on it, a test

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pointsman::api::Reason;
use pointsman::registries::{
    Connection, Credentials, RegistryClient, RegistryError, RequestMetrics, Server,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type TestResult = Result<(), Box<dyn Error>>;

/// Names that a filter, a URL or a shell could trip over.
const STRANGE: &[&str] = &[
    "o'brien",
    "say \"hi\"",
    "both'\"quotes",
    "back\\slash",
    "100%",
    "é",
    "日本",
    "emoji😀",
    "two  spaces",
    "a,b",
    "(x)",
    "semi;colon",
    "-- dash",
    "hash # x",
    "`tick`",
    "$dollar$",
    "a''b",
    "a&b=c?d+e",
    "trail\\",
    "x*y",
];

fn connect(connection: Connection) -> Result<RegistryClient, RegistryError> {
    RegistryClient::connect(connection, RequestMetrics::default())
}

/// A server of this variable; `None` skips the test and says so.
fn server(variable: &str) -> Option<String> {
    _ = rustls::crypto::ring::default_provider().install_default();
    let found = std::env::var(variable).ok();
    if found.is_none() {
        eprintln!("skipped: {variable} is not set");
    }
    found
}

fn both() -> Vec<(String, &'static str)> {
    let known = [
        ("POINTSMAN_TEST_MLFLOW3", "POINTSMAN_TEST_PYTHON3"),
        ("POINTSMAN_TEST_MLFLOW2", "POINTSMAN_TEST_PYTHON2"),
    ];
    known
        .into_iter()
        .filter_map(|(address, python)| Some((server(address)?, python)))
        .collect()
}

/// A name that no earlier run of the tests has used.
fn fresh(stem: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{stem}-{}", now.as_nanos())
}

/// Speaks to the server as somebody else would.
async fn post(uri: &str, path: &str, body: &Value) -> Result<Value, reqwest::Error> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(60))
        .build()?;
    client
        .post(format!("{uri}/api/2.0/mlflow/{path}"))
        .json(body)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await
}

async fn register(uri: &str, name: &str, source: &str) -> Result<Value, reqwest::Error> {
    post(
        uri,
        "model-versions/create",
        &json!({"name": name, "source": source}),
    )
    .await
}

/// A door to the server that passes each request on under another host name, as a Service in a
/// cluster has one.
async fn rename_host(server: String, name: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let door = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = vec![0; 16 << 10];
            let (Ok(read), Ok(mut upstream)) = (
                client.read(&mut head).await,
                TcpStream::connect(&server).await,
            ) else {
                continue;
            };
            let renamed = String::from_utf8_lossy(&head[..read])
                .replace(&format!("host: {door}"), &format!("host: {name}"));
            _ = upstream.write_all(renamed.as_bytes()).await;
            _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
        }
    });
    Ok(door)
}

#[tokio::test]
async fn the_server_version_is_read() -> TestResult {
    for (uri, _) in both() {
        let version = connect(Connection::mlflow(&uri))?
            .server_version()
            .await
            .ok_or("no version")?;
        assert!(version.starts_with(['2', '3']), "{version}");
    }
    Ok(())
}

async fn newest(
    registry: &RegistryClient,
    model: &str,
    count: u32,
) -> Result<Vec<String>, RegistryError> {
    Ok(registry
        .newest_versions(model, count)
        .await?
        .into_iter()
        .map(|version| version.version)
        .collect())
}

#[tokio::test]
async fn a_model_is_created_tagged_and_deleted() -> TestResult {
    for (uri, _) in both() {
        let (registry, name) = (connect(Connection::mlflow(&uri))?, fresh("made"));
        assert_eq!(registry.model(&name).await?, None);
        let tags = BTreeMap::from([("team".to_owned(), "ml".to_owned())]);
        registry.create_model(&name, Some("first"), &tags).await?;
        registry
            .create_model(&name, Some("other"), &BTreeMap::new())
            .await?;
        registry.set_description(&name, "second").await?;
        registry.set_tag(&name, "tier", "gold").await?;
        register(&uri, &name, "s3://bucket/1").await?;
        register(&uri, &name, "s3://bucket/2").await?;
        registry.set_alias(&name, "champion", "1").await?;
        let snapshot = registry.model(&name).await?.ok_or("no model")?;
        assert_eq!(
            (
                snapshot.description.as_str(),
                snapshot.latest_version.as_deref()
            ),
            ("second", Some("2"))
        );
        assert_eq!(
            snapshot.tags,
            BTreeMap::from([
                ("team".to_owned(), "ml".to_owned()),
                ("tier".to_owned(), "gold".to_owned())
            ])
        );
        assert_eq!(
            snapshot.aliases,
            BTreeMap::from([("champion".to_owned(), "1".to_owned())])
        );
        assert!(snapshot.created_at.is_some() && snapshot.stages.is_empty());
        assert_eq!(
            registry
                .snapshots(&BTreeSet::from([name.clone()]))
                .await?
                .get(&name),
            Some(&snapshot)
        );
        assert_eq!(newest(&registry, &name, 1).await?, ["2"]);
        assert_eq!(newest(&registry, &name, 9).await?, ["2", "1"]);
        assert_eq!(registry.version(&name, "3").await?, None);
        registry.delete_model(&name).await?;
        registry.delete_model(&name).await?;
        assert_eq!(registry.model(&name).await?, None);
        assert_eq!(registry.version(&name, "1").await?, None);
    }
    Ok(())
}

#[tokio::test]
async fn stages_are_read_if_versions_have_them() -> TestResult {
    for (uri, _) in both() {
        let (registry, name) = (connect(Connection::mlflow(&uri))?, fresh("staged"));
        registry.create_model(&name, None, &BTreeMap::new()).await?;
        for number in ["1", "2", "3"] {
            register(&uri, &name, "s3://bucket/x").await?;
            if number != "3" {
                post(&uri, "model-versions/transition-stage", &json!({"name": name, "version": number, "stage": "Production", "archive_existing_versions": false})).await?;
            }
        }
        let snapshot = registry.model(&name).await?.ok_or("no model")?;
        assert_eq!(
            snapshot.stages,
            BTreeMap::from([("Production".to_owned(), "2".to_owned())])
        );
        assert_eq!(snapshot.latest_version.as_deref(), Some("3"));
    }
    Ok(())
}

/// A Kubernetes object cannot have such a name either, so MLflow is not asked for it.
#[tokio::test]
async fn names_with_control_characters_are_never_found() -> TestResult {
    for (uri, _) in both() {
        let registry = connect(Connection::mlflow(&uri))?;
        let stem = fresh("control");
        let name = format!("{stem} tab\there");
        registry.create_model(&name, None, &BTreeMap::new()).await?;
        let found = registry.snapshots(&BTreeSet::from([name, stem])).await?;
        assert!(found.is_empty(), "{found:?}");
    }
    Ok(())
}

#[tokio::test]
async fn names_with_special_characters_are_found() -> TestResult {
    for (uri, _) in both() {
        let registry = connect(Connection::mlflow(&uri))?;
        let stem = fresh("strange");
        let names: BTreeSet<String> = STRANGE
            .iter()
            .map(|name| format!("{stem} {name}"))
            .collect();
        for name in &names {
            registry.create_model(name, None, &BTreeMap::new()).await?;
            register(&uri, name, "s3://bucket/x").await?;
        }
        assert_eq!(
            registry
                .snapshots(&names)
                .await?
                .into_keys()
                .collect::<BTreeSet<_>>(),
            names
        );
        for name in &names {
            assert_eq!(
                registry
                    .snapshots(&BTreeSet::from([name.clone()]))
                    .await?
                    .len(),
                1,
                "{name:?}"
            );
            assert!(registry.model(name).await?.is_some(), "{name:?}");
            assert_eq!(newest(&registry, name, 5).await?, ["1"], "{name:?}");
            let version = registry.version(name, "1").await?.ok_or("no version")?;
            assert_eq!(
                version.artifact_uri.as_deref(),
                Some("s3://bucket/x"),
                "{name:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_thousand_models_are_read_in_bulk() -> TestResult {
    for (uri, _) in both() {
        let registry = connect(Connection::mlflow(&uri))?;
        let stem = fresh("bulk-of-many");
        let names: BTreeSet<String> = (0..1000).map(|i| format!("{stem}-{i:04}")).collect();
        for name in names.iter().take(3) {
            registry.create_model(name, None, &BTreeMap::new()).await?;
        }
        for _ in 0..2 {
            assert_eq!(registry.snapshots(&names).await?.len(), 3);
        }
    }
    Ok(())
}

#[tokio::test]
async fn trained_models_lead_to_their_files() -> TestResult {
    for (uri, variable) in both() {
        let Ok(python) = std::env::var(variable) else {
            eprintln!("skipped: {variable} is not set");
            continue;
        };
        let (registry, name) = (connect(Connection::mlflow(&uri))?, fresh("trained"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/train.py");
        let trained = tokio::process::Command::new(python)
            .args([script, &uri, &name])
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .env("MLFLOW_TRACKING_URI", &uri)
            // MLflow's client makes a folder for its own default store where it is started.
            .current_dir(std::env::temp_dir())
            .output()
            .await?;
        let said = String::from_utf8_lossy(&trained.stdout);
        let expected: Value = serde_json::from_str(said.lines().last().unwrap_or_default())
            .map_err(|_| String::from_utf8_lossy(&trained.stderr).into_owned())?;
        for (number, files) in [
            ("1", expected["files"].as_str()),
            ("2", expected["files"].as_str()),
            ("3", Some("s3://bucket/a/model")),
            ("4", expected["files"].as_str()),
            ("5", expected["files"].as_str()),
        ] {
            let version = registry.version(&name, number).await?.ok_or("no version")?;
            assert_eq!(
                version.artifact_uri.as_deref(),
                files,
                "version {number}: {version:?}"
            );
            assert!(
                version.created_at.is_some() && version.problem.is_none(),
                "{version:?}"
            );
            let uri = version.artifact_uri.as_deref().ok_or("no files")?;
            let size = registry.version_size(&name, number, uri).await?;
            assert!(
                number == "3" || size.is_some_and(|size| size > 1000),
                "version {number}: {size:?}"
            );
        }
        let version = registry.version(&name, "2").await?.ok_or("no version")?;
        assert_eq!(version.run_id.as_deref(), expected["run"].as_str());
        assert_eq!(version.metrics.get("r2").map(String::as_str), Some("0.51"));
        assert_eq!(version.metrics.get("odd").map(String::as_str), Some("NaN"));
        assert_eq!(
            version.metrics.get("far").map(String::as_str),
            Some("Infinity")
        );
        assert_eq!(
            version.parameters.get("alpha").map(String::as_str),
            Some("0.1")
        );
        assert!(
            version
                .parameters
                .get("long")
                .is_some_and(|value| value.chars().count() == 251)
        );
        assert!(version.duration_seconds.is_some());
        assert_eq!(
            version.code.and_then(|code| code.commit).as_deref(),
            Some("0123456789abcdef")
        );
        assert_eq!(
            registry
                .model(&name)
                .await?
                .ok_or("no model")?
                .aliases
                .get("champion")
                .map(String::as_str),
            Some("2")
        );
    }
    Ok(())
}

#[tokio::test]
async fn run_without_logged_model_leads_to_its_own_artifacts() -> TestResult {
    for (uri, _) in both() {
        let (registry, name) = (connect(Connection::mlflow(&uri))?, fresh("plain-run"));
        registry.create_model(&name, None, &BTreeMap::new()).await?;
        let made = post(
            &uri,
            "runs/create",
            &json!({"experiment_id": "0", "start_time": 1_795_420_212_000_i64}),
        )
        .await?;
        let info = &made["run"]["info"];
        let (run, root) = (
            info["run_id"].as_str().ok_or("no run")?,
            info["artifact_uri"].as_str().ok_or("no root")?,
        );
        let source = format!("runs:/{run}/some/model");
        post(
            &uri,
            "model-versions/create",
            &json!({"name": name, "source": source, "run_id": run}),
        )
        .await?;
        let version = registry.version(&name, "1").await?.ok_or("no version")?;
        assert_eq!(version.artifact_uri, Some(format!("{root}/some/model")));
        assert_eq!(
            (
                version.duration_seconds,
                registry
                    .version_size(&name, "1", &format!("{root}/some/model"))
                    .await?,
                version.problem
            ),
            (None, None, None)
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_host_names_the_flag_of_the_server() -> TestResult {
    let Some(uri) = server("POINTSMAN_TEST_MLFLOW3") else {
        return Ok(());
    };
    let door = rename_host(
        uri.trim_start_matches("http://").to_owned(),
        "mlflow.mlflow.svc:5000",
    )
    .await?;
    let error = connect(Connection::mlflow(format!("http://{door}")))?
        .model("m")
        .await
        .err()
        .ok_or("believed")?;
    assert_eq!(error.reason(), Reason::RegistryRefused, "{error}");
    assert!(
        error.to_string().contains(&format!(
            "start it with `--allowed-hosts '{door},localhost,localhost:*,127.0.0.1:*,10.*,172.*,192.168.*'`"
        )),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_workspace_on_a_server_without_workspaces_is_an_invalid_spec() -> TestResult {
    for (uri, _) in both() {
        let connection = Connection::new(Server::Mlflow {
            uri,
            workspace: Some("team-a".to_owned()),
        });
        let error = connect(connection)?
            .model("m")
            .await
            .err()
            .ok_or("believed")?;
        assert_eq!(error.reason(), Reason::InvalidSpec, "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn another_path_is_not_a_registry() -> TestResult {
    for (uri, _) in both() {
        let error = connect(Connection::mlflow(format!("{uri}/elsewhere")))?
            .model("m")
            .await
            .err()
            .ok_or("believed")?;
        assert_eq!(error.reason(), Reason::RegistryAnswerInvalid, "{error}");
        assert!(
            error.to_string().contains("check spec.mlflow.uri")
                || error.to_string().contains("Check spec.mlflow.uri"),
            "{error}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_names_the_kind_of_credentials() -> TestResult {
    let Some(uri) = server("POINTSMAN_TEST_MLFLOW_AUTH") else {
        return Ok(());
    };
    let password = "a-password-that-is-wrong";
    let basic = Credentials::Basic {
        username: "admin".to_owned(),
        password: password.to_owned(),
    };
    for (credentials, kind) in [
        (Credentials::None, "no credentials"),
        (basic, "a user name and password"),
        (Credentials::Bearer(password.to_owned()), "a bearer token"),
    ] {
        let connection = Connection {
            credentials,
            ..Connection::mlflow(&uri)
        };
        let error = connect(connection)?
            .snapshots(&BTreeSet::from(["m".to_owned()]))
            .await
            .err()
            .ok_or("believed")?;
        assert_eq!(error.reason(), Reason::RegistryRefused, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("401")
                && text.contains(kind)
                && text.contains("spec.auth")
                && !text.contains(password),
            "{text}"
        );
    }
    Ok(())
}
