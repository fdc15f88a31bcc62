//! Sync options that replace or skip objects, and a change cause that is kept in Git.
//!
//! Absent: server-side apply; `argocd` has it.

use std::sync::Arc;

use pointsman_env::Workload;
use serde_json::json;

use crate::application::{Application, Mode};
use crate::fixture::{Fixture, ScenarioResult};
use crate::world::{World, tests};

tests!(
    a_change_cause_in_git_stays_and_the_application_is_synced,
    with_apply_out_of_sync_only_a_commit_writes_the_deployment_once,
    with_replace_the_version_comes_back_after_each_commit_and_nothing_fights,
    with_force_and_replace_the_version_comes_back_after_each_commit_and_nothing_fights,
);

const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

async fn a_change_cause_in_git_stays_and_the_application_is_synced(
    world: Arc<World>,
) -> ScenarioResult {
    let fixture = Fixture::new(&world.environment, "change cause").await;
    let workload = Workload::deployment("server");
    let mode = Mode::client_side();
    let mut application = Application::serving(&world, &fixture, &mode, 3, &workload).await;
    application.objects.deployment["metadata"]["annotations"] = json!({CHANGE_CAUSE: "release 7"});
    application.commit("a change cause").await;
    application.was_written(1, "1").await;
    for version in ["2", "3"] {
        fixture.alias(version).await;
        application.serves(version, "Live", "Healthy").await;
        application.was_written(1, version).await;
        let deployment = fixture.deployment().await;
        assert_eq!(
            deployment["metadata"]["annotations"][CHANGE_CAUSE],
            "release 7"
        );
    }
    application.was_at_peace().await;
    application.end().await;
    fixture.end().await
}

async fn with_apply_out_of_sync_only_a_commit_writes_the_deployment_once(
    world: Arc<World>,
) -> ScenarioResult {
    let mode = Mode::with("ApplyOutOfSyncOnly=true");
    survives_commits(&world, "only out of sync", &mode, 1).await
}

/// `kubectl replace` removes what is not in the manifest, so each commit costs a second write.
async fn with_replace_the_version_comes_back_after_each_commit_and_nothing_fights(
    world: Arc<World>,
) -> ScenarioResult {
    survives_commits(&world, "replace", &Mode::with("Replace=true"), 2).await
}

/// A commit replaces the Deployment by another object, whose generation starts again.
async fn with_force_and_replace_the_version_comes_back_after_each_commit_and_nothing_fights(
    world: Arc<World>,
) -> ScenarioResult {
    let fixture = Fixture::new(&world.environment, "force").await;
    let workload = Workload::deployment("server");
    let mode = Mode::client_side();
    let mut application = Application::serving(&world, &fixture, &mode, 2, &workload).await;
    let before = fixture.deployment().await["metadata"]["uid"].clone();
    let options = json!({"argocd.argoproj.io/sync-options": "Force=true,Replace=true"});
    application.objects.deployment["metadata"]["annotations"] = options;
    application.commit("force").await;
    application.serves("1", "Live", "Healthy").await;
    let replaced = fixture.deployment().await;
    assert_ne!(replaced["metadata"]["uid"], before, "it is another object");
    assert_eq!(
        replaced["metadata"]["generation"], 2,
        "created, and given its version"
    );
    fixture.alias("2").await;
    application.serves("2", "Live", "Healthy").await;
    assert_eq!(fixture.deployment().await["metadata"]["generation"], 3);
    application.end().await;
    fixture.end().await
}

/// A commit that changes the pod template costs so many writes, and a move of the alias one.
async fn survives_commits(world: &World, name: &str, mode: &Mode, writes: i64) -> ScenarioResult {
    let fixture = Fixture::new(&world.environment, name).await;
    let workload = Workload::deployment("server");
    let mut application = Application::serving(world, &fixture, mode, 3, &workload).await;
    fixture.alias("2").await;
    application.serves("2", "Live", "Healthy").await;
    application.was_written(1, "2").await;
    let image = "/spec/template/spec/containers/0/image";
    *application.objects.deployment.pointer_mut(image).unwrap() =
        json!("registry.example/server:2");
    application.commit("another image").await;
    let holds = |deployment: &serde_json::Value| {
        let status = &deployment["status"];
        crate::fixture::template_version(deployment) == "2"
            && deployment.pointer(image) == Some(&json!("registry.example/server:2"))
            && status["observedGeneration"] == deployment["metadata"]["generation"]
            && status["updatedReplicas"] == 2
    };
    let deployment = &pointsman_env::kinds::DEPLOYMENT;
    fixture
        .eventually(
            "the image is new and the version is back",
            deployment,
            "server",
            holds,
        )
        .await;
    application.serves("2", "Live", "Healthy").await;
    application.was_written(writes, "2").await;
    fixture.alias("3").await;
    application.serves("3", "Live", "Healthy").await;
    application.was_written(1, "3").await;
    application.end().await;
    fixture.end().await
}
