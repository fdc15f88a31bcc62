//! The Azure blob server, installed once by npm from exact versions into the cache, if there is a Node to run it.
//! Absent: starting it; the tests of artifact stores do. Nothing else needs Node, so Node is optional.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache::{Cache, Entry};
use crate::error::{Context, Error, Result};
use crate::prerequisites::find_on_path;
use crate::process::Program;
use crate::progress::Task;

/// The oldest Node that its dependencies run on.
const OLDEST_NODE: u32 = 20;
/// Complete and exact, and no script of a package is run: it is all JavaScript.
const INSTALL: &[&str] = &[
    "ci",
    "--ignore-scripts",
    "--omit=dev",
    "--omit=optional",
    "--no-audit",
    "--no-fund",
];

/// The reason why no server can run on this machine, if there is one.
#[must_use]
pub fn missing() -> Option<String> {
    if let Some(name) = ["node", "npm"]
        .into_iter()
        .find(|name| find_on_path(name).is_none())
    {
        return Some(format!(
            "{name} is not on PATH; install Node {OLDEST_NODE} or newer with npm to have it"
        ));
    }
    let output = Command::new("node").arg("--version").output();
    let said = output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    let is_new = major_of(&said).is_some_and(|major| major >= OLDEST_NODE);
    (!is_new).then(|| {
        format!("node --version says {said:?}; install Node {OLDEST_NODE} or newer to have it")
    })
}

/// The program that `node` runs, installed on first use.
///
/// # Errors
/// When npm cannot install it.
pub fn program(cache: &Cache) -> Result<PathBuf> {
    let module = crate::crate_folder().join("tools/azurite");
    let read = |name: &str| {
        let path = module.join(name);
        fs::read_to_string(&path).context(format_args!("reading {}", path.display()))
    };
    let files = [
        ("package.json", read("package.json")?),
        ("package-lock.json", read("package-lock.json")?),
    ];
    let entry = Entry::new("azurite", &files.each_ref().map(|(_, text)| text.as_str()));
    let folder = cache.entry(&entry, |partial| {
        for (name, text) in &files {
            fs::write(partial.join(name), text).context(format_args!("writing {name}"))?;
        }
        install(partial)
    })?;
    Ok(folder.join("node_modules/azurite/dist/src/blob/main.js"))
}

/// With a supervisor: an npm that outlives this process would write into the next installation.
fn install(folder: &Path) -> Result<()> {
    let task = Task::start("installing azurite", 0);
    let mut child = Program::new("npm-ci", "npm")
        .args(INSTALL)
        .in_its_folder()
        .start(folder)?;
    let status = loop {
        match child.ended() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    if !status.success() {
        return Err(Error::new("installing azurite with npm", format_args!("{status}\n{}", child.tail(15)))
            .remedy("see that npm reaches its registry (npm config get registry), or take node from PATH: only the tests of Azure's store need it"));
    }
    task.done();
    Ok(())
}

/// The 20 of `v20.20.2`.
fn major_of(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_what_node_prints() {
        assert_eq!(major_of("v20.20.2"), Some(20));
        assert_eq!(major_of("no such thing"), None);
    }
}
