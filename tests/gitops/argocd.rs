//! An application with a Deployment, a registry, a model and a binding in Argo CD, with automated sync, `selfHeal` and `prune`:
//! always synced, no fights, and the right health in every state.
//!
//! Absent: sync options (`options`), and actions (`actions`).

use std::sync::Arc;

use pointsman_env::Workload;
use serde_json::json;

use crate::application::{Application, Mode};
use crate::fixture::{Fixture, ScenarioResult};
use crate::world::{World, moves, tests};

tests!(
    an_application_with_client_side_apply_is_always_synced_and_has_the_right_health,
    an_application_with_server_side_apply_is_always_synced_and_has_the_right_health,
);

/// Versions behind the moves: one that crashes, one whose image cannot be had, and one more.
const FURTHER: u32 = 3;

async fn an_application_with_client_side_apply_is_always_synced_and_has_the_right_health(
    world: Arc<World>,
) -> ScenarioResult {
    story(&world, "argocd client", &Mode::client_side()).await
}

async fn an_application_with_server_side_apply_is_always_synced_and_has_the_right_health(
    world: Arc<World>,
) -> ScenarioResult {
    story(&world, "argocd server", &Mode::server_side()).await
}

async fn story(world: &World, name: &str, mode: &Mode) -> ScenarioResult {
    let moves = moves();
    let last = moves + 1;
    let (crashes, blocked, good) = (last + 1, last + 2, last + FURTHER);
    let workload = Workload::deployment("server")
        .with_behavior(&format!("{crashes}=crash,{blocked}=image-pull"));
    let fixture = Fixture::new(&world.environment, name).await;
    let mut application = Application::serving(world, &fixture, mode, good, &workload).await;
    for version in 2..=last {
        let version = version.to_string();
        fixture.alias(&version).await;
        application.serves(&version, "Live", "Healthy").await;
        application.was_written(1, &version).await;
    }
    let last = last.to_string();
    fails_and_is_blocked(&mut application, &last, crashes, blocked).await;
    is_pinned_and_suspended_in_git(&mut application, &last, good).await;
    is_undone_by_a_person(&mut application, &last, good).await;
    let figures = application.was_at_peace().await;
    let (samples, not_synced, wrong) = (figures.samples, figures.not_synced, figures.wrong_health);
    println!(
        "{name}: {moves} moves, fights 0, not synced {not_synced:?}, wrong health {wrong:?} in {samples} samples"
    );
    application.end().await;
    fixture.end().await
}

async fn fails_and_is_blocked(
    application: &mut Application<'_>,
    last: &str,
    crashes: u32,
    blocked: u32,
) {
    let fixture = application.fixture;
    fixture.alias(&crashes.to_string()).await;
    application.serves(last, "RolledBack", "Degraded").await;
    application.was_written(2, last).await;
    fixture.alias(last).await;
    application.serves(last, "Live", "Healthy").await;
    application.was_written(0, last).await;
    let blocked = blocked.to_string();
    fixture.alias(&blocked).await;
    application.serves(&blocked, "Blocked", "Progressing").await;
    application.was_written(1, &blocked).await;
    fixture.alias(last).await;
    application.serves(last, "Live", "Healthy").await;
    application.was_written(1, last).await;
}

async fn is_pinned_and_suspended_in_git(application: &mut Application<'_>, last: &str, good: u32) {
    let fixture = application.fixture;
    application.objects.binding["spec"]["pinnedVersion"] = json!("1");
    application.commit("pin version 1").await;
    application.serves("1", "Pinned", "Healthy").await;
    application.was_written(1, "1").await;
    let spec = application.objects.binding["spec"].as_object_mut().unwrap();
    spec.remove("pinnedVersion");
    application.commit("follow the alias").await;
    application.serves(last, "Live", "Healthy").await;
    application.was_written(1, last).await;
    application.objects.binding["spec"]["suspend"] = json!(true);
    application.commit("suspend").await;
    application.serves(last, "Suspended", "Suspended").await;
    let good = good.to_string();
    fixture.alias(&good).await;
    fixture.polled_twice().await;
    application.serves(last, "Suspended", "Suspended").await;
    application.was_written(0, last).await;
    application.objects.binding["spec"]["suspend"] = json!(false);
    application.commit("resume").await;
    application.serves(&good, "Live", "Healthy").await;
    application.was_written(1, &good).await;
}

async fn is_undone_by_a_person(application: &mut Application<'_>, last: &str, good: u32) {
    let fixture = application.fixture;
    let undo = ["rollout", "undo", "deployment/server"];
    fixture.namespace.kubectl(&undo).await.unwrap();
    application.serves(last, "Held", "Suspended").await;
    application.was_written(1, last).await;
    fixture.alias("1").await;
    application.serves("1", "Live", "Healthy").await;
    application.was_written(1, "1").await;
    let good = good.to_string();
    fixture.alias(&good).await;
    application.serves(&good, "Live", "Healthy").await;
    application.was_written(1, &good).await;
}
