//! Registered models: looked at in bulk, asked for one by one, made, labelled and deleted.
//!
//! Absent: the belief that what a walk does not show is gone. The caller confirms with `get_model`.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, PAGE_ANSWER, Registry};
use super::error::RegistryError;
use super::filter;
use super::wire::{self, version_number};

const SEARCH: &[&str] = &["api/2.0/mlflow/registered-models/search"];
/// The names that one request asks for at most; MLflow answers with no more models than that.
const BATCH: usize = 1000;
/// Request lines that MLflow 3 takes (uvicorn: more than 90,000 bytes were accepted), and those that everything takes
/// (gunicorn: 4094).
const LONG_LINE: usize = 60_000;
const SHORT_LINE: usize = 4_000;
/// What a request line holds beside the names.
const LINE_OVERHEAD: usize = 150;
/// No walk takes more pages than this.
const MOST_PAGES: usize = 10_000;

/// What a registry says of a registered model.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ModelFacts {
    /// Its name.
    pub name: String,
    /// When it was made. A model that was deleted and made again has another time.
    pub created_at: Option<jiff::Timestamp>,
    /// Its description.
    pub description: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its aliases, each with the number of the version that it names.
    pub aliases: BTreeMap<String, String>,
    /// The stages in use, each with the number of the newest version in it. `None` is not a stage.
    pub stages: BTreeMap<String, String>,
    /// The number of the newest version.
    pub latest_version: Option<String>,
}

/// What was learnt of how a server can be searched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Habit {
    /// How long a request line may be.
    line: usize,
    /// Whether the server refuses `IN`.
    refuses_in: bool,
    /// How many models a page holds.
    page_size: usize,
    /// How many pages the whole list has, or more than which.
    pages: usize,
}

impl Default for Habit {
    fn default() -> Self {
        Self {
            line: LONG_LINE,
            refuses_in: false,
            page_size: BATCH,
            pages: 1,
        }
    }
}

impl Habit {
    /// How to ask after this error; `None` where another way of asking will not help.
    fn after(self, error: &RegistryError) -> Option<Self> {
        match error {
            RegistryError::TooLarge { .. } if self.page_size > 10 => Some(Self {
                page_size: self.page_size / 10,
                ..self
            }),
            _ if self.line > SHORT_LINE && is_about_length(error) => Some(Self {
                line: SHORT_LINE,
                ..self
            }),
            _ if !self.refuses_in && error.code() == Some("INVALID_PARAMETER_VALUE") => {
                Some(Self {
                    refuses_in: true,
                    ..self
                })
            }
            _ => None,
        }
    }
}

/// Whether a server may say this to a request line that is too long for it.
fn is_about_length(error: &RegistryError) -> bool {
    match error {
        RegistryError::Refused {
            status: 400 | 413 | 414 | 431,
            code,
            ..
        } => code.is_none(),
        RegistryError::Unreachable { connected, .. } => *connected,
        _ => false,
    }
}

type Facts = BTreeMap<String, ModelFacts>;

impl Registry {
    /// One look at many models, in as few requests as the server allows. A model that is missing from the answer may
    /// still exist: confirm with [`Registry::get_model`].
    ///
    /// # Errors
    /// Where the registry cannot be asked, or answers what cannot be used.
    pub async fn look(&self, names: &BTreeSet<String>) -> Result<Facts, RegistryError> {
        let mut facts = Facts::new();
        self.look_each(names, |model| _ = facts.insert(model.name.clone(), model))
            .await?;
        Ok(facts)
    }

    /// The same, with each model told as soon as its page is read, so that no more than a page is held at a time. Where the
    /// look has to be begun anew in another way, a model may be told twice; where it fails, some may have been told.
    ///
    /// # Errors
    /// As [`Registry::look`].
    pub async fn look_each(
        &self,
        names: &BTreeSet<String>,
        mut tell: impl FnMut(ModelFacts),
    ) -> Result<(), RegistryError> {
        let mut habit = self.habit();
        let mut told = |model: ModelFacts| {
            if names.contains(&model.name) {
                tell(model);
            }
        };
        loop {
            match self.look_as(&mut habit, names, &mut told).await {
                Ok(()) => {
                    self.remember(habit);
                    return Ok(());
                }
                Err(error) => habit = habit.after(&error).ok_or(error)?,
            }
        }
    }

    async fn look_as(
        &self,
        habit: &mut Habit,
        names: &BTreeSet<String>,
        tell: &mut impl FnMut(ModelFacts),
    ) -> Result<(), RegistryError> {
        let room = habit
            .line
            .saturating_sub(LINE_OVERHEAD + self.base_length());
        let (short, long): (Vec<&str>, Vec<&str>) = names
            .iter()
            .map(String::as_str)
            .partition(|name| filter::url_cost(name) <= room);
        let (batches, single) = if habit.refuses_in {
            (Vec::new(), names.iter().map(String::as_str).collect())
        } else {
            (filter::batches(short, BATCH, room), long)
        };
        let by_name = batches.len() + single.len();
        if habit.pages < by_name && self.walk(habit, by_name.min(MOST_PAGES), tell).await? {
            return Ok(());
        }
        for batch in batches {
            self.search(&filter::name_in(batch), habit.page_size, tell)
                .await?;
        }
        for name in single {
            self.get_model(name).await?.into_iter().for_each(&mut *tell);
        }
        Ok(())
    }

    /// The whole list; false where it has more pages than asking by name needs requests.
    async fn walk(
        &self,
        habit: &mut Habit,
        most: usize,
        tell: &mut impl FnMut(ModelFacts),
    ) -> Result<bool, RegistryError> {
        let mut pages = Pages::new("", habit.page_size);
        while pages.taken < most {
            self.page(&mut pages)
                .await?
                .into_iter()
                .for_each(&mut *tell);
            if pages.ended {
                habit.pages = pages.taken;
                return Ok(true);
            }
        }
        habit.pages = most + 1;
        if most < MOST_PAGES {
            Ok(false)
        } else {
            Err(RegistryError::invalid(
                &self.place(SEARCH),
                "a list of models without an end",
            ))
        }
    }

    async fn search(
        &self,
        filter: &str,
        page_size: usize,
        tell: &mut impl FnMut(ModelFacts),
    ) -> Result<(), RegistryError> {
        let mut pages = Pages::new(filter, page_size);
        while !pages.ended {
            self.page(&mut pages)
                .await?
                .into_iter()
                .for_each(&mut *tell);
        }
        Ok(())
    }

    async fn page(&self, pages: &mut Pages<'_>) -> Result<Vec<ModelFacts>, RegistryError> {
        let token = pages.token.clone().unwrap_or_default();
        let mut query = vec![("max_results", pages.size.as_str())];
        query.extend((!pages.filter.is_empty()).then_some(("filter", pages.filter)));
        query.extend((!token.is_empty()).then_some(("page_token", token.as_str())));
        let ask = Ask::get(SEARCH, &query).limit(PAGE_ANSWER);
        let page: wire::ModelPage = match self.ask_json(&ask).await {
            // One thread of MLflow's that fails makes another one misread a filter where Python is 3.11 (cpython #106905), and
            // for one page of ten all models would be told of an outage.
            Err(RegistryError::Unwell { status: 500, .. }) => self.ask_json(&ask).await?,
            outcome => outcome?,
        };
        pages
            .turn(&page)
            .map_err(|what| RegistryError::invalid(&self.place(SEARCH), what))?;
        Ok(page
            .registered_models
            .into_iter()
            .filter_map(read_facts)
            .collect())
    }

    /// One model, asked for directly. `None`: the registry says plainly that there is none.
    ///
    /// # Errors
    /// Where the registry cannot be asked, refuses, or answers what cannot be used.
    pub async fn get_model(&self, name: &str) -> Result<Option<ModelFacts>, RegistryError> {
        let path = ["api/2.0/mlflow/registered-models/get"];
        let answer: wire::ModelAnswer =
            match self.ask_json(&Ask::get(&path, &[("name", name)])).await {
                Err(error) if error.is_not_found() => return Ok(None),
                outcome => outcome?,
            };
        let model = answer
            .registered_model
            .and_then(read_facts)
            .filter(|model| model.name == name);
        model.map(Some).ok_or_else(|| {
            RegistryError::invalid(
                &self.place(&path),
                "another model than the one that was asked for",
            )
        })
    }

    /// Makes a registered model; one that exists already is left as it is.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn create_model(
        &self,
        name: &str,
        description: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), RegistryError> {
        let tags: Vec<_> = tags
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        let mut body = json!({"name": name, "tags": tags});
        if let Some(description) = description {
            body["description"] = description.into();
        }
        match self.change(Method::POST, "create", body).await {
            Err(error) if error.code() == Some("RESOURCE_ALREADY_EXISTS") => Ok(()),
            outcome => outcome,
        }
    }

    /// Writes a model's description.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn set_description(&self, name: &str, text: &str) -> Result<(), RegistryError> {
        self.change(
            Method::PATCH,
            "update",
            json!({"name": name, "description": text}),
        )
        .await
    }

    /// Writes a tag of a model.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn set_tag(&self, name: &str, key: &str, value: &str) -> Result<(), RegistryError> {
        self.change(
            Method::POST,
            "set-tag",
            json!({"name": name, "key": key, "value": value}),
        )
        .await
    }

    /// Points an alias at a version.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn set_alias(
        &self,
        name: &str,
        alias: &str,
        version: &str,
    ) -> Result<(), RegistryError> {
        self.change(
            Method::POST,
            "alias",
            json!({"name": name, "alias": alias, "version": version}),
        )
        .await
    }

    /// Deletes a model with all its versions; deleting one that does not exist is well.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn delete_model(&self, name: &str) -> Result<(), RegistryError> {
        match self
            .change(Method::DELETE, "delete", json!({"name": name}))
            .await
        {
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
        self.ask_json::<serde_json::Value>(&Ask::change(method, &path, body))
            .await
            .map(|_| ())
    }
}

/// Where a walk through pages stands. A server that would have us walk for ever is found out.
struct Pages<'a> {
    filter: &'a str,
    size: String,
    token: Option<String>,
    seen: BTreeSet<String>,
    taken: usize,
    ended: bool,
}

impl<'a> Pages<'a> {
    fn new(filter: &'a str, size: usize) -> Self {
        Self {
            filter,
            size: size.to_string(),
            token: None,
            seen: BTreeSet::new(),
            taken: 0,
            ended: false,
        }
    }

    /// Turns to the page that this one names.
    fn turn(&mut self, page: &wire::ModelPage) -> Result<(), &'static str> {
        self.taken += 1;
        let Some(token) = page
            .next_page_token
            .clone()
            .filter(|token| !token.is_empty())
        else {
            self.ended = true;
            return Ok(());
        };
        if page.registered_models.is_empty() {
            return Err("an empty page that names a next one");
        }
        if token.len() > 2048 || !self.seen.insert(token.clone()) || self.taken >= MOST_PAGES {
            return Err("pages that go in a circle");
        }
        self.token = Some(token);
        Ok(())
    }
}

/// The model with what is well-formed of it; `None` for one without a name.
fn read_facts(model: wire::RegisteredModel) -> Option<ModelFacts> {
    let newest = |versions: &mut dyn Iterator<Item = &wire::ModelVersion>| {
        versions
            .filter_map(|version| version.version.as_ref())
            .filter_map(|word| Some((version_number(&word.0)?, word.0.clone())))
            .max()
    };
    let stage_of = |version: &wire::ModelVersion| {
        version
            .current_stage
            .clone()
            .filter(|stage| !stage.is_empty() && stage != "None")
    };
    let named: BTreeSet<String> = model
        .latest_versions
        .iter()
        .filter_map(stage_of)
        .filter(|stage| stage.len() <= 255)
        .collect();
    let stages = named.into_iter().filter_map(|stage| {
        let mut within = model
            .latest_versions
            .iter()
            .filter(|version| version.current_stage.as_deref() == Some(&stage));
        newest(&mut within).map(|(_, version)| (stage, version))
    });
    Some(ModelFacts {
        name: model.name.filter(|name| !name.is_empty())?,
        created_at: wire::moment(model.creation_timestamp),
        description: model.description.unwrap_or_default(),
        tags: model
            .tags
            .into_iter()
            .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
            .collect(),
        stages: stages.collect(),
        latest_version: newest(&mut model.latest_versions.iter()).map(|(_, version)| version),
        aliases: model.aliases.into_iter().filter_map(read_alias).collect(),
    })
}

/// An alias and its version; `None` where either is not what MLflow allows.
fn read_alias(alias: wire::Alias) -> Option<(String, String)> {
    let name = alias.alias.filter(|name| {
        !name.is_empty() && name.chars().count() <= 255 && !name.chars().any(char::is_control)
    })?;
    let version = alias.version?.0;
    version_number(&version).map(|_| (name, version))
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
