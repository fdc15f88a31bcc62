//! Bindings of KServe's InferenceServices: memory, and writes while there is nothing to do, as with Deployments.
//!
//! Absent: KServe's controller. The benchmark writes the status of each InferenceService in its place, and no pods run.

use std::time::Duration;

use futures::{StreamExt, stream};
use pointsman_env::interceptor::Interceptor;
use pointsman_env::kinds::{ALIAS_BINDING, INFERENCE_SERVICE};
use pointsman_env::progress::Task;
use pointsman_env::resources::{self, with_spec};
use pointsman_env::{Operator, peer};
use serde_json::{Value, json};

use crate::durations::megabytes;
use crate::environment::{Environment, binding};
use crate::object_counter::{ObjectCounter, holds_version};
use crate::object_set::{ObjectSet, wait_until_idle};
use crate::report::Measurement;

pub const OBJECTS: usize = 1000;
const PREFIX: &str = "services";
const INTERVAL: &str = "30s";
const CONCURRENT_WRITES: usize = 16;
const MEMORY_GOAL: u64 = 25_000_000;
const WRITES_GOAL: Duration = Duration::from_secs(300);

/// Measures after all were rolled out, and after a restart behind a proxy that counts writes for this time.
pub async fn measure(
    environment: &Environment,
    count: usize,
    settled: Duration,
) -> Vec<Measurement> {
    environment.register(PREFIX, count).await;
    let objects = ObjectSet::new(environment, PREFIX, count).await;
    peer::define_kserve(&objects.namespace, &INFERENCE_SERVICE, "minimal")
        .await
        .unwrap();
    let mut operator = operator(environment, &objects, None).await;
    objects
        .mirror_models(&environment.mlflow.url(), INTERVAL)
        .await;
    let service = |name: String| resources::object(&INFERENCE_SERVICE, &name, &spec());
    objects
        .create("InferenceServices", &INFERENCE_SERVICE, service)
        .await;
    let target = |name: &str| json!({"targetRef": {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": name}});
    let bound = |name: String| with_spec(binding(&name), target(&name));
    objects.create("bindings", &ALIAS_BINDING, bound).await;
    let task = objects.task("InferenceServices written");
    let text = holds_version(1);
    let mut written = ObjectCounter::start(&objects.namespace, &INFERENCE_SERVICE, text).await;
    written.wait_for(count, &task, objects.timeout()).await;
    task.done();
    report_ready(&objects).await;
    objects
        .wait_until_ready("bindings ready", &ALIAS_BINDING)
        .await;
    wait_until_idle(&operator).await;
    let rolled_out = operator.resident_bytes().unwrap();
    operator.stop().unwrap();
    let (restarted, writes) = settled_writes(environment, &objects, settled).await;
    let memory = |when: &str, bytes: u64| {
        let name = format!("resident memory, {count} bindings of InferenceServices, {when}");
        let measurement = Measurement::new(name, megabytes(bytes));
        measurement.with_goal("≤ 25 MB", bytes <= MEMORY_GOAL)
    };
    let name = format!("writes to the API, {count} settled bindings of InferenceServices");
    let figure = format!("{writes} in {} s", settled.as_secs());
    let writes_measurement = Measurement::new(name, figure);
    let goal = "0 in 5 minutes";
    vec![
        memory("after writing all", rolled_out),
        memory("after a restart", restarted),
        if writes == 0 && settled < WRITES_GOAL {
            writes_measurement.with_undecided_goal(goal)
        } else {
            writes_measurement.with_goal(goal, writes == 0)
        },
    ]
}

/// The memory of a new operator, and the number of its writes in this time.
async fn settled_writes(
    environment: &Environment,
    objects: &ObjectSet,
    duration: Duration,
) -> (u64, usize) {
    let server = &environment.control_plane;
    let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
        .await
        .unwrap();
    let mut operator = operator(environment, objects, Some(api.url())).await;
    wait_until_idle(&operator).await;
    let memory = operator.resident_bytes().unwrap();
    let mark = api.mark();
    let task = Task::start("settled bindings, counting writes", 0);
    tokio::time::sleep(duration).await;
    task.done();
    let writes = api.writes_since(mark);
    for write in writes.iter().take(5) {
        eprintln!("  written: {} {}", write.method, write.path);
    }
    // The operator must not outlive its proxy.
    operator.stop().unwrap();
    (memory, writes.len())
}

async fn operator(environment: &Environment, objects: &ObjectSet, api: Option<String>) -> Operator {
    let kind = &INFERENCE_SERVICE;
    let other = json!({"group": kind.group, "version": kind.version, "kind": kind.kind, "plural": kind.plural});
    let values = json!({"targets": {"others": [other]}});
    environment
        .operator_with(&objects.namespace, PREFIX, api, values)
        .await
}

/// The spec of an InferenceService whose files a binding sets.
fn spec() -> Value {
    let requests = json!({"requests": {"cpu": "1", "memory": "2Gi"}});
    let model =
        json!({"modelFormat": {"name": "mlflow"}, "protocolVersion": "v2", "resources": requests});
    json!({"predictor": {"minReplicas": 1, "maxReplicas": 3, "model": model}})
}

/// Writes the status that KServe's controller writes for a service that is ready.
async fn report_ready(objects: &ObjectSet) {
    let task = objects.task("InferenceServices reported ready");
    let condition = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": "2026-11-23T12:00:00Z"});
    let conditions = ["IngressReady", "PredictorReady", "Ready"].map(condition);
    let loaded = json!({"activeModelState": "Loaded", "targetModelState": "Loaded"});
    let model = json!({"transitionStatus": "UpToDate", "states": loaded, "copies": {"failedCopies": 0, "totalCopies": 1}});
    let status = json!({"status": {"conditions": conditions, "modelStatus": model}});
    let api = objects.namespace.api(&INFERENCE_SERVICE);
    let reported = stream::iter(objects.names()).map(|name| {
        let (api, status) = (api.clone(), &status);
        async move {
            let patch = kube::api::Patch::Merge(status);
            let params = kube::api::PatchParams::default();
            api.patch_status(&name, &params, &patch).await.unwrap();
        }
    });
    reported
        .buffer_unordered(CONCURRENT_WRITES)
        .for_each(|()| {
            task.advance();
            std::future::ready(())
        })
        .await;
    task.done();
}
