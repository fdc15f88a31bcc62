//! The commands of the binary, one file each.
//!
//! Absent: the work. A command reads its arguments and calls the library.

mod crds;
mod run;

use clap::{Parser, Subcommand};

/// Why a command failed.
type Failure = Box<dyn std::error::Error>;

/// Deploys the version that a model-registry alias names, and rolls back when the alias moves back or the version fails.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "First steps, with a kubeconfig whose context is the cluster:
  pointsman crds | kubectl apply --server-side -f -
  pointsman run --watch-namespace ml --health-address 127.0.0.1:8080
  kubectl -n ml get modelregistries,registeredmodels,aliasbindings"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::RunArguments>),
    Crds(crds::CrdsArguments),
}

impl Arguments {
    /// Runs the command.
    ///
    /// # Errors
    /// The reason why the command failed.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Run(arguments) => run::run(*arguments),
            Command::Crds(arguments) => crds::run(&arguments),
        }
    }
}
