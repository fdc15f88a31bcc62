//! The health checks and actions for Argo CD in integrations/argocd, and the fragment of argocd-cm with the same scripts.
//! Absent: running them; Argo CD does.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// The kinds that have scripts.
pub const KINDS: [&str; 3] = ["AliasBinding", "ModelRegistry", "RegisteredModel"];

/// The group of the kinds, which is the name of their folder too.
const GROUP: &str = "pointsman.dev";

const HEAD: &str = "\
# The scripts of resource_customizations/ for an Argo CD that does not have them built in. Written by `make argocd`.
#   kubectl patch configmap argocd-cm -n argocd --patch-file integrations/argocd/argocd-cm.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
data:
";

/// The folder of the scripts, in the layout of Argo CD's own repository.
#[must_use]
pub fn customizations() -> PathBuf {
    folder().join("resource_customizations")
}

/// The folder with one folder for each kind.
#[must_use]
pub fn scripts() -> PathBuf {
    customizations().join(GROUP)
}

/// The file of the fragment of argocd-cm.
#[must_use]
pub fn fragment_file() -> PathBuf {
    folder().join("argocd-cm.yaml")
}

fn folder() -> PathBuf {
    crate::crate_folder().join("../../integrations/argocd")
}

/// A ConfigMap with all scripts, as a patch of argocd-cm.
pub fn fragment() -> Result<String> {
    let mut text = HEAD.to_owned();
    for kind in KINDS {
        let folder = scripts().join(kind);
        let health = read(&folder.join("health.lua"))?;
        let actions = indented(&actions(&folder.join("actions"))?, 4);
        let health = indented(&health, 4);
        let _infallible = write!(
            text,
            "  resource.customizations.health.{GROUP}_{kind}: |\n{health}  resource.customizations.actions.{GROUP}_{kind}: |\n{actions}"
        );
    }
    Ok(text)
}

/// The actions of one kind, as argocd-cm has them: YAML within a value.
fn actions(folder: &Path) -> Result<String> {
    let discovery = indented(&read(&folder.join("discovery.lua"))?, 2);
    let mut text = format!("discovery.lua: |\n{discovery}definitions:\n");
    for name in names(folder)? {
        let script = indented(&read(&folder.join(&name).join("action.lua"))?, 4);
        let _infallible = write!(text, "- name: {name}\n  action.lua: |\n{script}");
    }
    Ok(text)
}

/// The names of the actions: each has a folder with a script.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).context(format_args!("reading {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("action.lua").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(format_args!("reading {}", path.display()))
}

fn indented(text: &str, spaces: usize) -> String {
    text.lines().fold(String::new(), |mut indented, line| {
        let indentation = if line.is_empty() { 0 } else { spaces };
        let _infallible = writeln!(indented, "{:indentation$}{line}", "");
        indented
    })
}
