//! A real S3 server on loopback over a folder: each folder in it is a bucket, each file below an object.
//! Absent: rights of anonymous clients. They may read nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::cache::Cache;
use crate::error::{Context, Result};
use crate::ports::free_port;
use crate::process::{Child, Program, RunFolder};
use crate::tools;

/// The account that owns everything.
pub const ACCOUNT: (&str, &str) = ("model-store", "hunter2-secret-of-the-test");
/// The account that may get the objects of [`BucketOptions::readable`], and nothing else: not even list them.
pub const READER: (&str, &str) = ("reader", "hunter2-another-of-the-test");

/// The time limit from the server's start to its first response.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The settings of a server.
#[derive(Clone, Debug, Default)]
pub struct BucketOptions {
    /// Answers on https, with this certificate and this key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The bucket in which [`READER`] may get objects.
    pub readable: Option<String>,
}

/// A server with its data; it ends, and its data goes, when this is dropped.
#[derive(Debug)]
pub struct BucketServer {
    // The child is dropped before its folder.
    child: Child,
    scheme: &'static str,
    port: u16,
    folder: RunFolder,
}

impl BucketServer {
    /// Starts a server, built on first use, and returns once it responds.
    ///
    /// # Errors
    /// When it cannot be built or does not respond; the error ends with its log.
    pub async fn start() -> Result<Self> {
        Self::with(BucketOptions::default()).await
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// Like [`BucketServer::start`].
    pub async fn with(options: BucketOptions) -> Result<Self> {
        let program = tokio::task::spawn_blocking(|| tools::versitygw(&Cache::open()?));
        let program = program.await.context("building versitygw")??;
        let folder = RunFolder::create("s3")?;
        let port = free_port()?;
        fs::create_dir(folder.path().join("data")).context("making the folder of the buckets")?;
        let mut program = Program::new("versitygw", program).args([
            "--quiet",
            "--port",
            &format!("127.0.0.1:{port}"),
        ]);
        if let Some((certificate, key)) = &options.certificate {
            program = program.args([Path::new("--cert"), certificate, Path::new("--key"), key]);
        }
        if let Some(bucket) = &options.readable {
            write_policy(folder.path(), bucket)?;
            program = program.args([Path::new("--iam-dir"), &folder.path().join("accounts")]);
        }
        program = program.args(["posix"]);
        if options.readable.is_some() {
            program = program.args([Path::new("--sidecar"), &folder.path().join("policies")]);
        }
        let child = program
            .args([folder.path().join("data")])
            .env("ROOT_ACCESS_KEY_ID", ACCOUNT.0)
            .env("ROOT_SECRET_ACCESS_KEY", ACCOUNT.1)
            .start(folder.path())?;
        let mut server = Self {
            child,
            scheme: if options.certificate.is_some() {
                "https"
            } else {
                "http"
            },
            port,
            folder,
        };
        server.child.until_it_listens(port, START_LIMIT).await?;
        Ok(server)
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// The folder with one folder for each bucket.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

/// Makes a bucket and [`READER`], in the files that the server reads at its start.
fn write_policy(folder: &Path, bucket: &str) -> Result<()> {
    let (access, secret) = READER;
    let account = json!({"access": access, "secret": secret, "role": "user"});
    let accounts = json!({"accessAccounts": {access: account}});
    let allow = json!({"Effect": "Allow", "Principal": {"AWS": [access]}, "Action": ["s3:GetObject"],
        "Resource": [format!("arn:aws:s3:::{bucket}/*")]});
    let policy = json!({"Version": "2012-10-17", "Statement": [allow]});
    let meta = format!("policies/{bucket}/meta");
    for (place, name, content) in [
        ("accounts", "users.json", accounts),
        (meta.as_str(), "policy", policy),
    ] {
        let place = folder.join(place);
        fs::create_dir_all(&place).context(format_args!("creating {}", place.display()))?;
        fs::write(place.join(name), content.to_string()).context("writing the policy")?;
    }
    fs::create_dir_all(folder.join("data").join(bucket)).context("making the bucket")
}
