//! `pointsman crds`: prints the custom resource definitions, or their reference.
//!
//! Absent: applying them. `kubectl` does that.

use std::path::PathBuf;

use super::Failure;
use crate::api::{custom_resource_definitions, reference, to_yaml};

/// Print the custom resource definitions as YAML
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  Install or update the definitions of the current cluster:
    pointsman crds | kubectl apply --server-side -f -
  Write them into a chart:
    pointsman crds --output charts/pointsman/crds")]
pub struct CrdsArguments {
    /// Write one file for each definition into this folder, instead of all to the standard output
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Print the reference of all fields as Markdown instead
    #[arg(long, conflicts_with = "output")]
    markdown: bool,
}

/// Runs the command.
pub fn run(arguments: &CrdsArguments) -> Result<(), Failure> {
    if arguments.markdown {
        print!("{}", reference::markdown()?);
        return Ok(());
    }
    for definition in custom_resource_definitions() {
        let yaml = to_yaml(&definition)?;
        match &arguments.output {
            None => print!("---\n{yaml}"),
            Some(folder) => {
                let name = definition.metadata.name.unwrap_or_default();
                std::fs::write(folder.join(format!("{name}.yaml")), yaml)?;
            }
        }
    }
    Ok(())
}
