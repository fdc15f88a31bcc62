//! How many objects of a kind a plain watch sees to be so, and when each further one came to be.
//!
//! Absent: decoding. Thousands of objects at a time are read as text, so that whoever measures does not keep the processors busy.

use std::collections::HashSet;
use std::io::BufRead;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use kube::client::Body;
use pointsman_env::progress::Task;
use pointsman_env::{Kind, TestNamespace as Place};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// In the status of an object of ours that is well: the API server sorts the members of conditions.
pub const READY: &str = r#""status":"True","type":"Ready""#;
/// The annotation of the event that ends what was there already.
const ALL_TOLD: &str = "k8s.io/initial-events-end";

/// What the text of a Deployment holds whose pod template has this version.
pub fn holds_version(version: usize) -> String {
    format!(r#"pointsman.dev/model-version":"{version}""#)
}

/// How often a watch may end before it told what is there.
const MOST_BEGINNINGS: usize = 10;
const MOMENT: Duration = Duration::from_secs(1);

/// The watch; it ends when this is dropped.
pub struct Crowd {
    what: String,
    seen: watch::Receiver<Objects>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Objects {
    all_told: bool,
    /// Of what was told last.
    version: String,
    members: HashSet<String>,
    /// When there were first one, two, three and so on.
    grew: Vec<Instant>,
}

impl Crowd {
    /// Counts the objects of the kind whose text holds `mark`; returns when all that are there have been told.
    pub async fn of(place: &Place, kind: &Kind, mark: impl Into<String>) -> Self {
        let mark = mark.into();
        let what = format!("{} with {mark}", kind.plural);
        let (tell, mut seen) = watch::channel(Objects::default());
        let (client, kind, namespace) =
            (place.client(), kind.clone(), place.namespace().to_owned());
        let path = move |from: &str| path_of(&kind, &namespace, from);
        let task = tokio::spawn(async move { follow(client, path, mark, tell).await });
        seen.wait_for(|seen| seen.all_told)
            .await
            .expect("the watch of the measurement broke before it began");
        Self { what, seen, task }
    }

    /// How many there are now.
    pub fn count(&self) -> usize {
        self.seen.borrow().members.len()
    }

    /// When there were first so many; the task shows how many there are until then.
    pub async fn reaches(&mut self, count: usize, task: &Task, patience: Duration) -> Instant {
        let reached = tokio::time::timeout(patience, async {
            while self.seen.borrow_and_update().grew.len() < count {
                task.reach(self.count() as u64);
                self.seen
                    .changed()
                    .await
                    .expect("the watch of the measurement broke: its figures would not be right");
            }
        });
        let in_time = reached.await;
        assert!(
            in_time.is_ok(),
            "{} of {count} {} within {patience:?}",
            self.count(),
            self.what
        );
        self.seen.borrow().grew[count - 1]
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where the kind is watched; from what is there on, or from a version on that was seen.
fn path_of(kind: &Kind, namespace: &str, from: &str) -> String {
    let group = if kind.group.is_empty() {
        "/api".to_owned()
    } else {
        format!("/apis/{}", kind.group)
    };
    let start = if from.is_empty() {
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned()
    } else {
        format!("resourceVersion={from}")
    };
    let options = "watch=true&allowWatchBookmarks=true&timeoutSeconds=7200";
    format!(
        "{group}/{}/namespaces/{namespace}/{}?{options}&{start}",
        kind.version, kind.plural
    )
}

/// The API server ends the watches of who reads too slowly for it; they go on where they ended.
async fn follow(
    client: kube::Client,
    path: impl Fn(&str) -> String,
    mark: String,
    tell: watch::Sender<Objects>,
) {
    let mut beginnings = 0;
    loop {
        let from = tell.borrow().version.clone();
        read(asked(&client, &path(&from)).await, &mark, &tell).await;
        // What was told of the beginning only will be told again.
        if !tell.borrow().all_told {
            beginnings += 1;
            assert!(
                beginnings < MOST_BEGINNINGS,
                "the watch of the measurement ends before it began"
            );
            tell.send_replace(Objects::default());
        }
    }
}

/// The API server asks for patience while it makes the cache of a kind that it was just told of.
async fn asked(client: &kube::Client, path: &str) -> Body {
    loop {
        let request = http::Request::get(path)
            .body(Body::empty())
            .expect("a path of plain names");
        let answer = client
            .send(request)
            .await
            .expect("the API server does not answer the watch of the measurement");
        if answer.status() != http::StatusCode::TOO_MANY_REQUESTS {
            assert!(
                answer.status().is_success(),
                "the watch of the measurement is answered {}",
                answer.status()
            );
            return answer.into_body();
        }
        tokio::time::sleep(MOMENT).await;
    }
}

async fn read(mut body: Body, mark: &str, tell: &watch::Sender<Objects>) {
    let mut line = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let mut rest: &[u8] = frame.data_ref().map_or(&[], |data| data);
        let now = Instant::now();
        while !rest.is_empty() {
            rest.read_until(b'\n', &mut line)
                .expect("memory can be read");
            if line.last() == Some(&b'\n') {
                tell.send_modify(|seen| seen.learn(&String::from_utf8_lossy(&line), mark, now));
                line.clear();
            }
        }
    }
}

impl Objects {
    fn learn(&mut self, event: &str, mark: &str, now: Instant) {
        assert!(
            !event.starts_with(r#"{"type":"ERROR""#),
            "the watch of the measurement broke: {event}"
        );
        text_of(event, "resourceVersion").clone_into(&mut self.version);
        if event.starts_with(r#"{"type":"BOOKMARK""#) {
            self.all_told |= event.contains(ALL_TOLD);
            return;
        }
        let name = text_of(event, "name");
        if event.starts_with(r#"{"type":"DELETED""#) || !event.contains(mark) {
            self.members.remove(name);
        } else if self.members.insert(name.to_owned()) && self.members.len() > self.grew.len() {
            self.grew.push(now);
        }
    }
}

/// The first text of that name in the object's metadata: its own name and version come before all others of that name.
fn text_of<'event>(event: &'event str, field: &str) -> &'event str {
    let after = event
        .split_once(r#""metadata":{"#)
        .map_or("", |(_, metadata)| metadata);
    let value = after
        .split_once(&format!(r#""{field}":""#))
        .and_then(|(_, value)| value.split_once('"'));
    value.map_or("", |(value, _)| value)
}
