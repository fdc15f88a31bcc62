//! What decides about a version beside its files: its run's time, metrics, parameters and code, and its size.
//!
//! Absent: failure. A detail that cannot be had is left out; only a server that is away is an error.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::{Ask, Registry};
use super::error::RegistryError;
use super::redact::cut;
use super::source;
use super::wire;
use crate::api::ModelVersion;
use crate::api::registered_model::{CodeLineage, Dataset};

const MOST_METRICS: usize = 32;
const MOST_PARAMETERS: usize = 64;
const MOST_DATASETS: usize = 16;
const MOST_VALUE: usize = 250;
/// How long the size may take: the server may have to fetch the file from a store that is far away.
const SIZE_PATIENCE: Duration = Duration::from_secs(10);
/// How far a listing of artifacts is followed.
const MOST_FOLDERS: usize = 64;
const MOST_FILES: usize = 10_000;
const MOST_DEPTH: usize = 8;

/// A run, as far as a version's reader needs it.
#[derive(Debug, Default)]
pub(super) struct Run(pub(super) wire::Run);

impl Run {
    /// The logged models that the run made.
    pub(super) fn logged_models(&self) -> impl Iterator<Item = &str> {
        self.0
            .outputs
            .model_outputs
            .iter()
            .filter_map(|output| output.model_id.as_deref())
            .filter(|id| source::is_id(id))
    }

    /// Where the run's own artifacts are.
    pub(super) fn artifact_root(&self) -> Option<&str> {
        self.0.info.artifact_uri.as_deref()
    }

    /// The version with what its run tells.
    pub(super) fn describe(self, version: ModelVersion) -> ModelVersion {
        ModelVersion {
            duration_seconds: duration(&self.0.info),
            code: lineage(&self.0.data.tags),
            datasets: datasets(self.0.inputs.dataset_inputs),
            metrics: metrics(self.0.data.metrics),
            parameters: parameters(self.0.data.params),
            ..version
        }
    }
}

fn duration(info: &wire::RunInfo) -> Option<i64> {
    let (start, end) = (info.start_time?.0, info.end_time?.0);
    end.checked_sub(start)
        .filter(|_| start > 0)
        .filter(|ms| *ms >= 0)
        .map(|ms| ms / 1000)
}

fn metrics(metrics: Vec<wire::Metric>) -> BTreeMap<String, String> {
    let all: BTreeMap<String, String> = metrics
        .into_iter()
        .filter_map(|metric| Some((key(&metric.key?)?, metric.value?.text())))
        .collect();
    all.into_iter().take(MOST_METRICS).collect()
}

fn parameters(parameters: Vec<wire::Pair>) -> BTreeMap<String, String> {
    let all: BTreeMap<String, String> = parameters
        .into_iter()
        .filter_map(|pair| {
            Some((
                key(&pair.key?)?,
                cut(&pair.value.unwrap_or_default(), MOST_VALUE),
            ))
        })
        .collect();
    all.into_iter().take(MOST_PARAMETERS).collect()
}

fn datasets(inputs: Vec<wire::DatasetInput>) -> Vec<Dataset> {
    let context = |tags: &[wire::Pair]| {
        let tag = tags
            .iter()
            .find(|tag| tag.key.as_deref() == Some("mlflow.data.context"))?;
        tag.value.as_deref().map(|value| cut(value, MOST_VALUE))
    };
    let named = inputs.into_iter().filter_map(|input| {
        let name = cut(&key(&input.dataset.name?)?, MOST_VALUE);
        let digest = input.dataset.digest.map(|digest| cut(&digest, MOST_VALUE));
        Some(Dataset {
            name,
            digest,
            context: context(&input.tags),
        })
    });
    named.take(MOST_DATASETS).collect()
}

/// A name that can be shown and told from others.
fn key(name: &str) -> Option<String> {
    (!name.is_empty() && name.len() <= 255 && !name.chars().any(char::is_control))
        .then(|| name.to_owned())
}

/// The code that trained, from the tags that MLflow writes where training ran in a checkout.
fn lineage(tags: &[wire::Pair]) -> Option<CodeLineage> {
    let tag = |name: &str| {
        let value = tags
            .iter()
            .find(|tag| tag.key.as_deref() == Some(name))
            .and_then(|tag| tag.value.as_deref())?;
        let shown: String = value.chars().filter(|c| !c.is_control()).collect();
        Some(cut(shown.trim(), 1024)).filter(|value| !value.is_empty())
    };
    let code = CodeLineage {
        repository: tag("mlflow.source.git.repoURL").map(|url| without_user(&url)),
        commit: tag("mlflow.source.git.commit"),
        branch: tag("mlflow.source.git.branch"),
        entry_point: tag("mlflow.project.entryPoint").or_else(|| tag("mlflow.source.name")),
    };
    (code != CodeLineage::default()).then_some(code)
}

/// A repository's address without the token that people write into it.
fn without_user(repository: &str) -> String {
    match url::Url::parse(repository) {
        Ok(mut url)
            if url.password().is_some()
                || (url.scheme().starts_with("http") && !url.username().is_empty()) =>
        {
            let cleared = url.set_username("").and_then(|()| url.set_password(None));
            cleared.map_or_else(|()| String::new(), |()| url.to_string())
        }
        _ => repository.to_owned(),
    }
}

impl Registry {
    /// The size of a version's files: the one in the MLmodel file, else the sum of the listing. `None` if neither can be had.
    ///
    /// # Errors
    /// If the registry cannot be reached.
    pub async fn version_size(
        &self,
        model: &str,
        version: &str,
        uri: &str,
    ) -> Result<Option<i64>, RegistryError> {
        let _turn = self.may_fetch().await;
        let query = [("name", model), ("version", version), ("path", "MLmodel")];
        let ask = Ask::get(&["model-versions/get-artifact"], &query)
            .patience(SIZE_PATIENCE)
            .once();
        let said = reached(self.ask(&ask).await)?;
        if let Some(size) = said.and_then(|answer| model_size(&answer.body)) {
            return Ok(Some(size));
        }
        match proxied_path(uri) {
            Some(root) => self.listed_size(root).await,
            None => Ok(None),
        }
    }

    /// The sum of the sizes of all files below a folder of the server's; `None` where not all can be listed.
    async fn listed_size(&self, root: &str) -> Result<Option<i64>, RegistryError> {
        let mut sum = ListingSum::default();
        let mut folders = vec![(root.to_owned(), 0)];
        let mut asked = 0;
        while let Some((folder, depth)) = folders.pop() {
            asked += 1;
            let path = ["api/2.0/mlflow-artifacts/artifacts"];
            let query = [("path", folder.as_str())];
            let answer = reached(
                self.ask_json::<wire::Listing>(&Ask::get(&path, &query).patience(SIZE_PATIENCE))
                    .await,
            )?;
            let Some(below) = answer
                .filter(|_| asked <= MOST_FOLDERS && depth <= MOST_DEPTH)
                .and_then(|listing| sum.add(listing))
            else {
                return Ok(None);
            };
            folders.extend(
                below
                    .into_iter()
                    .map(|name| (format!("{folder}/{name}"), depth + 1)),
            );
        }
        Ok(sum.total())
    }
}

/// What was added up of a listing.
#[derive(Default)]
struct ListingSum {
    files: usize,
    bytes: i64,
}

impl ListingSum {
    /// Adds a folder's files and names the folders in it; `None` where the listing is no honest one.
    fn add(&mut self, listing: wire::Listing) -> Option<Vec<String>> {
        let mut folders = Vec::new();
        for file in listing.files {
            let name = file.path.filter(|name| is_plain_name(name))?;
            if file.is_dir {
                folders.push(name);
                continue;
            }
            self.files += 1;
            self.bytes = self
                .bytes
                .checked_add(file.file_size?.0)
                .filter(|_| self.files <= MOST_FILES)?;
        }
        Some(folders)
    }

    fn total(&self) -> Option<i64> {
        (self.files > 0 && self.bytes >= 0).then_some(self.bytes)
    }
}

/// A name of one level.
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

/// The line `model_size_bytes` of an MLmodel file.
fn model_size(file: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(file).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("model_size_bytes:"))?;
    value.trim().parse().ok().filter(|size| *size >= 0)
}

/// What the server answered, where it could be reached: a size is never worth more.
fn reached<T>(outcome: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
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
