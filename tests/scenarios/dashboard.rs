//! The dashboard of the chart: each of its queries has an answer from a real Prometheus that scrapes the operator.
//!
//! Absent: Grafana.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_env::cache::Cache;
use pointsman_env::chart::chart_folder;
use pointsman_env::ports::free_port;
use pointsman_env::process::{Child, Program, RunFolder};
use pointsman_env::resources;
use pointsman_env::tools;
use serde_json::{Value, json};

use crate::fixture::{Environment, Fixture, PATIENCE, ScenarioResult, scenarios};

scenarios!(every_query_of_the_dashboard_has_an_answer);

/// What Grafana puts in the place of its variables.
const VARIABLES: [(&str, &str); 2] = [("$namespace", ".*"), ("$__rate_interval", "1m")];

async fn every_query_of_the_dashboard_has_an_answer(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let values = json!({"webhook": {"enabled": true}});
    let fixture = Fixture::with_values(&environment, "dashboard", values).await;
    fixture.serve_version_1().await;
    let lost = resources::alias_binding("lost", "model", "no-such-deployment");
    fixture.apply_object(lost).await;
    fixture.binding_reports("lost", "TargetNotFound").await;
    forge_a_delivery(&fixture).await;
    let prometheus = Prometheus::start(fixture.operator.health_address()).await;
    let queries = queries();
    assert!(queries.len() >= 20, "only {} queries", queries.len());
    for (title, query) in queries {
        prometheus.answers(&title, &query).await;
    }
    fixture.end().await
}

/// A delivery without a signature, which is refused and counted.
async fn forge_a_delivery(fixture: &Fixture) {
    let address = fixture.operator.webhook_address().unwrap();
    let url = format!("http://{address}/webhooks/nobody/mlflow");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.post(url).body("{}").send().await.unwrap();
    assert!(answer.status().is_client_error(), "{answer:?}");
}

/// The queries, each with the title of its panel.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(chart_folder().join("files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            let mut query = target["expr"].as_str().unwrap().to_owned();
            for (variable, value) in VARIABLES {
                query = query.replace(variable, value);
            }
            assert!(!query.contains('$'), "{title}: {query}");
            queries.push((title.to_owned(), query));
        }
    }
    queries
}

/// A Prometheus that scrapes one operator every second.
struct Prometheus {
    // Dropped before its folder.
    server: Child,
    _folder: RunFolder,
    url: String,
}

impl Prometheus {
    async fn start(operator: &str) -> Self {
        let cache = Cache::open().unwrap();
        let programs = tokio::task::spawn_blocking(move || tools::prometheus(&cache)).await;
        let folder = RunFolder::create("prometheus").unwrap();
        let configuration = folder.path().join("prometheus.yaml");
        let scraped = json!({"job_name": "pointsman", "static_configs": [{"targets": [operator]}]});
        let settings = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": [scraped]});
        std::fs::write(&configuration, settings.to_string()).unwrap();
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let program = programs.unwrap().unwrap().join("prometheus");
        let server = Program::new("prometheus", program)
            .args([
                format!("--config.file={}", configuration.display()),
                format!(
                    "--storage.tsdb.path={}",
                    folder.path().join("data").display()
                ),
                format!("--web.listen-address={address}"),
            ])
            .start(folder.path())
            .unwrap();
        Self {
            server,
            _folder: folder,
            url: format!("http://{address}"),
        }
    }

    /// Waits until the query has a result; a rate has one after two scrapes.
    async fn answers(&self, title: &str, query: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(query).await;
            let results = answer["data"]["result"].as_array();
            if results.is_some_and(|results| !results.is_empty()) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{title}: {query}\n{answer}\n{}",
                self.server.tail(20)
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn ask(&self, query: &str) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/api/v1/query", self.url);
        let Ok(answer) = client.get(url).query(&[("query", query)]).send().await else {
            return Value::Null;
        };
        answer.json().await.unwrap_or_default()
    }
}
