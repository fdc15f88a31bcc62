//! Looks at files of this machine, for tests and for volumes that are mounted here and in pods alike.
//!
//! Absent: following anything that is no file or folder; a pipe would never answer.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{MODEL_FILE, Verdict, place};

/// How many entries of a folder are looked at.
const MOST_ENTRIES: usize = 1000;
/// How deep folders are followed.
const MOST_DEPTH: usize = 4;

/// Whether a file, or the files of a folder, can be read now.
pub(super) async fn look(path: &Path) -> Verdict {
    let owned = path.to_owned();
    let shown = place::brief(&path.display().to_string());
    match tokio::task::spawn_blocking(move || find(&owned)).await {
        Ok(Ok(true)) => Verdict::Readable,
        Ok(Ok(false)) => Verdict::Unreadable(format!(
            "{shown} holds no files; restore them, or register the version again"
        )),
        Ok(Err(error))
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            Verdict::Unreadable(format!(
                "{shown} is not there; restore it, or mount the volume where Pointsman runs"
            ))
        }
        Ok(Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
            Verdict::Unreadable(format!(
                "{shown} may not be read by Pointsman's user; look at the owner and mode of its files"
            ))
        }
        Ok(Err(error)) => Verdict::Unknown(format!(
            "{shown} could not be read: {}; look at the disk",
            error.kind()
        )),
        Err(_) => Verdict::Unknown(format!("{shown} could not be looked at; ask again")),
    }
}

/// Whether at least one byte could be read.
fn find(path: &Path) -> std::io::Result<bool> {
    if !std::fs::metadata(path)?.is_dir() {
        return has_byte(path);
    }
    let model = path.join(MODEL_FILE);
    match std::fs::metadata(&model) {
        Ok(found) if found.is_file() => has_byte(&model),
        _ => below(path, MOST_DEPTH),
    }
}

fn below(folder: &Path, depth: usize) -> std::io::Result<bool> {
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
    for folder in folders.iter().filter(|_| depth > 0) {
        if below(folder, depth - 1)? {
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
