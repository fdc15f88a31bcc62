//! A real node for a control plane: kubelet, containerd, runc and a bridge, so that pods really run, crash, probe and serve.
//! Absent: registries (the images are made here), DNS, and any trace of it afterwards.

mod cgroup;
mod containerd;
pub mod image;
pub mod isolation;
mod kube_proxy;
mod kubelet;
mod requirements;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::Api;

pub use image::Image;
pub use isolation::Isolation;
pub use requirements::missing;

use crate::control_plane::{ControlPlane, is_schedulable};
use crate::error::{Context, Error, Result};
use crate::process::Child;
use crate::tools::NodeTools;

/// How long the node may take until pods can be scheduled to it.
const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "node-0";

/// A running node; it and all its pods end when this is dropped. To be dropped before its control plane.
pub struct Node {
    // Fields are dropped in this order: the kubelet would restart containers that end with containerd.
    kubelet: Child,
    kube_proxy: Child,
    containerd: Child,
    tools: NodeTools,
    folder: PathBuf,
}

impl Node {
    /// Starts the node in an isolated process, and returns when pods can be scheduled to it.
    pub async fn start(
        control_plane: &ControlPlane,
        tools: &NodeTools,
        isolation: &Isolation,
    ) -> Result<Self> {
        let folder = isolation.folder().join("node");
        fs::create_dir_all(&folder).context(format_args!("creating {}", folder.display()))?;
        let mut containerd = containerd::start(tools, &folder).await?;
        containerd.still_running()?;
        let kubeconfig = control_plane.admin_kubeconfig();
        let kubelet = kubelet::start(tools, &folder, isolation, &kubeconfig)?;
        let kube_proxy = kube_proxy::start(tools, &folder, &kubeconfig)?;
        let mut node = Self {
            kubelet,
            kube_proxy,
            containerd,
            tools: tools.clone(),
            folder,
        };
        for image in image::all(tools) {
            node.import(&image).await?;
        }
        node.await_ready(control_plane).await?;
        Ok(node)
    }

    /// Makes an image that pods can name.
    pub async fn import(&self, image: &Image<'_>) -> Result<()> {
        let file = image.write(&self.folder)?;
        containerd::import(&self.tools, &self.folder, &file).await
    }

    /// The logs of its processes, for `TestNamespace::report_log`.
    pub fn logs(&self) -> [PathBuf; 3] {
        [&self.kubelet, &self.kube_proxy, &self.containerd].map(|child| child.log().to_owned())
    }

    async fn await_ready(&mut self, control_plane: &ControlPlane) -> Result<()> {
        let nodes: Api<NodeObject> = Api::all(control_plane.admin_client());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if nodes
                .get_opt(NAME)
                .await
                .is_ok_and(|node| node.is_some_and(|node| is_schedulable(&node)))
            {
                return Ok(());
            }
            self.kubelet.still_running()?;
            self.kube_proxy.still_running()?;
            self.containerd.still_running()?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let logs = format!("{}\n{}", self.containerd.tail(20), self.kubelet.tail(40));
        Err(Error::new(
            "waiting for the node to be ready",
            format_args!("not within {PATIENCE:?}\n{logs}"),
        ))
    }
}

/// Writes JSON, which is YAML too.
fn write_json(path: &Path, content: &serde_json::Value) -> Result<()> {
    fs::write(path, content.to_string()).context(format_args!("writing {}", path.display()))
}
