//! Programs that cannot outlive this process, with their output in files.
//! No shell, no daemons, and no reading of output through pipes unless a program is spoken to.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Context, Error, Result};
use crate::supervisor;

/// A program with its arguments and settings.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<String, OsString>,
    only_this_environment: bool,
    grace: Duration,
    with_pipes: bool,
    in_its_folder: bool,
}

impl Program {
    /// A program, called `name` in logs and errors.
    pub fn new(name: &str, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            path: path.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            only_this_environment: false,
            grace: Duration::ZERO,
            with_pipes: false,
            in_its_folder: false,
        }
    }

    /// Starts it in the folder of its log, for a program that writes files into its working folder.
    #[must_use]
    pub fn in_its_folder(mut self) -> Self {
        self.in_its_folder = true;
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .insert(name.to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets variables.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(
            variables
                .into_iter()
                .map(|(name, value)| (name, value.into())),
        );
        self
    }

    /// Gives the program none of this process's environment, as in a pod.
    #[must_use]
    pub fn only_this_environment(mut self) -> Self {
        self.only_this_environment = true;
        self
    }

    /// The time to end after SIGTERM before it is killed; none by default, because most data of tests is thrown away.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Connects the program's standard input and output to this process, see [`Child::pipes`].
    #[must_use]
    pub fn with_pipes(mut self) -> Self {
        self.with_pipes = true;
        self
    }

    /// Starts it with a supervisor, its output in `folder/<name>.log`.
    pub fn start(&self, folder: &Path) -> Result<Child> {
        if !supervisor::available() {
            return Err(Error::new(
                format_args!("starting {}", self.name),
                "this executable cannot hold what it starts",
            )
            .remedy("call pointsman_env::supervise_if_asked() first in main (a test target needs harness = false)"));
        }
        let log = folder.join(format!("{}.log", self.name));
        let pid_file = folder.join(format!("{}.pid", self.name));
        let _ = fs::remove_file(&pid_file);
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .context(format_args!("opening {}", log.display()))?;
        let mut command = self.command(&pid_file, output)?;
        if self.in_its_folder {
            command.current_dir(folder);
        }
        let mut supervisor = command
            .spawn()
            .context(format_args!("starting {}", self.name))?;
        let input = supervisor.stdin.take();
        let output = supervisor.stdout.take();
        Ok(Child {
            name: self.name.clone(),
            supervisor,
            input,
            output,
            log,
            pid_file,
            grace: self.grace,
        })
    }

    fn command(&self, pid_file: &Path, output: File) -> Result<Command> {
        use std::os::unix::process::CommandExt;
        let this = std::env::current_exe().context("looking for this executable")?;
        let errors = output.try_clone().context("sharing the log file")?;
        let mut command = Command::new(this);
        if self.only_this_environment {
            command.env_clear();
        }
        command
            .arg(supervisor::MARKER)
            .arg(self.grace.as_millis().to_string())
            .arg(if self.with_pipes { "relay" } else { "closed" })
            .arg(pid_file)
            .arg(&self.path)
            .args(&self.arguments)
            .envs(&self.environment)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(if self.with_pipes {
                Stdio::piped()
            } else {
                Stdio::from(output)
            })
            .stderr(errors);
        Ok(command)
    }
}

/// A running program; it ends with all its descendants when this is dropped, or when this process dies.
#[derive(Debug)]
pub struct Child {
    name: String,
    supervisor: std::process::Child,
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    log: PathBuf,
    pid_file: PathBuf,
    grace: Duration,
}

impl Child {
    /// The program's process id, as soon as it has one.
    pub fn pid(&self) -> Option<u32> {
        fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()
    }

    /// How the program ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.supervisor.try_wait().ok().flatten()
    }

    /// Fails with the end of the log if the program is not running any more.
    pub fn still_running(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(Error::new(
                format_args!("running {}", self.name),
                format_args!("it ended with {status}\n{}", self.tail(30)),
            )),
        }
    }

    /// Waits until a process listens on this port of loopback; fails with the end of the log if none does in time.
    pub async fn until_it_listens(&mut self, port: u16, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            self.still_running()?;
            if Instant::now() > deadline {
                return Err(Error::new(
                    format_args!("waiting for {}", self.name),
                    self.tail(30),
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Standard input and output of a program that is spoken to; only the first time. Closing the input ends the program.
    pub fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.input.take()?, self.output.take()?))
    }

    /// Sends SIGTERM, waits for the grace, then kills.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.input = None;
        let patience = self.grace + Duration::from_secs(10);
        self.wait_for_end(patience)
    }

    /// Kills the program alone with SIGKILL, as the kernel does when memory is short; its supervisor then ends its descendants.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait_for_end(Duration::from_secs(10))
    }

    /// Stops the program, as a paused virtual machine would be.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen program go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| {
            Error::new(
                format_args!("signalling {}", self.name),
                "it has not started",
            )
        })?;
        kill_process(pid, signal).context(format_args!("signalling {}", self.name))
    }

    fn wait_for_end(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Error::new(
                    format_args!("ending {}", self.name),
                    format_args!("it is still there after {patience:?}\n{}", self.tail(30)),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The last `lines` of the program's output.
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// The file of the program's output.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A supervisor that does not end is not waited for any longer: it ends after its program.
        let _ = self.terminate();
    }
}

/// The last `lines` of a file.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A folder for one run's data and logs, removed at the end, or renamed to `kept-…` if `POINTSMAN_KEEP` is set.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held as long as the folder is in use.
    _lock: fs::File,
}

impl RunFolder {
    /// A new folder under the system's folder for temporary files; those of runs that were killed are removed on the way.
    pub fn create(purpose: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("{PREFIX}{}-{purpose}-{number}", std::process::id()));
        // A process of the same number may have left one behind.
        let _ = fs::remove_dir_all(&path);
        create_private(&path)?;
        let what = format!("locking {}", path.display());
        let lock = fs::File::create(path.join(LOCK)).context(&what)?;
        lock.lock().context(&what)?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its last part, which is like no other's.
    pub(crate) fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// Whether the folder of that name belongs to a run that has ended.
    pub(crate) fn is_left_behind(name: &str) -> bool {
        let path = std::env::temp_dir().join(name);
        name.starts_with(PREFIX) && (!path.exists() || is_abandoned(&path))
    }
}

/// Removes the run folders of this process that are left at its end: MLflow's client is shared by the whole process, and its
/// folder would stay until the next run. `POINTSMAN_KEEP` keeps them.
pub fn remove_run_folders() {
    if std::env::var_os("POINTSMAN_KEEP").is_some() {
        return;
    }
    let ours = format!("pointsman-run-{}-", std::process::id());
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_string_lossy().starts_with(&ours) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if std::env::var_os("POINTSMAN_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.path);
        } else {
            // A renamed folder is not removed by other runs.
            let _ = fs::rename(
                &self.path,
                self.path.with_file_name(format!("kept-{}", self.name())),
            );
        }
    }
}

const PREFIX: &str = "pointsman-run-";
const LOCK: &str = ".lock";

/// It holds private keys, so only its owner may read it.
fn create_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .context(format_args!("creating {}", path.display()))
}

/// Removes the folders of runs that have ended: a lock ends with its holder, in any namespace or container.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(folder: &Path) -> bool {
    fs::File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}
