//! Changes in the cluster, printed line by line as the watches report them.
//! Absent: polling, and assertions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, EVENT, REPLICA_SET};
use pointsman_env::manifests::text;
use pointsman_env::{Error, Kind, Result};
use serde_json::Value;

use super::cluster::Cluster;

const WATCHED: [&Kind; 4] = [&DEPLOYMENT, &REPLICA_SET, &ALIAS_BINDING, &EVENT];
const VERSION: &str = "/spec/template/metadata/annotations/pointsman.dev~1model-version";

/// The objects of the watches, by kind and name.
#[derive(Default)]
pub struct State(BTreeMap<(&'static str, String), Value>);

impl State {
    /// The object, or null.
    pub fn get(&self, kind: &'static str, name: &str) -> &Value {
        self.0.get(&(kind, name.to_owned())).unwrap_or(&Value::Null)
    }

    /// The name of the ReplicaSet that runs this version of the model.
    pub fn replica_set_of(&self, version: &str) -> Option<&str> {
        let sets = self
            .0
            .iter()
            .filter(|((kind, _), _)| *kind == REPLICA_SET.kind);
        let mut running = sets
            .filter(|(_, set)| number(set, "/spec/replicas") > 0 && text(set, VERSION) == version);
        running.next().map(|((_, name), _)| name.as_str())
    }
}

type Change = (&'static str, watcher::Result<Event<DynamicObject>>);

/// Watches a namespace, and prints its changes.
pub struct Changes {
    watches: SelectAll<BoxStream<'static, Change>>,
    state: State,
    printed: BTreeMap<(&'static str, String), String>,
}

impl Changes {
    /// Starts the watches.
    pub fn watch(cluster: &Cluster) -> Self {
        let start = |kind: &'static Kind| {
            let changes = watcher(
                kind.api(cluster.client.clone(), cluster.namespace),
                watcher::Config::default(),
            );
            changes
                .into_stream()
                .map(move |change| (kind.kind, change))
                .boxed()
        };
        Self {
            watches: WATCHED.into_iter().map(start).collect(),
            state: State::default(),
            printed: BTreeMap::new(),
        }
    }

    /// The state of the objects.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Prints changes until `holds`, and the time since `since`; fails after `patience`.
    pub async fn until(
        &mut self,
        what: &str,
        since: Instant,
        patience: Duration,
        holds: impl Fn(&State) -> bool,
    ) -> Result<Duration> {
        let bar = ProgressBar::new_spinner().with_message(format!("{what} ..."));
        bar.enable_steady_tick(Duration::from_millis(120));
        let waited = tokio::time::timeout(patience, self.print_until(&bar, since, holds)).await;
        bar.finish_and_clear();
        waited.map_err(|_| {
            Error::new(
                format_args!("waiting: {what}"),
                format_args!("not within {patience:?}"),
            )
        })
    }

    /// Prints late changes: Events are written after the change that they describe.
    pub async fn print_late_changes(&mut self, since: Instant) {
        let bar = ProgressBar::hidden();
        let never = self.print_until(&bar, since, |_| false);
        let _ = tokio::time::timeout(Duration::from_millis(500), never).await;
    }

    async fn print_until(
        &mut self,
        bar: &ProgressBar,
        since: Instant,
        holds: impl Fn(&State) -> bool,
    ) -> Duration {
        while !holds(&self.state) {
            match self.watches.next().await {
                Some((kind, Ok(Event::Apply(object) | Event::InitApply(object)))) => {
                    if let Some(line) = self.apply(kind, &object) {
                        let line = format!("  {:>6.2} s  {line}", since.elapsed().as_secs_f64());
                        bar.suspend(|| println!("{line}"));
                    }
                }
                Some((kind, Ok(Event::Delete(object)))) => {
                    self.state
                        .0
                        .remove(&(kind, object.metadata.name.unwrap_or_default()));
                }
                // A broken watch starts again by itself.
                Some((_, Err(_))) => tokio::time::sleep(Duration::from_millis(200)).await,
                Some((_, Ok(Event::Init | Event::InitDone))) => {}
                None => std::future::pending().await,
            }
        }
        since.elapsed()
    }

    /// Applies a change, and returns its line if that is new.
    fn apply(&mut self, kind: &'static str, object: &DynamicObject) -> Option<String> {
        let key = (kind, object.metadata.name.clone().unwrap_or_default());
        let object = serde_json::to_value(object).unwrap_or_default();
        let line = line_of(kind, &key.1, &object);
        self.state.0.insert(key.clone(), object);
        let line = line?;
        let new = self.printed.get(&key) != Some(&line);
        self.printed.insert(key, line.clone());
        new.then_some(line)
    }
}

fn line_of(kind: &str, name: &str, object: &Value) -> Option<String> {
    match kind {
        "Deployment" => Some(deployment_line(name, object)),
        "ReplicaSet" => Some(replica_set_line(name, object)),
        "AliasBinding" => Some(binding_line(name, object)),
        _ => event_line(object),
    }
}

fn deployment_line(name: &str, object: &Value) -> String {
    format!(
        "{:<34} model version {:<2} READY {}/{}  UP-TO-DATE {}  AVAILABLE {}",
        format!("deployment/{name}"),
        or_dash(text(object, VERSION)),
        number(object, "/status/readyReplicas"),
        number(object, "/spec/replicas"),
        number(object, "/status/updatedReplicas"),
        number(object, "/status/availableReplicas"),
    )
}

fn replica_set_line(name: &str, object: &Value) -> String {
    format!(
        "{:<34} model version {:<2} DESIRED {}  CURRENT {}  READY {}",
        format!("replicaset/{name}"),
        or_dash(text(object, VERSION)),
        number(object, "/spec/replicas"),
        number(object, "/status/replicas"),
        number(object, "/status/readyReplicas"),
    )
}

fn binding_line(name: &str, object: &Value) -> String {
    format!(
        "{:<34} WANTED {}  RUNNING {}  READY {}  REASON {}",
        format!("aliasbinding/{name}"),
        or_dash(text(object, "/status/wanted")),
        or_dash(text(object, "/status/running/version")),
        or_dash(ready(object, "status")),
        or_dash(ready(object, "reason")),
    )
}

/// Events about pods and ReplicaSets repeat the lines of these objects.
fn event_line(event: &Value) -> Option<String> {
    let about = text(event, "/involvedObject/kind");
    if matches!(about, "Pod" | "ReplicaSet") {
        return None;
    }
    Some(format!(
        "event: {} {} {}/{}: {}",
        text(event, "/type"),
        text(event, "/reason"),
        about.to_lowercase(),
        text(event, "/involvedObject/name"),
        text(event, "/message")
    ))
}

/// A field of the condition Ready.
pub fn ready<'a>(object: &'a Value, field: &str) -> &'a str {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let condition =
        conditions.and_then(|all| all.iter().find(|each| text(each, "/type") == "Ready"));
    condition.map_or("", |condition| text(condition, &format!("/{field}")))
}

/// The model's version in the pod template of a Deployment.
pub fn template_version(object: &Value) -> &str {
    text(object, VERSION)
}

/// The number at a JSON pointer, or 0.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// A missing value is shown as kubectl shows it.
pub fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
