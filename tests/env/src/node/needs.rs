//! What a real node needs of the machine, beside what is built.
//! Nothing is installed here: that is the reader's, or `.ci/run`'s.

use std::path::Path;

use super::cgroup;
use super::containerd::CNI_PLUGINS;
use crate::prerequisites::{find_on_path, is_executable};

/// Programs, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 5] =
    [("runc", "runc"), ("ip", "iproute2"), ("unshare", "util-linux"), ("setpriv", "util-linux"), ("mount", "mount")];
const PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];

/// Why no real node can run here; empty where one can.
#[must_use]
pub fn missing() -> Vec<String> {
    if !cfg!(target_os = "linux") {
        return vec!["this is not Linux".to_owned()];
    }
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("this is not root".to_owned());
    }
    if cgroup::hierarchies().is_empty() {
        missing.push("/sys/fs/cgroup has no control groups".to_owned());
    }
    let programs = PROGRAMS.iter().filter(|(program, _)| find_on_path(program).is_none());
    missing.extend(programs.map(|(program, package)| format!("{program} (Debian: apt-get install {package})")));
    let plugins = PLUGINS.iter().filter(|plugin| !is_executable(&Path::new(CNI_PLUGINS).join(plugin)));
    missing.extend(
        plugins.map(|plugin| format!("{CNI_PLUGINS}/{plugin} (Debian: apt-get install containernetworking-plugins)")),
    );
    missing
}
