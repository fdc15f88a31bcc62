//! containerd with runc and a bridge, all its files in one folder, and the import of images.
//! Absent: registries and plugins that write elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::Command;

use super::{image, write_json};
use crate::error::{Context, Error, Result};
use crate::process::{Child, Program};
use crate::tools::NodeTools;

/// The folder of the CNI plugins in Debian.
pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts containerd and waits until it responds.
pub(super) async fn start(tools: &NodeTools, folder: &Path) -> Result<Child> {
    let configuration = folder.join("containerd.toml");
    fs::write(&configuration, settings(folder))
        .context(format_args!("writing {}", configuration.display()))?;
    write_network(folder)?;
    let mut containerd = Program::new("containerd", tools.containerd.join("containerd"))
        .args(["--config".as_ref(), configuration.as_os_str()])
        // containerd looks for its shim on PATH.
        .env("PATH", search_path(tools)?)
        .start(folder)?;
    await_answer(&mut containerd, folder).await?;
    Ok(containerd)
}

/// Imports an OCI layout for the kubelet's use.
pub(super) async fn import(tools: &NodeTools, folder: &Path, file: &Path) -> Result<()> {
    let what = format!("importing {}", file.display());
    let output = Command::new(tools.containerd.join("ctr"))
        .args(["--address".as_ref(), socket(folder).as_os_str()])
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(file)
        .output()
        .await
        .context(&what)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(what, String::from_utf8_lossy(&output.stderr)))
}

/// The socket that containerd listens on.
pub(super) fn socket(folder: &Path) -> PathBuf {
    folder.join("containerd.sock")
}

fn search_path(tools: &NodeTools) -> Result<std::ffi::OsString> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let folders = [tools.containerd.clone()]
        .into_iter()
        .chain(std::env::split_paths(&inherited));
    std::env::join_paths(folders).context("putting containerd's folder on PATH")
}

/// `restrict_oom_score_adj`: in a container, and on machines that lack `CAP_SYS_RESOURCE`, pods could not start without it.
/// Two plugins that would make folders below /opt and /etc are left out.
fn settings(folder: &Path) -> String {
    let path = |name: &str| format!("{}/{name}", folder.display());
    format!(
        r#"version = 3
root = "{root}"
state = "/run/containerd"
imports = []
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
address = "{socket}"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{CNI_PLUGINS}"]
conf_dir = "{networks}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        root = path("containerd"),
        socket = socket(folder).display(),
        pause = image::PAUSE,
        networks = path("networks"),
    )
}

/// A bridge that the node has an address on, so that the kubelet can probe pods and tests can call them.
fn write_network(folder: &Path) -> Result<()> {
    let networks = folder.join("networks");
    fs::create_dir_all(&networks).context(format_args!("creating {}", networks.display()))?;
    let addresses = json!({
        "type": "host-local",
        "dataDir": folder.join("addresses"),
        "ranges": [[{"subnet": "10.88.1.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    let bridge = json!({"type": "bridge", "bridge": "pods", "isGateway": true, "ipam": addresses});
    write_json(
        &networks.join("pods.conflist"),
        &json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}),
    )
}

async fn await_answer(containerd: &mut Child, folder: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if tokio::net::UnixStream::connect(socket(folder))
            .await
            .is_ok()
        {
            return Ok(());
        }
        containerd.still_running()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(Error::new(
        "waiting for containerd",
        format_args!("not within {PATIENCE:?}\n{}", containerd.tail(30)),
    ))
}
