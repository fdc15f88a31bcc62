//! `pointsman man`: the manual pages.
//!
//! Absent: text of its own. The pages are made from the same words as --help.

use std::path::PathBuf;
use std::process::ExitCode;

use clap_mangen::Man;

use super::CommandResult;
use super::output::print;

/// Print the manual page, or write those of all commands into a folder
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  Read it:
    pointsman man | man -l -
  Install the pages of all commands:
    pointsman man --output ~/.local/share/man/man1")]
pub struct ManArguments {
    /// Write one page for each command into this folder, which must exist
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &ManArguments, command: clap::Command) -> CommandResult {
    if let Some(folder) = &arguments.output {
        clap_mangen::generate_to(command, folder).map_err(|error| {
            format!(
                "the pages cannot be written into {}: {error}",
                folder.display()
            )
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    print(&String::from_utf8(page)?)?;
    Ok(ExitCode::SUCCESS)
}
