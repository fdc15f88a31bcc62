//! `kubectl pointsman history`: the versions that ran, and the one that ran at a moment.
//!
//! Absent: versions before the oldest entry of the status. The operator's log has them.

use std::process::ExitCode;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use super::CommandResult;
use super::cluster::{Cluster, ClusterArguments, name_in};
use super::fields::FieldList;
use super::moment::{self, local, local_with_zone};
use super::output::{OutputArguments, Tone};
use super::table::{Cell, Table, printable};
use super::units::{seconds, since};
use crate::api::AliasBinding;
use crate::api::alias_binding::{HistoryEntry, Outcome};
use crate::api::registered_model::CodeLineage;

/// The characters of a git commit that a table shows.
const COMMIT: usize = 10;

/// Show which versions ran, from when to when, and why
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  The versions that ran, newest first:
    kubectl pointsman history nyc-taxi -n ml
  The version that ran yesterday at three in the morning, in your time zone, and nine hours ago:
    kubectl pointsman history nyc-taxi --at 'yesterday 03:00'
    kubectl pointsman history nyc-taxi --at 9h")]
pub struct HistoryArguments {
    /// The AliasBinding's name
    binding: String,
    /// Only the version that ran at this moment: 2026-11-24T03:00:00Z, '2026-11-24 03:00', 'yesterday 03:00', 'tuesday 03:00',
    /// or how long ago: 9h, 2d. Without a time zone it is meant in yours
    #[arg(long, value_name = "MOMENT")]
    at: Option<String>,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// The answer, as JSON and YAML have it.
#[derive(Serialize)]
struct HistoryAnswer<'a> {
    namespace: &'a str,
    binding: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    history: Vec<&'a HistoryEntry>,
}

/// Runs the command.
pub async fn run(arguments: HistoryArguments) -> CommandResult {
    let now = Zoned::now();
    let at = match &arguments.at {
        Some(words) => Some(moment::parse(words, &now)?),
        None => None,
    };
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let binding: AliasBinding = cluster.get(name_in(&arguments.binding)).await?;
    let status = binding.status.clone().unwrap_or_default();
    let zone = now.time_zone();
    let shown = match at {
        Some(at) => status
            .history
            .iter()
            .filter(|entry| held(entry, at))
            .take(1)
            .collect(),
        None => status.history.iter().collect::<Vec<_>>(),
    };
    let names = shown.iter().map(|entry| uri(entry));
    let answer = HistoryAnswer {
        namespace: &cluster.namespace,
        binding: name_in(&arguments.binding),
        at,
        history: shown.clone(),
    };
    arguments.output.print(&answer, names, |paint| match at {
        Some(at) => at_that_moment(&status.history, at, zone),
        None => table(&shown, arguments.output.is_wide(), now.timestamp(), zone).render(paint),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The version as MLflow names it.
fn uri(entry: &HistoryEntry) -> String {
    let id = &entry.version.id;
    printable(&format!("models:/{}/{}", id.model, id.version))
}

/// Whether the workload held this entry's version at a moment. One that was held back before it was written never was in it.
fn held(entry: &HistoryEntry, at: Timestamp) -> bool {
    let has_ended = entry.finished_at.as_ref().is_some_and(|end| end.0 <= at);
    entry.outcome != Outcome::HeldBack && entry.started_at.0 <= at && !has_ended
}

/// A table of entries.
pub fn table(entries: &[&HistoryEntry], is_wide: bool, now: Timestamp, zone: &TimeZone) -> Table {
    let mut headers = vec![
        "VERSION", "OUTCOME", "REASON", "TRIGGER", "STARTED", "RAN", "COMMIT",
    ];
    if is_wide {
        headers.extend(["RUN", "FINISHED", "APPROVED-BY", "MESSAGE"]);
    }
    let mut table = Table::new(headers);
    for entry in entries {
        let tone = tone(entry);
        let commit = short_commit(entry.code.as_ref());
        let mut row = vec![
            entry.version.number().into(),
            Cell::toned(entry.outcome.to_string(), tone),
            Cell::toned(entry.reason.to_string(), tone),
            entry.trigger.to_string().into(),
            local(entry.started_at.0, zone).into(),
            ran(entry, now).into(),
            Cell::optional(commit.as_deref()),
        ];
        if is_wide {
            let finished = entry.finished_at.as_ref();
            let finished = finished.map(|finished| local(finished.0, zone));
            row.extend([
                Cell::optional(entry.version.run_id.as_deref()),
                Cell::optional(finished.as_deref()),
                Cell::optional(approver(entry).as_deref()),
                entry.message.as_str().into(),
            ]);
        }
        table.row(row);
    }
    table
}

fn tone(entry: &HistoryEntry) -> Tone {
    match entry.outcome.known() {
        Some(Outcome::Live) => Tone::Good,
        Some(Outcome::Failed | Outcome::RolledBack | Outcome::HeldBack) => Tone::Bad,
        Some(Outcome::Superseded) => Tone::Faint,
        _ => Tone::Warning,
    }
}

fn ran(entry: &HistoryEntry, now: Timestamp) -> String {
    match &entry.finished_at {
        _ if entry.outcome == Outcome::HeldBack => "never".to_owned(),
        Some(end) => seconds(end.0.as_second() - entry.started_at.0.as_second()),
        None => since(Some(&entry.started_at), now),
    }
}

/// The version that ran at a moment, in words.
fn at_that_moment(history: &[HistoryEntry], at: Timestamp, zone: &TimeZone) -> String {
    let when = local_with_zone(at, zone);
    let Some(index) = history.iter().position(|entry| held(entry, at)) else {
        let oldest = history.last().map(|entry| local(entry.started_at.0, zone));
        return match oldest {
            Some(oldest) => format!(
                "{when}: not known; the history begins at {oldest} (spec.historyLimit); older versions are in the operator's \
                 log (pointsman::history)\n"
            ),
            None => format!("{when}: nothing; no version has run yet\n"),
        };
    };
    let entry = &history[index];
    let mut fields = FieldList::indented(2);
    let is_complete = entry
        .available_at
        .as_ref()
        .is_some_and(|available| available.0 <= at);
    if !is_complete {
        let mut older = history[index + 1..].iter();
        let before = older.find(|entry| entry.outcome != Outcome::HeldBack);
        let before = before.map_or_else(String::new, |before| {
            format!("; version {} ran before it", before.version.number())
        });
        fields.add("Rollout", format!("it was being rolled out{before}"));
    }
    let end = entry.finished_at.as_ref();
    let end = end.map_or_else(|| "now".to_owned(), |end| local(end.0, zone));
    fields.add(
        "Ran",
        format!("{} to {end}", local(entry.started_at.0, zone)),
    );
    fields.add("Cause", entry.trigger.to_string());
    fields.add("Outcome", format!("{} ({})", entry.outcome, entry.reason));
    fields.add("Message", &entry.message);
    if let Some(overrode) = &entry.overrode {
        let why = overrode.why.as_ref();
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        fields.add(
            "Overrode",
            format!("{}: {}{why}", overrode.reason, overrode.message),
        );
    }
    fields.add_some("Approved", approval_words(entry, zone));
    fields.add_some("Run", entry.version.run_id.as_ref());
    fields.add("Code", code_words(entry.code.as_ref()));
    let (number, model) = (entry.version.number(), printable(&entry.version.id.model));
    format!("{when}: version {number} of {model}\n{}", fields.render())
}

/// Who approved the version, and whether that is a user of the cluster or only the name of a client.
fn approver(entry: &HistoryEntry) -> Option<String> {
    let approval = entry.approval.as_ref()?;
    let by = approval.approved_by.as_deref().unwrap_or("?");
    Some(match &approval.known_by {
        Some(known_by) => format!("{by} ({known_by})"),
        None => by.to_owned(),
    })
}

/// Who approved the version, when and why.
fn approval_words(entry: &HistoryEntry, zone: &TimeZone) -> Option<String> {
    let approval = entry.approval.as_ref()?;
    let at = approval.at.as_ref().map(|at| local(at.0, zone));
    let parts = [
        Some(format!("by {}", approver(entry)?)),
        at.map(|at| format!("at {at}")),
        approval.reason.clone(),
        approval.ticket.clone(),
    ];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// The beginning of a git commit, as tables show it.
pub fn short_commit(code: Option<&CodeLineage>) -> Option<String> {
    let commit = code?.commit.as_deref()?;
    Some(commit.chars().take(COMMIT).collect())
}

/// The code of a version on one line: repository, commit, branch and entry point, as far as they are known.
pub fn code_words(code: Option<&CodeLineage>) -> String {
    let Some(code) = code else {
        return String::new();
    };
    let mut words: Vec<String> = code.repository.iter().cloned().collect();
    for (name, value) in [
        ("commit", &code.commit),
        ("branch", &code.branch),
        ("entry point", &code.entry_point),
    ] {
        if let Some(value) = value {
            words.push(format!("{name} {value}"));
        }
    }
    words.join(", ")
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
