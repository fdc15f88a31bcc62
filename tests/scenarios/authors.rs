//! Authors of custom resources: the operator lends its rights to nobody who does not have them.
//!
//! Absent: what the operator does with the objects; see the other scenarios.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::Kind;
use pointsman_env::kinds::{ALIAS_BINDING, MODEL_REGISTRY};
use pointsman_env::resources;
use serde_json::{Value, json};

use crate::fixture::{Environment, Fixture, PATIENCE, ScenarioResult, scenarios};

scenarios!(only_authors_who_may_read_a_secret_or_create_a_workload_have_the_operator_do_it);

/// A user who may write the custom resources, and no more.
const PLAIN: &str = "plain";
/// One who may read the Secret `model-store` too.
const READER: &str = "reader";
/// One with the usual rights in the namespace.
const EDITOR: &str = "editor";

/// Every way to name a Secret, each with its field.
fn with_secrets() -> Vec<(&'static str, Value)> {
    let named = json!({"secretRef": {"name": "model-store"}});
    let url = json!({"mode": "External", "secretRef": {"name": "model-store"}});
    let uri = "http://mlflow.example.test:5000";
    vec![
        ("auth.basic.secretRef", json!({"auth": {"basic": named}})),
        ("auth.bearer.secretRef", json!({"auth": {"bearer": named}})),
        ("artifacts.secretRef", json!({"artifacts": named})),
        ("webhook.secretRef", json!({"webhook": url})),
        (
            "tls.clientCertificateSecretRef",
            json!({"tls": {"clientCertificateSecretRef": {"name": "model-store"}}}),
        ),
        (
            "mlflow.headersSecretRef",
            json!({"mlflow": {"uri": uri, "headersSecretRef": {"name": "model-store"}}}),
        ),
    ]
}

fn registry(more: Value) -> Value {
    resources::with_spec(
        resources::model_registry("http://mlflow.example.test:5000"),
        more,
    )
}

fn template() -> Value {
    let container = json!({"name": "server", "image": "server"});
    json!({"targetRef": null, "template": {"spec": {"template": {"spec": {
        "serviceAccountName": "strong", "containers": [container]}}}}})
}

fn retrain() -> Value {
    let container = json!({"name": "train", "image": "train"});
    json!({"retrain": {"jobTemplate": {"spec": {"template": {"spec": {
        "restartPolicy": "Never", "serviceAccountName": "strong", "containers": [container]}}}}}})
}

fn binding(more: Value) -> Value {
    resources::with_spec(resources::alias_binding("binding", "model", "server"), more)
}

/// Users with their rules in the namespace.
async fn give_rights(fixture: &Fixture) {
    let own = json!({"apiGroups": ["pointsman.dev"], "resources": ["*"], "verbs": ["*"]});
    let store = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["model-store"]});
    let secrets = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]});
    let workloads = json!({"apiGroups": ["apps", "batch"], "resources": ["deployments", "jobs"], "verbs": ["*"]});
    for (user, rules) in [
        (PLAIN, json!([own])),
        (READER, json!([own, store])),
        (EDITOR, json!([own, secrets, workloads])),
    ] {
        let metadata = json!({"name": user});
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        fixture
            .apply_object(json!({"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": rules}))
            .await;
        fixture
            .apply_object(
                json!({"apiVersion": version, "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": user},
                "subjects": [{"apiGroup": group, "kind": "User", "name": user}]}),
            )
            .await;
    }
}

/// The outcome of a user's `kubectl apply`.
async fn apply(fixture: &Fixture, user: &str, object: &Value) -> Result<(), String> {
    let (namespace, user) = (fixture.namespace.namespace(), format!("--as={user}"));
    let arguments = ["-n", namespace, &user, "apply", "-f", "-"];
    let control_plane = fixture.namespace.control_plane();
    let text = object.to_string();
    let applied = control_plane.kubectl_with_input(&arguments, &text);
    applied.await.map(drop).map_err(|error| error.to_string())
}

async fn refused(fixture: &Fixture, user: &str, object: &Value, sentence: &str) {
    let message = apply(fixture, user, object).await.expect_err(sentence);
    assert!(message.contains(sentence), "{message}");
}

async fn accepted(fixture: &Fixture, user: &str, object: &Value) {
    let outcome = apply(fixture, user, object).await;
    assert_eq!(outcome, Ok(()), "{object}");
}

async fn delete(fixture: &Fixture, kind: &Kind, name: &str) {
    fixture.namespace.delete(kind, name).await.unwrap();
}

/// The API server needs a moment until it asks a new policy.
async fn until_policies_act(fixture: &Fixture) {
    let both_act = async {
        loop {
            let (secret, workload) = (registry(with_secrets().remove(0).1), binding(template()));
            let mut acting = 0;
            for object in [&secret, &workload] {
                let kind = object["kind"].as_str().unwrap_or_default();
                if apply(fixture, PLAIN, object).await.is_err() {
                    acting += 1;
                } else if kind == "ModelRegistry" {
                    delete(fixture, &MODEL_REGISTRY, "mlflow").await;
                } else {
                    delete(fixture, &ALIAS_BINDING, "binding").await;
                }
            }
            if acting == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, both_act).await;
    assert!(outcome.is_ok(), "the policies do not act");
}

async fn only_authors_who_may_read_a_secret_or_create_a_workload_have_the_operator_do_it(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let values = json!({"admissionPolicies": {"enabled": true}});
    let fixture = Fixture::with_values(&environment, "authors", values).await;
    give_rights(&fixture).await;
    until_policies_act(&fixture).await;

    accepted(&fixture, PLAIN, &registry(json!({}))).await;
    for (field, more) in with_secrets() {
        let sentence = format!(
            "spec.{field} has Pointsman use the Secret model-store, which {PLAIN} may not read"
        );
        refused(&fixture, PLAIN, &registry(more.clone()), &sentence).await;
        accepted(&fixture, READER, &registry(more.clone())).await;
        // Another address would get the Secret, too; a label changes nothing.
        let elsewhere = json!({"mlflow": {"uri": "http://elsewhere.example.test"}});
        if field != "mlflow.headersSecretRef" {
            let moved = resources::with_spec(registry(more.clone()), elsewhere);
            refused(&fixture, PLAIN, &moved, "may not read").await;
        }
        let mut labelled = registry(more);
        labelled["metadata"]["labels"] = json!({"team": "fares"});
        accepted(&fixture, PLAIN, &labelled).await;
        delete(&fixture, &MODEL_REGISTRY, "mlflow").await;
    }
    let other = json!({"auth": {"basic": {"secretRef": {"name": "another"}}}});
    refused(
        &fixture,
        READER,
        &registry(other.clone()),
        "the Secret another",
    )
    .await;
    accepted(&fixture, EDITOR, &registry(other)).await;

    accepted(&fixture, PLAIN, &binding(json!({}))).await;
    let retrained = binding(retrain());
    refused(
        &fixture,
        PLAIN,
        &retrained,
        "spec.retrain has Pointsman create Jobs",
    )
    .await;
    delete(&fixture, &ALIAS_BINDING, "binding").await;
    let made = binding(template());
    refused(
        &fixture,
        PLAIN,
        &made,
        "spec.template has Pointsman create Deployments",
    )
    .await;
    refused(&fixture, READER, &made, "which reader may not").await;
    let mut both = template();
    resources::merge(&mut both, retrain());
    accepted(&fixture, EDITOR, &binding(both.clone())).await;
    // A person without these rights pins a version, and does not change the template.
    let pinned = resources::with_spec(binding(both.clone()), json!({"pinnedVersion": "1"}));
    accepted(&fixture, PLAIN, &pinned).await;
    both["template"]["spec"]["template"]["spec"]["serviceAccountName"] = json!("stronger");
    refused(&fixture, PLAIN, &binding(both), "spec.template has").await;
    fixture.end().await
}
