//! A registered model: made, adopted, kept as declared, mirrored, deleted; and whose registry it may use.
//!
//! Absent: workloads, but where a mirror's truth shows in them.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::kinds::{DEPLOYMENT, REGISTERED_MODEL};
use pointsman_env::python::MlflowVersion;
use pointsman_env::registrar::How;
use serde_json::{Value, json};

use crate::stage::{
    PATIENCE, Stage, Told, World, env, message, namespace, object, reason, scenarios,
    template_version,
};

scenarios!(
    a_model_is_made_where_there_is_none_and_kept_as_declared,
    an_existing_model_is_adopted_without_harm,
    declared_aliases_are_kept_and_others_left_alone,
    a_model_goes_only_where_its_deletion_policy_says_so,
    the_mirror_tells_what_decides_about_a_version,
    strange_names_are_served_like_any_other,
    a_model_deleted_and_made_again_is_another_model,
    a_registry_of_another_namespace_needs_its_owners_leave,
);

async fn a_model_is_made_where_there_is_none_and_kept_as_declared(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "made model").await;
    stage.declare_registry(json!({})).await;
    stage.declare_model(json!({})).await;
    let told = stage.model_says("ModelNotFound").await;
    assert!(
        told.contains("register it, or set spec.creationPolicy: Create"),
        "{told}"
    );
    stage
        .declare_model(json!({"creationPolicy": "Create", "description": "taxi fares", "tags": {"creator": "kamal"}}))
        .await;
    stage.model_says("Mirrored").await;
    let made = stage.client.get_model(&stage.model).await.unwrap();
    assert_eq!(
        (
            made["description"].as_str(),
            made["tags"]["creator"].as_str()
        ),
        (Some("taxi fares"), Some("kamal")),
        "{made}"
    );
    stage
        .client
        .set_tag(&stage.model, None, "creator", "somebody")
        .await
        .unwrap();
    until(&stage, "the declared tag is written again", |model| {
        model["tags"]["creator"] == "kamal"
    })
    .await;
    stage.end().await
}

/// MLflow has no watch, so it is asked again and again.
async fn until(stage: &Stage, what: &str, holds: impl Fn(&Value) -> bool) {
    let asking = async {
        while !holds(&stage.client.get_model(&stage.model).await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, asking).await.is_err() {
        panic!(
            "{what}: not within {PATIENCE:?}\n{}\n{}",
            stage.client.get_model(&stage.model).await.unwrap(),
            stage.place.account().await
        );
    }
}

async fn an_existing_model_is_adopted_without_harm(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "adopted model").await;
    stage.register(2).await;
    stage.alias("2").await;
    stage
        .client
        .set_tag(&stage.model, None, "team", "pricing")
        .await
        .unwrap();
    stage.declare_registry(json!({})).await;
    stage
        .declare_model(json!({"creationPolicy": "Create", "tags": {"creator": "kamal"}}))
        .await;
    stage.model_says("Mirrored").await;
    let model = stage.client.get_model(&stage.model).await.unwrap();
    assert_eq!(
        (
            model["tags"]["team"].as_str(),
            model["tags"]["creator"].as_str()
        ),
        (Some("pricing"), Some("kamal")),
        "{model}"
    );
    assert_eq!(model["aliases"]["champion"], "2", "{model}");
    stage.end().await
}

async fn declared_aliases_are_kept_and_others_left_alone(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "declared aliases").await;
    stage.register(2).await;
    stage
        .client
        .set_alias(&stage.model, "challenger", "1")
        .await
        .unwrap();
    stage.declare_registry(json!({})).await;
    stage
        .declare_model(json!({"aliases": [{"name": "champion", "version": "7"}]}))
        .await;
    let told = stage.model_says("VersionNotFound").await;
    assert!(told.contains("has no version 7"), "{told}");
    stage
        .declare_model(json!({"aliases": [{"name": "champion", "version": "2"}]}))
        .await;
    stage.model_says("Mirrored").await;
    until(&stage, "the declared alias is set", |model| {
        model["aliases"]["champion"] == "2"
    })
    .await;
    stage.alias("1").await;
    until(&stage, "the declared alias is set back", |model| {
        model["aliases"]["champion"] == "2"
    })
    .await;
    until(&stage, "the other alias is left alone", |model| {
        model["aliases"]["challenger"] == "1"
    })
    .await;
    stage.end().await
}

async fn a_model_goes_only_where_its_deletion_policy_says_so(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "deleted object").await;
    stage.register(1).await;
    stage.declare().await;
    stage.model_says("Mirrored").await;
    gone(&stage).await;
    stage
        .client
        .get_model(&stage.model)
        .await
        .expect("Retain keeps the registered model");
    stage
        .declare_model(json!({"deletionPolicy": "Delete"}))
        .await;
    let guarded =
        |model: &Value| model["metadata"]["finalizers"].is_array() && reason(model) == "Mirrored";
    stage
        .place
        .eventually(
            "the object is guarded",
            PATIENCE,
            &REGISTERED_MODEL,
            "model",
            guarded,
        )
        .await;
    gone(&stage).await;
    let error = stage
        .client
        .get_model(&stage.model)
        .await
        .expect_err("Delete deletes the registered model")
        .to_string();
    assert!(error.contains("not found"), "{error}");
    stage.end().await
}

async fn gone(stage: &Stage) {
    stage
        .place
        .delete(&REGISTERED_MODEL, "model")
        .await
        .unwrap();
    stage
        .place
        .eventually(
            "the object goes",
            PATIENCE,
            &REGISTERED_MODEL,
            "model",
            Value::is_null,
        )
        .await;
}

async fn the_mirror_tells_what_decides_about_a_version(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "mirror").await;
    let trained = stage
        .client
        .train_and_register(&stage.model, How::RegisterModel, 0.25)
        .await
        .unwrap();
    stage.alias(&trained.version).await;
    stage.declare().await;
    let told = |model: &Value| model["status"]["versions"][0]["artifactURI"].is_string();
    let seen = stage
        .place
        .eventually(
            "the version is mirrored",
            PATIENCE,
            &REGISTERED_MODEL,
            "model",
            told,
        )
        .await;
    let version = &seen["status"]["versions"][0];
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
    stage.end().await
}

async fn strange_names_are_served_like_any_other(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "strange names").await;
    stage.declare_registry(json!({})).await;
    let names = [
        "it's 100% \"fair\"",
        "modèle.v2 prix",
        "a\\b",
        "(x) IN ('y')",
        "名前",
    ];
    for (index, name) in names.iter().enumerate() {
        let name = format!("{name} {}", stage.place.namespace());
        stage.client.create_registered_model(&name).await.unwrap();
        stage
            .client
            .create_model_version(&name, &format!("s3://models/strange/{index}"))
            .await
            .unwrap();
        stage.client.set_alias(&name, "Café-_1", "1").await.unwrap();
        let (object_name, server) = (format!("model-{index}"), format!("server-{index}"));
        stage
            .apply(
                "RegisteredModel",
                &object_name,
                json!({"registryRef": {"name": "mlflow"}, "modelName": name}),
            )
            .await;
        stage
            .deploy(&pointsman_env::PlainDeployment::named(&server))
            .await;
        let spec = json!({"modelRef": {"name": object_name}, "alias": "Café-_1", "target": {"name": server}});
        stage.apply("AliasBinding", &object_name, spec).await;
        stage.runs_for(&object_name, "1").await;
        let deployment = stage.place.get(&DEPLOYMENT, &server).await.unwrap();
        assert_eq!(env(&deployment, 0, "MODEL_NAME"), Some(name.clone()));
        assert_eq!(
            env(&deployment, 0, "MODEL_ALIAS").as_deref(),
            Some("Café-_1")
        );
    }
    // And a move is seen by the look at all of them together.
    let moved = format!("{} {}", names[0], stage.place.namespace());
    stage
        .client
        .create_model_version(&moved, "s3://models/strange/new")
        .await
        .unwrap();
    stage
        .client
        .set_alias(&moved, "Café-_1", "2")
        .await
        .unwrap();
    stage.runs_for("model-0", "2").await;
    stage.end().await
}

async fn a_model_deleted_and_made_again_is_another_model(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "made again").await;
    stage.set().await;
    let before = env(&stage.deployment().await, 0, "MODEL_URI").unwrap();
    stage.client.delete_model(&stage.model).await.unwrap();
    stage.says("ModelNotFound").await;
    assert_eq!(
        env(&stage.deployment().await, 0, "MODEL_URI"),
        Some(before.clone()),
        "the workload is left alone"
    );
    stage
        .client
        .create_registered_model(&stage.model)
        .await
        .unwrap();
    stage
        .client
        .create_model_version(&stage.model, "s3://models/another/1")
        .await
        .unwrap();
    stage.alias("1").await;
    let another = |deployment: &Value| {
        env(deployment, 0, "MODEL_URI").as_deref() == Some("s3://models/another/1")
    };
    stage
        .place
        .eventually(
            "the new version 1 is deployed",
            PATIENCE,
            &DEPLOYMENT,
            "server",
            another,
        )
        .await;
    let binding = stage.runs("1").await;
    assert_eq!(template_version(&stage.deployment().await), "1");
    let uris: Vec<_> = binding["status"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["artifactURI"].clone())
        .collect();
    assert_eq!(uris, [json!("s3://models/another/1"), json!(before)]);
    stage.end().await
}

async fn a_registry_of_another_namespace_needs_its_owners_leave(world: Arc<World>) -> Told {
    let owner = namespace(&world, "registry owner").await;
    let place = namespace(&world, "registry guest").await;
    let namespaces = [owner.namespace().to_owned(), place.namespace().to_owned()];
    let url = world.mlflow(MlflowVersion::Three).await;
    let watched: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let stage = Stage::watching(&world, place, MlflowVersion::Three, &url, &watched).await;
    let registry = |allowed: Value| {
        object(
            "ModelRegistry",
            "shared",
            json!({"mlflow": {"uri": stage.registry.url()}, "interval": "1s", "allowedNamespaces": allowed}),
        )
    };
    stage.register(1).await;
    owner
        .apply_object(&registry(json!({"from": "Same"})))
        .await
        .unwrap();
    stage
        .declare_model(json!({"registryRef": {"name": "shared", "namespace": namespaces[0]}}))
        .await;
    let told = stage.model_says("RegistryNotAllowed").await;
    assert!(
        told.contains("its owner can, with spec.allowedNamespaces"),
        "{told}"
    );
    let selector =
        |label: &str| json!({"from": "Selector", "selector": {"matchLabels": {"scenario": label}}});
    owner
        .apply_object(&registry(selector("false")))
        .await
        .unwrap();
    stage.model_says("RegistryNotAllowed").await;
    owner
        .apply_object(&registry(selector("true")))
        .await
        .unwrap();
    stage.model_says("Mirrored").await;
    owner
        .apply_object(&registry(json!({"from": "Same"})))
        .await
        .unwrap();
    stage.model_says("RegistryNotAllowed").await;
    owner
        .apply_object(&registry(json!({"from": "All"})))
        .await
        .unwrap();
    stage.model_says("Mirrored").await;
    let seen = stage.place.get(&REGISTERED_MODEL, "model").await.unwrap();
    assert_eq!(
        message(&seen),
        "aliases and versions are as the registry named them last"
    );
    owner.end().await.map_err(|error| error.to_string())?;
    stage.end().await
}
