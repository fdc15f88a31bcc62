//! Versions: found, read, and resolved to the URI of their files.
//!
//! Absent: judgement of a version. What decides about it is read by `details`, and decided elsewhere.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::client::{Ask, Registry};
use super::details::Run;
use super::error::RegistryError;
use super::filter;
use super::source::{self, Source};
use super::wire::{self, version_number};
use crate::api;

/// How many logged models of a run are looked into at most.
const MOST_LOGGED_MODELS: usize = 32;
/// How many models' versions are asked for at once, how long their names may be in a request line, and how many an answer holds.
const BATCH: usize = 100;
const BATCH_LINE: usize = 3000;
const PAGE: u32 = 1000;
const GET: &[&str] = &["api/2.0/mlflow/model-versions/get"];
const SEARCH: &[&str] = &["api/2.0/mlflow/model-versions/search"];

/// The URI of a version's files, or why there is none.
type Resolved = Result<String, String>;

/// The newest few of each model in a page that lists the highest numbers first: where the page has a next one, a model with
/// fewer than that may have more.
fn newest_of_each(page: wire::VersionPage, count: usize) -> BTreeMap<String, Vec<ListedVersion>> {
    let is_all = page.next_page_token.is_none_or(|token| token.is_empty());
    let mut models: BTreeMap<String, Vec<(u64, ListedVersion)>> = BTreeMap::new();
    for version in page.model_versions {
        if let (Some(model), Some(listed)) = (version.name.clone(), listed(version)) {
            models.entry(model).or_default().push(listed);
        }
    }
    models.retain(|_, versions| is_all || versions.len() >= count);
    let newest = |mut versions: Vec<(u64, ListedVersion)>| {
        versions.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        versions
            .into_iter()
            .map(|(_, version)| version)
            .take(count)
            .collect()
    };
    models
        .into_iter()
        .map(|(model, versions)| (model, newest(versions)))
        .collect()
}

/// A version as a listing brought it; to be described where nothing is known of it yet.
#[derive(Clone, Debug)]
pub struct ListedVersion {
    /// Its number.
    pub version: String,
    found: wire::ModelVersion,
}

fn listed(found: wire::ModelVersion) -> Option<(u64, ListedVersion)> {
    let version = found.version.as_ref()?.0.clone();
    Some((version_number(&version)?, ListedVersion { version, found }))
}

impl Registry {
    /// A version with all that is known of it, but its size, which [`Registry::version_size`] reads. `None`: the registry says plainly that there is none. Where the source
    /// leads nowhere, `problem` says why, and the artifact URI is absent.
    ///
    /// # Errors
    /// Where the registry cannot be asked, refuses, or answers what cannot be used. A detail that is missing or
    /// refused is left out.
    pub async fn get_version(
        &self,
        model: &str,
        version: &str,
    ) -> Result<Option<api::ModelVersion>, RegistryError> {
        match self.find_version(model, version).await? {
            Some(found) => self.describe(model, version, found).await.map(Some),
            None => Ok(None),
        }
    }

    /// A version as the registry has it.
    async fn find_version(
        &self,
        model: &str,
        version: &str,
    ) -> Result<Option<wire::ModelVersion>, RegistryError> {
        let Some(number) = version_number(version) else {
            return Ok(None);
        };
        let answer: wire::VersionAnswer = match self
            .ask_json(&Ask::get(GET, &[("name", model), ("version", version)]))
            .await
        {
            Err(error) if error.is_not_found() => return Ok(None),
            outcome => outcome?,
        };
        let found = answer.model_version.unwrap_or_default();
        let same = found.name.as_deref() == Some(model)
            && found
                .version
                .as_ref()
                .and_then(|word| version_number(&word.0))
                == Some(number);
        if !same {
            return Err(RegistryError::invalid(
                &self.place(GET),
                "another version than the one that was asked for",
            ));
        }
        Ok(Some(found))
    }

    async fn describe(
        &self,
        model: &str,
        version: &str,
        found: wire::ModelVersion,
    ) -> Result<api::ModelVersion, RegistryError> {
        let source = found.source.clone().unwrap_or_default();
        let run = self.run_of(&found, &source).await?;
        let resolved = match registration_problem(&found) {
            Some(problem) => Err(self.clean(&problem)),
            None => self.resolve(model, version, &source).await?,
        };
        let described = api::ModelVersion {
            version: version.to_owned(),
            run_id: found.run_id.filter(|id| source::is_id(id)),
            created_at: wire::moment(found.creation_timestamp).map(Time),
            created_by: found
                .user_id
                .map(|user| self.clean(&user))
                .filter(|user| !user.is_empty()),
            source: Some(visible_source(&source)).filter(|source| !source.is_empty()),
            problem: resolved.as_ref().err().cloned(),
            artifact_uri: resolved.ok(),
            ..api::ModelVersion::default()
        };
        Ok(run.unwrap_or_default().describe(described))
    }

    /// A version that a listing brought, with all that is known of it, as [`Registry::get_version`] answers it.
    ///
    /// # Errors
    /// As [`Registry::get_version`].
    pub async fn describe_listed(
        &self,
        model: &str,
        listed: ListedVersion,
    ) -> Result<api::ModelVersion, RegistryError> {
        self.describe(model, &listed.version, listed.found).await
    }

    /// A model's newest versions, newest first.
    ///
    /// # Errors
    /// Where the registry cannot be asked, refuses, or answers what cannot be used.
    pub async fn newest_versions(
        &self,
        model: &str,
        count: u32,
    ) -> Result<Vec<ListedVersion>, RegistryError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let page = match self.search_versions(&filter::name_in([model]), count).await {
            Err(error) if error.code() == Some("INVALID_PARAMETER_VALUE") => {
                // A name that no filter can hold: its newest version is asked for by number.
                let Some(equals) = filter::name_equals(model) else {
                    return self.newest_version(model).await;
                };
                self.search_versions(&equals, count).await?
            }
            outcome => outcome?,
        };
        let named = page
            .model_versions
            .into_iter()
            .filter(|version| version.name.as_deref() == Some(model));
        let mut versions: Vec<(u64, ListedVersion)> = named.filter_map(listed).collect();
        versions.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        versions.dedup_by_key(|(number, _)| *number);
        Ok(versions
            .into_iter()
            .map(|(_, version)| version)
            .take(count as usize)
            .collect())
    }

    /// The newest versions of many models, with one request for up to 100 of them; only of those models whose newest `count`
    /// are surely in the answer. Servers older than MLflow 3 refuse.
    ///
    /// # Errors
    /// Where the registry cannot be asked, refuses, or answers what cannot be used.
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
        let Some(number) = self
            .get_model(model)
            .await?
            .and_then(|facts| facts.latest_version)
        else {
            return Ok(Vec::new());
        };
        let found = self.find_version(model, &number).await?;
        Ok(found
            .and_then(listed)
            .map(|(_, version)| version)
            .into_iter()
            .collect())
    }

    async fn search_versions(
        &self,
        filter: &str,
        count: u32,
    ) -> Result<wire::VersionPage, RegistryError> {
        let count = count.to_string();
        let query = [
            ("filter", filter),
            ("max_results", count.as_str()),
            ("order_by", "version_number DESC"),
        ];
        self.ask_json(&Ask::get(SEARCH, &query).limit(super::client::PAGE_ANSWER))
            .await
    }

    /// The source, followed to files. What the registry resolves may be a run's path once more, and no more than that.
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
        let answered = match parsed {
            Source::Uri(uri) => return Ok(Ok(uri.to_owned())),
            Source::Run { run_id, path } => return self.resolve_run(run_id, path).await,
            Source::Registry => self.download_uri(model, version).await?,
        };
        match answered.as_deref().map(source::parse) {
            Ok(Ok(Source::Run { run_id, path })) => self.resolve_run(run_id, path).await,
            Ok(Ok(Source::Uri(uri))) => Ok(source::check_artifact_uri(uri)),
            Ok(Ok(Source::Registry)) => Ok(Err("the version was registered from another version that leads to no files; register it again from a run or a URI".to_owned())),
            Ok(Err(problem)) => Ok(Err(problem)),
            Err(problem) => Ok(Err(problem.clone())),
        }
    }

    async fn download_uri(&self, model: &str, version: &str) -> Result<Resolved, RegistryError> {
        let path = ["api/2.0/mlflow/model-versions/get-download-uri"];
        match self
            .ask_json::<wire::DownloadUri>(&Ask::get(
                &path,
                &[("name", model), ("version", version)],
            ))
            .await
        {
            Ok(answer) => Ok(Ok(answer.artifact_uri.unwrap_or_default())),
            Err(error) if says_no(&error) => Ok(Err(format!(
                "the version's source cannot be resolved: {error}"
            ))),
            Err(error) => Err(error),
        }
    }

    /// The files of `runs:/<run>/<path>`: in MLflow 3 those of the logged model of that name, in MLflow 2 the run's own.
    async fn resolve_run(&self, run_id: &str, path: &str) -> Result<Resolved, RegistryError> {
        let run = match self.run(run_id).await {
            Ok(run) => run,
            Err(error) if says_no(&error) => {
                return Ok(Err(format!(
                    "the run that the version was registered from cannot be read: {error}"
                )));
            }
            Err(error) => return Err(error),
        };
        for id in run.logged_models().take(MOST_LOGGED_MODELS) {
            if let Some(uri) = self.logged_model_uri(id, path).await? {
                return Ok(source::check_artifact_uri(&uri));
            }
        }
        let root = run.artifact_root().unwrap_or_default();
        Ok(source::check_artifact_uri(root)
            .and_then(|root| source::check_artifact_uri(&source::below(&root, path))))
    }

    async fn logged_model_uri(
        &self,
        id: &str,
        name: &str,
    ) -> Result<Option<String>, RegistryError> {
        match self.logged_model(id).await {
            Ok(model) => Ok(model
                .info
                .artifact_uri
                .filter(|_| model.info.name.as_deref() == Some(name))),
            Err(error) if says_no(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The run that logged the version; `None` where there is none, or none that may be read.
    async fn run_of(
        &self,
        found: &wire::ModelVersion,
        source: &str,
    ) -> Result<Option<Run>, RegistryError> {
        let named = found.run_id.clone().filter(|id| source::is_id(id));
        let run_id = match (named, source::logged_model(source)) {
            (Some(id), _) => Some(id),
            (None, Some(id)) => optional(self.logged_model(id).await)?
                .and_then(|model| model.info.source_run_id)
                .filter(|id| source::is_id(id)),
            (None, None) => None,
        };
        match run_id {
            Some(id) => optional(self.run(&id).await),
            None => Ok(None),
        }
    }

    pub(super) async fn run(&self, run_id: &str) -> Result<Run, RegistryError> {
        let answer: wire::RunAnswer = self
            .ask_json(
                &Ask::get(&["api/2.0/mlflow/runs/get"], &[("run_id", run_id)])
                    .limit(super::client::PAGE_ANSWER),
            )
            .await?;
        Ok(Run(answer.run.unwrap_or_default()))
    }

    async fn logged_model(&self, id: &str) -> Result<wire::LoggedModel, RegistryError> {
        let answer: wire::LoggedModelAnswer = self
            .ask_json(&Ask::get(&["api/2.0/mlflow/logged-models", id], &[]))
            .await?;
        Ok(answer.model.unwrap_or_default())
    }
}

/// A detail: a server that is away or ill fails the whole, so that it is asked again; all else leaves the detail out.
fn optional<T>(outcome: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(RegistryError::Unwell { status: 500, .. }) => Ok(None),
        Err(error) if error.reason() == api::Reason::RegistryUnreachable => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether the registry answered that this cannot be had, so that asking again will not help.
fn says_no(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Refused { .. }
            | RegistryError::Forbidden { .. }
            | RegistryError::NotMlflow {
                status: 404 | 405,
                ..
            }
    )
}

/// Why a version cannot be used that MLflow itself calls unfinished.
fn registration_problem(found: &wire::ModelVersion) -> Option<String> {
    let why = found.status_message.as_deref().unwrap_or_default();
    match found.status.as_deref() {
        Some("FAILED_REGISTRATION") => Some(format!(
            "MLflow says that the version's registration failed: {why}"
        )),
        Some("PENDING_REGISTRATION") => {
            Some("MLflow says that the version's registration is not finished".to_owned())
        }
        _ => None,
    }
}

/// The source as it may be shown: without control characters, and not at all where it holds a password.
fn visible_source(source: &str) -> String {
    let shown: String = source
        .chars()
        .filter(|c| !c.is_control())
        .take(4096)
        .collect();
    if source::has_password(&shown) {
        String::new()
    } else {
        shown
    }
}
