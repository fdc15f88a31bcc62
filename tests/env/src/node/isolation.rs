//! Runs this executable again in namespaces of its own for processes, mounts and network.
//! No `unsafe`: `unshare` makes the namespaces, and the kernel removes them with their first process, which is this executable.
//!
//! There are three processes: the first waits for the second, a monitor; the monitor owns the folder and the control group, which
//! no namespace holds, and starts the third, the isolated one. The monitor ends the third when its input ends, which means that the
//! first has ended. If the monitor is killed, the kernel ends the third, and the next run removes folder and group.

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

/// The first argument of the monitor.
const MONITOR: &str = "--pointsman-monitor";
/// The first argument of the isolated process; then come its folder and its control group.
const ISOLATED: &str = "--pointsman-isolated";
/// The node's address in its network, which begins and ends with it.
pub const NODE_ADDRESS: &str = "10.88.0.1";

/// Settings that the kubelet changes for the whole machine; here it changes copies.
const KERNEL_SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// The isolated process's view of its folder, control group and arguments.
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

/// Returns the isolation if this is the isolated process; never returns in the monitor.
///
/// Every `main` that calls [`run`] calls it first.
pub fn isolated_if_asked() -> Option<Isolation> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    if first == MONITOR {
        let code = monitor_child(&arguments.collect::<Vec<_>>()).unwrap_or_else(|error| {
            eprintln!("error: {error}");
            1
        });
        std::process::exit(code);
    }
    if first != ISOLATED {
        return None;
    }
    let (folder, cgroup) = (arguments.next()?, arguments.next()?);
    let isolation = Isolation {
        folder: folder.into(),
        cgroup: cgroup.into_string().ok()?,
        arguments: arguments.collect(),
    };
    prepare(&isolation.folder).unwrap_or_else(|error| panic!("{error}"));
    Some(isolation)
}

/// Runs this executable again with these arguments, isolated, and returns its exit code.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let mut monitor = monitor(arguments)?;
    // Waiting would close the input, and the monitor would take this process for ended.
    let _held = monitor.stdin.take();
    let status = monitor.wait().context("waiting for the monitor")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// In a process group of its own: Ctrl-C ends this process, and its end ends the monitor.
fn monitor(arguments: &[OsString]) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let this = std::env::current_exe().context("looking for this executable")?;
    let mut command = Command::new(this);
    command
        .arg(MONITOR)
        .args(arguments)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("starting the monitor")
}

fn monitor_child(arguments: &[OsString]) -> Result<i32> {
    let folder = RunFolder::create("node")?;
    let cgroup = Cgroup::create(&folder)?;
    let parent_ended = watch_parent();
    let mut child = unshare(&folder, &cgroup, arguments)?;
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .context("waiting for the isolated process")?
        {
            break status;
        }
        if parent_ended.load(Ordering::Relaxed) {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Ok(status.code().unwrap_or(1))
}

/// Becomes true when the pipe from the parent ends, because the parent has ended then.
fn watch_parent() -> Arc<AtomicBool> {
    let parent_ended = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&parent_ended);
    std::thread::spawn(move || {
        // Nothing is ever written to it.
        let _ = std::io::stdin().read(&mut [0]);
        ended.store(true, Ordering::Relaxed);
    });
    parent_ended
}

/// `setpriv` makes `unshare` end with the monitor, and `unshare` makes the first process of the namespaces end with itself.
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
            ISOLATED.as_ref(),
            folder.path().as_os_str(),
            cgroup.name().as_ref(),
        ])
        .args(arguments)
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .spawn()
        .context("starting unshare")
}

/// Prepares the namespaces: memory for all written files, and a network.
fn prepare(folder: &Path) -> Result<()> {
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
    mount_overlay(Path::new("/var/lib"), folder)?;
    KERNEL_SETTINGS
        .iter()
        .try_for_each(|setting| mount_copy(setting, folder))?;
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

/// Mounts an overlay: the folder's files stay readable, writes go elsewhere.
fn mount_overlay(path: &Path, folder: &Path) -> Result<()> {
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

fn mount_copy(setting: &str, folder: &Path) -> Result<()> {
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
