//! Forward, back, and onto a version that crashes, each under more than twenty thousand requests of which none may fail.
//!
//! Absent: status and Events in full; the scenarios on kwok's pods check them.

use std::sync::Arc;

use pointsman_env::load::{LoadOptions, Tally};
use serde_json::{Value, json};

use crate::fixture::{Environment, Fixture, MAX_RESTARTS, ScenarioResult, deployment, scenarios};

scenarios!(
    moving_the_alias_forward_fails_no_request,
    moving_the_alias_back_fails_no_request,
    a_crashing_version_fails_no_request_until_the_alias_moves_back,
    automatic_rollback_fails_no_request,
    replacing_all_pods_at_once_fails_requests_that_are_counted,
);

const ENOUGH: usize = 20_000;

async fn moving_the_alias_forward_fails_no_request(
    environment: Arc<Environment>,
) -> ScenarioResult {
    move_alias(&environment, "forward, 1 to 2", "1", "2").await
}

async fn moving_the_alias_back_fails_no_request(environment: Arc<Environment>) -> ScenarioResult {
    move_alias(&environment, "back, 2 to 1", "2", "1").await
}

async fn move_alias(
    environment: &Arc<Environment>,
    scenario: &'static str,
    from: &str,
    to: &str,
) -> ScenarioResult {
    let fixture = Fixture::serving(environment, scenario, from, plain(), json!({})).await;
    let load = fixture.load(LoadOptions::default()).await;
    fixture.alias(to).await;
    let moved = jiff::Timestamp::now();
    fixture.only_runs(to).await;
    let remark = format!(
        "only version {to} left {} after the alias moved",
        since(moved)
    );
    fixture.reports(to, "Live").await;
    let tally = fixture.settle(load, remark).await;
    assert_none_failed(&tally);
    assert!(
        tally.answered_by.contains_key(from) && tally.answered_by.contains_key(to),
        "{tally:?}"
    );
    fixture.end().await
}

async fn a_crashing_version_fails_no_request_until_the_alias_moves_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::serving(
        &environment,
        "to a crashing 3, and back by hand to 2",
        "2",
        plain(),
        json!({"onFailure": "Report"}),
    )
    .await;
    let load = fixture.load(LoadOptions::default()).await;
    fixture.alias("3").await;
    fixture.first_crash("3").await;
    let moved = jiff::Timestamp::now();
    fixture.alias("2").await;
    fixture.only_runs("2").await;
    let remark = format!(
        "version 2 fully back {} after the alias moved back",
        since(moved)
    );
    fixture.reports("2", "Live").await;
    assert_only_answered(&fixture.settle(load, remark).await, "2");
    fixture.end().await
}

async fn automatic_rollback_fails_no_request(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = Fixture::serving(
        &environment,
        "to a crashing 3, and back by itself to 2",
        "2",
        plain(),
        json!({}),
    )
    .await;
    let load = fixture.load(LoadOptions::default()).await;
    fixture.alias("3").await;
    let crashed = fixture.first_crash("3").await;
    fixture.last_crash("3", MAX_RESTARTS).await;
    let failed = since(crashed);
    fixture.has_version("2").await;
    let wanted = since(crashed);
    fixture.only_runs("2").await;
    let back = since(crashed);
    let remark = format!(
        "after the first crash of version 3: crash after restart {MAX_RESTARTS} {failed}, version 2 wanted again {wanted}, fully back {back}"
    );
    let binding = fixture.reports("2", "RolledBack").await;
    assert!(holds_back(&binding, "3"), "{binding}");
    assert_only_answered(&fixture.settle(load, remark).await, "2");
    fixture.end().await
}

/// A control: a Deployment that stops all pods first must fail requests, or the other counts prove nothing.
async fn replacing_all_pods_at_once_fails_requests_that_are_counted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut at_once = plain();
    at_once["spec"]["strategy"] = json!({"type": "Recreate"});
    let fixture = Fixture::serving(
        &environment,
        "forward, all pods at once (a control)",
        "1",
        at_once,
        json!({}),
    )
    .await;
    let load = fixture
        .load(LoadOptions {
            at_least: 0,
            ..LoadOptions::default()
        })
        .await;
    fixture.alias("2").await;
    fixture.only_runs("2").await;
    let tally = fixture.settle(load, String::new()).await;
    assert!(tally.failed > 0, "{tally:?}");
    fixture.end().await
}

/// Version 3 of every model crashes.
fn plain() -> Value {
    deployment("3=crash")
}

fn since(then: jiff::Timestamp) -> String {
    format!(
        "{:.1} s",
        jiff::Timestamp::now().duration_since(then).as_secs_f64()
    )
}

fn holds_back(binding: &Value, version: &str) -> bool {
    binding["status"]["heldBack"]["versions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|each| each["version"] == version))
}

fn assert_none_failed(tally: &Tally) {
    assert!(tally.sent >= ENOUGH, "too few requests: {tally:?}");
    assert_eq!(tally.failed, 0, "{tally:?}");
}

fn assert_only_answered(tally: &Tally, version: &str) {
    assert_none_failed(tally);
    assert_eq!(
        tally.answered_by.keys().collect::<Vec<_>>(),
        [version],
        "{tally:?}"
    );
}
