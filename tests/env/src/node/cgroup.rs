//! A control group in every hierarchy, the parent of the pods' groups, and its removal.
//! Absent: limits; they are the kubelet's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context, Result};
use crate::process::RunFolder;

const ROOT: &str = "/sys/fs/cgroup";
/// How long the kernel may take to let go of the processes that were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A control group, named like the run's folder; it goes when this is dropped.
pub(crate) struct Cgroup {
    name: String,
}

impl Cgroup {
    /// Makes it; those of runs that were killed are removed on the way.
    pub(crate) fn create(folder: &RunFolder) -> Result<Self> {
        sweep();
        let cgroup = Self {
            name: folder.name(),
        };
        for hierarchy in hierarchies() {
            let path = hierarchy.join(&cgroup.name);
            fs::create_dir_all(&path).context(format_args!("creating {}", path.display()))?;
        }
        Ok(cgroup)
    }

    /// The name, which is also its path below the root of each hierarchy.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !remove(&self.name) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Why no groups can be made here for pods, if none can.
pub(crate) fn obstacle() -> Option<String> {
    let roots = hierarchies();
    if roots.is_empty() {
        return Some(format!("{ROOT} has no control groups"));
    }
    (roots == [PathBuf::from(ROOT)] && !delegates(&roots[0]))
        .then(|| format!("{ROOT} belongs to a container and delegates no controllers"))
}

/// Of the single hierarchy, only the machine's real root may have both processes and groups with controllers.
fn delegates(root: &Path) -> bool {
    let is_real_root = !root.join("cgroup.type").exists();
    let controllers = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
    is_real_root
        || ["cpu", "memory", "pids"]
            .iter()
            .all(|wanted| controllers.split_whitespace().any(|on| on == *wanted))
}

/// The roots of the hierarchies: one for each controller, or the only one.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let is_root = |path: &Path| path.join("cgroup.procs").exists();
    let root = PathBuf::from(ROOT);
    if is_root(&root) {
        return vec![root];
    }
    // Several controllers may be one hierarchy with a link for each.
    let is_own = |path: &PathBuf| is_root(path) && !path.is_symlink();
    fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(is_own)
        .collect()
}

/// Removes the group of that name everywhere; false while something is in it.
fn remove(name: &str) -> bool {
    let groups = || {
        hierarchies()
            .into_iter()
            .map(|hierarchy| hierarchy.join(name))
            .filter(|group| group.exists())
    };
    groups().for_each(|group| remove_tree(&group));
    groups().next().is_none()
}

/// Groups within groups go first; their files go with them.
fn remove_tree(group: &Path) {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for within in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&within.path());
    }
    // A group that still has processes stays.
    let _ = fs::remove_dir(group);
}

/// Removes the groups of runs that have ended. A group that still has processes stays; the kernel is ending these.
fn sweep() {
    let groups = hierarchies()
        .into_iter()
        .flat_map(|hierarchy| fs::read_dir(hierarchy).into_iter().flatten().flatten());
    for group in
        groups.filter(|group| RunFolder::is_left_behind(&group.file_name().to_string_lossy()))
    {
        remove_tree(&group.path());
    }
}
