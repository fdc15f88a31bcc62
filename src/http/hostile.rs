//! A server with scripted replies, for tests.
//!
//! Absent: any check of the requests. They are only recorded.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The reply to a connection.
#[derive(Clone)]
pub(crate) enum Reply {
    /// These bytes, then the end.
    Raw(String),
    /// These bytes, then the letter `a` for ever.
    Endless(String),
    /// These bytes, one each 20 ms.
    Drip(String),
    /// Nothing: the connection is closed.
    HangUp,
}

impl Reply {
    pub(crate) fn json(status: &str, body: &str) -> Self {
        Self::typed(status, "application/json", body)
    }

    pub(crate) fn typed(status: &str, content_type: &str, body: &str) -> Self {
        Self::Raw(format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ))
    }
}

/// A running server. It ends with the test's runtime.
pub(crate) struct HostileServer {
    pub(crate) uri: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl HostileServer {
    /// Starts a server that sends each connection the reply to its number and head.
    pub(crate) async fn start(
        reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let uri = format!("http://{}", listener.local_addr()?);
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = read_head(&mut stream).await;
                let number = {
                    let mut heads = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    heads.push(head.clone());
                    heads.len() - 1
                };
                tokio::spawn(send(stream, reply(number, &head)));
            }
        });
        Ok(Self { uri, heads })
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut chunk = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => head.extend_from_slice(&chunk[..read]),
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

async fn send(mut stream: TcpStream, reply: Reply) {
    match reply {
        Reply::HangUp => {}
        Reply::Raw(text) => _ = stream.write_all(text.as_bytes()).await,
        Reply::Endless(text) => {
            let more = "a".repeat(1 << 16);
            _ = stream.write_all(text.as_bytes()).await;
            while stream.write_all(more.as_bytes()).await.is_ok() {}
        }
        Reply::Drip(text) => {
            for byte in text.bytes() {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    _ = stream.shutdown().await;
}
