//! Registries that are set up otherwise than the one that most scenarios share: with workspaces, and on https.
//!
//! Absent: what does not depend on that.

use std::sync::Arc;

use pointsman_env::kinds::CONFIG_MAP;
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::python::MlflowVersion;
use serde_json::json;

use crate::stage::{Stage, Told, World, env, scenarios};

scenarios!(
    the_same_model_name_in_two_workspaces_is_two_models,
    a_registry_on_https_is_trusted_by_the_authority_that_is_named,
);

async fn the_same_model_name_in_two_workspaces_is_two_models(world: Arc<World>) -> Told {
    let options = MlflowOptions {
        workspaces: true,
        ..MlflowOptions::default()
    };
    let mut server = Mlflow::start(MlflowVersion::Three, options).await.unwrap();
    let mut stage = Stage::at(&world, "workspace", MlflowVersion::Three, &server.url()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let made = client
        .post(format!("{}/api/3.0/mlflow/workspaces", server.url()))
        .json(&json!({"name": "team-a"}))
        .send()
        .await;
    made.unwrap().error_for_status().unwrap();
    stage.client = stage.client.in_workspace("default");
    stage.register(1).await;
    stage.client = stage.client.in_workspace("team-a");
    stage.register(2).await;
    stage.alias("2").await;
    stage
        .declare_registry(json!({"mlflow": {"uri": stage.registry.url(), "workspace": "team-a"}}))
        .await;
    stage.declare_model(json!({})).await;
    stage.bind(json!({})).await;
    stage.runs("2").await;
    stage
        .declare_registry(json!({"mlflow": {"uri": stage.registry.url()}}))
        .await;
    let told = stage.says("AliasNotFound").await;
    assert!(told.contains("has no alias \"champion\""), "{told}");
    let told = stage.end().await;
    server.stop().await;
    told
}

async fn a_registry_on_https_is_trusted_by_the_authority_that_is_named(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "https").await;
    stage.register(2).await;
    stage.alias("1").await;
    let plane = &world.grounds().await.control_plane;
    let file = |name: &str| plane.folder().join(name);
    let options = MlflowOptions {
        certificate: Some((file("apiserver.crt"), file("apiserver.key"))),
        database: Some(world.database(MlflowVersion::Three).await),
        ..MlflowOptions::default()
    };
    let mut server = Mlflow::start(MlflowVersion::Three, options).await.unwrap();
    let url = server.url();
    stage
        .declare_registry(json!({"mlflow": {"uri": url}}))
        .await;
    let told = stage.registry_says("RegistryUnreachable").await;
    assert!(told.contains("certificate"), "{told}");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-ca"}, "data": {"ca.crt": plane.ca_pem()}});
    stage.place.create(&CONFIG_MAP, &map).await.unwrap();
    stage
        .declare_registry(
            json!({"mlflow": {"uri": url}, "tls": {"caConfigMapRef": {"name": "corp-ca", "key": "ca.crt"}}}),
        )
        .await;
    stage.declare_model(json!({})).await;
    stage.bind(json!({})).await;
    stage.runs("1").await;
    assert_eq!(
        env(&stage.deployment().await, 0, "MLFLOW_TRACKING_URI"),
        Some(url)
    );
    stage.alias("2").await;
    stage.runs("2").await;
    let told = stage.end().await;
    server.stop().await;
    told
}
