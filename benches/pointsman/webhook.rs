//! From a webhook received to the Deployment patched, with nothing else to do.
//!
//! First the measurement plays MLflow's sender: it moves the alias, and delivers a signed event when it likes. What the registry
//! takes to answer the look that follows is taken off, by the record of the proxy between operator and MLflow. Then MLflow
//! delivers by itself, and nothing is taken off.
//!
//! Absent: polling. The registry is looked at once an hour.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::progress::Task;
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{Client, Registrar};
use pointsman_env::{Operator, OperatorOptions, TestNamespace as Place};
use ring::hmac;
use serde_json::{Value, json};

use crate::figures::Durations;
use crate::ground::{Ground, apply, binding, deployment, model, registry, release_build, runs};
use crate::moves::{PAUSE, bare, version_of};
use crate::report::Goal;
use crate::sightings::Sightings;

const PREFIX: &str = "webhook";
const P50_GOAL: Duration = Duration::from_millis(20);
const P99_GOAL: Duration = Duration::from_millis(80);
/// What deliveries are signed with.
const KEY: &str = "only-for-measurements";
/// MLflow reads its list of webhooks anew after a minute.
const SILENCE: Duration = Duration::from_secs(90);
/// A delivery takes far less.
const HEARD: Duration = Duration::from_secs(3);

struct Stage {
    mlflow: Mlflow,
    registrar: Client,
    place: Place,
    operator: Operator,
    /// Between operator and MLflow.
    registry: Interceptor,
    sightings: Sightings,
    http: reqwest::Client,
    name: String,
}

/// One delivery.
struct Taken {
    whole: Duration,
    /// How much of it the registry was being asked.
    registry: Duration,
}

/// So many deliveries of our own, and so many of MLflow's.
pub async fn measured(ground: &Ground, own: usize, real: usize) -> Vec<Goal> {
    let mut stage = Stage::start(ground).await;
    let mut goals = stage.played(own).await;
    goals.push(stage.delivered(real).await);
    stage.end().await;
    goals
}

impl Stage {
    async fn start(ground: &Ground) -> Self {
        let mlflow = Mlflow::start(MlflowVersion::Three, willing_to_deliver())
            .await
            .unwrap();
        let registrar = Registrar::shared(MlflowVersion::Three)
            .await
            .unwrap()
            .at(&mlflow.url());
        registrar.seed(&mlflow.database(), PREFIX, 1).await.unwrap();
        let proxy = Interceptor::start(mlflow.url(), None).await.unwrap();
        let place = ground.namespace(PREFIX).await;
        let mut options = OperatorOptions::watching(release_build(), PREFIX, &[place.namespace()]);
        options.values = json!({"webhook": {"enabled": true}});
        let operator = Operator::start(&ground.control_plane, &ground.tools, &options)
            .await
            .unwrap();
        let name = format!("{PREFIX}-00000");
        let objects = [
            secret(),
            listening(&proxy.url()),
            model(&name),
            deployment(&name),
            binding(&name),
        ];
        apply(&place, objects).await;
        runs(&place, &name, "1").await;
        let sightings = Sightings::of(place.client(), place.namespace(), &name);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            mlflow,
            registrar,
            place,
            operator,
            registry: proxy,
            sightings,
            http,
            name,
        }
    }

    /// Moves that the measurement itself announces, and in between the same Deployment patched by a plain client.
    async fn played(&mut self, times: usize) -> Vec<Goal> {
        let task = Task::start(&format!("{times} webhooks delivered"), times as u64);
        let (mut taken, mut floor) = (Vec::new(), Vec::new());
        for number in 0..times {
            let version = version_of(number);
            self.registrar
                .set_alias(&self.name, "champion", version)
                .await
                .unwrap();
            tokio::time::sleep(PAUSE).await;
            taken.push(self.announced(number, version).await);
            runs(&self.place, &self.name, version).await;
            tokio::time::sleep(PAUSE).await;
            floor.push(bare(&self.place, &self.name, &mut self.sightings, number).await);
            tokio::time::sleep(PAUSE).await;
            task.advance();
        }
        task.done();
        goals(&taken, &Durations::of(floor))
    }

    /// From the sending of a delivery to the sight of the patched Deployment.
    async fn announced(&mut self, number: usize, version: &str) -> Taken {
        let delivery = self.delivery(number, version);
        let mark = self.registry.mark();
        let sent = Instant::now();
        let answer = self.http.execute(delivery).await.unwrap();
        assert!(
            answer.status().is_success(),
            "the delivery is answered {}",
            answer.status()
        );
        let patched = self.sightings.version(version).await;
        Taken {
            whole: patched - sent,
            registry: asked_until(patched, &self.registry.since(mark)),
        }
    }

    /// As MLflow sends it.
    fn delivery(&self, number: usize, version: &str) -> reqwest::Request {
        let now = jiff::Timestamp::now();
        let data = json!({"name": self.name, "alias": "champion", "version": version});
        let event = json!({"entity": "model_version_alias", "action": "created", "timestamp": now.to_string(), "data": data});
        let (id, at, body) = (
            format!("delivery-{number}"),
            now.as_second().to_string(),
            event.to_string(),
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
        let signature = STANDARD.encode(hmac::sign(&key, format!("{id}.{at}.{body}").as_bytes()));
        let request = self
            .http
            .post(self.receiver())
            .header("content-type", "application/json");
        let request = request
            .header("x-mlflow-delivery-id", id)
            .header("x-mlflow-timestamp", at);
        request
            .header("x-mlflow-signature", format!("v1,{signature}"))
            .body(body)
            .build()
            .unwrap()
    }

    fn receiver(&self) -> String {
        let address = self
            .operator
            .webhook_address()
            .expect("the chart enables webhooks");
        format!(
            "http://{address}/webhooks/{}/mlflow",
            self.place.namespace()
        )
    }

    /// Moves that MLflow announces by itself.
    async fn delivered(&mut self, times: usize) -> Goal {
        self.subscribe().await;
        let task = Task::start(
            &format!("{times} webhooks delivered by MLflow"),
            times as u64,
        );
        let mut taken = Vec::new();
        for number in 0..times {
            let version = version_of(number);
            let began = Instant::now();
            self.set_alias(version).await;
            taken.push(self.sightings.version(version).await - began);
            runs(&self.place, &self.name, version).await;
            tokio::time::sleep(PAUSE).await;
            task.advance();
        }
        task.done();
        let taken = Durations::of(taken);
        let what = "alias set in MLflow → Deployment patched, by MLflow's own webhook";
        Goal::noted(what, taken.in_milliseconds()).of_runs(taken.count())
    }

    /// Registers the webhook, and moves the alias until that is heard; ends on version 1.
    async fn subscribe(&mut self) {
        let task = Task::start(
            "a webhook registered in MLflow, waiting until it is heard",
            0,
        );
        let events = json!([{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}]);
        let webhook =
            json!({"name": "bench", "url": self.receiver(), "events": events, "secret": KEY});
        self.ask(reqwest::Method::POST, "webhooks", &webhook).await;
        let began = Instant::now();
        loop {
            assert!(
                began.elapsed() < SILENCE,
                "no delivery of MLflow's was heard within {SILENCE:?}"
            );
            self.set_alias("2").await;
            if tokio::time::timeout(HEARD, self.sightings.version("2"))
                .await
                .is_ok()
            {
                break;
            }
        }
        self.set_alias("1").await;
        runs(&self.place, &self.name, "1").await;
        task.done();
    }

    /// By one request, without what MLflow's own client does beside it.
    async fn set_alias(&self, version: &str) {
        let alias = json!({"name": self.name, "alias": "champion", "version": version});
        self.ask(reqwest::Method::POST, "registered-models/alias", &alias)
            .await;
    }

    async fn ask(&self, method: reqwest::Method, what: &str, body: &Value) {
        let url = format!("{}/api/2.0/mlflow/{what}", self.mlflow.url());
        let answer = self
            .http
            .request(method, url)
            .json(body)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        assert!(
            status.is_success(),
            "{what} is answered {status}: {}",
            answer.text().await.unwrap_or_default()
        );
    }

    async fn end(mut self) {
        self.operator.stop().unwrap();
        self.place.end().await.unwrap();
        self.mlflow.stop().await;
    }
}

/// A server that delivers to loopback, and keeps secrets with a key that outlives its workers.
fn willing_to_deliver() -> MlflowOptions {
    let variables = [
        ("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true".to_owned()),
        ("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https".to_owned()),
        (
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
            URL_SAFE.encode([7; 32]),
        ),
    ];
    MlflowOptions {
        extra_env: variables
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        ..MlflowOptions::default()
    }
}

fn secret() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "webhook"}, "stringData": {"secret": KEY}})
}

fn listening(url: &str) -> Value {
    let mut registry = registry(url, "1h");
    registry["spec"]["webhook"] =
        json!({"mode": "External", "secretRef": {"name": "webhook", "key": "secret"}});
    registry
}

/// For how long until then at least one question was unanswered. Questions come in the order in which they began.
fn asked_until(end: Instant, questions: &[Request]) -> Duration {
    let (mut sum, mut counted) = (Duration::ZERO, None);
    for question in questions.iter().filter(|question| question.at < end) {
        let answered = question.answered.unwrap_or(end).min(end);
        let from = counted.map_or(question.at, |counted| question.at.max(counted));
        sum += answered.saturating_duration_since(from);
        counted = Some(counted.map_or(answered, |counted| answered.max(counted)));
    }
    sum
}

fn goals(taken: &[Taken], floor: &Durations) -> Vec<Goal> {
    let of = |part: fn(&Taken) -> Duration| Durations::of(taken.iter().map(part).collect());
    let (whole, registry) = (of(|taken| taken.whole), of(|taken| taken.registry));
    let own = of(|taken| taken.whole.saturating_sub(taken.registry));
    let met = own.percentile(50) <= P50_GOAL && own.percentile(99) <= P99_GOAL;
    let what = "webhook received → Deployment patched, less the registry's answering time";
    let noted = |what: &str, times: &Durations| {
        Goal::noted(what, times.in_milliseconds()).of_runs(times.count())
    };
    vec![
        Goal::checked(what, "p50 ≤ 20 ms, p99 ≤ 80 ms", own.in_milliseconds(), met)
            .of_runs(own.count()),
        noted("the same with the registry's answering time", &whole),
        noted("the registry's answering time in it", &registry),
        noted(
            "floor: a plain client's own patch of that Deployment, between webhooks",
            floor,
        ),
    ]
}
