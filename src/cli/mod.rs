//! The commands of the binary, one file each.
//!
//! Absent: the work. A command reads its arguments and calls the library.

mod approve;
mod change;
mod check;
mod cluster;
mod compare;
mod completion;
mod crds;
mod describe;
mod events;
mod explain;
mod fields;
mod found_version;
mod freeze;
mod history;
mod inspect;
mod lineage;
mod man;
mod migrate_stages;
mod moment;
mod operator;
mod output;
mod person_registry;
mod pin;
mod plan;
mod pod_health;
mod promote;
mod release_finalizers;
mod requests;
mod rollback;
mod run;
mod status;
mod table;
mod tree;
mod tree_node;
mod units;
mod version;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Why a command failed.
type Failure = Box<dyn std::error::Error>;
/// The exit code of a command, or why it failed, which is the exit code 1.
type CommandResult = Result<ExitCode, Failure>;

/// The name of the binary as a plugin of kubectl.
const PLUGIN: &str = "kubectl-pointsman";

/// Deploys the version that a model-registry alias names, and rolls back when the alias moves back or the version fails.
#[derive(Debug, Parser)]
#[command(
    name = "pointsman",
    version,
    after_help = "First steps, with a kubeconfig whose context is the cluster:
  pointsman crds | kubectl apply --server-side -f -
  pointsman run --watch-namespace ml --health-address 127.0.0.1:8080
  kubectl pointsman status -n ml"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::RunArguments>),
    Crds(crds::CrdsArguments),
    ReleaseFinalizers(release_finalizers::ReleaseFinalizersArguments),
    Status(status::StatusArguments),
    Describe(describe::DescribeArguments),
    History(history::HistoryArguments),
    Plan(Box<plan::PlanArguments>),
    Promote(Box<promote::PromoteArguments>),
    Approve(approve::ApproveArguments),
    Rollback(rollback::RollbackArguments),
    Pin(pin::PinArguments),
    Unpin(pin::UnpinArguments),
    Suspend(pin::SuspendArguments),
    Unsuspend(pin::UnsuspendArguments),
    Retry(requests::RetryArguments),
    Resume(requests::ResumeArguments),
    Reapply(requests::ReapplyArguments),
    Refresh(requests::RefreshArguments),
    Freeze(freeze::FreezeArguments),
    Unfreeze(freeze::UnfreezeArguments),
    MigrateStages(Box<migrate_stages::MigrateStagesArguments>),
    Events(events::EventsArguments),
    Tree(tree::TreeArguments),
    Inspect(inspect::InspectArguments),
    Compare(compare::CompareArguments),
    Lineage(lineage::LineageArguments),
    Check(check::CheckArguments),
    Version(version::VersionArguments),
    Completion(completion::CompletionArguments),
    Complete(completion::CompleteArguments),
    Man(man::ManArguments),
}

impl Arguments {
    /// Reads the command line, or exits with help or an error. A binary whose name begins with kubectl-pointsman is a plugin of
    /// kubectl: its help shows commands as they are typed there, and not those of the operator.
    #[must_use]
    pub fn read() -> Self {
        let program = std::env::args_os().next().unwrap_or_default();
        let mut command = Self::command();
        if is_plugin(&program) {
            command = as_plugin(command);
        }
        let matches = command.try_get_matches();
        let arguments = matches.and_then(|matches| Self::from_arg_matches(&matches));
        arguments.unwrap_or_else(|error| {
            let _ = error.print();
            // Not 2, as clap has it: there it says that `plan` found a change.
            std::process::exit(i32::from(error.use_stderr()))
        })
    }

    /// Runs the command.
    ///
    /// # Errors
    /// The reason why the command failed.
    pub fn run(self) -> CommandResult {
        match self.command {
            Command::Run(arguments) => run::run(*arguments).map(|()| ExitCode::SUCCESS),
            Command::Crds(arguments) => crds::run(&arguments).map(|()| ExitCode::SUCCESS),
            Command::ReleaseFinalizers(arguments) => {
                cluster::block_on(release_finalizers::run(arguments))
            }
            Command::Status(arguments) => cluster::block_on(status::run(arguments)),
            Command::Describe(arguments) => cluster::block_on(describe::run(arguments)),
            Command::History(arguments) => cluster::block_on(history::run(arguments)),
            Command::Plan(arguments) => cluster::block_on(plan::run(*arguments)),
            Command::Promote(arguments) => cluster::block_on(promote::run(*arguments)),
            Command::Approve(arguments) => cluster::block_on(approve::run(arguments)),
            Command::Rollback(arguments) => cluster::block_on(rollback::run(arguments)),
            Command::Pin(arguments) => cluster::block_on(pin::pin(arguments)),
            Command::Unpin(arguments) => cluster::block_on(pin::unpin(arguments)),
            Command::Suspend(arguments) => cluster::block_on(pin::suspend(arguments)),
            Command::Unsuspend(arguments) => cluster::block_on(pin::unsuspend(arguments)),
            Command::Retry(arguments) => cluster::block_on(requests::retry(arguments)),
            Command::Resume(arguments) => cluster::block_on(requests::resume(arguments)),
            Command::Reapply(arguments) => cluster::block_on(requests::reapply(arguments)),
            Command::Refresh(arguments) => cluster::block_on(requests::refresh(arguments)),
            Command::Freeze(arguments) => cluster::block_on(freeze::freeze(arguments)),
            Command::Unfreeze(arguments) => cluster::block_on(freeze::unfreeze(arguments)),
            Command::MigrateStages(arguments) => cluster::block_on(migrate_stages::run(*arguments)),
            Command::Events(arguments) => cluster::block_on(events::run(arguments)),
            Command::Tree(arguments) => cluster::block_on(tree::run(arguments)),
            Command::Inspect(arguments) => cluster::block_on(inspect::run(arguments)),
            Command::Compare(arguments) => cluster::block_on(compare::run(arguments)),
            Command::Lineage(arguments) => cluster::block_on(lineage::run(arguments)),
            Command::Check(arguments) => cluster::block_on(check::run(arguments)),
            Command::Version(arguments) => cluster::block_on(version::run(arguments)),
            Command::Completion(arguments) => completion::run(&arguments, Self::command()),
            Command::Complete(arguments) => completion::complete(&arguments, &Self::command()),
            Command::Man(arguments) => man::run(&arguments, Self::command()),
        }
    }
}

fn is_plugin(program: &OsStr) -> bool {
    let name = Path::new(program).file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(PLUGIN)
}

fn as_plugin(command: clap::Command) -> clap::Command {
    command
        .bin_name("kubectl pointsman")
        .about("Shows which version of a model runs, why, and what ran before; and changes it")
        .after_help("Each command has --help with examples.")
        .mut_subcommand("run", |run| run.hide(true))
        .mut_subcommand("crds", |crds| crds.hide(true))
        .mut_subcommand("release-finalizers", |release| release.hide(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_an_example() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        for each in command.get_subcommands() {
            let help = each.get_after_help().map(ToString::to_string);
            let has_example = help.is_some_and(|help| help.starts_with("Example"));
            assert!(
                has_example || each.get_name() == "help",
                "{}",
                each.get_name()
            );
        }
    }

    #[test]
    fn the_plugin_is_known_by_its_name() {
        for (program, expected) in [
            ("/usr/local/bin/kubectl-pointsman", true),
            ("kubectl-pointsman.exe", true),
            ("/kubectl-pointsman/pointsman", false),
            ("pointsman", false),
        ] {
            assert_eq!(is_plugin(program.as_ref()), expected, "{program}");
        }
        let mut plugin = as_plugin(Arguments::command());
        let help = plugin.render_long_help().to_string();
        assert!(
            help.contains("Usage: kubectl pointsman <COMMAND>"),
            "{help}"
        );
        assert!(!help.contains("Run the operator"), "{help}");
    }
}
