//! Git repositories over HTTP on loopback: git's own http-backend behind a server of a few lines.
//! Absent: TLS, accounts and pushes over HTTP.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::{JoinHandle, JoinSet};

use crate::error::{Context, Error, Result};
use crate::process::RunFolder;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const BRANCH: &str = "main";

/// A server of Git repositories; it ends when this is dropped.
pub struct GitServer {
    accepting: JoinHandle<()>,
    address: String,
    folder: RunFolder,
}

/// A repository, and the working copy that a test commits from.
#[derive(Debug, Clone)]
pub struct Repository {
    url: String,
    work: PathBuf,
}

impl GitServer {
    /// Listens on a free port of loopback.
    pub async fn start() -> Result<Self> {
        let what = "starting a Git server";
        let folder = RunFolder::create("git")?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context(what)?;
        let address = listener.local_addr().context(what)?.to_string();
        let accepting = tokio::spawn(accept(listener, folder.path().join("served")));
        Ok(Self {
            accepting,
            address,
            folder,
        })
    }

    /// A new repository without commits.
    pub async fn repository(&self, name: &str) -> Result<Repository> {
        let bare = self.folder.path().join("served").join(name);
        let work = self.folder.path().join("work").join(name);
        for (folder, arguments) in [
            (&bare, ["init", "-q", "--bare", "-b", BRANCH].as_slice()),
            (&work, &["init", "-q", "-b", BRANCH]),
        ] {
            fs::create_dir_all(folder).context(format_args!("creating {}", folder.display()))?;
            git(folder, arguments).await?;
        }
        git(
            &work,
            &["remote", "add", "origin", &bare.display().to_string()],
        )
        .await?;
        let url = format!("http://{}/{name}", self.address);
        Ok(Repository { url, work })
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Repository {
    /// The address for clients.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Replaces all files by these objects, one file each (JSON is YAML), in one commit, and returns its digest.
    pub async fn commit(&self, objects: &[Value], message: &str) -> Result<String> {
        for entry in fs::read_dir(&self.work)
            .context("reading the working copy")?
            .flatten()
        {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                fs::remove_file(entry.path()).context("removing a file of the working copy")?;
            }
        }
        for (number, object) in objects.iter().enumerate() {
            let file = self.work.join(format!("{number:02}.yaml"));
            fs::write(&file, object.to_string())
                .context(format_args!("writing {}", file.display()))?;
        }
        git(&self.work, &["add", "--all"]).await?;
        git(
            &self.work,
            &["commit", "-q", "--allow-empty", "-m", message],
        )
        .await?;
        git(&self.work, &["push", "-q", "origin", BRANCH]).await?;
        Ok(git(&self.work, &["rev-parse", "HEAD"])
            .await?
            .trim()
            .to_owned())
    }
}

/// Runs git without the settings of this machine.
async fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let what = format!("git {}", arguments.join(" "));
    let output = Command::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context(&what)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::new(what, String::from_utf8_lossy(&output.stderr)))
}

async fn accept(listener: TcpListener, root: PathBuf) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let root = root.clone();
        let service = service_fn(move |request| answer(root.clone(), request));
        // An error is a client that left.
        connections.spawn(async move {
            let _ended = http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

/// Runs `git http-backend`, a CGI program, for one request.
async fn answer(
    root: PathBuf,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let header = |name: &str| text_of(&head.headers, name);
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header(CONTENT_TYPE.as_str()))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header(CONTENT_ENCODING.as_str()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().ok_or("git http-backend has no input")?;
    // It may answer before it has read everything.
    let writing = tokio::spawn(async move {
        let _closed = input.write_all(&body).await;
    });
    let output = child.wait_with_output().await?;
    writing.await?;
    response(&output.stdout)
}

fn text_of(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// The response in a CGI program's output: headers, an empty line, the body.
fn response(output: &[u8]) -> Result<Response<Full<Bytes>>, BoxError> {
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("git http-backend answered without headers")?;
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        response = match name {
            "Status" => response.status(value.get(..3).unwrap_or("500")),
            _ => response.header(name, value),
        };
    }
    Ok(response.body(Full::from(output[end + 4..].to_vec()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_a_cgi_program_becomes_a_response() {
        let output = b"Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nnone\r\n\r\n";
        let response = response(output).unwrap();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert!(super::response(b"nothing").is_err());
    }
}
