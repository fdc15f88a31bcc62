//! `kubectl pointsman compare`: the differences of two versions of a model.
//!
//! Absent: a judgment of metrics whose direction is not known by their name.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde::Serialize;

use super::CommandResult;
use super::cluster::{Cluster, ClusterArguments};
use super::found_version::{find_model, find_version, number_of};
use super::inspect::datasets;
use super::output::{OutputArguments, Tone};
use super::table::{Cell, Table};
use super::units::{bytes, seconds};
use crate::api::ModelVersion;

/// Words in the name of a metric that is better if it is higher.
const HIGHER: [&str; 12] = [
    "accuracy",
    "acc",
    "auc",
    "bleu",
    "f1",
    "map",
    "ndcg",
    "precision",
    "r2",
    "recall",
    "rouge",
    "specificity",
];
/// Words in the name of a metric that is better if it is lower.
const LOWER: [&str; 12] = [
    "brier",
    "cer",
    "error",
    "logloss",
    "loss",
    "mae",
    "mape",
    "mse",
    "perplexity",
    "rmse",
    "smape",
    "wer",
];

/// Show in what two versions of a model differ, with better and worse metrics marked
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  Two versions by their numbers:
    kubectl pointsman compare nyc-taxi 4 5 -n ml
  The one that runs and the newest, with what is the same in both:
    kubectl pointsman compare nyc-taxi champion latest -o wide")]
pub struct CompareArguments {
    /// The RegisteredModel's name, or the model's name in the registry
    model: String,
    /// The version to compare with: a number, an alias, a stage, or latest
    first: String,
    /// The version to look at: a number, an alias, a stage, or latest
    second: String,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// Whether the second version is better.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Judgment {
    Better,
    Worse,
}

/// A property of two versions.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ComparedProperty {
    property: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    second: Option<String>,
    /// In numbers, the second less the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    judgment: Option<Judgment>,
}

/// Runs the command.
pub async fn run(arguments: CompareArguments) -> CommandResult {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let model = find_model(&cluster, &arguments.model).await?;
    let first = find_version(&cluster, &model, &number_of(&model, &arguments.first)?).await?;
    let second = find_version(&cluster, &model, &number_of(&model, &arguments.second)?).await?;
    for found in [&first, &second] {
        if !found.note.is_empty() {
            eprintln!("{}", found.note);
        }
    }
    let (first, second) = (first.version, second.version);
    let mut compared = compare(&first, &second);
    let all = compared.len();
    if !arguments.output.is_wide() {
        compared.retain(|each| each.first != each.second);
    }
    let names = compared.iter().map(|each| each.property.clone());
    arguments.output.print(&compared, names, |paint| {
        let (old, new) = (&first.version, &second.version);
        let table = table(&compared, old, new).render(paint);
        let same = all - compared.len();
        if same == 0 {
            return table;
        }
        format!("{table}\n{same} more properties are the same: -o wide\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn table(compared: &[ComparedProperty], first: &str, second: &str) -> Table {
    let headers = [
        "PROPERTY".to_owned(),
        format!("VERSION {first}"),
        format!("VERSION {second}"),
        "CHANGE".to_owned(),
    ];
    let mut table = Table::new(headers);
    for each in compared {
        let change = each.change.as_deref().unwrap_or_default();
        table.row([
            each.property.as_str().into(),
            Cell::optional(each.first.as_deref()),
            Cell::optional(each.second.as_deref()),
            match each.judgment {
                Some(Judgment::Better) => Cell::toned(format!("{change} better"), Tone::Good),
                Some(Judgment::Worse) => Cell::toned(format!("{change} worse"), Tone::Bad),
                None => change.into(),
            },
        ]);
    }
    table
}

/// All properties of two versions, metrics first.
fn compare(first: &ModelVersion, second: &ModelVersion) -> Vec<ComparedProperty> {
    let mut compared = Vec::new();
    for (name, values) in both(&first.metrics, &second.metrics) {
        compared.push(metric(name, values));
    }
    let text = |value: Option<i64>, words: fn(i64) -> String| value.map(words);
    let mut add = |property: &str, first: Option<String>, second: Option<String>| {
        if first.is_some() || second.is_some() {
            compared.push(ComparedProperty {
                property: property.to_owned(),
                first,
                second,
                change: None,
                judgment: None,
            });
        }
    };
    add(
        "trained in",
        text(first.duration_seconds, seconds),
        text(second.duration_seconds, seconds),
    );
    add(
        "size",
        text(first.size_bytes, bytes),
        text(second.size_bytes, bytes),
    );
    for (name, (first, second)) in both(&first.parameters, &second.parameters) {
        add(
            &format!("parameter {name}"),
            first.cloned(),
            second.cloned(),
        );
    }
    let code = |version: &ModelVersion| version.code.clone().unwrap_or_default();
    let (old, new) = (code(first), code(second));
    add("repository", old.repository, new.repository);
    add("commit", old.commit, new.commit);
    add("branch", old.branch, new.branch);
    add("entry point", old.entry_point, new.entry_point);
    let data = |version: &ModelVersion| {
        (!version.datasets.is_empty()).then(|| datasets(&version.datasets))
    };
    add("data", data(first), data(second));
    add(
        "registered by",
        first.created_by.clone(),
        second.created_by.clone(),
    );
    compared
}

type Values<'a> = (Option<&'a String>, Option<&'a String>);

/// The names of both maps, with the values in each.
fn both<'a>(
    first: &'a BTreeMap<String, String>,
    second: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a String, Values<'a>)> {
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    names
        .into_iter()
        .map(|name| (name, (first.get(name), second.get(name))))
}

fn metric(name: &str, (first, second): Values<'_>) -> ComparedProperty {
    let number = |value: Option<&String>| value?.parse::<f64>().ok();
    let change = match (number(first), number(second)) {
        (Some(first), Some(second)) if first.is_finite() && second.is_finite() => {
            Some(second - first)
        }
        _ => None,
    };
    let judgment = change.and_then(|change| judge(name, change));
    ComparedProperty {
        property: name.to_owned(),
        first: first.cloned(),
        second: second.cloned(),
        change: change.filter(|change| *change != 0.0).map(signed),
        judgment,
    }
}

/// Four significant digits with a sign: +0.01235.
fn signed(change: f64) -> String {
    let digits = change.abs().log10().floor();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounded just before
    let places = (3.0 - digits).clamp(0.0, 12.0) as usize;
    let text = format!("{change:+.places$}");
    match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => text,
    }
}

/// Whether a change of a metric is for the better, by the words in its name; `None` if they do not say.
fn judge(name: &str, change: f64) -> Option<Judgment> {
    let name = name.to_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
    // scikit-learn turns losses into scores with this word: neg_mean_squared_error.
    let is_negated = has(&["neg"]);
    let higher_is_better = match (has(&HIGHER), has(&LOWER)) {
        (true, false) => !is_negated,
        (false, true) => is_negated,
        _ => return None,
    };
    if change == 0.0 {
        return None;
    }
    let is_better = (change > 0.0) == higher_is_better;
    Some(if is_better {
        Judgment::Better
    } else {
        Judgment::Worse
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::output::Paint;
    use super::*;

    #[test]
    fn a_metric_is_judged_by_the_words_of_its_name_only() {
        use Judgment::{Better, Worse};
        for (name, change, expected) in [
            ("rmse", -0.1, Some(Better)),
            ("rmse", 0.1, Some(Worse)),
            ("val_loss", -1.0, Some(Better)),
            ("test/MAE", 1.0, Some(Worse)),
            ("mean_squared_error", -1.0, Some(Better)),
            ("neg_mean_squared_error", 1.0, Some(Better)),
            ("accuracy", 0.1, Some(Better)),
            ("f1_score", -0.1, Some(Worse)),
            ("roc.auc", 0.1, Some(Better)),
            ("r2", 0.1, Some(Better)),
            ("rmse", 0.0, None),
            ("latency", -1.0, None),
            ("blossom", 1.0, None),
            ("accuracy_loss", 1.0, None),
        ] {
            assert_eq!(judge(name, change), expected, "{name} {change}");
        }
    }

    #[test]
    fn only_finite_numbers_are_judged() {
        let (nan, one) = ("NaN".to_owned(), "1".to_owned());
        let compared = metric("rmse", (Some(&nan), Some(&one)));
        assert_eq!((compared.change, compared.judgment), (None, None));
        assert_eq!(metric("rmse", (None, Some(&one))).judgment, None);
    }

    #[test]
    fn changes_have_a_sign_and_four_digits() {
        for (change, expected) in [
            (0.012_345_6, "+0.01235"),
            (-1234.56, "-1235"),
            (0.5, "+0.5"),
            (-20.0, "-20"),
        ] {
            assert_eq!(signed(change), expected);
        }
    }

    #[test]
    fn the_differences_are_a_table_with_better_and_worse() {
        let version = |json| serde_json::from_value::<ModelVersion>(json).unwrap();
        let first = version(
            json!({"version": "4", "metrics": {"rmse": "0.33", "r2": "0.8", "n": "5"},
            "parameters": {"alpha": "0.5", "depth": "3"}, "durationSeconds": 60, "sizeBytes": 1024,
            "code": {"commit": "aaa"}}),
        );
        let second = version(
            json!({"version": "5", "metrics": {"rmse": "0.31", "r2": "0.75", "n": "6"},
            "parameters": {"alpha": "0.1", "depth": "3"}, "durationSeconds": 90, "sizeBytes": 1024,
            "code": {"commit": "bbb"}}),
        );
        let mut compared = compare(&first, &second);
        compared.retain(|each| each.first != each.second);
        let text = table(&compared, "4", "5").render(Paint::never());
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let expected = [
            "PROPERTY          VERSION 4   VERSION 5   CHANGE",
            "n                 5           6           +1",
            "r2                0.8         0.75        -0.05 worse",
            "rmse              0.33        0.31        -0.02 better",
            "trained in        60s         90s",
            "parameter alpha   0.5         0.1",
            "commit            aaa         bbb",
        ];
        assert_eq!(lines, expected);
    }
}
