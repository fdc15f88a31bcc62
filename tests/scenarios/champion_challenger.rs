//! Two versions at once, as docs/champion-challenger.md and its example describe it, with the real kinds of the Gateway API.
//!
//! Absent: requests. Whether a gateway divides them by the weights is its own affair.

use std::fs;
use std::sync::Arc;

use pointsman_env::kinds::{ALIAS_BINDING, POD};
use pointsman_env::resources::{self, with_spec};
use pointsman_env::{Kind, Selection, gateway_api, manifests, pages};
use serde_json::{Value, json};

use crate::fixture::{Environment, Fixture, PATIENCE, ScenarioResult, condition, scenarios};

scenarios!(
    promoting_the_challenger_rolls_the_champion_and_nothing_else,
    a_route_with_a_mistake_is_refused_by_the_definitions_of_the_gateway_api,
);

const HTTP_ROUTE: Kind = Kind {
    group: "gateway.networking.k8s.io",
    version: "v1",
    kind: "HTTPRoute",
    plural: "httproutes",
};

fn example(file: &str) -> String {
    let path = pages::repository().join("examples/champion-challenger");
    fs::read_to_string(path.join(file)).unwrap()
}

/// Three versions with champion on 1 and challenger on 2, and the objects of the example; a version does not bake.
async fn with_both(environment: &Arc<Environment>, name: &str) -> Fixture {
    let fixture = Fixture::new(environment, name).await;
    gateway_api::install(&fixture.namespace.client())
        .await
        .unwrap();
    fixture.register(3).await;
    fixture.alias("1").await;
    challenger(&fixture, "2").await;
    fixture.declare_registry(json!({})).await;
    let model = resources::registered_model("nyc-taxi", &fixture.model);
    fixture.apply_object(model).await;
    for file in ["workloads.yaml", "split.yaml"] {
        fixture
            .namespace
            .kubectl_apply(example(file))
            .await
            .unwrap();
    }
    for binding in manifests::parse(&example("bindings.yaml")).unwrap() {
        let at_once = json!({"rollback": {"bakeSeconds": 0}});
        fixture.apply_object(with_spec(binding, at_once)).await;
    }
    fixture.binding_runs("taxi-champion", "1").await;
    fixture.binding_runs("taxi-challenger", "2").await;
    fixture
}

async fn challenger(fixture: &Fixture, version: &str) {
    let moved = fixture
        .client
        .set_alias(&fixture.model, "challenger", version);
    moved.await.unwrap();
}

/// The names of a workload's pods, when all are ready and have this version.
async fn pods(fixture: &Fixture, app: &str, version: &str) -> Vec<String> {
    let serves = |pod: &Value| {
        pod["metadata"]["annotations"]["pointsman.dev/model-version"] == version
            && condition(pod, "Ready")["status"] == "True"
    };
    let labels = format!("app={app}");
    let description = format!("all pods of {app} serve version {version}");
    let namespace = &fixture.namespace;
    let pods = namespace
        .eventually_all(
            &description,
            PATIENCE,
            &POD,
            &Selection::Labelled(&labels),
            |pods| !pods.is_empty() && pods.values().all(serves),
        )
        .await;
    pods.into_keys().collect()
}

async fn route(fixture: &Fixture) -> Value {
    fixture.namespace.get(&HTTP_ROUTE, "taxi").await.unwrap()
}

/// The history of a binding, as the numbers of its versions, newest first.
async fn history(fixture: &Fixture, binding: &str) -> Vec<String> {
    let binding = fixture
        .namespace
        .get(&ALIAS_BINDING, binding)
        .await
        .unwrap();
    let entries = binding["status"]["history"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    entries
        .iter()
        .map(|entry| entry["version"].as_str().unwrap_or_default().to_owned())
        .collect()
}

async fn promoting_the_challenger_rolls_the_champion_and_nothing_else(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = with_both(&environment, "promotion").await;
    let before = route(&fixture).await;
    let champions = pods(&fixture, "taxi-champion", "1").await;
    let challengers = pods(&fixture, "taxi-challenger", "2").await;

    // The promotion is one move.
    fixture.alias("2").await;
    fixture.binding_runs("taxi-champion", "2").await;
    let promoted = pods(&fixture, "taxi-champion", "2").await;
    assert_eq!(champions.len(), promoted.len());
    assert!(
        champions.iter().all(|pod| !promoted.contains(pod)),
        "{promoted:?}"
    );
    assert_eq!(pods(&fixture, "taxi-challenger", "2").await, challengers);
    assert_eq!(history(&fixture, "taxi-challenger").await, ["2"]);

    // The second alias moves on to the next candidate, and the champion stays.
    challenger(&fixture, "3").await;
    fixture.binding_runs("taxi-challenger", "3").await;
    pods(&fixture, "taxi-challenger", "3").await;
    assert_eq!(pods(&fixture, "taxi-champion", "2").await, promoted);
    assert_eq!(history(&fixture, "taxi-champion").await, ["2", "1"]);

    // The way back is one move, too.
    fixture.alias("1").await;
    fixture.binding_runs("taxi-champion", "1").await;
    pods(&fixture, "taxi-champion", "1").await;

    let after = route(&fixture).await;
    assert_eq!(before, after, "nobody has written the route");
    let backends = &after["spec"]["rules"][0]["backendRefs"];
    assert_eq!(
        [&backends[0]["weight"], &backends[1]["weight"]],
        [90, 10],
        "{after}"
    );
    fixture.end().await
}

async fn a_route_with_a_mistake_is_refused_by_the_definitions_of_the_gateway_api(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let namespace = crate::fixture::namespace(&environment, "routes").await;
    gateway_api::install(&namespace.client()).await.unwrap();
    let shadow = manifests::parse(&example("shadow.yaml")).unwrap().remove(0);
    namespace.kubectl_apply(&shadow).await.unwrap();
    let mut both = shadow;
    let mirror = both
        .pointer_mut("/spec/rules/0/filters/0/requestMirror")
        .unwrap();
    mirror["fraction"] = json!({"numerator": 1, "denominator": 5});
    let refused = namespace
        .kubectl_apply(&both)
        .await
        .expect_err("percent and fraction together");
    assert!(
        refused
            .to_string()
            .contains("Only one of percent or fraction"),
        "{refused}"
    );
    namespace.end().await.map_err(|error| error.to_string())
}
