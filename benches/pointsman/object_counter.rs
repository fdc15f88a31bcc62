//! A plain watch that counts the objects of a kind whose JSON contains a text, with the time of each increase.
//!
//! Absent: decoding. Thousands of objects are searched as text, so that the benchmark does not keep the processors busy.

use std::collections::HashSet;
use std::io::BufRead;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use kube::client::Body;
use pointsman_env::progress::Task;
use pointsman_env::{Kind, TestNamespace};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Text of one of our objects that is ready: the API server sorts the members of a condition.
pub const READY: &str = r#""status":"True","type":"Ready""#;
/// The annotation of the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Text of a Deployment with this version in its pod template.
pub fn holds_version(version: usize) -> String {
    format!(r#"pointsman.dev/model-version":"{version}""#)
}

/// How often a watch may end before its initial events do.
const MOST_INCOMPLETE_STARTS: usize = 10;
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The watch ends when this is dropped.
pub struct ObjectCounter {
    description: String,
    state: watch::Receiver<CounterState>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct CounterState {
    is_synced: bool,
    /// The resource version of the last event.
    resource_version: String,
    /// Names of the objects that contain the text now.
    members: HashSet<String>,
    /// At index n: when n + 1 objects were counted for the first time.
    reached_at: Vec<Instant>,
}

impl ObjectCounter {
    /// Counts the objects of the kind whose JSON contains `text`; returns after the initial events.
    pub async fn start(namespace: &TestNamespace, kind: &Kind, text: impl Into<String>) -> Self {
        let text = text.into();
        let description = format!("{} with {text}", kind.plural);
        let (state, mut observed) = watch::channel(CounterState::default());
        let (client, kind, namespace) = (
            namespace.client(),
            kind.clone(),
            namespace.namespace().to_owned(),
        );
        let path = move |from: &str| path_of(&kind, &namespace, from);
        let task = tokio::spawn(async move { follow(client, path, text, state).await });
        observed
            .wait_for(|state| state.is_synced)
            .await
            .expect("the watch of the benchmark broke before its initial events ended");
        Self {
            description,
            state: observed,
            task,
        }
    }

    pub fn current(&self) -> usize {
        self.state.borrow().members.len()
    }

    /// Waits for this many objects and returns when they were first counted; the task shows the progress.
    pub async fn wait_for(&mut self, count: usize, task: &Task, timeout: Duration) -> Instant {
        let reached = tokio::time::timeout(timeout, async {
            while self.state.borrow_and_update().reached_at.len() < count {
                task.reach(self.current() as u64);
                self.state
                    .changed()
                    .await
                    .expect("the watch of the benchmark broke");
            }
        });
        let in_time = reached.await;
        assert!(
            in_time.is_ok(),
            "{} of {count} {} within {timeout:?}",
            self.current(),
            self.description
        );
        self.state.borrow().reached_at[count - 1]
    }
}

impl Drop for ObjectCounter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The path of the watch: with initial events, or from a resource version on.
fn path_of(kind: &Kind, namespace: &str, resource_version: &str) -> String {
    let group = if kind.group.is_empty() {
        "/api".to_owned()
    } else {
        format!("/apis/{}", kind.group)
    };
    let start = if resource_version.is_empty() {
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned()
    } else {
        format!("resourceVersion={resource_version}")
    };
    let options = "watch=true&allowWatchBookmarks=true&timeoutSeconds=7200";
    format!(
        "{group}/{}/namespaces/{namespace}/{}?{options}&{start}",
        kind.version, kind.plural
    )
}

/// Resumes the watch when it ends: the API server ends watches that are read too slowly.
async fn follow(
    client: kube::Client,
    path: impl Fn(&str) -> String,
    text: String,
    state: watch::Sender<CounterState>,
) {
    let mut incomplete_starts = 0;
    loop {
        let resource_version = state.borrow().resource_version.clone();
        read(
            open_watch(&client, &path(&resource_version)).await,
            &text,
            &state,
        )
        .await;
        // Incomplete initial events are sent again.
        if !state.borrow().is_synced {
            incomplete_starts += 1;
            assert!(
                incomplete_starts < MOST_INCOMPLETE_STARTS,
                "the watch of the benchmark ends before its initial events do"
            );
            state.send_replace(CounterState::default());
        }
    }
}

/// Retries on 429: the API server sends it while it fills the cache of a new kind.
async fn open_watch(client: &kube::Client, path: &str) -> Body {
    loop {
        let request = http::Request::get(path)
            .body(Body::empty())
            .expect("a path of plain names");
        let response = client
            .send(request)
            .await
            .expect("the API server can be reached");
        if response.status() != http::StatusCode::TOO_MANY_REQUESTS {
            assert!(
                response.status().is_success(),
                "the watch of the benchmark failed: {}",
                response.status()
            );
            return response.into_body();
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn read(mut body: Body, text: &str, state: &watch::Sender<CounterState>) {
    let mut line = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let mut rest: &[u8] = frame.data_ref().map_or(&[], |data| data);
        let now = Instant::now();
        while !rest.is_empty() {
            rest.read_until(b'\n', &mut line)
                .expect("memory can be read");
            if line.last() == Some(&b'\n') {
                let event = String::from_utf8_lossy(&line).into_owned();
                state.send_modify(|state| state.record(&event, text, now));
                line.clear();
            }
        }
    }
}

impl CounterState {
    fn record(&mut self, event: &str, text: &str, now: Instant) {
        assert!(
            !event.starts_with(r#"{"type":"ERROR""#),
            "the watch of the benchmark broke: {event}"
        );
        metadata_field(event, "resourceVersion").clone_into(&mut self.resource_version);
        if event.starts_with(r#"{"type":"BOOKMARK""#) {
            self.is_synced |= event.contains(INITIAL_EVENTS_END);
            return;
        }
        let name = metadata_field(event, "name");
        if event.starts_with(r#"{"type":"DELETED""#) || !event.contains(text) {
            self.members.remove(name);
        } else if self.members.insert(name.to_owned()) && self.members.len() > self.reached_at.len()
        {
            self.reached_at.push(now);
        }
    }
}

/// The first string field of that name in the metadata: the object's own name and version precede those of owners.
fn metadata_field<'event>(event: &'event str, field: &str) -> &'event str {
    let after = event
        .split_once(r#""metadata":{"#)
        .map_or("", |(_, metadata)| metadata);
    let value = after
        .split_once(&format!(r#""{field}":""#))
        .and_then(|(_, value)| value.split_once('"'));
    value.map_or("", |(value, _)| value)
}
