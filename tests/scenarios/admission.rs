//! Admission by the CRDs: bad specs are refused with a remedy; short names, `kubectl explain` and the examples work.
//!
//! Absent: an operator. The API server alone decides here.

use std::sync::Arc;

use pointsman_env::kinds::{ALIAS_BINDING, MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::resources::{self, with_spec};
use pointsman_env::{Kind, TestNamespace};
use serde_json::{Value, json};

use crate::fixture::{Environment, ScenarioResult, namespace, scenarios};

scenarios!(
    admission_refuses_bad_specs_with_a_remedy,
    unknown_fields_are_refused_by_kubectl,
    the_kinds_have_short_names_a_category_and_explanations,
    the_examples_are_accepted_unchanged,
);

fn registry(more: Value) -> Value {
    let spec = json!({"mlflow": {"uri": "http://mlflow:5000"}});
    with_spec(resources::object(&MODEL_REGISTRY, "refused", &spec), more)
}

fn model(more: Value) -> Value {
    let spec = json!({"registryRef": {"name": "mlflow"}});
    with_spec(resources::object(&REGISTERED_MODEL, "refused", &spec), more)
}

fn binding(more: Value) -> Value {
    let binding = resources::alias_binding("refused", "m", "server");
    with_spec(binding, more)
}

/// A spec that admission refuses, and a part of the message.
type Row = (Value, &'static str);

fn refused_registries() -> Vec<Row> {
    let secret = json!({"secretRef": {"name": "s"}});
    vec![
        (
            registry(json!({"mlflow": {"uri": "mlflow:5000"}})),
            "must begin with http:// or https://",
        ),
        (
            registry(json!({"mlflow": {"uri": "http://me:secret@mlflow"}})),
            "put them into a Secret",
        ),
        (
            registry(json!({"auth": {"basic": secret, "bearer": secret}})),
            "set auth.basic or auth.bearer, not both",
        ),
        (registry(json!({"auth": {}})), "auth is empty"),
        (
            registry(json!({"interval": "10ms"})),
            "interval must lie between 1s and 24h",
        ),
        (
            registry(json!({"interval": "1.5m"})),
            "written in h, m, s and ms without fractions",
        ),
        (
            registry(json!({"allowedNamespaces": {"from": "Selector"}})),
            "goes with from: Selector",
        ),
    ]
}

fn refused_webhooks() -> Vec<Row> {
    vec![
        (
            registry(json!({"webhook": {"mode": "Managed", "secretRef": {"name": "s"}}})),
            "webhook.mode Managed needs webhook.url",
        ),
        (
            registry(json!({"webhook": {"mode": "External"}})),
            "need webhook.secretRef",
        ),
        (
            registry(
                json!({"webhook": {"mode": "Managed", "url": "http://me:secret@x", "secretRef": {"name": "s"}}}),
            ),
            "webhook.url must hold no user or password",
        ),
        (
            registry(
                json!({"webhook": {"mode": "Managed", "url": "x:8443", "secretRef": {"name": "s"}}}),
            ),
            "webhook.url must begin with http:// or https://",
        ),
        (
            registry(
                json!({"webhook": {"mode": "Managed", "url": "http://x?a=b", "secretRef": {"name": "s"}}}),
            ),
            "webhook.url must hold no query",
        ),
    ]
}

fn refused_models() -> Vec<Row> {
    vec![
        (
            model(json!({"modelName": "a/b"})),
            "must hold no / and no :",
        ),
        (
            model(json!({"modelName": "a\u{0}b"})),
            "must hold no control characters",
        ),
        (
            model(json!({"modelName": "a\nb"})),
            "must hold no control characters",
        ),
        (model(json!({"modelName": "  "})), "must not be blank"),
        (model(json!({"modelName": "../a"})), "must not be blank"),
        (
            model(json!({"aliases": [{"name": "latest", "version": "1"}]})),
            "MLflow reserves latest",
        ),
        (
            model(
                json!({"aliases": [{"name": "a", "version": "1"}, {"name": "a", "version": "2"}]}),
            ),
            "Duplicate value",
        ),
    ]
}

fn refused_aliases() -> Vec<Row> {
    vec![
        (
            binding(json!({"stage": "Production"})),
            "set alias (or, for registries that still use stages, stage)",
        ),
        (binding(json!({"alias": null})), "not both and not none"),
        (
            binding(json!({"alias": "v3"})),
            "MLflow reserves latest and v<number>",
        ),
        (
            binding(json!({"alias": "Latest"})),
            "MLflow reserves latest and v<number>",
        ),
    ]
}

fn refused_bindings() -> Vec<Row> {
    let mut long_named = binding(json!({}));
    long_named["metadata"]["name"] = json!("x".repeat(64));
    vec![
        (
            binding(json!({"targetRef": null})),
            "set targetRef to name one that exists, or template",
        ),
        (
            binding(json!({"deletionPolicy": "Orphan"})),
            "targetRef is never deleted",
        ),
        (binding(json!({"pinnedVersion": "v4"})), "should match"),
        (
            binding(json!({"historyLimit": 0})),
            "greater than or equal to 1",
        ),
        (long_named, "holds 63 characters at most"),
    ]
}

async fn admission_refuses_bad_specs_with_a_remedy(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let namespace = namespace(&environment, "refused").await;
    for row in [refused_registries(), refused_webhooks()].concat() {
        assert_refused(&namespace, &MODEL_REGISTRY, row).await;
    }
    for row in refused_models() {
        assert_refused(&namespace, &REGISTERED_MODEL, row).await;
    }
    for row in [refused_aliases(), refused_bindings()].concat() {
        assert_refused(&namespace, &ALIAS_BINDING, row).await;
    }
    let mut renamed = model(json!({"modelName": "a"}));
    namespace.apply_object(&renamed).await.unwrap();
    renamed["spec"]["modelName"] = json!("b");
    let refused = namespace
        .apply_object(&renamed)
        .await
        .expect_err("a changed modelName was accepted")
        .to_string();
    assert!(refused.contains("modelName cannot be changed"), "{refused}");
    let mut moved = model(json!({"modelName": "a"}));
    moved["spec"]["registryRef"] = json!({"name": "mlflow", "namespace": "another"});
    let refused = namespace
        .apply_object(&moved)
        .await
        .expect_err("a changed registryRef was accepted")
        .to_string();
    assert!(
        refused.contains("registryRef cannot be changed"),
        "{refused}"
    );
    namespace.end().await.map_err(|error| error.to_string())
}

async fn assert_refused(namespace: &TestNamespace, kind: &Kind, (object, sentence): Row) {
    let refused = namespace
        .create(kind, &object)
        .await
        .expect_err(&format!("{object} was accepted"))
        .to_string();
    assert!(
        refused.contains(sentence),
        "{object}\nwas refused with {refused}\nand not with {sentence}"
    );
}

async fn unknown_fields_are_refused_by_kubectl(environment: Arc<Environment>) -> ScenarioResult {
    let namespace = namespace(&environment, "unknown fields").await;
    for later in [
        json!({"promotion": {"approver": "anybody"}}),
        json!({"rollback": {"maxRestart": 3}}),
        json!({"inject": {"download": {}}}),
    ] {
        let refused = namespace
            .kubectl_apply(binding(later.clone()))
            .await
            .expect_err("an unknown field was accepted")
            .to_string();
        assert!(refused.contains("unknown field"), "{later}: {refused}");
    }
    namespace.end().await.map_err(|error| error.to_string())
}

async fn the_kinds_have_short_names_a_category_and_explanations(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let namespace = namespace(&environment, "explain").await;
    namespace.apply_object(&binding(json!({}))).await.unwrap();
    for short in ["mreg", "rmodel", "abind", "pointsman"] {
        namespace.kubectl(&["get", short]).await.unwrap();
    }
    let all = namespace
        .kubectl(&["get", "pointsman", "-o", "name"])
        .await
        .unwrap();
    assert!(all.contains("aliasbinding.pointsman.dev/refused"), "{all}");
    let explained = namespace
        .kubectl(&["explain", "aliasbinding.spec.pinnedVersion"])
        .await
        .unwrap();
    assert!(
        explained.contains("Run this version, whatever the alias says."),
        "{explained}"
    );
    namespace.end().await.map_err(|error| error.to_string())
}

async fn the_examples_are_accepted_unchanged(environment: Arc<Environment>) -> ScenarioResult {
    let namespace = namespace(&environment, "examples").await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    // `every_manifest_of_the_pages_and_examples_is_accepted` reads the others too, which have other namespaces.
    for part in ["binding", "template", "retrain", "webhook"] {
        for entry in std::fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            namespace
                .kubectl_apply(std::fs::read_to_string(&path).unwrap())
                .await
                .map_err(|error| format!("{}: {error}", path.display()))?;
            count += 1;
        }
    }
    assert!(count >= 7, "{count} examples");
    namespace.end().await.map_err(|error| error.to_string())
}
