//! A small process between this one and each program that it starts: it ends the program and its descendants when this process ends.
//! No `unsafe` and no death signal: the supervisor reads a pipe of which only this process has the other end. End of file means that this process has ended.

use std::ffi::OsString;
use std::fs;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// The first argument of a supervisor process.
pub(crate) const MARKER: &str = "--pointsman-supervisor";
/// Set once this process has called [`supervise_if_asked`].
static READY: std::sync::OnceLock<()> = std::sync::OnceLock::new();

/// Becomes a supervisor, and never returns, if this process was started as one.
///
/// Every `main` that starts programs through this crate calls it first: a supervisor is the same executable, started again.
pub fn supervise_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == MARKER) {
        let job = Job::read(arguments).expect("only this crate starts a supervisor");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for the supervisor");
        std::process::exit(runtime.block_on(supervise(job)));
    }
    let _ = READY.set(());
}

/// Whether this executable's `main` called [`supervise_if_asked`].
pub(crate) fn available() -> bool {
    READY.get().is_some()
}

/// The arguments of a supervisor: `<grace in ms> <relay|closed> <file for the pid> <program> <arguments…>`.
struct Job {
    grace: Duration,
    relay: bool,
    pid_file: OsString,
    program: OsString,
    arguments: Vec<OsString>,
}

impl Job {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        Some(Self {
            grace: Duration::from_millis(arguments.next()?.to_str()?.parse().ok()?),
            relay: arguments.next()? == "relay",
            pid_file: arguments.next()?,
            program: arguments.next()?,
            arguments: arguments.collect(),
        })
    }
}

async fn supervise(job: Job) -> i32 {
    adopt_orphans();
    let mut child = match start(&job) {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cannot start {}: {error}", job.program.to_string_lossy());
            return 127;
        }
    };
    let group = child.id();
    let mut ending = end_requested(child.stdin.take());
    let status = tokio::select! {
        status = child.wait() => status.ok(),
        _ = ending.recv() => end(&mut child, group, job.grace).await,
    };
    end_descendants();
    status.map_or(1, code)
}

fn start(job: &Job) -> std::io::Result<Child> {
    let child = Command::new(&job.program)
        .args(&job.arguments)
        .stdin(if job.relay {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .process_group(0)
        .spawn()?;
    if let Some(pid) = child.id() {
        fs::write(&job.pid_file, pid.to_string())?;
    }
    Ok(child)
}

/// Receives a message when the pipe from the parent is closed, or when the supervisor gets a signal to end.
fn end_requested(relay_to: Option<ChildStdin>) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(4);
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        let (sender, mut stream) = (
            sender.clone(),
            signal(kind).expect("signals can be listened to"),
        );
        tokio::spawn(async move {
            stream.recv().await;
            let _ = sender.send(()).await;
        });
    }
    tokio::spawn(async move {
        drain(relay_to).await;
        let _ = sender.send(()).await;
    });
    receiver
}

/// Reads the pipe to its end, and relays the bytes if the program reads its input.
async fn drain(mut relay_to: Option<ChildStdin>) {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = input.read(&mut buffer).await {
        if let Some(program) = &mut relay_to {
            // A program that no longer reads has ended, or is ended soon.
            let _ = program.write_all(&buffer[..count]).await;
            let _ = program.flush().await;
        }
    }
}

async fn end(child: &mut Child, group: Option<u32>, grace: Duration) -> Option<ExitStatus> {
    if !grace.is_zero() {
        signal_group(group, Signal::TERM);
        if let Ok(status) = tokio::time::timeout(grace, child.wait()).await {
            return status.ok();
        }
    }
    signal_group(group, Signal::KILL);
    child.wait().await.ok()
}

fn signal_group(group: Option<u32>, signal: Signal) {
    if let Some(group) = group.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        // It may have ended meanwhile.
        let _ = kill_process_group(group, signal);
    }
}

/// Adopts the orphans among the descendants, so that none escapes when its parent ends.
#[cfg(target_os = "linux")]
fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .expect("Linux has sub-reapers since 3.4");
}

#[cfg(not(target_os = "linux"))]
fn adopt_orphans() {}

/// Kills all descendants that the program left behind.
fn end_descendants() {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        for pid in descendants(std::process::id()) {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        match waitpid(None, WaitOptions::NOHANG) {
            Err(_) => return,
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// All processes below `root`, from `/proc`; none if there is no `/proc`.
#[must_use]
pub fn descendants(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| parent_of(&entry.file_name().to_string_lossy()))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.split_off(1)
}

fn parent_of(pid: &str) -> Option<(u32, u32)> {
    let number = pid.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so the fields are counted from its last one.
    let parent = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    Some((number, parent))
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
