//! Registries and clients that try to take the operator's memory or time: they send what no MLflow server and no registry sends.
//!
//! Absent: anything well-behaved. What a real server can be made to show is shown with a real one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::{Context, Result};

/// The only model that a hostile registry names.
pub const MODEL: &str = "hostile";
/// About this many bytes are written at once.
const CHUNK: usize = 64 << 10;
/// The address that hostile connections come from. Connections of tests come from 127.0.0.1.
pub const PEER: [u8; 4] = [127, 0, 0, 2];
/// The pause before a connection is opened again.
const REOPENED_AFTER: Duration = Duration::from_secs(1);

/// What a hostile registry sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// 32 MiB of empty models.
    Models,
    /// One model with 349,000 latest versions.
    Versions,
    /// A thousand models with three hundred empty tags and aliases each.
    Nested,
    /// One model whose time of creation is a list of two million numbers.
    List,
    /// One model whose description has nearly four megabytes.
    Text,
    /// A version whose run has forty thousand metrics, most of them without a name.
    Metrics,
    /// After twelve seconds a page with one model, and the token of another page.
    SlowPages,
}

/// The pause before each response of [`Response::SlowPages`].
const SLOW: Duration = Duration::from_secs(12);

/// Those that take memory.
pub const RESPONSES: [Response; 6] = [
    Response::Models,
    Response::Versions,
    Response::Nested,
    Response::List,
    Response::Text,
    Response::Metrics,
];

impl Response {
    /// Whether no registry may send this, so that the `ModelRegistry` says so.
    #[must_use]
    pub fn is_refused(self) -> bool {
        !matches!(self, Self::Text | Self::Metrics | Self::SlowPages)
    }

    /// The pause before it.
    fn pause(self) -> Duration {
        if self == Self::SlowPages {
            SLOW
        } else {
            Duration::ZERO
        }
    }

    /// The response to the request of this number.
    fn body(self, path: &str, number: usize) -> Body {
        let model = |before: &str, unit: &str, count: usize, after: &str| {
            let inner = format!("{{\"name\":\"{MODEL}\",{before}");
            if path.contains("registered-models/search") {
                let before = format!("{{\"registered_models\":[{inner}");
                Body::of(&before, unit, count, &format!("{after}}}]}}"))
            } else {
                let before = format!("{{\"registered_model\":{inner}");
                Body::of(&before, unit, count, &format!("{after}}}}}"))
            }
        };
        match self {
            Self::Models => Body::of("{\"registered_models\":[{}", ",{}", 11_000_000, "]}"),
            Self::Versions => model("\"latest_versions\":[{}", ",{}", 349_000, "]"),
            Self::Nested => {
                let lists = format!("[{{}}{}]", ",{}".repeat(299));
                let unit =
                    format!(",{{\"name\":\"{MODEL}\",\"tags\":{lists},\"aliases\":{lists}}}");
                Body::of("{\"registered_models\":[{}", &unit, 999, "]}")
            }
            Self::List => model("\"creation_timestamp\":[0", ",0", 1_900_000, "]"),
            Self::Text => model("\"description\":\"", "a", 3_900_000, "\""),
            Self::Metrics if path.contains("runs/get") => {
                Body::of("{\"run\":{\"data\":{\"metrics\":[{}", ",{}", 39_000, "]}}}")
            }
            Self::Metrics if path.contains("model-versions/get") => Body::of(
                &format!(
                    "{{\"model_version\":{{\"name\":\"{MODEL}\",\"version\":\"1\",\"run_id\":\"r1\",\"source\":\"s3://models/1\"}}"
                ),
                "",
                0,
                "}",
            ),
            Self::SlowPages => Body::of(
                &format!(
                    "{{\"registered_models\":[{{\"name\":\"{MODEL}\"}}],\"next_page_token\":\"{number}\""
                ),
                "",
                0,
                "}",
            ),
            Self::Metrics => model(
                "\"aliases\":[{\"alias\":\"champion\",\"version\":\"1\"}]",
                "",
                0,
                "",
            ),
        }
    }
}

/// A text with a part that is repeated.
struct Body {
    before: String,
    unit: String,
    count: usize,
    after: String,
}

impl Body {
    fn of(before: &str, unit: &str, count: usize, after: &str) -> Self {
        Self {
            before: before.to_owned(),
            unit: unit.to_owned(),
            count,
            after: after.to_owned(),
        }
    }

    async fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let length = self.before.len() + self.unit.len() * self.count + self.after.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{}",
            self.before
        );
        stream.write_all(head.as_bytes()).await?;
        let at_once = (CHUNK / self.unit.len().max(1)).clamp(1, self.count.max(1));
        let chunk = self.unit.repeat(at_once);
        let mut left = self.count;
        while left > 0 {
            let units = left.min(at_once);
            stream
                .write_all(&chunk.as_bytes()[..units * self.unit.len()])
                .await?;
            left -= units;
        }
        stream.write_all(self.after.as_bytes()).await?;
        stream.shutdown().await
    }
}

/// A registry that sends the same kind of response to every request. It ends when it is dropped.
pub struct HostileRegistry {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl HostileRegistry {
    /// Listens on a free port of loopback.
    pub async fn start(response: Response) -> Result<Self> {
        let what = "starting a hostile registry";
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context(what)?;
        let address = listener.local_addr().context(what)?;
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                while connections.try_join_next().is_some() {}
                connections.spawn(async move {
                    let path = request_line(&mut stream).await;
                    tokio::time::sleep(response.pause()).await;
                    // The operator closes the connection when it has read enough.
                    let _closed = response.body(&path, number).send(&mut stream).await;
                });
            }
        });
        Ok(Self {
            address,
            requests,
            accepting,
        })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The number of requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for HostileRegistry {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Reads the head of a request and returns its first line.
async fn request_line(stream: &mut TcpStream) -> String {
    let (mut head, mut chunk) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => head.extend_from_slice(&chunk[..read]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    head.lines().next().unwrap_or_default().to_owned()
}

/// Connections that hold a server's memory and permits for as long as it lets them, and are opened again when it closes them.
/// They end when this is dropped.
pub struct HostileConnections {
    _tasks: JoinSet<()>,
    opened: Arc<AtomicUsize>,
}

impl HostileConnections {
    /// So many connections to an address, of four kinds in turn: a head of 400 kB without an end, a head that comes slowly, a
    /// request now and then, and a forged delivery to `path` whose body does not end.
    #[must_use]
    pub fn start(address: SocketAddr, path: &str, count: usize) -> Self {
        let opened = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let path = path.to_owned();
            let opened = Arc::clone(&opened);
            tasks.spawn(async move {
                loop {
                    if let Ok(mut stream) = connect(address).await {
                        opened.fetch_add(1, Ordering::Relaxed);
                        // It ends when the server closes the connection.
                        let _closed = hold(&mut stream, number, &path).await;
                    }
                    tokio::time::sleep(REOPENED_AFTER).await;
                }
            });
        }
        Self {
            _tasks: tasks,
            opened,
        }
    }

    /// How many connections were opened so far.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((PEER, 0).into())?;
    socket.connect(address).await
}

async fn hold(stream: &mut TcpStream, number: usize, path: &str) -> std::io::Result<()> {
    const START: &str = "HTTP/1.1\r\nHost: x\r\n";
    match number % 4 {
        0 => {
            let head = format!("GET /healthz {START}X: {}", "x".repeat(400_000));
            stream.write_all(head.as_bytes()).await?;
        }
        1 => {
            let start = format!("GET /healthz {START}X: ");
            stream.write_all(start.as_bytes()).await?;
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                stream.write_all(b"x").await?;
            }
        }
        2 => loop {
            let request = format!("GET / {START}\r\n");
            stream.write_all(request.as_bytes()).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
        },
        _ => {
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            let head = format!(
                "POST {path} {START}x-mlflow-delivery-id: forged-{number}\r\nx-mlflow-timestamp: {now}\r\nx-mlflow-signature: v1,Zm9yZ2Vk\r\nContent-Length: 60000\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&vec![b' '; 59_000]).await?;
        }
    }
    stream.read_to_end(&mut Vec::new()).await.map(|_| ())
}
