//! Bad days of the registry: nothing that it does, or fails to do, changes what serves.
//!
//! Absent: bad days of the operator; see `process`.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::interceptor::{Fault, matching};
use pointsman_env::kinds::{ALIAS_BINDING, SECRET};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::python::MlflowVersion;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Stage, Told, World, condition, ready, reason, scenarios};

scenarios!(
    a_missing_and_a_deleted_alias_leave_the_workload_alone,
    a_version_deleted_under_its_alias_leaves_the_workload_alone,
    mlflow_stopped_and_started_again_changes_nothing,
    bad_answers_are_told_and_leave_the_workload_alone,
    a_model_missing_from_one_listing_is_still_there,
    credentials_missing_or_wrong_are_told_and_put_right_without_a_restart,
    a_refused_host_name_is_told_with_its_remedy,
);

async fn a_missing_and_a_deleted_alias_leave_the_workload_alone(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "missing alias").await;
    stage.register(1).await;
    stage.declare().await;
    stage.bind(json!({})).await;
    let told = stage.says("AliasNotFound").await;
    assert!(
        told.contains("has no alias \"champion\"")
            && told.contains("client.set_registered_model_alias"),
        "{told}"
    );
    stage.alias("1").await;
    stage.runs("1").await;
    let before = stage.workload().await;
    stage
        .client
        .delete_alias(&stage.model, "champion")
        .await
        .unwrap();
    stage.says("AliasNotFound").await;
    assert_eq!(stage.workload().await, before);
    stage.alias("1").await;
    stage.says("Live").await;
    stage.end().await
}

async fn a_version_deleted_under_its_alias_leaves_the_workload_alone(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "deleted version").await;
    stage.set().await;
    let before = stage.workload().await;
    stage
        .client
        .delete_version(&stage.model, "1")
        .await
        .unwrap();
    stage.says("AliasNotFound").await;
    assert_eq!(stage.workload().await, before);
    stage.alias("2").await;
    stage.runs("2").await;
    stage.end().await
}

async fn mlflow_stopped_and_started_again_changes_nothing(world: Arc<World>) -> Told {
    let mut server = Mlflow::start(MlflowVersion::Three, MlflowOptions::default())
        .await
        .unwrap();
    let stage = Stage::at(
        &world,
        "mlflow stopped",
        MlflowVersion::Three,
        &server.url(),
    )
    .await;
    // Past the proxy: a stopped server refuses connections.
    stage.register(2).await;
    stage.alias("1").await;
    stage
        .declare_registry(json!({"mlflow": {"uri": server.url()}}))
        .await;
    stage.declare_model(json!({})).await;
    stage.bind(json!({})).await;
    stage.runs("1").await;
    let before = stage.workload().await;
    server.stop().await;
    let told = stage.registry_says("RegistryUnreachable").await;
    assert!(told.contains("127.0.0.1"), "{told}");
    stage.says("RegistryUnreachable").await;
    let binding = stage.binding().await;
    assert_eq!(ready(&binding), "True", "what was resolved still runs");
    assert_eq!(condition(&binding, "Resolved")["status"], "False");
    assert_eq!(stage.workload().await, before);
    server.start_again().await.unwrap();
    stage.says("Live").await;
    stage.alias("2").await;
    stage.runs("2").await;
    server.stop().await;
    stage.end().await
}

async fn bad_answers_are_told_and_leave_the_workload_alone(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "bad answers").await;
    stage.set().await;
    stage.alias("2").await;
    stage.runs("2").await;
    let before = stage.workload().await;
    let page = |code: u16, body: &str| Fault::Status {
        code,
        content_type: "text/html".into(),
        body: body.into(),
    };
    let rows = [
        (
            page(401, "<h1>Unauthorized</h1>"),
            "RegistryRefused",
            "spec.auth",
        ),
        (
            Fault::Status {
                code: 403,
                content_type: "text/plain".into(),
                body: "Permission denied".into(),
            },
            "RegistryRefused",
            "Permission denied",
        ),
        (
            Fault::json(
                500,
                r#"{"error_code": "INTERNAL_ERROR", "message": "disk full"}"#,
            ),
            "RegistryUnreachable",
            "disk full",
        ),
        (Fault::Html, "RegistryAnswerInvalid", "spec.mlflow.uri"),
        (Fault::TruncatedJson, "RegistryAnswerInvalid", ""),
        (Fault::EndlessJson, "RegistryAnswerInvalid", ""),
        (Fault::CloseConnection, "RegistryUnreachable", ""),
    ];
    for (fault, wanted, sentence) in rows {
        stage
            .registry
            .inject(matching::everything(), fault.clone(), None);
        stage
            .client
            .set_alias(&stage.model, "champion", "1")
            .await
            .unwrap();
        let told = |binding: &Value| {
            reason(binding) == wanted
                && condition(binding, "Resolved")["message"]
                    .as_str()
                    .unwrap_or_default()
                    .contains(sentence)
        };
        stage
            .place
            .eventually(
                &format!("{fault:?} is told"),
                PATIENCE,
                &ALIAS_BINDING,
                "binding",
                told,
            )
            .await;
        assert_eq!(stage.workload().await, before, "{fault:?}");
        stage
            .client
            .set_alias(&stage.model, "champion", "2")
            .await
            .unwrap();
        stage.registry.clear();
        stage.says("Live").await;
    }
    stage
        .registry
        .inject(matching::everything(), Fault::SlowDrip, None);
    stage.says("RegistryUnreachable").await;
    assert_eq!(stage.workload().await, before);
    stage.registry.clear();
    stage.says("Live").await;
    stage.end().await
}

async fn a_model_missing_from_one_listing_is_still_there(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "missing row").await;
    stage.set().await;
    // A listing by offset misses a live row where another was deleted meanwhile: an empty page.
    stage.registry.inject(
        matching::path_contains("registered-models/search"),
        Fault::json(200, "{}"),
        Some(3),
    );
    let is_well = |binding: &Value| reason(binding) == "Live";
    stage
        .place
        .stays(
            "nothing is believed gone",
            Duration::from_secs(5),
            &ALIAS_BINDING,
            "binding",
            is_well,
        )
        .await;
    stage.alias("2").await;
    stage.runs("2").await;
    stage.end().await
}

async fn credentials_missing_or_wrong_are_told_and_put_right_without_a_restart(
    world: Arc<World>,
) -> Told {
    let (user, password) = ("keeper", "a-long-passw0rd-of-the-test");
    let options = MlflowOptions {
        basic_auth: Some((user.to_owned(), password.to_owned())),
        ..MlflowOptions::default()
    };
    let mut server = Mlflow::start(MlflowVersion::Three, options).await.unwrap();
    let mut stage = Stage::at(&world, "credentials", MlflowVersion::Three, &server.url()).await;
    stage.client = stage.client.clone().with_basic_auth(user, password);
    stage.register(1).await;
    stage.alias("1").await;
    stage.declare_registry(json!({})).await;
    let told = stage.registry_says("RegistryRefused").await;
    assert!(told.contains("spec.auth"), "{told}");
    stage
        .declare_registry(json!({"auth": {"basic": {"secretRef": {"name": "mlflow"}}}}))
        .await;
    let told = stage.registry_says("CredentialsNotFound").await;
    assert!(told.contains("there is no Secret mlflow"), "{told}");
    secret(&stage, json!({"username": user})).await;
    let told = |registry: &Value| {
        condition(registry, "Ready")["message"]
            .as_str()
            .unwrap_or_default()
            .contains("no key password")
    };
    stage
        .place
        .eventually(
            "the missing key is named",
            PATIENCE,
            &pointsman_env::kinds::MODEL_REGISTRY,
            "mlflow",
            told,
        )
        .await;
    secret(
        &stage,
        json!({"username": user, "password": "wrong-and-secret"}),
    )
    .await;
    stage.registry_says("RegistryRefused").await;
    secret(&stage, json!({"username": user, "password": password})).await;
    stage.registry_says("Reachable").await;
    stage.declare_model(json!({})).await;
    stage.bind(json!({})).await;
    stage.runs("1").await;
    nothing_tells_a_secret(&stage, &[password, "wrong-and-secret"]).await;
    server.stop().await;
    stage.end().await
}

async fn secret(stage: &Stage, data: Value) {
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mlflow"}, "stringData": data});
    if stage.place.find(&SECRET, "mlflow").await.unwrap().is_some() {
        stage.place.delete(&SECRET, "mlflow").await.unwrap();
    }
    stage.place.create(&SECRET, &object).await.unwrap();
}

async fn nothing_tells_a_secret(stage: &Stage, secrets: &[&str]) {
    let everything = format!(
        "{}\n{}",
        stage
            .place
            .kubectl(&["get", "pointsman,deployments,events", "-o", "yaml"])
            .await
            .unwrap(),
        stage.operator.log()
    );
    for secret in secrets {
        assert!(!everything.contains(secret), "a credential was told");
    }
}

async fn a_refused_host_name_is_told_with_its_remedy(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "host name").await;
    let refusal = "Invalid Host header - possible DNS rebinding attack detected";
    let fault = Fault::Status {
        code: 403,
        content_type: "text/plain".into(),
        body: refusal.into(),
    };
    stage.registry.inject(matching::everything(), fault, None);
    stage.declare_registry(json!({})).await;
    let told = stage.registry_says("RegistryRefused").await;
    assert!(told.contains("--allowed-hosts"), "{told}");
    stage.registry.clear();
    stage.registry_says("Reachable").await;
    stage.end().await
}
