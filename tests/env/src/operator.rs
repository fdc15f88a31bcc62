//! The operator's binary, run outside a cluster as the chart runs it inside: same rights, arguments and variables.
//! Absent: pods. Only addresses and the source of credentials differ.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::Api;
use kube::runtime::wait::{await_condition, conditions};
use serde_json::{Value, json};

use crate::chart::RenderedChart;
use crate::control_plane::ControlPlane;
use crate::error::{Context, Error, Result};
use crate::manifests::{self, text};
use crate::ports::free_port;
use crate::process::{Child, Program, tail};
use crate::tools::Tools;
use crate::usage;

const MANAGER: &str = "helm";
const PATIENCE: Duration = Duration::from_secs(30);
/// The operator keeps the text of its metrics for a second.
const METRICS_AGE: Duration = Duration::from_millis(1100);

/// How the operator is installed.
#[derive(Debug, Clone)]
pub struct OperatorOptions {
    /// The binary.
    pub binary: PathBuf,
    /// The release, by which its objects are named; each operator on a control plane has its own.
    pub release: String,
    /// The namespace of the release; made if it is missing.
    pub namespace: String,
    /// The namespaces that it watches; all namespaces if it is empty.
    pub watch_namespaces: Vec<String>,
    /// Further values for the chart.
    pub values: Value,
    /// The address of the API server, or of an interceptor before it.
    pub kube_api: Option<String>,
    /// Arguments in addition to the chart's.
    pub extra_args: Vec<String>,
    /// Variables in addition to the chart's.
    pub extra_env: Vec<(String, String)>,
    /// Which of the release's replicas it is.
    pub replica: u32,
    /// The folder with the certificate of the webhook port, which is a mount in a pod.
    pub webhook_tls_folder: Option<PathBuf>,
    /// Whether it finds the API server as in a pod, by the files of a service account, and not by a kubeconfig.
    pub in_pod: bool,
}

impl OperatorOptions {
    /// A release that watches these namespaces.
    pub fn watching(binary: impl Into<PathBuf>, release: &str, watch_namespaces: &[&str]) -> Self {
        Self {
            binary: binary.into(),
            release: release.to_owned(),
            namespace: format!("{release}-system"),
            watch_namespaces: watch_namespaces.iter().map(ToString::to_string).collect(),
            values: json!({}),
            kube_api: None,
            extra_args: Vec::new(),
            extra_env: Vec::new(),
            replica: 0,
            webhook_tls_folder: None,
            in_pod: false,
        }
    }

    fn chart_values(&self) -> Value {
        let mut values = self.values.clone();
        values["watchNamespaces"] = json!(self.watch_namespaces);
        values["fullnameOverride"] = json!(self.release);
        values["crds"]["enabled"] = json!(false);
        // Two policies for each of the many releases of the tests would slow down the API server that they share.
        if values["admissionPolicies"].is_null() {
            values["admissionPolicies"]["enabled"] = json!(false);
        }
        if values["network"]["allow"].is_null() {
            // Registries and stores of tests are on this machine, as the API server is.
            values["network"]["allow"] = json!(["127.0.0.0/8", "10.0.0.0/8"]);
        }
        if values["leaseSeconds"].is_null() {
            // On a machine that is busy with tests, a slow renewal must not end an operator.
            values["leaseSeconds"] = json!(300);
        }
        values
    }
}

/// A running operator; it ends when this is dropped.
pub struct Operator {
    program: Program,
    child: Child,
    folder: PathBuf,
    health: String,
    webhook: Option<String>,
    http: reqwest::Client,
}

impl Operator {
    /// Installs the chart's objects without the Deployment, starts the binary instead and waits until it is ready.
    pub async fn start(
        control_plane: &ControlPlane,
        tools: &Tools,
        options: &OperatorOptions,
    ) -> Result<Self> {
        let mut operator = Self::start_unready(control_plane, tools, options).await?;
        operator.await_ready().await?;
        Ok(operator)
    }

    /// The same without waiting: for an operator that cannot become ready yet.
    pub async fn start_unready(
        control_plane: &ControlPlane,
        tools: &Tools,
        options: &OperatorOptions,
    ) -> Result<Self> {
        let chart = install(control_plane, tools, options).await?;
        let credentials = credentials(control_plane, &chart, options).await?;
        Self::with_credentials(&chart, &credentials, control_plane.folder(), options)
    }

    /// Starts the binary instead of a chart's Deployment, whose other objects are applied already; it logs into `folder`.
    pub fn in_place_of(
        chart: &RenderedChart,
        kubeconfig: PathBuf,
        folder: &Path,
        options: &OperatorOptions,
    ) -> Result<Self> {
        Self::with_credentials(chart, &Credentials::Kubeconfig(kubeconfig), folder, options)
    }

    fn with_credentials(
        chart: &RenderedChart,
        credentials: &Credentials,
        folder: &Path,
        options: &OperatorOptions,
    ) -> Result<Self> {
        let container = Container::of(chart.the_only("Deployment")?, options)?;
        let (health, webhook) = (container.health.clone(), container.webhook.clone());
        let name = format!("{}-{}", options.release, options.replica);
        let program = credentials
            .program(&name, &options.binary)
            .args(container.arguments)
            .args(&options.extra_args)
            .only_this_environment()
            .envs(container.environment)
            .env("RUST_BACKTRACE", "1")
            .envs(options.extra_env.clone())
            .grace(PATIENCE);
        let folder = folder.to_owned();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .context("making an HTTP client")?;
        Ok(Self {
            child: program.start(&folder)?,
            program,
            folder,
            health,
            webhook,
            http,
        })
    }

    /// Waits until `/readyz` returns 200.
    pub async fn await_ready(&mut self) -> Result<()> {
        self.await_ready_within(PATIENCE).await
    }

    /// The same with another time limit, for many objects.
    pub async fn await_ready_within(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.is_ready().await {
                return Ok(());
            }
            self.child.still_running()?;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Err(Error::new(
            "waiting for the operator's /readyz",
            format_args!("not within {patience:?}\n{}", self.log_tail(40)),
        ))
    }

    /// Whether `/readyz` returns 200 now.
    pub async fn is_ready(&self) -> bool {
        self.http
            .get(format!("http://{}/readyz", self.health))
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
    }

    /// Kills it with SIGKILL, as a node does that fails.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().map(|_| ())
    }

    /// Ends it with SIGTERM, as Kubernetes does, and returns its exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.child.terminate()
    }

    /// Stops the process, as a paused machine would.
    pub fn freeze(&self) -> Result<()> {
        self.child.freeze()
    }

    /// Lets it go on after [`Operator::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.child.thaw()
    }

    /// Starts it again with the same arguments and waits until it is ready.
    pub async fn start_again(&mut self) -> Result<()> {
        self.start_again_within(PATIENCE).await
    }

    /// The same with another time limit, for many objects.
    pub async fn start_again_within(&mut self, patience: Duration) -> Result<()> {
        if self.child.ended().is_none() {
            self.child.terminate()?;
        }
        self.child = self.program.start(&self.folder)?;
        self.await_ready_within(patience).await
    }

    /// Whether it is running.
    pub fn is_running(&mut self) -> bool {
        self.child.ended().is_none()
    }

    /// The text of `/metrics`, not older than this call.
    pub async fn metrics(&self) -> Result<String> {
        let what = "reading the operator's /metrics";
        tokio::time::sleep(METRICS_AGE).await;
        let answer = self
            .http
            .get(format!("http://{}/metrics", self.health))
            .send()
            .await
            .context(what)?;
        answer
            .error_for_status()
            .context(what)?
            .text()
            .await
            .context(what)
    }

    /// The address of `/healthz`, `/readyz` and `/metrics`.
    pub fn health_address(&self) -> &str {
        &self.health
    }

    /// Host and port of the webhook receiver, with `webhook.enabled` in the values.
    pub fn webhook_address(&self) -> Option<&str> {
        self.webhook.as_deref()
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        self.child.tail(lines)
    }

    /// Its whole log since the first start.
    pub fn log(&self) -> String {
        tail(self.child.log(), usize::MAX)
    }

    /// Its log file, for `TestNamespace::report_log`.
    pub fn log_file(&self) -> PathBuf {
        self.child.log().to_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        self.child
            .pid()
            .ok_or_else(|| Error::new("looking for the operator's process", "it has not started"))
    }

    /// How much processor time it has used since its start, in steps of 10 ms.
    pub fn processor_time(&self) -> Result<Duration> {
        usage::processor_time(self.pid()?)
    }

    /// How much memory it has had resident at most.
    pub fn peak_resident_bytes(&self) -> Result<u64> {
        usage::peak_resident_bytes(self.pid()?)
    }

    /// How much memory it has resident.
    pub fn resident_bytes(&self) -> Result<u64> {
        usage::resident_bytes(self.pid()?)
    }
}

/// Applies the chart's definitions of kinds and waits until the API server serves them.
pub async fn install_definitions(control_plane: &ControlPlane, tools: &Tools) -> Result<()> {
    let chart = RenderedChart::render(
        tools,
        "definitions",
        "default",
        &json!({"crds": {"enabled": true}}),
    )
    .await?;
    let client = control_plane.admin_client();
    let definitions: Vec<Value> = chart.of_kind("CustomResourceDefinition").cloned().collect();
    define(&client, &definitions).await
}

/// Applies definitions of kinds and waits until the API server serves them and kubectl knows them.
pub async fn define(client: &Client, definitions: &[Value]) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in definitions {
        manifests::apply(client, "", MANAGER, definition).await?;
    }
    for definition in definitions {
        let name = text(definition, "/metadata/name");
        let established = await_condition(api.clone(), name, conditions::is_crd_established());
        let in_time = tokio::time::timeout(PATIENCE, established).await;
        in_time
            .context(format_args!("waiting for {name} to be served"))?
            .context(format_args!("watching {name}"))?;
        wait_until_known(client, definition).await?;
    }
    Ok(())
}

/// An established kind is in the documents that kubectl reads a little later.
async fn wait_until_known(client: &Client, definition: &Value) -> Result<()> {
    let (group, kind) = (
        text(definition, "/spec/group"),
        text(definition, "/spec/names/kind"),
    );
    let known = format!("\"kind\":\"{kind}\"");
    let versions = definition["spec"]["versions"].as_array();
    let served = |version: &&Value| version["served"] == true;
    for version in versions.into_iter().flatten().filter(served) {
        let version = text(version, "/name");
        for document in ["apis", "openapi/v3/apis"] {
            let path = format!("/{document}/{group}/{version}");
            wait_for_text(client, &path, &known).await?;
        }
    }
    Ok(())
}

async fn wait_for_text(client: &Client, path: &str, expected: &str) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let request = hyper::Request::get(path).body(Vec::new());
        let request = request.context(format_args!("reading {path}"))?;
        let document = client.request_text(request).await;
        if document.is_ok_and(|document| document.contains(expected)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::new(
        format!("waiting for {expected} in {path}"),
        format_args!("not within {PATIENCE:?}"),
    ))
}

async fn install(
    control_plane: &ControlPlane,
    tools: &Tools,
    options: &OperatorOptions,
) -> Result<RenderedChart> {
    let client = control_plane.admin_client();
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": options.namespace}});
    manifests::apply(&client, "", MANAGER, &namespace).await?;
    let chart = RenderedChart::render(
        tools,
        &options.release,
        &options.namespace,
        &options.chart_values(),
    )
    .await?;
    for object in chart.objects.iter().filter(|object| is_applied(object)) {
        manifests::apply(&client, &options.namespace, MANAGER, object).await?;
    }
    Ok(chart)
}

/// Runs what `helm uninstall` runs after it deleted the release: the chart's hook, with its own rights. Returns its output.
pub async fn run_uninstall_hook(
    control_plane: &ControlPlane,
    tools: &Tools,
    options: &OperatorOptions,
) -> Result<String> {
    let client = control_plane.admin_client();
    let values = options.chart_values();
    let (release, namespace) = (&options.release, &options.namespace);
    let chart = RenderedChart::uninstall_hooks(tools, release, namespace, &values).await?;
    for object in chart
        .objects
        .iter()
        .filter(|object| text(object, "/kind") != "Job")
    {
        manifests::apply(&client, namespace, MANAGER, object).await?;
    }
    let pod = &chart.the_only("Job")?["spec"]["template"]["spec"];
    let account = text(pod, "/serviceAccountName");
    let token = control_plane
        .service_account_token(namespace, account)
        .await?;
    let server = control_plane.apiserver_url();
    let file = format!("{release}-uninstall.kubeconfig");
    let kubeconfig = control_plane.kubeconfig_with_token(&file, server, &token)?;
    let arguments = pod["containers"][0]["args"].as_array();
    let arguments = arguments.into_iter().flatten().filter_map(Value::as_str);
    let what = "running the uninstall hook";
    let output = tokio::process::Command::new(&options.binary)
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .output()
        .await
        .context(what)?;
    if !output.status.success() {
        return Err(Error::new(what, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The process replaces the Deployment; this control plane lacks the kinds of monitors.
fn is_applied(object: &Value) -> bool {
    text(object, "/kind") != "Deployment"
        && !text(object, "/apiVersion").starts_with("monitoring.coreos.com/")
}

/// How the operator finds the API server, and proves who it is.
enum Credentials {
    Kubeconfig(PathBuf),
    /// The files of a service account, and the host and port of the API server.
    InPod {
        files: PathBuf,
        host: String,
        port: String,
    },
}

/// Puts the folder in the first argument where a pod has its service account, seen by this process alone, and becomes the rest.
const AS_IN_A_POD: &str = r#"mount -t tmpfs none /run
mkdir -p /run/secrets/kubernetes.io
cp -r "$1" /run/secrets/kubernetes.io/serviceaccount
shift
exec "$@""#;

impl Credentials {
    fn program(&self, name: &str, binary: &Path) -> Program {
        match self {
            Self::Kubeconfig(path) => Program::new(name, binary).env("KUBECONFIG", path),
            Self::InPod { files, host, port } => Program::new(name, "unshare")
                .args([
                    "--map-root-user",
                    "--mount",
                    "sh",
                    "-e",
                    "-c",
                    AS_IN_A_POD,
                    "sh",
                ])
                .args([files, binary])
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("KUBERNETES_SERVICE_HOST", host)
                .env("KUBERNETES_SERVICE_PORT", port),
        }
    }
}

async fn credentials(
    control_plane: &ControlPlane,
    chart: &RenderedChart,
    options: &OperatorOptions,
) -> Result<Credentials> {
    let account = text(
        chart.the_only("Deployment")?,
        "/spec/template/spec/serviceAccountName",
    );
    let token = control_plane
        .service_account_token(&options.namespace, account)
        .await?;
    let server = options
        .kube_api
        .as_deref()
        .unwrap_or_else(|| control_plane.apiserver_url());
    let release = &options.release;
    if !options.in_pod {
        let file = format!("{release}.kubeconfig");
        let kubeconfig = control_plane.kubeconfig_with_token(&file, server, &token)?;
        return Ok(Credentials::Kubeconfig(kubeconfig));
    }
    let what = format!("making the service account's files of {release}");
    let address = server.strip_prefix("https://");
    let Some((host, port)) = address.and_then(|address| address.rsplit_once(':')) else {
        return Err(Error::new(
            what,
            format_args!("{server} is not https://host:port"),
        ));
    };
    let files = control_plane.folder().join(format!("{release}.account"));
    std::fs::create_dir_all(&files).context(&what)?;
    let contents = [
        ("token", &token),
        ("ca.crt", &control_plane.ca_pem()),
        ("namespace", &options.namespace),
    ];
    for (name, content) in contents {
        std::fs::write(files.join(name), content).context(&what)?;
    }
    Ok(Credentials::InPod {
        files,
        host: host.to_owned(),
        port: port.to_owned(),
    })
}

/// The arguments and variables of the rendered container, with addresses of this machine.
struct Container {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    health: String,
    webhook: Option<String>,
}

impl Container {
    fn of(deployment: &Value, options: &OperatorOptions) -> Result<Self> {
        let container = deployment
            .pointer("/spec/template/spec/containers/0")
            .ok_or_else(|| Error::new("reading the rendered Deployment", "it has no container"))?;
        let rendered = container
            .pointer("/args")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let mut arguments = on_loopback(rendered.map(ToOwned::to_owned).collect())?;
        let health = if let Some(address) = value_of(&arguments, "--health-address") {
            address
        } else {
            let address = format!("127.0.0.1:{}", free_port()?);
            arguments.extend(["--health-address".to_owned(), address.clone()]);
            address
        };
        let webhook = value_of(&arguments, "--webhook-address");
        let certificate = arguments
            .iter_mut()
            .find(|argument| argument.starts_with("--webhook-tls-folder="));
        if let (Some(argument), Some(folder)) = (certificate, &options.webhook_tls_folder) {
            *argument = format!("--webhook-tls-folder={}", folder.display());
        }
        let variables = container
            .pointer("/env")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let environment = variables
            .filter_map(|variable| {
                Some((
                    text(variable, "/name").to_owned(),
                    variable_value(variable, options)?,
                ))
            })
            .collect();
        Ok(Self {
            arguments,
            environment,
            health,
            webhook,
        })
    }
}

/// Gives every flag that ends in `-address` a free port of loopback: in a cluster each pod has ports of its own.
fn on_loopback(rendered: Vec<String>) -> Result<Vec<String>> {
    let mut arguments: Vec<String> = Vec::new();
    for argument in rendered {
        let after_flag = arguments
            .last()
            .is_some_and(|last| last.starts_with("--") && last.ends_with("-address"));
        let adapted = match argument.split_once('=') {
            Some((flag, _)) if flag.starts_with("--") && flag.ends_with("-address") => {
                format!("{flag}=127.0.0.1:{}", free_port()?)
            }
            _ if after_flag => format!("127.0.0.1:{}", free_port()?),
            _ => argument,
        };
        arguments.push(adapted);
    }
    Ok(arguments)
}

fn value_of(arguments: &[String], flag: &str) -> Option<String> {
    let joined = arguments
        .iter()
        .find_map(|argument| argument.strip_prefix(flag)?.strip_prefix('='));
    let separate = || {
        arguments
            .iter()
            .position(|argument| argument == flag)
            .and_then(|at| arguments.get(at + 1))
            .map(String::as_str)
    };
    joined.or_else(separate).map(ToOwned::to_owned)
}

/// The value of a variable; the values that only a pod has are simulated.
fn variable_value(variable: &Value, options: &OperatorOptions) -> Option<String> {
    if let Some(value) = variable.pointer("/value").and_then(Value::as_str) {
        return Some(value.to_owned());
    }
    match text(variable, "/valueFrom/fieldRef/fieldPath") {
        "metadata.namespace" => Some(options.namespace.clone()),
        "metadata.name" => Some(format!("{}-{}", options.release, options.replica)),
        "status.podIP" => Some("127.0.0.1".to_owned()),
        "spec.nodeName" => Some("kwok-0".to_owned()),
        _ => None,
    }
}
