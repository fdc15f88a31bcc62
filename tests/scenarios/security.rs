//! Addresses that requests for tenants do not go to, and who may read the metrics.
//!
//! Absent: credentials (`tenants`, `outage`), and memory (`hostile`).

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::interceptor::Interceptor;
use pointsman_env::kinds::MODEL_REGISTRY;
use pointsman_env::resources;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, ready_message, ready_status, scenarios,
};

scenarios!(
    no_request_goes_to_this_machine_the_api_server_or_metadata_unless_it_is_allowed,
    metrics_are_only_for_those_whose_token_allows_them,
);

async fn no_request_goes_to_this_machine_the_api_server_or_metadata_unless_it_is_allowed(
    environment: Arc<Environment>,
) -> ScenarioResult {
    // Another address of loopback is allowed: a guard that refuses everything would pass otherwise.
    let values = json!({"network": {"allow": ["127.0.0.0/8"], "deny": ["127.0.0.3/32"]}});
    let allowed = Fixture::with_values(&environment, "allowed networks", values).await;
    let values = json!({"network": {"allow": []}});
    let guarded = Fixture::with_values(&environment, "guarded networks", values).await;
    let target = Interceptor::start(allowed.registry.url(), None)
        .await
        .unwrap();
    let port = target.url().rsplit_once(':').unwrap().1.to_owned();
    allowed.declare().await;
    allowed.registry_reports("Reachable").await;
    let refused = |registry: &Value| ready_status(registry) == "False";
    let addresses = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        "http://169.254.169.254/".to_owned(),
        "http://[fd20:ce::254]/".to_owned(),
        "http://168.63.129.16/".to_owned(),
    ];
    for (number, address) in addresses.iter().enumerate() {
        let name = format!("registry-{number}");
        let spec = json!({"mlflow": {"uri": address}, "interval": "1s"});
        let registry = resources::object(&MODEL_REGISTRY, &name, &spec);
        guarded.apply_object(registry).await;
        let told = guarded
            .eventually(
                &format!("{address} is refused"),
                &MODEL_REGISTRY,
                &name,
                refused,
            )
            .await;
        let message = ready_message(&told);
        assert!(message.contains("address"), "{address}: {message}");
    }
    assert_eq!(target.since(0).len(), 0, "no request came");
    let denied = allowed.registry.url().replace("127.0.0.1", "127.0.0.3");
    let spec = json!({"mlflow": {"uri": denied}, "interval": "1s"});
    let registry = resources::object(&MODEL_REGISTRY, "denied", &spec);
    allowed.apply_object(registry).await;
    allowed
        .eventually("it is denied", &MODEL_REGISTRY, "denied", refused)
        .await;
    guarded.end().await?;
    allowed.end().await
}

/// The status of the response to a reader with this token.
async fn status_for(fixture: &Fixture, token: Option<&str>) -> StatusCode {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/metrics", fixture.operator.health_address());
    let mut request = client.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap().status()
}

/// The name of the chart's role for readers of metrics.
async fn metrics_reader(fixture: &Fixture) -> String {
    let release = format!(
        "app.kubernetes.io/instance={}",
        fixture.namespace.namespace()
    );
    let arguments = ["get", "clusterroles", "-l", &release, "-o", "name"];
    let names = fixture.namespace.kubectl(&arguments).await.unwrap();
    let is_it = |name: &&str| name.ends_with("-metrics-reader");
    let name = names.lines().find(is_it).expect("the chart has the role");
    name.rsplit_once('/').unwrap().1.to_owned()
}

async fn metrics_are_only_for_those_whose_token_allows_them(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let values = json!({"metrics": {"authentication": true}});
    let fixture = Fixture::with_values(&environment, "private metrics", values).await;
    let own = fixture.namespace.namespace();
    let plane = fixture.namespace.control_plane();
    for account in ["prometheus", "somebody"] {
        let create = ["create", "serviceaccount", account];
        fixture.namespace.kubectl(&create).await.unwrap();
    }
    let role = format!("--clusterrole={}", metrics_reader(&fixture).await);
    let account = format!("--serviceaccount={own}:prometheus");
    let binding = format!("{own}-metrics");
    let grant = ["create", "clusterrolebinding", &binding, &role, &account];
    fixture.namespace.kubectl(&grant).await.unwrap();
    assert_eq!(status_for(&fixture, None).await, StatusCode::UNAUTHORIZED);
    let forged = status_for(&fixture, Some("forged")).await;
    assert_eq!(forged, StatusCode::UNAUTHORIZED);
    let somebody = plane.service_account_token(own, "somebody").await.unwrap();
    let forbidden = status_for(&fixture, Some(&somebody)).await;
    assert_eq!(forbidden, StatusCode::FORBIDDEN);
    // The authorizer of the API server learns of the binding a moment later, and a refusal is kept for a minute.
    let reads = async {
        loop {
            let token = plane
                .service_account_token(own, "prometheus")
                .await
                .unwrap();
            if status_for(&fixture, Some(&token)).await == StatusCode::OK {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let read = tokio::time::timeout(PATIENCE, reads).await;
    read.expect("Prometheus reads the metrics");
    assert!(fixture.operator.is_ready().await, "probes need no token");
    let ungrant = ["delete", "clusterrolebinding", &binding];
    fixture.namespace.kubectl(&ungrant).await.unwrap();
    fixture.end().await
}
