//! The operator in a pod of its own: its image, installed by Helm under the restricted Pod Security level, with probes, and with
//! MLflow's webhooks through the address of its Service.
//!
//! Absent: a container engine. The image has the files of the Dockerfile's, taken from this machine: the program that
//! `POINTSMAN_IMAGE_PROGRAM` names (`make pod`), or else that of these tests with its libraries.

use std::path::PathBuf;
use std::sync::Arc;

use pointsman_env::chart::chart_folder;
use pointsman_env::kinds::{ALIAS_BINDING, MODEL_REGISTRY, POD};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::node::Image;
use pointsman_env::node::isolation::NODE_ADDRESS;
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::{Client, Registrar};
use pointsman_env::resources::{self, with_spec};
use pointsman_env::{Objects, Selection, TestNamespace};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, PATIENCE, SERVER, ScenarioResult, condition, deployment, is_ready, scenarios,
};

scenarios!(the_operator_in_its_own_pod_does_the_main_job);

const IMAGE: &str = "pointsman.test/pointsman:under-test";
/// The user of the Dockerfile.
const USER: u32 = 65532;
const MODEL: &str = "in-cluster";

async fn the_operator_in_its_own_pod_does_the_main_job(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let cluster = environment.cluster().await;
    let image = Image {
        name: IMAGE,
        program: &program(),
        user: USER,
    };
    cluster.node.import(&image).await.unwrap();
    let tenant = TestNamespace::start(&cluster.control_plane, "a tenant of the operator's pod")
        .await
        .unwrap();
    let release = Release::install(&environment, tenant.namespace()).await;
    let (mlflow, client) = mlflow().await;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "webhook"},
        "stringData": {"secret": "only for tests: thirty-two bytes"},
    });
    tenant.apply_object(&secret).await.unwrap();
    let webhook = json!({"mode": "Managed", "url": release.webhook_url().await, "secretRef": {"name": "webhook"}});
    // Nothing but a delivery moves a version in time.
    let registry = json!({"interval": "1h", "webhook": webhook});
    tenant.kubectl_apply(deployment("")).await.unwrap();
    for object in [
        with_spec(resources::model_registry(&mlflow.url()), registry),
        resources::registered_model("model", MODEL),
        resources::alias_binding("binding", "model", SERVER),
    ] {
        tenant.apply_object(&object).await.unwrap();
    }
    runs(&tenant, "1").await;
    let delivers = |registry: &Value| {
        let reason = condition(registry, "WebhookReady")["reason"].as_str();
        matches!(reason, Some("WebhookReady" | "WebhookSettling"))
    };
    tenant
        .eventually(
            "the webhook is registered",
            PATIENCE,
            &MODEL_REGISTRY,
            resources::REGISTRY,
            delivers,
        )
        .await;
    for version in ["2", "1"] {
        client.set_alias(MODEL, "champion", version).await.unwrap();
        runs(&tenant, version).await;
    }
    release.pod_is_healthy().await;
    // The ModelRegistry has a finalizer, and the operator is gone before it: the hook of the chart lets it go.
    let registry = tenant.get(&MODEL_REGISTRY, resources::REGISTRY).await;
    let finalizers = &registry.unwrap()["metadata"]["finalizers"];
    assert!(finalizers.is_array(), "there is nothing to release");
    release.uninstall().await?;
    let name = tenant.namespace();
    let delete = ["delete", "namespace", name, "--timeout=120s"];
    tenant.kubectl(&delete).await.unwrap();
    Ok(())
}

fn program() -> PathBuf {
    match std::env::var_os("POINTSMAN_IMAGE_PROGRAM") {
        Some(program) => PathBuf::from(program),
        None => PathBuf::from(env!("CARGO_BIN_EXE_pointsman")),
    }
}

/// The pods of the workload run this version, and the binding says so.
async fn runs(tenant: &TestNamespace, version: &str) {
    let is_live = |binding: &Value| {
        binding["status"]["running"]["version"] == version
            && condition(binding, "Ready")["reason"] == "Live"
    };
    let what = format!("version {version} is live");
    tenant
        .eventually(&what, PATIENCE, &ALIAS_BINDING, "binding", is_live)
        .await;
}

/// An MLflow server in the node's network, with two versions of the model and the alias on the first.
async fn mlflow() -> (Mlflow, Client) {
    let options = MlflowOptions {
        host: NODE_ADDRESS.parse().unwrap(),
        ..MlflowOptions::with_webhooks()
    };
    let mlflow = Mlflow::start(MlflowVersion::Three, options).await.unwrap();
    let registrar = Registrar::shared(MlflowVersion::Three).await.unwrap();
    let client = registrar.at(&mlflow.url());
    client.create_registered_model(MODEL).await.unwrap();
    for number in 1..=2 {
        let source = format!("s3://models/{MODEL}/{number}");
        client.create_model_version(MODEL, &source).await.unwrap();
    }
    client.set_alias(MODEL, "champion", "1").await.unwrap();
    (mlflow, client)
}

/// The chart's release, in a namespace that admits restricted pods only.
struct Release {
    namespace: TestNamespace,
    environment: Arc<Environment>,
}

impl Release {
    async fn install(environment: &Arc<Environment>, tenant: &str) -> Self {
        let cluster = environment.cluster().await;
        let namespace = TestNamespace::start(&cluster.control_plane, "the operator's pod")
            .await
            .unwrap();
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        let name = namespace.namespace().to_owned();
        let label = ["label", "namespace", &name, restricted];
        namespace.control_plane().kubectl(&label).await.unwrap();
        let release = Self {
            namespace,
            environment: Arc::clone(environment),
        };
        let chart = chart_folder().display().to_string();
        let (repository, tag) = IMAGE.rsplit_once(':').unwrap();
        let values = [
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            "image.pullPolicy=Never".to_owned(),
            "webhook.enabled=true".to_owned(),
            "crds.enabled=false".to_owned(),
            format!("watchNamespaces={{{tenant}}}"),
        ];
        let mut arguments = vec!["install", "pointsman", &chart, "--wait", "--timeout=2m"];
        for value in &values {
            arguments.extend(["--set", value]);
        }
        release.helm(&arguments).await;
        release
    }

    async fn helm(&self, arguments: &[&str]) {
        let cluster = self.environment.cluster().await;
        let output = tokio::process::Command::new(&cluster.tools.helm)
            .args(arguments)
            .args(["--namespace", self.namespace.namespace()])
            .env("KUBECONFIG", cluster.control_plane.admin_kubeconfig())
            .output()
            .await
            .unwrap();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            panic!(
                "helm {arguments:?}: {error}\n{}",
                self.namespace.report().await
            );
        }
    }

    /// The receiver's address, as kube-proxy serves it.
    async fn webhook_url(&self) -> String {
        let path = "jsonpath={.spec.clusterIP}";
        let get = ["get", "service", "pointsman-webhook", "-o", path];
        let address = self.namespace.kubectl(&get).await.unwrap();
        format!("http://{address}:8443")
    }

    async fn pod_is_healthy(&self) {
        let selection = Selection::Labelled("app.kubernetes.io/name=pointsman");
        let healthy = |pods: &Objects| {
            pods.len() == 1
                && pods.values().all(|pod| {
                    is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 0
                })
        };
        self.namespace
            .eventually_all(
                "the operator's only pod is ready and was never restarted",
                PATIENCE,
                &POD,
                &selection,
                healthy,
            )
            .await;
    }

    async fn uninstall(self) -> ScenarioResult {
        self.helm(&["uninstall", "pointsman", "--wait", "--timeout=2m"])
            .await;
        let end = self.namespace.end().await;
        end.map_err(|error| error.to_string())
    }
}
