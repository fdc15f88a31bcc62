//! The operator's binary on this machine, with the roles, arguments and service account of the rendered chart.
//! Absent: an image; so the demo runs on clusters that could not pull one.

use std::path::PathBuf;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use pointsman_env::chart::RenderedChart;
use pointsman_env::error::Context as _;
use pointsman_env::manifests::{self, text};
use pointsman_env::{Error, Operator, OperatorOptions, Result, Tools};
use serde_json::{Value, json};

use super::cluster::{Cluster, MANAGER, RELEASE};

/// Installs the chart's objects without the Deployment, starts the binary instead and waits until it is ready.
pub async fn start(cluster: &Cluster, tools: &Tools) -> Result<Operator> {
    // On a cluster with other inhabitants it keeps to the demo's namespace.
    let watched: &[&str] = if cluster.is_users() {
        &[cluster.namespace]
    } else {
        &[]
    };
    // The demo's MLflow is on this machine.
    let values = json!({"fullnameOverride": RELEASE, "watchNamespaces": watched, "crds": {"enabled": false},
        "network": {"allow": ["127.0.0.0/8"]}});
    let chart = RenderedChart::render(tools, RELEASE, cluster.namespace, &values).await?;
    for object in chart.objects.iter().filter(|object| is_applied(object)) {
        manifests::apply(&cluster.client, cluster.namespace, MANAGER, object).await?;
    }
    let account = text(
        chart.the_only("Deployment")?,
        "/spec/template/spec/serviceAccountName",
    );
    let kubeconfig = cluster.kubeconfig_with_token(&token(cluster, account).await?)?;
    let options = OperatorOptions {
        namespace: cluster.namespace.to_owned(),
        ..OperatorOptions::watching(binary()?, RELEASE, watched)
    };
    let mut operator = Operator::in_place_of(&chart, kubeconfig, cluster.folder.path(), &options)?;
    operator.await_ready().await?;
    Ok(operator)
}

fn binary() -> Result<PathBuf> {
    let beside = std::env::current_exe()
        .context("looking for this executable")?
        .with_file_name("pointsman");
    if beside.is_file() {
        return Ok(beside);
    }
    Err(
        Error::new("looking for the operator's binary", "it is not built")
            .remedy("cargo build -p pointsman"),
    )
}

async fn token(cluster: &Cluster, account: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), cluster.namespace);
    let spec = TokenRequestSpec {
        expiration_seconds: Some(3600),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest {
        spec,
        ..TokenRequest::default()
    };
    let what = "requesting a token of the operator's service account";
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .context(what)?;
    answer
        .status
        .map(|status| status.token)
        .ok_or_else(|| Error::new(what, "the answer has no token"))
}

/// The process replaces the Deployment; a Service would have no pods.
fn is_applied(object: &Value) -> bool {
    !matches!(
        text(object, "/kind"),
        "Deployment" | "Service" | "ServiceMonitor"
    )
}
