//! kube-proxy, which gives Services their addresses by rules of the isolated network.
//! Absent: credentials of its own; it is the administrator.

use std::path::Path;

use serde_json::json;

use super::{NAME, write_json};
use crate::error::Result;
use crate::process::{Child, Program};
use crate::tools::NodeTools;

/// Starts it.
pub(super) fn start(tools: &NodeTools, folder: &Path, kubeconfig: &Path) -> Result<Child> {
    let configuration = folder.join("kube-proxy.json");
    let settings = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": NAME,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // Pods share a bridge, so the answer of one to another would not come back through the rules.
        "iptables": {"masqueradeAll": true, "syncPeriod": "10s", "minSyncPeriod": "100ms"},
        // These would be settings of the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    });
    write_json(&configuration, &settings)?;
    Program::new("kube-proxy", &tools.kube_proxy)
        .args([format!("--config={}", configuration.display())])
        .start(folder)
}
