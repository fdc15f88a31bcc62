//! The cluster of the demo: a control plane of its own, or a user's cluster; and its cleanup.
//! Absent: the operator and MLflow, which run on this machine in both cases.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use pointsman_env::chart::RenderedChart;
use pointsman_env::error::Context as _;
use pointsman_env::manifests::{self, text};
use pointsman_env::process::RunFolder;
use pointsman_env::progress::Task;
use pointsman_env::{ControlPlane, ControlPlaneOptions, Error, Result, Tools};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The field manager of objects that the demo applies.
pub const MANAGER: &str = "pointsman-demo";
/// The release of the operator, and so the label of its roles.
pub const RELEASE: &str = "pointsman-demo";
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster, and the objects that the demo has made on it.
pub struct Cluster {
    /// Reaches it with the rights of the administrator, or of the user.
    pub client: kube::Client,
    /// The demo's namespace.
    pub namespace: &'static str,
    /// Logs and kubeconfigs of this run.
    pub folder: RunFolder,
    kubectl: PathBuf,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    server: Value,
    namespace_made: AtomicBool,
    definitions_made: AtomicBool,
    _control_plane: Option<ControlPlane>,
}

impl Cluster {
    /// The cluster of that context, or a new control plane.
    pub async fn open(tools: &Tools, context: Option<String>) -> Result<Self> {
        let control_plane = match context {
            None => Some(start(tools).await?),
            Some(_) => None,
        };
        let kubeconfig = control_plane.as_ref().map(ControlPlane::admin_kubeconfig);
        let configuration = kubeconfig
            .as_ref()
            .map_or_else(Kubeconfig::read, Kubeconfig::read_from);
        let configuration = configuration.context("reading the kubeconfig")?;
        let server = server_of(&configuration, context.as_deref())?;
        let options = KubeConfigOptions {
            context: context.clone(),
            ..KubeConfigOptions::default()
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::Config::from_custom_kubeconfig(configuration, &options)
            .await
            .context("reading the kubeconfig")?;
        Ok(Self {
            client: kube::Client::try_from(config).context("making a Kubernetes client")?,
            namespace: if control_plane.is_some() {
                "demo"
            } else {
                "pointsman-demo"
            },
            folder: RunFolder::create("demo")?,
            kubectl: tools.kubectl.clone(),
            kubeconfig,
            context,
            server,
            namespace_made: AtomicBool::new(false),
            definitions_made: AtomicBool::new(false),
            _control_plane: control_plane,
        })
    }

    /// Whether it is a user's cluster, on which only the demo's own objects may be changed.
    pub fn is_users(&self) -> bool {
        self.context.is_some()
    }

    /// The cluster's name in messages.
    pub fn name(&self) -> String {
        self.context
            .as_ref()
            .map_or("a control plane of its own".to_owned(), |context| {
                format!("the cluster of {context}")
            })
    }

    /// Makes the namespace; one that is there already is not ours to delete later.
    pub async fn make_namespace(&self) -> Result<()> {
        let object: Namespace =
            serde_json::from_value(json!({"metadata": {"name": self.namespace}}))
                .context("writing a namespace")?;
        let made = Api::all(self.client.clone())
            .create(&PostParams::default(), &object)
            .await;
        made.context(format_args!(
            "creating the namespace {} on {}",
            self.namespace,
            self.name()
        ))
        .map_err(|error| {
            error.remedy(format_args!(
                "if it is left from before: kubectl delete namespace {}",
                self.namespace
            ))
        })?;
        self.namespace_made.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Applies the definitions of our kinds and waits until they are served; returns the names of existing ones, which stay unchanged.
    pub async fn install_definitions(&self, tools: &Tools) -> Result<Vec<String>> {
        let chart = RenderedChart::render(
            tools,
            "definitions",
            "default",
            &json!({"crds": {"enabled": true}}),
        )
        .await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let mut kept = Vec::new();
        for definition in chart.of_kind("CustomResourceDefinition") {
            let name = text(definition, "/metadata/name");
            let present = definitions
                .get_opt(name)
                .await
                .context(format_args!("reading {name}"))?;
            if present.as_ref().is_some_and(is_somebody_elses) {
                kept.push(name.to_owned());
                continue;
            }
            manifests::apply(&self.client, "", MANAGER, definition).await?;
            let established =
                await_condition(definitions.clone(), name, conditions::is_crd_established());
            let in_time = tokio::time::timeout(PATIENCE, established).await;
            in_time
                .context(format_args!("waiting for {name} to be served"))?
                .context(format_args!("watching {name}"))?;
            self.definitions_made.store(true, Ordering::Relaxed);
        }
        Ok(kept)
    }

    /// A kubeconfig for this cluster with a token instead of the user's own credentials.
    pub fn kubeconfig_with_token(&self, token: &str) -> Result<PathBuf> {
        let configuration = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "demo", "cluster": self.server}],
            "users": [{"name": "demo", "user": {"token": token}}],
            "contexts": [{"name": "demo", "context": {"cluster": "demo", "user": "demo"}}],
            "current-context": "demo",
        });
        let path = self.folder.path().join("operator.kubeconfig");
        std::fs::write(&path, configuration.to_string())
            .context("writing the operator's kubeconfig")?;
        Ok(path)
    }

    /// Runs kubectl in the namespace, and returns its output.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let what = format!("kubectl {}", arguments.join(" "));
        let mut child = self.kubectl_command(arguments).spawn().context(&what)?;
        if let Some(mut pipe) = child.stdin.take() {
            // kubectl may exit without reading it all; its output then has the cause.
            let _ = pipe.write_all(input.as_bytes()).await;
        }
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .context(&what)?
            .context(&what)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::new(what, String::from_utf8_lossy(&output.stderr)))
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .args(["-n", self.namespace, "--cache-dir"])
            .arg(self.folder.path().join("kubectl"));
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Removes the demo's objects from a user's cluster; a control plane of its own ends as a whole.
    pub async fn clean(&self) -> Result<()> {
        if !self.is_users() || !self.namespace_made.load(Ordering::Relaxed) {
            return Ok(());
        }
        let cleaning = Task::start(
            &format!("removing the namespace {} and its roles", self.namespace),
            0,
        );
        let (deletion, ours) = (
            DeleteParams::background(),
            ListParams::default().labels(&format!("app.kubernetes.io/instance={RELEASE}")),
        );
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        let roles: Api<ClusterRole> = Api::all(self.client.clone());
        let deleted = namespaces
            .delete(self.namespace, &deletion)
            .await
            .context("deleting the namespace")?;
        bindings
            .delete_collection(&deletion, &ours)
            .await
            .context("deleting the role bindings")?;
        roles
            .delete_collection(&deletion, &ours)
            .await
            .context("deleting the roles")?;
        if let Some(uid) = deleted.left().and_then(|namespace| namespace.metadata.uid) {
            let gone = await_condition(namespaces, self.namespace, conditions::is_deleted(&uid));
            gone.await.context("watching the namespace go")?;
        }
        cleaning.done();
        if self.definitions_made.load(Ordering::Relaxed) {
            println!(
                "The definitions of the kinds (crds/) stay on {}: kubectl delete -f crds/ removes them.",
                self.name()
            );
        }
        Ok(())
    }

    /// The commands for a cleanup by hand, if [`Cluster::clean`] failed.
    pub fn how_to_clean(&self) -> String {
        let Some(context) = &self.context else {
            return "none is needed: it was a control plane of its own".to_owned();
        };
        format!(
            "kubectl --context {context} delete namespace {}; \
             kubectl --context {context} delete clusterrole,clusterrolebinding -l app.kubernetes.io/instance={RELEASE}",
            self.namespace
        )
    }
}

async fn start(tools: &Tools) -> Result<ControlPlane> {
    let starting = Task::start("starting a control plane", 0);
    let control_plane = ControlPlane::start(tools, ControlPlaneOptions::default()).await?;
    starting.done();
    Ok(control_plane)
}

/// The cluster's entry in the kubeconfig: its address and how it is trusted.
fn server_of(configuration: &Kubeconfig, context: Option<&str>) -> Result<Value> {
    let chosen = context
        .or(configuration.current_context.as_deref())
        .unwrap_or_default();
    let what = format!("looking for the context {chosen} in the kubeconfig");
    let missing = || {
        Error::new(&what, "it is not there")
            .remedy("kubectl config get-contexts lists those that are")
    };
    let named = configuration
        .contexts
        .iter()
        .find(|each| each.name == chosen)
        .and_then(|each| each.context.as_ref());
    let cluster = &named.ok_or_else(missing)?.cluster;
    let server = configuration
        .clusters
        .iter()
        .find(|each| each.name == *cluster)
        .and_then(|each| each.cluster.as_ref());
    serde_json::to_value(server.ok_or_else(missing)?).context(&what)
}

fn is_somebody_elses(definition: &CustomResourceDefinition) -> bool {
    let managers = definition.metadata.managed_fields.iter().flatten();
    !managers
        .filter_map(|entry| entry.manager.as_deref())
        .any(|manager| manager == MANAGER)
}
