//! `kubectl pointsman plan`: what the operator would do with a binding, why, and the patch as a diff.
//!
//! Absent: writes. A manifest is checked by a dry run.

mod field_diff;
mod inputs;
pub(super) mod prediction;
mod rollout_room;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use jiff::Timestamp;

use self::field_diff::FieldChange;
use self::inputs::binding_of_manifest;
use self::prediction::{Inputs, Prediction, point_at, predict};
use super::cluster::{Cluster, ClusterArguments, name_in};
use super::output::{OutputArguments, Paint, Tone};
use super::table::printable;
use super::{CommandResult, Failure};
use crate::api::AliasBinding;

pub(super) use self::inputs::{Manifest, gather};

/// The exit code if the workload would be changed.
const CHANGE: u8 = 2;

/// Show what would happen with a binding and why, with every gate and the patch as a diff
///
/// The decision is the operator's own, on the objects as they are now. The exit code is 0 if nothing would change, 2 if the
/// workload would be changed, and 1 after an error.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  Why does nothing happen, or what happens next:
    kubectl pointsman plan nyc-taxi
  What would version 5 do, if the alias named it:
    kubectl pointsman plan nyc-taxi --version 5
  A manifest that is not applied, for instance in a pipeline:
    kubectl pointsman plan -f binding.yaml")]
pub struct PlanArguments {
    /// The binding. With -f: the one of this name in the manifest
    #[arg(value_name = "BINDING", required_unless_present = "file")]
    binding: Option<String>,
    /// Plan as if the binding's alias or stage named this version
    #[arg(long, value_name = "NUMBER")]
    version: Option<String>,
    /// Plan as if this manifest were applied; - reads the standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// Runs the command.
pub async fn run(arguments: PlanArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let now = Timestamp::now();
    let mut inputs = read(&cluster, &arguments, now).await?;
    if let Some(number) = &arguments.version
        && let Some(model) = &mut inputs.model
    {
        point_at(model, &inputs.binding, number, None, now);
    }
    let prediction = predict(&inputs, now)?;
    let name = format!("aliasbinding.pointsman.dev/{}", prediction.binding);
    arguments
        .output
        .print(&prediction, [name], |paint| text(&prediction, paint))?;
    Ok(exit_code(&prediction))
}

async fn read(
    cluster: &Cluster,
    arguments: &PlanArguments,
    now: Timestamp,
) -> Result<Inputs, Failure> {
    let name = arguments.binding.as_deref().map(name_in);
    let Some(path) = &arguments.file else {
        let binding: AliasBinding = cluster.get(name.unwrap_or_default()).await?;
        return gather(cluster, binding, &Manifest::default()).await;
    };
    let manifest = Manifest::read(path)?;
    let binding = binding_of_manifest(cluster, &manifest, name, now).await?;
    gather(cluster, binding, &manifest).await
}

fn exit_code(prediction: &Prediction) -> ExitCode {
    if prediction.is_change() {
        ExitCode::from(CHANGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// The prediction for people.
pub(super) fn text(prediction: &Prediction, paint: Paint) -> String {
    let mut text = format!(
        "{}/{} → {}\n",
        prediction.namespace, prediction.binding, prediction.workload
    );
    row(&mut text, "wanted", &prediction.wanted);
    row(
        &mut text,
        "running",
        &prediction.running.as_ref().map_or_else(
            || "no version".to_owned(),
            |version| format!("version {version}"),
        ),
    );
    if let (Some(uri), Some(state)) = (&prediction.artifact_uri, &prediction.artifact) {
        row(&mut text, "artifact", &format!("{uri}: {state}"));
    }
    let width = prediction.gates.iter().map(|gate| gate.gate.len()).max();
    for (index, gate) in prediction.gates.iter().enumerate() {
        let tone = match gate.result {
            "Passes" => Tone::Good,
            "Refuses" => Tone::Bad,
            "Skipped" => Tone::Faint,
            _ => Tone::Warning,
        };
        let message = gate.message.as_deref().map(printable);
        let message = message.map_or_else(String::new, |message| format!(": {message}"));
        let result = paint.paint(&gate.result.to_lowercase(), tone);
        let gate = format!("{:<1$}", gate.gate, width.unwrap_or_default());
        let head = if index == 0 { "gates" } else { "" };
        _ = writeln!(text, "{head:<10}{gate}   {result}{message}");
    }
    if let Some(room) = &prediction.room {
        row(&mut text, "room", room);
    }
    for step in &prediction.steps {
        row(&mut text, "first", step);
    }
    row(
        &mut text,
        "outcome",
        &format!("{}: {}", prediction.reason, prediction.outcome),
    );
    for note in &prediction.notes {
        row(&mut text, "note", note);
    }
    text.push_str(&diff(&prediction.changes, &prediction.workload, paint));
    text
}

fn row(text: &mut String, head: &str, sentence: &str) {
    _ = writeln!(text, "{head:<10}{}", printable(sentence));
}

/// The changed fields, as a diff shows them.
fn diff(changes: &[FieldChange], workload: &str, paint: Paint) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let mut text = format!("--- {workload}\n+++ {workload}, planned\n");
    for change in changes {
        for (sign, value, tone) in [
            ('-', &change.before, Tone::Bad),
            ('+', &change.after, Tone::Good),
        ] {
            if let Some(value) = value {
                let line = format!("{sign} {}: {}", change.field, printable(value));
                text.push_str(&paint.paint(&line, tone));
                text.push('\n');
            }
        }
    }
    text
}
