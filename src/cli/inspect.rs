//! `kubectl pointsman inspect`: the versions of a model, or all that is known of one.
//!
//! Absent: changes. Nothing is written, in the cluster or in MLflow.

use std::process::ExitCode;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use kube::ResourceExt;
use serde::Serialize;

use super::CommandResult;
use super::cluster::{Cluster, ClusterArguments};
use super::fields::FieldList;
use super::found_version::{FoundVersion, VersionOrigin, find_model, find_version, number_of};
use super::history::{code_words, short_commit};
use super::moment::local_with_zone;
use super::output::{OutputArguments, Paint};
use super::table::{Cell, Table, printable};
use super::units::{bytes, seconds, since};
use crate::api::registered_model::{CodeLineage, Dataset, RegisteredModelStatus};
use crate::api::{ModelVersion, RegisteredModel};

/// The metrics of a version in the table of all versions, unless it is wide.
const FEW: usize = 3;

/// Show the versions of a model, or one of them: metrics, parameters, duration, size, code and data
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  The versions that the cluster knows, newest first:
    kubectl pointsman inspect nyc-taxi -n ml
  All that is known of one, with the code to train it again:
    kubectl pointsman inspect nyc-taxi 4
    kubectl pointsman inspect nyc-taxi champion
  An old one that no binding follows, from your own MLflow:
    MLFLOW_TRACKING_URI=http://mlflow.mlflow.svc:5000 kubectl pointsman inspect nyc-taxi 2")]
pub struct InspectArguments {
    /// The RegisteredModel's name, or the model's name in the registry
    model: String,
    /// A number, an alias, a stage, or latest. Default: all versions
    version: Option<String>,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// One version, as JSON and YAML have it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InspectAnswer<'a> {
    model: &'a str,
    aliases: Vec<&'a str>,
    read_from: VersionOrigin,
    #[serde(flatten)]
    version: &'a ModelVersion,
}

/// Runs the command.
pub async fn run(arguments: InspectArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let model = find_model(&cluster, &arguments.model).await?;
    let now = Zoned::now();
    match &arguments.version {
        None => all(&model, now.timestamp(), &arguments.output)?,
        Some(word) => {
            let number = number_of(&model, word)?;
            let found = find_version(&cluster, &model, &number).await?;
            one(&model, &found, now.time_zone(), &arguments.output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn all(
    model: &RegisteredModel,
    now: Timestamp,
    output: &OutputArguments,
) -> Result<(), super::Failure> {
    let status = model.status.clone().unwrap_or_default();
    if status.versions.is_empty() {
        eprintln!(
            "{} has no version in the cluster yet; see why: kubectl describe registeredmodel {} -n {}",
            model.model_name(),
            model.name_any(),
            model.namespace().unwrap_or_default()
        );
    }
    let names = status
        .versions
        .iter()
        .map(|version| uri(model, &version.version));
    let is_wide = output.is_wide();
    output.print(&status.versions, names, |paint| {
        versions_table(&status, is_wide, now).render(paint)
    })
}

/// The versions of a mirror, newest first.
pub fn versions_table(status: &RegisteredModelStatus, is_wide: bool, now: Timestamp) -> Table {
    let mut headers = vec![
        "VERSION",
        "ALIASES",
        "AGE",
        "BY",
        "TRAINED-IN",
        "SIZE",
        "COMMIT",
        "METRICS",
    ];
    if is_wide {
        headers.extend(["PARAMETERS", "RUN"]);
    }
    let mut table = Table::new(headers);
    let mut versions: Vec<&ModelVersion> = status.versions.iter().collect();
    versions.sort_by_key(|version| {
        std::cmp::Reverse(version.version.parse::<u64>().unwrap_or_default())
    });
    for version in versions {
        let aliases = aliases_of(status, &version.version).join(",");
        let most = if is_wide { usize::MAX } else { FEW };
        let size = version.size_bytes.map(bytes);
        let mut row = vec![
            version.version.as_str().into(),
            Cell::optional((!aliases.is_empty()).then_some(aliases.as_str())),
            since(version.created_at.as_ref(), now).into(),
            Cell::optional(version.created_by.as_deref()),
            Cell::optional(version.duration_seconds.map(seconds).as_deref()),
            Cell::optional(size.as_deref()),
            Cell::optional(short_commit(version.code.as_ref()).as_deref()),
            Cell::optional(pairs(&version.metrics, most).as_deref()),
        ];
        if is_wide {
            row.extend([
                Cell::optional(pairs(&version.parameters, most).as_deref()),
                Cell::optional(version.run_id.as_deref()),
            ]);
        }
        table.row(row);
    }
    table
}

/// The first names with their values, such as rmse=0.31,r2=0.8; `None` if there are none.
fn pairs(map: &std::collections::BTreeMap<String, String>, most: usize) -> Option<String> {
    let shown = map
        .iter()
        .take(most)
        .map(|(name, value)| format!("{name}={value}"));
    let mut text = shown.collect::<Vec<_>>().join(",");
    if map.len() > most {
        text.push_str(",…");
    }
    (!text.is_empty()).then_some(text)
}

fn aliases_of<'a>(status: &'a RegisteredModelStatus, number: &str) -> Vec<&'a str> {
    let named = status
        .aliases
        .iter()
        .filter(|alias| alias.version == number);
    named.map(|alias| alias.name.as_str()).collect()
}

fn uri(model: &RegisteredModel, number: &str) -> String {
    printable(&format!("models:/{}/{number}", model.model_name()))
}

fn one(
    model: &RegisteredModel,
    found: &FoundVersion,
    zone: &TimeZone,
    output: &OutputArguments,
) -> Result<(), super::Failure> {
    let status = model.status.clone().unwrap_or_default();
    let answer = InspectAnswer {
        model: model.model_name(),
        aliases: aliases_of(&status, &found.version.version),
        read_from: found.origin,
        version: &found.version,
    };
    let names = [uri(model, &found.version.version)];
    output.print(&answer, names, |_: Paint| {
        version_text(&answer, &found.note, zone)
    })
}

/// All that is known of a version, in words.
fn version_text(answer: &InspectAnswer<'_>, note: &str, zone: &TimeZone) -> String {
    let version = answer.version;
    let mut fields = FieldList::indented(0);
    fields.add("Model", answer.model);
    fields.add("Version", &version.version);
    fields.add("Aliases", answer.aliases.join(", "));
    add_registered(&mut fields, version, zone);
    fields.add_some("Problem", version.problem.as_ref());
    fields.add_some("Source", version.source.as_ref());
    fields.add_some("Files", version.artifact_uri.as_ref());
    fields.add_some("Size", version.size_bytes.map(bytes));
    fields.add_some("Run", version.run_id.as_ref());
    fields.add_some("Trained in", version.duration_seconds.map(seconds));
    add_code(&mut fields, version.code.as_ref());
    fields.add("Data", datasets(&version.datasets));
    let origin = match answer.read_from {
        VersionOrigin::Mirror => "the status of the RegisteredModel",
        VersionOrigin::MLflow => "MLflow, with your own variables",
    };
    fields.add("Read from", origin);
    fields.add("Note", note);
    let mut parts = vec![fields.render()];
    for (title, map) in [
        ("Metrics", &version.metrics),
        ("Parameters", &version.parameters),
    ] {
        if !map.is_empty() {
            let mut section = FieldList::indented(2);
            for (name, value) in map {
                section.add(name, value);
            }
            parts.push(format!("{title}:\n{}", section.render()));
        }
    }
    parts.concat()
}

/// When a version was registered, and by whom.
pub fn add_registered(fields: &mut FieldList, version: &ModelVersion, zone: &TimeZone) {
    let by = version
        .created_by
        .as_ref()
        .map_or_else(String::new, |by| format!(" by {by}"));
    let created = version.created_at.as_ref();
    fields.add_some(
        "Registered",
        created.map(|at| format!("{}{by}", local_with_zone(at.0, zone))),
    );
}

/// The code of a version, and the commands that fetch it. MLflow may have recorded none.
pub fn add_code(fields: &mut FieldList, code: Option<&CodeLineage>) {
    let words = code_words(code);
    if words.is_empty() {
        fields.add("Code", "MLflow recorded none: train within a git checkout");
        return;
    }
    fields.add("Code", words);
    fields.add_some("Retrain from", code.and_then(checkout));
}

/// The commands that fetch the code, if nothing in them could mean more to a shell.
fn checkout(code: &CodeLineage) -> Option<String> {
    let (repository, commit) = (code.repository.as_deref()?, code.commit.as_deref()?);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":/@._~+-".contains(c);
    let is_safe = repository.chars().all(is_plain)
        && !repository.starts_with('-')
        && commit.chars().all(|c| c.is_ascii_alphanumeric());
    is_safe.then(|| format!("git clone {repository} retrain && git -C retrain checkout {commit}"))
}

/// Data sets on one line, such as fares (training, digest abc).
pub fn datasets(datasets: &[Dataset]) -> String {
    let word = |dataset: &Dataset| {
        let digest = dataset
            .digest
            .as_ref()
            .map(|digest| format!("digest {digest}"));
        let about: Vec<String> = dataset.context.iter().cloned().chain(digest).collect();
        if about.is_empty() {
            dataset.name.clone()
        } else {
            format!("{} ({})", dataset.name, about.join(", "))
        }
    };
    datasets.iter().map(word).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> RegisteredModelStatus {
        serde_json::from_value(json!({
            "aliases": [
                {"name": "champion", "version": "10", "since": "2026-11-25T12:00:00Z"},
                {"name": "blue", "version": "10", "since": "2026-11-25T12:00:00Z"}],
            "versions": [
                {"version": "9", "createdAt": "2026-11-20T12:00:00Z"},
                {"version": "10", "createdAt": "2026-11-24T12:00:00Z", "createdBy": "kamal", "durationSeconds": 330,
                    "sizeBytes": 12_897_485, "runID": "abc", "source": "runs:/abc/model",
                    "artifactURI": "s3://models/10",
                    "metrics": {"a": "1", "mae": "2", "rmse": "0.31", "z": "4"}, "parameters": {"alpha": "0.5"},
                    "code": {"repository": "https://git.example/taxi", "commit": "0123456789abcdef", "branch": "main",
                        "entryPoint": "train.py"},
                    "datasets": [{"name": "fares", "digest": "d1", "context": "training"}, {"name": "zones"}]}]}))
        .unwrap()
    }

    #[test]
    fn versions_are_listed_newest_first_with_their_aliases() {
        let now = "2026-11-25T12:00:00Z".parse().unwrap();
        let text = versions_table(&status(), false, now).render(Paint::never());
        let expected = "\
VERSION   ALIASES         AGE   BY       TRAINED-IN   SIZE       COMMIT       METRICS
10        champion,blue   24h   kamal    5m30s        12.3 MiB   0123456789   a=1,mae=2,rmse=0.31,…
9         <none>          5d    <none>   <none>       <none>     <none>       <none>
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_version_is_told_with_the_code_that_trains_it_again() {
        let status = status();
        let answer = InspectAnswer {
            model: "nyc-taxi",
            aliases: aliases_of(&status, "10"),
            read_from: VersionOrigin::Mirror,
            version: &status.versions[1],
        };
        let expected = "\
Model:         nyc-taxi
Version:       10
Aliases:       champion, blue
Registered:    2026-11-24 12:00:00 +00:00 by kamal
Source:        runs:/abc/model
Files:         s3://models/10
Size:          12.3 MiB
Run:           abc
Trained in:    5m30s
Code:          https://git.example/taxi, commit 0123456789abcdef, branch main, entry point train.py
Retrain from:  git clone https://git.example/taxi retrain && git -C retrain checkout 0123456789abcdef
Data:          fares (training, digest d1); zones
Read from:     the status of the RegisteredModel
Metrics:
  a:     1
  mae:   2
  rmse:  0.31
  z:     4
Parameters:
  alpha:  0.5
";
        assert_eq!(version_text(&answer, "", &TimeZone::UTC), expected);
    }

    #[test]
    fn nothing_that_a_registry_says_becomes_a_command_of_a_shell() {
        let code = |repository: &str, commit: &str| CodeLineage {
            repository: Some(repository.to_owned()),
            commit: Some(commit.to_owned()),
            ..CodeLineage::default()
        };
        assert!(checkout(&code("git@git.example:ml/taxi.git", "ab12")).is_some());
        for (repository, commit) in [
            ("https://git.example/a; rm -rf ~", "ab12"),
            ("$(id)", "ab12"),
            ("--upload-pack=x", "ab12"),
            ("https://git.example/a", "ab12 && id"),
        ] {
            assert_eq!(checkout(&code(repository, commit)), None, "{repository}");
        }
    }
}
