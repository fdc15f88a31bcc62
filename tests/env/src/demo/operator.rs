//! The operator's binary on this machine, with the roles, arguments and service account of the rendered chart.
//! Absent: an image; so the demo runs on clusters that could not pull one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use pointsman_env::chart::RenderedChart;
use pointsman_env::error::Context as _;
use pointsman_env::manifests::{self, text};
use pointsman_env::ports::free_port;
use pointsman_env::process::{Child, Program};
use pointsman_env::{Error, Result, Tools};
use serde_json::{Value, json};

use super::cluster::{Cluster, MANAGER, RELEASE};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running operator; it ends when this is dropped.
pub struct Operator {
    child: Child,
}

impl Operator {
    /// Installs the chart but for its Deployment, starts the binary in its place and waits until it is ready.
    pub async fn start(cluster: &Cluster, tools: &Tools) -> Result<Self> {
        // On a cluster with other inhabitants it keeps to the demo's namespace.
        let watched: &[&str] = if cluster.is_theirs() { &[cluster.namespace] } else { &[] };
        let values = json!({"fullnameOverride": RELEASE, "watchNamespaces": watched, "crds": {"enabled": false}});
        let chart = RenderedChart::render(tools, RELEASE, cluster.namespace, &values).await?;
        for object in chart.objects.iter().filter(|object| is_applied(object)) {
            manifests::apply(&cluster.client, cluster.namespace, MANAGER, object).await?;
        }
        let deployment = chart.the_only("Deployment")?;
        let account = text(deployment, "/spec/template/spec/serviceAccountName");
        let kubeconfig = cluster.kubeconfig_with_token(&token(cluster, account).await?)?;
        let health = format!("127.0.0.1:{}", free_port()?);
        let child = Program::new("pointsman", binary()?)
            .args(arguments(deployment, &health))
            .only_this_environment()
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", format!("{RELEASE}-0"))
            .grace(PATIENCE)
            .start(cluster.folder.path())?;
        let mut operator = Self { child };
        operator.await_ready(&format!("http://{health}/readyz")).await?;
        Ok(operator)
    }

    /// Where it logs.
    pub fn log(&self) -> &Path {
        self.child.log()
    }

    async fn await_ready(&mut self, url: &str) -> Result<()> {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().context("making an HTTP client")?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            self.child.still_running()?;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Err(Error::new("waiting for the operator's /readyz", self.child.tail(40)))
    }
}

fn binary() -> Result<PathBuf> {
    let beside = std::env::current_exe().context("looking for this executable")?.with_file_name("pointsman");
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Error::new("looking for the operator's binary", "it is not built").remedy("cargo build -p pointsman"))
}

async fn token(cluster: &Cluster, account: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), cluster.namespace);
    let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let what = "asking for a token of the operator's service account";
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.context(what)?;
    answer.status.map(|status| status.token).ok_or_else(|| Error::new(what, "the answer has no token"))
}

/// Its place is taken by our process; a Service would lead to pods that are not there.
fn is_applied(object: &Value) -> bool {
    !matches!(text(object, "/kind"), "Deployment" | "Service" | "ServiceMonitor")
}

/// The arguments of the rendered container, listening on loopback.
fn arguments(deployment: &Value, health: &str) -> Vec<String> {
    let rendered = deployment.pointer("/spec/template/spec/containers/0/args").and_then(Value::as_array);
    let kept = rendered.into_iter().flatten().filter_map(Value::as_str).filter(|each| !each.contains("-address="));
    kept.map(ToOwned::to_owned).chain([format!("--health-address={health}")]).collect()
}
