//! What the API server refuses, and that it says what to write instead; and what `kubectl explain` answers.
//!
//! Absent: an operator. Admission is the CRDs' own.

use std::sync::Arc;

use pointsman_env::kinds::{ALIAS_BINDING, MODEL_REGISTRY, REGISTERED_MODEL};
use serde_json::{Value, json};

use crate::fixture::{Environment, ScenarioResult, merge, namespace, object, scenarios};

scenarios!(
    bad_specs_are_refused_with_a_sentence_that_says_what_to_write,
    unknown_fields_are_refused_by_kubectl,
    the_kinds_have_short_names_a_category_and_explanations,
    the_examples_are_accepted_as_they_stand,
);

fn registry(more: Value) -> Value {
    let mut spec = json!({"mlflow": {"uri": "http://mlflow:5000"}});
    merge(&mut spec, more);
    object("ModelRegistry", "refused", spec)
}

fn model(more: Value) -> Value {
    let mut spec = json!({"registryRef": {"name": "mlflow"}});
    merge(&mut spec, more);
    object("RegisteredModel", "refused", spec)
}

fn binding(more: Value) -> Value {
    let mut spec =
        json!({"modelRef": {"name": "m"}, "alias": "champion", "targetRef": {"name": "server"}});
    merge(&mut spec, more);
    object("AliasBinding", "refused", spec)
}

#[allow(clippy::too_many_lines)] // a table of specs, to be split
async fn bad_specs_are_refused_with_a_sentence_that_says_what_to_write(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let namespace = namespace(&environment, "refused").await;
    let secret = json!({"secretRef": {"name": "s"}});
    let long = "x".repeat(64);
    let mut long_named = binding(json!({}));
    long_named["metadata"]["name"] = json!(long);
    let rows = [
        (
            &MODEL_REGISTRY,
            registry(json!({"mlflow": {"uri": "mlflow:5000"}})),
            "must begin with http:// or https://",
        ),
        (
            &MODEL_REGISTRY,
            registry(json!({"mlflow": {"uri": "http://me:secret@mlflow"}})),
            "put them into a Secret",
        ),
        (
            &MODEL_REGISTRY,
            registry(json!({"auth": {"basic": secret, "bearer": secret}})),
            "set auth.basic or auth.bearer, not both",
        ),
        (
            &MODEL_REGISTRY,
            registry(json!({"auth": {}})),
            "auth is empty",
        ),
        (
            &MODEL_REGISTRY,
            registry(json!({"interval": "10ms"})),
            "interval must lie between 1s and 24h",
        ),
        (
            &MODEL_REGISTRY,
            registry(json!({"allowedNamespaces": {"from": "Selector"}})),
            "goes with from: Selector",
        ),
        (
            &MODEL_REGISTRY,
            registry(json!({"webhook": {"mode": "Managed", "secretRef": {"name": "s"}}})),
            "webhook.mode Managed needs webhook.url",
        ),
        (
            &MODEL_REGISTRY,
            registry(json!({"webhook": {"mode": "External"}})),
            "need webhook.secretRef",
        ),
        (
            &MODEL_REGISTRY,
            registry(
                json!({"webhook": {"mode": "Managed", "url": "http://me:secret@x", "secretRef": {"name": "s"}}}),
            ),
            "webhook.url must hold no user or password",
        ),
        (
            &MODEL_REGISTRY,
            registry(
                json!({"webhook": {"mode": "Managed", "url": "x:8443", "secretRef": {"name": "s"}}}),
            ),
            "webhook.url must begin with http:// or https://",
        ),
        (
            &MODEL_REGISTRY,
            registry(
                json!({"webhook": {"mode": "Managed", "url": "http://x?a=b", "secretRef": {"name": "s"}}}),
            ),
            "webhook.url must hold no query",
        ),
        (
            &REGISTERED_MODEL,
            model(json!({"modelName": "a/b"})),
            "must hold no / and no :",
        ),
        (
            &REGISTERED_MODEL,
            model(json!({"aliases": [{"name": "latest", "version": "1"}]})),
            "MLflow reserves latest",
        ),
        (
            &REGISTERED_MODEL,
            model(
                json!({"aliases": [{"name": "a", "version": "1"}, {"name": "a", "version": "2"}]}),
            ),
            "Duplicate value",
        ),
        (
            &ALIAS_BINDING,
            binding(json!({"stage": "Production"})),
            "set alias (or, for registries that still use stages, fixture)",
        ),
        (
            &ALIAS_BINDING,
            binding(json!({"alias": null})),
            "not both and not none",
        ),
        (
            &ALIAS_BINDING,
            binding(json!({"alias": "v3"})),
            "MLflow reserves latest and v<number>",
        ),
        (
            &ALIAS_BINDING,
            binding(json!({"alias": "Latest"})),
            "MLflow reserves latest and v<number>",
        ),
        (
            &ALIAS_BINDING,
            binding(json!({"targetRef": null})),
            "set targetRef to name one that exists, or template",
        ),
        (
            &ALIAS_BINDING,
            binding(json!({"deletionPolicy": "Orphan"})),
            "targetRef is never deleted",
        ),
        (
            &ALIAS_BINDING,
            binding(json!({"pinnedVersion": "v4"})),
            "should match",
        ),
        (
            &ALIAS_BINDING,
            binding(json!({"historyLimit": 0})),
            "greater than or equal to 1",
        ),
        (&ALIAS_BINDING, long_named, "holds 63 characters at most"),
    ];
    for (kind, object, sentence) in rows {
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
    let mut renamed = model(json!({"modelName": "a"}));
    namespace.apply_object(&renamed).await.unwrap();
    renamed["spec"]["modelName"] = json!("b");
    let refused = namespace
        .apply_object(&renamed)
        .await
        .expect_err("a changed modelName was accepted")
        .to_string();
    assert!(refused.contains("modelName cannot be changed"), "{refused}");
    namespace.end().await.map_err(|error| error.to_string())
}

async fn unknown_fields_are_refused_by_kubectl(environment: Arc<Environment>) -> ScenarioResult {
    let namespace = namespace(&environment, "unknown fields").await;
    for later in [
        json!({"promotion": {"approval": "Manual"}}),
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

async fn the_examples_are_accepted_as_they_stand(environment: Arc<Environment>) -> ScenarioResult {
    let namespace = namespace(&environment, "examples").await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        namespace
            .kubectl_apply(std::fs::read_to_string(&path).unwrap())
            .await
            .map_err(|error| format!("{}: {error}", path.display()))?;
        count += 1;
    }
    assert!(count >= 5, "{count} examples");
    namespace.end().await.map_err(|error| error.to_string())
}
