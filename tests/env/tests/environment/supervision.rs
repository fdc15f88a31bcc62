//! No started program outlives its parent, even if the parent is killed.
//! Absent: programs of the environment; a shell is enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use pointsman_env::process::{Program, RunFolder};

const MARKER: &str = "--be-a-parent";

/// A shell with a child, a grandchild, and a grandchild in a session of its own, as daemons make themselves.
const FAMILY: &str = "sleep 1000 & echo $! >> pids; (sleep 1000 & echo $! >> pids; setsid sh -c 'echo $$ >> pids; sleep 1000' &); echo $$ >> pids; wait";

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    vec![
        trial("descendants_end_when_their_parent_is_killed", killed_parent),
        trial("descendants_end_when_the_child_is_dropped", dropped_child),
        trial(
            "a_terminated_program_has_its_grace_period",
            terminated_in_grace,
        ),
        trial("a_killed_program_counts_as_ended", killed_program),
        trial("pipes_connect_to_the_program", connected),
    ]
}

/// Runs this executable as the parent in `killed_parent`.
pub(crate) fn become_a_parent_if_asked() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == MARKER) {
        let _child = start_family(Path::new(&arguments[2]));
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn start_family(folder: &Path) -> pointsman_env::process::Child {
    let script = format!("cd '{}'; {FAMILY}", folder.display());
    Program::new("family", "sh")
        .args(["-c", &script])
        .start(folder)
        .unwrap()
}

fn killed_parent() {
    let folder = RunFolder::create("killed").unwrap();
    let this = std::env::current_exe().unwrap();
    let mut parent = Command::new(this)
        .arg(MARKER)
        .arg(folder.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let family = await_family(folder.path());
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert_all_ended(&family);
}

fn dropped_child() {
    let folder = RunFolder::create("dropped").unwrap();
    let child = start_family(folder.path());
    let family = await_family(folder.path());
    drop(child);
    assert_all_ended(&family);
}

fn terminated_in_grace() {
    let folder = RunFolder::create("grace").unwrap();
    let script = "trap 'echo finished; exit 7' TERM; echo started; while true; do sleep 0.01; done";
    let mut child = Program::new("polite", "sh")
        .args(["-c", script])
        .grace(Duration::from_secs(10))
        .start(folder.path())
        .unwrap();
    eventually("it has started", || child.tail(1) == "started");
    assert_eq!(child.terminate().unwrap().code(), Some(7));
    assert_eq!(child.tail(1), "finished");
}

fn killed_program() {
    let folder = RunFolder::create("kill").unwrap();
    let mut child = start_family(folder.path());
    let family = await_family(folder.path());
    assert_eq!(child.kill().unwrap().code(), Some(128 + 9));
    assert!(child.still_running().is_err());
    assert_all_ended(&family);
}

fn connected() {
    use std::io::{BufRead, BufReader, Write};
    let folder = RunFolder::create("spoken").unwrap();
    let mut child = Program::new("echo", "cat")
        .with_pipes()
        .start(folder.path())
        .unwrap();
    let (mut input, output) = child.pipes().unwrap();
    writeln!(input, "hello").unwrap();
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert_eq!(line, "hello\n");
    drop(input);
    eventually("it ends with its input", || child.ended().is_some());
}

fn await_family(folder: &Path) -> Vec<String> {
    let pids = || {
        fs::read_to_string(folder.join("pids"))
            .unwrap_or_default()
            .lines()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    eventually("the family is complete", || pids().len() == 4);
    let family = pids();
    assert!(family.iter().all(|pid| is_alive(pid)), "{family:?}");
    family
}

fn assert_all_ended(family: &[String]) {
    eventually("the family is gone", || {
        !family.iter().any(|pid| is_alive(pid))
    });
}

fn is_alive(pid: &str) -> bool {
    // A zombie has ended; it is reaped by its parent.
    fs::read_to_string(PathBuf::from("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

fn eventually(description: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{description}: not within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}
