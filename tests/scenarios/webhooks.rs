//! Webhooks: registered, delivered, verified, handled by the leader; and the reports if one of these fails.
//!
//! Absent: polling, in most of them. The interval is an hour, so that only a delivery can have caused a rollout.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pointsman_env::certificates::OwnCertificate;
use pointsman_env::hostile::{self, HostileConnections};
use pointsman_env::interceptor::{Fault, Request, matching};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, LEASE, MODEL_REGISTRY, SECRET};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::python::MlflowVersion;
use pointsman_env::{Operator, OperatorOptions};
use reqwest::{Method, StatusCode};
use ring::hmac;
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, condition, namespace, ready_status, scenarios,
    template_version, with_webhooks,
};

scenarios!(
    a_managed_webhook_alone_rolls_out_an_alias_move,
    a_tag_lets_a_version_pass_its_gate_by_a_delivery_alone,
    deliveries_of_an_external_webhook_are_accepted,
    a_deleted_webhook_is_registered_again,
    a_changed_secret_reaches_mlflow_and_the_receiver,
    a_webhook_that_is_no_longer_declared_is_removed,
    a_failed_webhook_removal_is_reported_and_retried,
    a_private_address_refused_by_mlflow_is_reported_with_a_remedy,
    a_server_without_an_encryption_key_is_reported_and_left_unchanged,
    missing_webhook_permissions_are_reported,
    an_unreachable_receiver_is_reported,
    a_server_without_webhook_support_is_reported,
    a_webhook_without_a_listening_operator_is_reported,
    an_unreachable_registry_delays_deletion_of_its_object_by_a_minute_at_most,
    a_webhook_left_in_a_previous_server_is_reported,
    moves_without_a_delivery_are_reported,
    deliveries_without_a_valid_signature_are_refused_and_change_nothing,
    late_and_duplicate_deliveries_end_at_the_registrys_present_state,
    a_burst_of_valid_deliveries_costs_a_few_registry_requests,
    the_certificate_is_reloaded_when_its_files_change,
    a_delivery_to_a_follower_is_handled_by_the_leader,
    hostile_connections_delay_neither_probes_nor_genuine_deliveries,
);

const SIGNING: &str = "hunter2-secret-of-the-scenarios-0123456789";

/// A fixture with a webhook receiver, on an MLflow server that delivers to it.
async fn with_receiver(environment: &Arc<Environment>, name: &str) -> Fixture {
    let url = environment.mlflow_with_webhooks().await;
    with_receiver_at(environment, name, &url).await
}

async fn with_receiver_at(environment: &Arc<Environment>, name: &str, url: &str) -> Fixture {
    with_receiver_and(environment, name, url, |_| ()).await
}

async fn with_receiver_and(
    environment: &Arc<Environment>,
    name: &str,
    url: &str,
    set_up: impl FnOnce(&mut OperatorOptions),
) -> Fixture {
    let namespace = namespace(environment, name).await;
    let watched = namespace.namespace().to_owned();
    let listens = |options: &mut OperatorOptions| {
        options.values["webhook"] = json!({"enabled": true});
        set_up(options);
    };
    let fixture = Fixture::with(
        environment,
        namespace,
        MlflowVersion::Three,
        url,
        &[&watched],
        listens,
    )
    .await;
    sign_with(&fixture, SIGNING).await;
    fixture
}

async fn sign_with(fixture: &Fixture, secret: &str) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "webhook"}, "stringData": {"secret": secret}});
    fixture.namespace.apply_object(&secret).await.unwrap();
}

fn managed(fixture: &Fixture) -> Value {
    let url = format!("http://{}", fixture.operator.webhook_address().unwrap());
    json!({"interval": "1h", "webhook": {"mode": "Managed", "url": url, "secretRef": {"name": "webhook"}}})
}

fn external() -> Value {
    json!({"interval": "1h", "webhook": {"mode": "External", "secretRef": {"name": "webhook"}}})
}

/// Declares a registry with this webhook and waits until version 1 of two runs.
async fn serve_version_1(fixture: &Fixture, registry: Value) {
    fixture.register(2).await;
    fixture.alias("1").await;
    fixture.declare_registry(registry).await;
    fixture.declare_model(json!({})).await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
}

/// Waits until the condition `WebhookReady` has this reason, and returns the registry.
async fn webhook_reports(fixture: &Fixture, wanted: &str) -> Value {
    let holds = |registry: &Value| condition(registry, "WebhookReady")["reason"] == wanted;
    let description = format!("the webhook's condition says {wanted}");
    fixture
        .eventually(&description, &MODEL_REGISTRY, "mlflow", holds)
        .await
}

fn sentence(registry: &Value) -> String {
    condition(registry, "WebhookReady")["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

async fn request_refresh(fixture: &Fixture) {
    let now = Timestamp::now().to_string();
    let request = json!({"metadata": {"annotations": {"pointsman.dev/requested-at": now}}});
    fixture
        .namespace
        .patch(&MODEL_REGISTRY, "mlflow", &request)
        .await
        .unwrap();
}

async fn follows(fixture: &Fixture, version: &str) {
    let holds = |deployment: &Value| template_version(deployment) == version;
    let description = format!("the Deployment holds version {version}");
    fixture
        .namespace
        .eventually(
            &description,
            Duration::from_secs(20),
            &DEPLOYMENT,
            "server",
            holds,
        )
        .await;
}

fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

/// The webhooks of a server for this fixture's namespace.
async fn registered(fixture: &Fixture, server: &str) -> Vec<Value> {
    let answer = http()
        .get(format!("{server}/api/2.0/mlflow/webhooks"))
        .send()
        .await
        .unwrap();
    let all: Value = answer.error_for_status().unwrap().json().await.unwrap();
    let of_stage = |webhook: &&Value| {
        webhook["url"]
            .as_str()
            .unwrap()
            .contains(fixture.namespace.namespace())
    };
    all["webhooks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(of_stage)
        .cloned()
        .collect()
}

async fn delete_by_hand(server: &str, id: &str) {
    let at = format!("{server}/api/2.0/mlflow/webhooks/{id}");
    http()
        .delete(at)
        .json(&json!({}))
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
}

/// Waits until the finalizer is removed and the registry is deleted.
async fn is_gone(fixture: &Fixture) {
    let deleted = async {
        while fixture
            .namespace
            .find(&MODEL_REGISTRY, "mlflow")
            .await
            .unwrap()
            .is_some()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, deleted)
        .await
        .expect("the finalizer lets the registry go");
}

/// Deletes the registry and checks that its webhook is deleted.
async fn end(fixture: Fixture, server: &str) -> ScenarioResult {
    fixture
        .namespace
        .delete(&MODEL_REGISTRY, "mlflow")
        .await
        .unwrap();
    is_gone(&fixture).await;
    assert_eq!(
        registered(&fixture, server).await,
        Vec::<Value>::new(),
        "the webhook went with its ModelRegistry"
    );
    fixture.end().await
}

/// A delivery as MLflow sends it.
#[derive(Clone)]
struct Delivery {
    address: String,
    path: String,
    id: String,
    at: i64,
    secret: String,
    body: String,
}

impl Delivery {
    fn to(fixture: &Fixture, operator: &Operator) -> Self {
        let data = json!({"name": fixture.model, "alias": "champion", "version": "2"});
        let body = json!({"entity": "model_version_alias", "action": "created", "timestamp": "", "data": data});
        Self {
            address: format!("http://{}", operator.webhook_address().unwrap()),
            path: format!("/webhooks/{}/mlflow", fixture.namespace.namespace()),
            id: fresh_id(),
            at: Timestamp::now().as_second(),
            secret: SIGNING.to_owned(),
            body: body.to_string(),
        }
    }

    fn signature(&self) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let signature = hmac::sign(
            &key,
            format!("{}.{}.{}", self.id, self.at, self.body).as_bytes(),
        );
        format!("v1,{}", STANDARD.encode(signature))
    }

    async fn send(&self) -> StatusCode {
        self.send_signed(&self.signature()).await
    }

    async fn send_signed(&self, signature: &str) -> StatusCode {
        self.send_by(&http(), signature).await.unwrap()
    }

    async fn send_by(
        &self,
        http: &reqwest::Client,
        signature: &str,
    ) -> reqwest::Result<StatusCode> {
        Ok(self.response_by(http, signature).await?.status())
    }

    async fn response_by(
        &self,
        http: &reqwest::Client,
        signature: &str,
    ) -> reqwest::Result<reqwest::Response> {
        let request = http
            .post(format!("{}{}", self.address, self.path))
            .header("content-type", "application/json");
        let request = request
            .header("x-mlflow-delivery-id", &self.id)
            .header("x-mlflow-timestamp", self.at);
        request
            .header("x-mlflow-signature", signature)
            .body(self.body.clone())
            .send()
            .await
    }
}

/// The requests by which the operator read the model. Those for the size of a new version come some seconds after it was
/// published, and are no refresh.
fn refreshes_since(fixture: &Fixture, mark: usize) -> Vec<Request> {
    let mut requests = fixture.registry.since(mark);
    requests.retain(|request| request.path.contains("registered-models"));
    requests
}

/// Waits until half a second passes without a refresh: those of earlier deliveries have ended.
async fn refreshes_ended(fixture: &Fixture) {
    let quiet = async {
        loop {
            let mark = fixture.registry.mark();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if refreshes_since(fixture, mark).is_empty() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, quiet)
        .await
        .expect("the refreshes end");
}

fn fresh_id() -> String {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    format!(
        "delivery-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    )
}

async fn counted(operator: &Operator, outcome: &str) -> u64 {
    let text = operator.metrics().await.unwrap();
    let name = format!("pointsman_webhook_deliveries_total{{outcome=\"{outcome}\"}} ");
    text.lines()
        .find_map(|line| line.strip_prefix(&name))
        .map_or(0, |count| count.parse().unwrap())
}

/// A server of a scenario's own. One that is shared retries unreachable receivers, which other scenarios register, for seconds and
/// delays other deliveries.
async fn own_server() -> Mlflow {
    Mlflow::start(MlflowVersion::Three, with_webhooks(1))
        .await
        .unwrap()
}

async fn a_managed_webhook_alone_rolls_out_an_alias_move(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut own = own_server().await;
    let server = own.url();
    let fixture = with_receiver_at(&environment, "webhook", &server).await;
    serve_version_1(&fixture, managed(&fixture)).await;
    let registry = webhook_reports(&fixture, "WebhookSettling").await;
    assert!(
        sentence(&registry).contains("60 s"),
        "silence in the first minute is reported: {}",
        sentence(&registry)
    );
    assert_eq!(ready_status(&registry), "True");
    let webhooks = registered(&fixture, &server).await;
    assert_eq!(webhooks.len(), 1, "{webhooks:?}");
    assert_eq!(
        registry["status"]["webhook"]["id"],
        webhooks[0]["webhook_id"]
    );
    assert_eq!(registry["status"]["webhook"]["url"], webhooks[0]["url"]);
    // The server caches its list of webhooks for a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = fixture.registry.mark();
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.alias("1").await;
    fixture.runs("1").await;
    let polls = fixture.registry.since(before);
    let polls = polls
        .iter()
        .filter(|request| request.path.ends_with("registered-models/search"))
        .count();
    assert!(polls <= 4, "{polls} requests for two moves");
    assert!(counted(&fixture.operator, "accepted").await >= 2);
    let published = format!(
        "{registry}{}{}",
        fixture.operator.log(),
        fixture.operator.metrics().await.unwrap()
    );
    assert!(
        !published.contains(SIGNING),
        "the secret is published nowhere"
    );
    let result = end(fixture, &server).await;
    own.stop().await;
    result
}

async fn a_tag_lets_a_version_pass_its_gate_by_a_delivery_alone(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut own = own_server().await;
    let server = own.url();
    let fixture = with_receiver_at(&environment, "tag webhook", &server).await;
    serve_version_1(&fixture, managed(&fixture)).await;
    webhook_reports(&fixture, "WebhookSettling").await;
    let validated =
        json!({"name": "validated", "expression": "candidate.tags.validation == 'passed'"});
    fixture
        .declare_binding(json!({"promotion": {"gates": [validated]}}))
        .await;
    // The server caches its list of webhooks for a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    fixture.alias("2").await;
    let set = async |value: &str| {
        let tag = fixture
            .client
            .set_tag(&fixture.model, Some("2"), "validation", value);
        tag.await.unwrap();
    };
    fixture.reports("GateFailed").await;
    set("failed").await;
    let is_read = |binding: &Value| {
        let value = &binding["status"]["gates"][0]["values"][0]["candidate"];
        *value == "failed"
    };
    fixture
        .eventually("the tag is read", &ALIAS_BINDING, "binding", is_read)
        .await;
    set("passed").await;
    fixture.runs("2").await;
    let result = end(fixture, &server).await;
    own.stop().await;
    result
}

async fn deliveries_of_an_external_webhook_are_accepted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let server = environment.mlflow_with_webhooks().await;
    let fixture = with_receiver(&environment, "by hand").await;
    serve_version_1(&fixture, external()).await;
    let registry = webhook_reports(&fixture, "WebhookReady").await;
    assert!(
        sentence(&registry).contains("are accepted"),
        "{}",
        sentence(&registry)
    );
    let url = format!(
        "http://{}/webhooks/{}/mlflow",
        fixture.operator.webhook_address().unwrap(),
        fixture.namespace.namespace()
    );
    let body = json!({"name": "by-hand", "url": url, "secret": SIGNING, "events": [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}]});
    let made = http()
        .post(format!("{server}/api/2.0/mlflow/webhooks"))
        .json(&body)
        .send()
        .await
        .unwrap();
    let made: Value = made.error_for_status().unwrap().json().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let registry = fixture
        .namespace
        .get(&MODEL_REGISTRY, "mlflow")
        .await
        .unwrap();
    assert_eq!(registry["status"]["webhook"], Value::Null, "it is not ours");
    assert_eq!(registry["metadata"]["finalizers"], Value::Null);
    let id = made["webhook"]["webhook_id"].as_str().unwrap();
    delete_by_hand(&server, id).await;
    end(fixture, &server).await
}

async fn a_deleted_webhook_is_registered_again(environment: Arc<Environment>) -> ScenarioResult {
    let server = environment.mlflow_with_webhooks().await;
    let fixture = with_receiver(&environment, "healed").await;
    serve_version_1(&fixture, managed(&fixture)).await;
    let registry = webhook_reports(&fixture, "WebhookSettling").await;
    let id = registry["status"]["webhook"]["id"].as_str().unwrap();
    let at = format!("{server}/api/2.0/mlflow/webhooks");
    delete_by_hand(&server, id).await;
    request_refresh(&fixture).await;
    let is_another = |registry: &Value| {
        !registry["status"]["webhook"]["id"].is_null() && registry["status"]["webhook"]["id"] != id
    };
    let registry = fixture
        .eventually(
            "it is registered again",
            &MODEL_REGISTRY,
            "mlflow",
            is_another,
        )
        .await;
    // Disabled and duplicated by hand: one remains, and it is active.
    let id = registry["status"]["webhook"]["id"].as_str().unwrap();
    let off = http()
        .patch(format!("{at}/{id}"))
        .json(&json!({"status": "DISABLED"}))
        .send()
        .await;
    off.unwrap().error_for_status().unwrap();
    let mut duplicate = registered(&fixture, &server).await.remove(0);
    duplicate["secret"] = json!("another");
    http()
        .post(&at)
        .json(&duplicate)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    request_refresh(&fixture).await;
    let healed = async {
        loop {
            let webhooks = registered(&fixture, &server).await;
            if webhooks.len() == 1 && webhooks[0]["status"] == "ACTIVE" {
                return webhooks;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let webhooks = tokio::time::timeout(PATIENCE, healed)
        .await
        .expect("one remains, and it is active");
    assert_eq!(
        webhooks[0]["webhook_id"], id,
        "the webhook of the status remains"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    end(fixture, &server).await
}

async fn a_changed_secret_reaches_mlflow_and_the_receiver(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let server = environment.mlflow_with_webhooks().await;
    let mut fixture = with_receiver(&environment, "rotated").await;
    serve_version_1(&fixture, managed(&fixture)).await;
    webhook_reports(&fixture, "WebhookSettling").await;
    let id = fixture
        .namespace
        .get(&MODEL_REGISTRY, "mlflow")
        .await
        .unwrap()["status"]["webhook"]["id"]
        .clone();
    // Changed while the operator is stopped, so that it cannot remember the old secret; MLflow's test delivery shows the difference.
    fixture.operator.stop().unwrap();
    sign_with(&fixture, "hunter2-another-of-the-scenarios").await;
    fixture.operator.start_again().await.unwrap();
    webhook_reports(&fixture, "WebhookSettling").await;
    let reported = async {
        while counted(&fixture.operator, "accepted").await == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reported)
        .await
        .expect("an example arrives that is signed with the new secret");
    tokio::time::sleep(Duration::from_secs(2)).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    // Then changed while it runs.
    let accepted = counted(&fixture.operator, "accepted").await;
    sign_with(&fixture, "hunter2-third-of-the-scenarios").await;
    request_refresh(&fixture).await;
    let reported = async {
        while counted(&fixture.operator, "accepted").await == accepted {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reported)
        .await
        .expect("the third secret is proven, too");
    tokio::time::sleep(Duration::from_secs(2)).await;
    fixture.alias("1").await;
    fixture.runs("1").await;
    let registry = fixture
        .namespace
        .get(&MODEL_REGISTRY, "mlflow")
        .await
        .unwrap();
    assert_eq!(
        registry["status"]["webhook"]["id"], id,
        "it is still the same webhook"
    );
    end(fixture, &server).await
}

async fn a_webhook_that_is_no_longer_declared_is_removed(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let server = environment.mlflow_with_webhooks().await;
    let fixture = with_receiver(&environment, "off").await;
    serve_version_1(&fixture, managed(&fixture)).await;
    webhook_reports(&fixture, "WebhookSettling").await;
    fixture
        .declare_registry(json!({"interval": "1h", "webhook": {"mode": "Disabled"}}))
        .await;
    nothing_is_left(&fixture).await;
    assert_eq!(registered(&fixture, &server).await, Vec::<Value>::new());
    assert_eq!(
        Delivery::to(&fixture, &fixture.operator).send().await,
        StatusCode::UNAUTHORIZED
    );
    end(fixture, &server).await
}

/// Waits until neither the status nor the finalizers mention a webhook.
async fn nothing_is_left(fixture: &Fixture) {
    let is_clean = |registry: &Value| {
        registry["status"]["webhook"].is_null()
            && registry["metadata"]["finalizers"].is_null()
            && condition(registry, "WebhookReady").is_null()
    };
    fixture
        .eventually("nothing is left of it", &MODEL_REGISTRY, "mlflow", is_clean)
        .await;
}

async fn a_failed_webhook_removal_is_reported_and_retried(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let server = environment.mlflow_with_webhooks().await;
    let fixture = with_receiver(&environment, "stays").await;
    fixture.declare_registry(managed(&fixture)).await;
    webhook_reports(&fixture, "WebhookSettling").await;
    let deletions = matching::request(Method::DELETE, "mlflow/webhooks");
    let ill = fixture
        .registry
        .inject(deletions, Fault::json(503, "{}"), None);
    fixture
        .declare_registry(json!({"interval": "1h", "webhook": {"mode": "Disabled"}}))
        .await;
    let registry = webhook_reports(&fixture, "RegistryUnreachable").await;
    assert!(
        sentence(&registry).contains("no longer wanted"),
        "{}",
        sentence(&registry)
    );
    assert_ne!(
        registry["status"]["webhook"],
        Value::Null,
        "the webhook that is left is recorded"
    );
    assert_eq!(registered(&fixture, &server).await.len(), 1);
    // The removal of the finalizer gets a conflict: the retry does not wait for the interval.
    let conflict = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409, "message": "changed"});
    let writes = matching::request(Method::PATCH, "modelregistries/mlflow");
    fixture
        .api
        .inject(writes, Fault::json(409, conflict.to_string()), Some(1));
    fixture.registry.remove(ill);
    request_refresh(&fixture).await;
    nothing_is_left(&fixture).await;
    end(fixture, &server).await
}

async fn a_private_address_refused_by_mlflow_is_reported_with_a_remedy(
    environment: Arc<Environment>,
) -> ScenarioResult {
    // The shared server runs with MLflow's defaults.
    let fixture = with_receiver_at(
        &environment,
        "private",
        &environment.mlflow(MlflowVersion::Three).await,
    )
    .await;
    serve_version_1(&fixture, managed(&fixture)).await;
    let registry = webhook_reports(&fixture, "WebhookAddressRefused").await;
    let message = sentence(&registry);
    assert!(
        message.contains("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true"),
        "{message}"
    );
    assert!(
        message.contains("MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https"),
        "{message}"
    );
    assert_eq!(ready_status(&registry), "True", "polling goes on");
    let server = environment.mlflow(MlflowVersion::Three).await;
    end(fixture, &server).await
}

async fn a_server_without_an_encryption_key_is_reported_and_left_unchanged(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut options = with_webhooks(3);
    options
        .extra_env
        .retain(|(name, _)| name != "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY");
    let mut server = Mlflow::start(MlflowVersion::Three, options).await.unwrap();
    let fixture = with_receiver_at(&environment, "no key", &server.url()).await;
    serve_version_1(&fixture, managed(&fixture)).await;
    let registry = webhook_reports(&fixture, "WebhookKeyMissing").await;
    let message = sentence(&registry);
    assert!(
        message.contains("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"),
        "{message}"
    );
    assert_eq!(ready_status(&registry), "True", "polling goes on");
    // The broken webhook would stop the deliveries of others, too.
    assert_eq!(registry["status"]["webhook"], Value::Null);
    for _ in 0..6 {
        assert_eq!(
            registered(&fixture, &server.url()).await,
            Vec::<Value>::new()
        );
    }
    let url = server.url();
    let result = end(fixture, &url).await;
    server.stop().await;
    result
}

async fn missing_webhook_permissions_are_reported(environment: Arc<Environment>) -> ScenarioResult {
    let (admin, password) = ("admin", "hunter2-password-of-the-scenarios");
    let options = MlflowOptions {
        basic_auth: Some((admin.to_owned(), password.to_owned())),
        ..with_webhooks(1)
    };
    let mut server = Mlflow::start(MlflowVersion::Three, options).await.unwrap();
    let user = json!({"username": "reader", "password": "hunter2-reader-of-the-scenarios"});
    let made = http().post(format!("{}/api/2.0/mlflow/users/create", server.url()));
    made.basic_auth(admin, Some(password))
        .json(&user)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    let fixture = with_receiver_at(&environment, "no admin", &server.url()).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mlflow"}, "stringData": user});
    fixture.namespace.create(&SECRET, &secret).await.unwrap();
    let mut registry = managed(&fixture);
    registry["auth"] = json!({"basic": {"secretRef": {"name": "mlflow"}}});
    fixture.declare_registry(registry).await;
    let registry = webhook_reports(&fixture, "WebhookRefused").await;
    assert!(
        sentence(&registry).contains("administrator of MLflow"),
        "{}",
        sentence(&registry)
    );
    assert_eq!(ready_status(&registry), "True", "polling goes on");
    let result = fixture.end().await;
    server.stop().await;
    result
}

async fn an_unreachable_receiver_is_reported(environment: Arc<Environment>) -> ScenarioResult {
    let server = environment.mlflow_with_webhooks().await;
    let fixture = with_receiver(&environment, "nowhere").await;
    let mut registry = managed(&fixture);
    registry["webhook"]["url"] = json!("http://127.0.0.1:9");
    serve_version_1(&fixture, registry).await;
    let registry = webhook_reports(&fixture, "WebhookUnreachable").await;
    assert!(
        sentence(&registry).contains("MLflow cannot deliver to http://127.0.0.1:9/webhooks/"),
        "{}",
        sentence(&registry)
    );
    assert_eq!(ready_status(&registry), "True", "polling goes on");
    // After a correction it has the right address and the same id.
    let id = registry["status"]["webhook"]["id"].clone();
    fixture.declare_registry(managed(&fixture)).await;
    let registry = webhook_reports(&fixture, "WebhookSettling").await;
    assert_eq!(registry["status"]["webhook"]["id"], id);
    end(fixture, &server).await
}

async fn a_server_without_webhook_support_is_reported(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let url = environment.mlflow(MlflowVersion::Two).await;
    let namespace = namespace(&environment, "mlflow two").await;
    let watched = namespace.namespace().to_owned();
    let listens =
        |options: &mut OperatorOptions| options.values["webhook"] = json!({"enabled": true});
    let fixture = Fixture::with(
        &environment,
        namespace,
        MlflowVersion::Two,
        &url,
        &[&watched],
        listens,
    )
    .await;
    sign_with(&fixture, SIGNING).await;
    serve_version_1(&fixture, managed(&fixture)).await;
    let registry = webhook_reports(&fixture, "WebhookUnsupported").await;
    assert!(
        sentence(&registry).contains("from 3.3 on"),
        "{}",
        sentence(&registry)
    );
    assert_eq!(ready_status(&registry), "True", "polling goes on");
    // Without a webhook to remove, the object is deleted.
    fixture
        .namespace
        .delete(&MODEL_REGISTRY, "mlflow")
        .await
        .unwrap();
    is_gone(&fixture).await;
    fixture.end().await
}

async fn a_webhook_without_a_listening_operator_is_reported(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let url = environment.mlflow_with_webhooks().await;
    let fixture = Fixture::at(&environment, "deaf", MlflowVersion::Three, &url).await;
    sign_with(&fixture, SIGNING).await;
    let webhook =
        json!({"mode": "Managed", "url": "http://127.0.0.1:9", "secretRef": {"name": "webhook"}});
    serve_version_1(&fixture, json!({"interval": "1h", "webhook": webhook})).await;
    let registry = webhook_reports(&fixture, "WebhookNotServed").await;
    assert!(
        sentence(&registry).contains("webhook.enabled in the chart"),
        "{}",
        sentence(&registry)
    );
    assert_eq!(ready_status(&registry), "True", "polling goes on");
    end(fixture, &url).await
}

async fn an_unreachable_registry_delays_deletion_of_its_object_by_a_minute_at_most(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_receiver(&environment, "left behind").await;
    serve_version_1(&fixture, managed(&fixture)).await;
    let registry = webhook_reports(&fixture, "WebhookSettling").await;
    fixture.registry.refuse().await;
    fixture
        .namespace
        .delete(&MODEL_REGISTRY, "mlflow")
        .await
        .unwrap();
    let deleted = std::time::Instant::now();
    is_gone(&fixture).await;
    assert!(
        deleted.elapsed() > Duration::from_secs(50),
        "gone after {:?}",
        deleted.elapsed()
    );
    let events = fixture.namespace.events_about("mlflow").await.unwrap();
    let id = registry["status"]["webhook"]["id"].as_str().unwrap();
    let is_named =
        |(_, note): &(String, String)| note.contains("stays behind") && note.contains(id);
    assert!(events.iter().any(is_named), "{events:?}");
    assert_eq!(
        template_version(&fixture.deployment().await),
        "1",
        "the workload is unchanged"
    );
    delete_by_hand(&environment.mlflow_with_webhooks().await, id).await;
    fixture.end().await
}

async fn a_webhook_left_in_a_previous_server_is_reported(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let before = environment.mlflow_with_webhooks().await;
    let mut own = own_server().await;
    let now = own.url();
    let fixture = with_receiver(&environment, "moved").await;
    fixture.declare_registry(managed(&fixture)).await;
    let registry = webhook_reports(&fixture, "WebhookSettling").await;
    assert_eq!(
        registry["status"]["webhook"]["server"],
        fixture.registry.url()
    );
    let left = registry["status"]["webhook"]["id"].as_str().unwrap();
    let mut elsewhere = managed(&fixture);
    elsewhere["mlflow"] = json!({"uri": now});
    fixture.declare_registry(elsewhere).await;
    let is_there = |registry: &Value| registry["status"]["webhook"]["server"] == now.as_str();
    let description = "it is registered in the present server";
    let registry = fixture
        .eventually(description, &MODEL_REGISTRY, "mlflow", is_there)
        .await;
    assert_eq!(
        registry["status"]["webhook"]["id"],
        registered(&fixture, &now).await[0]["webhook_id"]
    );
    let is_named = |(reason, note): &(String, String)| {
        reason == "WebhookLeftBehind"
            && note.contains(left)
            && note.contains(&fixture.registry.url())
    };
    let reported = async {
        while !fixture
            .namespace
            .events_about("mlflow")
            .await
            .unwrap()
            .iter()
            .any(is_named)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reported)
        .await
        .expect("an Event names the webhook that stays, and where");
    delete_by_hand(&before, left).await;
    let result = end(fixture, &now).await;
    own.stop().await;
    result
}

async fn moves_without_a_delivery_are_reported(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = with_receiver(&environment, "silent").await;
    let mut registry = external();
    registry["interval"] = json!("1s");
    serve_version_1(&fixture, registry).await;
    webhook_reports(&fixture, "WebhookReady").await;
    fixture.polled_twice().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let registry = webhook_reports(&fixture, "WebhookSilent").await;
    assert!(
        sentence(&registry).contains("Failed to deliver webhook"),
        "{}",
        sentence(&registry)
    );
    assert_eq!(ready_status(&registry), "True");
    assert_eq!(
        Delivery::to(&fixture, &fixture.operator).send().await,
        StatusCode::OK
    );
    webhook_reports(&fixture, "WebhookReady").await;
    let server = environment.mlflow_with_webhooks().await;
    end(fixture, &server).await
}

/// Copies of a valid delivery with one change each: the outcome that is counted, and the response.
fn refused_deliveries(valid: &Delivery) -> Vec<(&'static str, StatusCode, Delivery)> {
    let altered = |change: fn(&mut Delivery)| {
        let mut delivery = Delivery {
            id: fresh_id(),
            ..valid.clone()
        };
        change(&mut delivery);
        delivery
    };
    let forged = altered(|delivery| "forged".clone_into(&mut delivery.secret));
    let no_secret = altered(|delivery| delivery.secret = String::new());
    let too_old = altered(|delivery| delivery.at -= 301);
    let too_new = altered(|delivery| delivery.at += 330);
    let bad_id = altered(|delivery| "a.b".clone_into(&mut delivery.id));
    let bad_body = altered(|delivery| "{}".clone_into(&mut delivery.body));
    let too_large = altered(|delivery| delivery.body = " ".repeat((64 << 10) + 1));
    let unknown = altered(|delivery| delivery.path += "-another");
    vec![
        ("bad_signature", StatusCode::UNAUTHORIZED, forged),
        ("bad_signature", StatusCode::UNAUTHORIZED, no_secret),
        ("old", StatusCode::BAD_REQUEST, too_old),
        ("old", StatusCode::BAD_REQUEST, too_new),
        ("malformed", StatusCode::BAD_REQUEST, bad_id),
        ("malformed", StatusCode::BAD_REQUEST, bad_body),
        ("too_large", StatusCode::PAYLOAD_TOO_LARGE, too_large),
        ("unknown_registry", StatusCode::UNAUTHORIZED, unknown),
    ]
}

/// A signature is valid for one body, id and time only.
async fn assert_altered_deliveries_are_refused(valid: &Delivery) {
    let signature = valid.signature();
    let other_body = Delivery {
        body: valid.body.replace("champion", "champion "),
        ..valid.clone()
    };
    let other_id = Delivery {
        id: fresh_id(),
        ..valid.clone()
    };
    let other_time = Delivery {
        at: valid.at + 1,
        ..valid.clone()
    };
    for altered in [other_body, other_id, other_time] {
        let status = altered.send_signed(&signature).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
}

/// Nobody without the Secret learns which registries there are.
async fn assert_unknown_registries_look_like_known_ones(valid: &Delivery) {
    let forged = Delivery {
        id: fresh_id(),
        secret: "forged".to_owned(),
        ..valid.clone()
    };
    let unknown = Delivery {
        path: format!("{}-another", valid.path),
        ..forged.clone()
    };
    let mut responses = Vec::new();
    for delivery in [forged, unknown] {
        let response = delivery.response_by(&http(), &delivery.signature()).await;
        let response = response.unwrap();
        let (status, mut headers) = (response.status(), response.headers().clone());
        headers.remove("date");
        responses.push((status, headers, response.text().await.unwrap()));
    }
    assert_eq!(responses[0], responses[1]);
}

async fn deliveries_without_a_valid_signature_are_refused_and_change_nothing(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_receiver(&environment, "forged").await;
    serve_version_1(&fixture, external()).await;
    webhook_reports(&fixture, "WebhookReady").await;
    fixture.alias("2").await;
    let valid = Delivery::to(&fixture, &fixture.operator);
    let mark = fixture.registry.mark();
    for (outcome, status, delivery) in refused_deliveries(&valid) {
        let before = counted(&fixture.operator, outcome).await;
        assert_eq!(delivery.send().await, status, "{outcome}");
        assert_eq!(
            counted(&fixture.operator, outcome).await,
            before + 1,
            "{outcome}"
        );
    }
    assert_altered_deliveries_are_refused(&valid).await;
    assert_unknown_registries_look_like_known_ones(&valid).await;
    let requests = refreshes_since(&fixture, mark);
    assert!(requests.is_empty(), "{requests:?}");
    assert_eq!(template_version(&fixture.deployment().await), "1");
    // The valid delivery is accepted once.
    assert_eq!(valid.send().await, StatusCode::OK);
    fixture.runs("2").await;
    refreshes_ended(&fixture).await;
    let mark = fixture.registry.mark();
    assert_eq!(
        valid.send().await,
        StatusCode::OK,
        "MLflow repeats a delivery whose response was lost"
    );
    assert_eq!(counted(&fixture.operator, "repeated").await, 1);
    assert_eq!(counted(&fixture.operator, "accepted").await, 1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let requests = refreshes_since(&fixture, mark);
    assert!(
        requests.is_empty(),
        "a repeated delivery causes no request: {requests:?}"
    );
    let log = fixture.operator.log();
    assert!(
        log.contains("refused a delivery that is not signed") && !log.contains(SIGNING),
        "{log}"
    );
    let server = environment.mlflow_with_webhooks().await;
    end(fixture, &server).await
}

async fn late_and_duplicate_deliveries_end_at_the_registrys_present_state(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_receiver(&environment, "late").await;
    serve_version_1(&fixture, external()).await;
    fixture.alias("2").await;
    let first = Delivery::to(&fixture, &fixture.operator);
    let late = Delivery {
        id: fresh_id(),
        body: first.body.replace("\"2\"", "\"1\""),
        ..first.clone()
    };
    let deleted = Delivery {
        id: fresh_id(),
        body: first.body.replace("created", "deleted"),
        ..first.clone()
    };
    let doubled = Delivery {
        id: fresh_id(),
        ..first.clone()
    };
    for delivery in [
        first,
        late.clone(),
        doubled,
        deleted,
        Delivery {
            id: fresh_id(),
            ..late
        },
    ] {
        assert_eq!(delivery.send().await, StatusCode::OK);
    }
    fixture.runs("2").await;
    let binding = fixture.binding().await;
    let history: Vec<_> = binding["status"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["version"])
        .collect();
    assert_eq!(history.len(), 2, "{history:?}");
    refreshes_ended(&fixture).await;
    // An event about an unknown model, and MLflow's example event, enqueue nothing.
    let mark = fixture.registry.mark();
    for name in ["example_model", "another"] {
        let mut example = Delivery::to(&fixture, &fixture.operator);
        example.body = example.body.replace(&fixture.model, name);
        assert_eq!(example.send().await, StatusCode::OK);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let requests = refreshes_since(&fixture, mark);
    assert!(requests.is_empty(), "{requests:?}");
    let server = environment.mlflow_with_webhooks().await;
    end(fixture, &server).await
}

async fn a_burst_of_valid_deliveries_costs_a_few_registry_requests(
    environment: Arc<Environment>,
) -> ScenarioResult {
    const BURST: usize = 1000;
    let fixture = with_receiver(&environment, "burst").await;
    serve_version_1(&fixture, external()).await;
    fixture.alias("2").await;
    let mark = fixture.registry.mark();
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .unwrap();
    let deliveries = (0..BURST).map(|_| Delivery::to(&fixture, &fixture.operator));
    let sent = futures::stream::StreamExt::buffer_unordered(
        futures::stream::iter(deliveries.map(|delivery| {
            let http = http.clone();
            async move { delivery.send_by(&http, &delivery.signature()).await }
        })),
        40,
    );
    let answers: Vec<_> = futures::stream::StreamExt::collect(sent).await;
    let accepted = answers
        .iter()
        .filter(|answer| matches!(answer, Ok(StatusCode::OK)))
        .count();
    assert_eq!(
        accepted,
        BURST,
        "{:?}",
        answers
            .iter()
            .find(|answer| !matches!(answer, Ok(StatusCode::OK)))
    );
    fixture.runs("2").await;
    let requests = fixture.registry.since(mark).len();
    assert!(
        requests < BURST / 4,
        "{requests} requests for {BURST} deliveries"
    );
    let server = environment.mlflow_with_webhooks().await;
    end(fixture, &server).await
}

async fn the_certificate_is_reloaded_when_its_files_change(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let folder = environment
        .cluster()
        .await
        .control_plane
        .folder()
        .join("webhook-tls");
    std::fs::create_dir_all(&folder).unwrap();
    let url = environment.mlflow_with_webhooks().await;
    let fixture = with_receiver_and(&environment, "tls", &url, |options| {
        options.values["webhook"] = json!({"enabled": true, "tls": {"secretName": "webhook-tls"}});
        options.webhook_tls_folder = Some(folder.clone());
    })
    .await;
    serve_version_1(&fixture, external()).await;
    let mut delivery = Delivery::to(&fixture, &fixture.operator);
    delivery.address = delivery.address.replace("http://", "https://");
    let first = OwnCertificate::create().unwrap();
    let second = OwnCertificate::create().unwrap();
    assert!(
        !is_served(&delivery, &first).await,
        "there is no certificate yet"
    );
    for own in [&first, &second] {
        std::fs::write(folder.join("tls.crt"), &own.certificate).unwrap();
        std::fs::write(folder.join("tls.key"), &own.key).unwrap();
        await_served(&delivery, own).await;
    }
    assert!(
        !is_served(&delivery, &first).await,
        "the old certificate is served no longer"
    );
    // An unusable certificate is reported, and the previous one stays in use.
    std::fs::write(folder.join("tls.key"), &first.key).unwrap();
    let reported = async {
        while !fixture
            .operator
            .log()
            .contains("certificate cannot be used; the previous one stays in use")
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reported)
        .await
        .expect("a key that does not belong to the certificate is reported");
    let last = Delivery {
        id: fresh_id(),
        ..delivery
    };
    assert_eq!(
        last.send_by(&trusting(&second), &last.signature())
            .await
            .unwrap(),
        StatusCode::OK
    );
    end(fixture, &url).await
}

/// A client that trusts this certificate's authority only.
fn trusting(own: &OwnCertificate) -> reqwest::Client {
    let authority = reqwest::Certificate::from_pem(own.authority.as_bytes()).unwrap();
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .tls_certs_only([authority])
        .build()
        .unwrap()
}

/// Whether the receiver serves this certificate.
async fn is_served(delivery: &Delivery, own: &OwnCertificate) -> bool {
    delivery
        .send_by(&trusting(own), &delivery.signature())
        .await
        .is_ok()
}

async fn await_served(delivery: &Delivery, own: &OwnCertificate) {
    let served = async {
        while !is_served(delivery, own).await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served)
        .await
        .expect("the new certificate is served");
}

async fn a_delivery_to_a_follower_is_handled_by_the_leader(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = with_receiver(&environment, "by the leader").await;
    serve_version_1(&fixture, external()).await;
    let values = json!({"replicas": 2, "leaseSeconds": 5, "webhook": {"enabled": true}});
    let mut replicas = fixture.replicas(&environment, 2, values).await;
    let (follower, mut leader) = (replicas.pop().unwrap(), replicas.pop().unwrap());
    let name = fixture.namespace.namespace().to_owned();
    let is_held = |lease: &Value| lease["spec"]["holderIdentity"] == format!("{name}-1");
    let lease = fixture
        .eventually("the first leads", &LEASE, &name, is_held)
        .await;
    let address = leader.health_address();
    assert_eq!(
        lease["metadata"]["annotations"]["pointsman.dev/address"],
        address
    );
    fixture.alias("2").await;
    let delivery = Delivery::to(&fixture, &follower);
    let forwarded = async {
        // The follower may not have read the Lease yet; MLflow retries, too.
        while delivery.send().await == StatusCode::SERVICE_UNAVAILABLE {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forwarded)
        .await
        .expect("the delivery is handed on");
    follows(&fixture, "2").await;
    assert_eq!(counted(&follower, "forwarded").await, 1);
    assert_eq!(counted(&leader, "accepted").await, 1);
    // A delivery on the health port is not forwarded again, to avoid a loop.
    let mut looped = Delivery::to(&fixture, &follower);
    looped.address = format!("http://{}", follower.health_address());
    assert_eq!(looped.send().await, StatusCode::SERVICE_UNAVAILABLE);
    // The health port checks signatures, too.
    let mut forged = Delivery::to(&fixture, &leader);
    forged.address = format!("http://{}", leader.health_address());
    "forged".clone_into(&mut forged.secret);
    assert_eq!(forged.send().await, StatusCode::UNAUTHORIZED);
    // Without a leader to forward to, the response makes MLflow retry.
    leader.freeze().unwrap();
    let unheard = Delivery::to(&fixture, &follower);
    assert_eq!(unheard.send().await, StatusCode::SERVICE_UNAVAILABLE);
    leader.kill().unwrap();
    fixture.alias("1").await;
    let handled = async {
        while unheard.send().await != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, handled)
        .await
        .expect("the same delivery is accepted once the other replica leads");
    follows(&fixture, "1").await;
    fixture.operator = follower;
    let server = environment.mlflow_with_webhooks().await;
    end(fixture, &server).await
}

/// Sends forged deliveries from another address, eight at a time, until it is dropped.
fn forge(valid: &Delivery) -> tokio::task::JoinSet<()> {
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let forged = Delivery {
            secret: "forged".to_owned(),
            ..valid.clone()
        };
        senders.spawn(async move {
            let http = reqwest::Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(0)
                .local_address(std::net::IpAddr::from(hostile::PEER));
            let (http, signature) = (http.build().unwrap(), forged.signature());
            loop {
                // The server may close the connection for another one.
                let _refused = forged.send_by(&http, &signature).await;
            }
        });
    }
    senders
}

async fn hostile_connections_delay_neither_probes_nor_genuine_deliveries(
    environment: Arc<Environment>,
) -> ScenarioResult {
    const CONNECTIONS: usize = 450;
    // For a debug build, whose tasks are larger; `make bench` measures the release build against 20 MB.
    const MOST_GROWTH: u64 = 26_000_000;
    let fixture = with_receiver(&environment, "crowded").await;
    serve_version_1(&fixture, external()).await;
    webhook_reports(&fixture, "WebhookReady").await;
    let operator = &fixture.operator;
    let before = operator.resident_bytes().unwrap();
    let valid = Delivery::to(&fixture, operator);
    let ports = [
        operator.health_address(),
        operator.webhook_address().unwrap(),
    ];
    let senders = ports.map(|port| {
        let address = port.parse().unwrap();
        HostileConnections::start(address, &valid.path, CONNECTIONS)
    });
    let forged = forge(&valid);
    let all_open = async {
        while senders.iter().any(|each| each.opened() < CONNECTIONS) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_open)
        .await
        .expect("connections are accepted");
    let probe = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(5));
    let probe = probe.build().unwrap();
    for _ in 0..50 {
        let health = probe.get(format!("http://{}/healthz", ports[0]));
        assert_eq!(health.send().await.unwrap().status(), StatusCode::OK);
        let delivery = Delivery {
            id: fresh_id(),
            ..valid.clone()
        };
        assert_eq!(delivery.send().await, StatusCode::OK);
    }
    let grown = operator.resident_bytes().unwrap().saturating_sub(before);
    assert!(grown <= MOST_GROWTH, "{grown} bytes");
    fixture.alias("2").await;
    let announced = Delivery {
        id: fresh_id(),
        ..valid
    };
    assert_eq!(announced.send().await, StatusCode::OK);
    fixture.runs("2").await;
    drop((senders, forged));
    let server = environment.mlflow_with_webhooks().await;
    end(fixture, &server).await
}
