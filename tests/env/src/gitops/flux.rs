//! Flux: its source-controller and kustomize-controller, as processes on loopback.
//! Absent: the helm-controller, whose module cannot be had, notifications, and image automation.

use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::account;
use crate::cache::Cache;
use crate::control_plane::ControlPlane;
use crate::error::{Context, Result};
use crate::kinds::{self, Kind};
use crate::operator::define;
use crate::peer;
use crate::ports::free_port;
use crate::process::{Child, Program, RunFolder};
use crate::tools::{self, PeerTools};

/// The namespace of the controllers.
pub const NAMESPACE: &str = "flux-system";
/// `GitRepository`
pub const GIT_REPOSITORY: Kind = kinds::kind(
    "source.toolkit.fluxcd.io",
    "v1",
    "GitRepository",
    "gitrepositories",
);
/// `Kustomization`
pub const KUSTOMIZATION: Kind = kinds::kind(
    "kustomize.toolkit.fluxcd.io",
    "v1",
    "Kustomization",
    "kustomizations",
);

/// Defines the kinds of both controllers, and waits until the API server serves them.
pub async fn install(client: &kube::Client) -> Result<()> {
    let folders = tokio::task::spawn_blocking(tools::flux_definitions).await;
    for folder in folders.context("downloading Flux")?? {
        define(client, &peer::definitions(&folder)?).await?;
    }
    Ok(())
}

/// A running Flux; it ends when this is dropped.
pub struct Flux {
    kustomize: Child,
    source: Child,
    _folder: RunFolder,
}

impl Flux {
    /// Builds the controllers, installs their kinds and starts them with every right.
    pub async fn start(control_plane: &Arc<ControlPlane>) -> Result<Self> {
        let build = || -> Result<(PeerTools, PeerTools)> {
            let cache = Cache::open()?;
            Ok((
                tools::source_controller(&cache)?,
                tools::kustomize_controller(&cache)?,
            ))
        };
        let (source, kustomize) = tokio::task::spawn_blocking(build)
            .await
            .context("building Flux")??;
        install(&control_plane.admin_client()).await?;
        let token = account(control_plane, NAMESPACE, "flux").await?;
        let kubeconfig = control_plane.kubeconfig_with_token(
            "flux.kubeconfig",
            control_plane.apiserver_url(),
            &token,
        )?;
        let folder = RunFolder::create("flux")?;
        let program = |name: &str, tools: &PeerTools| -> Result<Program> {
            Ok(Program::new(name, &tools.program)
                .only_this_environment()
                .args([
                    "--metrics-addr",
                    &loopback()?,
                    "--health-addr",
                    &loopback()?,
                ])
                .env("RUNTIME_NAMESPACE", NAMESPACE)
                .env("KUBECONFIG", &kubeconfig)
                .env("HOME", folder.path())
                .env("TMPDIR", folder.path()))
        };
        let storage = loopback()?;
        Ok(Self {
            source: program("source-controller", &source)?
                .args(["--storage-addr", &storage, "--storage-adv-addr", &storage])
                .args(["--storage-path".as_ref(), folder.path().as_os_str()])
                .start(folder.path())?,
            kustomize: program("kustomize-controller", &kustomize)?
                // One that waits for health keeps a worker busy.
                .args(["--concurrent", "20", "--requeue-dependency", "1s"])
                .start(folder.path())?,
            _folder: folder,
        })
    }

    /// A Secret with a kubeconfig, for Kustomizations that deploy to another control plane than Flux's own.
    pub async fn remote(name: &str, control_plane: &ControlPlane) -> Result<Value> {
        let token = account(control_plane, NAMESPACE, "flux").await?;
        let authority = ByteString(control_plane.ca_pem().into_bytes());
        let cluster = json!({
            "server": control_plane.apiserver_url(), "certificate-authority-data": authority,
        });
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        });
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": {"value": kubeconfig.to_string()},
        }))
    }

    /// The end of both logs.
    pub fn log_tails(&self) -> String {
        [&self.source, &self.kustomize]
            .map(|child| format!("----- {}\n{}\n", child.log().display(), child.tail(40)))
            .concat()
    }

    /// The logs.
    pub fn logs(&self) -> [&Path; 2] {
        [self.source.log(), self.kustomize.log()]
    }

    /// Ends it now; dropping does the same.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.kustomize.terminate()?;
        self.source.terminate()
    }
}

fn loopback() -> Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}
