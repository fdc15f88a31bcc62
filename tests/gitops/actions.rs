//! The actions of Argo CD's user interface on a binding, run through Argo CD's API server.
//!
//! Absent: the user interface itself.

use std::sync::Arc;

use pointsman_env::Workload;
use pointsman_env::kinds::ALIAS_BINDING;
use serde_json::Value;

use crate::application::{Application, Mode};
use crate::fixture::{Fixture, ScenarioResult};
use crate::world::{World, tests};

tests!(the_actions_in_argocd_pin_suspend_resume_retry_and_keep_the_application_synced);

async fn the_actions_in_argocd_pin_suspend_resume_retry_and_keep_the_application_synced(
    world: Arc<World>,
) -> ScenarioResult {
    let fixture = Fixture::new(&world.environment, "argocd actions").await;
    let workload = Workload::deployment("server").with_behavior("3=crash");
    let mode = Mode::client_side();
    let mut application = Application::serving(&world, &fixture, &mode, 3, &workload).await;
    offers(&application, &["pin", "reapply", "refresh", "suspend"]).await;

    run(&application, "pin").await;
    fixture.alias("2").await;
    application.serves("1", "Pinned", "Healthy").await;
    offers(&application, &["reapply", "refresh", "suspend", "unpin"]).await;
    run(&application, "unpin").await;
    application.serves("2", "Live", "Healthy").await;
    application.was_written(1, "2").await;

    run(&application, "suspend").await;
    application.serves("2", "Suspended", "Suspended").await;
    offers(&application, &["pin", "resume"]).await;
    run(&application, "resume").await;
    application.serves("2", "Live", "Healthy").await;

    let undo = ["rollout", "undo", "deployment/server"];
    fixture.namespace.kubectl(&undo).await.unwrap();
    application.serves("1", "Held", "Suspended").await;
    run(&application, "resume").await;
    application.serves("2", "Live", "Healthy").await;
    application.was_written(2, "2").await;

    fixture.alias("3").await;
    application.serves("2", "RolledBack", "Degraded").await;
    application.was_written(2, "2").await;
    offers(
        &application,
        &["pin", "reapply", "refresh", "retry", "suspend"],
    )
    .await;
    run(&application, "retry").await;
    is_tried_again(&fixture).await;
    application.serves("2", "RolledBack", "Degraded").await;
    application.was_written(2, "2").await;
    application.was_at_peace();
    application.end().await;
    fixture.end().await
}

async fn run(application: &Application<'_>, action: &str) {
    let argocd = application.argocd().await;
    argocd
        .run_action(application.binding(), action)
        .await
        .unwrap();
}

async fn offers(application: &Application<'_>, actions: &[&str]) {
    let argocd = application.argocd().await;
    assert_eq!(
        argocd.actions(application.binding()).await.unwrap(),
        actions
    );
}

async fn is_tried_again(fixture: &Fixture) {
    let holds = |binding: &Value| {
        let history = binding["status"]["history"].as_array();
        let failures = history
            .into_iter()
            .flatten()
            .filter(|entry| entry["version"] == "3");
        failures.count() == 2 && binding["status"]["running"]["version"] == "2"
    };
    fixture
        .eventually(
            "version 3 was tried twice",
            &ALIAS_BINDING,
            "binding",
            holds,
        )
        .await;
}
