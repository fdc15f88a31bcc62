//! Tags of model versions: read in batches, written one at a time, because MLflow has no other
//! request for that.
//!
//! Absent: the meaning of the tags.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::de::IgnoredAny;
use serde_json::json;

use super::client::Client;
use super::details::visible;
use super::filter;
use super::request::Request;
use super::wire;
use crate::api::registered_model::is_model_name;
use crate::registries::error::RegistryError;

/// The most models in one search, the most bytes that their names take in the request line, and the
/// most versions in a response.
const BATCH: usize = 100;
const BATCH_LINE: usize = 3000;
const PAGE: usize = wire::PAGE;
/// The most tags that are kept for each model.
const KEPT: usize = 1000;

/// The tags of versions, by model and version.
pub type VersionTags = BTreeMap<(String, String), BTreeMap<String, String>>;

/// Reads and writes the tags of versions.
#[derive(Clone, Copy, Debug)]
pub struct VersionTagsClient<'a> {
    client: &'a Client,
}

impl Client {
    /// The tags of versions.
    pub fn version_tags(&self) -> VersionTagsClient<'_> {
        VersionTagsClient { client: self }
    }
}

impl VersionTagsClient<'_> {
    /// Those tags of the newest versions of some models whose keys are wanted, with one request for
    /// up to 100 models.
    ///
    /// # Errors
    /// If the registry cannot be reached, refuses, or sends a response that cannot be used. MLflow
    /// servers before 3.0 refuse.
    pub async fn read(
        &self,
        models: &[&str],
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<VersionTags, RegistryError> {
        let mut tags = VersionTags::new();
        let names = models.iter().copied().filter(|name| is_model_name(name));
        for batch in filter::batches(names, BATCH, BATCH_LINE) {
            let most = batch.len() * KEPT;
            let filter = filter::name_in(batch);
            let page = self.client.search_versions(&filter, PAGE).await?;
            let versions = page.model_versions.into_iter();
            let all = versions.flat_map(tags_of);
            for (version, key, value) in all.filter(|(_, key, _)| is_wanted(key)).take(most) {
                tags.entry(version).or_default().insert(key, value);
            }
        }
        Ok(tags)
    }

    /// All tags of one version that may be shown; `None` if the registry says that there is no such version.
    ///
    /// # Errors
    /// If the registry cannot be reached, refuses, or sends a response that cannot be used.
    pub async fn read_one(
        &self,
        model: &str,
        version: &str,
    ) -> Result<Option<BTreeMap<String, String>>, RegistryError> {
        let found = self.client.find_version(model, version).await?;
        Ok(found.map(|found| visible(found.tags)))
    }

    /// Sets a tag of a version.
    ///
    /// # Errors
    /// If the registry cannot be reached, or refuses.
    pub async fn set(
        &self,
        model: &str,
        version: &str,
        key: &str,
        value: &str,
    ) -> Result<(), RegistryError> {
        let body = json!({"name": model, "version": version, "key": key, "value": value});
        let path = ["api/2.0/mlflow/model-versions/set-tag"];
        let request = Request::change(Method::POST, &path, body);
        self.client.send_json::<IgnoredAny>(&request).await?;
        Ok(())
    }

    /// Deletes a tag of a version. Deleting one that does not exist succeeds.
    ///
    /// # Errors
    /// If the registry cannot be reached, or refuses.
    pub async fn delete(&self, model: &str, version: &str, key: &str) -> Result<(), RegistryError> {
        let body = json!({"name": model, "version": version, "key": key});
        let path = ["api/2.0/mlflow/model-versions/delete-tag"];
        let request = Request::change(Method::DELETE, &path, body);
        match self.client.send_json::<IgnoredAny>(&request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The tags of a version, each with model and number of the version.
fn tags_of(version: wire::VersionInfo) -> Vec<((String, String), String, String)> {
    let (Some(model), Some(number)) = (version.name, version.version) else {
        return Vec::new();
    };
    let mut tags = Vec::new();
    for tag in version.tags {
        if let Some(key) = tag.key {
            let id = (model.clone(), number.0.clone());
            tags.push((id, key, tag.value.unwrap_or_default()));
        }
    }
    tags
}
