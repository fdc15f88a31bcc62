//! The details of a version beside its files: the duration, metrics, parameters and code of its
//! run, and its size.
//!
//! Absent: failure. A detail that cannot be read is left out; only an unreachable server is an
//! error.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::Client;
use super::request::Request;
use super::source;
use super::wire;
use crate::api::ModelVersion;
use crate::api::model_file::{MODEL_FILE, model_size};
use crate::api::public_uri::without_secrets;
use crate::api::registered_model::{CodeLineage, Dataset};
use crate::http::redact::{cut, is_secret};
use crate::registries::error::RegistryError;

/// The most logged models of a run that are read.
const MOST_LOGGED_MODELS: usize = 32;
const MOST_METRICS: usize = 32;
const MOST_PAIRS: usize = 64;
const MOST_DATASETS: usize = 16;
const MOST_VALUE: usize = 250;
/// The timeout for each request for a size: the server may have to fetch the file from a slow
/// store.
const SIZE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most folders, files and levels of a listing that are read.
const MOST_FOLDERS: usize = 64;
const MOST_FILES: usize = 10_000;
const MOST_DEPTH: usize = 8;

/// What is kept of the run that logged a version.
#[derive(Debug, Default)]
pub(super) struct RunDetails {
    /// The ids of the models that the run logged.
    pub(super) logged_models: Vec<String>,
    /// The URI of the run's own artifacts; empty if there is none.
    pub(super) artifact_root: String,
    details: ModelVersion,
}

impl RunDetails {
    /// The details of a run. The response, which may be long, is dropped.
    pub(super) fn of(run: wire::RunRecord) -> Self {
        let outputs = run.outputs.model_outputs.into_iter();
        let ids = outputs.filter_map(|output| output.model_id);
        let details = ModelVersion {
            duration_seconds: duration(&run.info),
            created_by: user(&run.data.tags),
            code: lineage(&run.data.tags),
            datasets: datasets(run.inputs.dataset_inputs),
            metrics: metrics(run.data.metrics),
            parameters: visible(run.data.params),
            ..ModelVersion::default()
        };
        Self {
            logged_models: ids
                .filter(|id| source::is_id(id))
                .take(MOST_LOGGED_MODELS)
                .collect(),
            artifact_root: run.info.artifact_uri.unwrap_or_default(),
            details,
        }
    }

    /// The version with the details of its run.
    pub(super) fn describe(self, version: ModelVersion) -> ModelVersion {
        ModelVersion {
            duration_seconds: self.details.duration_seconds,
            // The open-source MLflow keeps no user with a version.
            created_by: version.created_by.clone().or(self.details.created_by),
            code: self.details.code,
            datasets: self.details.datasets,
            metrics: self.details.metrics,
            parameters: self.details.parameters,
            ..version
        }
    }
}

fn duration(info: &wire::RunInfo) -> Option<i64> {
    let (start, end) = (info.start_time?.0, info.end_time?.0);
    if start <= 0 || end < start {
        return None;
    }
    Some(end.checked_sub(start)? / 1000)
}

fn metrics(metrics: impl IntoIterator<Item = wire::Metric>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for metric in metrics {
        if let (Some(name), Some(value)) = (valid_name(metric.key), metric.value) {
            all.insert(name, value.text());
        }
    }
    all.into_iter().take(MOST_METRICS).collect()
}

/// Parameters or tags as they may be shown: without those whose names look like secrets, and not too many.
pub(super) fn visible(pairs: impl IntoIterator<Item = wire::Pair>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for pair in pairs {
        let value = pair.value.unwrap_or_default();
        if let Some(name) = valid_name(pair.key)
            && !is_secret(&name, &value)
        {
            all.insert(name, cut(&without_secrets(&value), MOST_VALUE));
        }
    }
    all.into_iter().take(MOST_PAIRS).collect()
}

fn datasets(inputs: impl IntoIterator<Item = wire::DatasetInput>) -> Vec<Dataset> {
    let mut datasets = Vec::new();
    for input in inputs {
        let Some(name) = valid_name(input.dataset.name) else {
            continue;
        };
        let context = tag_value(&input.tags, "mlflow.data.context");
        datasets.push(Dataset {
            name: cut(&without_secrets(&name), MOST_VALUE),
            digest: input.dataset.digest.map(|digest| cut(&digest, MOST_VALUE)),
            context: context.map(|context| cut(context, MOST_VALUE)),
        });
    }
    datasets.truncate(MOST_DATASETS);
    datasets
}

fn tag_value<'a>(tags: &'a [wire::Pair], key: &str) -> Option<&'a str> {
    let tag = tags.iter().find(|tag| tag.key.as_deref() == Some(key))?;
    tag.value.as_deref()
}

/// The user who started the run, as the client called itself.
fn user(tags: &[wire::Pair]) -> Option<String> {
    let user = without_secrets(tag_value(tags, "mlflow.user")?)
        .trim()
        .to_owned();
    valid_name(Some(user))
}

/// A name that is short and visible; `None` otherwise.
fn valid_name(name: Option<String>) -> Option<String> {
    let name = name?;
    let is_valid = !name.is_empty() && name.len() <= 255 && !name.chars().any(char::is_control);
    is_valid.then_some(name)
}

/// The training code, from the tags that MLflow writes if training ran in a Git checkout.
fn lineage(tags: &[wire::Pair]) -> Option<CodeLineage> {
    let tag = |name: &str| {
        let value = tag_value(tags, name)?;
        let shown: String = value.chars().filter(|c| !c.is_control()).collect();
        let shown = shown.trim();
        (!shown.is_empty()).then(|| cut(&without_secrets(shown), 1024))
    };
    let code = CodeLineage {
        repository: tag("mlflow.source.git.repoURL"),
        commit: tag("mlflow.source.git.commit"),
        branch: tag("mlflow.source.git.branch"),
        entry_point: tag("mlflow.project.entryPoint").or_else(|| tag("mlflow.source.name")),
    };
    (code != CodeLineage::default()).then_some(code)
}

impl Client {
    /// The size of a version's files: the one in the MLmodel file, else the sum over the listing.
    pub async fn version_size(
        &self,
        model: &str,
        version: &str,
        uri: &str,
    ) -> Result<Option<i64>, RegistryError> {
        let _permit = self.fetch_permit().await;
        let query = [("name", model), ("version", version), ("path", MODEL_FILE)];
        let request = Request::get(&["model-versions/get-artifact"], &query)
            .timeout(SIZE_TIMEOUT)
            .without_retry();
        if let Some(response) = if_reachable(self.send(&request).await)?
            && let Some(size) = model_size(&response.body)
        {
            return Ok(Some(size));
        }
        match proxied_path(uri) {
            Some(root) => self.listed_size(root).await,
            None => Ok(None),
        }
    }

    /// The sum of the sizes of all files below a folder; `None` if not all of them can be listed.
    async fn listed_size(&self, root: &str) -> Result<Option<i64>, RegistryError> {
        let mut sum = ListingSum::default();
        let mut folders = vec![(root.to_owned(), 0)];
        let mut requests = 0;
        while let Some((folder, depth)) = folders.pop() {
            requests += 1;
            if requests > MOST_FOLDERS || depth > MOST_DEPTH {
                return Ok(None);
            }
            let listing = if_reachable(self.list_artifacts(&folder, SIZE_TIMEOUT).await)?;
            let Some(subfolders) = listing.and_then(|listing| sum.add(listing)) else {
                return Ok(None);
            };
            if subfolders.len() + folders.len() > MOST_FOLDERS {
                return Ok(None);
            }
            for name in subfolders {
                folders.push((format!("{folder}/{name}"), depth + 1));
            }
        }
        Ok(sum.total())
    }
}

/// The files and bytes of the folders that were listed so far.
#[derive(Default)]
pub(super) struct ListingSum {
    files: usize,
    bytes: i64,
}

impl ListingSum {
    /// Adds the files of a folder and returns its subfolders; `None` if a name or a size is missing
    /// or not plausible.
    pub(super) fn add(&mut self, listing: wire::Listing) -> Option<Vec<String>> {
        let mut subfolders = Vec::new();
        if listing.files.is_cut {
            return None;
        }
        for file in listing.files {
            let name = file.path.filter(|name| is_plain_name(name))?;
            if file.is_dir {
                subfolders.push(name);
                continue;
            }
            self.files += 1;
            self.bytes = self.bytes.checked_add(file.file_size?.0)?;
            if self.files > MOST_FILES {
                return None;
            }
        }
        Some(subfolders)
    }

    pub(super) fn total(&self) -> Option<i64> {
        (self.files > 0 && self.bytes >= 0).then_some(self.bytes)
    }
}

/// Whether a name is that of a file or folder, and no path.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 1024
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control)
}

/// The path on the server that an `mlflow-artifacts` URI names.
fn proxied_path(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix("mlflow-artifacts:")?;
    let path = match rest.strip_prefix("//") {
        Some(hosted) => hosted.split_once('/')?.1,
        None => rest,
    };
    Some(path.trim_matches('/')).filter(|path| !path.is_empty())
}

/// The response; `None` after an error other than an unreachable server. A size is optional.
fn if_reachable<T>(outcome: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(
            error @ RegistryError::Unreachable {
                connected: false, ..
            },
        ) => Err(error),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
#[path = "details_tests.rs"]
mod tests;
