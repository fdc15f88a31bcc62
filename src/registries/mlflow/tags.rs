//! Tags of model versions: read in batches, written one by one, for MLflow knows no other way.
//!
//! Absent: what they mean.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;

use super::client::{Ask, PAGE_ANSWER, Registry};
use super::error::RegistryError;
use super::filter;
use super::wire;

/// How many models' versions are asked for at once.
const BATCH: usize = 100;
/// How many versions an answer holds at most.
const PAGE: &str = "1000";

/// The tags of versions, by model and version.
pub type VersionTags = BTreeMap<(String, String), BTreeMap<String, String>>;

impl Registry {
    /// The tags of the newest versions of some models, with one request for up to 100 models.
    ///
    /// # Errors
    /// Where the registry cannot be asked, refuses, or answers what cannot be used. Servers older than MLflow 3 refuse.
    pub async fn version_tags(&self, models: &[&str]) -> Result<VersionTags, RegistryError> {
        let mut tags = VersionTags::new();
        for batch in filter::batches(models.iter().copied(), BATCH, 3000) {
            let names = filter::name_in(batch);
            let query = [
                ("filter", names.as_str()),
                ("max_results", PAGE),
                ("order_by", "version_number DESC"),
            ];
            let page: wire::VersionPage = self
                .ask_json(
                    &Ask::get(&["api/2.0/mlflow/model-versions/search"], &query).limit(PAGE_ANSWER),
                )
                .await?;
            tags.extend(page.model_versions.into_iter().filter_map(read));
        }
        Ok(tags)
    }

    /// Writes a tag of a version.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn set_version_tag(
        &self,
        model: &str,
        version: &str,
        key: &str,
        value: &str,
    ) -> Result<(), RegistryError> {
        let body = json!({"name": model, "version": version, "key": key, "value": value});
        let path = ["api/2.0/mlflow/model-versions/set-tag"];
        self.ask_json::<serde_json::Value>(&Ask::change(Method::POST, &path, body))
            .await
            .map(drop)
    }

    /// Deletes a tag of a version; deleting one that does not exist is well.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn delete_version_tag(
        &self,
        model: &str,
        version: &str,
        key: &str,
    ) -> Result<(), RegistryError> {
        let body = json!({"name": model, "version": version, "key": key});
        let path = ["api/2.0/mlflow/model-versions/delete-tag"];
        match self
            .ask_json::<serde_json::Value>(&Ask::change(Method::DELETE, &path, body))
            .await
        {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

fn read(version: wire::ModelVersion) -> Option<((String, String), BTreeMap<String, String>)> {
    let tags = version
        .tags
        .into_iter()
        .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())));
    Some(((version.name?, version.version?.0), tags.collect()))
}
