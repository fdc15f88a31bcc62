//! What the cluster does, told line by line from watches while it does it.
//! Absent: asking again and again, and any opinion on what should come.

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

const FOLLOWED: [&Kind; 4] = [&DEPLOYMENT, &REPLICA_SET, &ALIAS_BINDING, &EVENT];
const VERSION: &str = "/spec/template/metadata/annotations/pointsman.dev~1model-version";

/// The objects as the watches last told, by kind and name.
#[derive(Default)]
pub struct World(BTreeMap<(&'static str, String), Value>);

impl World {
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

/// Follows a namespace, and prints what changes in it.
pub struct Live {
    changes: SelectAll<BoxStream<'static, Change>>,
    world: World,
    told: BTreeMap<(&'static str, String), String>,
}

impl Live {
    /// Begins to follow.
    pub fn follow(cluster: &Cluster) -> Self {
        let watch = |kind: &'static Kind| {
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
            changes: FOLLOWED.into_iter().map(watch).collect(),
            world: World::default(),
            told: BTreeMap::new(),
        }
    }

    /// The world as it was seen last.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Tells what happens until `holds`, and how long that took from `since`; fails after `patience`.
    pub async fn until(
        &mut self,
        what: &str,
        since: Instant,
        patience: Duration,
        holds: impl Fn(&World) -> bool,
    ) -> Result<Duration> {
        let bar = ProgressBar::new_spinner().with_message(format!("{what} ..."));
        bar.enable_steady_tick(Duration::from_millis(120));
        let waited = tokio::time::timeout(patience, self.tell_until(&bar, since, holds)).await;
        bar.finish_and_clear();
        waited.map_err(|_| {
            Error::new(
                format_args!("waiting: {what}"),
                format_args!("not within {patience:?}"),
            )
        })
    }

    /// Tells what comes after the end: Events are written behind what they are about.
    pub async fn linger(&mut self, since: Instant) {
        let bar = ProgressBar::hidden();
        let never = self.tell_until(&bar, since, |_| false);
        let _ = tokio::time::timeout(Duration::from_millis(500), never).await;
    }

    async fn tell_until(
        &mut self,
        bar: &ProgressBar,
        since: Instant,
        holds: impl Fn(&World) -> bool,
    ) -> Duration {
        while !holds(&self.world) {
            match self.changes.next().await {
                Some((kind, Ok(Event::Apply(object) | Event::InitApply(object)))) => {
                    if let Some(line) = self.learn(kind, &object) {
                        let line = format!("  {:>6.2} s  {line}", since.elapsed().as_secs_f64());
                        bar.suspend(|| println!("{line}"));
                    }
                }
                Some((kind, Ok(Event::Delete(object)))) => {
                    self.world
                        .0
                        .remove(&(kind, object.metadata.name.unwrap_or_default()));
                }
                // A watch that broke begins anew by itself.
                Some((_, Err(_))) => tokio::time::sleep(Duration::from_millis(200)).await,
                Some((_, Ok(Event::Init | Event::InitDone))) => {}
                None => std::future::pending().await,
            }
        }
        since.elapsed()
    }

    /// Takes a change in, and returns its line where that is new.
    fn learn(&mut self, kind: &'static str, object: &DynamicObject) -> Option<String> {
        let key = (kind, object.metadata.name.clone().unwrap_or_default());
        let object = serde_json::to_value(object).unwrap_or_default();
        let line = line_of(kind, &key.1, &object);
        self.world.0.insert(key.clone(), object);
        let line = line?;
        let new = self.told.get(&key) != Some(&line);
        self.told.insert(key, line.clone());
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

/// Those about pods and ReplicaSets repeat what their lines say.
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

/// What is not there is shown as kubectl would leave it: visibly.
pub fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
