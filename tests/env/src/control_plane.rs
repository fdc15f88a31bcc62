//! A control plane on loopback: etcd, API server, controllers, scheduler, and kwok instead of nodes.
//! Absent: a kubelet (see `node`), network besides 127.0.0.1 (or that of a real node), and state that outlives it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tower::{BoxError, ServiceBuilder};

use crate::certificates::Certificates;
use crate::error::{Context, Error, Result};
use crate::kwok;
use crate::node::isolation::NODE_ADDRESS;
use crate::ports::free_port;
use crate::process::{Child, Program, RunFolder};
use crate::tools::Tools;

/// The time limit of each start; a loaded machine needs several times as long as an idle one.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOPBACK: &str = "127.0.0.1";
const NODES: [&str; 2] = ["kwok-0", "kwok-1"];
/// The controllers that workloads, Jobs, owner references and namespaces need, and no more: each costs watches and memory.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,statefulset-controller,daemonset-controller,job-controller,cronjob-controller,\
ttl-after-finished-controller,namespace-controller,serviceaccount-controller,garbage-collector-controller,\
node-lifecycle-controller,taint-eviction-controller,pod-garbage-collector-controller,clusterrole-aggregation-controller,\
resourcequota-controller";
/// Controllers that real pods need: their clients, and they to trust the API server.
const CONTROLLERS_OF_REAL_PODS: &str =
    "endpointslice-controller,root-ca-certificate-publisher-controller";

/// The parts to start.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // independent switches
pub struct ControlPlaneOptions {
    /// Whether Deployments roll out: controllers, scheduler and kwok. Without, there is only the API.
    pub workloads: bool,
    /// Whether the API server shares its attention fairly among its clients; off for measurements.
    pub fairness: bool,
    /// Whether kwok simulates nodes and pods. Otherwise pods wait for a real node.
    pub kwok: bool,
    /// Whether controllers, scheduler and kwok run without rate limits, for thousands of Deployments.
    pub unthrottled: bool,
    /// The address of the API server.
    pub address: &'static str,
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self {
            workloads: true,
            fairness: true,
            kwok: true,
            unthrottled: false,
            address: LOOPBACK,
        }
    }
}

impl ControlPlaneOptions {
    /// The API alone, unthrottled: for measurements.
    #[must_use]
    pub fn api_only() -> Self {
        Self {
            workloads: false,
            fairness: false,
            kwok: false,
            unthrottled: false,
            address: LOOPBACK,
        }
    }

    /// For thousands of Deployments: only processors limit the speed.
    #[must_use]
    pub fn at_scale() -> Self {
        Self {
            fairness: false,
            unthrottled: true,
            ..Self::default()
        }
    }

    /// For a real node, with endpoints of Services and an API server that pods can reach.
    #[must_use]
    pub fn for_real_node() -> Self {
        Self {
            kwok: false,
            address: NODE_ADDRESS,
            ..Self::default()
        }
    }
}

/// A running control plane; all of it ends when this is dropped.
pub struct ControlPlane {
    // The processes come before the folder that they write to, for fields are dropped in this order.
    processes: Mutex<Vec<Child>>,
    folder: RunFolder,
    url: String,
    certificates: Certificates,
    kubectl: PathBuf,
    client: kube::Client,
}

impl ControlPlane {
    /// Starts it and returns when the API is ready and, with workloads, the nodes are.
    pub async fn start(tools: &Tools, options: ControlPlaneOptions) -> Result<Self> {
        // An earlier call has installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = RunFolder::create("control-plane")?;
        let certificates = Certificates::create(folder.path())?;
        let layout = Layout {
            folder: folder.path().to_owned(),
            certificates: certificates.clone(),
            etcd: free_port()?,
            etcd_peer: free_port()?,
            address: options.address,
            api: free_port()?,
        };
        let processes = vec![
            layout.etcd(tools, options)?,
            layout.api_server(tools, options)?,
        ];
        let kubeconfig = layout.admin_kubeconfig()?;
        let client = client_from(&kubeconfig).await?;
        let control_plane = Self {
            processes: Mutex::new(processes),
            url: layout.url(),
            kubectl: tools.kubectl.clone(),
            folder,
            certificates,
            client,
        };
        control_plane.await_ready().await?;
        if options.workloads {
            let more = layout.workload_processes(tools, &kubeconfig, options)?;
            control_plane.processes.lock().unwrap().extend(more);
        }
        if options.kwok {
            let kwok = layout.kwok(tools, &kubeconfig, options)?;
            control_plane.processes.lock().unwrap().push(kwok);
            control_plane.create_nodes().await?;
            control_plane.await_nodes().await?;
        }
        Ok(control_plane)
    }

    /// The kubeconfig of the administrator.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// A client with every right.
    pub fn admin_client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The URL of the API server.
    pub fn apiserver_url(&self) -> &str {
        &self.url
    }

    /// The minor version of the API server.
    pub async fn minor(&self) -> Result<u32> {
        let what = "reading the version of the API server";
        let version = self.client.apiserver_version().await.context(what)?;
        let digits = version.minor.trim_end_matches('+');
        digits.parse().context(what)
    }

    /// The certificate authority that signed the API server's certificate.
    pub fn ca_pem(&self) -> String {
        fs::read_to_string(&self.certificates.authority)
            .expect("the authority's certificate was written at the start")
    }

    /// The folder of this run: data, logs, kubeconfigs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A token of a service account, as a pod would have it.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin_client(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(24 * 3600),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let what = format!("requesting a token of the service account {namespace}/{name}");
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .context(&what)?;
        answer
            .status
            .map(|status| status.token)
            .ok_or_else(|| Error::new(what, "the answer has no token"))
    }

    /// A kubeconfig with a bearer token, for the API server itself or for an interceptor before it.
    pub fn kubeconfig_with_token(
        &self,
        file_name: &str,
        server: &str,
        token: &str,
    ) -> Result<PathBuf> {
        let path = self.folder.path().join(file_name);
        write_kubeconfig(
            &path,
            server,
            &self.certificates.authority,
            &json!({"token": token}),
        )?;
        Ok(path)
    }

    /// Runs the real kubectl as the administrator and returns its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with_input(arguments, "").await
    }

    /// Runs a command line in a shell, as a person would who copied it out of a message; kubectl is on its PATH.
    pub async fn shell(&self, line: &str) -> Result<String> {
        let programs = self.kubectl.parent().unwrap_or_else(|| Path::new("/"));
        let path = std::env::var("PATH").unwrap_or_default();
        let output = tokio::process::Command::new("sh")
            .args(["-c", line])
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("KUBECONFIG", self.admin_kubeconfig())
            .env("HOME", self.folder.path())
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context(line)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::new(line, String::from_utf8_lossy(&output.stderr)))
    }

    /// Runs the real kubectl with something on its standard input, such as a manifest for `apply -f -`.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let what = format!("kubectl {}", arguments.join(" "));
        let output = self.run_kubectl(arguments, input).await.context(&what)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::new(what, String::from_utf8_lossy(&output.stderr)))
    }

    async fn run_kubectl(&self, arguments: &[&str], input: &str) -> std::io::Result<Output> {
        use tokio::io::AsyncWriteExt;
        let mut command = tokio::process::Command::new(&self.kubectl);
        command
            .args(arguments)
            .env("KUBECONFIG", self.admin_kubeconfig())
            .env("HOME", self.folder.path());
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            // kubectl may exit without reading it all; its output then has the cause.
            let _ = pipe.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    }

    /// The ends of all logs, for when something does not come up.
    pub fn log_tails(&self) -> String {
        let processes = self.processes.lock().unwrap();
        let tails: Vec<String> = processes
            .iter()
            .map(|child| format!("--- {}\n{}\n", child.log().display(), child.tail(15)))
            .collect();
        tails.concat()
    }

    /// Ends it all now; dropping does the same.
    pub fn stop(self) {
        drop(self);
    }

    async fn await_ready(&self) -> Result<()> {
        self.poll("waiting for the API server's /readyz", || async {
            let request = hyper::Request::get("/readyz")
                .body(Vec::new())
                .expect("a constant request");
            self.client
                .request_text(request)
                .await
                .is_ok_and(|answer| answer == "ok")
        })
        .await
    }

    async fn await_nodes(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.admin_client());
        self.poll("waiting for the nodes to be ready", || async {
            nodes.list(&ListParams::default()).await.is_ok_and(|list| {
                list.items.len() == NODES.len() && list.items.iter().all(is_schedulable)
            })
        })
        .await
    }

    async fn create_nodes(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.admin_client());
        for name in NODES {
            let parameters = PatchParams::apply("pointsman-env").force();
            nodes
                .patch(name, &parameters, &Patch::Apply(kwok::node(name)))
                .await
                .context(format_args!("creating the node {name}"))?;
        }
        Ok(())
    }

    /// Asks again and again: while the control plane starts there is nothing yet that could be watched.
    async fn poll<F: Future<Output = bool>>(&self, what: &str, ask: impl Fn() -> F) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if ask().await {
                return Ok(());
            }
            self.processes
                .lock()
                .unwrap()
                .iter_mut()
                .try_for_each(Child::still_running)?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Error::new(
            what,
            format_args!("not within {PATIENCE:?}\n{}", self.log_tails()),
        ))
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // In reverse order, so that no process spends its last seconds on retries.
        let mut processes = std::mem::take(&mut *self.processes.lock().unwrap());
        while let Some(process) = processes.pop() {
            drop(process);
        }
    }
}

/// Whether a node is ready and free of taints.
pub(crate) fn is_schedulable(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    ready && taints.is_none_or(Vec::is_empty)
}

/// A client from a kubeconfig file.
///
/// kube's own leaves Nagle's algorithm on: hyper writes the head and the body of a request separately, and the body then waits for
/// the acknowledgement of the head, which a kernel delays by 40 ms. Measurements would include that delay.
pub async fn client_from(kubeconfig: &Path) -> Result<kube::Client> {
    let what = format!("reading {}", kubeconfig.display());
    let content = Kubeconfig::read_from(kubeconfig).context(&what)?;
    let config = kube::Config::from_custom_kubeconfig(content, &KubeConfigOptions::default())
        .await
        .context(&what)?;
    prompt_client(config).context("making a Kubernetes client")
}

fn prompt_client(config: kube::Config) -> Result<kube::Client, kube::Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(
            hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector),
        );
    Ok(kube::Client::new(service, config.default_namespace))
}

/// Ports and files that the parts have to agree on.
struct Layout {
    folder: PathBuf,
    certificates: Certificates,
    etcd: u16,
    etcd_peer: u16,
    address: &'static str,
    api: u16,
}

impl Layout {
    fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.api)
    }

    /// Loopback is no address of an endpoint.
    fn endpoints(&self) -> &'static str {
        if self.address == LOOPBACK {
            "none"
        } else {
            "lease"
        }
    }

    fn etcd(&self, tools: &Tools, options: ControlPlaneOptions) -> Result<Child> {
        // Every revision of the last five minutes is kept; the default of 2 GB is not enough for tens of thousands of objects.
        let quota: &[&str] = if options.unthrottled {
            &["--quota-backend-bytes=8589934592"]
        } else {
            &[]
        };
        let client = format!("http://127.0.0.1:{}", self.etcd);
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer);
        Program::new("etcd", &tools.etcd)
            .args([
                "--data-dir".into(),
                self.folder.join("etcd").into_os_string(),
            ])
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
                "--initial-cluster",
                &format!("default={peer}"),
            ])
            // The data is thrown away with the run, so nothing has to reach the disk.
            .args(["--unsafe-no-fsync", "--log-level", "warn"])
            .args(quota)
            .start(&self.folder)
    }

    fn api_server(&self, tools: &Tools, options: ControlPlaneOptions) -> Result<Child> {
        let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
        let certificates = &self.certificates;
        Program::new("kube-apiserver", &tools.kube_apiserver)
            .args([
                format!("--etcd-servers=http://127.0.0.1:{}", self.etcd),
                format!("--secure-port={}", self.api),
            ])
            .args([
                file("tls-cert-file", &certificates.server),
                file("tls-private-key-file", &certificates.server_key),
                file("client-ca-file", &certificates.authority),
                file(
                    "service-account-key-file",
                    &certificates.service_account_public_key,
                ),
                file(
                    "service-account-signing-key-file",
                    &certificates.service_account_key,
                ),
                file("cert-dir", &self.folder),
                format!("--enable-priority-and-fairness={}", options.fairness),
            ])
            .args([
                format!("--bind-address={}", self.address),
                format!("--advertise-address={}", self.address),
                format!("--endpoint-reconciler-type={}", self.endpoints()),
                "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            ])
            .args([
                "--service-account-issuer=https://kubernetes.default.svc",
                "--authorization-mode=RBAC",
                "--allow-privileged=true",
            ])
            .args([
                "--max-requests-inflight=4000",
                "--max-mutating-requests-inflight=2000",
                "--profiling=false",
            ])
            .start(&self.folder)
    }

    fn workload_processes(
        &self,
        tools: &Tools,
        kubeconfig: &Path,
        options: ControlPlaneOptions,
    ) -> Result<Vec<Child>> {
        let as_admin = format!("--kubeconfig={}", kubeconfig.display());
        let controllers = if options.kwok {
            format!("--controllers={CONTROLLERS}")
        } else {
            format!("--controllers={CONTROLLERS},{CONTROLLERS_OF_REAL_PODS}")
        };
        let alone = ["--leader-elect=false", "--secure-port=0"];
        Ok(vec![
            Program::new("kube-controller-manager", &tools.kube_controller_manager)
                .args([&as_admin, &controllers])
                .args([format!(
                    "--root-ca-file={}",
                    self.certificates.authority.display()
                )])
                .args(alone)
                .args(budget(options))
                .args(["--concurrent-namespace-syncs=20"])
                .args(workers(options))
                .start(&self.folder)?,
            Program::new("kube-scheduler", &tools.kube_scheduler)
                .args([&as_admin])
                .args(alone)
                .args(budget(options))
                .start(&self.folder)?,
        ])
    }

    fn kwok(
        &self,
        tools: &Tools,
        kubeconfig: &Path,
        options: ControlPlaneOptions,
    ) -> Result<Child> {
        let stages = self.folder.join("stages.yaml");
        fs::write(&stages, kwok::configuration(options.unthrottled))
            .context(format_args!("writing {}", stages.display()))?;
        Program::new("kwok", &tools.kwok)
            .args([
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--config={}", stages.display()),
            ])
            .args([
                "--manage-all-nodes=true",
                "--node-lease-duration-seconds=40",
                "--v=WARN",
            ])
            .start(&self.folder)
    }

    fn admin_kubeconfig(&self) -> Result<PathBuf> {
        let path = self.folder.join("admin.kubeconfig");
        let user = json!({"client-certificate": self.certificates.admin, "client-key": self.certificates.admin_key});
        write_kubeconfig(&path, &self.url(), &self.certificates.authority, &user)?;
        Ok(path)
    }
}

/// How many requests a second a part may send.
fn budget(options: ControlPlaneOptions) -> [&'static str; 2] {
    if options.unthrottled {
        ["--kube-api-qps=5000", "--kube-api-burst=10000"]
    } else {
        ["--kube-api-qps=500", "--kube-api-burst=1000"]
    }
}

/// The number of workers of the controllers, if the default (5) would be the bottleneck.
fn workers(options: ControlPlaneOptions) -> &'static [&'static str] {
    if options.unthrottled {
        &[
            "--concurrent-deployment-syncs=20",
            "--concurrent-replicaset-syncs=20",
        ]
    } else {
        &[]
    }
}

/// Kubeconfigs are YAML, and so JSON will do.
fn write_kubeconfig(
    path: &Path,
    server: &str,
    authority: &Path,
    user: &serde_json::Value,
) -> Result<()> {
    let mut cluster = json!({"server": server});
    if server.starts_with("https://") {
        cluster["certificate-authority"] = json!(authority);
    }
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    });
    fs::write(path, content.to_string()).context(format_args!("writing {}", path.display()))
}
