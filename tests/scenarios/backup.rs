//! Backup and restore by the commands of docs/install.md: the history survives, and no pod is replaced.
//!
//! Absent: a lost cluster. The objects are deleted and the workloads stay, which is the harder case: nothing may roll.

use std::sync::Arc;

use pointsman_env::pages;

use crate::fixture::{Environment, Fixture, ScenarioResult, scenarios};

scenarios!(a_restored_binding_has_its_history_and_replaces_no_pod);

async fn a_restored_binding_has_its_history_and_replaces_no_pod(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "backup").await;
    fixture.serve_version_1().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.reports("Live").await;
    let history = fixture.binding().await["status"]["history"].clone();
    let deployment = fixture.deployment().await;
    let file = fixture.namespace.control_plane().folder().join("backup");
    run(&fixture, &block_with("| jq "), &file).await;
    run(
        &fixture,
        &block_with("kubectl delete aliasbindings,"),
        &file,
    )
    .await;
    fixture.operator.stop().unwrap();
    let restore = block_with("--subresource=status");
    // The operator is stopped here, and no pod in its place.
    for line in restore.lines().filter(|line| !line.contains(" scale ")) {
        run(&fixture, line, &file).await;
    }
    fixture.operator.start_again().await.unwrap();
    fixture.runs("2").await;
    fixture.reports("Live").await;
    fixture.polled_twice().await;
    let restored = fixture.binding().await["status"]["history"].clone();
    assert_eq!(restored, history);
    let untouched = fixture.deployment().await;
    assert_eq!(
        untouched["metadata"]["generation"], deployment["metadata"]["generation"],
        "the restore replaced pods"
    );
    fixture.end().await
}

/// The block of docs/install.md with this text.
fn block_with(text: &str) -> String {
    let pages = pages::pages().unwrap();
    let page = pages.iter().find(|page| page.path.ends_with("install.md"));
    let blocks = page.unwrap().blocks();
    let block = blocks.iter().find(|block| block.text.contains(text));
    block.unwrap().text.clone()
}

/// Runs commands of the page in the namespace of the fixture, with this file as the backup.
async fn run(fixture: &Fixture, commands: &str, file: &std::path::Path) {
    let own = format!("kubectl -n {} ", fixture.namespace.namespace());
    let commands = commands.lines().filter(|line| !line.starts_with("helm "));
    let line = commands.collect::<Vec<_>>().join("\n");
    let line = line
        .replace("kubectl ", &own)
        .replace("pointsman-backup.json", &file.display().to_string());
    fixture.shell(&line).await.unwrap();
}
