//! Failures of the registry (`fail_static`): none of them changes the workload.
//!
//! Absent: failures of the operator; see `process`.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::Workload;
use pointsman_env::interceptor::{Fault, matching};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, MODEL_REGISTRY, SECRET};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::python::MlflowVersion;
use pointsman_env::resources::{self, with_spec};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, condition, ready_message, ready_reason,
    scenarios, template_version,
};

scenarios!(
    a_missing_or_deleted_alias_leaves_the_workload_unchanged,
    a_version_deleted_under_its_alias_leaves_the_workload_unchanged,
    an_mlflow_outage_changes_no_workload,
    a_workload_deleted_or_replaced_in_an_outage_gets_back_the_version_that_ran,
    an_outage_is_told_by_the_registry_and_by_nobody_that_it_does_not_hinder,
    a_registry_that_is_made_again_keeps_nothing_of_the_old_one,
    invalid_responses_are_reported_and_leave_the_workload_unchanged,
    a_model_missing_from_one_listing_is_not_taken_for_deleted,
    wrong_credentials_are_reported_and_corrected_without_a_restart,
    a_refused_host_name_is_reported_with_a_remedy,
);

async fn a_missing_or_deleted_alias_leaves_the_workload_unchanged(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "missing alias").await;
    fixture.register(1).await;
    fixture.declare().await;
    fixture.bind(json!({})).await;
    let message = fixture.reports("AliasNotFound").await;
    assert!(
        message.contains("has no alias \"champion\"")
            && message.contains("client.set_registered_model_alias"),
        "{message}"
    );
    fixture.alias("1").await;
    fixture.runs("1").await;
    let before = fixture.workload().await;
    fixture
        .client
        .delete_alias(&fixture.model, "champion")
        .await
        .unwrap();
    fixture.reports("AliasNotFound").await;
    assert_eq!(fixture.workload().await, before);
    fixture.alias("1").await;
    fixture.reports("Live").await;
    fixture.end().await
}

async fn a_version_deleted_under_its_alias_leaves_the_workload_unchanged(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "deleted version").await;
    fixture.serve_version_1().await;
    let before = fixture.workload().await;
    fixture
        .client
        .delete_version(&fixture.model, "1")
        .await
        .unwrap();
    fixture.reports("AliasNotFound").await;
    assert_eq!(fixture.workload().await, before);
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.end().await
}

async fn an_mlflow_outage_changes_no_workload(environment: Arc<Environment>) -> ScenarioResult {
    let mut server = Mlflow::start(MlflowVersion::Three, MlflowOptions::default())
        .await
        .unwrap();
    let fixture = Fixture::at(
        &environment,
        "mlflow stopped",
        MlflowVersion::Three,
        &server.url(),
    )
    .await;
    // Not through the proxy: a stopped server refuses connections.
    fixture.register(2).await;
    fixture.alias("1").await;
    fixture
        .declare_registry(json!({"mlflow": {"uri": server.url()}}))
        .await;
    fixture.declare_model(json!({})).await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    let before = fixture.workload().await;
    server.stop().await;
    let message = fixture.registry_reports("RegistryUnreachable").await;
    assert!(message.contains("127.0.0.1"), "{message}");
    assert_eq!(fixture.workload().await, before);
    server.start_again().await.unwrap();
    fixture.registry_reports("Reachable").await;
    let binding = fixture.binding().await;
    assert_eq!(ready_reason(&binding), "Live", "it was not hindered");
    fixture.alias("2").await;
    fixture.runs("2").await;
    server.stop().await;
    fixture.end().await
}

/// Invalid responses, the reason that the registry reports, and a part of the message.
fn invalid_responses() -> [(Fault, &'static str, &'static str); 7] {
    let page = |code: u16, content_type: &str, body: &str| Fault::Status {
        code,
        content_type: content_type.into(),
        body: body.into(),
    };
    let unauthorized = page(401, "text/html", "<h1>Unauthorized</h1>");
    let forbidden = page(403, "text/plain", "Permission denied");
    let disk_full = r#"{"error_code": "INTERNAL_ERROR", "message": "disk full"}"#;
    [
        (unauthorized, "RegistryRefused", "spec.auth"),
        (forbidden, "RegistryRefused", "grant that user permission"),
        (
            Fault::json(500, disk_full),
            "RegistryUnreachable",
            "disk full",
        ),
        (Fault::Html, "RegistryAnswerInvalid", "spec.mlflow.uri"),
        (Fault::TruncatedJson, "RegistryAnswerInvalid", ""),
        (Fault::EndlessJson, "RegistryAnswerInvalid", ""),
        (Fault::CloseConnection, "RegistryUnreachable", ""),
    ]
}

async fn invalid_responses_are_reported_and_leave_the_workload_unchanged(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "bad answers").await;
    fixture.serve_version_1().await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    let before = fixture.workload().await;
    for (fault, wanted, sentence) in invalid_responses() {
        fixture
            .registry
            .inject(matching::everything(), fault.clone(), None);
        fixture.alias("1").await;
        let is_reported = |registry: &Value| {
            ready_reason(registry) == wanted && ready_message(registry).contains(sentence)
        };
        fixture
            .eventually(
                &format!("{fault:?} is reported"),
                &MODEL_REGISTRY,
                "mlflow",
                is_reported,
            )
            .await;
        assert_eq!(fixture.workload().await, before, "{fault:?}");
        fixture.alias("2").await;
        poll_now(&fixture, &format!("{fault:?}")).await;
    }
    fixture
        .registry
        .inject(matching::everything(), Fault::SlowDrip, None);
    fixture.registry_reports("RegistryUnreachable").await;
    assert_eq!(fixture.workload().await, before);
    fixture.registry.clear();
    fixture.reports("Live").await;
    fixture.end().await
}

/// Ends the faults, and has the registry polled at once, without its backoff.
async fn poll_now(fixture: &Fixture, request: &str) {
    fixture.registry.clear();
    let annotations = json!({"pointsman.dev/requested-at": request});
    let patch = json!({"metadata": {"annotations": annotations}});
    let patched = fixture.namespace.patch(&MODEL_REGISTRY, "mlflow", &patch);
    patched.await.unwrap();
    fixture.registry_reports("Reachable").await;
}

async fn an_outage_is_told_by_the_registry_and_by_nobody_that_it_does_not_hinder(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "quiet outage").await;
    fixture.serve_version_1().await;
    fixture.polled_twice().await;
    let before = fixture.workload().await;
    let (mark, failed) = (fixture.api.mark(), fixture.registry.mark());
    fixture
        .registry
        .inject(matching::everything(), Fault::json(500, "{}"), None);
    fixture.registry_reports("RegistryUnreachable").await;
    let polls = async {
        while fixture.registry.since(failed).len() < 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polls).await.unwrap();
    let written: Vec<String> = fixture
        .api
        .writes_since(mark)
        .into_iter()
        .map(|request| request.path)
        .filter(|path| {
            let kinds = ["registeredmodels", "aliasbindings", "events", "deployments"];
            kinds.iter().any(|kind| path.contains(kind))
        })
        .collect();
    assert!(written.is_empty(), "{written:?}");
    // A version that the mirror lacks may exist: this one is hindered.
    fixture.declare_binding(json!({"pinnedVersion": "7"})).await;
    let message = fixture.reports("RegistryUnreachable").await;
    assert!(message.contains("500"), "{message}");
    assert_eq!(fixture.workload().await, before);
    poll_now(&fixture, "now").await;
    fixture.reports("VersionNotFound").await;
    let events = fixture.namespace.events_about("binding").await.unwrap();
    let told = |(reason, _): &&(String, String)| reason == "RegistryUnreachable";
    assert_eq!(events.iter().filter(told).count(), 1, "{events:?}");
    fixture
        .declare_binding(json!({"pinnedVersion": null}))
        .await;
    fixture.reports("Live").await;
    fixture.end().await
}

async fn a_registry_that_is_made_again_keeps_nothing_of_the_old_one(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "made again").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    let declare = |uri: String| {
        let spec = json!({"mlflow": {"uri": uri}, "interval": "1h"});
        fixture.declare_registry(spec)
    };
    let is_polled = |metrics: &str| {
        let mut lines = metrics.lines();
        lines.any(|line| line.starts_with("pointsman_registry_last_success_timestamp_seconds{"))
    };
    declare(fixture.registry.url()).await;
    fixture.registry_reports("Reachable").await;
    assert!(is_polled(&fixture.operator.metrics().await.unwrap()));
    let delete = async || {
        let deleted = fixture.namespace.delete(&MODEL_REGISTRY, "mlflow");
        deleted.await.unwrap();
        fixture
            .eventually("it is gone", &MODEL_REGISTRY, "mlflow", Value::is_null)
            .await;
    };
    delete().await;
    declare("http://127.0.0.1:1".to_owned()).await;
    fixture.registry_reports("RegistryUnreachable").await;
    assert!(!is_polled(&fixture.operator.metrics().await.unwrap()));
    delete().await;
    // The same generation as before, and the next poll of the old one is an hour away.
    declare(fixture.registry.url()).await;
    fixture.registry_reports("Reachable").await;
    fixture.declare_model(json!({})).await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    fixture.end().await
}

async fn a_model_missing_from_one_listing_is_not_taken_for_deleted(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "missing row").await;
    fixture.serve_version_1().await;
    // A listing by offset misses a row if another row is deleted between two pages.
    fixture.registry.inject(
        matching::path_contains("registered-models/search"),
        Fault::json(200, "{}"),
        Some(3),
    );
    let is_well = |binding: &Value| ready_reason(binding) == "Live";
    fixture
        .namespace
        .stays(
            "nothing is believed gone",
            Duration::from_secs(5),
            &ALIAS_BINDING,
            "binding",
            is_well,
        )
        .await;
    fixture.alias("2").await;
    fixture.runs("2").await;
    fixture.end().await
}

async fn wrong_credentials_are_reported_and_corrected_without_a_restart(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let (user, password) = ("keeper", "hunter2-passw0rd-of-the-test");
    let options = MlflowOptions {
        basic_auth: Some((user.to_owned(), password.to_owned())),
        ..MlflowOptions::default()
    };
    let mut server = Mlflow::start(MlflowVersion::Three, options).await.unwrap();
    let mut fixture = Fixture::at(
        &environment,
        "credentials",
        MlflowVersion::Three,
        &server.url(),
    )
    .await;
    fixture.client = fixture.client.clone().with_basic_auth(user, password);
    fixture.register(1).await;
    fixture.alias("1").await;
    fixture.declare_registry(json!({})).await;
    let message = fixture.registry_reports("RegistryRefused").await;
    assert!(message.contains("spec.auth"), "{message}");
    fixture
        .declare_registry(json!({"auth": {"basic": {"secretRef": {"name": "mlflow"}}}}))
        .await;
    let message = fixture.registry_reports("CredentialsNotFound").await;
    assert!(message.contains("there is no Secret mlflow"), "{message}");
    secret(&fixture, json!({"username": user})).await;
    let is_reported = |registry: &Value| {
        condition(registry, "Ready")["message"]
            .as_str()
            .unwrap_or_default()
            .contains("no key password")
    };
    fixture
        .eventually(
            "the missing key is named",
            &pointsman_env::kinds::MODEL_REGISTRY,
            "mlflow",
            is_reported,
        )
        .await;
    secret(
        &fixture,
        json!({"username": user, "password": "hunter2-and-wrong"}),
    )
    .await;
    fixture.registry_reports("RegistryRefused").await;
    secret(&fixture, json!({"username": user, "password": password})).await;
    fixture.registry_reports("Reachable").await;
    fixture.declare_model(json!({})).await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    server.stop().await;
    fixture.end().await
}

async fn secret(fixture: &Fixture, data: Value) {
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mlflow"}, "stringData": data});
    if fixture
        .namespace
        .find(&SECRET, "mlflow")
        .await
        .unwrap()
        .is_some()
    {
        fixture.namespace.delete(&SECRET, "mlflow").await.unwrap();
    }
    fixture.namespace.create(&SECRET, &object).await.unwrap();
}

async fn a_refused_host_name_is_reported_with_a_remedy(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "host name").await;
    let refusal = "Invalid Host header - possible DNS rebinding attack detected";
    let fault = Fault::Status {
        code: 403,
        content_type: "text/plain".into(),
        body: refusal.into(),
    };
    fixture.registry.inject(matching::everything(), fault, None);
    fixture.declare_registry(json!({})).await;
    let message = fixture.registry_reports("RegistryRefused").await;
    assert!(message.contains("--allowed-hosts"), "{message}");
    fixture.registry.clear();
    fixture.registry_reports("Reachable").await;
    fixture.end().await
}

async fn a_workload_deleted_or_replaced_in_an_outage_gets_back_the_version_that_ran(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "put back").await;
    fixture.serve_version_1().await;
    let spec = Workload::deployment("owned").manifest()["spec"].clone();
    let template = json!({"spec": {"replicas": spec["replicas"], "template": spec["template"], "selector": spec["selector"]}});
    let mut owning = resources::alias_binding("owned", "model", "owned");
    owning = with_spec(owning, json!({"targetRef": null, "template": template}));
    fixture.apply_object(owning).await;
    fixture.binding_runs("owned", "1").await;
    let namespace = &fixture.namespace;
    let pods_of = |deployment: Value| deployment["spec"]["template"].clone();
    let target = pods_of(fixture.deployment().await);
    let owned = pods_of(namespace.get(&DEPLOYMENT, "owned").await.unwrap());

    let nothing = Fault::CloseConnection;
    fixture
        .registry
        .inject(matching::everything(), nothing, None);
    fixture.registry_reports("RegistryUnreachable").await;
    // As `kubectl replace --force` and `helm upgrade --force` do.
    namespace.delete(&DEPLOYMENT, "server").await.unwrap();
    let is_gone = |deployment: &Value| deployment.is_null();
    fixture
        .eventually("it is deleted", &DEPLOYMENT, "server", is_gone)
        .await;
    fixture.deploy(&Workload::deployment("server")).await;
    namespace.delete(&DEPLOYMENT, "owned").await.unwrap();

    let runs_again = |deployment: &Value| template_version(deployment) == "1";
    for (name, before) in [("server", target), ("owned", owned)] {
        let back = fixture
            .eventually("version 1 is back", &DEPLOYMENT, name, runs_again)
            .await;
        assert_eq!(pods_of(back), before, "{name}");
    }
    fixture.registry.clear();
    let live = fixture.runs("1").await;
    assert_eq!(live["status"]["history"].as_array().unwrap().len(), 1);
    fixture.end().await
}
