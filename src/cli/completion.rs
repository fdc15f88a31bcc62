//! `kubectl pointsman completion`: a script for the shell.
//!
//! Absent: names of objects. Completion sends nothing to a cluster.

use std::process::ExitCode;

use clap::ValueEnum;
use clap_complete::Shell;

use super::CommandResult;
use super::output::print;

/// Print a script that completes commands and flags
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  For this shell:
    source <(pointsman completion bash)
  For kubectl pointsman, once:
    kubectl pointsman completion kubectl > ~/.local/bin/kubectl_complete-pointsman
    chmod +x ~/.local/bin/kubectl_complete-pointsman
  For fish, lastingly:
    pointsman completion fish > ~/.config/fish/completions/pointsman.fish")]
pub struct CompletionArguments {
    /// The shell; kubectl: the program that kubectl's own completion calls for its plugin
    #[arg(value_enum)]
    shell: Completed,
}

/// The program that completes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Completed {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// kubectl
    Kubectl,
}

/// kubectl runs kubectl_complete-pointsman with the words after `kubectl pointsman`, and reads a word a line and `:directive`.
const KUBECTL: &str = "#!/bin/sh
exec kubectl-pointsman complete -- \"$@\"
";

/// Runs the command.
pub fn run(arguments: &CompletionArguments, mut command: clap::Command) -> CommandResult {
    let shell = match arguments.shell {
        Completed::Bash => Shell::Bash,
        Completed::Zsh => Shell::Zsh,
        Completed::Fish => Shell::Fish,
        Completed::Kubectl => {
            print(KUBECTL)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "pointsman", &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Print what may follow, for kubectl
#[derive(Clone, Debug, clap::Args)]
#[command(
    hide = true,
    after_help = "Example:
  pointsman complete -- sta"
)]
pub struct CompleteArguments {
    /// The words of the command line after kubectl pointsman, with the one to complete at the end
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Runs the command.
pub fn complete(arguments: &CompleteArguments, command: &clap::Command) -> CommandResult {
    let mut lines = candidates(command, &arguments.words);
    // kubectl's directive not to offer files.
    lines.push(":4".to_owned());
    print(&(lines.join("\n") + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The commands, or the flags of the command that is written, that begin with the last word; each with its description.
fn candidates(command: &clap::Command, words: &[String]) -> Vec<String> {
    let (prefix, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let written = before.iter().find_map(|word| command.find_subcommand(word));
    let described = |word: String, about: Option<String>| match about {
        Some(about) => format!("{word}\t{about}"),
        None => word,
    };
    let mut found = Vec::new();
    if let Some(written) = written {
        for argument in written.get_arguments() {
            let about = argument.get_help().map(ToString::to_string);
            if let Some(long) = argument.get_long() {
                found.push(described(format!("--{long}"), about));
            }
        }
        // Names of objects are not completed.
        found.retain(|flag| prefix.starts_with('-') && flag.starts_with(prefix));
    } else {
        for each in command.get_subcommands().filter(|each| !each.is_hide_set()) {
            let about = each.get_about().map(ToString::to_string);
            found.push(described(each.get_name().to_owned(), about));
        }
        found.retain(|name| name.starts_with(prefix));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_their_flags_are_completed() {
        let command = clap::Command::new("pointsman")
            .subcommand(
                clap::Command::new("status")
                    .about("Show")
                    .arg(clap::Arg::new("watch").long("watch")),
            )
            .subcommand(clap::Command::new("history"))
            .subcommand(clap::Command::new("secret").hide(true));
        let found = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            candidates(&command, &words)
        };
        assert_eq!(found(&["st"]), ["status\tShow"]);
        assert_eq!(found(&[""]), ["status\tShow", "history"]);
        assert_eq!(found(&["status", "--w"]), ["--watch"]);
        assert_eq!(found(&["status", "ta"]), [""; 0]);
    }
}
