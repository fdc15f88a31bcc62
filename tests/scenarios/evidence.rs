//! What is known of versions and their files: registries and stores that hang, refuse, lose files or move them.
//!
//! Absent: failures of pods as such; see `failure`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_env::Workload;
use pointsman_env::interceptor::{Fault, Interceptor, matching};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, JOB, REGISTERED_MODEL, SECRET};
use pointsman_env::registrar::How;
use serde_json::{Value, json};

use crate::failure::lose_files;
use crate::fixture::{
    Environment, Fixture, ScenarioResult, condition, env, ready_reason, scenarios, template_version,
};

scenarios!(
    a_rollback_with_nine_candidates_takes_seconds_while_registry_and_store_hang,
    files_that_a_rollback_found_missing_are_not_rolled_out,
    a_store_that_lets_only_pods_in_hinders_no_rollback_and_loses_nothing,
    a_failed_first_version_starts_no_retrain_job,
    a_refused_retrain_job_is_tried_again_after_a_change,
    a_retrain_job_is_created_once_an_admission_webhook_answers_again,
    files_that_moved_are_followed_and_make_no_other_version,
);

/// Far longer than any wait of a scenario.
const FOR_EVER: Fault = Fault::Slow(Duration::from_secs(3600));

/// A fixture with so many versions of one model's files, which the MLflow server hands out.
async fn with_files(environment: &Arc<Environment>, name: &str, versions: usize) -> Fixture {
    let fixture = Fixture::new(environment, name).await;
    let trained = fixture.train(How::CreateModelVersion, 0.1).await;
    for _ in 1..versions {
        let copied = fixture.client.copy_version(&fixture.model, &trained);
        copied.await.unwrap();
    }
    fixture
}

/// Waits until the Deployment names a version.
async fn names(fixture: &Fixture, version: &str) -> Value {
    let holds = |deployment: &Value| template_version(deployment) == version;
    let what = format!("the Deployment names version {version}");
    fixture
        .eventually(&what, &DEPLOYMENT, "server", holds)
        .await
}

async fn rolled_back(fixture: &Fixture) -> Value {
    let holds = |binding: &Value| {
        ready_reason(binding) == "RolledBack" && condition(binding, "Stalled")["status"] == "True"
    };
    fixture
        .eventually("it is rolled back", &ALIAS_BINDING, "binding", holds)
        .await
}

fn retrain(restart_policy: &str) -> Value {
    let pod = json!({"restartPolicy": restart_policy,
        "containers": [{"name": "train", "image": "registry.example/train:1"}]});
    json!({"retrain": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}})
}

async fn jobs(fixture: &Fixture) -> usize {
    fixture.namespace.list(&JOB, "").await.unwrap().len()
}

async fn a_rollback_with_nine_candidates_takes_seconds_while_registry_and_store_hang(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_files(&environment, "nine candidates", 10).await;
    fixture.serve_with_behavior("10=crash", json!({})).await;
    for number in 2..=9 {
        fixture.alias(&number.to_string()).await;
        fixture.runs(&number.to_string()).await;
    }
    fixture.alias("10").await;
    names(&fixture, "10").await;
    fixture
        .registry
        .inject(matching::everything(), FOR_EVER, None);
    let failed = |binding: &Value| binding["status"]["heldBack"]["versions"][0]["version"] == "10";
    fixture
        .eventually("version 10 fails", &ALIAS_BINDING, "binding", failed)
        .await;
    let failed_at = Instant::now();
    names(&fixture, "9").await;
    let took = failed_at.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    fixture.registry.clear();
    rolled_back(&fixture).await;
    fixture.end().await
}

async fn files_that_a_rollback_found_missing_are_not_rolled_out(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "found missing").await;
    for alpha in [0.1, 0.2, 0.3] {
        fixture.train(How::RegisterModel, alpha).await;
    }
    fixture.serve_with_behavior("3=crash", json!({})).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    lose_files(&environment, &fixture, "2").await;
    fixture.alias("3").await;
    rolled_back(&fixture).await;
    assert_eq!(template_version(&fixture.deployment().await), "1");
    fixture.alias("2").await;
    let message = fixture.reports("ArtifactUnavailable").await;
    assert!(message.contains("version 2 is not rolled out"), "{message}");
    assert_eq!(template_version(&fixture.deployment().await), "1");
    let available = condition(&fixture.binding().await, "ArtifactAvailable").clone();
    assert_eq!(available["status"], "False", "{available}");
    fixture.end().await
}

async fn a_store_that_lets_only_pods_in_hinders_no_rollback_and_loses_nothing(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "not allowed to look").await;
    let store = Interceptor::start("http://127.0.0.1:1", None)
        .await
        .unwrap();
    let denied = Fault::Status {
        code: 403,
        content_type: "application/xml".into(),
        body: "<Error><Code>AccessDenied</Code></Error>".into(),
    };
    store.inject(matching::everything(), denied, None);
    let settings = json!({"AWS_ACCESS_KEY_ID": "operator", "AWS_SECRET_ACCESS_KEY": "hunter2-of-the-operator",
        "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": store.url(), "AWS_ALLOW_HTTP": "true"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "model-store"},
        "stringData": settings});
    fixture.namespace.create(&SECRET, &secret).await.unwrap();
    fixture.register(2).await;
    fixture.alias("1").await;
    fixture
        .declare_registry(json!({"artifacts": {"secretRef": {"name": "model-store"}}}))
        .await;
    fixture.declare_model(json!({})).await;
    let server = Workload::deployment("server").with_behavior("2=crash");
    fixture.deploy(&server).await;
    fixture.declare_binding(retrain("Never")).await;
    let live = fixture.runs("1").await;
    let available = condition(&live, "ArtifactAvailable");
    assert_eq!(available["status"], "Unknown", "{available}");
    let message = available["message"].as_str().unwrap_or_default();
    assert!(message.contains("may not look"), "{message}");
    fixture.alias("2").await;
    let back = rolled_back(&fixture).await;
    assert_eq!(template_version(&fixture.deployment().await), "1");
    assert!(back["status"]["lost"].is_null(), "{back}");
    assert_eq!(jobs(&fixture).await, 0);
    fixture.end().await
}

async fn a_failed_first_version_starts_no_retrain_job(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "nothing lost").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare().await;
    let server = Workload::deployment("server").with_behavior("1=crash");
    fixture.deploy(&server).await;
    fixture.declare_binding(retrain("Never")).await;
    let message = fixture.reports("NoRollbackTarget").await;
    assert!(message.contains("no earlier version was good"), "{message}");
    let binding = fixture.binding().await;
    assert!(
        binding["status"]["lost"].is_null() && binding["status"]["retrain"].is_null(),
        "{binding}"
    );
    assert_eq!(jobs(&fixture).await, 0);
    fixture.end().await
}

/// The outcome of the retrain Job.
fn retraining(outcome: &'static str) -> impl Fn(&Value) -> bool {
    move |binding| binding["status"]["retrain"]["outcome"] == outcome
}

/// Waits until the retrain Job has an outcome, and returns its message.
async fn retrains(fixture: &Fixture, outcome: &'static str) -> String {
    let what = format!("the retrain Job is {outcome}");
    let is = retraining(outcome);
    let binding = fixture
        .eventually(&what, &ALIAS_BINDING, "binding", is)
        .await;
    let message = &binding["status"]["retrain"]["message"];
    message.as_str().unwrap_or_default().to_owned()
}

/// Version 2 fails, and version 1 is gone.
async fn lose_version_1(fixture: &Fixture, restart_policy: &str) {
    fixture.register(2).await;
    fixture
        .serve_with_behavior("2=crash", retrain(restart_policy))
        .await;
    fixture.operator.freeze().unwrap();
    fixture.alias("2").await;
    let deleted = fixture.client.delete_version(&fixture.model, "1");
    deleted.await.unwrap();
    fixture.operator.thaw().unwrap();
}

async fn a_refused_retrain_job_is_tried_again_after_a_change(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "refused job").await;
    // A Job's pods must not be restarted always.
    lose_version_1(&fixture, "Always").await;
    let message = retrains(&fixture, "Refused").await;
    assert!(message.contains("restartPolicy"), "{message}");
    assert_eq!(jobs(&fixture).await, 0);
    fixture.declare_binding(retrain("Never")).await;
    retrains(&fixture, "Succeeded").await;
    assert_eq!(jobs(&fixture).await, 1);
    fixture.end().await
}

async fn a_retrain_job_is_created_once_an_admission_webhook_answers_again(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "job webhook").await;
    let down = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "reason": "InternalError",
        "message": "Internal error occurred: failed calling webhook \"jobs.example.com\": connection refused"});
    let creates = matching::write(format!("/{}/jobs", fixture.namespace.namespace()));
    let fault = Fault::json(500, down.to_string());
    fixture.api.inject(creates, fault, None);
    lose_version_1(&fixture, "Never").await;
    let message = retrains(&fixture, "Refused").await;
    assert!(message.contains("jobs.example.com"), "{message}");
    let lost = &fixture.binding().await["status"]["lost"]["version"];
    assert_eq!(lost, "1", "the loss is on record");
    assert_eq!(jobs(&fixture).await, 0);
    fixture.api.clear();
    retrains(&fixture, "Succeeded").await;
    assert_eq!(jobs(&fixture).await, 1);
    fixture.end().await
}

/// The registry names other URIs for the files of versions 1 to 3.
fn move_files(fixture: &Fixture) {
    for version in ["1", "2", "3"] {
        let moved = format!(r#"{{"artifact_uri": "s3://moved/{version}"}}"#);
        let of_version = format!("version={version}");
        let is_resolved = Box::new(move |_: &_, path: &str| {
            path.contains("get-download-uri") && path.contains(&of_version)
        });
        fixture
            .registry
            .inject(is_resolved, Fault::json(200, moved), None);
    }
}

async fn files_that_moved_are_followed_and_make_no_other_version(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "moved store").await;
    for alpha in [0.1, 0.2, 0.3] {
        fixture.train(How::RegisterModel, alpha).await;
    }
    fixture.serve_with_behavior("3=crash", json!({})).await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    move_files(&fixture);
    let uri = |model: &Value, version: &str| {
        let versions = model["status"]["versions"].as_array()?;
        let found = versions.iter().find(|each| each["version"] == version)?;
        found["artifactURI"].as_str().map(str::to_owned)
    };
    let of_version_in_use = |model: &Value| uri(model, "2").as_deref() == Some("s3://moved/2");
    fixture
        .eventually(
            "the mirror follows the version in use by itself",
            &REGISTERED_MODEL,
            "model",
            of_version_in_use,
        )
        .await;
    let request = [
        "annotate",
        "rmodel",
        "model",
        "pointsman.dev/requested-at=now",
    ];
    fixture.namespace.kubectl(&request).await.unwrap();
    let of_all = |model: &Value| {
        ["1", "2", "3"]
            .iter()
            .all(|version| uri(model, version) == Some(format!("s3://moved/{version}")))
    };
    fixture
        .eventually(
            "it follows all at a person's request",
            &REGISTERED_MODEL,
            "model",
            of_all,
        )
        .await;
    fixture.alias("3").await;
    rolled_back(&fixture).await;
    let back = names(&fixture, "2").await;
    assert_eq!(env(&back, 0, "MODEL_URI").as_deref(), Some("s3://moved/2"));
    fixture.alias("1").await;
    let binding = fixture.runs("1").await;
    let moved = env(&fixture.deployment().await, 0, "MODEL_URI");
    assert_eq!(moved.as_deref(), Some("s3://moved/1"));
    let newest = &binding["status"]["history"][0];
    assert_eq!(newest["artifactURI"], "s3://moved/1", "{newest}");
    assert_eq!(
        newest["availableAt"], newest["liveAt"],
        "it was good before, so it does not bake: {newest}"
    );
    fixture.end().await
}
