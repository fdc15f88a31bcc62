//! Servers that speak as Google Cloud Storage and Azure Blob Storage do, started on loopback,
//! filled by http, stopped.
//!
//! Absent: refusals of Google's: its server lets everybody in. They are in the unit tests.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pointsman::api::Availability;
use pointsman::artifacts::ArtifactStores;
use pointsman_env::ports::free_port;

use super::{Folder, TestResult, fresh, given, is_unreadable};

/// The account that every Azurite knows; its key is no secret.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// A key of nobody's, which is well formed.
const WRONG_KEY: &str = "YS13cm9uZy1zZWNyZXQtb2YtdGhlLXRlc3Q=";
/// A signature of that account's key that allows all until 2099.
const SAS: &str = "sv=2021-08-06&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&sig=96c2EygB3PgwPw%2FPybbUy3WlHCPrp0h%2FIdLehWe2UEU%3D";
/// Makes a private key as Google's service accounts have one; `cryptography` comes with MLflow.
const MAKE_KEY: &str = "from cryptography.hazmat.primitives import serialization as s; \
     from cryptography.hazmat.primitives.asymmetric import rsa; \
     print(rsa.generate_private_key(65537, 2048).private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode())";

/// How long a server may take from its start to its first response: Node reads many files.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What is in the folder of a model, `empty` beside it.
const FILES: &[(&str, &str)] = &[
    ("1/m-x/artifacts/MLmodel", "flavors: {}\n"),
    ("1/m-x/artifacts/data/weights.bin", "7777"),
    ("empty/marker", ""),
];
const THERE: &[&str] = &[
    "1/m-x/artifacts",
    "1/m-x/artifacts/",
    "1/m-x/artifacts/data",
    "1/m-x/artifacts/MLmodel",
    "1",
    "",
];
const NOT_THERE: &[&str] = &["1/m-y/artifacts", "1/m", "empty", "nothing/here"];

/// A server; it ends, and its data goes, when this is dropped.
struct Server {
    child: Child,
    url: String,
    data: Folder,
}

impl Server {
    async fn start(start: impl FnOnce(&Path, u16) -> Command) -> Result<Self, Box<dyn Error>> {
        let (port, data) = (free_port()?, Folder::make("pointsman-cloud")?);
        let log = std::fs::File::create(data.0.join("log"))?;
        let mut command = start(&data.0, port);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            data,
        };
        let deadline = Instant::now() + START_LIMIT;
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            if server.child.try_wait()?.is_some() || Instant::now() > deadline {
                let said = std::fs::read_to_string(server.data.0.join("log"))?;
                return Err(format!("{command:?} does not answer: {said}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    async fn gcs(program: &str) -> Result<Self, Box<dyn Error>> {
        let start = |_: &Path, port: u16| {
            let mut command = Command::new(program);
            command.args([
                "-scheme",
                "http",
                "-host",
                "127.0.0.1",
                "-public-host",
                "127.0.0.1",
                "-backend",
                "memory",
            ]);
            command.args(["-port", &port.to_string()]);
            command
        };
        Self::start(start).await
    }

    async fn azure(program: &str) -> Result<Self, Box<dyn Error>> {
        let start = |data: &Path, port: u16| {
            let mut command = Command::new("node");
            command.args([
                program,
                "--disableTelemetry",
                "--silent",
                "--blobHost",
                "127.0.0.1",
            ]);
            command
                .args(["--blobPort", &port.to_string()])
                .arg("--location")
                .arg(data)
                .current_dir(data);
            command
        };
        Self::start(start).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

async fn sent(request: reqwest::RequestBuilder) -> TestResult {
    let response = request.send().await?;
    let (url, status) = (response.url().clone(), response.status());
    let text = format!("{status} from {url}: {:?}", response.text().await?);
    if status.is_success() {
        Ok(())
    } else {
        Err(text.into())
    }
}

fn stores(settings: &[(&str, &str)]) -> ArtifactStores {
    let settings = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    ArtifactStores::new(None, settings.collect::<BTreeMap<_, _>>(), false)
}

/// Checks files that exist and files that do not, and again after the server was stopped.
async fn check_and_stop(
    server: Server,
    stores: &ArtifactStores,
    at: impl Fn(&str) -> String,
) -> TestResult {
    for key in THERE {
        assert_eq!(
            stores.check(&at(key)).await,
            Availability::Readable,
            "{key}"
        );
    }
    for key in NOT_THERE {
        let availability = stores.check(&at(key)).await;
        assert!(is_unreadable(&availability), "{key}: {availability:?}");
    }
    drop(server);
    let (started, down) = (Instant::now(), stores.check(&at(THERE[0])).await);
    assert!(
        matches!(&down, Availability::Unknown(why) if why.contains("refused")),
        "{down:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    Ok(())
}

/// The JSON of a service account's key.
fn google_key(python: &str) -> Result<serde_json::Value, Box<dyn Error>> {
    let made = Command::new(python).args(["-c", MAKE_KEY]).output()?;
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(serde_json::json!({
        "type": "service_account",
        "client_email": "keeper@models.example.com",
        "private_key_id": "1",
        "private_key": String::from_utf8(made.stdout)?,
    }))
}

#[tokio::test]
async fn a_gcs_bucket_is_readable_until_its_files_are_deleted() -> TestResult {
    let (Some(program), Some(python)) = (
        given("POINTSMAN_TEST_GCS_SERVER"),
        given("POINTSMAN_TEST_PYTHON3"),
    ) else {
        return Ok(());
    };
    let (server, bucket, client) = (
        Server::gcs(&program).await?,
        fresh("models"),
        reqwest::Client::new(),
    );
    let (url, named) = (server.url.clone(), serde_json::json!({ "name": bucket }));
    sent(
        client
            .post(format!("{url}/storage/v1/b?project=test"))
            .json(&named),
    )
    .await?;
    for (key, content) in FILES {
        let upload = client
            .post(format!("{url}/upload/storage/v1/b/{bucket}/o"))
            .body(*content);
        sent(upload.query(&[("uploadType", "media"), ("name", key)])).await?;
    }
    let at = |key: &str| format!("gs://{bucket}/{key}");
    let key = google_key(&python)?;
    let whole_key = key.to_string();
    let with_key = stores(&[
        ("GOOGLE_BASE_URL", &url),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", &whole_key),
    ]);
    let with_token = stores(&[
        ("GOOGLE_BASE_URL", &url),
        ("GOOGLE_BEARER_TOKEN", "a-token-of-the-test"),
    ]);
    let anonymous = stores(&[("GOOGLE_BASE_URL", &url), ("GOOGLE_SKIP_SIGNATURE", "true")]);
    for stores in [&with_key, &with_token, &anonymous] {
        assert_eq!(stores.check(&at(THERE[0])).await, Availability::Readable);
    }
    let mut broken = key;
    broken["private_key"] = "a-wrong-secret".into();
    for key in [
        broken.to_string(),
        "{}".to_owned(),
        "a-wrong-secret".to_owned(),
    ] {
        let stores = stores(&[
            ("GOOGLE_BASE_URL", &url),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", &key),
        ]);
        let availability = stores.check(&at(THERE[0])).await;
        let Availability::Unchecked(why) = &availability else {
            return Err(format!("{availability:?}").into());
        };
        assert!(
            why.contains("was not requested") && !why.contains("a-wrong-secret"),
            "{why}"
        );
    }
    let nobody = stores(&[("GOOGLE_BASE_URL", &url)])
        .check(&at(THERE[0]))
        .await;
    assert!(
        matches!(&nobody, Availability::Unchecked(why) if why.contains("no credentials")),
        "{nobody:?}"
    );
    check_and_stop(server, &with_key, at).await
}

/// The program of Azurite; else says why there is none.
fn azurite() -> Option<String> {
    if let Ok(why) = std::env::var("POINTSMAN_TEST_AZURITE_MISSING") {
        eprintln!("skipped: {why}");
        return None;
    }
    given("POINTSMAN_TEST_AZURITE")
}

#[tokio::test]
async fn an_azure_container_is_readable_until_its_files_are_deleted() -> TestResult {
    let Some(program) = azurite() else {
        return Ok(());
    };
    let (server, container, client) = (
        Server::azure(&program).await?,
        fresh("models"),
        reqwest::Client::new(),
    );
    let endpoint = format!("{}/{ACCOUNT}", server.url);
    sent(client.put(format!("{endpoint}/{container}?restype=container&{SAS}"))).await?;
    for (key, content) in FILES {
        let upload = client
            .put(format!("{endpoint}/{container}/{key}?{SAS}"))
            .body(*content);
        let upload = upload
            .header("x-ms-blob-type", "BlockBlob")
            .header("Content-Length", content.len());
        sent(upload).await?;
    }
    let at = |key: &str| format!("wasbs://{container}@{ACCOUNT}.blob.core.windows.net/{key}");
    let with = |name: &str, value: &str| {
        stores(&[
            ("AZURE_STORAGE_ENDPOINT", &endpoint),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
            (name, value),
        ])
    };
    let with_key = with("AZURE_STORAGE_ACCOUNT_KEY", KEY);
    let text = format!(
        "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"
    );
    let connected = stores(&[("AZURE_STORAGE_CONNECTION_STRING", &text)]);
    for stores in [&with_key, &with("AZURE_STORAGE_SAS_TOKEN", SAS), &connected] {
        for uri in [
            at(THERE[0]),
            format!("az://{container}/{}", THERE[0]),
            at(THERE[2]),
        ] {
            assert_eq!(stores.check(&uri).await, Availability::Readable, "{uri}");
        }
    }
    let no_container = with_key.check("az://no-such-container/x").await;
    assert!(is_unreadable(&no_container), "{no_container:?}");
    let changed = SAS.replace("sig=9", "sig=8");
    let refused = [
        with("AZURE_STORAGE_ACCOUNT_KEY", WRONG_KEY)
            .check(&at(THERE[0]))
            .await,
        with("AZURE_STORAGE_SAS_TOKEN", &changed)
            .check(&at(THERE[0]))
            .await,
    ];
    for availability in refused {
        // Azure itself says AuthenticationFailed, which is of the credentials: Unchecked.
        let Availability::Unchecked(why) = &availability else {
            return Err(format!("{availability:?}").into());
        };
        assert!(
            why.contains("403 AuthorizationFailure")
                && !why.contains(WRONG_KEY)
                && !why.contains("sig="),
            "{why}"
        );
    }
    let nobody = with("AZURE_SKIP_SIGNATURE", "true")
        .check(&at(THERE[0]))
        .await;
    assert!(
        matches!(&nobody, Availability::Unchecked(why) if why.contains("nothing was signed")),
        "{nobody:?}"
    );
    let other = with_key
        .check(&at(THERE[0]).replace(ACCOUNT, "another"))
        .await;
    assert!(
        matches!(&other, Availability::Unchecked(why) if why.contains("storage account")),
        "{other:?}"
    );
    check_and_stop(server, &with_key, at).await
}
