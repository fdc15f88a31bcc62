//! Registered models: read in bulk and one by one, created, changed and deleted.
//!
//! Absent: the conclusion that a model that a search does not return is gone. The caller confirms
//! with `model`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde::de::IgnoredAny;
use serde_json::json;

use super::client::Client;
use super::filter;
use super::request::{PAGE_RESPONSE, Request};
use super::search::{BATCH, MOST_PAGES, Pages, SearchStrategy};
use super::wire::{self, version_number};
use crate::api::registered_model::is_model_name;
use crate::registries::error::RegistryError;
use crate::registries::snapshot::ModelSnapshot;

const SEARCH: &[&str] = &["api/2.0/mlflow/registered-models/search"];
/// The bytes of a request line beside the names.
const LINE_OVERHEAD: usize = 150;
/// The longest name of an alias or a stage that is kept, in characters.
const LONGEST_NAME: usize = 255;
/// The most bytes of a model's aliases, and those of its tags that are kept.
const MOST_BYTES: usize = 64 << 10;

impl Client {
    /// Passes the snapshots of many models on, each when its page is read.
    pub async fn for_each_snapshot(
        &self,
        names: &BTreeSet<String>,
        mut visit: impl FnMut(ModelSnapshot),
    ) -> Result<(), RegistryError> {
        let (mut strategy, mut is_lasting) = (self.search_strategy(), true);
        let mut slowest = Duration::ZERO;
        let mut visit_named = |model: ModelSnapshot| {
            if names.contains(&model.name) {
                visit(model);
            }
        };
        loop {
            match self
                .search_with(&mut strategy, names, &mut slowest, &mut visit_named)
                .await
            {
                Ok(()) => {
                    if is_lasting {
                        self.set_search_strategy(strategy.after_success(slowest));
                    }
                    return Ok(());
                }
                Err(error @ RegistryError::TimedOut { .. }) => {
                    self.set_search_strategy(strategy.after_timeout());
                    return Err(error);
                }
                Err(error) => {
                    // Whether there is room depends on other servers.
                    is_lasting &= !matches!(error, RegistryError::NoRoom { .. });
                    strategy = strategy.after(&error).ok_or(error)?;
                }
            }
        }
    }

    /// Lists all models if that takes fewer requests than asking by name; else asks by name.
    async fn search_with(
        &self,
        strategy: &mut SearchStrategy,
        names: &BTreeSet<String>,
        slowest: &mut Duration,
        visit: &mut impl FnMut(ModelSnapshot),
    ) -> Result<(), RegistryError> {
        let line = strategy
            .line
            .saturating_sub(LINE_OVERHEAD + self.base_length());
        // A name that no registry can have may fail the request for all names beside it.
        let names = names.iter().map(String::as_str);
        let names = names.filter(|name| is_model_name(name));
        let (short, long): (Vec<&str>, Vec<&str>) = names
            .clone()
            .partition(|name| filter::url_cost(name) <= line);
        let (batches, single) = if strategy.refuses_in {
            (Vec::new(), names.collect())
        } else {
            (filter::batches(short, BATCH, line), long)
        };
        let requests = batches.len() + single.len();
        if strategy.pages < requests
            && self
                .list_all(strategy, requests.min(MOST_PAGES), slowest, visit)
                .await?
        {
            return Ok(());
        }
        for batch in batches {
            // A server that filters by permission may send pages that are not full.
            let most = 2 + 2 * batch.len() / strategy.page();
            let filter = filter::name_in(batch.iter().copied());
            let mut pages = Pages::new(&filter, strategy.page(), most);
            let mut missing: BTreeSet<&str> = batch.into_iter().collect();
            while !pages.ended && !missing.is_empty() {
                for model in self.next_page(&mut pages, slowest).await? {
                    missing.remove(model.name.as_str());
                    visit(model);
                }
            }
        }
        for name in single {
            match self.model(name).await {
                Ok(model) => model.into_iter().for_each(&mut *visit),
                // One that may not be read fails none of the others: its own reconcile reports it.
                Err(RegistryError::Refused { .. } | RegistryError::Forbidden { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the whole list. Returns false if it has more than `most` pages.
    async fn list_all(
        &self,
        strategy: &mut SearchStrategy,
        most: usize,
        slowest: &mut Duration,
        visit: &mut impl FnMut(ModelSnapshot),
    ) -> Result<bool, RegistryError> {
        let mut pages = Pages::new("", strategy.page(), MOST_PAGES);
        while pages.taken < most {
            for model in self.next_page(&mut pages, slowest).await? {
                visit(model);
            }
            if pages.ended {
                strategy.pages = pages.taken;
                return Ok(true);
            }
        }
        strategy.pages = most + 1;
        if most < MOST_PAGES {
            return Ok(false);
        }
        Err(RegistryError::invalid(
            &self.address(SEARCH),
            "a list of models without an end",
        ))
    }

    /// The next page. `slowest` is the longest time that one took.
    async fn next_page(
        &self,
        pages: &mut Pages<'_>,
        slowest: &mut Duration,
    ) -> Result<Vec<ModelSnapshot>, RegistryError> {
        let asked = Instant::now();
        let (token, size) = (pages.token.clone(), pages.size.to_string());
        let mut query = vec![("max_results", size.as_str())];
        if !pages.filter.is_empty() {
            query.push(("filter", pages.filter));
        }
        if !token.is_empty() {
            query.push(("page_token", token.as_str()));
        }
        let request = Request::get(SEARCH, &query).limit(PAGE_RESPONSE);
        let page: wire::ModelPage = match self.send_json(&request).await {
            // On Python 3.11 a thread of MLflow's that fails makes another one misparse a filter
            // (cpython #106905). Without a retry one such page of ten would be reported as an
            // outage of the registry.
            Err(RegistryError::ServerError { status: 500, .. }) => self.send_json(&request).await?,
            outcome => outcome?,
        };
        *slowest = asked.elapsed().max(*slowest);
        pages
            .advance(&page)
            .map_err(|fault| RegistryError::invalid(&self.address(SEARCH), fault))?;
        let models = page.registered_models.into_iter();
        // The own reconcile of a model that is left out requests it, and reports why.
        Ok(models
            .filter_map(|model| read_snapshot(model).ok())
            .collect())
    }

    /// One model. `None` if the registry says that there is none.
    pub async fn model(&self, name: &str) -> Result<Option<ModelSnapshot>, RegistryError> {
        let path = ["api/2.0/mlflow/registered-models/get"];
        let query = [("name", name)];
        let response: wire::ModelResponse = match self.send_json(&Request::get(&path, &query)).await
        {
            Err(error) if error.is_not_found() => return Ok(None),
            outcome => outcome?,
        };
        match read_snapshot(response.registered_model.unwrap_or_default()) {
            Ok(model) if model.name == name => Ok(Some(model)),
            Err(Unreadable::Overfull) => Err(RegistryError::TooLarge {
                at: self.address(&path),
                limit: wire::NESTED,
                unit: "aliases, tags or stages",
            }),
            _ => Err(RegistryError::invalid(
                &self.address(&path),
                "another model than the requested one",
            )),
        }
    }

    /// Creates a registered model, and returns it. `None` if it exists already; then it is left as
    /// it is.
    pub async fn create_model(
        &self,
        name: &str,
        description: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Result<Option<ModelSnapshot>, RegistryError> {
        let tags: Vec<_> = tags
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        let mut body = json!({"name": name, "tags": tags});
        if let Some(description) = description {
            body["description"] = description.into();
        }
        let path = ["api/2.0/mlflow/registered-models/create"];
        let request = Request::change(Method::POST, &path, body);
        let response: wire::ModelResponse = match self.send_json(&request).await {
            Err(error) if error.code() == Some("RESOURCE_ALREADY_EXISTS") => return Ok(None),
            outcome => outcome?,
        };
        match read_snapshot(response.registered_model.unwrap_or_default()) {
            Ok(model) if model.name == name => Ok(Some(model)),
            _ => Err(RegistryError::invalid(
                &self.address(&path),
                "another model than the created one",
            )),
        }
    }

    /// Sets a model's description.
    pub async fn set_description(&self, name: &str, text: &str) -> Result<(), RegistryError> {
        let body = json!({"name": name, "description": text});
        self.change(Method::PATCH, "update", body).await
    }

    /// Sets a tag of a model.
    pub async fn set_tag(&self, name: &str, key: &str, value: &str) -> Result<(), RegistryError> {
        let body = json!({"name": name, "key": key, "value": value});
        self.change(Method::POST, "set-tag", body).await
    }

    /// Points an alias at a version.
    pub async fn set_alias(
        &self,
        name: &str,
        alias: &str,
        version: &str,
    ) -> Result<(), RegistryError> {
        let body = json!({"name": name, "alias": alias, "version": version});
        self.change(Method::POST, "alias", body).await
    }

    /// Deletes a model with all its versions. Deleting one that does not exist succeeds.
    pub async fn delete_model(&self, name: &str) -> Result<(), RegistryError> {
        let body = json!({"name": name});
        match self.change(Method::DELETE, "delete", body).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    async fn change(
        &self,
        method: Method,
        verb: &str,
        body: serde_json::Value,
    ) -> Result<(), RegistryError> {
        let path = ["api/2.0/mlflow/registered-models", verb];
        let request = Request::change(method, &path, body);
        self.send_json::<IgnoredAny>(&request).await?;
        Ok(())
    }
}

/// Why a model cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// It has no name.
    Nameless,
    /// It has more aliases, tags or stages than are read.
    Overfull,
}

/// The well-formed parts of a model, of bounded size.
pub(super) fn read_snapshot(model: wire::RegisteredModel) -> Result<ModelSnapshot, Unreadable> {
    let name = match model.name {
        Some(name) if !name.is_empty() => name,
        _ => return Err(Unreadable::Nameless),
    };
    if model.aliases.is_cut || model.tags.is_cut || model.latest_versions.is_cut {
        return Err(Unreadable::Overfull);
    }
    let aliases: BTreeMap<_, _> = model.aliases.into_iter().filter_map(read_alias).collect();
    let lengths = aliases
        .iter()
        .map(|(name, version)| name.len() + version.len());
    if lengths.sum::<usize>() > MOST_BYTES {
        return Err(Unreadable::Overfull);
    }
    let (mut tags, mut bytes) = (BTreeMap::new(), 0);
    for tag in model.tags {
        let (Some(key), value) = (tag.key, tag.value.unwrap_or_default()) else {
            continue;
        };
        bytes += key.len() + value.len();
        if bytes <= MOST_BYTES {
            tags.insert(key, value);
        }
    }
    Ok(ModelSnapshot {
        name,
        created_at: wire::timestamp(model.creation_timestamp),
        description: model.description.unwrap_or_default(),
        tags,
        aliases,
        stages: newest_in_stages(&model.latest_versions),
        latest_version: newest(model.latest_versions.iter()),
    })
}

/// The number of the newest version.
fn newest<'a>(versions: impl Iterator<Item = &'a wire::VersionInfo>) -> Option<String> {
    let numbers = versions.filter_map(|version| {
        let word = &version.version.as_ref()?.0;
        Some((version_number(word)?, word))
    });
    let (_, newest) = numbers.max()?;
    Some(newest.clone())
}

/// The newest version in each stage.
fn newest_in_stages(versions: &[wire::VersionInfo]) -> BTreeMap<String, String> {
    let mut stages = BTreeMap::new();
    for version in versions {
        let stage = version.current_stage.as_deref().unwrap_or_default();
        if stage.is_empty() || stage == "None" || stage.len() > LONGEST_NAME {
            continue;
        }
        let is_in_stage =
            |other: &&wire::VersionInfo| other.current_stage.as_deref() == Some(stage);
        if let Some(number) = newest(versions.iter().filter(is_in_stage)) {
            stages.insert(stage.to_owned(), number);
        }
    }
    stages
}

/// An alias and its version; `None` if MLflow would not allow one of them.
fn read_alias(alias: wire::Alias) -> Option<(String, String)> {
    let name = alias.alias?;
    let version = alias.version?.0;
    let is_name = !name.is_empty()
        && name.chars().count() <= LONGEST_NAME
        && !name.chars().any(char::is_control);
    if !is_name {
        return None;
    }
    version_number(&version)?;
    Some((name, version))
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
