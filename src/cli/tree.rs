//! `kubectl pointsman tree`: from the registry down to the pods, each with its health in words.
//!
//! Absent: objects that the person may not read, but for a line that says so.

use std::process::ExitCode;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::cluster::{Cluster, ClusterArguments, name_in};
use super::output::OutputArguments;
use super::pod_health::pod_node;
use super::tree_node::{TreeNode, flatten, table};
use super::{CommandResult, Failure};
use crate::api::alias_binding::TargetKind;
use crate::api::conditions::{READY, find};
use crate::api::{AliasBinding, ModelRegistry, RegisteredModel, names};

/// Show a binding from the registry down to its pods, each with its health
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  From the registry to the pods:
    kubectl pointsman tree nyc-taxi -n ml")]
pub struct TreeArguments {
    /// The AliasBinding's name
    binding: String,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// Runs the command.
pub async fn run(arguments: TreeArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let binding: AliasBinding = cluster.get(name_in(&arguments.binding)).await?;
    let workload = workload_node(&cluster, &binding).await;
    let model = cluster
        .find::<RegisteredModel>(&binding.spec.model_ref.name)
        .await?;
    let registry = match &model {
        Some(model) => Some(registry_node(&cluster, model).await),
        None => None,
    };
    let root = chain(&binding, model.as_ref(), registry, workload);
    let mut lines = Vec::new();
    flatten(&root, "", "", &mut lines);
    let names = lines.iter().map(|line| line.object.clone());
    arguments
        .output
        .print(&root, names, |paint| table(&lines).render(paint))?;
    Ok(ExitCode::SUCCESS)
}

/// Registry, model, version, binding, workload: each below the one before.
fn chain(
    binding: &AliasBinding,
    model: Option<&RegisteredModel>,
    registry: Option<TreeNode>,
    workload: TreeNode,
) -> TreeNode {
    let status = binding.status.clone().unwrap_or_default();
    let mut node = with_condition("AliasBinding", &binding.name_any(), &status.conditions);
    node.children = vec![workload];
    if let Some(running) = &status.running {
        let number = running.version.number();
        let aliases = model.and_then(|model| model.status.as_ref()).map(|status| {
            let named = status
                .aliases
                .iter()
                .filter(|alias| alias.version == number);
            named
                .map(|alias| alias.name.clone())
                .collect::<Vec<_>>()
                .join(", ")
        });
        let aliases = aliases.filter(|aliases| !aliases.is_empty());
        let aliases = aliases.map_or_else(String::new, |aliases| format!(", alias {aliases}"));
        let wanted = status.wanted.as_deref().filter(|wanted| *wanted != number);
        let wanted = wanted.map_or_else(String::new, |wanted| {
            format!("; version {wanted} is wanted")
        });
        let health = format!("runs{aliases}{wanted}");
        node = above(
            TreeNode::new(format!("Version/{number}"), None, health),
            node,
        );
    }
    let of_model = match model {
        Some(model) => {
            let conditions = model
                .status
                .as_ref()
                .map(|status| status.conditions.as_slice());
            with_condition(
                "RegisteredModel",
                &model.name_any(),
                conditions.unwrap_or_default(),
            )
        }
        None => TreeNode::new(
            format!("RegisteredModel/{}", binding.spec.model_ref.name),
            Some(false),
            "does not exist",
        ),
    };
    node = above(of_model, node);
    match registry {
        Some(registry) => above(registry, node),
        None => node,
    }
}

fn above(mut parent: TreeNode, child: TreeNode) -> TreeNode {
    parent.children.push(child);
    parent
}

/// An object of ours with its condition Ready.
fn with_condition(kind: &str, name: &str, conditions: &[Condition]) -> TreeNode {
    let object = format!("{kind}/{name}");
    match find(conditions, READY) {
        Some(ready) if ready.status == "True" => TreeNode::new(object, Some(true), &*ready.reason),
        Some(ready) => TreeNode::new(
            object,
            Some(false),
            format!("{}: {}", ready.reason, ready.message),
        ),
        None => TreeNode::new(object, None, "not reconciled yet"),
    }
}

async fn registry_node(cluster: &Cluster, model: &RegisteredModel) -> TreeNode {
    let (name, namespace) = (&model.spec.registry_ref.name, model.registry_namespace());
    let api: Api<ModelRegistry> = Api::namespaced(cluster.client.clone(), &namespace);
    match api.get(name).await {
        Ok(registry) => {
            let status = registry.status.unwrap_or_default();
            with_condition("ModelRegistry", name, &status.conditions)
        }
        Err(error) => {
            let namespace = Some(namespace.as_str());
            let failure = cluster.explain::<ModelRegistry>("get", Some(name), namespace, &error);
            TreeNode::new(format!("ModelRegistry/{name}"), None, failure.to_string())
        }
    }
}

async fn workload_node(cluster: &Cluster, binding: &AliasBinding) -> TreeNode {
    let (kind, name) = (binding.target_kind(), binding.workload_name());
    let object = format!("{kind}/{name}");
    match workload(cluster, &kind, name).await {
        Ok(workload) => {
            let (well, health) = workload_health(&kind, &workload);
            let mut node = TreeNode::new(object, well, health);
            node.children = match pods_of(cluster, &kind, &workload).await {
                Ok(children) => children,
                Err(failure) => vec![TreeNode::new("Pods".to_owned(), None, failure.to_string())],
            };
            node
        }
        Err(failure) => TreeNode::new(object, Some(false), failure.to_string()),
    }
}

/// The workload as it is in the cluster.
pub async fn workload(cluster: &Cluster, kind: &TargetKind, name: &str) -> Result<Value, Failure> {
    match cluster.workloads(kind).get(name).await {
        Ok(found) => Ok(serde_json::to_value(found)?),
        Err(kube::Error::Api(status)) if status.is_not_found() => Err(format!(
            "there is no {} {name} in the namespace {}",
            kind.as_str(),
            cluster.namespace
        )
        .into()),
        Err(error) => Err(error.to_string().into()),
    }
}

fn count(value: &Value, path: &str) -> i64 {
    value
        .pointer(path)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// Whether a workload is well, and its numbers in words; of a kind without replicas, what its condition Ready says.
fn workload_health(kind: &TargetKind, workload: &Value) -> (Option<bool>, String) {
    let (desired, available, updated) = match kind {
        TargetKind::CronJob | TargetKind::Other(_) => return condition_health(workload),
        TargetKind::DaemonSet => (
            count(workload, "/status/desiredNumberScheduled"),
            count(workload, "/status/numberAvailable"),
            count(workload, "/status/updatedNumberScheduled"),
        ),
        TargetKind::Deployment | TargetKind::StatefulSet | TargetKind::Rollout => {
            // A workload that names no number has one replica.
            let desired = workload.pointer("/spec/replicas").and_then(Value::as_i64);
            (
                desired.unwrap_or(1),
                count(workload, "/status/availableReplicas"),
                count(workload, "/status/updatedReplicas"),
            )
        }
    };
    let mut words = vec![format!("{available}/{desired} available")];
    if updated != desired {
        words.push(format!("{updated} updated"));
    }
    if workload.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        words.push("paused".to_owned());
    }
    let words = words.join(", ");
    (Some(available >= desired && updated >= desired), words)
}

fn condition_health(workload: &Value) -> (Option<bool>, String) {
    let conditions = workload
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let ready = conditions.and_then(|all| all.iter().find(|each| each["type"] == "Ready"));
    let Some(ready) = ready else {
        return (None, "exists".to_owned());
    };
    let word = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    let words = [word("reason"), word("message")];
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    (Some(ready["status"] == "True"), words.join(": "))
}

/// The ReplicaSets with their pods, the newest first; the pods themselves if the workload has no ReplicaSets.
async fn pods_of(
    cluster: &Cluster,
    kind: &TargetKind,
    workload: &Value,
) -> Result<Vec<TreeNode>, Failure> {
    let namespace = Some(cluster.namespace.as_str());
    let labels = selector(workload);
    if labels.is_empty() {
        return Ok(Vec::new());
    }
    let selector = ListParams::default().labels(&labels);
    let pods = cluster
        .list::<Pod, Pod>(namespace, selector.clone())
        .await?
        .items;
    let owner = workload
        .pointer("/metadata/uid")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if kind.owns_pods() {
        return Ok(nodes_of(&pods, owner));
    }
    let sets = cluster
        .list::<ReplicaSet, ReplicaSet>(namespace, selector)
        .await?;
    let mut sets: Vec<ReplicaSet> = sets
        .items
        .into_iter()
        .filter(|set| is_owned(set, owner))
        .collect();
    sets.sort_by_key(|set| std::cmp::Reverse(revision(set)));
    Ok(sets
        .iter()
        .map(|set| replica_set_node(set, &pods))
        .collect())
}

/// A workload's label selector as a list takes it.
fn selector(workload: &Value) -> String {
    let mut terms = Vec::new();
    let labels = workload
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object);
    for (name, value) in labels.into_iter().flatten() {
        terms.push(format!("{name}={}", value.as_str().unwrap_or_default()));
    }
    let expressions = workload
        .pointer("/spec/selector/matchExpressions")
        .and_then(Value::as_array);
    for each in expressions.into_iter().flatten() {
        let key = each["key"].as_str().unwrap_or_default();
        let values = each["values"].as_array().into_iter().flatten();
        let values: Vec<&str> = values.filter_map(Value::as_str).collect();
        terms.push(match each["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

fn is_owned(object: &impl ResourceExt, owner: &str) -> bool {
    object
        .owner_references()
        .iter()
        .any(|reference| reference.uid == owner)
}

fn revision(set: &ReplicaSet) -> u64 {
    let annotation = set.annotations().get(names::REVISION_ANNOTATION);
    annotation
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

fn replica_set_node(set: &ReplicaSet, pods: &[Pod]) -> TreeNode {
    let desired = set
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or_default();
    let ready = set
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or_default();
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let annotations =
        template.and_then(|template| template.metadata.as_ref()?.annotations.as_ref());
    let version = annotations.and_then(|all| all.get(names::VERSION_ANNOTATION));
    let version = version.map_or_else(
        || "no version".to_owned(),
        |version| format!("version {version}"),
    );
    let (well, health) = if desired == 0 {
        (None, format!("{version}, kept for going back"))
    } else {
        (
            Some(ready >= desired),
            format!("{version}, {ready}/{desired} ready"),
        )
    };
    let mut node = TreeNode::new(format!("ReplicaSet/{}", set.name_any()), well, health);
    node.children = nodes_of(pods, &set.uid().unwrap_or_default());
    node
}

fn nodes_of(pods: &[Pod], owner: &str) -> Vec<TreeNode> {
    let own = pods.iter().filter(|pod| is_owned(*pod, owner));
    own.map(|pod| pod_node(pod, Timestamp::now())).collect()
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
