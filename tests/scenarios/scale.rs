//! Shards, rate limits, backoff and batches: many operators, many models and an unhealthy registry.
//!
//! Absent: measurements; `make bench` has them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_env::interceptor::{Fault, Request, matching};
use pointsman_env::kinds::{ALIAS_BINDING, DEPLOYMENT, MODEL_REGISTRY, REGISTERED_MODEL};
use pointsman_env::python::MlflowVersion;
use pointsman_env::{Operator, Workload, resources};
use serde_json::{Value, json};

use crate::fixture::{
    Environment, Fixture, PATIENCE, ScenarioResult, condition, ready_reason, scenarios,
    template_version,
};

scenarios!(
    each_shard_drives_its_own_bindings_and_takes_over_relabelled_ones,
    retry_after_of_a_registry_is_respected,
    an_unhealthy_registry_is_polled_with_backoff_and_reported,
    models_created_together_are_read_in_batches_and_not_again_after_a_restart,
);

/// Two operators instead of the fixture's: the first drives objects without a shard, the second drives shard `b`.
async fn two_shards(fixture: &mut Fixture, environment: &Environment) -> (Operator, Operator) {
    let first = fixture.shard(environment, 1, "!pointsman.dev/shard").await;
    let second = fixture.shard(environment, 2, "pointsman.dev/shard=b").await;
    for operator in [&first, &second] {
        fixture
            .namespace
            .report_log(Path::new(&operator.log_file()));
    }
    (first, second)
}

fn labelled(shard: &Value) -> Value {
    json!({"metadata": {"labels": {"pointsman.dev/shard": shard}}})
}

async fn patched(operator: &Operator) -> u64 {
    let metrics = operator.metrics().await.unwrap();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("pointsman_workload_patches_total "));
    line.and_then(|count| count.parse().ok())
        .expect("patches are counted")
}

async fn each_shard_drives_its_own_bindings_and_takes_over_relabelled_ones(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let mut fixture = Fixture::new(&environment, "shards").await;
    fixture.register(3).await;
    fixture.alias("1").await;
    let (first, second) = two_shards(&mut fixture, &environment).await;
    fixture.declare().await;
    fixture.bind(json!({})).await;
    fixture.runs("1").await;
    assert_eq!((patched(&first).await, patched(&second).await), (1, 0));
    // The shard of the ModelRegistry polls the registry.
    fixture.registry_reports("Reachable").await;

    for (kind, name) in [(&REGISTERED_MODEL, "model"), (&ALIAS_BINDING, "binding")] {
        fixture
            .namespace
            .patch(kind, name, &labelled(&json!("b")))
            .await
            .unwrap();
    }
    fixture.alias("2").await;
    fixture.runs("2").await;
    assert_eq!((patched(&first).await, patched(&second).await), (1, 1));
    let has_none = |registry: &Value| registry["status"]["watchedModels"] == 0;
    fixture
        .eventually(
            "each shard reports its own models",
            &MODEL_REGISTRY,
            "mlflow",
            has_none,
        )
        .await;

    // A binding of the first shard for the same Deployment reports TargetClaimed.
    let rival = resources::alias_binding("rival", "model", "server");
    fixture.apply_object(rival).await;
    fixture.binding_reports("rival", "TargetClaimed").await;
    fixture.alias("3").await;
    fixture.runs("3").await;
    assert_eq!((patched(&first).await, patched(&second).await), (1, 2));
    fixture.operator = first;
    drop(second);
    fixture.end().await
}

async fn retry_after_of_a_registry_is_respected(environment: Arc<Environment>) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "patience").await;
    fixture.serve_version_1().await;
    fixture.deploy(&Workload::deployment("other")).await;
    fixture
        .registry
        .inject(matching::everything(), Fault::Busy(6), Some(1));
    let message = fixture.registry_reports("RegistryUnreachable").await;
    assert!(
        message.contains("limits requests (429)") && message.contains("after 6 s"),
        "{message}"
    );
    let (requested, mark) = (Instant::now(), fixture.registry.mark());
    fixture.alias("2").await;
    let follows = |deployment: &Value| template_version(deployment) == "2";
    fixture
        .eventually("the alias is followed", &DEPLOYMENT, "server", follows)
        .await;
    let first = fixture
        .registry
        .since(mark)
        .into_iter()
        .next()
        .expect("it was polled again");
    let waited = first.at - requested;
    assert!(
        waited >= Duration::from_secs(5),
        "polled again after {waited:?}"
    );
    fixture.reports("Live").await;
    fixture.end().await
}

async fn an_unhealthy_registry_is_polled_with_backoff_and_reported(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let fixture = Fixture::new(&environment, "back off").await;
    fixture.serve_version_1().await;
    let mark = fixture.registry.mark();
    fixture.registry.inject(
        matching::everything(),
        Fault::json(500, r#"{"message": "disk full"}"#),
        None,
    );
    let says_so = |registry: &Value| {
        let message = condition(registry, "Reconciling")["message"]
            .as_str()
            .unwrap_or_default();
        message.starts_with("polled every 8 s until it answers")
    };
    fixture
        .eventually(
            "it reports the poll interval",
            &MODEL_REGISTRY,
            "mlflow",
            says_so,
        )
        .await;
    let polls: Vec<Request> = fixture
        .registry
        .since(mark)
        .into_iter()
        .filter(|request| request.path.ends_with("/search"))
        .collect();
    let mut gaps: Vec<f32> = polls
        .windows(2)
        .map(|pair| (pair[1].at - pair[0].at).as_secs_f32())
        .collect();
    // Within one poll, a page that failed is retried once.
    gaps.retain(|gap| *gap >= 0.5);
    assert!(gaps.last().is_some_and(|last| *last >= 3.5), "{gaps:?}");
    assert_eq!(ready_reason(&fixture.binding().await), "Live");
    // The registry is healthy again, and a person requests a poll.
    fixture.registry.clear();
    fixture.alias("2").await;
    let now = json!({"metadata": {"annotations": {"pointsman.dev/requested-at": "now"}}});
    fixture
        .namespace
        .patch(&MODEL_REGISTRY, "mlflow", &now)
        .await
        .unwrap();
    fixture.runs("2").await;
    fixture.registry_reports("Reachable").await;
    fixture.end().await
}

async fn models_created_together_are_read_in_batches_and_not_again_after_a_restart(
    environment: Arc<Environment>,
) -> ScenarioResult {
    const MODELS: usize = 40;
    let mut fixture = Fixture::new(&environment, "together").await;
    create_models(&environment, &fixture, MODELS).await;
    let mark = fixture.registry.mark();
    fixture.declare_registry(json!({"interval": "1h"})).await;
    await_mirrored(&fixture, MODELS).await;
    // A version's size is in a file of its own, which is read once.
    let (files, requests): (Vec<_>, Vec<_>) = paths_since(&fixture, mark)
        .into_iter()
        .partition(|path| path.ends_with("/get-artifact"));
    assert!(
        requests.len() <= 6,
        "{} requests for {MODELS} models: {requests:?}",
        requests.len()
    );
    assert!(
        files.len() <= MODELS * 2,
        "{} files of {} versions were read",
        files.len(),
        MODELS * 2
    );

    fixture.operator.stop().unwrap();
    let (registry, api) = (fixture.registry.mark(), fixture.api.mark());
    fixture.operator.start_again().await.unwrap();
    await_response(&fixture, registry).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let paths = paths_since(&fixture, registry);
    let is_known =
        |path: &String| path.ends_with("registered-models/search") || path.ends_with("/version");
    assert!(paths.iter().all(is_known) && paths.len() <= 2, "{paths:?}");
    let writes = fixture.api.writes_since(api);
    assert!(writes.is_empty(), "{writes:?}");
    fixture.end().await
}

/// So many models of two versions in the registry, and an object for each.
async fn create_models(environment: &Arc<Environment>, fixture: &Fixture, count: usize) {
    let prefix = fixture.namespace.namespace();
    let database = environment.database(MlflowVersion::Three).await;
    let seeded = fixture.client.seed(&database, prefix, count);
    seeded.await.unwrap();
    for number in 0..count {
        let (name, model) = (format!("model-{number}"), format!("{prefix}-{number:05}"));
        let model = resources::registered_model(&name, &model);
        fixture.apply_object(model).await;
    }
}

async fn await_mirrored(fixture: &Fixture, count: usize) {
    let is_mirrored = |model: &Value| {
        let versions = model["status"]["versions"].as_array();
        ready_reason(model) == "Mirrored" && versions.is_some_and(|versions| versions.len() == 2)
    };
    for number in 0..count {
        let name = format!("model-{number}");
        fixture
            .eventually("it is mirrored", &REGISTERED_MODEL, &name, is_mirrored)
            .await;
    }
}

fn paths_since(fixture: &Fixture, mark: usize) -> Vec<String> {
    let requests = fixture.registry.since(mark).into_iter();
    requests.map(|request| request.path).collect()
}

/// Waits until the registry has responded to a request since the mark.
async fn await_response(fixture: &Fixture, mark: usize) {
    let responded = async {
        while fixture
            .registry
            .since(mark)
            .iter()
            .all(|request| request.status.is_none())
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, responded)
        .await
        .expect("the registry is polled after a start");
}
