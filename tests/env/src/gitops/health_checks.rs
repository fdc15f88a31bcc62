//! The health of objects as Argo CD and kstatus compute it, outside of a cluster.
//! Absent: the rules; they are in integrations/argocd and in kstatus.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::customizations;
use crate::cache::Cache;
use crate::error::{Context, Error, Result};
use crate::process::RunFolder;
use crate::tools;

/// An object with the health that Argo CD must find.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The name of the case.
    pub name: String,
    /// The object.
    pub object: Value,
    /// Healthy, Progressing, Degraded or Suspended.
    pub status: String,
    /// The message beside it.
    pub message: String,
}

/// Runs the scripts in integrations/argocd in Argo CD's interpreter against the results beside them. Returns a line for each case.
pub async fn test_scripts() -> Result<String> {
    run_scripts(&customizations::customizations()).await
}

/// Runs the health check of a kind on these objects in Argo CD's interpreter. Returns a line for each case.
pub async fn check_health(kind: &str, cases: &[Expected]) -> Result<String> {
    let folder = RunFolder::create("health")?;
    let of_kind = folder.path().join(kind);
    let what = "writing the cases of a health check";
    fs::create_dir_all(&of_kind).context(what)?;
    let mut tests = Vec::new();
    for case in cases {
        let file = format!("{}.yaml", case.name);
        fs::write(of_kind.join(&file), case.object.to_string()).context(what)?;
        let health = json!({"status": case.status, "message": case.message});
        tests.push(json!({"inputPath": file, "healthStatus": health}));
    }
    let tests = json!({"tests": tests}).to_string();
    fs::write(of_kind.join("health_test.yaml"), tests).context(what)?;
    let script = customizations::scripts().join(kind).join("health.lua");
    fs::copy(script, of_kind.join("health.lua")).context(what)?;
    run_scripts(folder.path()).await
}

async fn run_scripts(folder: &Path) -> Result<String> {
    let program = tokio::task::spawn_blocking(|| tools::argocd_scripts(&Cache::open()?))
        .await
        .context("building Argo CD")??;
    let what = "running scripts in Argo CD's interpreter";
    let output = Command::new(program)
        .arg(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context(what)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let failed: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("passed "))
        .collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(
        what,
        format_args!("{}\n{errors}", failed.join("\n")),
    ))
}

/// The result of kstatus for each object.
pub async fn kstatus(objects: &[Value]) -> Result<Vec<String>> {
    let what = "running kstatus";
    let program = tokio::task::spawn_blocking(|| tools::kstatus(&Cache::open()?))
        .await
        .context("building kstatus")??;
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context(what)?;
    let text = objects.iter().fold(String::new(), |mut text, object| {
        let _infallible = writeln!(text, "{object}");
        text
    });
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes()).await.context(what)?;
    }
    let output = child.wait_with_output().await.context(what)?;
    if !output.status.success() {
        return Err(Error::new(what, String::from_utf8_lossy(&output.stderr)));
    }
    let lines = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    Ok(lines)
}
