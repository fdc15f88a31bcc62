//! Kinds that no type stands for as targets: a version sets fields of their spec, and their conditions tell how it goes.
//!
//! Absent: their controllers. A scenario writes the status in their place: that of a kind of its own, which has none, and that of
//! KServe's kinds, whose definitions are the real ones.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::kinds::{ALIAS_BINDING, INFERENCE_SERVICE, Kind, LLM_INFERENCE_SERVICE, ROLE};
use pointsman_env::operator::define;
use pointsman_env::{peer, resources};
use serde_json::{Value, json};

use crate::fixture::{Environment, Fixture, ScenarioResult, ready_reason, scenarios};

scenarios!(
    an_object_of_any_kind_follows_its_alias_forward_and_back,
    a_stalled_object_of_any_kind_is_rolled_back,
    a_kind_whose_definition_is_missing_is_waited_for_without_a_restart,
    a_kind_that_is_not_switched_on_costs_no_right_and_no_request,
    a_field_of_another_manager_is_not_overwritten,
    an_inference_service_serves_the_files_of_its_version,
    a_model_that_an_inference_service_cannot_load_is_rolled_back,
    a_canary_of_an_inference_service_gets_the_version_and_the_rest_stays,
    an_llm_inference_service_gets_the_uri_of_its_model,
    fields_that_refer_to_unknown_values_are_refused,
    the_fields_of_kserve_are_in_its_own_schema,
);

/// A kind whose lists have no keys.
const PREDICTOR: Kind = Kind {
    group: "models.example",
    version: "v1",
    kind: "Predictor",
    plural: "predictors",
};

fn definition(kind: &Kind) -> Value {
    let text = json!({"type": "string"});
    let server =
        json!({"type": "object", "properties": {"name": text, "uri": text, "image": text}});
    let spec = json!({"type": "object", "properties": {
        "model": {"type": "object", "properties": {"tag": text}},
        "servers": {"type": "array", "items": server}}});
    let status = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": spec, "status": status}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", kind.plural, kind.group)},
        "spec": {
            "group": kind.group, "scope": "Namespaced",
            "names": {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.to_lowercase()},
            "versions": [{"name": kind.version, "served": true, "storage": true,
                "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// A fixture whose operator drives these kinds, with a model of three versions and champion on 1.
async fn driving(environment: &Arc<Environment>, name: &str, kinds: &[&Kind]) -> Fixture {
    let other = |kind: &&Kind| json!({"group": kind.group, "version": kind.version, "kind": kind.kind, "plural": kind.plural});
    let others: Vec<Value> = kinds.iter().map(other).collect();
    let values = json!({"targets": {"others": others}});
    let fixture = Fixture::with_values(environment, name, values).await;
    fixture.register(3).await;
    fixture.alias("1").await;
    fixture.declare().await;
    fixture
}

fn reference(kind: &Kind) -> Value {
    json!({"apiVersion": kind.resource().api_version, "kind": kind.kind, "name": "server"})
}

/// Two servers, of which one gets the files, and a tag that is not there yet.
fn servers() -> Value {
    let servers = json!([{"name": "proxy", "image": "p"}, {"name": "model", "image": "m"}]);
    resources::object(&PREDICTOR, "server", &json!({"servers": servers}))
}

fn with_fields() -> Value {
    let fields = json!([
        {"path": "spec.servers[name=model].uri", "value": "$(ModelURI)"},
        {"path": "spec.model.tag", "value": "$(ModelName)-v$(ModelVersion)"}]);
    json!({"targetRef": reference(&PREDICTOR), "inject": {"fields": fields}})
}

/// Writes the status as the object's controller does after it has seen the newest spec.
async fn report(fixture: &Fixture, kind: &Kind, mut status: Value) {
    let object = fixture.namespace.get(kind, "server").await.unwrap();
    status["observedGeneration"] = object["metadata"]["generation"].clone();
    let patch = json!({"status": status}).to_string();
    let resource = format!("{}.{}", kind.plural, kind.group);
    let arguments = [
        "patch",
        &resource,
        "server",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    fixture.namespace.kubectl(&arguments).await.unwrap();
}

fn conditions(ready: &str, stalled: &str) -> Value {
    let condition = |type_: &str, status: &str| {
        json!({"type": type_, "status": status, "reason": "Told", "message": "in the words of the controller",
            "lastTransitionTime": "2026-11-23T12:00:00Z"})
    };
    json!({"conditions": [condition("Ready", ready), condition("Stalled", stalled)]})
}

async fn holds_version(fixture: &Fixture, kind: &Kind, version: &str) -> Value {
    let holds = |object: &Value| {
        object["metadata"]["annotations"]["pointsman.dev/model-version"] == version
    };
    let description = format!("version {version} is written");
    fixture
        .eventually(&description, kind, "server", holds)
        .await
}

/// Waits until the version is written, reports that it is ready, and waits until it is live.
async fn serves(fixture: &Fixture, kind: &Kind, version: &str) -> Value {
    let object = holds_version(fixture, kind, version).await;
    report(fixture, kind, conditions("True", "False")).await;
    fixture.runs(version).await;
    object
}

/// Version 2 is held back for this cause. The condition may have room for its beginning only.
fn assert_held_back(binding: &Value, cause: &str) {
    let held_back = &binding["status"]["heldBack"]["versions"][0];
    assert_eq!(held_back["version"], "2", "{binding}");
    let message = held_back["message"].as_str().unwrap();
    assert!(message.contains(cause), "{message}");
}

async fn an_object_of_any_kind_follows_its_alias_forward_and_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = driving(&environment, "any kind", &[&PREDICTOR]).await;
    define(&fixture.namespace.client(), &[definition(&PREDICTOR)])
        .await
        .unwrap();
    fixture.apply_object(servers()).await;
    fixture.declare_binding(with_fields()).await;
    let first = serves(&fixture, &PREDICTOR, "1").await;
    let name = fixture.model.clone();
    let (model, namespace) = (&first["spec"]["servers"][1], fixture.namespace.namespace());
    assert_eq!(
        model["uri"],
        format!("s3://models/{namespace}/1"),
        "{first}"
    );
    assert_eq!(model["image"], "m", "{first}");
    assert_eq!(
        first["spec"]["servers"][0],
        json!({"name": "proxy", "image": "p"})
    );
    assert_eq!(
        first["spec"]["model"]["tag"],
        format!("{name}-v1"),
        "{first}"
    );
    fixture.alias("2").await;
    let second = holds_version(&fixture, &PREDICTOR, "2").await;
    assert_eq!(
        second["spec"]["model"]["tag"],
        format!("{name}-v2"),
        "{second}"
    );
    let waits = |binding: &Value| {
        ready_reason(binding) == "RollingOut" && binding["status"]["lastGood"]["version"] == "1"
    };
    let short = Duration::from_secs(3);
    let description = "the controller is waited for";
    fixture
        .eventually(description, &ALIAS_BINDING, "binding", waits)
        .await;
    fixture
        .namespace
        .stays("it is waited for", short, &ALIAS_BINDING, "binding", waits)
        .await;
    serves(&fixture, &PREDICTOR, "2").await;
    fixture.alias("1").await;
    let back = serves(&fixture, &PREDICTOR, "1").await;
    assert_eq!(back["spec"], first["spec"], "going back restores the spec");
    fixture.end().await
}

async fn a_stalled_object_of_any_kind_is_rolled_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = driving(&environment, "stalled", &[&PREDICTOR]).await;
    define(&fixture.namespace.client(), &[definition(&PREDICTOR)])
        .await
        .unwrap();
    fixture.apply_object(servers()).await;
    fixture.declare_binding(with_fields()).await;
    serves(&fixture, &PREDICTOR, "1").await;
    fixture.alias("2").await;
    holds_version(&fixture, &PREDICTOR, "2").await;
    report(&fixture, &PREDICTOR, conditions("False", "True")).await;
    holds_version(&fixture, &PREDICTOR, "1").await;
    report(&fixture, &PREDICTOR, conditions("True", "False")).await;
    fixture.reports("RolledBack").await;
    assert_held_back(&fixture.binding().await, "in the words of the controller");
    fixture.end().await
}

async fn a_kind_whose_definition_is_missing_is_waited_for_without_a_restart(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let late = Kind {
        kind: "LatePredictor",
        plural: "latepredictors",
        ..PREDICTOR
    };
    // The operator is ready before the kind exists.
    let fixture = driving(&environment, "missing kind", &[&late]).await;
    let fields = json!([{"path": "spec.model.tag", "value": "$(ModelVersion)"}]);
    fixture
        .declare_binding(json!({"targetRef": reference(&late), "inject": {"fields": fields}}))
        .await;
    let message = fixture.reports("KindNotInstalled").await;
    assert!(
        message.contains("models.example/v1 LatePredictor"),
        "{message}"
    );
    define(&fixture.namespace.client(), &[definition(&late)])
        .await
        .unwrap();
    fixture.reports("TargetNotFound").await;
    let object = resources::object(&late, "server", &json!({"servers": []}));
    fixture.apply_object(object).await;
    serves(&fixture, &late, "1").await;
    fixture.alias("2").await;
    serves(&fixture, &late, "2").await;
    fixture.end().await
}

/// The groups and resources beyond its own that the roles of a fixture's operator name.
async fn rights(fixture: &Fixture) -> Vec<String> {
    let roles = fixture.namespace.list(&ROLE, "").await.unwrap();
    let rules = roles
        .iter()
        .flat_map(|role| role["rules"].as_array().unwrap());
    let names = |rule: &Value, list: &str| {
        let all = rule[list].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .map(|each| each.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    rules
        .flat_map(|rule| {
            let (groups, resources) = (names(rule, "apiGroups"), names(rule, "resources"));
            groups.into_iter().flat_map(move |group| {
                let resources = resources.clone().into_iter();
                resources.map(move |resource| format!("{resource}.{group}"))
            })
        })
        .collect()
}

async fn a_kind_that_is_not_switched_on_costs_no_right_and_no_request(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let on = driving(&environment, "kind on", &[&PREDICTOR]).await;
    assert!(
        rights(&on)
            .await
            .contains(&"predictors.models.example".to_owned())
    );
    on.end().await?;
    let fixture = driving(&environment, "kind off", &[]).await;
    define(&fixture.namespace.client(), &[definition(&PREDICTOR)])
        .await
        .unwrap();
    fixture.apply_object(servers()).await;
    fixture.declare_binding(with_fields()).await;
    let message = fixture.reports("InvalidSpec").await;
    let entry = "{group: models.example, version: v1, kind: Predictor, plural: predictors}";
    assert!(
        message.contains(entry) && message.contains("targets.others"),
        "{message}"
    );
    let rights = rights(&fixture).await;
    assert!(
        rights.contains(&"deployments.apps".to_owned()),
        "{rights:?}"
    );
    let others = [
        "predictors.",
        "rollouts.",
        "inferenceservices.",
        "statefulsets.",
        "daemonsets.",
        "cronjobs.",
    ];
    let has = |other: &&str| rights.iter().any(|right| right.starts_with(other));
    assert_eq!(others.iter().find(|other| has(other)), None, "{rights:?}");
    let requests = fixture.api.since(0);
    let asked = |other: &&str| {
        let resource = format!("/{}", other.trim_end_matches('.'));
        let mut paths = requests.iter().map(|request| &request.path);
        paths.any(|path| path.contains(&resource))
    };
    assert!(asked(&"deployments."), "the proxy sees every request");
    assert_eq!(others.iter().find(|other| asked(other)), None);
    fixture.end().await
}

async fn a_field_of_another_manager_is_not_overwritten(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = driving(&environment, "field conflict", &[&PREDICTOR]).await;
    define(&fixture.namespace.client(), &[definition(&PREDICTOR)])
        .await
        .unwrap();
    let mut object = servers();
    object["spec"]["model"] = json!({"tag": "mine"});
    fixture.namespace.kubectl_apply(&object).await.unwrap();
    fixture.declare_binding(with_fields()).await;
    let message = fixture.reports("FieldConflict").await;
    assert!(message.contains("spec.model.tag"), "{message}");
    let found = fixture.namespace.get(&PREDICTOR, "server").await.unwrap();
    assert_eq!(found["spec"], object["spec"]);
    object["spec"]["model"] = json!({});
    fixture.namespace.kubectl_apply(&object).await.unwrap();
    serves(&fixture, &PREDICTOR, "1").await;
    fixture.end().await
}

/// An `InferenceService` without files, as its user declares it.
fn inference_service() -> Value {
    let model =
        json!({"modelFormat": {"name": "mlflow"}, "env": [{"name": "PORT", "value": "80"}]});
    resources::object(
        &INFERENCE_SERVICE,
        "server",
        &json!({"predictor": {"model": model}}),
    )
}

/// The folder of the minimal definition of a kind. The full ones take an API server many seconds.
fn minimal(kind: &Kind) -> &'static str {
    if *kind == LLM_INFERENCE_SERVICE {
        "minimal/llmisvc"
    } else {
        "minimal"
    }
}

async fn with_kserve(environment: &Arc<Environment>, name: &str, kind: &Kind) -> Fixture {
    let fixture = driving(environment, name, &[kind]).await;
    peer::define_kserve(&fixture.namespace, kind, minimal(kind))
        .await
        .unwrap();
    fixture
}

/// The same with an object of the kind, and a binding of it.
async fn with_bound(
    environment: &Arc<Environment>,
    name: &str,
    kind: &Kind,
    object: &Value,
) -> Fixture {
    let fixture = with_kserve(environment, name, kind).await;
    fixture.namespace.kubectl_apply(object).await.unwrap();
    let spec = json!({"targetRef": reference(kind)});
    fixture.declare_binding(spec).await;
    fixture
}

/// The properties of a kind of KServe in its full definition.
async fn properties(kind: &Kind, folder: &str) -> Value {
    let definition = peer::kserve_definition(kind, folder).await.unwrap();
    let versions = definition["spec"]["versions"].as_array().unwrap();
    let mut named = versions.iter();
    let version = named.find(|each| each["name"] == kind.version).unwrap();
    version["schema"]["openAPIV3Schema"].clone()
}

/// The schema of a field.
fn schema<'a>(properties: &'a Value, path: &str) -> &'a Value {
    path.split('.')
        .fold(properties, |found, name| match name.strip_suffix("[]") {
            Some(list) => &found["properties"][list]["items"],
            None => &found["properties"][name],
        })
}

async fn the_fields_of_kserve_are_in_its_own_schema(_: Arc<Environment>) -> ScenarioResult {
    let service = properties(&INFERENCE_SERVICE, "full").await;
    let type_of = |path: &str| schema(&service, path)["type"].as_str();
    for path in ["spec.predictor", "spec.canary[].predictor"] {
        let uri = format!("{path}.model.storageUri");
        assert_eq!(type_of(&uri), Some("string"), "{uri}");
    }
    assert_eq!(type_of("status.canaryStatuses[].ready"), Some("boolean"));
    let transition = schema(&service, "status.modelStatus.transitionStatus");
    let states = transition["enum"].as_array().unwrap();
    assert!(states.contains(&json!("BlockedByFailedLoad")), "{states:?}");
    let llm = properties(&LLM_INFERENCE_SERVICE, "full/llmisvc").await;
    assert_eq!(schema(&llm, "spec.model.uri")["type"], "string");
    Ok(())
}

async fn an_inference_service_serves_the_files_of_its_version(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let kind = &INFERENCE_SERVICE;
    let fixture = with_bound(
        &environment,
        "inference service",
        kind,
        &inference_service(),
    )
    .await;
    for version in ["1", "2", "1"] {
        fixture.alias(version).await;
        let object = serves(&fixture, kind, version).await;
        let model = &object["spec"]["predictor"]["model"];
        let uri = format!("s3://models/{}/{version}", fixture.namespace.namespace());
        assert_eq!(model["storageUri"], uri, "{object}");
        assert_eq!(model["env"][0]["name"], "PORT", "{object}");
        // The manifest that the user applies again does not touch the field.
        fixture
            .namespace
            .kubectl_apply(inference_service())
            .await
            .unwrap();
        let again = fixture.namespace.get(kind, "server").await.unwrap();
        assert_eq!(again["spec"], object["spec"], "an apply changes nothing");
    }
    fixture.end().await
}

async fn a_model_that_an_inference_service_cannot_load_is_rolled_back(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let kind = &INFERENCE_SERVICE;
    let fixture = with_bound(&environment, "failed load", kind, &inference_service()).await;
    serves(&fixture, kind, "1").await;
    // Until KServe writes the status, it is that of the version before: this one must not prove the next.
    report(&fixture, kind, conditions("False", "False")).await;
    fixture.reports("Unavailable").await;
    fixture.alias("2").await;
    holds_version(&fixture, kind, "2").await;
    let mut status = conditions("False", "False");
    let failure = json!({"reason": "ModelLoadFailed", "message": "no such file: model.pkl"});
    status["modelStatus"] = json!({"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure,
        "states": {"activeModelState": "Loaded", "targetModelState": "FailedToLoad"},
        "copies": {"failedCopies": 1}});
    report(&fixture, kind, status).await;
    holds_version(&fixture, kind, "1").await;
    let mut status = conditions("True", "False");
    status["modelStatus"] = json!({"transitionStatus": "UpToDate"});
    report(&fixture, kind, status).await;
    let rolled_back = |binding: &Value| ready_reason(binding) == "RolledBack";
    let binding = fixture
        .eventually(
            "version 2 is rolled back",
            &ALIAS_BINDING,
            "binding",
            rolled_back,
        )
        .await;
    assert_held_back(&binding, "ModelLoadFailed: no such file: model.pkl");
    fixture.end().await
}

async fn a_canary_of_an_inference_service_gets_the_version_and_the_rest_stays(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let kind = &INFERENCE_SERVICE;
    let fixture = with_kserve(&environment, "canary", kind).await;
    let mut service = inference_service();
    service["spec"]["predictor"]["model"]["storageUri"] = json!("s3://models/stable");
    let canary = json!({"name": "next", "model": {"modelFormat": {"name": "mlflow"}}});
    service["spec"]["canary"] = json!([{"trafficPercent": 10, "predictor": canary}]);
    fixture.namespace.kubectl_apply(&service).await.unwrap();
    let path = "spec.canary[predictor.name=next].predictor.model.storageUri";
    let fields = json!([{"path": path, "value": "$(ModelURI)"}]);
    fixture
        .declare_binding(json!({"targetRef": reference(kind), "inject": {"fields": fields}}))
        .await;
    let is_ready = async |ready: bool| {
        // The stable predictor is ready all the time.
        let mut status = conditions("True", "False");
        status["canaryStatuses"] = json!([{"name": "next", "ready": ready, "trafficPercent": 10}]);
        report(&fixture, kind, status).await;
    };
    for version in ["1", "2"] {
        is_ready(false).await;
        fixture.alias(version).await;
        let mut object = holds_version(&fixture, kind, version).await;
        fixture.reports("RollingOut").await;
        is_ready(true).await;
        fixture.runs(version).await;
        let uri = format!("s3://models/{}/{version}", fixture.namespace.namespace());
        let model = &mut object["spec"]["canary"][0]["predictor"]["model"];
        assert_eq!(model["storageUri"].take(), uri.as_str());
        model.as_object_mut().unwrap().remove("storageUri");
        assert_eq!(object["spec"], service["spec"], "the rest stays");
    }
    fixture.end().await
}

async fn an_llm_inference_service_gets_the_uri_of_its_model(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let kind = &LLM_INFERENCE_SERVICE;
    let object = resources::object(kind, "server", &json!({"replicas": 1}));
    let fixture = with_bound(&environment, "llm", kind, &object).await;
    let object = serves(&fixture, kind, "1").await;
    let uri = format!("s3://models/{}/1", fixture.namespace.namespace());
    assert_eq!(object["spec"]["model"]["uri"], uri, "{object}");
    fixture.end().await
}

async fn fields_that_refer_to_unknown_values_are_refused(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = driving(&environment, "unknown value", &[]).await;
    let refused = async |more: Value| {
        let binding = resources::alias_binding("binding", "model", "server");
        let binding = resources::with_spec(binding, more);
        let refused = fixture.namespace.kubectl_apply(&binding).await;
        refused.expect_err("it was accepted").to_string()
    };
    let with = |path: &str, value: &str| json!({"targetRef": reference(&PREDICTOR), "inject": {"fields": [{"path": path, "value": value}]}});
    let unknown = refused(with("spec.model.tag", "$(ModelVersoin)")).await;
    assert!(
        unknown.contains("a value refers to $(ModelName)"),
        "{unknown}"
    );
    let outside = refused(with("metadata.labels.app", "$(ModelName)")).await;
    assert!(outside.contains("inject.fields"), "{outside}");
    let whole = refused(with("spec.servers[name=model]", "x")).await;
    assert!(
        whole.contains("a path ends with the member to set"),
        "{whole}"
    );
    let none = refused(json!({"targetRef": reference(&PREDICTOR)})).await;
    assert!(none.contains("name them in inject.fields"), "{none}");
    let mut of_deployment = with("spec.replicas", "x");
    of_deployment["targetRef"] = json!({"name": "server"});
    let of_deployment = refused(of_deployment).await;
    assert!(
        of_deployment.contains("inject.variables"),
        "{of_deployment}"
    );
    let unfit = refused(json!({"targetRef": {"kind": "Rollout", "name": "server"}})).await;
    assert!(
        unfit.contains("apiVersion and kind do not fit together"),
        "{unfit}"
    );
    fixture.end().await
}
