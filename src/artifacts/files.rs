//! Checks files of this machine, for tests and for volumes that are mounted here and in pods alike.
//!
//! Absent: anything that is no regular file or folder. Opening a pipe would never return.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::bucket::lacks;
use crate::api::Availability;
use crate::api::model_file::{LONGEST_MODEL_FILE, MODEL_FILE, named_data};
use crate::http::uri::brief;

/// The most entries of a folder that are read.
const MOST_ENTRIES: usize = 1000;
/// The most levels of folders that are read.
const MOST_DEPTH: usize = 4;

/// Whether a file, or a file of a folder, can be read now.
pub(super) async fn check(path: &Path) -> Availability {
    let owned = path.to_owned();
    let shown_path = brief(&path.display().to_string());
    match tokio::task::spawn_blocking(move || find(&owned)).await {
        Ok(Ok(PathContent::Byte)) => Availability::Readable,
        Ok(Ok(PathContent::NoData(name))) => Availability::Missing(lacks(&shown_path, &name)),
        Ok(Ok(PathContent::Nothing)) => Availability::Missing(format!(
            "{shown_path} holds no files; restore them, or register the version again"
        )),
        Ok(Err(error))
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            Availability::Missing(format!(
                "{shown_path} does not exist; restore it, or mount the volume in Pointsman's pod"
            ))
        }
        Ok(Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
            Availability::Unchecked(format!(
                "{shown_path} may not be read by Pointsman's user; check the owner and mode of its files"
            ))
        }
        Ok(Err(error)) => Availability::Unknown(format!(
            "{shown_path} could not be read: {}; check the disk",
            error.kind()
        )),
        Err(_) => Availability::Unknown(format!("the check of {shown_path} was interrupted")),
    }
}

/// What was found at a path.
enum PathContent {
    /// At least one byte can be read.
    Byte,
    /// MLmodel can be read, but not the data that it names.
    NoData(String),
    /// No file with content.
    Nothing,
}

impl PathContent {
    fn of(has_byte: bool) -> Self {
        if has_byte { Self::Byte } else { Self::Nothing }
    }
}

fn find(path: &Path) -> std::io::Result<PathContent> {
    if !std::fs::metadata(path)?.is_dir() {
        return has_byte(path).map(PathContent::of);
    }
    let model_file = path.join(MODEL_FILE);
    match std::fs::metadata(&model_file) {
        Ok(found) if found.is_file() => {}
        _ => return has_byte_below(path, MOST_DEPTH).map(PathContent::of),
    }
    let (mut read, most) = (Vec::new(), LONGEST_MODEL_FILE as u64);
    std::fs::File::open(&model_file)?
        .take(most)
        .read_to_end(&mut read)?;
    let Some(name) = named_data(&read) else {
        return Ok(PathContent::of(!read.is_empty()));
    };
    let data = path.join(&name);
    let has_data = match std::fs::metadata(&data) {
        Ok(found) if found.is_dir() => has_byte_below(&data, MOST_DEPTH)?,
        Ok(_) => has_byte(&data)?,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    Ok(if has_data {
        PathContent::Byte
    } else {
        PathContent::NoData(name)
    })
}

fn has_byte_below(folder: &Path, depth: usize) -> std::io::Result<bool> {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder)?
        .take(MOST_ENTRIES)
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| path.is_dir());
    for file in files {
        if has_byte(&file)? {
            return Ok(true);
        }
    }
    if depth == 0 {
        return Ok(false);
    }
    for folder in folders {
        if has_byte_below(&folder, depth - 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_byte(path: &Path) -> std::io::Result<bool> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(false);
    }
    Ok(std::fs::File::open(path)?.read(&mut [0])? == 1)
}
