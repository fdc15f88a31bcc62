//! A limit on the memory of a running process, as a container has it: by a cgroup, or where none can be made by its address space.
//!
//! Absent: limits on anything else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders in which memory cgroups are made, of version 2 and of version 1, with the file of the limit.
const CGROUPS: [(&str, &str); 2] = [
    ("/sys/fs/cgroup", "memory.max"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
];

/// The limit; the cgroup is removed when this is dropped after the process ended.
pub struct MemoryLimit {
    folder: Option<PathBuf>,
}

impl MemoryLimit {
    /// Limits a process to so many bytes. Its allocations beyond that fail, or it is killed.
    pub fn of(pid: u32, bytes: u64) -> Self {
        let made = CGROUPS
            .iter()
            .find_map(|(root, file)| cgroup(Path::new(root), file, pid, bytes));
        if made.is_none() {
            let limit = format!("--as={bytes}");
            let limited = Command::new("prlimit")
                .args(["--pid", &pid.to_string(), &limit])
                .status();
            assert!(
                limited.is_ok_and(|status| status.success()),
                "no limit can be set: no cgroup can be made, and prlimit fails"
            );
        }
        Self { folder: made }
    }

    /// How it is enforced.
    pub fn kind(&self) -> &'static str {
        if self.folder.is_some() {
            "a cgroup"
        } else {
            "its address space"
        }
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // It fails while the process runs.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn cgroup(root: &Path, file: &str, pid: u32, bytes: u64) -> Option<PathBuf> {
    let folder = root.join(format!("pointsman-bench-{pid}"));
    fs::create_dir(&folder).ok()?;
    let limited = fs::write(folder.join(file), bytes.to_string())
        .and_then(|()| fs::write(folder.join("cgroup.procs"), pid.to_string()));
    if limited.is_err() {
        let _ = fs::remove_dir(&folder);
        return None;
    }
    Some(folder)
}
