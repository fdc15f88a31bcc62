use serde_json::json;

use super::super::output::Paint;
use super::*;

fn binding() -> AliasBinding {
    serde_json::from_value(json!({
        "metadata": {"name": "taxi", "namespace": "ml"},
        "spec": {"modelRef": {"name": "nyc-taxi"}, "alias": "champion", "targetRef": {"name": "server"}},
        "status": {"wanted": "6", "running": {"version": "5"}, "conditions": [{"type": "Ready", "status": "False",
            "reason": "RollingOut", "message": "1 of 2", "lastTransitionTime": "2026-11-25T11:00:00Z"}]}}))
    .unwrap()
}

fn model() -> RegisteredModel {
    serde_json::from_value(json!({
        "metadata": {"name": "nyc-taxi", "namespace": "ml"},
        "spec": {"registryRef": {"name": "mlflow"}},
        "status": {
            "aliases": [{"name": "champion", "version": "6", "since": "2026-11-25T11:00:00Z"},
                {"name": "old", "version": "5", "since": "2026-11-25T11:00:00Z"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Mirrored", "message": "",
                "lastTransitionTime": "2026-11-25T11:00:00Z"}]}}))
    .unwrap()
}

fn replica_set(name: &str, version: &str, replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name},
        "spec": {"replicas": replicas, "selector": {}, "template": {"metadata": {"annotations": {
            "pointsman.dev/model-version": version}}}},
        "status": {"replicas": replicas, "readyReplicas": replicas}}))
    .unwrap()
}

fn pod(name: &str, set: &str, state: Value, ready: bool) -> Pod {
    let status = if ready { "True" } else { "False" };
    serde_json::from_value(json!({
        "metadata": {"name": name, "creationTimestamp": "2026-11-25T11:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": set}],
            "annotations": {"pointsman.dev/model-version": "6"}},
        "spec": {"containers": [{"name": "server"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}],
            "containerStatuses": [{"name": "server", "ready": ready, "restartCount": 4, "image": "", "imageID": "",
                "state": state}]}}))
    .unwrap()
}

#[test]
fn the_tree_goes_from_the_registry_to_the_pods() {
    let deployment =
        json!({"spec": {"replicas": 2}, "status": {"availableReplicas": 2, "updatedReplicas": 1}});
    let (well, health) = workload_health(&TargetKind::Deployment, &deployment);
    let mut workload = TreeNode::new("Deployment/server".to_owned(), well, health);
    workload.children = vec![
        replica_set_node(&replica_set("server-b", "6", 1), &[]),
        replica_set_node(&replica_set("server-a", "5", 0), &[]),
    ];
    let registry = TreeNode::new("ModelRegistry/mlflow".to_owned(), Some(true), "Reachable");
    let root = chain(&binding(), Some(&model()), Some(registry), workload);
    let mut lines = Vec::new();
    flatten(&root, "", "", &mut lines);
    let expected = "\
OBJECT                               READY   HEALTH
ModelRegistry/mlflow                 True    Reachable
└─ RegisteredModel/nyc-taxi          True    Mirrored
   └─ Version/5                              runs, alias old; version 6 is wanted
      └─ AliasBinding/taxi           False   RollingOut: 1 of 2
         └─ Deployment/server        False   2/2 available, 1 updated
            ├─ ReplicaSet/server-b   True    version 6, 1/1 ready
            └─ ReplicaSet/server-a           version 5, kept for going back
";
    assert_eq!(table(&lines).render(Paint::never()), expected);
}

#[test]
fn a_pod_tells_its_trouble_as_kubectl_does() {
    let now = "2026-11-25T11:30:00Z".parse().unwrap();
    let crashing = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    for (state, ready, expected) in [
        (
            crashing,
            false,
            "version 6, CrashLoopBackOff, 0/1 ready, 4 restarts, 30m",
        ),
        (
            json!({"terminated": {"exitCode": 1, "reason": "Error"}}),
            false,
            "version 6, Error, 0/1 ready, 4 restarts, 30m",
        ),
        (
            json!({"running": {}}),
            true,
            "version 6, Running, 1/1 ready, 4 restarts, 30m",
        ),
    ] {
        let node = pod_node(&pod("server-b-1", "server-b", state, ready), now);
        assert_eq!((node.health.as_str(), node.well), (expected, Some(ready)));
        assert_eq!(node.object, "Pod/server-b-1");
    }
    let owned = [pod("server-b-1", "server-b", json!({"running": {}}), true)];
    assert_eq!(
        replica_set_node(&replica_set("server-b", "6", 1), &owned)
            .children
            .len(),
        1
    );
    assert!(
        replica_set_node(&replica_set("server-a", "5", 0), &owned)
            .children
            .is_empty()
    );
}

#[test]
fn every_form_of_a_selector_is_asked_for() {
    let workload = json!({"spec": {"selector": {"matchLabels": {"app": "server"}, "matchExpressions": [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "track", "operator": "NotIn", "values": ["canary"]},
        {"key": "team", "operator": "Exists"},
        {"key": "old", "operator": "DoesNotExist"}]}}});
    assert_eq!(
        selector(&workload),
        "app=server,tier in (a,b),track notin (canary),team,!old"
    );
}

#[test]
fn each_kind_of_workload_tells_its_own_numbers() {
    let daemon_set = json!({"status": {"desiredNumberScheduled": 3, "numberAvailable": 3, "updatedNumberScheduled": 3}});
    assert_eq!(
        workload_health(&TargetKind::DaemonSet, &daemon_set),
        (Some(true), "3/3 available".to_owned())
    );
    let stateful_set = json!({"status": {"availableReplicas": 0, "updatedReplicas": 1}});
    assert_eq!(
        workload_health(&TargetKind::StatefulSet, &stateful_set),
        (Some(false), "0/1 available".to_owned())
    );
    let paused = json!({"spec": {"replicas": 1, "paused": true}, "status": {"availableReplicas": 1, "updatedReplicas": 0}});
    let words = "1/1 available, 0 updated, paused".to_owned();
    assert_eq!(
        workload_health(&TargetKind::Deployment, &paused),
        (Some(false), words)
    );
    let service = TargetKind::of("serving.kserve.io/v1beta1", "InferenceService");
    assert_eq!(
        workload_health(&service, &json!({})),
        (None, "exists".to_owned())
    );
    let failing = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "NoRoute"}]}});
    assert_eq!(
        workload_health(&service, &failing),
        (Some(false), "NoRoute".to_owned())
    );
    assert_eq!(selector(&failing), "", "no pods are looked for");
}
