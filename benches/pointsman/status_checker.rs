//! Plain watches of all bindings and pods: every status that was ever written is checked against what the pods did.
//!
//! Absent: the operator's own view. The plan of the benchmark says whether a version is good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use pointsman_env::{Kind, kinds};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The times in a status have whole seconds.
const PRECISION: SignedDuration = SignedDuration::from_secs(1);
const VERSION_ANNOTATION: &str = "pointsman.dev/model-version";

/// How a status is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WrongStatus {
    /// A good version is blamed: held back, failed or rolled back.
    FalseAlarm,
    /// A version is live that is bad, or whose pods were not ready for as long as it must bake.
    WrongLive,
}

/// Whether this version of the binding of this name is good.
pub type IsGood = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// The observations so far, by name: a binding and its workload have the same one.
#[derive(Default)]
pub struct Seen {
    bindings: BTreeMap<String, Value>,
    /// Since when the first pod of a version was ready.
    ready_since: BTreeMap<(String, String), Timestamp>,
    /// Each wrong status once, with the version that it is about.
    wrong: BTreeMap<(WrongStatus, String, String), String>,
}

/// The watches end when this is dropped.
pub struct StatusChecker {
    seen: Arc<watch::Sender<Seen>>,
    tasks: [JoinHandle<()>; 2],
}

impl StatusChecker {
    pub fn start(client: &kube::Client, is_good: IsGood) -> Self {
        let seen = Arc::new(watch::Sender::new(Seen::default()));
        let sender = Arc::clone(&seen);
        let bindings = follow(client, &kinds::ALIAS_BINDING, move |binding| {
            sender.send_modify(|seen| seen.record_binding(binding, &is_good));
        });
        let sender = Arc::clone(&seen);
        let pods = follow(client, &kinds::POD, move |pod| {
            sender.send_modify(|seen| seen.record_pod(&pod));
        });
        let tasks = [tokio::spawn(bindings), tokio::spawn(pods)];
        Self { seen, tasks }
    }

    /// Waits until the bindings are as described; false if they are not in time.
    pub async fn wait(&self, timeout: Duration, holds: impl Fn(&Seen) -> bool) -> bool {
        let mut seen = self.seen.subscribe();
        let reached = tokio::time::timeout(timeout, seen.wait_for(holds)).await;
        reached.is_ok()
    }

    pub fn with<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.seen.borrow())
    }

    /// Compares the times at which versions became live with the times at which their pods were ready.
    pub fn compare_with_pods(&self, bake: SignedDuration) {
        self.seen.send_modify(|seen| seen.compare_with_pods(bake));
    }
}

impl Drop for StatusChecker {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Hands on each state of each object of the kind.
fn follow<F>(
    client: &kube::Client,
    kind: &Kind,
    record: F,
) -> impl Future<Output = ()> + Send + use<F>
where
    F: Fn(Value) + Send + 'static,
{
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
    async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => {
                    record(serde_json::to_value(&object).expect("an object is JSON"));
                }
                Ok(_) => (),
                // The watcher begins again by itself.
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

impl Seen {
    pub fn binding(&self, name: &str) -> &Value {
        self.bindings.get(name).unwrap_or(&Value::Null)
    }

    /// The number of versions that this was said about.
    pub fn count(&self, wrong: WrongStatus) -> usize {
        let about = self.wrong.keys().filter(|(each, ..)| *each == wrong);
        about.count()
    }

    /// Whether this version is live and the last good one.
    pub fn is_live(&self, name: &str, version: &str) -> bool {
        let binding = self.binding(name);
        let status = &binding["status"];
        is_ready_live(binding)
            && status["running"]["version"] == version
            && status["lastGood"]["version"] == version
            && status["history"][0]["outcome"] == "Live"
    }

    /// Whether this version is held back, and another one is in the workload again.
    pub fn is_rolled_back(&self, name: &str, version: &str) -> bool {
        let binding = self.binding(name);
        let status = &binding["status"];
        let held_back = status["heldBack"]["versions"].as_array();
        held_back.is_some_and(|all| all.iter().any(|each| each["version"] == version))
            && status["running"]["version"] != version
            && has_condition(binding, "Stalled", "True", "RolledBack")
    }

    fn record_pod(&mut self, pod: &Value) {
        let metadata = &pod["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&metadata["labels"]["app"]);
        let version = text(&metadata["annotations"][VERSION_ANNOTATION]);
        let ready = condition(&pod["status"], "Ready").filter(|ready| ready["status"] == "True");
        if let Some(since) = ready.and_then(|ready| time(&ready["lastTransitionTime"])) {
            let known = self.ready_since.entry((name, version)).or_insert(since);
            *known = (*known).min(since);
        }
    }

    fn record_binding(&mut self, binding: Value, is_good: &IsGood) {
        let name = binding["metadata"]["name"].as_str().unwrap_or_default();
        let name = name.to_owned();
        let mut said = Vec::new();
        for version in blamed(&binding) {
            if is_good(&name, version) {
                said.push((WrongStatus::FalseAlarm, version.to_owned()));
            }
        }
        for version in live(&binding) {
            if !is_good(&name, version) {
                said.push((WrongStatus::WrongLive, version.to_owned()));
            }
        }
        for (wrong, version) in said {
            self.report(wrong, &name, version, &binding);
        }
        self.bindings.insert(name, binding);
    }

    fn report(&mut self, wrong: WrongStatus, name: &str, version: String, binding: &Value) {
        let text = format!(
            "{}: {wrong:?} about version {version} of {name}: {}",
            Timestamp::now(),
            binding["status"]
        );
        let key = (wrong, name.to_owned(), version);
        self.wrong.entry(key).or_insert_with(|| {
            eprintln!("{text}");
            text
        });
    }

    fn compare_with_pods(&mut self, bake: SignedDuration) {
        let mut wrong = Vec::new();
        for (name, binding) in &self.bindings {
            for entry in history(binding) {
                let version = entry["version"].as_str().unwrap_or_default();
                let Some(live_at) = time(&entry["liveAt"]) else {
                    continue;
                };
                let ready = self.ready_since.get(&(name.clone(), version.to_owned()));
                if ready.is_none_or(|ready| *ready + bake > live_at + PRECISION) {
                    wrong.push((name.clone(), version.to_owned(), binding.clone()));
                }
            }
        }
        for (name, version, binding) in wrong {
            self.report(WrongStatus::WrongLive, &name, version, &binding);
        }
    }
}

/// The versions that the status holds back or calls failed.
fn blamed(binding: &Value) -> Vec<&str> {
    let held_back = &binding["status"]["heldBack"]["versions"];
    let held_back = held_back.as_array().into_iter().flatten();
    let failed = history(binding)
        .filter(|entry| entry["outcome"] == "Failed" || entry["outcome"] == "RolledBack");
    held_back
        .chain(failed)
        .filter_map(|each| each["version"].as_str())
        .collect()
}

/// The versions that the status calls live or good.
fn live(binding: &Value) -> Vec<&str> {
    let status = &binding["status"];
    let in_history = history(binding)
        .filter(|entry| entry["outcome"] == "Live" || !entry["liveAt"].is_null())
        .filter_map(|entry| entry["version"].as_str());
    let running = status["running"]["version"].as_str();
    in_history
        .chain(status["lastGood"]["version"].as_str())
        .chain(running.filter(|_| is_ready_live(binding)))
        .collect()
}

fn history(binding: &Value) -> impl Iterator<Item = &Value> {
    binding["status"]["history"]
        .as_array()
        .into_iter()
        .flatten()
}

fn is_ready_live(binding: &Value) -> bool {
    has_condition(binding, "Ready", "True", "Live")
}

fn has_condition(binding: &Value, type_: &str, status: &str, reason: &str) -> bool {
    condition(&binding["status"], type_)
        .is_some_and(|each| each["status"] == status && each["reason"] == reason)
}

fn condition<'a>(status: &'a Value, type_: &str) -> Option<&'a Value> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|each| each["type"] == type_)
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}
