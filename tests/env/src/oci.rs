//! A real OCI registry on loopback that keeps all in memory, and the small artifacts that are pushed to it.
//! Absent: users, TLS and files. It forgets everything when it ends.

use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::error::{Context, Result};
use crate::ports::free_port;
use crate::process::{Child, Program, RunFolder};
use crate::tools;

/// The time limit from the server's start to its first response.
const START_LIMIT: Duration = Duration::from_secs(30);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A server and its data; it ends when this is dropped.
#[derive(Debug)]
pub struct OciRegistry {
    // The child is dropped before the folder of its log.
    child: Child,
    port: u16,
    http: reqwest::Client,
    _folder: RunFolder,
}

impl OciRegistry {
    /// Starts a server, built on first use, and returns once it responds.
    pub async fn start() -> Result<Self> {
        let program = tokio::task::spawn_blocking(|| tools::oci_registry(&Cache::open()?));
        let program = program.await.context("building the OCI registry")??;
        let folder = RunFolder::create("oci")?;
        let port = free_port()?;
        let child = Program::new("oci-registry", program)
            .args(["-port", &port.to_string()])
            .start(folder.path())?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .context("making an HTTP client")?;
        let mut server = Self {
            child,
            port,
            http,
            _folder: folder,
        };
        server.child.until_it_listens(port, START_LIMIT).await?;
        Ok(server)
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Pushes an artifact of this text under a tag, and returns its digest.
    pub async fn push(&self, repository: &str, tag: &str, content: &str) -> Result<String> {
        let (configuration, layer) = (b"{}".as_slice(), content.as_bytes());
        for blob in [configuration, layer] {
            let path = format!("{repository}/blobs/uploads/?digest={}", digest(blob));
            self.send(self.http.post(self.path(&path)).body(blob.to_vec()))
                .await?;
        }
        let part = |kind: &str, blob: &[u8]| json!({"mediaType": kind, "digest": digest(blob), "size": blob.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": part(CONFIGURATION, configuration),
            "layers": [part(LAYER, layer)],
        });
        let manifest = manifest.to_string();
        let put = self
            .http
            .put(self.path(&format!("{repository}/manifests/{tag}")))
            .header("content-type", MANIFEST);
        let digest = digest(manifest.as_bytes());
        self.send(put.body(manifest)).await.map(|()| digest)
    }

    fn path(&self, path: &str) -> String {
        format!("{}/v2/{path}", self.url())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<()> {
        let what = "pushing to the OCI registry";
        request
            .send()
            .await
            .context(what)?
            .error_for_status()
            .context(what)
            .map(|_| ())
    }
}

fn digest(content: &[u8]) -> String {
    let hexadecimal = |digest: String, byte: &u8| format!("{digest}{byte:02x}");
    format!(
        "sha256:{}",
        Sha256::digest(content)
            .iter()
            .fold(String::new(), hexadecimal)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_named_by_its_digest() {
        assert_eq!(
            digest(b"{}"),
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }
}
