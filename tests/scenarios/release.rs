//! The files of a release: they fit together, install, and name what is in the program.
//!
//! Absent: both architectures. The program is that of the tests; `make release` builds for others.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use pointsman_env::cache::Cache;
use pointsman_env::process::RunFolder;
use pointsman_env::{Tools, manifests, pages, tools};
use serde_json::Value;

use crate::fixture::{self, Environment, ScenarioResult, binary, scenarios};

scenarios!(
    the_files_of_a_release_fit_together,
    the_workflow_files_of_the_forge_are_right,
);

async fn the_files_of_a_release_fit_together(environment: Arc<Environment>) -> ScenarioResult {
    let folder = RunFolder::create("release").unwrap();
    let dist = folder.path().join("dist");
    build(folder.path(), &dist).await;
    run(&dist, "sha256sum --check --strict SHA256SUMS").await;
    run(
        &dist,
        "tar xzf kubectl-pointsman_*_linux_amd64.tar.gz && ./kubectl-pointsman version --help && test -s LICENSE",
    )
    .await;
    run(&dist, "! grep helm.sh/hook install.yaml").await;
    let manifest = std::fs::read_to_string(dist.join("pointsman.krew.yaml")).unwrap();
    let krew = manifests::parse(&manifest).unwrap().remove(0);
    let digest = krew["spec"]["platforms"][0]["sha256"].as_str().unwrap();
    let listed = format!("grep -q '^{digest}  kubectl-pointsman' SHA256SUMS");
    run(&dist, &listed).await;
    names_all_that_is_linked(&dist).await;
    is_accepted(&environment, &dist).await;
    Ok(())
}

async fn the_workflow_files_of_the_forge_are_right(_: Arc<Environment>) -> ScenarioResult {
    let cache = Cache::open().unwrap();
    let program = tokio::task::spawn_blocking(move || tools::actionlint(&cache)).await;
    let line = format!(
        "{} .github/workflows/*.yaml",
        program.unwrap().unwrap().display()
    );
    run(&pages::repository(), &line).await;
    Ok(())
}

async fn build(folder: &Path, dist: &Path) {
    let tools = Tools::locate(&Cache::open().unwrap()).unwrap();
    let program = folder.join("binaries/linux_amd64/pointsman");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    let strip = format!("strip -o {} {}", program.display(), binary().display());
    run(folder, &strip).await;
    let command = format!(
        "HELM={} BINARIES={} DIST={} release/build.sh",
        tools.helm.display(),
        folder.join("binaries").display(),
        dist.display(),
    );
    run(&pages::repository(), &command).await;
}

/// Each library whose sources the debug information of the program names is in the bill of materials.
async fn names_all_that_is_linked(dist: &Path) {
    let paths = format!(
        "strings -n 12 {} | grep -oE 'registry/src/[^/]+/[^/]+/' | cut -d / -f 4 | sort -u",
        binary().display()
    );
    let linked = run(dist, &paths).await;
    let file = run(dist, "cat pointsman_*.cdx.json").await;
    let bill: Value = serde_json::from_str(&file).unwrap();
    let components = bill["components"].as_array().unwrap().iter();
    let listed: BTreeSet<String> = components
        .map(|component| {
            let text = |key: &str| component[key].as_str().unwrap();
            format!("{}-{}", text("name"), text("version"))
        })
        .collect();
    let linked: Vec<&str> = linked.lines().collect();
    assert!(linked.len() > 50, "{linked:?}");
    let missing: Vec<&&str> = linked
        .iter()
        .filter(|library| !listed.contains(**library))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// install.yaml and the packed chart are accepted by the API server.
async fn is_accepted(environment: &Environment, dist: &Path) {
    let namespace = fixture::namespace(environment, "release").await;
    let kubectl = |arguments: &str| format!("kubectl {arguments}");
    let install = "apply --server-side --force-conflicts --dry-run=server -f install.yaml";
    let control_plane = namespace.control_plane();
    // The objects of install.yaml are in a namespace that a dry run does not make.
    let own = namespace.namespace();
    let moved = format!(
        "sed -i 's/namespace: pointsman$/namespace: {own}/; s/name: pointsman$/name: {own}/' {}/install.yaml",
        dist.display()
    );
    run(dist, &moved).await;
    let line = format!("cd {} && {}", dist.display(), kubectl(install));
    control_plane.shell(&line).await.unwrap();
    namespace.end().await.unwrap();
}

/// Runs a line in a shell in this folder, and returns its output.
async fn run(folder: &Path, line: &str) -> String {
    let output = tokio::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", line])
        .current_dir(folder)
        .output()
        .await
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{line}\n{stdout}\n{stderr}");
    stdout.into_owned()
}
