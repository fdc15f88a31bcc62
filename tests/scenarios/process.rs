//! The operator as a process: killed at each step, stopped in peace, settled, ready, and under the chart's rights.
//!
//! Absent: figures. Those are measured by `make bench`.

use std::sync::Arc;
use std::time::Duration;

use pointsman_env::interceptor::{When, matching};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, REGISTERED_MODEL};
use pointsman_env::{Operator, OperatorOptions};
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Stage, Told, World, binary, namespace, scenarios, template_version};

scenarios!(
    killed_at_each_step_it_goes_on_where_it_was,
    a_settled_cluster_sees_no_writes_and_one_question_an_interval,
    a_request_to_look_now_is_answered_at_once,
    it_is_ready_only_when_its_caches_are_filled_and_stops_in_peace,
    without_its_roles_it_cannot_read,
);

async fn killed_at_each_step_it_goes_on_where_it_was(world: Arc<World>) -> Told {
    let mut stage = Stage::new(&world, "killed").await;
    stage.set().await;
    let steps = ["registeredmodels/model/status", "deployments/server", "aliasbindings/binding/status"];
    let mut version = 1;
    for step in steps {
        for when in [When::Before, When::After] {
            version = 3 - version;
            let mut pause = stage.api.pause(matching::write(step), when);
            stage.alias(&version.to_string()).await;
            let reached = tokio::time::timeout(PATIENCE, pause.reached()).await;
            assert!(reached.is_ok(), "{when:?} {step} was not reached\n{}", stage.place.account().await);
            stage.operator.kill().unwrap();
            pause.release();
            stage.operator.start_again().await.unwrap();
            let binding = stage.runs(&version.to_string()).await;
            let history = binding["status"]["history"].as_array().unwrap();
            let versions: Vec<_> = history.iter().map(|entry| entry["version"].as_str().unwrap()).collect();
            assert!(versions.windows(2).all(|pair| pair[0] != pair[1]), "killed {when:?} {step}: {versions:?}");
        }
    }
    assert_eq!(stage.replica_sets().await.len(), 3, "the Deployment's own, version 1's and version 2's");
    stage.end().await
}

async fn a_settled_cluster_sees_no_writes_and_one_question_an_interval(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "settled").await;
    stage.set().await;
    stage.says("Live").await;
    // A pass may still be on its way when the status already says Live.
    let quiet = |binding: &Value| binding["status"]["lastGood"]["version"] == "1";
    stage.place.eventually("the last good version is known", PATIENCE, &ALIAS_BINDING, "binding", quiet).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (api, registry) = (stage.api.mark(), stage.registry.mark());
    let interval = Duration::from_secs(1);
    tokio::time::sleep(interval * 10).await;
    let writes = stage.api.writes_since(api);
    assert!(writes.is_empty(), "{writes:?}");
    let asked = stage.registry.since(registry).len();
    assert!((8..=13).contains(&asked), "{asked} questions in ten intervals");
    stage.end().await
}

async fn a_request_to_look_now_is_answered_at_once(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "look now").await;
    stage.set().await;
    stage.declare_registry(json!({"interval": "1h"})).await;
    stage.registry_says("Reachable").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (kind, name, version) in [(&REGISTERED_MODEL, "model", "2"), (&ALIAS_BINDING, "binding", "1")] {
        stage.alias(version).await;
        let annotation = json!({"metadata": {"annotations": {"pointsman.dev/requested-at": version}}});
        stage.place.patch(kind, name, &annotation).await.unwrap();
        let follows = |deployment: &Value| template_version(deployment) == version;
        stage.place.eventually("the alias is followed", Duration::from_secs(20), &DEPLOYMENT, "server", follows).await;
    }
    stage.end().await
}

async fn it_is_ready_only_when_its_caches_are_filled_and_stops_in_peace(world: Arc<World>) -> Told {
    let mut stage = Stage::new(&world, "health").await;
    stage.set().await;
    let metrics = stage.operator.metrics().await.unwrap();
    assert!(metrics.contains("pointsman_workload_patches_total 1"), "{metrics}");
    assert!(!metrics.contains(stage.place.namespace()), "no object names in labels\n{metrics}");
    assert!(stage.operator.stop().unwrap().success(), "{}", stage.operator.log_tail(20));
    // With the watch of bindings held up, the caches cannot be filled.
    let mut pause = stage.api.pause(matching::path_contains("/aliasbindings?"), When::Before);
    let starting = stage.operator.start_again();
    let held = async {
        pause.reached().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        pause.release();
    };
    let (started, ()) = tokio::join!(starting, held);
    started.unwrap();
    stage.end().await
}

async fn without_its_roles_it_cannot_read(world: Arc<World>) -> Told {
    // The other scenarios are worth their name only if the operator has no rights but the chart's.
    let place = namespace(&world, "no rights").await;
    let grounds = world.grounds().await;
    let mut options = OperatorOptions::watching(binary(), place.namespace(), &[place.namespace()]);
    options.namespace = place.namespace().to_owned();
    options.values = json!({"rbac": {"create": false}});
    let mut operator = Operator::start_unready(&grounds.control_plane, &grounds.tools, &options).await.unwrap();
    let told = async {
        while !operator.log().contains("forbidden") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, told).await.is_ok(), "{}", operator.log_tail(20));
    assert!(!operator.is_ready().await);
    // Asked to stop before its caches are filled, it stops.
    assert!(operator.stop().unwrap().success(), "{}", operator.log_tail(20));
    place.end().await.map_err(|error| error.to_string())
}
