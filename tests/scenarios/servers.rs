//! MLflow servers with other settings than the shared one: with workspaces, and on https.
//!
//! Absent: behaviour that does not depend on these settings.

use std::sync::Arc;

use pointsman_env::kinds::{CONFIG_MAP, SECRET};
use pointsman_env::mlflow::{Mlflow, MlflowOptions};
use pointsman_env::python::MlflowVersion;
use pointsman_env::resources::merge;
use serde_json::{Value, json};

use crate::fixture::{Environment, Fixture, ScenarioResult, env, scenarios};

scenarios!(
    one_model_name_in_two_workspaces_is_two_models,
    a_registry_on_https_is_verified_with_the_given_ca,
    a_registry_that_demands_client_certificates_gets_the_one_of_the_secret,
);

async fn one_model_name_in_two_workspaces_is_two_models(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let options = MlflowOptions {
        workspaces: true,
        ..MlflowOptions::default()
    };
    let mut server = Mlflow::start(MlflowVersion::Three, options).await.unwrap();
    let mut fixture = Fixture::at(
        &environment,
        "workspace",
        MlflowVersion::Three,
        &server.url(),
    )
    .await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let made = client
        .post(format!("{}/api/3.0/mlflow/workspaces", server.url()))
        .json(&json!({"name": "team-a"}))
        .send()
        .await;
    made.unwrap().error_for_status().unwrap();
    fixture.client = fixture.client.in_workspace("default");
    fixture.register(1).await;
    fixture.client = fixture.client.in_workspace("team-a");
    fixture.register(2).await;
    fixture.alias("2").await;
    fixture
        .declare_registry(json!({"mlflow": {"uri": fixture.registry.url(), "workspace": "team-a"}}))
        .await;
    fixture.declare_model(json!({})).await;
    fixture.bind(json!({})).await;
    fixture.runs("2").await;
    fixture
        .declare_registry(json!({"mlflow": {"uri": fixture.registry.url()}}))
        .await;
    let message = fixture.reports("AliasNotFound").await;
    assert!(message.contains("has no alias \"champion\""), "{message}");
    let result = fixture.end().await;
    server.stop().await;
    result
}

async fn a_registry_on_https_is_verified_with_the_given_ca(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "https").await;
    fixture.register(2).await;
    fixture.alias("1").await;
    let plane = &environment.cluster().await.control_plane;
    let file = |name: &str| plane.folder().join(name);
    let options = MlflowOptions {
        certificate: Some((file("apiserver.crt"), file("apiserver.key"))),
        database: Some(environment.database(MlflowVersion::Three).await),
        ..MlflowOptions::default()
    };
    let mut server = Mlflow::start(MlflowVersion::Three, options).await.unwrap();
    let url = server.url();
    fixture
        .declare_registry(json!({"mlflow": {"uri": url}}))
        .await;
    let message = fixture.registry_reports("RegistryUnreachable").await;
    assert!(message.contains("certificate"), "{message}");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-ca"}, "data": {"ca.crt": plane.ca_pem()}});
    fixture.namespace.create(&CONFIG_MAP, &map).await.unwrap();
    fixture
        .declare_registry(
            json!({"mlflow": {"uri": url}, "tls": {"caConfigMapRef": {"name": "corp-ca", "key": "ca.crt"}}}),
        )
        .await;
    fixture.declare_model(json!({})).await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    assert_eq!(
        env(&fixture.deployment().await, 0, "MLFLOW_TRACKING_URI"),
        Some(url)
    );
    fixture.alias("2").await;
    fixture.runs("2").await;
    let result = fixture.end().await;
    server.stop().await;
    result
}

async fn a_registry_that_demands_client_certificates_gets_the_one_of_the_secret(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "client certificate").await;
    fixture.register(1).await;
    fixture.alias("1").await;
    let plane = &environment.cluster().await.control_plane;
    let file = |name: &str| plane.folder().join(name);
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    let (certificate, key) = (read("admin.crt"), read("admin.key"));
    let identity = file(&format!("{}.pem", fixture.namespace.namespace()));
    std::fs::write(&identity, format!("{certificate}\n{key}")).unwrap();
    let options = MlflowOptions {
        certificate: Some((file("apiserver.crt"), file("apiserver.key"))),
        client_authority: Some((file("ca.crt"), identity)),
        database: Some(environment.database(MlflowVersion::Three).await),
        ..MlflowOptions::default()
    };
    let mut server = Mlflow::start(MlflowVersion::Three, options).await.unwrap();
    let url = server.url();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-ca"}, "data": {"ca.crt": plane.ca_pem()}});
    fixture.namespace.create(&CONFIG_MAP, &map).await.unwrap();
    let declare = async |more: Value| {
        let mut tls = json!({"caConfigMapRef": {"name": "corp-ca"}});
        merge(&mut tls, more);
        let spec = json!({"mlflow": {"uri": url}, "tls": tls});
        fixture.declare_registry(spec).await;
    };
    declare(json!({})).await;
    // MLflow's server closes the connection; others say that they require a certificate.
    fixture.registry_reports("RegistryUnreachable").await;
    declare(json!({"clientCertificateSecretRef": {"name": "identity"}})).await;
    let message = fixture.registry_reports("CredentialsNotFound").await;
    assert!(message.contains("Secret identity"), "{message}");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "identity"}, "stringData": {"tls.crt": certificate, "tls.key": key}});
    fixture.namespace.create(&SECRET, &secret).await.unwrap();
    fixture.registry_reports("Reachable").await;
    fixture.declare_model(json!({})).await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    let result = fixture.end().await;
    server.stop().await;
    result
}
