//! Runs this executable again, apart from the machine: in namespaces of its own for processes, mounts and network.
//! No `unsafe`: `unshare` makes the namespaces, and what lives in them vanishes with their first process, which is that executable.
//!
//! There are three processes. The one that was started waits for its keeper; the keeper holds what no namespace does (a folder
//! and a control group) and ends the third, and so everything, when its input ends: that is, when the first is gone, however it went.
//! When the keeper itself is killed, the kernel ends the third, and the next run removes the folder and the group.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::process::RunFolder;

/// The first argument of the keeper.
const KEEPER: &str = "--pointsman-keeper";
/// The first argument of what runs apart; then its folder and its control group.
const APART: &str = "--pointsman-apart";
/// The node's address in its network, which begins and ends with it.
pub(crate) const NODE_ADDRESS: &str = "10.88.0.1";

/// What the kubelet changes for the whole machine, and is here given to change for itself.
const KERNEL_SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Namespaces of one's own, as seen from within.
#[derive(Debug, Clone)]
pub struct Isolation {
    folder: PathBuf,
    cgroup: String,
    arguments: Vec<OsString>,
}

impl Isolation {
    /// The folder for everything that is written; it goes with the namespaces.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of the control group below the root.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.cgroup)
    }

    /// The name of the executable, and the arguments that it was first started with.
    pub fn arguments(&self) -> Vec<OsString> {
        std::env::args_os()
            .take(1)
            .chain(self.arguments.clone())
            .collect()
    }
}

/// Whether this process runs apart; the keeper never returns from here.
///
/// Every `main` that calls [`run`] calls it first.
pub fn isolated_if_asked() -> Option<Isolation> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    if first == KEEPER {
        let code = keep(&arguments.collect::<Vec<_>>()).unwrap_or_else(|error| {
            eprintln!("error: {error}");
            1
        });
        std::process::exit(code);
    }
    if first != APART {
        return None;
    }
    let (folder, cgroup) = (arguments.next()?, arguments.next()?);
    let isolation = Isolation {
        folder: folder.into(),
        cgroup: cgroup.into_string().ok()?,
        arguments: arguments.collect(),
    };
    furnish(&isolation.folder).unwrap_or_else(|error| panic!("{error}"));
    Some(isolation)
}

/// Runs this executable again with these arguments, isolation, and returns what it ended with.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let mut keeper = keeper(arguments)?;
    // Waiting would close it, and the keeper would take us for gone.
    let _held = keeper.stdin.take();
    let status = keeper.wait().context("waiting for the keeper")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// In a process group of its own: a Ctrl-C is for us, and through our end for the keeper.
fn keeper(arguments: &[OsString]) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let this = std::env::current_exe().context("looking for this executable")?;
    let mut command = Command::new(this);
    command
        .arg(KEEPER)
        .args(arguments)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("starting the keeper")
}

fn keep(arguments: &[OsString]) -> Result<i32> {
    let folder = RunFolder::create("node")?;
    let cgroup = Cgroup::create(&folder)?;
    let gone = watch_parent();
    let mut child = unshare(&folder, &cgroup, arguments)?;
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for what runs apart")? {
            break status;
        }
        if gone.load(Ordering::Relaxed) {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Ok(status.code().unwrap_or(1))
}

/// Becomes true when the pipe from our parent ends, for then there is no parent.
fn watch_parent() -> Arc<AtomicBool> {
    let gone = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&gone);
    std::thread::spawn(move || {
        // Nothing is ever written to it.
        let _ = std::io::stdin().read(&mut [0]);
        told.store(true, Ordering::Relaxed);
    });
    gone
}

/// `setpriv` has `unshare` end with us, and `unshare` has the first process of the namespaces end with itself.
fn unshare(folder: &RunFolder, cgroup: &Cgroup, arguments: &[OsString]) -> Result<Child> {
    let this = std::env::current_exe().context("looking for this executable")?;
    Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--net",
        ])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args([
            this.as_os_str(),
            APART.as_ref(),
            folder.path().as_os_str(),
            cgroup.name().as_ref(),
        ])
        .args(arguments)
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .spawn()
        .context("starting unshare")
}

/// Makes the namespaces a place to live in: everything that is written goes to memory, and there is a network.
fn furnish(folder: &Path) -> Result<()> {
    if std::env::var_os("POINTSMAN_KEEP").is_none() {
        mount([
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "tmpfs".as_ref(),
            folder.as_os_str(),
        ])?;
    }
    for written in ["/run", "/var/log"] {
        mount(["-t", "tmpfs", "tmpfs", written].map(OsStr::new))?;
    }
    lay_over(Path::new("/var/lib"), folder)?;
    KERNEL_SETTINGS
        .iter()
        .try_for_each(|setting| keep_to_ourselves(setting, folder))?;
    [
        "link set lo up",
        // Not every kernel has dummy links; this one is needed for the pods as well.
        "link add node type bridge",
        &format!("address add {NODE_ADDRESS}/24 dev node"),
        "link set node up",
        "route add default dev node",
    ]
    .iter()
    .try_for_each(|command| call("ip", command.split(' ').map(OsStr::new)))
}

/// What is in the folder stays to be seen; what is written to it is not written there.
fn lay_over(path: &Path, folder: &Path) -> Result<()> {
    let (upper, work) = (folder.join("written"), folder.join("overlay"));
    for made in [&upper, &work] {
        fs::create_dir_all(made).context(format_args!("creating {}", made.display()))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path.display(),
        upper.display(),
        work.display()
    );
    mount([
        "-t".as_ref(),
        "overlay".as_ref(),
        "-o".as_ref(),
        options.as_ref(),
        "overlay".as_ref(),
        path.as_os_str(),
    ])
}

fn keep_to_ourselves(setting: &str, folder: &Path) -> Result<()> {
    let real = Path::new("/proc/sys").join(setting);
    let copy = folder.join(setting.replace('/', "."));
    let what = format!("copying {}", real.display());
    let value = fs::read(&real).context(&what)?;
    fs::write(&copy, value).context(what)?;
    mount(["--bind".as_ref(), copy.as_os_str(), real.as_os_str()])
}

fn mount<const N: usize>(arguments: [&OsStr; N]) -> Result<()> {
    call("mount", arguments)
}

fn call<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<()> {
    let arguments: Vec<&OsStr> = arguments.into_iter().collect();
    let what = format!(
        "{program} {}",
        arguments.join(" ".as_ref()).to_string_lossy()
    );
    let output = Command::new(program)
        .args(&arguments)
        .stdin(Stdio::null())
        .output()
        .context(&what)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(what, String::from_utf8_lossy(&output.stderr))
        .remedy("a real node needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN"))
}
