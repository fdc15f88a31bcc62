//! The report of a namespace that is printed if a scenario fails: custom resources in full, workloads and pods in short, Events and logs.
//! Nothing here fails: an object that cannot be read is left out, so that the first failure stays visible.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::Value;

use crate::kinds::{self, Kind};
use crate::manifests::{readable, text};
use crate::process::tail;
use crate::test_namespace::TestNamespace;

/// The kinds whose objects are reported.
pub(crate) const REPORTED_KINDS: [&Kind; 8] = [
    &kinds::MODEL_REGISTRY,
    &kinds::REGISTERED_MODEL,
    &kinds::ALIAS_BINDING,
    &kinds::DEPLOYMENT,
    &kinds::STATEFUL_SET,
    &kinds::DAEMON_SET,
    &kinds::REPLICA_SET,
    &kinds::POD,
];

/// Every object, Event and log of the namespace that may explain a failure.
pub(crate) async fn report(namespace: &TestNamespace, logs: &[PathBuf]) -> String {
    let mut report = String::new();
    for kind in REPORTED_KINDS {
        let objects = namespace.list(kind, "").await.unwrap_or_default();
        section(&mut report, kind, &objects);
    }
    report.push_str("===== Events\n");
    for event in namespace.list(&kinds::EVENT, "").await.unwrap_or_default() {
        report.push_str(&event_line(&event));
    }
    for log in logs {
        let _ = write!(report, "===== {}\n{}\n", log.display(), tail(log, 60));
    }
    report
}

fn section(report: &mut String, kind: &Kind, objects: &[Value]) {
    let _ = writeln!(report, "===== {}: {}", kind.kind, objects.len());
    for object in objects {
        match kind.kind {
            "Deployment" | "StatefulSet" | "DaemonSet" => report.push_str(&workload_lines(object)),
            "ReplicaSet" => report.push_str(&replica_set_line(object)),
            "Pod" => report.push_str(&pod_line(object)),
            _ => {
                let _ = writeln!(report, "---\n{}", readable(object));
            }
        }
    }
}

fn workload_lines(object: &Value) -> String {
    let mut lines = format!(
        "{}: wants {}, updated {}, ready {}, generation {} observed {}, status {}\n",
        text(object, "/metadata/name"),
        either(object, "/spec/replicas", "/status/desiredNumberScheduled"),
        either(
            object,
            "/status/updatedReplicas",
            "/status/updatedNumberScheduled"
        ),
        either(object, "/status/readyReplicas", "/status/numberReady"),
        number(object, "/metadata/generation"),
        number(object, "/status/observedGeneration"),
        without_conditions(object),
    );
    for condition in object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let _ = writeln!(
            lines,
            "  {}={} {}: {}",
            text(condition, "/type"),
            text(condition, "/status"),
            text(condition, "/reason"),
            text(condition, "/message")
        );
    }
    let _ = writeln!(
        lines,
        "  annotations {}",
        object
            .pointer("/metadata/annotations")
            .unwrap_or(&Value::Null)
    );
    let _ = writeln!(
        lines,
        "  template {}",
        object.pointer("/spec/template").unwrap_or(&Value::Null)
    );
    lines
}

/// The number at the first pointer, or at the second, which is a DaemonSet's.
fn either(object: &Value, first: &str, second: &str) -> i64 {
    let pointer = if object.pointer(first).is_some() {
        first
    } else {
        second
    };
    number(object, pointer)
}

/// The counters and revisions of a workload's status, whatever its kind calls them.
fn without_conditions(object: &Value) -> Value {
    let mut status = object.pointer("/status").cloned().unwrap_or_default();
    if let Some(status) = status.as_object_mut() {
        status.remove("conditions");
    }
    status
}

fn replica_set_line(object: &Value) -> String {
    format!(
        "{}: wants {}, ready {}, model version {}\n",
        text(object, "/metadata/name"),
        number(object, "/spec/replicas"),
        number(object, "/status/readyReplicas"),
        text(
            object,
            "/spec/template/metadata/annotations/pointsman.dev~1model-version"
        ),
    )
}

fn pod_line(object: &Value) -> String {
    let container = object
        .pointer("/status/containerStatuses/0")
        .unwrap_or(&Value::Null);
    format!(
        "{}: {}, model version {}, ready {}, restarts {}, {}\n",
        text(object, "/metadata/name"),
        text(object, "/status/phase"),
        text(object, "/metadata/annotations/pointsman.dev~1model-version"),
        container.pointer("/ready").unwrap_or(&Value::Null),
        number(container, "/restartCount"),
        container.pointer("/state").unwrap_or(&Value::Null),
    )
}

fn event_line(event: &Value) -> String {
    format!(
        "{} {}/{} {}: {}\n",
        text(event, "/type"),
        text(event, "/involvedObject/kind"),
        text(event, "/involvedObject/name"),
        text(event, "/reason"),
        text(event, "/message"),
    )
}

fn number(object: &Value, pointer: &str) -> i64 {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}
