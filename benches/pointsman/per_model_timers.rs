//! The other way of following an alias: a timer for each model, with requests about that model alone.
//!
//! One request resolves the alias, a second one reads the version; the `MlflowModel` operator works so (every 60 s). This
//! implementation has the least possible cost: one process, kept connections, timers evenly distributed.
//!
//! Absent: everything after the poll. Nothing is deployed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

struct Timer {
    model: String,
    /// Its first tick after the start.
    phase: Duration,
    interval: Duration,
}

/// The version of each model, and when it was first seen.
type KnownVersions = HashMap<String, (String, Instant)>;

/// The timers end when this is dropped.
pub struct PerModelTimers {
    known: watch::Receiver<KnownVersions>,
    _timers: JoinSet<()>,
}

impl PerModelTimers {
    /// One timer for each of these models, whose first tick is within one interval from now.
    pub fn start(registry: &str, models: Vec<String>, interval: Duration) -> Self {
        let (state, known) = watch::channel(KnownVersions::new());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let client = Client {
            http,
            url: registry.to_owned(),
        };
        let count = u32::try_from(models.len()).unwrap();
        let mut timers = JoinSet::new();
        for (number, model) in (0u32..).zip(models) {
            let timer = Timer {
                model,
                phase: interval * number / count,
                interval,
            };
            timers.spawn(poll(client.clone(), timer, state.clone()));
        }
        Self {
            known,
            _timers: timers,
        }
    }

    /// Waits until the versions of this many models are known.
    pub async fn wait_for_models(&mut self, count: usize) {
        self.known
            .wait_for(|known| known.len() == count)
            .await
            .expect("a timer broke");
    }

    /// Waits for that version and returns when it was first seen.
    pub async fn wait_for_version(&self, model: String, version: &str) -> Instant {
        let since = |known: &KnownVersions| match known.get(&model) {
            Some((number, since)) if number == version => Some(*since),
            _ => None,
        };
        let mut known = self.known.clone();
        let known = known
            .wait_for(|known| since(known).is_some())
            .await
            .expect("a timer broke");
        since(&known).expect("it was waited for")
    }
}

async fn poll(client: Client, timer: Timer, state: watch::Sender<KnownVersions>) {
    let first = tokio::time::Instant::now() + timer.phase;
    let mut ticks = tokio::time::interval_at(first, timer.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let version = client.champion(&timer.model).await;
        let now = Instant::now();
        state.send_if_modified(|known| {
            let is_new = known
                .get(&timer.model)
                .is_none_or(|(known, _)| *known != version);
            if is_new {
                known.insert(timer.model.clone(), (version, now));
            }
            is_new
        });
    }
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// Resolves the alias and reads the version.
    async fn champion(&self, model: &str) -> String {
        let query = [("name", model), ("alias", "champion")];
        let resolved = self.get("registered-models/alias", &query).await;
        let version = resolved["model_version"]["version"]
            .as_str()
            .expect("the alias points at a version")
            .to_owned();
        let query = [("name", model), ("version", &version)];
        let response = self.get("model-versions/get", &query).await;
        let has_source = response["model_version"]["source"].is_string();
        assert!(has_source, "the version has no source: {response}");
        version
    }

    async fn get(&self, route: &str, query: &[(&str, &str)]) -> Value {
        let url = format!("{}/api/2.0/mlflow/{route}", self.url);
        let response = self.http.get(url).query(query).send().await.unwrap();
        response.error_for_status().unwrap().json().await.unwrap()
    }
}
