//! Checks whether the files that the MLflow server hands out (`mlflow-artifacts:`) can be read now.
//!
//! Absent: the files. Their first bytes are read and dropped.

use std::time::Duration;

use super::client::Client;
use super::details::is_plain_name;
use super::request::Request;
use super::wire;
use crate::api::Availability;
use crate::api::model_file::{LONGEST_MODEL_FILE, MODEL_FILE, named_data};
use crate::http::uri::brief;
use crate::registries::error::RegistryError;

/// The number of bytes of a file that are read.
const FIRST_BYTES: usize = 16;
/// The timeout for each request: the server may have to ask a slow store.
const TIMEOUT: Duration = Duration::from_secs(8);
/// The most folders that are listed in search of a file.
const MOST_FOLDERS: usize = 4;
const ROUTE: &str = "api/2.0/mlflow-artifacts/artifacts";

/// The entry of a folder to look at next.
pub(super) enum ListedEntry {
    File(String),
    Folder(String),
    None,
}

impl Client {
    /// Whether the files at the path of an `mlflow-artifacts:` URI can be read now. `host` is the
    /// host in the URI, if any.
    pub async fn check_proxied_artifact(&self, host: Option<&str>, path: &str) -> Availability {
        let elsewhere = host.filter(|host| !self.is_at(host));
        match (self.find_file(path).await, elsewhere) {
            (Ok(ProxiedFile::Readable), _) => Availability::Readable,
            (Ok(ProxiedFile::NoData(name)), _) => Availability::Missing(format!(
                "mlflow-artifacts:/{} has no {}, which its {MODEL_FILE} names; restore it, or register the version again",
                brief(path),
                brief(&name)
            )),
            (Ok(ProxiedFile::Missing) | Err(_), Some(host)) => Availability::Unchecked(format!(
                "mlflow-artifacts://{}/{} names another host than spec.mlflow.uri, where it was not found; Pointsman asks no other MLflow server",
                brief(host),
                brief(path)
            )),
            (Ok(ProxiedFile::Missing), None) => Availability::Missing(format!(
                "the MLflow server has no files at mlflow-artifacts:/{}; restore them, or register the version again",
                brief(path)
            )),
            (Err(error), None) => availability_after(&error),
        }
    }

    /// Whether the server returns the first bytes of a file below `path`. One request reads the
    /// file MLmodel, which every model has, and one looks for the data that it names in the listing:
    /// before a store, the server would fetch all of it. Without MLmodel, folders are listed for
    /// another file.
    ///
    /// # Errors
    /// If the server cannot be reached, refuses, or cannot return a file that it lists.
    async fn find_file(&self, path: &str) -> Result<ProxiedFile, RegistryError> {
        let mut folder = path.trim_matches('/').to_owned();
        if folder
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return Ok(ProxiedFile::Missing);
        }
        let model_file = format!("{folder}/{MODEL_FILE}");
        let read = if_file(self.first_bytes(&model_file, LONGEST_MODEL_FILE).await)?;
        if !read.is_empty() {
            return self.find_data(&folder, named_data(&read)).await;
        }
        for depth in 0..MOST_FOLDERS {
            match self.first_entry(&folder).await? {
                ListedEntry::File(name) => {
                    let file = format!("{folder}/{name}");
                    let read = self.first_bytes(&file, FIRST_BYTES).await?;
                    return Ok(ProxiedFile::of(&read));
                }
                ListedEntry::Folder(name) => folder = format!("{folder}/{name}"),
                ListedEntry::None if depth == 0 => {
                    let read = self.first_bytes(&folder, FIRST_BYTES).await;
                    return Ok(ProxiedFile::of(&if_file(read)?));
                }
                ListedEntry::None => return Ok(ProxiedFile::Missing),
            }
        }
        Ok(ProxiedFile::Missing)
    }

    /// Looks for the data that MLmodel names in the listing. One that is cut, or cannot be read, proves nothing.
    async fn find_data(
        &self,
        folder: &str,
        named: Option<String>,
    ) -> Result<ProxiedFile, RegistryError> {
        let Some(data) = named else {
            return Ok(ProxiedFile::Readable);
        };
        let first = data.split('/').next().unwrap_or_default();
        match self.list_artifacts(folder, TIMEOUT).await {
            Ok(listing) if !listing.files.is_cut => {
                let mut paths = listing.files.iter().filter_map(|file| file.path.as_deref());
                // The listing holds MLmodel at least.
                let is_complete = paths.clone().any(|path| path == MODEL_FILE);
                Ok(if is_complete && !paths.any(|path| path == first) {
                    ProxiedFile::NoData(data)
                } else {
                    ProxiedFile::Readable
                })
            }
            Ok(_) | Err(_) => Ok(ProxiedFile::Readable),
        }
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

    /// The first bytes of a file; none if there is no such file.
    async fn first_bytes(&self, file: &str, length: usize) -> Result<Vec<u8>, RegistryError> {
        let path = [ROUTE, file];
        let request = Request::get(&path, &[])
            .first_bytes(length)
            .timeout(TIMEOUT);
        match self.send(&request).await {
            // A sign-in page is no file, even with status 200.
            Ok(response) if response.is_html => Err(response.wrong_server("an HTML page")),
            Ok(response) => Ok(response.body),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// The bytes of a path that may be no file. A folder is a 400; with S3 behind the server, a missing
/// path is a 500.
fn if_file(read: Result<Vec<u8>, RegistryError>) -> Result<Vec<u8>, RegistryError> {
    match read {
        Err(
            RegistryError::ServerError { status: 500, .. }
            | RegistryError::Refused { status: 400, .. },
        ) => Ok(Vec::new()),
        outcome => outcome,
    }
}

/// What the server has at a path.
enum ProxiedFile {
    /// A file with content.
    Readable,
    /// The file MLmodel, but not the data that it names.
    NoData(String),
    /// No file with content.
    Missing,
}

impl ProxiedFile {
    fn of(read: &[u8]) -> Self {
        if read.is_empty() {
            Self::Missing
        } else {
            Self::Readable
        }
    }
}

/// MLmodel, else the first file that is not empty, else the first folder. Entries whose names are
/// paths are skipped.
pub(super) fn first_entry(listing: wire::Listing) -> ListedEntry {
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
