//! How nodes and pods behave where there is no kubelet: a pod does what its *behavior* says.
//! Nothing here runs, probes or serves: a behavior is only the status that a kubelet would have written.
//!
//! The behavior of a pod is chosen by its annotation [`BEHAVIOR_ANNOTATION`]: entries `<model version>=<behavior>`, where `*` is any
//! version, the first that fits counts. Without one the pod plays `ready`:
//!
//! | behavior | what the pod does |
//! |---|---|
//! | `ready` | runs and is ready at once; a Job's pod completes |
//! | `slow` | runs at once, is ready after three seconds |
//! | `never-ready` | runs, is never ready |
//! | `crash` | `CrashLoopBackOff`, with a restart count that grows to 6 |
//! | `flaky` | crashes twice, then runs and is ready |
//! | `image-pull` | `ImagePullBackOff`, stays Pending |
//! | `init-crash` | its init containers are in `CrashLoopBackOff`, stays Pending |
//! | `lose-readiness` | is ready, and after three seconds not any more |
//! | `fail` | ends as Failed: for a Job |
//!
//! Annotating a living pod with another behavior changes what it does from then on.

use std::fmt::Write;

use serde_json::{Value, json};

/// The annotation of a pod, and so of a pod template, that says how the pod behaves.
pub const BEHAVIOR_ANNOTATION: &str = "kwok.test/behavior";

const VERSION_ANNOTATION: &str = "pointsman.dev/model-version";

/// The configuration of kwok: one document for each stage, and one for how many pods it plays at a time.
pub(crate) fn configuration(many: bool) -> String {
    let mut stages = vec![
        node_stage(),
        stage(
            "pod-delete",
            "Pod",
            &[json!({"key": ".metadata.deletionTimestamp", "operator": "Exists"})],
            0,
            &json!({"delete": true}),
        ),
    ];
    stages.extend(pod_stages());
    if many {
        stages.push(json!({
            "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
            "kind": "KwokConfiguration",
            // kwok's own defaults are gone where there are options: only the first differs from them.
            "options": {
                "podPlayStageParallelism": 16,
                "nodePlayStageParallelism": 4,
                "nodeLeaseParallelism": 4,
                "podsOnNodeSyncParallelism": 1,
                "cidr": "10.0.0.1/24",
            },
        }));
    }
    stages.iter().fold(String::new(), |mut text, stage| {
        write!(text, "---\n{stage}\n").unwrap();
        text
    })
}

/// A node that kwok plays.
pub(crate) fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok"}},
    })
}

#[allow(clippy::too_many_lines)] // a list of stages, to be split
fn pod_stages() -> Vec<Value> {
    let ready = &status(
        "Running",
        Readiness::Ready,
        State::Running,
        State::Completed,
    );
    let unready = &status(
        "Running",
        Readiness::NotReady,
        State::Running,
        State::Completed,
    );
    let crashing = &status(
        "Running",
        Readiness::NotReady,
        State::Crashing,
        State::Completed,
    );
    vec![
        pod(
            "ready",
            &["ready"],
            &[is_ready(false), not_ended()],
            0,
            ready,
        ),
        pod(
            "job-complete",
            &["ready"],
            &[is_ready(true), of_job()],
            200,
            &status(
                "Succeeded",
                Readiness::NotReady,
                State::Completed,
                State::Completed,
            ),
        ),
        pod(
            "job-fail",
            &["fail"],
            &[not_ended()],
            200,
            &status(
                "Failed",
                Readiness::NotReady,
                State::Failed,
                State::Completed,
            ),
        ),
        pod("slow-start", &["slow"], &[pending()], 0, unready),
        pod(
            "slow-ready",
            &["slow"],
            &[is_ready(false), running()],
            3000,
            ready,
        ),
        pod("never-ready", &["never-ready"], &[pending()], 0, unready),
        pod(
            "ready-no-more",
            &["never-ready"],
            &[is_ready(true)],
            0,
            unready,
        ),
        pod(
            "lose-readiness-first",
            &["lose-readiness"],
            &[pending()],
            0,
            ready,
        ),
        pod(
            "lose-readiness-then",
            &["lose-readiness"],
            &[is_ready(true)],
            3000,
            unready,
        ),
        pod(
            "crash",
            &["crash"],
            &[fewer_restarts("containerStatuses", 6), not_ended()],
            300,
            crashing,
        ),
        pod(
            "flaky-crash",
            &["flaky"],
            &[fewer_restarts("containerStatuses", 2), not_ended()],
            300,
            crashing,
        ),
        pod(
            "flaky-ready",
            &["flaky"],
            &[
                enough_restarts("containerStatuses", 2),
                is_ready(false),
                not_ended(),
            ],
            300,
            ready,
        ),
        pod(
            "image-pull",
            &["image-pull"],
            &[pending(), not_waiting_for_image()],
            0,
            &status(
                "Pending",
                Readiness::NotReady,
                State::ImagePull,
                State::Completed,
            ),
        ),
        pod(
            "init-crash",
            &["init-crash"],
            &[pending(), fewer_restarts("initContainerStatuses", 6)],
            300,
            &status(
                "Pending",
                Readiness::NotReady,
                State::Initializing,
                State::Crashing,
            ),
        ),
    ]
}

fn pod(name: &str, plays: &[&str], when: &[Value], delay_milliseconds: u32, status: &str) -> Value {
    let mut expressions = vec![
        json!({"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}),
        json!({"key": play_of_pod(), "operator": "In", "values": plays}),
    ];
    expressions.extend_from_slice(when);
    stage(
        &format!("pod-{name}"),
        "Pod",
        &expressions,
        delay_milliseconds,
        &json!({"statusTemplate": status}),
    )
}

fn stage(
    name: &str,
    kind: &str,
    expressions: &[Value],
    delay_milliseconds: u32,
    next: &Value,
) -> Value {
    json!({
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": expressions},
            "delay": {"durationMilliseconds": delay_milliseconds},
            "next": next,
        },
    })
}

fn play_of_pod() -> String {
    format!(
        r#"(.metadata.annotations // {{}}) as $a | ($a["{VERSION_ANNOTATION}"] // "") as $v | [($a["{BEHAVIOR_ANNOTATION}"] // "") | split(",")[] | split("=") | select(.[0] == $v or .[0] == "*") | .[1]] | first // "ready""#
    )
}

fn is_ready(ready: bool) -> Value {
    let operator = if ready { "In" } else { "NotIn" };
    json!({"key": r#".status.conditions.[] | select( .type == "Ready" ) | .status"#, "operator": operator, "values": ["True"]})
}

fn pending() -> Value {
    json!({"key": ".status.phase", "operator": "In", "values": ["Pending"]})
}

fn running() -> Value {
    json!({"key": ".status.phase", "operator": "In", "values": ["Running"]})
}

fn not_ended() -> Value {
    json!({"key": ".status.phase", "operator": "In", "values": ["Pending", "Running"]})
}

fn of_job() -> Value {
    json!({"key": ".metadata.ownerReferences.[].kind", "operator": "In", "values": ["Job"]})
}

fn fewer_restarts(field: &str, limit: u32) -> Value {
    json!({"key": format!("(.status.{field}[0].restartCount // 0) < {limit} | tostring"), "operator": "In", "values": ["true"]})
}

fn enough_restarts(field: &str, limit: u32) -> Value {
    json!({"key": format!("(.status.{field}[0].restartCount // 0) >= {limit} | tostring"), "operator": "In", "values": ["true"]})
}

fn not_waiting_for_image() -> Value {
    json!({"key": ".status.containerStatuses[0].state.waiting.reason", "operator": "NotIn", "values": ["ImagePullBackOff"]})
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    NotReady,
}

#[derive(Clone, Copy)]
enum State {
    Running,
    Completed,
    Failed,
    Crashing,
    ImagePull,
    Initializing,
}

impl State {
    fn yaml(self) -> &'static str {
        match self {
            Self::Running => "{running: {startedAt: {{ $runningSince | Quote }}}}",
            Self::Completed => {
                "{terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}"
            }
            Self::Failed => {
                "{terminated: {exitCode: 1, reason: Error, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}"
            }
            Self::Crashing => {
                r#"{waiting: {reason: CrashLoopBackOff, message: "back-off restarting failed container"}}"#
            }
            Self::ImagePull => {
                r#"{waiting: {reason: ImagePullBackOff, message: "Back-off pulling image"}}"#
            }
            Self::Initializing => "{waiting: {reason: PodInitializing}}",
        }
    }

    /// A crash is one restart more; everything else leaves the count as it was.
    fn restarts(self, counted: &str) -> String {
        if matches!(self, Self::Crashing) {
            format!("{{{{ add {counted} 1 }}}}")
        } else {
            format!("{{{{ {counted} }}}}")
        }
    }

    fn last(self) -> &'static str {
        if matches!(self, Self::Crashing) {
            "\n  lastState: {terminated: {exitCode: 1, reason: Error, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}"
        } else {
            ""
        }
    }
}

/// The template of a pod's whole status. Its lists are read by index, so the restart count is that of the first container.
fn status(phase: &str, readiness: Readiness, containers: State, init_containers: State) -> String {
    let ready = readiness == Readiness::Ready;
    let initialized = !matches!(containers, State::Initializing);
    let mut text = String::from(concat!(
        "{{ $now := Now }}{{ $restarts := 0 }}{{ $initRestarts := 0 }}\n",
        "{{ $runningSince := $now }}\n",
        "{{ range .status.containerStatuses }}{{ $restarts = .restartCount }}{{ with .state.running }}{{ $runningSince = .startedAt }}{{ end }}{{ end }}\n",
        "{{ range .status.initContainerStatuses }}{{ $initRestarts = .restartCount }}{{ end }}\n",
        "conditions:\n",
    ));
    for (kind, holds) in [
        ("PodScheduled", true),
        ("Initialized", initialized),
        ("ContainersReady", ready),
        ("Ready", ready),
    ] {
        let value = if holds { "True" } else { "False" };
        writeln!(
            text,
            "- {{type: {kind}, status: \"{value}\", lastTransitionTime: {{{{ $now | Quote }}}}}}"
        )
        .unwrap();
    }
    text.push_str(&container_statuses(
        "containerStatuses",
        "containers",
        containers,
        "$restarts",
        ready,
    ));
    text.push_str(&container_statuses(
        "initContainerStatuses",
        "initContainers",
        init_containers,
        "$initRestarts",
        initialized,
    ));
    write!(text, "hostIP: 127.0.0.1\npodIP: 127.0.0.1\npodIPs: [{{ip: 127.0.0.1}}]\nphase: {phase}\nstartTime: {{{{ or .status.startTime $now | Quote }}}}\n").unwrap();
    text
}

fn container_statuses(field: &str, of: &str, state: State, counted: &str, ready: bool) -> String {
    let started = matches!(state, State::Running);
    format!(
        "{field}:\n{{{{ range .spec.{of} }}}}\n- name: {{{{ .name | Quote }}}}\n  image: {{{{ .image | Quote }}}}\n  ready: {ready}\n  started: {started}\n  restartCount: {restarts}\n  state: {state_yaml}{last}\n{{{{ end }}}}\n",
        restarts = state.restarts(counted),
        state_yaml = state.yaml(),
        last = state.last(),
    )
}

fn node_stage() -> Value {
    let not_ready = is_ready(false);
    stage(
        "node-ready",
        "Node",
        &[not_ready],
        0,
        &json!({"statusTemplate": NODE_STATUS}),
    )
}

const NODE_STATUS: &str = r#"{{ $now := Now }}{{ $since := or .metadata.creationTimestamp $now }}
conditions:
{{ range NodeConditions }}
- {type: {{ .type | Quote }}, status: {{ .status | Quote }}, reason: {{ .reason | Quote }}, message: {{ .message | Quote }}, lastHeartbeatTime: {{ $now | Quote }}, lastTransitionTime: {{ $since | Quote }}}
{{ end }}
addresses:
- {type: Hostname, address: {{ NodeName | Quote }}}
allocatable: {cpu: 1k, memory: 1Ti, pods: 1M}
capacity: {cpu: 1k, memory: 1Ti, pods: 1M}
nodeInfo: {architecture: amd64, operatingSystem: linux, kubeletVersion: kwok, kubeProxyVersion: kwok, containerRuntimeVersion: kwok, kernelVersion: kwok, osImage: kwok, bootID: "", machineID: "", systemUUID: ""}
phase: Running
"#;
