//! Lists all missing programs, and how to install them, before a long build begins.
//! Absent: installing them; `.ci/run` does.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// A program that building the environment needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prerequisite {
    /// The Go toolchain, for the control plane.
    Go,
    /// Python with its `venv` module, for `MLflow`.
    Python,
    /// A C compiler, for Rust's linker.
    Compiler,
}

/// Fails with the complete list of missing programs.
pub fn check(prerequisites: &[Prerequisite]) -> Result<()> {
    let missing: Vec<String> = prerequisites
        .iter()
        .filter_map(|each| each.missing())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        "checking the programs of this machine",
        "programs are missing",
    )
    .remedy(format!("\n    - {}", missing.join("\n    - "))))
}

impl Prerequisite {
    fn missing(self) -> Option<String> {
        match self {
            Self::Go => missing_go(),
            Self::Python => missing_python(),
            Self::Compiler => find_on_path("cc")
                .is_none()
                .then(|| "cc: install a C compiler (Debian: apt-get install gcc)".to_owned()),
        }
    }
}

fn missing_go() -> Option<String> {
    find_on_path("go")
        .is_none()
        .then(|| "go: install Go 1.26 or newer (https://go.dev/doc/install)".to_owned())
}

fn missing_python() -> Option<String> {
    if find_on_path("python3").is_none() {
        return Some(
            "python3: install Python 3.10 or newer (Debian: apt-get install python3 python3-venv)"
                .to_owned(),
        );
    }
    let can_make_environments = Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .output()
        .is_ok_and(|output| output.status.success());
    (!can_make_environments)
        .then(|| "the venv module of python3 (Debian: apt-get install python3-venv)".to_owned())
}

/// The program of that name on `PATH`.
#[must_use]
pub fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

/// Whether there is a file that may be run.
#[must_use]
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
