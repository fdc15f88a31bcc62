//! `kubectl pointsman freeze` and `unfreeze`: no version goes forward for a registry, in a namespace or for a binding.
//!
//! Absent: windows. They are in the binding's spec.

use std::process::ExitCode;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::Patch;
use serde_json::json;

use super::CommandResult;
use super::change::{DryRunArguments, annotation, change, parameters, tell};
use super::cluster::{Cluster, ClusterArguments};
use crate::api::{AliasBinding, ModelRegistry, names};

/// Hold every version that would go forward in the namespace, for a registry or a binding; rollbacks, pins and retries pass
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  All bindings of a namespace, which takes the right to patch it:
    kubectl pointsman freeze 'quarter end, CHG-4711' -n ml
  All bindings that follow models of a registry:
    kubectl pointsman freeze 'quarter end, CHG-4711' --registry mlflow -n mlflow
  One binding, which takes the right to patch it:
    kubectl pointsman freeze 'quarter end, CHG-4711' --binding nyc-taxi -n ml")]
pub struct FreezeArguments {
    /// Why, shown by each binding that waits
    reason: String,
    #[command(flatten)]
    place: FreezePlaceArguments,
}

/// End a freeze
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  kubectl pointsman unfreeze -n ml
  kubectl pointsman unfreeze --registry mlflow -n mlflow
  kubectl pointsman unfreeze --binding nyc-taxi -n ml")]
pub struct UnfreezeArguments {
    #[command(flatten)]
    place: FreezePlaceArguments,
}

/// What is frozen.
#[derive(Clone, Debug, clap::Args)]
pub struct FreezePlaceArguments {
    /// The ModelRegistry, in the namespace of -n. Default: the namespace itself
    #[arg(long, value_name = "NAME")]
    registry: Option<String>,
    /// The AliasBinding, in the namespace of -n
    #[arg(long, value_name = "NAME", conflicts_with = "registry")]
    binding: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs `freeze`.
pub async fn freeze(arguments: FreezeArguments) -> CommandResult {
    set(&arguments.place, Some(&arguments.reason), "frozen").await
}

/// Runs `unfreeze`.
pub async fn unfreeze(arguments: UnfreezeArguments) -> CommandResult {
    set(&arguments.place, None, "unfrozen").await
}

async fn set(place: &FreezePlaceArguments, reason: Option<&str>, done: &str) -> CommandResult {
    let cluster = Cluster::connect(&place.cluster).await?;
    let dry_run = place.dry_run.mode;
    if let Some(registry) = &place.registry {
        let patch = json!({"spec": {"freeze": reason}});
        change::<ModelRegistry>(&cluster, registry, &patch, done, dry_run).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let patch = annotation(names::FREEZE_ANNOTATION, reason);
    if let Some(binding) = &place.binding {
        change::<AliasBinding>(&cluster, binding, &patch, done, dry_run).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let name = cluster.namespace.as_str();
    let patch = Patch::Merge(patch);
    let patched = namespaces.patch(name, &parameters(dry_run), &patch).await;
    patched.map_err(|error| cluster.explain::<Namespace>("patch", Some(name), None, &error))?;
    // The right to read the namespace is not needed, so it is not known whether it was so before.
    tell(&format!("namespace/{name}"), done, dry_run, true)?;
    Ok(ExitCode::SUCCESS)
}
