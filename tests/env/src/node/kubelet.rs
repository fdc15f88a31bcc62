//! The kubelet, with settings for a container, for both versions of control groups, and for more than one kubelet on a machine.
//! Absent: credentials of its own; it is the administrator.

use std::path::Path;

use serde_json::{Value, json};

use super::isolation::NODE_ADDRESS;
use super::{Isolation, NAME, containerd, write_json};
use crate::error::Result;
use crate::process::{Child, Program};
use crate::tools::NodeTools;

/// Starts it.
pub(super) fn start(
    tools: &NodeTools,
    folder: &Path,
    isolation: &Isolation,
    kubeconfig: &Path,
) -> Result<Child> {
    let configuration = folder.join("kubelet.json");
    write_json(&configuration, &settings(folder, isolation))?;
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    Program::new("kubelet", &tools.kubelet)
        .args([
            flag("config", &configuration),
            flag("kubeconfig", kubeconfig),
        ])
        .args([
            flag("root-dir", &folder.join("kubelet")),
            flag("cert-dir", &folder.join("kubelet-certificates")),
        ])
        .args([
            format!("--hostname-override={NAME}"),
            format!("--node-ip={NODE_ADDRESS}"),
        ])
        .start(folder)
}

fn settings(folder: &Path, isolation: &Isolation) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", containerd::socket(folder).display()),
        // Only the isolated network can reach it.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": isolation.cgroup(),
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        // The machine's disks and memory are not this node's to watch over.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "resolvConf": "",
        "volumePluginDir": folder.join("volume-plugins"),
        "podLogsDir": folder.join("pod-logs"),
    })
}
