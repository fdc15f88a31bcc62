//! Whether the files that the server keeps behind `mlflow-artifacts:` can be read now.
//!
//! Absent: the files. Their first bytes are read and thrown away.

use std::time::Duration;

use super::client::{Ask, Registry};
use super::details::is_plain_name;
use super::error::RegistryError;
use super::wire;

/// How many bytes of a file are asked for.
const FIRST_BYTES: usize = 16;
/// How long each question may take: the server may have to ask a store that is far away.
const PATIENCE: Duration = Duration::from_secs(8);
/// How many folders are listed in search of a file.
const MOST_FOLDERS: usize = 4;
const ROUTE: &str = "api/2.0/mlflow-artifacts/artifacts";

/// What a folder's listing leads to.
enum Next {
    File(String),
    Folder(String),
    Nothing,
}

impl Registry {
    /// Whether the server gives the first bytes of a file below `path`, the path of an `mlflow-artifacts:` URI. A file
    /// by name of MLmodel is read before others. `false`: the server says that there are no files.
    ///
    /// # Errors
    /// Where the server cannot be asked, refuses, or cannot give a file that it lists.
    pub async fn artifact_is_readable(&self, path: &str) -> Result<bool, RegistryError> {
        let mut folder = path.trim_matches('/').to_owned();
        if folder
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return Ok(false);
        }
        for depth in 0..MOST_FOLDERS {
            match self.list(&folder).await? {
                Next::File(name) => return self.has_bytes(&format!("{folder}/{name}")).await,
                Next::Folder(name) => folder = format!("{folder}/{name}"),
                Next::Nothing if depth == 0 => return self.is_file(&folder).await,
                Next::Nothing => return Ok(false),
            }
        }
        Ok(false)
    }

    async fn list(&self, folder: &str) -> Result<Next, RegistryError> {
        let query = [("path", folder)];
        match self
            .ask_json::<wire::Listing>(&Ask::get(&[ROUTE], &query).patience(PATIENCE))
            .await
        {
            Ok(listing) => Ok(next(listing)),
            Err(error) if error.is_not_found() => Ok(Next::Nothing),
            Err(error) => Err(error),
        }
    }

    async fn has_bytes(&self, file: &str) -> Result<bool, RegistryError> {
        match self
            .ask(
                &Ask::get(&[ROUTE, file], &[])
                    .beginning(FIRST_BYTES)
                    .patience(PATIENCE),
            )
            .await
        {
            Ok(answer) => Ok(!answer.body.is_empty()),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the path is a file. An empty folder is a 400 here; with S3 behind the server, what is missing is a 500.
    async fn is_file(&self, path: &str) -> Result<bool, RegistryError> {
        match self.has_bytes(path).await {
            Err(
                RegistryError::Unwell { status: 500, .. }
                | RegistryError::Refused { status: 400, .. },
            ) => Ok(false),
            outcome => outcome,
        }
    }
}

/// MLmodel, else a file that is not empty, else a folder. Names that are no plain ones are not asked for.
fn next(listing: wire::Listing) -> Next {
    let (mut file, mut folder) = (None, None);
    for entry in listing.files {
        let empty = entry.file_size.as_ref().is_some_and(|size| size.0 == 0);
        match entry.path.filter(|name| is_plain_name(name)) {
            Some(name) if entry.is_dir => folder = folder.or(Some(name)),
            Some(name) if name == "MLmodel" => return Next::File(name),
            Some(name) if !empty => file = file.or(Some(name)),
            _ => {}
        }
    }
    file.map(Next::File)
        .or(folder.map(Next::Folder))
        .unwrap_or(Next::Nothing)
}
