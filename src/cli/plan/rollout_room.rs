//! The room that a rollout needs: how many pods more than now, and what each of them requests.
//!
//! Absent: whether the cluster has that room. The scheduler, quotas and autoscalers decide it.

use serde_json::Value;

/// The surge of a workload that sets none and whose kind has one.
const USUAL_SURGE: &str = "25%";

/// The room that a new pod template needs, as a sentence.
#[must_use]
pub fn room(workload: &Value) -> String {
    let spec = &workload["spec"];
    let replicas = spec["replicas"].as_i64().unwrap_or(1);
    let requests = requests(spec.pointer("/template/spec").unwrap_or(&Value::Null));
    let kind = workload["kind"].as_str().unwrap_or_default();
    let strategy = match kind {
        "StatefulSet" | "DaemonSet" => &spec["updateStrategy"],
        _ => &spec["strategy"],
    };
    let pods = match kind {
        "DaemonSet" => "one pod a node".to_owned(),
        _ => count(replicas),
    };
    let room = match strategy["type"].as_str() {
        Some("OnDelete") => "each pod is replaced when somebody deletes it".to_owned(),
        Some("Recreate") => "all stop before the first new one starts".to_owned(),
        _ => surge(kind, strategy, replicas),
    };
    format!("{pods}; {room}; {requests}")
}

fn count(replicas: i64) -> String {
    if replicas == 1 {
        "1 pod".to_owned()
    } else {
        format!("{replicas} pods")
    }
}

fn surge(kind: &str, strategy: &Value, replicas: i64) -> String {
    let update = ["rollingUpdate", "canary"];
    let update = update.iter().find_map(|name| strategy.get(*name));
    let surge = update.and_then(|update| update.get("maxSurge"));
    let surge = match surge {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None if matches!(kind, "Deployment" | "Rollout") => USUAL_SURGE.to_owned(),
        None => "0".to_owned(),
    };
    if strategy.get("blueGreen").is_some() {
        return format!("{} more until the new ones take over", count(replicas));
    }
    let more = if kind == "DaemonSet" {
        i64::from(surge.trim_end_matches('%') != "0")
    } else {
        extra_pods(&surge, replicas)
    };
    match more {
        0 => "replaced in their places, with no pod more".to_owned(),
        more => format!(
            "at most {} more during the rollout (maxSurge {surge})",
            count(more)
        ),
    }
}

/// A number, or a percentage of the replicas that is rounded up, as the workload's controller does.
fn extra_pods(surge: &str, replicas: i64) -> i64 {
    match surge.strip_suffix('%') {
        Some(percent) => {
            let percent: i64 = percent.parse().unwrap_or(0);
            replicas.saturating_mul(percent).saturating_add(99) / 100
        }
        None => surge.parse().unwrap_or(0),
    }
}

/// The requests of each container that has some.
fn requests(pod: &Value) -> String {
    let containers = pod["containers"].as_array().into_iter().flatten();
    let requested: Vec<String> = containers.filter_map(container_requests).collect();
    if requested.is_empty() {
        "the pods request nothing".to_owned()
    } else {
        format!("each pod requests {}", requested.join("; "))
    }
}

fn container_requests(container: &Value) -> Option<String> {
    let requests = container.pointer("/resources/requests")?.as_object()?;
    let amount = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let amounts: Vec<String> = requests
        .iter()
        .map(|(name, value)| format!("{name} {}", amount(value)))
        .collect();
    let name = container["name"].as_str().unwrap_or_default();
    (!amounts.is_empty()).then(|| format!("{} ({name})", amounts.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(kind: &str, mut spec: Value) -> Value {
        let requests = json!({"cpu": "500m", "memory": "1Gi"});
        spec["template"] = json!({"spec": {"containers": [
            {"name": "server", "resources": {"requests": requests}}, {"name": "sidecar"}]}});
        json!({"kind": kind, "spec": spec})
    }

    #[test]
    fn a_deployment_needs_its_surge_rounded_up() {
        let usual = room(&workload("Deployment", json!({"replicas": 5})));
        assert_eq!(
            usual,
            "5 pods; at most 2 pods more during the rollout (maxSurge 25%); each pod requests cpu 500m, memory 1Gi (server)"
        );
        let strategy = json!({"replicas": 2, "strategy": {"rollingUpdate": {"maxSurge": 0}}});
        let none = room(&workload("Deployment", strategy));
        assert!(
            none.starts_with("2 pods; replaced in their places"),
            "{none}"
        );
    }

    #[test]
    fn kinds_and_strategies_without_a_surge_need_no_pod_more() {
        let recreate = json!({"strategy": {"type": "Recreate"}});
        let recreate = room(&workload("Deployment", recreate));
        assert!(recreate.contains("all stop before"), "{recreate}");
        for kind in ["StatefulSet", "DaemonSet"] {
            let sentence = room(&workload(kind, json!({"replicas": 3})));
            assert!(sentence.contains("no pod more"), "{kind}: {sentence}");
        }
    }

    #[test]
    fn pods_without_requests_are_named_as_such() {
        let bare = json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}});
        assert!(room(&bare).ends_with("the pods request nothing"));
    }
}
