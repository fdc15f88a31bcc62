//! A registered model: created, adopted, kept as declared, mirrored, deleted; and access to registries of other namespaces.
//!
//! Absent: workloads, except as a proof that the mirror is right.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::interceptor::{Fault, matching};
use pointsman_env::kinds::{DEPLOYMENT, MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::How;
use pointsman_env::resources::{self, with_spec};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, env, namespace, ready_message, ready_reason,
    scenarios, template_version,
};

scenarios!(
    a_missing_model_is_created_and_kept_as_declared,
    an_existing_model_is_adopted_without_losing_its_tags,
    declared_aliases_are_restored_and_others_are_left_alone,
    a_model_is_deleted_only_with_deletion_policy_delete,
    the_mirror_shows_metrics_parameters_size_and_code_of_a_version,
    runs_that_are_slow_or_fail_delay_no_move_also_after_a_restart,
    unusual_model_names_work_like_any_other,
    a_dollar_sign_from_the_registry_expands_to_nothing_in_a_pod,
    all_followed_versions_are_mirrored_and_a_status_that_is_too_large_is_cut_and_says_so,
    a_model_deleted_and_created_again_is_another_model,
    a_registry_of_another_namespace_needs_allowed_namespaces,
);

/// Far less time than a request to the registry may take.
const AT_ONCE: Duration = Duration::from_secs(10);

async fn a_missing_model_is_created_and_kept_as_declared(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "made model").await;
    fixture.declare_registry(json!({})).await;
    fixture.declare_model(json!({})).await;
    let message = fixture.model_reports("ModelNotFound").await;
    assert!(
        message.contains("register it, or set spec.creationPolicy: Create"),
        "{message}"
    );
    fixture
        .declare_model(json!({"creationPolicy": "Create", "description": "taxi fares", "tags": {"creator": "kamal"}}))
        .await;
    fixture.model_reports("Mirrored").await;
    let made = fixture.client.get_model(&fixture.model).await.unwrap();
    assert_eq!(
        (
            made["description"].as_str(),
            made["tags"]["creator"].as_str()
        ),
        (Some("taxi fares"), Some("kamal")),
        "{made}"
    );
    fixture
        .client
        .set_tag(&fixture.model, None, "creator", "another-person")
        .await
        .unwrap();
    until(&fixture, "the declared tag is written again", |model| {
        model["tags"]["creator"] == "kamal"
    })
    .await;
    fixture.end().await
}

/// Polls MLflow, which has no watch.
async fn until(fixture: &Fixture, description: &str, holds: impl Fn(&Value) -> bool) {
    let polling = async {
        while !holds(&fixture.client.get_model(&fixture.model).await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, polling).await.is_err() {
        panic!(
            "{description}: not within {PATIENCE:?}\n{}\n{}",
            fixture.client.get_model(&fixture.model).await.unwrap(),
            fixture.namespace.report().await
        );
    }
}

async fn an_existing_model_is_adopted_without_losing_its_tags(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "adopted model").await;
    fixture.register(2).await;
    fixture.alias("2").await;
    fixture
        .client
        .set_tag(&fixture.model, None, "team", "pricing")
        .await
        .unwrap();
    fixture.declare_registry(json!({})).await;
    fixture
        .declare_model(json!({"creationPolicy": "Create", "tags": {"creator": "kamal"}}))
        .await;
    fixture.model_reports("Mirrored").await;
    let model = fixture.client.get_model(&fixture.model).await.unwrap();
    assert_eq!(
        (
            model["tags"]["team"].as_str(),
            model["tags"]["creator"].as_str()
        ),
        (Some("pricing"), Some("kamal")),
        "{model}"
    );
    assert_eq!(model["aliases"]["champion"], "2", "{model}");
    fixture.end().await
}

async fn declared_aliases_are_restored_and_others_are_left_alone(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "declared aliases").await;
    fixture.register(2).await;
    fixture
        .client
        .set_alias(&fixture.model, "challenger", "1")
        .await
        .unwrap();
    fixture.declare_registry(json!({})).await;
    fixture
        .declare_model(json!({"aliases": [{"name": "champion", "version": "7"}]}))
        .await;
    let message = fixture.model_reports("VersionNotFound").await;
    assert!(message.contains("has no version 7"), "{message}");
    fixture
        .declare_model(json!({"aliases": [{"name": "champion", "version": "2"}]}))
        .await;
    fixture.model_reports("Mirrored").await;
    until(&fixture, "the declared alias is set", |model| {
        model["aliases"]["champion"] == "2"
    })
    .await;
    fixture.alias("1").await;
    until(&fixture, "the declared alias is set back", |model| {
        model["aliases"]["champion"] == "2"
    })
    .await;
    until(&fixture, "the other alias is left alone", |model| {
        model["aliases"]["challenger"] == "1"
    })
    .await;
    fixture.end().await
}

async fn a_model_is_deleted_only_with_deletion_policy_delete(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "deleted object").await;
    fixture.register(1).await;
    fixture.declare().await;
    fixture.model_reports("Mirrored").await;
    gone(&fixture).await;
    fixture
        .client
        .get_model(&fixture.model)
        .await
        .expect("Retain keeps the registered model");
    fixture.client.delete_model(&fixture.model).await.unwrap();
    fixture
        .declare_model(json!({"creationPolicy": "Create", "deletionPolicy": "Delete"}))
        .await;
    let guarded = |model: &Value| {
        model["metadata"]["finalizers"].is_array()
            && model["status"]["ownedModelCreatedAt"].is_string()
    };
    fixture
        .eventually("the object is guarded", &REGISTERED_MODEL, "model", guarded)
        .await;
    gone(&fixture).await;
    let error = fixture
        .client
        .get_model(&fixture.model)
        .await
        .expect_err("Delete deletes the registered model")
        .to_string();
    assert!(error.contains("not found"), "{error}");
    fixture.end().await
}

async fn gone(fixture: &Fixture) {
    fixture
        .namespace
        .delete(&REGISTERED_MODEL, "model")
        .await
        .unwrap();
    fixture
        .eventually(
            "the object goes",
            &REGISTERED_MODEL,
            "model",
            Value::is_null,
        )
        .await;
}

async fn the_mirror_shows_metrics_parameters_size_and_code_of_a_version(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "mirror").await;
    let trained = fixture.train(How::RegisterModel, 0.25).await;
    fixture.alias(&trained.version).await;
    fixture.declare().await;
    // The size is read after the version was published.
    let is_reported = |model: &Value| model["status"]["versions"][0]["sizeBytes"].is_i64();
    let seen = fixture
        .eventually(
            "the version is mirrored with its size",
            &REGISTERED_MODEL,
            "model",
            is_reported,
        )
        .await;
    let version = &seen["status"]["versions"][0];
    assert!(version["artifactURI"].is_string(), "{version}");
    assert_eq!(version["runID"], json!(trained.run_id));
    assert_eq!(version["parameters"]["alpha"], "0.25", "{version}");
    assert!(version["metrics"]["r2"].is_string(), "{version}");
    assert!(
        version["sizeBytes"].as_i64().unwrap() > 100 && version["durationSeconds"].is_i64(),
        "{version}"
    );
    assert!(version["createdAt"].is_string(), "{version}");
    assert_eq!(seen["status"]["latestVersion"], "1");
    assert_eq!(seen["status"]["aliases"][0]["name"], "champion");
    fixture.end().await
}

async fn runs_that_are_slow_or_fail_delay_no_move_also_after_a_restart(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "slow runs").await;
    for alpha in [0.1, 0.2, 0.3, 0.4] {
        fixture.train(How::CreateModelVersion, alpha).await;
    }
    fixture.alias("1").await;
    fixture.declare().await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    // The run of version 1 is known, and those of the others are not.
    let slow = Fault::Slow(Duration::from_secs(16));
    let runs = || matching::path_contains("runs/get");
    let rule = fixture.registry.inject(runs(), slow, None);
    fixture.moves_within(AT_ONCE, "2").await;
    fixture.operator.start_again().await.unwrap();
    fixture.moves_within(AT_ONCE, "3").await;
    fixture.registry.remove(rule);
    let error = json!({"error_code": "INTERNAL_ERROR", "message": "no connection to the database"});
    let fails = Fault::json(500, error.to_string());
    let rule = fixture.registry.inject(runs(), fails, None);
    fixture.moves_within(AT_ONCE, "4").await;
    fixture.runs("4").await;
    fixture.model_reports("Mirrored").await;
    fixture.registry.remove(rule);
    let has_metrics = |model: &Value| {
        let versions = model["status"]["versions"].as_array();
        let mut versions = versions.into_iter().flatten();
        versions.any(|version| version["version"] == "4" && version["metrics"]["r2"].is_string())
    };
    fixture
        .eventually(
            "the metrics are read when the server answers again",
            &REGISTERED_MODEL,
            "model",
            has_metrics,
        )
        .await;
    fixture.end().await
}

async fn unusual_model_names_work_like_any_other(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "strange names").await;
    fixture.declare_registry(json!({})).await;
    let names = [
        "it's 100% \"fair\"",
        "modèle.v2 prix",
        "a\\b",
        "(x) IN ('y')",
        "名前",
    ];
    for (index, name) in names.iter().enumerate() {
        let name = format!("{name} {}", fixture.namespace.namespace());
        fixture.client.create_registered_model(&name).await.unwrap();
        fixture
            .client
            .create_model_version(&name, &format!("s3://models/strange/{index}"))
            .await
            .unwrap();
        fixture
            .client
            .set_alias(&name, "Café-_1", "1")
            .await
            .unwrap();
        let (object_name, server) = (format!("model-{index}"), format!("server-{index}"));
        let model = resources::registered_model(&object_name, &name);
        fixture.apply_object(model).await;
        fixture
            .deploy(&pointsman_env::Workload::deployment(&server))
            .await;
        let binding = resources::alias_binding(&object_name, &object_name, &server);
        let binding = with_spec(binding, json!({"alias": "Café-_1"}));
        fixture.apply_object(binding).await;
        fixture.binding_runs(&object_name, "1").await;
        let deployment = fixture.namespace.get(&DEPLOYMENT, &server).await.unwrap();
        assert_eq!(env(&deployment, 0, "MODEL_NAME"), Some(name.clone()));
        assert_eq!(
            env(&deployment, 0, "MODEL_ALIAS").as_deref(),
            Some("Café-_1")
        );
    }
    // The poll of all models together also finds a move.
    let moved = format!("{} {}", names[0], fixture.namespace.namespace());
    fixture
        .client
        .create_model_version(&moved, "s3://models/strange/new")
        .await
        .unwrap();
    fixture
        .client
        .set_alias(&moved, "Café-_1", "2")
        .await
        .unwrap();
    fixture.binding_runs("model-0", "2").await;
    fixture.end().await
}

async fn a_dollar_sign_from_the_registry_expands_to_nothing_in_a_pod(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "dollar signs").await;
    let name = format!("a$(HOME) {}", fixture.namespace.namespace());
    fixture.client.create_registered_model(&name).await.unwrap();
    let sources = ["s3://models/$(DB_PASSWORD)/$$(HOME)/1", "s3://models/2"];
    for source in sources {
        let made = fixture.client.create_model_version(&name, source);
        made.await.unwrap();
    }
    fixture
        .client
        .set_alias(&name, "champion", "1")
        .await
        .unwrap();
    fixture.declare_registry(json!({})).await;
    fixture.declare_model(json!({"modelName": name})).await;
    fixture.bind(json!({})).await;
    let binding = fixture.runs("1").await;
    assert_eq!(binding["status"]["running"]["artifactURI"], sources[0]);
    // The kubelet turns $$ into $, and expands nothing behind it.
    let written = fixture.deployment().await;
    assert_eq!(
        env(&written, 0, "MODEL_URI").as_deref(),
        Some("s3://models/$$(DB_PASSWORD)/$$$$(HOME)/1")
    );
    assert_eq!(
        env(&written, 0, "MODEL_NAME"),
        Some(name.replace('$', "$$"))
    );
    assert_eq!(
        env(&written, 0, "MLFLOW_MODEL_URI"),
        Some(format!("models:/{}/1", name.replace('$', "$$")))
    );
    // Nothing is written again: what is there is what is wanted.
    let stays = |deployment: &Value| deployment["metadata"]["generation"] == 2;
    fixture
        .namespace
        .stays(
            "the template is written once",
            Duration::from_secs(3),
            &DEPLOYMENT,
            "server",
            stays,
        )
        .await;
    fixture
        .client
        .set_alias(&name, "champion", "2")
        .await
        .unwrap();
    fixture.runs("2").await;
    fixture
        .client
        .set_alias(&name, "champion", "1")
        .await
        .unwrap();
    fixture.runs("1").await;
    let back = fixture.deployment().await;
    assert_eq!(back["spec"]["template"], written["spec"]["template"]);
    fixture.end().await
}

async fn all_followed_versions_are_mirrored_and_a_status_that_is_too_large_is_cut_and_says_so(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "many followed").await;
    let trained = fixture.train(How::CreateModelVersion, 0.1).await;
    // A run of the largest size: the API server writes each < as six bytes.
    let parameter = |number: usize| json!({"key": format!("p{number}"), "value": "<".repeat(250)});
    let parameters: Vec<Value> = (0..64).map(parameter).collect();
    let run = json!({"run": {"info": {}, "data": {"params": parameters}}});
    let runs = matching::path_contains("runs/get");
    let run = Fault::json(200, run.to_string());
    fixture.registry.inject(runs, run, None);
    let copies = 29;
    for _ in 0..copies {
        let copied = fixture.client.copy_version(&fixture.model, &trained);
        copied.await.unwrap();
    }
    let alias =
        |number: usize| json!({"name": format!("tenant-{number}"), "version": number.to_string()});
    let aliases: Vec<Value> = (1..=copies + 1).map(alias).collect();
    fixture.declare_registry(json!({})).await;
    fixture.declare_model(json!({"aliases": aliases})).await;
    let is_whole = |model: &Value| {
        let versions = model["status"]["versions"].as_array();
        versions.is_some_and(|versions| versions.len() == copies + 1)
    };
    let model = fixture
        .eventually("all are mirrored", &REGISTERED_MODEL, "model", is_whole)
        .await;
    assert_eq!(ready_reason(&model), "Mirrored");
    let message = ready_message(&model);
    assert!(message.contains("versions are left out"), "{message}");
    let versions = model["status"]["versions"].as_array().unwrap();
    let omitted = |version: &&Value| version["detailsOmitted"] == true;
    let count = versions.iter().filter(omitted).count();
    assert!((1..=copies).contains(&count), "{count}");
    fixture.end().await
}

async fn a_model_deleted_and_created_again_is_another_model(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "made again").await;
    fixture.serve_version_1().await;
    let before = env(&fixture.deployment().await, 0, "MODEL_URI").unwrap();
    fixture.client.delete_model(&fixture.model).await.unwrap();
    fixture.reports("ModelNotFound").await;
    assert_eq!(
        env(&fixture.deployment().await, 0, "MODEL_URI"),
        Some(before.clone()),
        "the workload is left alone"
    );
    fixture
        .client
        .create_registered_model(&fixture.model)
        .await
        .unwrap();
    fixture
        .client
        .create_model_version(&fixture.model, "s3://models/another/1")
        .await
        .unwrap();
    fixture.alias("1").await;
    let another = |deployment: &Value| {
        env(deployment, 0, "MODEL_URI").as_deref() == Some("s3://models/another/1")
    };
    fixture
        .eventually(
            "the new version 1 is deployed",
            &DEPLOYMENT,
            "server",
            another,
        )
        .await;
    let binding = fixture.runs("1").await;
    assert_eq!(template_version(&fixture.deployment().await), "1");
    let uris: Vec<_> = binding["status"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["artifactURI"].clone())
        .collect();
    assert_eq!(uris, [json!("s3://models/another/1"), json!(before)]);
    fixture.end().await
}

async fn a_registry_of_another_namespace_needs_allowed_namespaces(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let owner = namespace(&environment, "registry owner").await;
    let namespace = namespace(&environment, "registry guest").await;
    let namespaces = [
        owner.namespace().to_owned(),
        namespace.namespace().to_owned(),
    ];
    let url = environment.mlflow(MlflowVersion::Three).await;
    let watched: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let fixture = Fixture::watching(
        &environment,
        namespace,
        MlflowVersion::Three,
        &url,
        &watched,
    )
    .await;
    let allow = async |allowed: Value| {
        let spec = json!({"mlflow": {"uri": fixture.registry.url()}, "interval": "1s", "allowedNamespaces": allowed});
        let registry = resources::object(&MODEL_REGISTRY, "shared", &spec);
        owner.apply_object(&registry).await.unwrap();
    };
    fixture.register(1).await;
    allow(json!({"from": "Same"})).await;
    fixture
        .declare_model(json!({"registryRef": {"name": "shared", "namespace": namespaces[0]}}))
        .await;
    let message = fixture.model_reports("RegistryNotAllowed").await;
    assert!(
        message.contains("its owner can, with spec.allowedNamespaces"),
        "{message}"
    );
    let selector =
        |label: &str| json!({"from": "Selector", "selector": {"matchLabels": {"scenario": label}}});
    allow(selector("false")).await;
    fixture.model_reports("RegistryNotAllowed").await;
    allow(selector("true")).await;
    fixture.model_reports("Mirrored").await;
    allow(json!({"from": "Same"})).await;
    fixture.model_reports("RegistryNotAllowed").await;
    allow(json!({"from": "All"})).await;
    fixture.model_reports("Mirrored").await;
    let seen = fixture
        .namespace
        .get(&REGISTERED_MODEL, "model")
        .await
        .unwrap();
    assert_eq!(
        ready_message(&seen),
        "aliases and versions are as the registry named them last"
    );
    owner.end().await.map_err(|error| error.to_string())?;
    fixture.end().await
}
