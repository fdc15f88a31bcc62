//! What keeps many operators, many models and an ill registry in peace with each other.
//!
//! Absent: figures. Those are measured by `make bench`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_env::interceptor::{Fault, Request, matching};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::{Operator, PlainDeployment};
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Stage, Told, World, condition, reason, scenarios, template_version};

scenarios!(
    each_shard_drives_its_own_bindings_and_takes_over_one_that_comes_to_it,
    a_registry_that_asks_for_patience_is_left_alone_for_as_long,
    an_ill_registry_is_asked_more_and_more_seldom_and_says_so,
);

/// A second operator beside the stage's own, which has ended: the first drives what has no shard, the second shard `b`.
async fn two_shards(stage: &mut Stage, world: &World) -> (Operator, Operator) {
    let first = stage.shard(world, 1, "!pointsman.dev/shard").await;
    let second = stage.shard(world, 2, "pointsman.dev/shard=b").await;
    for operator in [&first, &second] {
        stage.place.report_log(Path::new(&operator.log_file()));
    }
    (first, second)
}

fn labelled(shard: &Value) -> Value {
    json!({"metadata": {"labels": {"pointsman.dev/shard": shard}}})
}

async fn patched(operator: &Operator) -> u64 {
    let metrics = operator.metrics().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("pointsman_workload_patches_total "));
    line.and_then(|count| count.parse().ok()).expect("patches are counted")
}

async fn each_shard_drives_its_own_bindings_and_takes_over_one_that_comes_to_it(world: Arc<World>) -> Told {
    let mut stage = Stage::new(&world, "shards").await;
    stage.register(3).await;
    stage.alias("1").await;
    let (first, second) = two_shards(&mut stage, &world).await;
    stage.declare().await;
    stage.bind(json!({})).await;
    stage.runs("1").await;
    assert_eq!((patched(&first).await, patched(&second).await), (1, 0));
    // The keeper of the registry is the shard that the registry belongs to.
    stage.registry_says("Reachable").await;

    for (kind, name) in [(&REGISTERED_MODEL, "model"), (&ALIAS_BINDING, "binding")] {
        stage.place.patch(kind, name, &labelled(&json!("b"))).await.unwrap();
    }
    stage.alias("2").await;
    stage.runs("2").await;
    assert_eq!((patched(&first).await, patched(&second).await), (1, 1));
    let has_none = |registry: &Value| registry["status"]["watchedModels"] == 0;
    stage.place.eventually("the keeper tells of its own models", PATIENCE, &MODEL_REGISTRY, "mlflow", has_none).await;

    // A binding of the first shard for the same Deployment finds it driven.
    let rival = json!({"modelRef": {"name": "model"}, "alias": "champion", "target": {"name": "server"}});
    stage.apply("AliasBinding", "rival", rival).await;
    stage.says_of("rival", "TargetClaimed").await;
    stage.alias("3").await;
    stage.runs("3").await;
    assert_eq!((patched(&first).await, patched(&second).await), (1, 2));
    stage.operator = first;
    drop(second);
    stage.end().await
}

async fn a_registry_that_asks_for_patience_is_left_alone_for_as_long(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "patience").await;
    stage.set().await;
    stage.deploy(&PlainDeployment::named("other")).await;
    stage.registry.inject(matching::everything(), Fault::Busy(6), Some(1));
    let told = stage.registry_says("RegistryUnreachable").await;
    assert!(told.contains("asks for patience (429)") && told.contains("after 6 s"), "{told}");
    let (asked, mark) = (Instant::now(), stage.registry.mark());
    stage.alias("2").await;
    let follows = |deployment: &Value| template_version(deployment) == "2";
    stage.place.eventually("the alias is followed", PATIENCE, &DEPLOYMENT, "server", follows).await;
    let first = stage.registry.since(mark).into_iter().next().expect("it was asked again");
    let waited = first.at - asked;
    assert!(waited >= Duration::from_secs(5), "asked again after {waited:?}");
    stage.says("Live").await;
    stage.end().await
}

async fn an_ill_registry_is_asked_more_and_more_seldom_and_says_so(world: Arc<World>) -> Told {
    let stage = Stage::new(&world, "back off").await;
    stage.set().await;
    let mark = stage.registry.mark();
    stage.registry.inject(matching::everything(), Fault::json(500, r#"{"message": "disk full"}"#), None);
    let says_so = |registry: &Value| {
        let message = condition(registry, "Reconciling")["message"].as_str().unwrap_or_default();
        message.starts_with("asked again every 8 s while it lasts (spec.interval: 1s)")
    };
    stage.place.eventually("it says how often it is asked", PATIENCE, &MODEL_REGISTRY, "mlflow", says_so).await;
    let looks: Vec<Request> =
        stage.registry.since(mark).into_iter().filter(|request| request.path.ends_with("/search")).collect();
    let gaps: Vec<f32> = looks.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f32()).collect();
    assert!(gaps.last().is_some_and(|last| *last >= 3.5), "{gaps:?}");
    assert_eq!(reason(&stage.binding().await), "RegistryUnreachable");
    // It is well again, and is asked at once by a person.
    stage.registry.clear();
    stage.alias("2").await;
    let now = json!({"metadata": {"annotations": {"pointsman.dev/requested-at": "now"}}});
    stage.place.patch(&MODEL_REGISTRY, "mlflow", &now).await.unwrap();
    stage.runs("2").await;
    stage.registry_says("Reachable").await;
    stage.end().await
}
