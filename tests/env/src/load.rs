//! Requests to the pods of a Service, sent as its clients would: to ready endpoints only, each on a connection of its own.
//! Absent: retries. A request without a response of the model counts as failed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::{Context, Error, Result};

const REQUEST: &[u8] = b"GET /predict HTTP/1.1\r\nHost: model-server\r\nConnection: close\r\n\r\n";
/// How many requests are on their way at most.
const CLIENTS: usize = 8;
/// How many reasons of failures are kept.
const REASONS: usize = 5;

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Requests in a second, if the machine is fast enough.
    pub per_second: u32,
    /// The load goes on until so many requests were sent, even if it was stopped earlier.
    pub at_least: usize,
    /// It ends after so many.
    pub at_most: usize,
    /// It ends after that time.
    pub at_longest: Duration,
    /// How long a request may take.
    pub timeout: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            per_second: 1500,
            at_least: 20_000,
            at_most: 500_000,
            at_longest: Duration::from_secs(180),
            timeout: Duration::from_secs(5),
        }
    }
}

/// The results.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Requests sent.
    pub sent: usize,
    /// Requests without a response of the model.
    pub failed: usize,
    /// How long it took.
    pub seconds: f64,
    /// The number of responses of each version.
    pub answered_by: BTreeMap<String, usize>,
    /// The first reasons of failures.
    pub reasons: Vec<String>,
}

/// Requests that are being sent; they end when this is dropped.
pub struct Load {
    shared: Arc<Shared>,
    started: Instant,
    clients: Vec<JoinHandle<()>>,
    following: JoinHandle<()>,
}

struct Shared {
    options: LoadOptions,
    endpoints: watch::Receiver<Vec<SocketAddr>>,
    turn: AtomicUsize,
    asked_to_end: AtomicBool,
    tally: Mutex<Tally>,
}

impl Load {
    /// Begins to send to the Service as soon as it has a ready endpoint.
    pub async fn start(
        client: kube::Client,
        namespace: &str,
        service: &str,
        options: LoadOptions,
    ) -> Result<Self> {
        let (sender, mut endpoints) = watch::channel(Vec::new());
        let slices = Api::namespaced(client, namespace);
        let following = tokio::spawn(follow(slices, service.to_owned(), sender));
        let first = tokio::time::timeout(
            options.at_longest,
            endpoints.wait_for(|ready| !ready.is_empty()),
        )
        .await;
        let what = format!("waiting for a ready endpoint of {service}");
        first.context(&what)?.map(drop).context(what)?;
        let shared = Arc::new(Shared {
            options,
            endpoints,
            turn: AtomicUsize::new(0),
            asked_to_end: AtomicBool::new(false),
            tally: Mutex::default(),
        });
        let clients = (0..CLIENTS)
            .map(|_| tokio::spawn(send_until_the_end(Arc::clone(&shared))))
            .collect();
        Ok(Self {
            shared,
            started: Instant::now(),
            clients,
            following,
        })
    }

    /// The results so far.
    pub fn so_far(&self) -> Tally {
        let seconds = self.started.elapsed().as_secs_f64();
        Tally {
            seconds,
            ..self.shared.tally.lock().unwrap().clone()
        }
    }

    /// Ends it once enough requests were sent, and returns the results.
    pub async fn end(mut self) -> Result<Tally> {
        self.shared.asked_to_end.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            client
                .await
                .map_err(|error| Error::new("sending requests", error))?;
        }
        Ok(self.so_far())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.following.abort();
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn is_over(&self, started: Instant) -> bool {
        let sent = self.tally.lock().unwrap().sent;
        let enough = sent >= self.options.at_least && self.asked_to_end.load(Ordering::Relaxed);
        enough || sent >= self.options.at_most || started.elapsed() >= self.options.at_longest
    }

    /// The next of the endpoints that are ready now.
    fn endpoint(&self) -> Option<SocketAddr> {
        let endpoints = self.endpoints.borrow();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        endpoints.get(turn.checked_rem(endpoints.len())?).copied()
    }

    fn count(&self, answer: Result<String>) {
        let mut tally = self.tally.lock().unwrap();
        tally.sent += 1;
        match answer {
            Ok(version) => *tally.answered_by.entry(version).or_default() += 1,
            Err(error) => {
                tally.failed += 1;
                if tally.reasons.len() < REASONS {
                    tally.reasons.push(error.to_string());
                }
            }
        }
    }
}

async fn send_until_the_end(shared: Arc<Shared>) {
    let started = Instant::now();
    let clients = u32::try_from(CLIENTS).unwrap_or(u32::MAX);
    let mut pace =
        tokio::time::interval(Duration::from_secs(1) * clients / shared.options.per_second);
    // Requests that were late are not made up for, because no client sends bursts.
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.is_over(started) {
        pace.tick().await;
        let answer = match shared.endpoint() {
            Some(endpoint) => ask(endpoint, shared.options.timeout).await,
            None => Err(Error::new("choosing an endpoint", "none is ready")),
        };
        shared.count(answer);
    }
}

async fn ask(endpoint: SocketAddr, timeout: Duration) -> Result<String> {
    let what = format!("requesting {endpoint}");
    let answer = tokio::time::timeout(timeout, exchange(endpoint))
        .await
        .context(&what)?
        .context(&what)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| Error::new(&what, "the answer has no end"))?;
    if head.starts_with("HTTP/1.1 200 ") {
        return Ok(body.trim().to_owned());
    }
    Err(Error::new(
        what,
        head.lines().next().unwrap_or("an empty answer"),
    ))
}

async fn exchange(endpoint: SocketAddr) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(endpoint).await?;
    connection.write_all(REQUEST).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Keeps the list of ready endpoints of the API server.
async fn follow(
    slices: Api<EndpointSlice>,
    service: String,
    sender: watch::Sender<Vec<SocketAddr>>,
) {
    let ours = watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    let mut events = watcher(slices, ours).boxed();
    let (mut known, mut listing) = (Endpoints::new(), Endpoints::new());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(slice)) => drop(listing.insert(name(&slice), ready(&slice))),
            // Until the list is complete, the previous one is better than half a list.
            Ok(Event::InitDone) => known = std::mem::take(&mut listing),
            Ok(Event::Apply(slice)) => drop(known.insert(name(&slice), ready(&slice))),
            Ok(Event::Delete(slice)) => drop(known.remove(&name(&slice))),
            // The watcher restarts by itself.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        sender.send_replace(known.values().flatten().copied().collect());
    }
}

/// Ready endpoints by the name of their slice.
type Endpoints = BTreeMap<String, Vec<SocketAddr>>;

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

fn ready(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let port = slice
        .ports
        .iter()
        .flatten()
        .find_map(|port| u16::try_from(port.port?).ok());
    let is_ready = |ready: Option<bool>| ready.unwrap_or(true);
    let ready = slice.endpoints.iter().filter(|endpoint| {
        is_ready(
            endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready),
        )
    });
    let addresses = ready
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|text| text.parse::<IpAddr>().ok());
    addresses
        .filter_map(|address| Some(SocketAddr::new(address, port?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_endpoints_are_asked() {
        let slice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": {"name": "s"},
            "ports": [{"port": 8080}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.3"]},
            ],
        }))
        .unwrap();
        let expected: Vec<SocketAddr> = ["10.0.0.1:8080", "10.0.0.3:8080"]
            .map(|text| text.parse().unwrap())
            .into();
        assert_eq!(ready(&slice), expected);
    }

    /// A server that responds once and then closes.
    async fn one_answer(answer: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 1024]).await.unwrap();
            connection.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn whatever_is_no_answer_of_the_model_has_failed() {
        let ask = |endpoint| ask(endpoint, Duration::from_secs(5));
        let well = one_answer("HTTP/1.1 200 OK\r\n\r\n7\n").await;
        assert_eq!(ask(well).await.unwrap(), "7");
        assert!(ask(well).await.is_err(), "nobody listens any more");
        assert!(
            ask(one_answer("HTTP/1.1 503 Service Unavailable\r\n\r\n").await)
                .await
                .is_err()
        );
        assert!(
            ask(one_answer("").await).await.is_err(),
            "the connection ended without an answer"
        );
    }
}
