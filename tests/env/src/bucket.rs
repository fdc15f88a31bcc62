//! A real S3 server on loopback over a folder: each folder in it is a bucket, each file below an object.
//! Absent: users and policies. It has one account, and anonymous clients may read nothing.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::cache::Cache;
use crate::error::{Context, Result};
use crate::ports::free_port;
use crate::process::{Child, Program, RunFolder};
use crate::tools;

/// The one account.
pub const ACCOUNT: (&str, &str) = ("model-store", "a-secret-of-the-test");

/// The time limit from the server's start to its first response.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A server with its data; it ends, and its data goes, when this is dropped.
#[derive(Debug)]
pub struct BucketServer {
    // The child is dropped before its folder.
    child: Child,
    port: u16,
    folder: RunFolder,
}

impl BucketServer {
    /// Starts a server, built on first use, and returns once it responds.
    ///
    /// # Errors
    /// When it cannot be built or does not respond; the error ends with its log.
    pub async fn start() -> Result<Self> {
        let program = tokio::task::spawn_blocking(|| tools::versitygw(&Cache::open()?));
        let program = program.await.context("building versitygw")??;
        let folder = RunFolder::create("s3")?;
        let port = free_port()?;
        fs::create_dir(folder.path().join("data")).context("making the folder of the buckets")?;
        let child = Program::new("versitygw", program)
            .args(["--quiet", "--port", &format!("127.0.0.1:{port}"), "posix"])
            .args([folder.path().join("data")])
            .env("ROOT_ACCESS_KEY_ID", ACCOUNT.0)
            .env("ROOT_SECRET_ACCESS_KEY", ACCOUNT.1)
            .start(folder.path())?;
        let mut server = Self {
            child,
            port,
            folder,
        };
        server.child.until_it_listens(port, START_LIMIT).await?;
        Ok(server)
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The folder with one folder for each bucket.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}
