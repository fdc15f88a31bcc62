//! The other way of following an alias: a timer for each object, which asks about that object alone. One request names the
//! version, a second one tells what it is; so works the `MlflowModel` operator (every 60 s). Written anew, with the least that
//! this can cost: one process, kept connections, timers evenly spread.
//!
//! Absent: everything that follows from what is seen. Nothing is deployed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// What one timer asks about.
struct Object {
    name: String,
    /// When its timer rings first.
    phase: Duration,
}

/// The version of each model, and when it was first seen.
type Objects = HashMap<String, (String, Instant)>;

/// Running timers; they end when this is dropped.
pub struct Poller {
    seen: watch::Receiver<Objects>,
    _timers: JoinSet<()>,
}

impl Poller {
    /// One timer for each of these models, the first of each within one interval from now.
    pub fn start(registry: &str, models: Vec<String>, interval: Duration) -> Self {
        let (tell, seen) = watch::channel(Objects::new());
        let client = Client {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            url: registry.to_owned(),
        };
        let count = u32::try_from(models.len()).unwrap();
        let mut timers = JoinSet::new();
        for (number, name) in (0u32..).zip(models) {
            let object = Object {
                name,
                phase: interval * number / count,
            };
            timers.spawn(follow(client.clone(), object, interval, tell.clone()));
        }
        Self {
            seen,
            _timers: timers,
        }
    }

    /// Waits until so many models have been asked about.
    pub async fn knows(&mut self, count: usize) {
        self.seen
            .wait_for(|seen| seen.len() == count)
            .await
            .expect("a timer broke");
    }

    /// Waits for that version, and says when it was first seen.
    pub async fn sees(&self, model: String, version: &str) -> Instant {
        let mut seen = self.seen.clone();
        let named = |seen: &Objects| {
            seen.get(&model)
                .filter(|(number, _)| number == version)
                .map(|(_, since)| *since)
        };
        let seen = seen
            .wait_for(|seen| named(seen).is_some())
            .await
            .expect("a timer broke");
        named(&seen).expect("it was waited for")
    }
}

async fn follow(client: Client, object: Object, interval: Duration, tell: watch::Sender<Objects>) {
    let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + object.phase, interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let version = client.champion(&object.name).await;
        let now = Instant::now();
        tell.send_if_modified(|seen| {
            let is_news = seen
                .get(&object.name)
                .is_none_or(|(known, _)| *known != version);
            if is_news {
                seen.insert(object.name.clone(), (version, now));
            }
            is_news
        });
    }
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// The version that the alias names, once the version itself has been asked for too.
    async fn champion(&self, model: &str) -> String {
        let named = self
            .ask(
                "registered-models/alias",
                &[("name", model), ("alias", "champion")],
            )
            .await;
        let version = named["model_version"]["version"]
            .as_str()
            .expect("the alias names a version")
            .to_owned();
        let facts = self
            .ask(
                "model-versions/get",
                &[("name", model), ("version", &version)],
            )
            .await;
        assert!(
            facts["model_version"]["source"].is_string(),
            "a version has a source: {facts}"
        );
        version
    }

    async fn ask(&self, what: &str, query: &[(&str, &str)]) -> Value {
        let request = self
            .http
            .get(format!("{}/api/2.0/mlflow/{what}", self.url))
            .query(query);
        request
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap()
            .json()
            .await
            .unwrap()
    }
}
