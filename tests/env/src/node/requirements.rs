//! The requirements of a real node on the machine, besides the programs that are built.
//! Absent: installing them; `.ci/run` does.

use std::path::Path;
use std::process::{Command, Stdio};

use super::cgroup;
use super::containerd::CNI_PLUGINS;
use crate::prerequisites::{find_on_path, is_executable};

/// Programs, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 6] = [
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
];
const PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];

/// A trial of the commands of `isolation`, in namespaces that end at once; `$0` and the arguments are the roots of the control groups.
const PROBE: &str = "mount -t tmpfs tmpfs /run && mkdir /run/upper /run/work \
    && mount -t overlay -o lowerdir=/var/lib,upperdir=/run/upper,workdir=/run/work overlay /var/lib \
    && ip link add node type bridge \
    && for root in \"$0\" \"$@\"; do test -w \"$root\" || { echo \"$root is read-only\" >&2; exit 1; }; done";

/// The reasons why no real node can run here; none if one can.
#[must_use]
pub fn missing() -> Vec<String> {
    if !cfg!(target_os = "linux") {
        return vec!["this is not Linux".to_owned()];
    }
    if !rustix::process::geteuid().is_root() {
        return vec!["this is not root".to_owned()];
    }
    let mut missing: Vec<String> = cgroup::obstacle().into_iter().collect();
    let programs = PROGRAMS
        .iter()
        .filter(|(program, _)| find_on_path(program).is_none());
    missing.extend(
        programs.map(|(program, package)| format!("{program} (Debian: apt-get install {package})")),
    );
    let plugins = PLUGINS
        .iter()
        .filter(|plugin| !is_executable(&Path::new(CNI_PLUGINS).join(plugin)));
    missing.extend(plugins.map(|plugin| {
        format!("{CNI_PLUGINS}/{plugin} (Debian: apt-get install containernetworking-plugins)")
    }));
    if missing.is_empty() {
        missing.extend(isolation_error());
    }
    missing
}

/// The error of making namespaces, which root in a container may not do.
fn isolation_error() -> Option<String> {
    let tried = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "--net",
            "--pid",
            "--fork",
            "--mount-proc",
            "sh",
            "-c",
            PROBE,
        ])
        .args(cgroup::hierarchies())
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "namespaces: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("namespaces: {error}")),
    }
}
