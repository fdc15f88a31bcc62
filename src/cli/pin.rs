//! `kubectl pointsman pin`, `unpin`, `suspend` and `unsuspend`: the fields of a spec by which a person decides.
//!
//! Absent: bindings in Git. Argo CD and Flux put their fields back; pin there by a commit.

use serde_json::{Value, json};

use super::CommandResult;
use super::change::{BindingArguments, Goal, annotation, version_number};
use super::cluster::Cluster;
use crate::api::names;

/// Run one version, whatever the alias says, until it is unpinned
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman pin nyc-taxi 4 --reason 'CHG-4711: version 5 is slow'")]
pub struct PinArguments {
    /// The version's number
    #[arg(index = 2, value_parser = version_number)]
    version: String,
    /// Why, for the next person and the history: the annotation pointsman.dev/override-reason of the binding
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    // Last, because the heading of its flags goes on.
    #[command(flatten)]
    binding: BindingArguments,
}

/// Follow the alias or stage again
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman unpin nyc-taxi --wait")]
pub struct UnpinArguments {
    #[command(flatten)]
    binding: BindingArguments,
}

/// Change nothing in the cluster for a binding, until it is unsuspended
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman suspend nyc-taxi")]
pub struct SuspendArguments {
    #[command(flatten)]
    binding: BindingArguments,
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
    let (binding, version) = (&arguments.binding, &arguments.version);
    let cluster = binding.connect().await?;
    let done = format!("pinned to {version}");
    pin_to(
        &cluster,
        binding,
        version,
        arguments.reason.as_deref(),
        &done,
    )
    .await
}

/// Runs `unpin`.
pub async fn unpin(arguments: UnpinArguments) -> CommandResult {
    let binding = &arguments.binding;
    let cluster = binding.connect().await?;
    let patch = pinned(None, None);
    binding
        .change(&cluster, &patch, "unpinned", Goal::default())
        .await
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
    let binding = &arguments.binding;
    let cluster = binding.connect().await?;
    let patch = json!({"spec": {"suspend": value}});
    binding
        .change(&cluster, &patch, done, Goal::default())
        .await
}

/// Pins a binding to a version, and waits for it if that is asked for.
pub async fn pin_to(
    cluster: &Cluster,
    binding: &BindingArguments,
    version: &str,
    reason: Option<&str>,
    done: &str,
) -> CommandResult {
    let patch = pinned(Some(version), reason);
    let goal = Goal {
        version: Some(version.to_owned()),
        ..Goal::default()
    };
    binding.change(cluster, &patch, done, goal).await
}

/// The patch of a pin with its reason; without a version the pin ends.
fn pinned(version: Option<&str>, reason: Option<&str>) -> Value {
    let mut patch = annotation(names::OVERRIDE_REASON_ANNOTATION, reason);
    patch["spec"] = json!({"pinnedVersion": version});
    patch
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
