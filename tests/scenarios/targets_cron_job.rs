//! CronJobs as targets: the next Job runs the version, and its end tells how the version did.
//!
//! Absent: behaviour that does not depend on the kind.

use std::sync::Arc;

use pointsman_env::Workload;
use pointsman_env::kinds::{ALIAS_BINDING, CRON_JOB, JOB};
use pointsman_env::resources::{merge, object};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, env, ready_message, ready_reason, scenarios,
};

scenarios!(
    the_next_job_of_a_cron_job_runs_its_version_and_proves_it,
    a_version_whose_job_fails_is_taken_out_of_its_cron_job,
    a_job_that_takes_too_long_blames_no_version,
);

/// Once a year.
const SELDOM: &str = "0 0 1 1 *";

/// A CronJob whose Jobs retry no pod, with these more members of a Job's spec.
fn cron_job(schedule: &str, behavior: &str, job: Value) -> Value {
    let pods = Workload::deployment("server").with_behavior(behavior);
    let mut template = pods.manifest()["spec"]["template"].clone();
    template["spec"]["restartPolicy"] = json!("Never");
    let mut spec = json!({"backoffLimit": 0, "template": template});
    merge(&mut spec, job);
    let spec = json!({"schedule": schedule, "jobTemplate": {"spec": spec}});
    object(&CRON_JOB, "server", &spec)
}

/// A fixture whose operator drives CronJobs, with a model of three versions and champion on 1, and this CronJob with a binding.
async fn driving(environment: &Arc<Environment>, name: &str, cron_job: Value) -> Fixture {
    let values = json!({"targets": {"cronJobs": true}});
    let fixture = Fixture::with_values(environment, name, values).await;
    fixture.register(3).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture.namespace.kubectl_apply(cron_job).await.unwrap();
    let target = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "server"});
    fixture.declare_binding(json!({"targetRef": target})).await;
    fixture
}

/// Waits until the CronJob has a version.
async fn has_version(fixture: &Fixture, version: &str) -> Value {
    let holds = |found: &Value| {
        let template = &found["spec"]["jobTemplate"]["spec"]["template"];
        template["metadata"]["annotations"]["pointsman.dev/model-version"] == version
    };
    let description = format!("the CronJob has version {version}");
    fixture
        .eventually(&description, &CRON_JOB, "server", holds)
        .await
}

/// Creates a Job as a person does who does not wait for the schedule.
async fn create_job(fixture: &Fixture, name: &str) {
    let arguments = ["create", "job", name, "--from=cronjob/server"];
    fixture.namespace.kubectl(&arguments).await.unwrap();
}

async fn is_proven(fixture: &Fixture, version: &str) {
    let holds = |binding: &Value| {
        binding["status"]["lastGood"]["version"] == version && ready_reason(binding) == "Live"
    };
    let description = format!("version {version} is good");
    let proven = fixture.namespace.eventually(
        &description,
        PATIENCE.saturating_mul(2),
        &ALIAS_BINDING,
        "binding",
        holds,
    );
    proven.await;
}

async fn the_next_job_of_a_cron_job_runs_its_version_and_proves_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let every_minute = cron_job("* * * * *", "*=ready", json!({}));
    let fixture = driving(&environment, "cron job", every_minute).await;
    let first = has_version(&fixture, "1").await;
    // By its own controller, at the next minute.
    is_proven(&fixture, "1").await;
    let jobs = fixture.namespace.list(&JOB, "").await.unwrap();
    let scheduled = &jobs[0];
    assert_eq!(
        scheduled["metadata"]["ownerReferences"][0]["controller"],
        true
    );
    assert_eq!(env(scheduled, 0, "MODEL_VERSION").as_deref(), Some("1"));
    fixture.alias("2").await;
    has_version(&fixture, "2").await;
    create_job(&fixture, "second").await;
    is_proven(&fixture, "2").await;
    fixture.alias("1").await;
    let back = has_version(&fixture, "1").await;
    assert_eq!(
        back["spec"]["jobTemplate"], first["spec"]["jobTemplate"],
        "going back restores the template"
    );
    is_proven(&fixture, "1").await;
    fixture.end().await
}

async fn a_version_whose_job_fails_is_taken_out_of_its_cron_job(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let seldom = cron_job(SELDOM, "2=fail", json!({}));
    let fixture = driving(&environment, "failed job", seldom).await;
    has_version(&fixture, "1").await;
    let message = fixture.reports("ScaledToZero").await;
    assert!(
        message.contains("live when a Job of it is complete"),
        "{message}"
    );
    create_job(&fixture, "first").await;
    is_proven(&fixture, "1").await;
    fixture.alias("2").await;
    has_version(&fixture, "2").await;
    create_job(&fixture, "second").await;
    has_version(&fixture, "1").await;
    fixture.reports("RolledBack").await;
    let binding = fixture.binding().await;
    let held_back = &binding["status"]["heldBack"]["versions"][0];
    assert_eq!(held_back["version"], "2", "{binding}");
    // The condition may have room for its beginning only.
    let message = held_back["message"].as_str().unwrap();
    assert!(
        message.contains("Job second failed: BackoffLimitExceeded"),
        "{message}"
    );
    fixture.end().await
}

async fn a_job_that_takes_too_long_blames_no_version(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let seldom = cron_job(SELDOM, "1=never-ready", json!({"activeDeadlineSeconds": 2}));
    let fixture = driving(&environment, "long job", seldom).await;
    has_version(&fixture, "1").await;
    create_job(&fixture, "first").await;
    let blocked = |binding: &Value| ready_message(binding).contains("DeadlineExceeded");
    let description = "the end of the Job is told";
    let binding = fixture
        .eventually(description, &ALIAS_BINDING, "binding", blocked)
        .await;
    assert_eq!(ready_reason(&binding), "Blocked", "{binding}");
    assert_eq!(binding["status"]["heldBack"], Value::Null, "{binding}");
    fixture.end().await
}
