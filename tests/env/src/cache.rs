//! The folder outside the tree that keeps built programs: entries with a key made from the content of their inputs.
//! Nothing here expires by itself, and no entry is ever changed after it is complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};

/// The cache folder, and the way to fill an entry of it.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The folder named by `POINTSMAN_CACHE`, else `pointsman` under `XDG_CACHE_HOME`, else `~/.cache/pointsman`.
    pub fn open() -> Result<Self> {
        let root = Self::locate().ok_or_else(|| {
            Error::new(
                "looking for the cache folder",
                "none of POINTSMAN_CACHE, XDG_CACHE_HOME and HOME is set",
            )
            .remedy("set POINTSMAN_CACHE to a folder with 4 GB to spare")
        })?;
        Self::at(root)
    }

    /// A cache in a given folder.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root)
            .context(format_args!("creating the cache folder {}", root.display()))?;
        Ok(Self { root })
    }

    fn locate() -> Option<PathBuf> {
        let folder = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        folder("POINTSMAN_CACHE")
            .or_else(|| folder("XDG_CACHE_HOME").map(|home| home.join("pointsman")))
            .or_else(|| folder("HOME").map(|home| home.join(".cache/pointsman")))
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The entry, made by `make` if it is not there yet.
    ///
    /// `make` works in a folder that gets its final name only when it succeeds, so a build that was killed half-way
    /// leaves nothing that looks complete; a file lock keeps two processes from building the same thing.
    pub fn entry(&self, entry: &Entry, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let complete = self.path(entry);
        if complete.is_dir() {
            return Ok(complete);
        }
        let _lock = self.lock(&entry.family)?;
        if complete.is_dir() {
            return Ok(complete);
        }
        let partial = self.root.join(format!(".{}.partial", entry.name()));
        clear(&partial)?;
        fs::create_dir_all(&partial).context(format_args!("creating {}", partial.display()))?;
        make(&partial)?;
        fs::rename(&partial, &complete)
            .context(format_args!("completing {}", complete.display()))?;
        self.forget_older(entry);
        Ok(complete)
    }

    /// The entry if it is complete, without making it.
    pub fn existing(&self, entry: &Entry) -> Option<PathBuf> {
        Some(self.path(entry)).filter(|path| path.is_dir())
    }

    /// The path of an entry, also before it is made: a Python environment needs it, because it cannot be moved.
    pub fn path(&self, entry: &Entry) -> PathBuf {
        self.root.join(entry.name())
    }

    fn lock(&self, family: &str) -> Result<File> {
        let path = self.root.join(format!(".{family}.lock"));
        let file =
            File::create(&path).context(format_args!("opening the lock {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("another process builds {family}: waiting for it");
            file.lock()
                .context(format_args!("locking {}", path.display()))?;
        }
        Ok(file)
    }

    /// Removes entries of the same family that were made from other content, for they are large.
    fn forget_older(&self, entry: &Entry) {
        let prefix = format!("{}-", entry.family);
        let Ok(entries) = fs::read_dir(&self.root) else {
            return;
        };
        for other in entries.flatten() {
            let name = other.file_name().to_string_lossy().into_owned();
            if name
                .strip_prefix(&prefix)
                .is_some_and(|key| key != entry.key && is_key(key))
            {
                // An entry that cannot be removed only costs space.
                let _ = fs::remove_dir_all(other.path());
            }
        }
    }
}

/// The name of an entry: a family, and a key made from the content of its inputs.
#[derive(Debug, Clone)]
pub struct Entry {
    family: String,
    key: String,
}

impl Entry {
    /// An entry of `family` made from `content`.
    #[must_use]
    pub fn new(family: &str, content: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in content {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        let key = digest
            .finalize()
            .iter()
            .take(8)
            .fold(String::new(), |key, byte| format!("{key}{byte:02x}"));
        Self {
            family: family.to_owned(),
            key,
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.family, self.key)
    }
}

fn is_key(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn clear(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)
            .context(format_args!("removing the half-made {}", path.display()))?;
    }
    Ok(())
}

/// The cache folder itself, for data that is no entry.
#[must_use]
pub fn folder() -> PathBuf {
    Cache::open().unwrap_or_else(|error| panic!("{error}")).root
}

/// Waits until no other process holds the lock of that name, and takes it; released on drop, also when this process dies.
#[must_use]
pub fn lock(name: &str) -> Guard {
    let cache = Cache::open().unwrap_or_else(|error| panic!("{error}"));
    Guard {
        _file: cache.lock(name).unwrap_or_else(|error| panic!("{error}")),
    }
}

/// A lock, held while one process makes the entry that others wait for.
#[derive(Debug)]
pub struct Guard {
    _file: File,
}
