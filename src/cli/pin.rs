//! `kubectl pointsman pin`, `unpin`, `suspend` and `unsuspend`: the fields of a spec by which a person decides.
//!
//! Absent: bindings in Git. Argo CD and Flux put their fields back; pin there by a commit.

use std::process::ExitCode;

use kube::ResourceExt;
use serde_json::{Value, json};

use super::change::{ChangeArguments, Goal, annotation, change, version_number, wait};
use super::cluster::{Cluster, ClusterArguments, name_in};
use super::{CommandResult, Failure};
use crate::api::{AliasBinding, names};

/// Run one version, whatever the alias says, until it is unpinned
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman pin nyc-taxi 4 --reason 'CHG-4711: version 5 is slow'")]
pub struct PinArguments {
    /// The binding
    binding: String,
    /// The version's number
    #[arg(value_parser = version_number)]
    version: String,
    /// Why, for the next person and the history: the annotation pointsman.dev/override-reason of the binding
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    change: ChangeArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Follow the alias or stage again
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman unpin nyc-taxi --wait")]
pub struct UnpinArguments {
    /// The binding
    binding: String,
    #[command(flatten)]
    change: ChangeArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Change nothing in the cluster for a binding, until it is unsuspended
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman suspend nyc-taxi")]
pub struct SuspendArguments {
    /// The binding
    binding: String,
    #[command(flatten)]
    change: ChangeArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Drive the workload of a suspended binding again
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman unsuspend nyc-taxi")]
pub struct UnsuspendArguments {
    #[command(flatten)]
    suspend: SuspendArguments,
}

/// Runs `pin`.
pub async fn pin(arguments: PinArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let version = arguments.version.clone();
    let patch = pinned(Some(&version), arguments.reason.as_deref());
    let done = format!("pinned to {version}");
    let name = name_in(&arguments.binding);
    apply(
        &cluster,
        name,
        &patch,
        &done,
        Some(version),
        &arguments.change,
    )
    .await
}

/// Runs `unpin`.
pub async fn unpin(arguments: UnpinArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let patch = pinned(None, None);
    let name = name_in(&arguments.binding);
    apply(&cluster, name, &patch, "unpinned", None, &arguments.change).await
}

/// Runs `suspend`.
pub async fn suspend(arguments: SuspendArguments) -> CommandResult {
    set_suspended(arguments, true, "suspended").await
}

/// Runs `unsuspend`.
pub async fn unsuspend(arguments: UnsuspendArguments) -> CommandResult {
    set_suspended(arguments.suspend, false, "unsuspended").await
}

async fn set_suspended(arguments: SuspendArguments, value: bool, done: &str) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let patch = json!({"spec": {"suspend": value}});
    let name = name_in(&arguments.binding);
    apply(&cluster, name, &patch, done, None, &arguments.change).await
}

/// The patch of a pin with its reason; without a version the pin ends.
pub fn pinned(version: Option<&str>, reason: Option<&str>) -> Value {
    let mut patch = annotation(names::OVERRIDE_REASON_ANNOTATION, reason);
    patch["spec"] = json!({"pinnedVersion": version});
    patch
}

/// Changes a binding's spec, and waits if that is asked for.
pub async fn apply(
    cluster: &Cluster,
    name: &str,
    patch: &Value,
    done: &str,
    version: Option<String>,
    arguments: &ChangeArguments,
) -> Result<ExitCode, Failure> {
    let changed: AliasBinding = change(cluster, name, patch, done, arguments.dry_run).await?;
    if arguments.waits() {
        let goal = Goal {
            version,
            ..Goal::of(&changed)
        };
        wait(cluster, &changed.name_any(), &goal, arguments.wait.timeout).await?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_replaces_the_reason_of_the_pin_before() {
        let patch = pinned(Some("4"), None);
        assert_eq!(patch["spec"]["pinnedVersion"], "4");
        let annotations = &patch["metadata"]["annotations"];
        assert!(annotations["pointsman.dev/override-reason"].is_null());
        let annotations = annotations.as_object().map(serde_json::Map::len);
        assert_eq!(annotations, Some(1), "null removes it");
    }
}
