//! Webhook received → Deployment patched, with nothing else to do.
//!
//! First the benchmark sends the deliveries: it moves the alias and delivers a signed event later. The time in which a request of
//! the poll that follows was open is subtracted, as recorded by a proxy between operator and MLflow. Then MLflow delivers by
//! itself, and nothing is subtracted.
//!
//! Absent: polls by interval. It is an hour.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::progress::Task;
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{Client, Registrar};
use pointsman_env::{Operator, OperatorOptions, TestNamespace, kinds};
use ring::hmac;
use serde_json::{Value, json};

use crate::durations::{Durations, Unit};
use crate::environment::{
    Environment, TIMEOUT, apply, binding, deployment, has_condition, model, registry,
    release_build, wait_until_runs,
};
use crate::moves::{PAUSE, alternating_version, bare_patch};
use crate::observers::DeploymentObserver;
use crate::report::Measurement;

const PREFIX: &str = "webhook";
const P50_GOAL: Duration = Duration::from_millis(20);
const P99_GOAL: Duration = Duration::from_millis(80);
const SIGNING_KEY: &str = "only-for-measurements";
/// MLflow caches its list of webhooks for a minute.
const SUBSCRIPTION_TIMEOUT: Duration = Duration::from_secs(90);
/// A delivery takes far less.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(3);

/// One bound model of a registry whose deliveries the operator receives.
pub struct WebhookFixture {
    mlflow: Mlflow,
    registrar: Client,
    namespace: TestNamespace,
    /// Another namespace that the operator watches.
    neighbour: Option<TestNamespace>,
    pub operator: Operator,
    /// Between operator and MLflow.
    registry: Interceptor,
    deployment: DeploymentObserver,
    http: reqwest::Client,
    name: String,
    /// How many deliveries were made for [`WebhookFixture::move_times`].
    moves: usize,
}

/// The times of one delivery.
struct Delivery {
    total: Duration,
    /// How long a request to the registry was open.
    registry: Duration,
}

/// This many deliveries of the benchmark, and this many of MLflow.
pub async fn measure(environment: &Environment, own: usize, real: usize) -> Vec<Measurement> {
    let mut fixture = WebhookFixture::start(environment, 2).await;
    let mut measurements = fixture.measure_own_deliveries(own).await;
    measurements.push(fixture.measure_real_deliveries(real).await);
    fixture.end().await;
    measurements
}

impl WebhookFixture {
    /// The model has so many versions, and `champion` names the first.
    pub async fn start(environment: &Environment, versions: usize) -> Self {
        Self::start_beside(environment, versions, None).await
    }

    /// The same beside another namespace.
    pub async fn start_with_neighbour(environment: &Environment, name: &str) -> Self {
        let neighbour = environment.namespace(name).await;
        Self::start_beside(environment, 2, Some(neighbour)).await
    }

    async fn start_beside(
        environment: &Environment,
        versions: usize,
        neighbour: Option<TestNamespace>,
    ) -> Self {
        let task = Task::start("MLflow with webhooks and an operator", 0);
        let version = MlflowVersion::Three;
        let mlflow = Mlflow::start(version, MlflowOptions::with_webhooks())
            .await
            .unwrap();
        let registrar = Registrar::shared(version).await.unwrap().at(&mlflow.url());
        registrar
            .seed_versions(&mlflow.database(), PREFIX, 0..1, versions)
            .await
            .unwrap();
        let proxy = Interceptor::start(mlflow.url(), None).await.unwrap();
        let namespace = environment.namespace(PREFIX).await;
        let watched = neighbour.iter().chain([&namespace]);
        let namespaces: Vec<&str> = watched.map(TestNamespace::namespace).collect();
        let mut options = OperatorOptions::watching(release_build(), PREFIX, &namespaces);
        options.values = json!({"webhook": {"enabled": true}});
        let operator = Operator::start(&environment.control_plane, &environment.tools, &options)
            .await
            .unwrap();
        let name = format!("{PREFIX}-00000");
        let objects = [
            secret(),
            registry_with_webhook(&proxy.url()),
            model(&name),
            deployment(&name),
            binding(&name),
        ];
        apply(&namespace, objects).await;
        wait_until_runs(&namespace, &name, "1").await;
        task.done();
        let deployment = DeploymentObserver::new(&namespace, &name);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            mlflow,
            registrar,
            namespace,
            neighbour,
            operator,
            registry: proxy,
            deployment,
            http,
            name,
            moves: 0,
        }
    }

    /// The times of so many moves, without anything in between.
    pub async fn move_times(&mut self, moves: usize) -> Durations {
        let mut times = Vec::new();
        for _ in 0..moves {
            let version = alternating_version(self.moves);
            self.moves += 1;
            self.registrar
                .set_alias(&self.name, "champion", version)
                .await
                .unwrap();
            tokio::time::sleep(PAUSE).await;
            times.push(self.deliver(self.moves, version).await.total);
            wait_until_runs(&self.namespace, &self.name, version).await;
            tokio::time::sleep(PAUSE).await;
        }
        Durations::of(times)
    }

    /// The other namespace.
    pub fn neighbour(&self) -> &TestNamespace {
        self.neighbour.as_ref().expect("it was started with one")
    }

    /// Deletes the objects of the other namespace, and waits until they are gone.
    pub async fn remove_neighbour(&self) {
        let kinds = "aliasbindings,registeredmodels,modelregistries,deployments";
        let arguments = ["delete", kinds, "--all", "--wait"];
        self.neighbour().kubectl(&arguments).await.unwrap();
    }

    /// Registers so many models of two versions with this source.
    pub async fn seed(&self, prefix: &str, count: usize, source: &str) {
        let database = self.mlflow.database();
        self.registrar
            .seed_versions_from(&database, prefix, 0..count, 2, source)
            .await
            .unwrap();
    }

    pub fn mlflow_url(&self) -> String {
        self.mlflow.url()
    }

    /// Moves that the benchmark announces; in between a plain client patches the same Deployment.
    async fn measure_own_deliveries(&mut self, moves: usize) -> Vec<Measurement> {
        let task = Task::start(&format!("{moves} webhooks delivered"), moves as u64);
        let (mut deliveries, mut patches) = (Vec::new(), Vec::new());
        for number in 0..moves {
            let version = alternating_version(number);
            self.registrar
                .set_alias(&self.name, "champion", version)
                .await
                .unwrap();
            tokio::time::sleep(PAUSE).await;
            deliveries.push(self.deliver(number, version).await);
            wait_until_runs(&self.namespace, &self.name, version).await;
            tokio::time::sleep(PAUSE).await;
            let (namespace, name) = (&self.namespace, &self.name);
            patches.push(bare_patch(namespace, name, &mut self.deployment, number).await);
            tokio::time::sleep(PAUSE).await;
            task.advance();
        }
        task.done();
        measurements(&deliveries, &Durations::of(patches))
    }

    /// From sending a delivery to the Deployment seen patched.
    async fn deliver(&mut self, number: usize, version: &str) -> Delivery {
        let delivery = self.signed_delivery(number, version);
        let mark = self.registry.mark();
        let sent = Instant::now();
        let response = self.http.execute(delivery).await.unwrap();
        let status = response.status();
        assert!(status.is_success(), "the delivery failed with {status}");
        let patched = self.deployment.wait_for_version(version).await;
        Delivery {
            total: patched - sent,
            registry: open_until(patched, &self.registry.since(mark)),
        }
    }

    /// A delivery as MLflow sends it.
    pub fn signed_delivery(&self, number: usize, version: &str) -> reqwest::Request {
        let now = jiff::Timestamp::now();
        let event = json!({
            "entity": "model_version_alias",
            "action": "created",
            "timestamp": now.to_string(),
            "data": {"name": self.name, "alias": "champion", "version": version},
        });
        let (id, timestamp) = (format!("delivery-{number}"), now.as_second().to_string());
        let body = event.to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SIGNING_KEY.as_bytes());
        let signature = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(signature));
        self.http
            .post(self.receiver())
            .header("content-type", "application/json")
            .header("x-mlflow-delivery-id", id)
            .header("x-mlflow-timestamp", timestamp)
            .header("x-mlflow-signature", signature)
            .body(body)
            .build()
            .unwrap()
    }

    pub fn receiver(&self) -> String {
        let address = self
            .operator
            .webhook_address()
            .expect("the chart enables webhooks");
        let namespace = self.namespace.namespace();
        format!("http://{address}/webhooks/{namespace}/mlflow")
    }

    /// Moves that MLflow announces.
    async fn measure_real_deliveries(&mut self, moves: usize) -> Measurement {
        self.subscribe().await;
        let what = format!("{moves} webhooks delivered by MLflow");
        let task = Task::start(&what, moves as u64);
        let mut times = Vec::new();
        for number in 0..moves {
            let version = alternating_version(number);
            let began = Instant::now();
            self.set_alias(version).await;
            times.push(self.patched(version).await - began);
            task.advance();
        }
        task.done();
        let times = Durations::of(times);
        let name = "alias set in MLflow → Deployment patched, by MLflow's own webhook";
        Measurement::new(name, times.median_figure(Unit::Milliseconds))
            .documented()
            .of_runs(times.count())
    }

    /// Registers the webhook, and moves the alias until a delivery arrives; ends on version 1.
    pub async fn subscribe(&mut self) {
        let task = Task::start("webhook registered in MLflow, waiting for a delivery", 0);
        let events = json!([
            {"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"},
            {"entity": "MODEL_VERSION_TAG", "action": "SET"},
        ]);
        let url = self.receiver();
        let webhook = json!({"name": "bench", "url": url, "events": events, "secret": SIGNING_KEY});
        self.post("webhooks", &webhook).await;
        let began = Instant::now();
        loop {
            assert!(
                began.elapsed() < SUBSCRIPTION_TIMEOUT,
                "MLflow delivered nothing within {SUBSCRIPTION_TIMEOUT:?}"
            );
            self.set_alias("2").await;
            let patched = self.deployment.wait_for_version("2");
            if tokio::time::timeout(DELIVERY_TIMEOUT, patched)
                .await
                .is_ok()
            {
                break;
            }
        }
        self.set_alias("1").await;
        wait_until_runs(&self.namespace, &self.name, "1").await;
        task.done();
    }

    /// One request, without those that MLflow's own client sends beside it.
    pub async fn set_alias(&self, version: &str) {
        let alias = json!({"name": self.name, "alias": "champion", "version": version});
        self.post("registered-models/alias", &alias).await;
    }

    /// The same for a tag of a version.
    pub async fn set_tag(&self, version: &str, key: &str, value: &str) {
        let tag = json!({"name": self.name, "version": version, "key": key, "value": value});
        self.post("model-versions/set-tag", &tag).await;
    }

    /// Waits until the Deployment has this version and the binding is ready; returns when it was patched.
    pub async fn patched(&mut self, version: &str) -> Instant {
        let patched = self.deployment.wait_for_version(version).await;
        wait_until_runs(&self.namespace, &self.name, version).await;
        tokio::time::sleep(PAUSE).await;
        patched
    }

    /// Changes members of the binding's spec.
    pub async fn spec(&self, members: &Value) {
        let patch = json!({"spec": members});
        self.namespace
            .patch(&kinds::ALIAS_BINDING, &self.name, &patch)
            .await
            .unwrap();
    }

    /// Waits until the binding is not ready for this reason.
    pub async fn reports(&self, reason: &str) {
        let holds = |binding: &Value| {
            has_condition(binding, |condition| {
                condition["type"] == "Ready" && condition["reason"] == reason
            })
        };
        let what = format!("the binding reports {reason}");
        self.namespace
            .eventually(&what, TIMEOUT, &kinds::ALIAS_BINDING, &self.name, holds)
            .await;
        tokio::time::sleep(PAUSE).await;
    }

    async fn post(&self, route: &str, body: &Value) {
        let url = format!("{}/api/2.0/mlflow/{route}", self.mlflow.url());
        let response = self.http.post(url).json(body).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        assert!(status.is_success(), "{route} failed with {status}: {text}");
    }

    pub async fn end(mut self) {
        self.operator.stop().unwrap();
        self.namespace.end().await.unwrap();
        if let Some(neighbour) = &self.neighbour {
            neighbour.end().await.unwrap();
        }
        self.mlflow.stop().await;
    }
}

fn secret() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "webhook"},
        "stringData": {"secret": SIGNING_KEY},
    })
}

fn registry_with_webhook(url: &str) -> Value {
    let mut registry = registry(url, "1h");
    registry["spec"]["webhook"] =
        json!({"mode": "External", "secretRef": {"name": "webhook", "key": "secret"}});
    registry
}

/// How long at least one of these requests was open until then; they are sorted by their beginning.
fn open_until(end: Instant, requests: &[Request]) -> Duration {
    let mut sum = Duration::ZERO;
    let mut counted_until: Option<Instant> = None;
    for request in requests.iter().filter(|request| request.at < end) {
        let answered = request.answered.unwrap_or(end).min(end);
        let from = counted_until.map_or(request.at, |until| until.max(request.at));
        sum += answered.saturating_duration_since(from);
        counted_until = Some(counted_until.map_or(answered, |until| until.max(answered)));
    }
    sum
}

fn measurements(deliveries: &[Delivery], patches: &Durations) -> Vec<Measurement> {
    let durations =
        |part: fn(&Delivery) -> Duration| Durations::of(deliveries.iter().map(part).collect());
    let own = durations(|delivery| delivery.total.saturating_sub(delivery.registry));
    let met = own.percentile(50) <= P50_GOAL && own.percentile(99) <= P99_GOAL;
    let measurement = |name: &str, times: &Durations| {
        Measurement::new(name, times.median_figure(Unit::Milliseconds)).of_runs(times.count())
    };
    vec![
        measurement(
            "webhook received → Deployment patched, without the registry's time",
            &own,
        )
        .with_goal("p50 ≤ 20 ms, p99 ≤ 80 ms", met),
        measurement(
            "webhook received → Deployment patched",
            &durations(|delivery| delivery.total),
        ),
        measurement(
            "the registry's time in it",
            &durations(|delivery| delivery.registry),
        ),
        measurement(
            "floor: a plain client's own patch, between webhooks",
            patches,
        )
        .documented(),
    ]
}
