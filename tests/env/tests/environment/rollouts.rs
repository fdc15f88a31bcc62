//! The control plane rolls Deployments out, and kwok gives pods their behavior.
//! Absent: the operator; kubectl applies the Deployments.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use pointsman_env::{Selection, TestNamespace, Workload, kinds};
use serde_json::{Value, json};

use crate::Shared;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn trials(shared: &Arc<Shared>) -> Vec<Trial> {
    vec![
        shared.trial("a_deployment_becomes_available", becomes_available),
        shared.trial("a_version_has_its_own_behavior", behavior_by_version),
        shared.trial("a_running_pod_can_be_broken", broken_while_running),
        shared.trial("jobs_complete_and_fail", jobs),
        shared.trial("a_failure_is_reported_in_full", reported_in_full),
    ]
}

async fn new_namespace(shared: &Shared, name: &str) -> TestNamespace {
    TestNamespace::start(&shared.control_plane().await, name)
        .await
        .unwrap()
}

fn available(deployment: &Value) -> bool {
    deployment.pointer("/status/availableReplicas") == Some(&json!(2))
        && deployment.pointer("/status/observedGeneration")
            == deployment.pointer("/metadata/generation")
}

fn state(pod: &Value) -> &str {
    let waiting = pod
        .pointer("/status/containerStatuses/0/state/waiting/reason")
        .and_then(Value::as_str);
    let ready = pod
        .pointer("/status/containerStatuses/0/ready")
        .and_then(Value::as_bool);
    waiting.unwrap_or(if ready == Some(true) {
        "ready"
    } else {
        "unready"
    })
}

fn restarts(pod: &Value) -> i64 {
    pod.pointer("/status/containerStatuses/0/restartCount")
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

async fn becomes_available(shared: Arc<Shared>) {
    let namespace = new_namespace(&shared, "available").await;
    namespace
        .kubectl_apply(Workload::deployment("web").manifest())
        .await
        .unwrap();
    namespace
        .eventually(
            "the Deployment is available",
            PATIENCE,
            &kinds::DEPLOYMENT,
            "web",
            available,
        )
        .await;
    namespace.delete(&kinds::DEPLOYMENT, "web").await.unwrap();
    namespace
        .eventually_all(
            "its pods are collected",
            PATIENCE,
            &kinds::POD,
            &Selection::Labelled("app=web"),
            std::collections::BTreeMap::is_empty,
        )
        .await;
    namespace.end().await.unwrap();
}

async fn behavior_by_version(shared: Arc<Shared>) {
    let namespace = new_namespace(&shared, "behaviors").await;
    let deployment = Workload::deployment("web").with_behavior("2=crash,3=image-pull");
    namespace
        .kubectl_apply(deployment.manifest())
        .await
        .unwrap();
    namespace
        .eventually(
            "the Deployment is available",
            PATIENCE,
            &kinds::DEPLOYMENT,
            "web",
            available,
        )
        .await;
    namespace
        .patch(&kinds::DEPLOYMENT, "web", &version("2"))
        .await
        .unwrap();
    let crashing = |pod: &Value| state(pod) == "CrashLoopBackOff" && restarts(pod) >= 4;
    namespace
        .eventually_all(
            "version 2 crashes",
            PATIENCE,
            &kinds::POD,
            &Selection::Labelled("app=web"),
            |pods| pods.values().any(crashing),
        )
        .await;
    namespace
        .patch(&kinds::DEPLOYMENT, "web", &version("3"))
        .await
        .unwrap();
    namespace
        .eventually_all(
            "version 3 has no image",
            PATIENCE,
            &kinds::POD,
            &Selection::Labelled("app=web"),
            |pods| pods.values().any(|pod| state(pod) == "ImagePullBackOff"),
        )
        .await;
    namespace
        .patch(&kinds::DEPLOYMENT, "web", &version("4"))
        .await
        .unwrap();
    namespace
        .eventually(
            "version 4 runs",
            PATIENCE,
            &kinds::DEPLOYMENT,
            "web",
            |deployment| {
                available(deployment) && deployment.pointer("/status/replicas") == Some(&json!(2))
            },
        )
        .await;
}

fn version(version: &str) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {"pointsman.dev/model-version": version}}}}})
}

async fn broken_while_running(shared: Arc<Shared>) {
    let namespace = new_namespace(&shared, "broken").await;
    namespace
        .apply_object(&Workload::deployment("web").manifest())
        .await
        .unwrap();
    namespace
        .eventually(
            "the Deployment is available",
            PATIENCE,
            &kinds::DEPLOYMENT,
            "web",
            available,
        )
        .await;
    namespace
        .kubectl(&[
            "annotate",
            "pods",
            "-l",
            "app=web",
            "kwok.test/behavior=*=never-ready",
        ])
        .await
        .unwrap();
    let unready = |deployment: &Value| deployment.pointer("/status/readyReplicas").is_none();
    namespace
        .eventually(
            "it lost its readiness",
            PATIENCE,
            &kinds::DEPLOYMENT,
            "web",
            unready,
        )
        .await;
}

async fn jobs(shared: Arc<Shared>) {
    let namespace = new_namespace(&shared, "jobs").await;
    for (name, behavior, outcome) in [("good", "*=ready", "Complete"), ("bad", "*=fail", "Failed")]
    {
        namespace.apply_object(&job(name, behavior)).await.unwrap();
        let ended = |job: &Value| {
            let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
            conditions.is_some_and(|all| {
                all.iter()
                    .any(|each| each["type"] == outcome && each["status"] == "True")
            })
        };
        namespace
            .eventually("the Job has ended", PATIENCE, &kinds::JOB, name, ended)
            .await;
    }
}

fn job(name: &str, behavior: &str) -> Value {
    let containers = json!([{"name": "train", "image": "registry.example/train:1"}]);
    let pod = json!({"metadata": {"annotations": {"kwok.test/behavior": behavior}}, "spec": {"restartPolicy": "Never", "containers": containers}});
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": pod}})
}

async fn reported_in_full(shared: Arc<Shared>) {
    let namespace = new_namespace(&shared, "explains").await;
    namespace
        .kubectl_apply(
            Workload::deployment("web")
                .with_behavior("*=never-ready")
                .manifest(),
        )
        .await
        .unwrap();
    let waiting = async move {
        namespace
            .eventually(
                "never",
                Duration::from_secs(2),
                &kinds::DEPLOYMENT,
                "web",
                available,
            )
            .await
    };
    let panic = tokio::spawn(waiting).await.unwrap_err().into_panic();
    let text = panic.downcast_ref::<String>().unwrap();
    for expected in [
        "never: not within 2s",
        "web: wants 2, updated 2, ready 0",
        "ScalingReplicaSet",
        "Pod: 2",
    ] {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
}
