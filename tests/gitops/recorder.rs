//! What Argo CD or Flux said of an application and what its objects said, over the whole time of a test.
//!
//! Absent: waiting for a state.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use pointsman_env::TestNamespace;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::fixture::{ready_reason, ready_status};
use crate::health::Health;
use crate::objects::KINDS;

/// How often the application is sampled.
const SAMPLE: Duration = Duration::from_millis(300);
/// Less time would be too short to tell.
const SHORTEST: Duration = Duration::from_secs(5);

/// How an application is read that a tool deploys, and how it compares with its objects.
pub struct Tool {
    /// Whether it is synced, and its health; `None` if it does not say.
    read: fn(&Value) -> (Option<bool>, Option<Health>),
    /// The tool's word for the health of an object.
    word: fn(Health) -> Health,
    /// How much later than its objects the application may have their health, on a loaded machine.
    lag: Duration,
}

/// An Application.
pub const ARGOCD: Tool = Tool {
    read: |application| {
        let status = &application["status"];
        let synced = status["sync"]["status"].as_str();
        let health = status["health"]["status"].as_str();
        (
            synced.map(|word| word == "Synced"),
            health.map(Health::parse),
        )
    },
    word: |health| health,
    lag: Duration::from_secs(15),
};

/// A Kustomization that is reconciled every five seconds. It looks at its objects only then; while that lasts, its condition
/// Ready is Unknown and says nothing of them.
pub const FLUX: Tool = Tool {
    read: |kustomization| match ready_status(kustomization) {
        "True" => (Some(true), Some(Health::Healthy)),
        "False" if ready_reason(kustomization) == "HealthCheckFailed" => {
            (Some(true), Some(Health::Degraded))
        }
        "False" => (Some(false), None),
        _ => (None, None),
    },
    word: |health| match health {
        Health::Suspended => Health::Healthy,
        other => other,
    },
    lag: Duration::from_secs(15),
};

/// States in the order of their times.
#[derive(Debug, Clone)]
struct Timeline<T>(Vec<(Instant, T)>);

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone + Debug + PartialEq> Timeline<T> {
    fn add(&mut self, state: T) {
        if self.0.last().is_none_or(|(_, last)| *last != state) {
            self.0.push((Instant::now(), state));
        }
    }

    /// The state at a time.
    fn at(&self, moment: Instant) -> Option<&T> {
        let until = self.0.partition_point(|(since, _)| *since <= moment);
        until.checked_sub(1).map(|last| &self.0[last].1)
    }

    /// All states in a span of time.
    fn during(&self, from: Instant, to: Instant) -> impl Iterator<Item = &T> {
        let within = self
            .0
            .iter()
            .filter(move |(since, _)| *since > from && *since <= to);
        self.at(from)
            .into_iter()
            .chain(within.map(|(_, state)| state))
    }
}

#[derive(Default)]
struct Log {
    synced: Timeline<bool>,
    health: Timeline<Health>,
    objects: Vec<Timeline<Health>>,
    /// The spans of time in which a commit was under way: `OutOfSync` is right.
    commits: Vec<(Instant, Option<Instant>)>,
}

/// Watches an application and its objects until it is dropped.
pub struct Recorder {
    lag: Duration,
    log: Arc<Mutex<Log>>,
    watches: Vec<JoinHandle<()>>,
    started: Option<Instant>,
}

/// The figures of a recording.
#[derive(Debug)]
pub struct Figures {
    pub samples: usize,
    pub not_synced: Duration,
    pub wrong_health: Duration,
    /// Each sample that was wrong, with what it could have been.
    pub faults: Vec<String>,
}

impl Recorder {
    /// Begins to watch the application of this name and its objects in a namespace.
    pub fn start(
        tool: &'static Tool,
        applications: Api<DynamicObject>,
        name: &str,
        namespace: &TestNamespace,
    ) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let shared = Arc::clone(&log);
        let application = follow(applications, name, move |application| {
            let (synced, health) = (tool.read)(application);
            let mut log = shared.lock().unwrap();
            if let Some(synced) = synced {
                log.synced.add(synced);
            }
            if let Some(health) = health {
                log.health.add(health);
            }
        });
        let mut watches = vec![application];
        for (index, (kind, name)) in KINDS.into_iter().enumerate() {
            log.lock().unwrap().objects.push(Timeline::default());
            let shared = Arc::clone(&log);
            watches.push(follow(namespace.api(kind), name, move |object| {
                let health = (tool.word)(Health::of(kind, object));
                shared.lock().unwrap().objects[index].add(health);
            }));
        }
        Self {
            lag: tool.lag,
            log,
            watches,
            started: None,
        }
    }

    /// Counts from now on: the application was synced and healthy for the first time.
    pub fn count(&mut self) {
        self.started = Some(Instant::now());
    }

    /// A commit begins to be synced.
    pub fn commit_begins(&self) {
        self.log
            .lock()
            .unwrap()
            .commits
            .push((Instant::now(), None));
    }

    /// The last commit is synced.
    pub fn commit_ends(&self) {
        if let Some(last) = self.log.lock().unwrap().commits.last_mut() {
            last.1 = Some(Instant::now());
        }
    }

    /// The application was always synced and never had a wrong health, for [`SHORTEST`] at least; returns the figures.
    pub async fn was_at_peace(&self, name: &str) -> Figures {
        let started = self.started.expect("counting has begun");
        tokio::time::sleep_until((started + SHORTEST).into()).await;
        let figures = self.figures();
        assert!(figures.faults.is_empty(), "{name}: {figures:#?}");
        figures
    }

    /// The figures since [`Recorder::count`].
    fn figures(&self) -> Figures {
        let log = self.log.lock().unwrap();
        let start = self.started.expect("counting has begun");
        let mut figures = Figures {
            samples: 0,
            not_synced: Duration::ZERO,
            wrong_health: Duration::ZERO,
            faults: Vec::new(),
        };
        let mut moment = start;
        while moment < Instant::now() {
            figures.samples += 1;
            let second = (moment - start).as_secs_f32();
            if log.synced.at(moment) != Some(&true) && !log.is_committing(moment) {
                figures.not_synced += SAMPLE;
                figures.faults.push(format!("{second:.1} s: not synced"));
            }
            let (health, possible) = (log.health.at(moment), log.possible(moment, self.lag));
            if health.is_none_or(|health| !possible.contains(health)) {
                figures.wrong_health += SAMPLE;
                figures.faults.push(format!(
                    "{second:.1} s: {health:?} in place of one of {possible:?}"
                ));
            }
            moment += SAMPLE;
        }
        figures
    }
}

impl Log {
    fn is_committing(&self, moment: Instant) -> bool {
        self.commits
            .iter()
            .any(|(from, to)| *from <= moment && to.is_none_or(|to| moment <= to))
    }

    /// The health that the application may have: that of its objects now or a little before.
    fn possible(&self, moment: Instant, lag: Duration) -> BTreeSet<Health> {
        let from = moment.checked_sub(lag).unwrap_or(moment);
        let states: Vec<BTreeSet<Health>> = self
            .objects
            .iter()
            .map(|timeline| timeline.during(from, moment).copied().collect())
            .collect();
        Health::worst_of_each(&states)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

fn follow(
    api: Api<DynamicObject>,
    name: &str,
    mut see: impl FnMut(&Value) + Send + 'static,
) -> JoinHandle<()> {
    let configuration = watcher::Config::default().fields(&format!("metadata.name={name}"));
    tokio::spawn(async move {
        let mut objects = watcher(api, configuration)
            .default_backoff()
            .applied_objects()
            .boxed();
        while let Some(object) = objects.next().await {
            // A watch that fails is restarted.
            if let Ok(object) = object {
                see(&serde_json::to_value(&object).unwrap_or_default());
            }
        }
    })
}
