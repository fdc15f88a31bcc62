//! `kubectl pointsman rollback`: back to an earlier version by a pin, which holds while the alias still names the bad one.
//!
//! Absent: a move of the alias. `unpin` follows it again.

use kube::{Api, ResourceExt};

use super::change::{BindingArguments, version_number};
use super::pin::pin_to;
use super::{CommandResult, Failure};
use crate::api::rollback::FailedVersion;
use crate::api::{AliasBinding, AliasBindingStatus, RegisteredModel, VersionRef};
use crate::rollout::{candidates, resolve};

/// Go back to the last good version, or to another one, and stay there until unpin
///
/// A version that was good before needs no gate and does not bake again. The binding is pinned, so that the version stays while
/// the alias still names the bad one; `unpin` follows the alias again.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  To the newest good version before the present one:
    kubectl pointsman rollback nyc-taxi --reason 'version 5 is slow' --wait
  To version 3:
    kubectl pointsman rollback nyc-taxi --to 3
  Forward again, when the alias names a better version:
    kubectl pointsman unpin nyc-taxi")]
pub struct RollbackArguments {
    /// The version to go back to. Default: the newest one that was good and is not the present one
    #[arg(long, value_name = "NUMBER", value_parser = version_number)]
    to: Option<String>,
    /// Why, for the next person and the history: the annotation pointsman.dev/override-reason of the binding
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    // Last, because the heading of its flags goes on.
    #[command(flatten)]
    binding: BindingArguments,
}

/// Runs the command.
pub async fn run(arguments: RollbackArguments) -> CommandResult {
    let cluster = arguments.binding.connect().await?;
    let binding: AliasBinding = cluster.get(arguments.binding.name()).await?;
    let models: Api<RegisteredModel> = cluster.api();
    let model = models.get_opt(&binding.spec.model_ref.name).await;
    // What is mirrored only tells where the files of earlier versions are now.
    let mirrored = resolve(&binding, model.ok().flatten().as_ref()).mirrored;
    let number = match &arguments.to {
        Some(number) => known(&binding, &mirrored, number)?,
        None => last_good(&binding, &mirrored)?,
    };
    let done = format!("rolled back to version {number} (pinned)");
    let reason = arguments.reason.as_deref();
    let code = pin_to(&cluster, &arguments.binding, &number, reason, &done).await?;
    eprintln!("{}", undo(&binding, &cluster.namespace));
    Ok(code)
}

fn failed(status: &AliasBindingStatus) -> &[FailedVersion] {
    let held_back = status.held_back.as_ref();
    held_back.map_or(&[], |held_back| held_back.versions.as_slice())
}

/// The version in the workload.
fn present(status: &AliasBindingStatus) -> Option<&VersionRef> {
    status.running.as_ref().map(|running| &running.version)
}

/// The newest version that was good for the binding, and is not the one that runs.
fn last_good(binding: &AliasBinding, mirrored: &[VersionRef]) -> Result<String, Failure> {
    let nothing = AliasBindingStatus::default();
    let status = binding.status.as_ref().unwrap_or(&nothing);
    let good = candidates(status, failed(status), mirrored);
    let is_other =
        |version: &&VersionRef| present(status).is_none_or(|present| !present.is_same(version));
    match good.iter().find(is_other) {
        Some(version) => Ok(version.number().to_owned()),
        None => Err(format!(
            "no version before {} was good for {}: choose one with --to; see kubectl pointsman history {} -n {}",
            present(status).map_or("the first", VersionRef::number),
            binding.name_any(),
            binding.name_any(),
            binding.namespace().unwrap_or_default()
        )
        .into()),
    }
}

/// A version that ran before or is mirrored.
fn known(binding: &AliasBinding, mirrored: &[VersionRef], number: &str) -> Result<String, Failure> {
    let status = binding.status.as_ref();
    let ran = status
        .into_iter()
        .flat_map(AliasBindingStatus::known_versions);
    if ran
        .chain(mirrored)
        .any(|version| version.number() == number)
    {
        return Ok(number.to_owned());
    }
    Err(format!(
        "version {number} neither ran for {0} nor is it among the newest: see kubectl pointsman history {0} -n {1}, or use pin",
        binding.name_any(),
        binding.namespace().unwrap_or_default()
    )
    .into())
}

/// How to undo it, and what happens then.
fn undo(binding: &AliasBinding, namespace: &str) -> String {
    let follows = binding.spec.follows();
    let alias = binding
        .status
        .as_ref()
        .and_then(|status| status.alias.as_ref());
    let then = alias.map_or_else(String::new, |alias| {
        format!(
            " (then version {} runs, unless {follows} moves before)",
            alias.version
        )
    });
    format!(
        "undo: kubectl pointsman unpin {} -n {namespace}{then}",
        binding.name_any()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::alias_binding::{AliasState, Outcome, VersionState};
    use crate::testing::{self, With, entry, time, version};

    fn binding(entries: &[(&str, Outcome)], running: &str) -> AliasBinding {
        let history = entries
            .iter()
            .map(|(number, outcome)| entry(number, *outcome));
        testing::binding_with(history).with(|binding| {
            if let Some(status) = &mut binding.status {
                status.running = Some(VersionState {
                    version: version(running),
                    since: None,
                });
                status.alias = Some(AliasState {
                    version: running.to_owned(),
                    since: time(testing::NOW),
                });
            }
        })
    }

    #[test]
    fn the_way_back_leads_to_the_newest_good_version_that_does_not_run() {
        let live = [
            ("5", Outcome::Live),
            ("4", Outcome::RolledBack),
            ("3", Outcome::Superseded),
            ("2", Outcome::Superseded),
        ];
        assert_eq!(last_good(&binding(&live, "5"), &[]).unwrap(), "3");
        let rolling = [("5", Outcome::RollingOut), ("4", Outcome::Superseded)];
        assert_eq!(last_good(&binding(&rolling, "5"), &[]).unwrap(), "4");
        let first = last_good(&binding(&[("1", Outcome::Live)], "1"), &[])
            .unwrap_err()
            .to_string();
        assert!(
            first.contains("no version before 1 was good") && first.contains("-n ml"),
            "{first}"
        );
    }

    #[test]
    fn only_a_version_that_ran_or_is_mirrored_is_gone_back_to() {
        let live = binding(&[("5", Outcome::Live), ("3", Outcome::Superseded)], "5");
        assert_eq!(known(&live, &[], "3").unwrap(), "3");
        assert_eq!(known(&live, &[version("4")], "4").unwrap(), "4");
        let unknown = known(&live, &[version("4")], "9").unwrap_err().to_string();
        assert!(unknown.contains("version 9 neither ran"), "{unknown}");
    }

    #[test]
    fn the_way_to_undo_it_says_what_runs_then() {
        let sentence = undo(&binding(&[("5", Outcome::Live)], "5"), "ml");
        assert_eq!(
            sentence,
            "undo: kubectl pointsman unpin taxi -n ml (then version 5 runs, unless champion moves before)"
        );
    }
}
