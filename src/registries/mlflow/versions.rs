//! Versions: listed, read, and resolved to the URI of their files.
//!
//! Absent: judgement of a version. The details of its run are read by `details`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::client::Client;
use super::details::RunDetails;
use super::filter;
use super::request::{PAGE_RESPONSE, Request};
use super::source::{self, Source};
use super::wire::{self, List, version_number};
use crate::api;
use crate::api::public_uri::{has_user, public, split_query};
use crate::registries::error::RegistryError;
use crate::registries::snapshot::{ListedDetails, ListedVersion};

/// The most models in one search of versions, the most bytes that their names take in the request
/// line, and the size of a page.
const BATCH: usize = 100;
const BATCH_LINE: usize = 3000;
const PAGE: usize = wire::PAGE;
/// The most bytes of a listed version's details: they are kept until its model is reconciled.
const LISTED_BYTES: usize = 4 << 10;
/// The longest source that is shown, in characters.
const LONGEST_SOURCE: usize = 4096;
/// The timeout for the run of a version, which is needed for details only: aliases do not wait for longer.
const DETAILS_TIMEOUT: Duration = Duration::from_secs(3);
/// The most versions that are followed from a copy to the version that a run logged.
const MOST_COPIES: usize = 8;
const GET: &[&str] = &["api/2.0/mlflow/model-versions/get"];
const SEARCH: &[&str] = &["api/2.0/mlflow/model-versions/search"];

/// The URI of a version's files, or the reason why there is none.
type Resolved = Result<String, String>;

/// The newest versions of each model in a page that is sorted by number, the highest first. If
/// there is a next page, a model with fewer than `count` versions in this one is left out: it may
/// have more. A model whose details are large is left out too.
pub(super) fn newest_of_each(
    page: wire::VersionPage,
    count: usize,
) -> BTreeMap<String, Vec<ListedVersion>> {
    let is_last_page = page.next_page_token.is_none_or(|token| token.is_empty());
    let mut models: BTreeMap<String, Vec<wire::VersionInfo>> = BTreeMap::new();
    let mut large = BTreeSet::new();
    for version in page.model_versions {
        if version.text_bytes() > LISTED_BYTES {
            large.extend(version.name);
            continue;
        }
        if let Some(model) = version.name.clone() {
            models.entry(model).or_default().push(version);
        }
    }
    let mut newest = BTreeMap::new();
    for (model, versions) in models {
        let versions = newest_first(versions);
        let is_complete = is_last_page || versions.len() >= count;
        if is_complete && !large.contains(&model) {
            newest.insert(model, versions.into_iter().take(count).collect());
        }
    }
    newest
}

/// The versions with a valid number, the highest first, each number once.
fn newest_first(versions: impl IntoIterator<Item = wire::VersionInfo>) -> Vec<ListedVersion> {
    let listed = versions.into_iter().filter_map(|mut found| {
        let version = found.version.as_ref()?.0.clone();
        let number = version_number(&version)?;
        found.tags = List::default();
        let details = ListedDetails::Mlflow(Box::new(found));
        Some((number, ListedVersion { version, details }))
    });
    let mut listed: Vec<(u64, ListedVersion)> = listed.collect();
    listed.sort_by_key(|(number, _)| Reverse(*number));
    listed.dedup_by_key(|(number, _)| *number);
    listed.into_iter().map(|(_, version)| version).collect()
}

impl Client {
    /// A version with its details. `None` if the registry says that there is none.
    pub async fn version(
        &self,
        model: &str,
        version: &str,
    ) -> Result<Option<api::ModelVersion>, RegistryError> {
        match self.find_version(model, version).await? {
            Some(found) => self.describe(model, version, found).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn find_version(
        &self,
        model: &str,
        version: &str,
    ) -> Result<Option<wire::VersionInfo>, RegistryError> {
        let Some(number) = version_number(version) else {
            return Ok(None);
        };
        let query = [("name", model), ("version", version)];
        let response: wire::VersionResponse = match self.send_json(&Request::get(GET, &query)).await
        {
            Err(error) if error.is_not_found() => return Ok(None),
            outcome => outcome?,
        };
        let found = response.model_version.unwrap_or_default();
        let found_number = found
            .version
            .as_ref()
            .and_then(|word| version_number(&word.0));
        if found.name.as_deref() != Some(model) || found_number != Some(number) {
            return Err(RegistryError::invalid(
                &self.address(GET),
                "another version than the requested one",
            ));
        }
        Ok(Some(found))
    }

    /// The details of a version without its size: its files and its run.
    pub(in crate::registries) async fn describe(
        &self,
        model: &str,
        version: &str,
        found: wire::VersionInfo,
    ) -> Result<api::ModelVersion, RegistryError> {
        let source = found.source.clone().unwrap_or_default();
        let (run, details_omitted) = match self.run_of(&found, &source).await {
            Ok(run) => (run.unwrap_or_default(), false),
            Err(error) if concerns_one_version(&error) => (RunDetails::default(), true),
            Err(error) => return Err(error),
        };
        let resolved = match registration_problem(&found) {
            Some(problem) => Err(self.redact(&problem)),
            None => match self.resolve(model, version, &source).await {
                Err(error) if concerns_one_version(&error) => Err(error.to_string()),
                resolved => resolved?,
            },
        };
        let created_by = found.user_id.map(|user| self.redact(&user));
        let described = api::ModelVersion {
            version: version.to_owned(),
            run_id: found.run_id.filter(|id| source::is_id(id)),
            created_at: wire::timestamp(found.creation_timestamp).map(whole_seconds),
            created_by: created_by.filter(|user| !user.is_empty()),
            source: visible_source(&source),
            problem: resolved.as_ref().err().cloned(),
            details_omitted,
            ..api::ModelVersion::default()
        };
        let described = with_artifact(described, resolved.ok().as_deref());
        Ok(run.describe(described))
    }

    /// The URI of a version's files with its query. `None` if there is no such version, or its
    /// source leads to no files.
    pub async fn artifact_uri(
        &self,
        model: &str,
        version: &str,
    ) -> Result<Option<String>, RegistryError> {
        let Some(found) = self.find_version(model, version).await? else {
            return Ok(None);
        };
        let source = found.source.unwrap_or_default();
        Ok(self.resolve(model, version, &source).await?.ok())
    }

    /// A model's newest versions, newest first.
    pub async fn newest_versions(
        &self,
        model: &str,
        count: u32,
    ) -> Result<Vec<ListedVersion>, RegistryError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let count = count as usize;
        let page = match self.search_versions(&filter::name_in([model]), count).await {
            Err(error) if error.code() == Some("INVALID_PARAMETER_VALUE") => {
                // No filter can hold this name: the newest version is requested by its number.
                let Some(equals) = filter::name_equals(model) else {
                    return self.newest_version(model).await;
                };
                self.search_versions(&equals, count).await?
            }
            outcome => outcome?,
        };
        let versions = page.model_versions.into_iter();
        let named = versions.filter(|version| version.name.as_deref() == Some(model));
        let mut newest = newest_first(named);
        newest.truncate(count);
        Ok(newest)
    }

    /// The newest versions of many models, with one request for up to 100 of them. MLflow servers
    /// before 3.0 refuse.
    pub async fn newest_versions_of(
        &self,
        models: &[&str],
        count: u32,
    ) -> Result<BTreeMap<String, Vec<ListedVersion>>, RegistryError> {
        let mut all = BTreeMap::new();
        for batch in filter::batches(models.iter().copied(), BATCH, BATCH_LINE) {
            let page = self.search_versions(&filter::name_in(batch), PAGE).await?;
            all.extend(newest_of_each(page, count as usize));
        }
        Ok(all)
    }

    async fn newest_version(&self, model: &str) -> Result<Vec<ListedVersion>, RegistryError> {
        let Some(snapshot) = self.model(model).await? else {
            return Ok(Vec::new());
        };
        let Some(number) = snapshot.latest_version else {
            return Ok(Vec::new());
        };
        Ok(newest_first(self.find_version(model, &number).await?))
    }

    /// A page of versions, sorted by number, the highest first.
    pub(super) async fn search_versions(
        &self,
        filter: &str,
        count: usize,
    ) -> Result<wire::VersionPage, RegistryError> {
        let asked = count.to_string();
        let query = [
            ("filter", filter),
            ("max_results", asked.as_str()),
            ("order_by", "version_number DESC"),
        ];
        let request = Request::get(SEARCH, &query).limit(PAGE_RESPONSE);
        let page: wire::VersionPage = self.send_json(&request).await?;
        if page.model_versions.is_cut || page.model_versions.len() > count {
            let fault = "more versions than were asked for";
            return Err(RegistryError::invalid(&self.address(SEARCH), fault));
        }
        Ok(page)
    }

    /// Resolves a source to the URI of files. The registry may resolve it to a path of a run;
    /// nothing is followed further.
    async fn resolve(
        &self,
        model: &str,
        version: &str,
        source: &str,
    ) -> Result<Resolved, RegistryError> {
        let parsed = match source::parse(source) {
            Ok(parsed) => parsed,
            Err(problem) => return Ok(Err(problem)),
        };
        let resolved = match parsed {
            Source::Uri(uri) => return Ok(Ok(uri.to_owned())),
            Source::Run { run_id, path } => return self.resolve_run(run_id, path).await,
            Source::Registry => self.download_uri(model, version).await?,
        };
        match resolved.as_deref().map(source::parse) {
            Ok(Ok(Source::Run { run_id, path })) => self.resolve_run(run_id, path).await,
            Ok(Ok(Source::Uri(uri))) => Ok(source::check_artifact_uri(uri)),
            Ok(Ok(Source::Registry)) => Ok(Err("the version was registered from another version that leads to no files; register it again from a run or a URI".to_owned())),
            Ok(Err(problem)) => Ok(Err(problem)),
            Err(problem) => Ok(Err(problem.clone())),
        }
    }

    async fn download_uri(&self, model: &str, version: &str) -> Result<Resolved, RegistryError> {
        let path = ["api/2.0/mlflow/model-versions/get-download-uri"];
        let query = [("name", model), ("version", version)];
        let response: Result<wire::DownloadUri, _> =
            self.send_json(&Request::get(&path, &query)).await;
        match response {
            Ok(response) => Ok(Ok(response.artifact_uri.unwrap_or_default())),
            Err(error) if is_permanent(&error) => Ok(Err(format!(
                "the version's source cannot be resolved: {error}"
            ))),
            Err(error) => Err(error),
        }
    }

    /// The files of `runs:/<run>/<path>`: in MLflow 3 those of the run's logged model of that name,
    /// in MLflow 2 the run's own.
    async fn resolve_run(&self, run_id: &str, path: &str) -> Result<Resolved, RegistryError> {
        let run = match self.run(run_id, None).await {
            Ok(run) => run,
            Err(error) if is_permanent(&error) => {
                return Ok(Err(format!(
                    "the run that the version was registered from cannot be read: {error}"
                )));
            }
            Err(error) => return Err(error),
        };
        for id in &run.logged_models {
            if let Some(uri) = self.logged_model_uri(id, path).await? {
                return Ok(source::check_artifact_uri(&uri));
            }
        }
        Ok(source::check_run_uri(&run.artifact_root, path))
    }

    async fn logged_model_uri(
        &self,
        id: &str,
        name: &str,
    ) -> Result<Option<String>, RegistryError> {
        match self.logged_model(id).await {
            Ok(model) if model.info.name.as_deref() == Some(name) => Ok(model.info.artifact_uri),
            Ok(_) => Ok(None),
            Err(error) if is_permanent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The run that logged the version, also if the version is a copy of another one (`models:/other/3`), which may be a copy
    /// itself; `None` if there is none, or it may not be read.
    async fn run_of(
        &self,
        found: &wire::VersionInfo,
        source: &str,
    ) -> Result<Option<RunDetails>, RegistryError> {
        let (mut run_id, mut source) = (found.run_id.clone(), source.to_owned());
        for _ in 0..MOST_COPIES {
            if let Some(id) = run_id.filter(|id| source::is_id(id)) {
                return optional(self.run(&id, Some(DETAILS_TIMEOUT)).await);
            }
            if let Some(id) = source::logged_model(&source) {
                let model = optional(self.logged_model(id).await)?;
                run_id = model.and_then(|model| model.info.source_run_id);
                source = String::new();
                continue;
            }
            let Some((model, version)) = source::copied_version(&source) else {
                return Ok(None);
            };
            let original = optional(self.find_version(model, version).await)?.flatten();
            let original = original.unwrap_or_default();
            run_id = original.run_id;
            source = original.source.unwrap_or_default();
        }
        Ok(None)
    }

    async fn run(
        &self,
        run_id: &str,
        timeout: Option<Duration>,
    ) -> Result<RunDetails, RegistryError> {
        let query = [("run_id", run_id)];
        let request = Request {
            timeout,
            ..Request::get(&["api/2.0/mlflow/runs/get"], &query).limit(PAGE_RESPONSE)
        };
        let response: wire::RunResponse = self.send_json(&request).await?;
        Ok(RunDetails::of(response.run.unwrap_or_default()))
    }

    async fn logged_model(&self, id: &str) -> Result<wire::LoggedModel, RegistryError> {
        let path = ["api/2.0/mlflow/logged-models", id];
        let response: wire::LoggedModelResponse = self.send_json(&Request::get(&path, &[])).await?;
        Ok(response.model.unwrap_or_default())
    }
}

/// Whether a request may fail for this version alone: its run may be long, or its record broken. All other failures are the
/// server's.
fn concerns_one_version(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::TimedOut { .. } | RegistryError::ServerError { status: 500, .. }
    )
}

/// An optional detail. If the server fails, so does the request, and the detail is read again; after any other error it is left
/// out.
fn optional<T>(outcome: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.reason() == api::Reason::RegistryUnreachable => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether a retry will not help: the registry refused, or has no such route.
fn is_permanent(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Refused { .. }
            | RegistryError::Forbidden { .. }
            | RegistryError::WrongServer {
                status: 404 | 405,
                ..
            }
    )
}

/// The reason why MLflow itself calls a version unusable.
pub(super) fn registration_problem(found: &wire::VersionInfo) -> Option<String> {
    let why = found.status_message.as_deref().unwrap_or_default();
    match found.status.as_deref() {
        Some("FAILED_REGISTRATION") => Some(format!(
            "MLflow reports that the version's registration failed: {why}"
        )),
        Some("PENDING_REGISTRATION") => {
            Some("MLflow reports that the version's registration is not finished".to_owned())
        }
        _ => None,
    }
}

/// The time to the second, as a status keeps it: the same version must be the same before and after it was stored.
fn whole_seconds(at: jiff::Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The version with the URI of its files. A query may be a signature, so it is left out.
pub(super) fn with_artifact(version: api::ModelVersion, uri: Option<&str>) -> api::ModelVersion {
    let parts = uri.map(split_query);
    api::ModelVersion {
        artifact_uri: parts.map(|(uri, _)| uri.to_owned()),
        query_withheld: parts.is_some_and(|(_, query)| query.is_some()),
        ..version
    }
}

/// The source as it may be shown: without control characters and query, and `None` if it holds a
/// user or password.
pub(super) fn visible_source(source: &str) -> Option<String> {
    let shown: String = public(source)
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_SOURCE)
        .collect();
    if shown.is_empty() || has_user(&shown) {
        None
    } else {
        Some(shown)
    }
}
