//! When a plain watch first saw a Deployment change.
//!
//! Absent: polling. What is seen is stamped in the task that reads the watch.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Annotation of a pod template: the version that it holds.
const VERSION: &str = "pointsman.dev/model-version";
/// Annotation of a Deployment that the bare patch writes.
pub const TICK: &str = "bench.pointsman.dev/tick";
const PATIENCE: Duration = Duration::from_secs(120);

/// A value, and when it was first seen.
type Since = Option<(String, Instant)>;

#[derive(Default)]
struct Objects {
    version: Since,
    tick: Since,
}

/// The watch; it ends when this is dropped.
pub struct Sightings {
    seen: watch::Receiver<Objects>,
    task: JoinHandle<()>,
}

impl Sightings {
    pub fn of(client: kube::Client, namespace: &str, name: &str) -> Self {
        let deployments: Api<Deployment> = Api::namespaced(client, namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let (tell, seen) = watch::channel(Objects::default());
        let task = tokio::spawn(async move {
            let told = watcher(deployments, config).try_for_each(|event| {
                if let Event::Apply(deployment) | Event::InitApply(deployment) = event {
                    let now = Instant::now();
                    tell.send_modify(|seen| seen.note(&deployment, now));
                }
                std::future::ready(Ok(()))
            });
            told.await
                .expect("the watch of the measurement broke: its figures would not be right");
        });
        Self { seen, task }
    }

    /// When the pod template was first seen to hold this version.
    pub async fn version(&mut self, wanted: &str) -> Instant {
        self.when(wanted, |seen| &seen.version).await
    }

    /// When the bare patch of this value was first seen.
    pub async fn tick(&mut self, wanted: &str) -> Instant {
        self.when(wanted, |seen| &seen.tick).await
    }

    async fn when(&mut self, wanted: &str, which: fn(&Objects) -> &Since) -> Instant {
        let holds = |seen: &Objects| {
            which(seen)
                .as_ref()
                .is_some_and(|(value, _)| value == wanted)
        };
        let seen = tokio::time::timeout(PATIENCE, self.seen.wait_for(holds)).await;
        let seen = seen
            .expect("the Deployment was not changed in time")
            .expect("the watch ended");
        which(&seen).as_ref().expect("it was waited for").1
    }
}

/// When a plain watch first saw the status of an object name a version.
pub struct Mirror {
    seen: watch::Receiver<Since>,
    task: JoinHandle<()>,
}

impl Mirror {
    /// The mirror of a registered model, which names the version of `champion`.
    pub fn of(client: kube::Client, namespace: &str, name: &str) -> Self {
        let models = pointsman_env::kinds::REGISTERED_MODEL.api(client, namespace);
        Self::at(models, name, "/status/aliases/0/version")
    }

    /// Any object, whose status names a version there.
    pub fn at(objects: Api<DynamicObject>, name: &str, pointer: &'static str) -> Self {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let (tell, seen) = watch::channel(None);
        let task = tokio::spawn(async move {
            let told = watcher(objects, config).try_for_each(|event| {
                if let Event::Apply(object) | Event::InitApply(object) = event {
                    let now = Instant::now();
                    let named = object
                        .data
                        .pointer(pointer)
                        .and_then(|version| version.as_str());
                    tell.send_modify(|since| note(since, named.map(str::to_owned).as_ref(), now));
                }
                std::future::ready(Ok(()))
            });
            told.await
                .expect("the watch of the measurement broke: its figures would not be right");
        });
        Self { seen, task }
    }

    /// When the mirror was first seen to name this version.
    pub async fn alias(&mut self, wanted: &str) -> Instant {
        let holds = |since: &Since| since.as_ref().is_some_and(|(value, _)| value == wanted);
        let seen = tokio::time::timeout(PATIENCE, self.seen.wait_for(holds)).await;
        let seen = seen
            .expect("the mirror was not changed in time")
            .expect("the watch ended");
        seen.as_ref().expect("it was waited for").1
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Sightings {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Objects {
    fn note(&mut self, deployment: &Deployment, now: Instant) {
        let template = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.template.metadata.as_ref());
        let version = template.and_then(|template| template.annotations.as_ref()?.get(VERSION));
        let tick = deployment
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(TICK));
        note(&mut self.version, version, now);
        note(&mut self.tick, tick, now);
    }
}

fn note(since: &mut Since, value: Option<&String>, now: Instant) {
    if since.as_ref().map(|(known, _)| known) != value {
        *since = value.map(|value| (value.clone(), now));
    }
}
