//! Whether artifacts can be read, asked of real stores, whose addresses come by environment (see
//! tests/registry): `POINTSMAN_TEST_MLFLOW3` and `POINTSMAN_TEST_MLFLOW3_ARTIFACTS` (the folder
//! behind its proxy), `POINTSMAN_TEST_S3`, `POINTSMAN_TEST_S3_BUCKETS` (the folder behind it),
//! `POINTSMAN_TEST_S3_KEY_ID` and `POINTSMAN_TEST_S3_SECRET`; and of servers that are started here,
//! whose programs come so too: `POINTSMAN_TEST_GCS_SERVER`, `POINTSMAN_TEST_AZURITE`.
//!
//! Absent: stores that misbehave; those are in the unit tests.

#![allow(clippy::too_many_lines)] // one server, and one sequence of steps on it, a test

mod clouds;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pointsman::api::Availability;
use pointsman::artifacts::{ArtifactStores, ProxiedArtifacts};
use pointsman::registries::{Connection, RegistryClient, RequestMetrics};

type TestResult = Result<(), Box<dyn Error>>;

fn connect(uri: &str) -> Result<RegistryClient, Box<dyn Error>> {
    let metrics = RequestMetrics::default();
    Ok(RegistryClient::connect(Connection::mlflow(uri), metrics)?)
}

fn proxied(client: RegistryClient) -> ProxiedArtifacts {
    ProxiedArtifacts::new(move |host, path| {
        let client = client.clone();
        async move { client.check_proxied_artifact(host.as_deref(), &path).await }
    })
}

/// The value of a variable; `None` skips the test and logs that.
fn given(variable: &str) -> Option<String> {
    _ = rustls::crypto::ring::default_provider().install_default();
    let found = std::env::var(variable).ok();
    if found.is_none() {
        eprintln!("skipped: {variable} is not set");
    }
    found
}

/// A name that no earlier run of the tests has used.
fn fresh(stem: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{stem}-{}", now.as_nanos())
}

fn model_in(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder.join("data"))?;
    std::fs::write(folder.join("MLmodel"), "flavors:\n  python_function: {}\n")?;
    std::fs::write(folder.join("data/weights.bin"), vec![7; 1 << 16])
}

fn is_unreadable(availability: &Availability) -> bool {
    matches!(availability, Availability::Missing(why) if why.contains("register the version again"))
}

/// A folder that goes when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make(stem: &str) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(fresh(stem));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Python's own web server over a folder.
struct WebServer(Child, String);

impl WebServer {
    fn start(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new("python3")
            .args([
                "-u",
                "-m",
                "http.server",
                "0",
                "--bind",
                "127.0.0.1",
                "--directory",
            ])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let port = line
            .split("port ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .ok_or(line.clone())?;
        Ok(Self(child, format!("http://127.0.0.1:{port}")))
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_model_behind_mlflow_is_readable_until_its_files_are_deleted() -> TestResult {
    let (Some(uri), Some(folder)) = (
        given("POINTSMAN_TEST_MLFLOW3"),
        given("POINTSMAN_TEST_MLFLOW3_ARTIFACTS"),
    ) else {
        return Ok(());
    };
    let name = fresh("m");
    let files = Path::new(&folder)
        .join("1/models")
        .join(&name)
        .join("artifacts");
    let artifact = format!("mlflow-artifacts:/1/models/{name}/artifacts");
    model_in(&files)?;
    let stores = ArtifactStores::new(Some(proxied(connect(&uri)?)), BTreeMap::new(), false);
    assert_eq!(stores.check(&artifact).await, Availability::Readable);
    assert_eq!(
        stores.check(&format!("{artifact}/data")).await,
        Availability::Readable
    );
    assert_eq!(
        stores.check(&format!("{artifact}/MLmodel")).await,
        Availability::Readable
    );
    let host = uri.trim_start_matches("http://");
    assert_eq!(
        stores
            .check(&format!(
                "mlflow-artifacts://{host}/1/models/{name}/artifacts"
            ))
            .await,
        Availability::Readable
    );
    std::fs::remove_file(files.join("MLmodel"))?;
    assert_eq!(
        stores.check(&artifact).await,
        Availability::Readable,
        "the weights are still there"
    );
    std::fs::remove_dir_all(files.join("data"))?;
    for uri in [
        &artifact,
        "mlflow-artifacts:/1/models/no-such-model/artifacts",
        "mlflow-artifacts:/nothing",
    ] {
        let availability = stores.check(uri).await;
        assert!(is_unreadable(&availability), "{uri}: {availability:?}");
    }
    let elsewhere = stores
        .check("mlflow-artifacts://mlflow.example.com/1/nothing")
        .await;
    assert!(
        matches!(&elsewhere, Availability::Unchecked(why) if why.contains("another host")),
        "{elsewhere:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_logged_model_is_readable() -> TestResult {
    let (Some(uri), Some(python)) = (
        given("POINTSMAN_TEST_MLFLOW3"),
        given("POINTSMAN_TEST_PYTHON3"),
    ) else {
        return Ok(());
    };
    let (name, folder) = (fresh("logged"), Folder::make("pointsman-logged")?);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/train.py");
    let trained = tokio::process::Command::new(python)
        .args([script, &uri, &name])
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .env("MLFLOW_TRACKING_URI", &uri)
        .current_dir(&folder.0)
        .output()
        .await?;
    assert!(
        trained.status.success(),
        "{}",
        String::from_utf8_lossy(&trained.stderr)
    );
    let registry = connect(&uri)?;
    let version = registry.version(&name, "1").await?.ok_or("no version")?;
    let artifact = version.artifact_uri.ok_or("no files")?;
    assert_eq!(
        ArtifactStores::new(Some(proxied(registry)), BTreeMap::new(), false)
            .check(&artifact)
            .await,
        Availability::Readable
    );
    Ok(())
}

#[tokio::test]
async fn an_s3_bucket_is_readable_until_its_files_are_deleted() -> TestResult {
    let (Some(url), Some(folder)) = (
        given("POINTSMAN_TEST_S3"),
        given("POINTSMAN_TEST_S3_BUCKETS"),
    ) else {
        return Ok(());
    };
    let account = (
        std::env::var("POINTSMAN_TEST_S3_KEY_ID")?,
        std::env::var("POINTSMAN_TEST_S3_SECRET")?,
    );
    let with = |id: &str, secret: &str| {
        BTreeMap::from(
            [
                ("AWS_ACCESS_KEY_ID", id),
                ("AWS_SECRET_ACCESS_KEY", secret),
                ("MLFLOW_S3_ENDPOINT_URL", &url),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        )
    };
    let stores = ArtifactStores::new(None, with(&account.0, &account.1), false);
    let bucket = Path::new(&folder).join(fresh("models"));
    let at = |key: &str| {
        format!(
            "s3://{}/{key}",
            bucket.file_name().unwrap_or_default().to_string_lossy()
        )
    };
    model_in(&bucket.join("1/m-x/artifacts"))?;
    model_in(&bucket.join("1/m-x/a b+c/é"))?;
    std::fs::create_dir_all(bucket.join("empty"))?;
    for key in [
        "1/m-x/a b+c/é",
        "1/m-x/artifacts",
        "1/m-x/artifacts/",
        "1/m-x/artifacts/data",
        "1/m-x/artifacts/MLmodel",
        "1",
        "",
    ] {
        assert_eq!(
            stores.check(&at(key)).await,
            Availability::Readable,
            "{key}"
        );
    }
    std::fs::remove_dir_all(bucket.join("1/m-x/artifacts"))?;
    for uri in [
        at("1/m-x/artifacts"),
        at("empty"),
        at("nothing/here"),
        "s3://no-such-bucket/x".to_owned(),
    ] {
        let availability = stores.check(&uri).await;
        assert!(is_unreadable(&availability), "{uri}: {availability:?}");
    }
    for settings in [
        with(&account.0, "a-wrong-secret"),
        with("nobody-knows-me", "a-wrong-secret"),
    ] {
        let availability = ArtifactStores::new(None, settings, false)
            .check(&at("x"))
            .await;
        let Availability::Unchecked(why) = &availability else {
            return Err(format!("{availability:?}").into());
        };
        assert!(
            why.contains("renew the credentials") && !why.contains("a-wrong-secret"),
            "{why}"
        );
    }
    let mut nobody = with("", "");
    nobody.insert("AWS_SKIP_SIGNATURE".to_owned(), "true".to_owned());
    let availability = ArtifactStores::new(None, nobody, false)
        .check(&at("x"))
        .await;
    assert!(
        matches!(&availability, Availability::Unchecked(why) if why.contains("nothing was signed")),
        "{availability:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_web_server_is_checked_for_files_and_not_for_pages() -> TestResult {
    _ = rustls::crypto::ring::default_provider().install_default();
    let folder = Folder::make("pointsman-web")?;
    model_in(&folder.0.join("model"))?;
    let server = WebServer::start(&folder.0)?;
    let stores = ArtifactStores::new(None, BTreeMap::new(), false);
    let at = |path: &str| format!("{}/{path}?token=s3cr3t", server.1);
    assert_eq!(stores.check(&at("model")).await, Availability::Readable);
    assert_eq!(
        stores.check(&at("model/data/weights.bin")).await,
        Availability::Readable
    );
    let gone = stores.check(&at("gone")).await;
    assert!(
        is_unreadable(&gone) && !format!("{gone:?}").contains("s3cr3t"),
        "{gone:?}"
    );
    let page = stores.check(&at("model/data/")).await;
    assert!(
        matches!(&page, Availability::Unchecked(why) if why.contains("HTML")),
        "{page:?}"
    );
    let url = server.1.clone();
    drop(server);
    let started = tokio::time::Instant::now();
    let down = stores.check(&format!("{url}/model")).await;
    assert!(
        matches!(&down, Availability::Unknown(why) if why.contains("refused")),
        "{down:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    Ok(())
}

#[tokio::test]
async fn files_are_checked_only_if_that_is_allowed() -> TestResult {
    _ = rustls::crypto::ring::default_provider().install_default();
    let folder = Folder::make("pointsman-files")?;
    model_in(&folder.0.join("model"))?;
    std::fs::create_dir_all(folder.0.join("empty/below"))?;
    let stores = ArtifactStores::new(None, BTreeMap::new(), true);
    for (path, expected) in [
        ("model", true),
        ("model/data", true),
        ("model/MLmodel", true),
        ("empty", false),
        ("gone", false),
    ] {
        for uri in [
            format!("{}/{path}", folder.0.display()),
            format!("file://{}/{path}", folder.0.display()),
        ] {
            let availability = stores.check(&uri).await;
            assert_eq!(
                availability == Availability::Readable,
                expected,
                "{uri}: {availability:?}"
            );
            assert!(
                expected || matches!(availability, Availability::Missing(_)),
                "{uri}: {availability:?}"
            );
        }
    }
    let refused = ArtifactStores::new(None, BTreeMap::new(), false)
        .check(&format!("{}/model", folder.0.display()))
        .await;
    assert!(matches!(refused, Availability::Unchecked(_)), "{refused:?}");
    Ok(())
}
