//! `kubectl pointsman version`: the release of this binary, and of the operators in the cluster.
//!
//! Absent: a judgment whether they fit together. `check` compares the definitions.

use std::process::ExitCode;

use serde::Serialize;

use super::CommandResult;
use super::cluster::{Cluster, ClusterArguments};
use super::fields::FieldList;
use super::operator::{image, operators, place};
use super::output::OutputArguments;

/// Show the release of this binary, and the images of the operators in the cluster
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  This binary and the cluster:
    kubectl pointsman version
  This binary only, without a cluster:
    kubectl pointsman version --client")]
pub struct VersionArguments {
    /// Only that of this binary: nothing is sent to the cluster
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// The answer, as JSON and YAML have it.
#[derive(Serialize)]
struct VersionAnswer {
    client: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    operators: Vec<OperatorImage>,
}

#[derive(Serialize)]
struct OperatorImage {
    deployment: String,
    image: String,
}

/// Runs the command.
pub async fn run(arguments: VersionArguments) -> CommandResult {
    let mut answer = VersionAnswer {
        client: env!("CARGO_PKG_VERSION"),
        operators: Vec::new(),
    };
    let mut note = String::new();
    if !arguments.client {
        match images(&arguments.cluster).await {
            Ok(images) if images.is_empty() => {
                "no Deployment with the label app.kubernetes.io/name=pointsman"
                    .clone_into(&mut note);
            }
            Ok(images) => answer.operators = images,
            Err(failure) => note = failure.to_string(),
        }
    }
    arguments
        .output
        .print(&answer, [answer.client.to_owned()], |_| {
            let mut fields = FieldList::indented(0);
            fields.add("Client", answer.client);
            for operator in &answer.operators {
                fields.add(
                    "Operator",
                    format!("{} (Deployment {})", operator.image, operator.deployment),
                );
            }
            fields.add("Operator", note);
            fields.render()
        })?;
    Ok(ExitCode::SUCCESS)
}

async fn images(arguments: &ClusterArguments) -> Result<Vec<OperatorImage>, super::Failure> {
    let cluster = Cluster::connect(arguments).await?;
    let operators = operators(&cluster).await?;
    let of = |operator| OperatorImage {
        deployment: place(operator),
        image: image(operator).unwrap_or_default().to_owned(),
    };
    Ok(operators.iter().map(of).collect())
}
