//! The manifests of the pages and examples, as a reader applies them.
//!
//! Absent: an operator. The API server alone decides here.

use std::fs;
use std::sync::Arc;

use pointsman_env::kinds::INFERENCE_SERVICE;
use pointsman_env::manifests::{self, text};
use pointsman_env::resources::{self, merge};
use pointsman_env::{TestNamespace, gateway_api, gitops, pages, peer};
use serde_json::{Value, json};

use crate::fixture::{self, Environment, ScenarioResult, scenarios};

scenarios!(every_manifest_of_the_pages_and_examples_is_accepted);

/// The name of all objects of the pages.
const TAXI: &str = "nyc-taxi";
/// The address of MLflow in the pages.
const MLFLOW: &str = "http://mlflow.mlflow.svc:5000";

/// Groups whose kinds are not defined here: the definitions are in no module that the Go module proxy has.
const FOREIGN_GROUPS: [&str; 4] = [
    "argocd-image-updater.argoproj.io",
    "helm.toolkit.fluxcd.io",
    "machinelearning.seldon.io",
    "mlops.seldon.io",
];

async fn every_manifest_of_the_pages_and_examples_is_accepted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let cluster = environment.cluster().await;
    let client = cluster.control_plane.admin_client();
    gateway_api::install(&client).await.unwrap();
    gitops::flux::install(&client).await.unwrap();
    let namespace = fixture::namespace(&environment, "manifests").await;
    peer::define_kserve(&namespace, &INFERENCE_SERVICE, "minimal")
        .await
        .unwrap();
    let mut wrong = Vec::new();
    let mut accepted = 0;
    for (place, text) in manifest_texts() {
        match manifests::parse(&text) {
            Ok(objects) if objects.is_empty() => wrong.push(format!("{place} holds no object")),
            Ok(objects) => match dry_run(&namespace, &objects).await {
                Ok(count) => accepted += count,
                Err(error) => wrong.push(format!("{place}: {error}")),
            },
            Err(error) => wrong.push(format!("{place}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(accepted > 50, "only {accepted} objects were found");
    let misspelt = json!({"kind": "AliasBinding", "spec": {"pinedVersion": "4"}});
    let refused = dry_run(&namespace, &[misspelt]).await;
    assert!(refused.is_err(), "a field that does not exist was accepted");
    namespace.end().await.map_err(|error| error.to_string())
}

/// The manifests of all pages and of examples/, each with its place.
fn manifest_texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for page in pages::pages().unwrap() {
        for block in page.blocks() {
            if block.language == "yaml" && block.excuse.is_none() {
                texts.push((
                    format!("{}:{}", page.path.display(), block.line),
                    block.text,
                ));
            }
        }
    }
    for path in pages::files("examples", "yaml").unwrap() {
        let text = fs::read_to_string(pages::repository().join(&path)).unwrap();
        texts.push((path.display().to_string(), text));
    }
    texts
}

/// Applies the objects of kinds that are defined here with `--dry-run=server`, and returns their number.
async fn dry_run(namespace: &TestNamespace, objects: &[Value]) -> Result<usize, String> {
    let mut count = 0;
    for object in native(objects) {
        let own = text(&object, "/metadata/namespace");
        if !own.is_empty() {
            let object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": own}});
            namespace
                .apply_object(&object)
                .await
                .map_err(|error| error.to_string())?;
        }
        let arguments = [
            "-n",
            or(own, namespace.namespace()),
            "apply",
            "--dry-run=server",
            "-f",
            "-",
        ];
        let control_plane = namespace.control_plane();
        let applied = control_plane
            .kubectl_with_input(&arguments, &object.to_string())
            .await;
        applied.map_err(|error| error.to_string())?;
        count += 1;
    }
    Ok(count)
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

/// The objects of kinds that are defined here. A part of one of our kinds, such as `kind` and `spec.inject`, becomes a whole object.
fn native(objects: &[Value]) -> Vec<Value> {
    let group = |object: &Value| {
        text(object, "/apiVersion")
            .split('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let native = objects
        .iter()
        .filter(|object| !FOREIGN_GROUPS.contains(&group(object).as_str()));
    native.map(completed).collect()
}

fn completed(part: &Value) -> Value {
    if part.get("apiVersion").is_some() {
        return part.clone();
    }
    let mut whole = match text(part, "/kind") {
        "ModelRegistry" => resources::model_registry(MLFLOW),
        "RegisteredModel" => resources::registered_model(TAXI, TAXI),
        "AliasBinding" => resources::alias_binding(TAXI, TAXI, TAXI),
        _ => return part.clone(),
    };
    let spec = &part["spec"];
    if spec.get("template").is_some() {
        merge(&mut whole["spec"], json!({"targetRef": null}));
    }
    merge(&mut whole["spec"], spec.clone());
    whole
}
