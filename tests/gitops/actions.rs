//! The actions of Argo CD's user interface on a binding, run through Argo CD's API server.
//!
//! Absent: the user interface itself.

use std::sync::Arc;

use pointsman_env::Workload;
use pointsman_env::kinds::ALIAS_BINDING;
use serde_json::{Value, json};

use crate::application::{Application, Mode};
use crate::fixture::{Fixture, ScenarioResult};
use crate::world::{World, tests};

tests!(
    the_actions_in_argocd_pin_suspend_resume_retry_and_keep_the_application_synced,
    a_version_waits_until_it_is_approved_by_the_action_or_in_git,
);

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
    application.was_at_peace().await;
    application.end().await;
    fixture.end().await
}

async fn a_version_waits_until_it_is_approved_by_the_action_or_in_git(
    world: Arc<World>,
) -> ScenarioResult {
    let fixture = Fixture::new(&world.environment, "argocd approval").await;
    let (mode, workload) = (Mode::client_side(), Workload::deployment("server"));
    let mut application = Application::serving(&world, &fixture, &mode, 3, &workload).await;
    application.objects.binding["spec"]["promotion"] = json!({"approval": "Manual"});
    application.commit("versions need approval").await;
    application.serves("1", "Live", "Healthy").await;
    fixture.alias("2").await;
    application
        .serves("1", "AwaitingApproval", "Suspended")
        .await;
    offers(
        &application,
        &["approve", "pin", "reapply", "refresh", "suspend"],
    )
    .await;
    run(&application, "approve").await;
    application.serves("2", "Live", "Healthy").await;
    application.was_written(1, "2").await;

    fixture.alias("3").await;
    application
        .serves("2", "AwaitingApproval", "Suspended")
        .await;
    application.was_written(0, "2").await;
    application.objects.binding["spec"]["promotion"]["approvedVersion"] = json!("3");
    application.commit("approve version 3").await;
    application.serves("3", "Live", "Healthy").await;
    application.was_written(1, "3").await;
    let binding = fixture.binding().await;
    let approval = &binding["status"]["history"][0]["approval"];
    assert_eq!(approval["knownBy"], "FieldManager", "{binding}");
    application.was_at_peace().await;
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
