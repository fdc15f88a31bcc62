//! A killed test leaves nothing of its node on the machine: no process, mount, control group, link or folder.
//!
//! Absent: the ordinary end, which uses the same cleanup.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use pointsman_env::kinds::POD;
use pointsman_env::node::Isolation;
use pointsman_env::{Objects, Selection, TestNamespace, descendants};

use crate::fixture::{Cluster, PATIENCE, REPLICAS, deployment, is_ready, progress};

pub const NAME: &str = "a_killed_test_leaves_nothing_of_its_node_behind";
/// The argument of a process that is killed when its pods run.
pub const UNTIL_KILLED: &str = "--until-killed";
const RUNNING: &str = "the pods run";
/// The programs that must run before the kill, or the test proves nothing.
const PROGRAMS: [&str; 5] = [
    "kube-apiserver",
    "kubelet",
    "containerd",
    "containerd-shim",
    "server",
];

pub fn trial() -> Trial {
    Trial::test(NAME, || {
        killed();
        Ok(())
    })
}

pub fn asked_to_be_killed() -> bool {
    std::env::args()
        .nth(1)
        .is_some_and(|first| first == UNTIL_KILLED)
}

/// Runs a node with pods until it is killed.
pub async fn run_until_killed(isolation: Isolation) -> ! {
    let cluster = Cluster::start(&isolation).await;
    let namespace = TestNamespace::start(&cluster.control_plane, "killed")
        .await
        .unwrap();
    namespace.kubectl_apply(deployment("")).await.unwrap();
    let all_ready = |pods: &Objects| pods.values().filter(|pod| is_ready(pod)).count() == REPLICAS;
    namespace
        .eventually_all(RUNNING, PATIENCE, &POD, &Selection::Labelled(""), all_ready)
        .await;
    println!("{RUNNING} in {}", isolation.folder().display());
    std::future::pending().await
}

fn killed() {
    let links = links();
    let mut parent = start();
    let folder = await_pods(&mut parent);
    let folder = Path::new(&folder);
    let group = folder.file_name().unwrap().to_str().unwrap();
    let family = descendants(parent.id());
    assert_complete(&family);
    assert!(
        !control_groups(group).is_empty(),
        "the pods have no control group"
    );
    progress(&format!(
        "killing a test whose node has {} processes",
        family.len()
    ));
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually("its processes are gone", || {
        !family.iter().any(|pid| is_alive(*pid))
    });
    eventually("its control groups are gone", || {
        control_groups(group).is_empty()
    });
    eventually("its folder is gone", || !folder.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(group), "a mount is left:\n{mounts}");
    assert_eq!(self::links(), links, "a link of the network is left");
}

fn start() -> Child {
    let this = std::env::current_exe().unwrap();
    Command::new(this)
        .arg(UNTIL_KILLED)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the line with the folder of the running pods.
fn await_pods(parent: &mut Child) -> String {
    let output = BufReader::new(parent.stdout.take().unwrap());
    let folder = |line: String| Some(line.strip_prefix(RUNNING)?.strip_prefix(" in ")?.to_owned());
    let found = output.lines().map_while(Result::ok).find_map(folder);
    found.unwrap_or_else(|| panic!("the node did not come up: {:?}", parent.wait()))
}

fn assert_complete(family: &[u32]) {
    let names: BTreeSet<String> = family.iter().map(|pid| name_of(*pid)).collect();
    for program in PROGRAMS {
        assert!(
            names.iter().any(|name| name.starts_with(program)),
            "no {program} among {names:?}"
        );
    }
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn is_alive(pid: u32) -> bool {
    // A zombie has ended; it is reaped by its parent.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Every control group of that name, and those below it.
fn control_groups(name: &str) -> Vec<String> {
    let found = Command::new("find")
        .args([
            "/sys/fs/cgroup",
            "-type",
            "d",
            "-path",
            &format!("*/{name}*"),
        ])
        .output();
    String::from_utf8_lossy(&found.unwrap().stdout)
        .lines()
        .map(ToOwned::to_owned)
        .collect()
}

/// The names of the machine's network links.
fn links() -> BTreeSet<String> {
    let links = fs::read_to_string("/proc/net/dev").unwrap();
    links
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect()
}

fn eventually(description: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{description}: not within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}
