//! Definitions that kubectl applied before the chart was installed, and the real Helm.
//!
//! Absent: the operator. Helm and the API server alone decide here.

use std::sync::Arc;

use pointsman_env::cache::Cache;
use pointsman_env::chart::chart_folder;
use pointsman_env::kinds::MODEL_REGISTRY;
use pointsman_env::{ControlPlane, ControlPlaneOptions, Tools, manifests, pages, resources};
use serde_json::{Value, json};

use crate::fixture::{Environment, ScenarioResult, scenarios};

scenarios!(definitions_that_kubectl_applied_belong_to_the_chart_only_if_helm_is_told_to_take_them);

/// A cluster of its own, because the definitions change.
struct Cluster {
    control_plane: ControlPlane,
    tools: Tools,
}

impl Cluster {
    async fn start() -> Self {
        let tools = Tools::locate(&Cache::open().unwrap()).unwrap();
        let options = ControlPlaneOptions::api_only();
        Self {
            control_plane: ControlPlane::start(&tools, options).await.unwrap(),
            tools,
        }
    }

    /// Runs helm, and returns its output or its error.
    async fn helm(&self, arguments: &str) -> Result<String, String> {
        let line = format!("'{}' {arguments}", self.tools.helm.display());
        let output = self.control_plane.shell(&line).await;
        output.map_err(|error| error.to_string())
    }

    async fn install(&self, flags: &str) -> Result<String, String> {
        let chart = chart_folder();
        let name = "upgrade --install pointsman --namespace pointsman --create-namespace";
        self.helm(&format!("{name} '{}' {flags}", chart.display()))
            .await
    }

    async fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let arguments = ["apply", "--server-side", "-f", "-"];
        self.control_plane
            .kubectl_with_input(&arguments, &list)
            .await
            .unwrap();
    }

    async fn get(&self, object: &str) -> Value {
        let arguments = ["get", object, "-o", "json"];
        let text = self.control_plane.kubectl(&arguments).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn definition(&self) -> Value {
        self.get("crd/modelregistries.pointsman.dev").await
    }
}

/// The definitions of an earlier release.
fn older_definitions() -> Vec<Value> {
    let files = std::fs::read_dir(pages::repository().join("crds")).unwrap();
    let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let mut definitions: Vec<Value> = texts
        .flat_map(|text| manifests::parse(&text).unwrap())
        .collect();
    for definition in &mut definitions {
        let version = &mut definition["spec"]["versions"][0];
        version["schema"]["openAPIV3Schema"]["description"] = json!(OLDER);
    }
    definitions
}

const OLDER: &str = "Of an earlier release.";

fn description(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"]
}

async fn definitions_that_kubectl_applied_belong_to_the_chart_only_if_helm_is_told_to_take_them(
    _: Arc<Environment>,
) -> ScenarioResult {
    let cluster = Cluster::start().await;
    let help = cluster.helm("upgrade --help").await.unwrap();
    if !help.contains("--force-conflicts") {
        eprintln!("  skipped: Helm 3 applies on the client, and has no --force-conflicts");
        return Ok(());
    }
    cluster.apply(&older_definitions()).await;
    let wait = "wait --for=condition=Established crd --all --timeout=60s";
    let wait: Vec<&str> = wait.split(' ').collect();
    cluster.control_plane.kubectl(&wait).await.unwrap();
    let registry = resources::model_registry("http://mlflow:5000");
    cluster.apply(&[registry]).await;
    let object = format!("{}/{}", MODEL_REGISTRY.plural, resources::REGISTRY);
    let before = cluster.get(&object).await;

    let refusal = cluster.install("").await.unwrap_err();
    let cause = "exists and cannot be imported into the current release";
    assert!(refusal.contains(cause), "{refusal}");
    let refusal = cluster.install("--take-ownership").await.unwrap_err();
    let cause = r#"conflict with "kubectl""#;
    assert!(refusal.contains(cause), "{refusal}");
    assert_eq!(description(&cluster.definition().await), OLDER);

    let flags = "--take-ownership --force-conflicts";
    cluster.install(flags).await.unwrap();
    let definition = cluster.definition().await;
    let owner = &definition["metadata"]["annotations"]["meta.helm.sh/release-name"];
    assert_eq!(owner, "pointsman");
    assert_ne!(description(&definition), OLDER);
    let after = cluster.get(&object).await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    cluster.install("").await.unwrap();
    Ok(())
}
