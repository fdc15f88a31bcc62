//! Controllers of other projects, built once from their Go modules and run unchanged, to work with the operator or to be compared with it.
//! Absent: their files, and the load for them.

use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::error::{Context, Error, Result};
use crate::interceptor::Interceptor;
use crate::kinds::Kind;
use crate::manifests::{self, text};
use crate::operator::define;
use crate::ports::free_port;
use crate::process::{Child, Program, RunFolder};
use crate::test_namespace::TestNamespace;
use crate::tools::{self, PeerTools};

const MANAGER: &str = "pointsman-env";
const ACCOUNT: &str = "peer";
/// Their own rate limits of writes only lengthen the creation of many objects, before the measurement.
const QUERIES_A_SECOND: &str = "500";
const MOMENT: Duration = Duration::from_secs(1);

/// A running controller; it ends when this is dropped.
pub struct Peer {
    // The child is dropped before the servers that it uses, and before the folder of its files.
    child: Child,
    api: Interceptor,
    version: String,
    _folder: RunFolder,
}

impl Peer {
    /// Flux's source-controller with every right, watching this namespace.
    pub async fn source_controller(namespace: &TestNamespace) -> Result<Self> {
        let (folder, [storage, metrics, health]) = (RunFolder::create("peer")?, loopback()?);
        let program = |tools: &PeerTools| {
            Program::new("source-controller", &tools.program)
                .args([
                    "--watch-all-namespaces=false",
                    "--kube-api-burst",
                    QUERIES_A_SECOND,
                ])
                .args([
                    "--kube-api-qps",
                    QUERIES_A_SECOND,
                    "--storage-addr",
                    &storage,
                ])
                .args([
                    "--storage-adv-addr",
                    &storage,
                    "--metrics-addr",
                    &metrics,
                    "--health-addr",
                    &health,
                ])
                .args(["--storage-path".as_ref(), folder.path().as_os_str()])
                .env("RUNTIME_NAMESPACE", namespace.namespace())
        };
        let (child, api, version) =
            started(namespace, tools::source_controller, program, &folder).await?;
        Ok(Self {
            child,
            api,
            version,
            _folder: folder,
        })
    }

    /// Argo's controller of Rollouts with every right, for this namespace alone.
    pub async fn rollouts(namespace: &TestNamespace) -> Result<Self> {
        let folder = RunFolder::create("peer")?;
        let program = |tools: &PeerTools| {
            Program::new("rollouts-controller", &tools.program)
                .args([
                    "--namespaced",
                    "--namespace",
                    namespace.namespace(),
                    "--leader-elect=false",
                ])
                .args(["--qps", QUERIES_A_SECOND, "--burst", QUERIES_A_SECOND])
                // It would listen on every address of the machine; it runs without that port, too.
                .args(["--metricsport=-1", "--healthzPort=-1"])
                .env("POD_NAMESPACE", namespace.namespace())
        };
        let (child, api, version) =
            started(namespace, tools::rollouts_controller, program, &folder).await?;
        Ok(Self {
            child,
            api,
            version,
            _folder: folder,
        })
    }

    /// The proxy between it and the API server.
    pub fn api(&self) -> &Interceptor {
        &self.api
    }

    /// The version of its module.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        self.child
            .pid()
            .ok_or_else(|| Error::new("looking for the process of a peer", "it has not started"))
    }

    /// Returns when it has exited, with the end of its log.
    pub async fn ends(&mut self) -> Error {
        loop {
            if let Err(error) = self.child.still_running() {
                return error;
            }
            tokio::time::sleep(MOMENT).await;
        }
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        self.child.tail(lines)
    }

    /// Ends it.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.child.terminate()
    }
}

/// KServe's definition of a kind: the full one has the schema of every field and megabytes, the minimal one that of none.
pub async fn kserve_definition(kind: &Kind, form: &str) -> Result<Value> {
    let what = format!("reading KServe's {form} definition of {}", kind.kind);
    let folder = tokio::task::spawn_blocking(tools::kserve_definitions);
    let file = format!("{}_{}.yaml", kind.group, kind.plural);
    let path = folder.await.context(&what)??.join(form).join(file);
    let text = fs::read_to_string(path).context(&what)?;
    let mut all = manifests::parse(&text)?;
    all.pop()
        .ok_or_else(|| Error::new(what, "the file is empty"))
}

/// Installs a kind of KServe by its minimal definition, without its controller.
pub async fn define_kserve(namespace: &TestNamespace, kind: &Kind, form: &str) -> Result<()> {
    let mut definition = kserve_definition(kind, form).await?;
    if let Some(versions) = definition["spec"]["versions"].as_array_mut() {
        // KServe converts between versions by a webhook of its own.
        versions.retain(|version| version["name"] == kind.version);
        versions[0]["storage"] = json!(true);
    }
    define(&namespace.client(), &[definition]).await
}

/// Builds it, installs its kinds, and starts it with its log in `folder`.
async fn started(
    namespace: &TestNamespace,
    locate: fn(&Cache) -> Result<PeerTools>,
    program: impl FnOnce(&PeerTools) -> Program,
    folder: &RunFolder,
) -> Result<(Child, Interceptor, String)> {
    let tools = tokio::task::spawn_blocking(move || locate(&Cache::open()?))
        .await
        .context("building a peer")??;
    define(&namespace.client(), &definitions(&tools.definitions)?).await?;
    let token = token(namespace).await?;
    let api = proxy(namespace, &token).await?;
    let kubeconfig = format!("{}.kubeconfig", namespace.namespace());
    let program = program(&tools)
        .only_this_environment()
        .env(
            "KUBECONFIG",
            namespace
                .control_plane()
                .kubeconfig_with_token(&kubeconfig, &api.url(), &token)?,
        )
        .env("HOME", folder.path())
        .env("TMPDIR", folder.path());
    Ok((program.start(folder.path())?, api, tools.version))
}

/// Go's client sends no token over plain HTTP, even if its kubeconfig has one: the proxy adds it.
async fn proxy(namespace: &TestNamespace, token: &str) -> Result<Interceptor> {
    let (what, server) = (
        "placing a proxy before the API server",
        namespace.control_plane(),
    );
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).context(what)?;
    let added = HeaderMap::from_iter([(AUTHORIZATION, bearer)]);
    Interceptor::with_headers(server.apiserver_url(), Some(server.ca_pem()), added)
        .await
        .context(what)
}

/// All definitions of kinds in the files of that folder, without its other manifests.
pub(crate) fn definitions(folder: &Path) -> Result<Vec<Value>> {
    let what = format!("reading the definitions in {}", folder.display());
    let mut definitions = Vec::new();
    for file in fs::read_dir(folder).context(&what)? {
        let path = file.context(&what)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            definitions.extend(manifests::parse(&fs::read_to_string(path).context(&what)?)?);
        }
    }
    definitions.retain(|object| text(object, "/kind") == "CustomResourceDefinition");
    Ok(definitions)
}

/// A token with every right.
async fn token(namespace: &TestNamespace) -> Result<String> {
    let name = namespace.namespace();
    for object in rights(name) {
        manifests::apply(&namespace.client(), name, MANAGER, &object).await?;
    }
    namespace
        .control_plane()
        .service_account_token(name, ACCOUNT)
        .await
}

fn rights(namespace: &str) -> [Value; 2] {
    let group = "rbac.authorization.k8s.io";
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}});
    let binding = json!({
        "apiVersion": format!("{group}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("{namespace}-{ACCOUNT}")},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
    });
    [account, binding]
}

fn loopback() -> Result<[String; 3]> {
    let address = || free_port().map(|port| format!("127.0.0.1:{port}"));
    Ok([address()?, address()?, address()?])
}
