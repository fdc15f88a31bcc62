//! Watches of single objects: when a plain watch first saw a value.
//!
//! Absent: polling. The task that reads the watch takes the time.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use pointsman_env::{Kind, TestNamespace, kinds};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Annotation of a Deployment: the bare patch writes it.
pub const MARKER: &str = "bench.pointsman.dev/marker";
const TIMEOUT: Duration = Duration::from_secs(120);
const VERSION_POINTER: &str = "/spec/template/metadata/annotations/pointsman.dev~1model-version";
const MARKER_POINTER: &str = "/metadata/annotations/bench.pointsman.dev~1marker";
const FIRST_ALIAS_POINTER: &str = "/status/aliases/0/version";

/// A value of an object, and when a watch first saw it.
#[derive(Default)]
struct Observed(Option<(String, Instant)>);

/// The watch of one value of one object; it ends when this is dropped.
pub struct ValueObserver {
    observed: watch::Receiver<Observed>,
    task: JoinHandle<()>,
}

impl ValueObserver {
    /// Observes the string at this JSON pointer.
    pub fn new(objects: Api<DynamicObject>, name: &str, pointer: &'static str) -> Self {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let (state, observed) = watch::channel(Observed::default());
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(objects, config));
            while let Some(event) = next(&mut events).await {
                let now = Instant::now();
                let object = serde_json::to_value(&event).expect("an object is JSON");
                let value = object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .map(str::to_owned);
                state.send_modify(|observed| observed.record(value, now));
            }
        });
        Self { observed, task }
    }

    /// The version of the first alias in the status of a model, which is `champion`.
    pub fn of_alias(namespace: &TestNamespace, model: &str) -> Self {
        Self::new(
            namespace.api(&kinds::REGISTERED_MODEL),
            model,
            FIRST_ALIAS_POINTER,
        )
    }

    /// Waits for the value and returns when it was first seen.
    pub async fn wait_for(&mut self, wanted: &str) -> Instant {
        let has_value = |observed: &Observed| {
            observed
                .0
                .as_ref()
                .is_some_and(|(value, _)| value == wanted)
        };
        let observed = tokio::time::timeout(TIMEOUT, self.observed.wait_for(has_value)).await;
        let observed = observed
            .unwrap_or_else(|_| panic!("{wanted} was not observed within {TIMEOUT:?}"))
            .expect("the watch of the benchmark ended");
        observed.0.as_ref().expect("it was waited for").1
    }
}

impl Drop for ValueObserver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observed {
    fn record(&mut self, value: Option<String>, now: Instant) {
        let known = self.0.as_ref().map(|(known, _)| known);
        if known != value.as_ref() {
            self.0 = value.map(|value| (value, now));
        }
    }
}

/// The observers of a Deployment.
pub struct DeploymentObserver {
    version: ValueObserver,
    marker: ValueObserver,
}

impl DeploymentObserver {
    pub fn new(namespace: &TestNamespace, name: &str) -> Self {
        let observer =
            |pointer| ValueObserver::new(namespace.api(&kinds::DEPLOYMENT), name, pointer);
        Self {
            version: observer(VERSION_POINTER),
            marker: observer(MARKER_POINTER),
        }
    }

    /// Waits until the pod template has this version and returns when that was first seen.
    pub async fn wait_for_version(&mut self, version: &str) -> Instant {
        self.version.wait_for(version).await
    }

    /// Waits for the value of the marker annotation and returns when it was first seen.
    pub async fn wait_for_marker(&mut self, marker: &str) -> Instant {
        self.marker.wait_for(marker).await
    }
}

/// When a plain watch that begins now first sees an object of the kind in this state.
pub fn first_in_state(
    namespace: &TestNamespace,
    kind: &Kind,
    is_in_state: impl Fn(&Value) -> bool + Send + 'static,
) -> JoinHandle<Instant> {
    let api = namespace.api(kind);
    tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        while let Some(object) = next(&mut events).await {
            let now = Instant::now();
            if is_in_state(&serde_json::to_value(&object).expect("an object is JSON")) {
                return now;
            }
        }
        panic!("the watch of the benchmark ended");
    })
}

/// The next object that was added or changed; `None` at the end of the watch.
async fn next<S>(events: &mut S) -> Option<DynamicObject>
where
    S: TryStreamExt<Ok = Event<DynamicObject>, Error = watcher::Error> + Unpin,
{
    while let Some(event) = events
        .try_next()
        .await
        .expect("the watch of the benchmark broke")
    {
        if let Event::Apply(object) | Event::InitApply(object) = event {
            return Some(object);
        }
    }
    None
}
