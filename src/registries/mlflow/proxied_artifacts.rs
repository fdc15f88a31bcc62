//! Checks whether the files that the MLflow server hands out (`mlflow-artifacts:`) can be read now.
//!
//! Absent: the files. Their first bytes are read and dropped.

use std::time::Duration;

use super::client::Client;
use super::details::is_plain_name;
use super::request::Request;
use super::wire;
use crate::api::Availability;
use crate::http::uri::brief;
use crate::registries::error::RegistryError;

/// The number of bytes of a file that are read.
const FIRST_BYTES: usize = 16;
/// The timeout for each request: the server may have to ask a slow store.
const TIMEOUT: Duration = Duration::from_secs(8);
/// The most folders that are listed in search of a file.
const MOST_FOLDERS: usize = 4;
/// The file that MLflow writes into each model's folder.
const MODEL_FILE: &str = "MLmodel";
const ROUTE: &str = "api/2.0/mlflow-artifacts/artifacts";

/// The entry of a folder to look at next.
enum ListedEntry {
    File(String),
    Folder(String),
    None,
}

impl Client {
    /// Whether the files at the path of an `mlflow-artifacts:` URI can be read now. `host` is the
    /// host in the URI, if any.
    pub async fn check_proxied_artifact(&self, host: Option<&str>, path: &str) -> Availability {
        let elsewhere = host.filter(|host| !self.is_at(host));
        match (self.has_readable_file(path).await, elsewhere) {
            (Ok(true), _) => Availability::Readable,
            (Ok(false) | Err(_), Some(host)) => Availability::Unchecked(format!(
                "mlflow-artifacts://{}/{} names another host than spec.mlflow.uri, where it was not found; Pointsman asks no other MLflow server",
                brief(host),
                brief(path)
            )),
            (Ok(false), None) => Availability::Missing(format!(
                "the MLflow server has no files at mlflow-artifacts:/{}; restore them, or register the version again",
                brief(path)
            )),
            (Err(error), None) => availability_after(&error),
        }
    }

    /// Whether the server returns the first bytes of a file below `path`. One request reads the
    /// file MLmodel, which every model has; only if it is missing are folders listed for another
    /// file.
    ///
    /// # Errors
    /// If the server cannot be reached, refuses, or cannot return a file that it lists.
    async fn has_readable_file(&self, path: &str) -> Result<bool, RegistryError> {
        let mut folder = path.trim_matches('/').to_owned();
        if folder
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return Ok(false);
        }
        if self.is_file(&format!("{folder}/{MODEL_FILE}")).await? {
            return Ok(true);
        }
        for depth in 0..MOST_FOLDERS {
            match self.first_entry(&folder).await? {
                ListedEntry::File(name) => {
                    return self.has_bytes(&format!("{folder}/{name}")).await;
                }
                ListedEntry::Folder(name) => folder = format!("{folder}/{name}"),
                ListedEntry::None if depth == 0 => return self.is_file(&folder).await,
                ListedEntry::None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The entries of a folder, one level.
    pub(super) async fn list_artifacts(
        &self,
        folder: &str,
        timeout: Duration,
    ) -> Result<wire::Listing, RegistryError> {
        let query = [("path", folder)];
        let request = Request::get(&[ROUTE], &query).timeout(timeout);
        self.send_json(&request).await
    }

    async fn first_entry(&self, folder: &str) -> Result<ListedEntry, RegistryError> {
        match self.list_artifacts(folder, TIMEOUT).await {
            Ok(listing) => Ok(first_entry(listing)),
            Err(error) if error.is_not_found() => Ok(ListedEntry::None),
            Err(error) => Err(error),
        }
    }

    async fn has_bytes(&self, file: &str) -> Result<bool, RegistryError> {
        let path = [ROUTE, file];
        let request = Request::get(&path, &[])
            .first_bytes(FIRST_BYTES)
            .timeout(TIMEOUT);
        match self.send(&request).await {
            // A sign-in page is no file, even with status 200.
            Ok(response) if response.is_html => Err(response.wrong_server("an HTML page")),
            Ok(response) => Ok(!response.body.is_empty()),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the path is a file with content. A folder is a 400 here; with S3 behind the server,
    /// a missing path is a 500.
    async fn is_file(&self, path: &str) -> Result<bool, RegistryError> {
        match self.has_bytes(path).await {
            Err(
                RegistryError::ServerError { status: 500, .. }
                | RegistryError::Refused { status: 400, .. },
            ) => Ok(false),
            outcome => outcome,
        }
    }
}

/// MLmodel, else the first file that is not empty, else the first folder. Entries whose names are
/// paths are skipped.
fn first_entry(listing: wire::Listing) -> ListedEntry {
    let (mut file, mut folder) = (None, None);
    for entry in listing.files {
        let is_empty = entry.file_size.is_some_and(|size| size.0 == 0);
        match entry.path.filter(|name| is_plain_name(name)) {
            Some(name) if entry.is_dir => folder = folder.or(Some(name)),
            Some(name) if name == MODEL_FILE => return ListedEntry::File(name),
            Some(name) if !is_empty => file = file.or(Some(name)),
            _ => {}
        }
    }
    match (file, folder) {
        (Some(file), _) => ListedEntry::File(file),
        (None, Some(folder)) => ListedEntry::Folder(folder),
        (None, None) => ListedEntry::None,
    }
}

/// The availability of an artifact after an error of the registry.
fn availability_after(error: &RegistryError) -> Availability {
    match error {
        RegistryError::Forbidden { .. }
        | RegistryError::Unauthenticated { .. }
        | RegistryError::HostRefused { .. }
        | RegistryError::Redirected { .. }
        | RegistryError::Configuration { .. } => Availability::Unchecked(error.to_string()),
        _ => Availability::Unknown(error.to_string()),
    }
}

#[cfg(test)]
#[path = "proxied_artifacts_tests.rs"]
mod tests;
