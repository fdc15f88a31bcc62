//! The configuration of kwok, which writes the status of nodes and pods where there is no kubelet.
//! Absent: containers, probes and traffic; a pod's *behavior* is only the status that a kubelet would have written.
//!
//! The behavior of a pod is chosen by its annotation [`BEHAVIOR_ANNOTATION`]: entries `<model version>=<behavior>`, where `*`
//! is any version and the first matching entry counts. The default is `ready`:
//!
//! | behavior | status of the pod |
//! |---|---|
//! | `ready` | runs and is ready at once; a Job's pod completes |
//! | `slow` | runs at once, is ready after three seconds |
//! | `never-ready` | runs, is never ready |
//! | `crash` | `CrashLoopBackOff`, with a restart count that grows to 6 |
//! | `flaky` | crashes twice, then runs and is ready |
//! | `sidecar-crash` | the second container crashes five times, then the pod is ready; the first one runs all the time |
//! | `image-pull` | `ImagePullBackOff`, stays Pending |
//! | `slow-pull` | `ImagePullBackOff` for five seconds, then runs and is ready |
//! | `init-crash` | its init containers are in `CrashLoopBackOff`, stays Pending |
//! | `lose-readiness` | is ready, and loses readiness after three seconds |
//! | `fail` | ends as Failed: for a Job |
//!
//! The second container and all further ones are ready while they run.
//!
//! A change of a running pod's annotation changes its behavior from then on. Nodes and pods with the annotation
//! [`LOST_ANNOTATION`] are left as they are, as those of a node that lost its kubelet.

use std::fmt::Write;

use serde_json::{Value, json};

/// The annotation of a pod or pod template that chooses the behavior.
pub const BEHAVIOR_ANNOTATION: &str = "kwok.test/behavior";

/// The annotation, with any value, of a node and its pods that kwok must not change.
pub const LOST_ANNOTATION: &str = "kwok.test/lost";

const VERSION_ANNOTATION: &str = "pointsman.dev/model-version";

/// The configuration of kwok: one document for each stage and, for many pods, one with its concurrency.
pub(crate) fn configuration(many: bool) -> String {
    let mut stages = vec![
        node_stage(),
        stage(
            "pod-delete",
            "Pod",
            &[
                json!({"key": ".metadata.deletionTimestamp", "operator": "Exists"}),
                not_lost(),
            ],
            0,
            &json!({"delete": true}),
        ),
    ];
    stages.extend(pod_stages());
    if many {
        stages.push(json!({
            "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
            "kind": "KwokConfiguration",
            // Given options replace all defaults of kwok: only the first differs from its default.
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

/// A node that kwok keeps ready.
#[must_use]
pub fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok"}},
    })
}

fn pod_stages() -> Vec<Value> {
    let mut stages = stages_of_ready_pods();
    stages.extend(stages_of_unready_pods());
    stages.extend(stages_of_crashing_pods());
    stages.extend(stages_of_pending_pods());
    stages.extend(stages_of_job_pods());
    stages
}

fn stages_of_ready_pods() -> Vec<Value> {
    let ready = running_status(Readiness::Ready);
    let unready = running_status(Readiness::NotReady);
    let starts = [is_ready(false), not_ended()];
    let becomes_ready = [is_ready(false), running()];
    vec![
        pod("ready", "ready", &starts, 0, &ready),
        pod("slow-start", "slow", &[pending()], 0, &unready),
        pod("slow-ready", "slow", &becomes_ready, 3000, &ready),
    ]
}

fn stages_of_unready_pods() -> Vec<Value> {
    let ready = running_status(Readiness::Ready);
    let unready = running_status(Readiness::NotReady);
    let is_ready = [is_ready(true)];
    vec![
        pod("never-ready", "never-ready", &[pending()], 0, &unready),
        pod("ready-no-more", "never-ready", &is_ready, 0, &unready),
        pod(
            "lose-readiness-first",
            "lose-readiness",
            &[pending()],
            0,
            &ready,
        ),
        pod(
            "lose-readiness-then",
            "lose-readiness",
            &is_ready,
            3000,
            &unready,
        ),
    ]
}

fn stages_of_crashing_pods() -> Vec<Value> {
    let containers = "containerStatuses";
    let ready = running_status(Readiness::Ready);
    let crashing = status(
        "Running",
        Readiness::NotReady,
        State::Crashing,
        State::Completed,
    );
    let sidecar_crashing = status_with_sidecar(
        "Running",
        Readiness::NotReady,
        (State::Running, State::Crashing),
        State::Completed,
    );
    let (first, second) = (format!("{containers}[0]"), format!("{containers}[1]"));
    let six_times = [fewer_restarts(&first, 6), not_ended()];
    let twice = [fewer_restarts(&first, 2), not_ended()];
    let recovers = [enough_restarts(&first, 2), is_ready(false), not_ended()];
    let five_times = [fewer_restarts(&second, 5), not_ended()];
    let sidecar_recovers = [enough_restarts(&second, 5), is_ready(false), not_ended()];
    vec![
        pod("crash", "crash", &six_times, 300, &crashing),
        pod("flaky-crash", "flaky", &twice, 300, &crashing),
        pod("flaky-ready", "flaky", &recovers, 300, &ready),
        pod(
            "sidecar-crash",
            "sidecar-crash",
            &five_times,
            300,
            &sidecar_crashing,
        ),
        pod(
            "sidecar-ready",
            "sidecar-crash",
            &sidecar_recovers,
            300,
            &ready,
        ),
    ]
}

fn stages_of_pending_pods() -> Vec<Value> {
    let pulling = status(
        "Pending",
        Readiness::NotReady,
        State::ImagePull,
        State::Completed,
    );
    let initializing = status(
        "Pending",
        Readiness::NotReady,
        State::Initializing,
        State::Crashing,
    );
    let fails_to_pull = [pending(), not_waiting_for_image()];
    let pulls = [pending(), waiting_for_image()];
    let unready = [running(), is_ready(false)];
    let crashes = [pending(), fewer_restarts("initContainerStatuses[0]", 6)];
    let ready = running_status(Readiness::Ready);
    vec![
        pod("image-pull", "image-pull", &fails_to_pull, 0, &pulling),
        pod("slow-pull", "slow-pull", &fails_to_pull, 0, &pulling),
        pod("slow-pull-ready", "slow-pull", &pulls, 5000, &ready),
        pod("slow-pull-ready-again", "slow-pull", &unready, 0, &ready),
        pod("init-crash", "init-crash", &crashes, 300, &initializing),
    ]
}

fn stages_of_job_pods() -> Vec<Value> {
    let succeeded = status(
        "Succeeded",
        Readiness::NotReady,
        State::Completed,
        State::Completed,
    );
    let failed = status(
        "Failed",
        Readiness::NotReady,
        State::Failed,
        State::Completed,
    );
    let completes = [is_ready(true), of_job()];
    vec![
        pod("job-complete", "ready", &completes, 200, &succeeded),
        pod("job-fail", "fail", &[not_ended()], 200, &failed),
    ]
}

/// The status of a pod whose containers run.
fn running_status(readiness: Readiness) -> String {
    status("Running", readiness, State::Running, State::Completed)
}

fn pod(name: &str, behavior: &str, when: &[Value], delay_milliseconds: u32, status: &str) -> Value {
    let mut expressions = vec![
        json!({"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}),
        not_lost(),
        json!({"key": behavior_of_pod(), "operator": "In", "values": [behavior]}),
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

fn behavior_of_pod() -> String {
    format!(
        r#"(.metadata.annotations // {{}}) as $a | ($a["{VERSION_ANNOTATION}"] // "") as $v | [($a["{BEHAVIOR_ANNOTATION}"] // "") | split(",")[] | split("=") | select(.[0] == $v or .[0] == "*") | .[1]] | first // "ready""#
    )
}

fn not_lost() -> Value {
    json!({"key": format!(r#".metadata.annotations["{LOST_ANNOTATION}"]"#), "operator": "DoesNotExist"})
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

fn fewer_restarts(container: &str, limit: u32) -> Value {
    json!({"key": format!("(.status.{container}.restartCount // 0) < {limit} | tostring"), "operator": "In", "values": ["true"]})
}

fn enough_restarts(container: &str, limit: u32) -> Value {
    json!({"key": format!("(.status.{container}.restartCount // 0) >= {limit} | tostring"), "operator": "In", "values": ["true"]})
}

fn not_waiting_for_image() -> Value {
    json!({"key": ".status.containerStatuses[0].state.waiting.reason", "operator": "NotIn", "values": ["ImagePullBackOff"]})
}

fn waiting_for_image() -> Value {
    json!({"key": ".status.containerStatuses[0].state.waiting.reason", "operator": "In", "values": ["ImagePullBackOff"]})
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

/// The template of a pod's whole status, with all its containers in one state.
fn status(phase: &str, readiness: Readiness, containers: State, init_containers: State) -> String {
    status_with_sidecar(phase, readiness, (containers, containers), init_containers)
}

/// The same with the first container in one state and all others in another.
fn status_with_sidecar(
    phase: &str,
    readiness: Readiness,
    (first, others): (State, State),
    init_containers: State,
) -> String {
    let ready = readiness == Readiness::Ready;
    let initialized = !matches!(first, State::Initializing);
    let mut text = String::from(concat!(
        "{{ $now := Now }}{{ $restarts := 0 }}{{ $otherRestarts := 0 }}{{ $initRestarts := 0 }}\n",
        "{{ $runningSince := $now }}\n",
        "{{ range $index, $container := .status.containerStatuses }}",
        "{{ if $index }}{{ $otherRestarts = .restartCount }}{{ else }}{{ $restarts = .restartCount }}{{ end }}",
        "{{ with .state.running }}{{ $runningSince = .startedAt }}{{ end }}{{ end }}\n",
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
    let runs_beside = matches!((first, others), (State::Running, State::Crashing));
    let first = container_status(first, "$restarts", ready || runs_beside);
    let others_ready = ready || matches!(others, State::Running);
    let others = container_status(others, "$otherRestarts", others_ready);
    let init = container_status(init_containers, "$initRestarts", initialized);
    write!(text, "containerStatuses:\n{{{{ range $index, $container := .spec.containers }}}}{{{{ if $index }}}}{others}{{{{ else }}}}{first}{{{{ end }}}}{{{{ end }}}}\n").unwrap();
    write!(
        text,
        "initContainerStatuses:\n{{{{ range .spec.initContainers }}}}{init}{{{{ end }}}}\n"
    )
    .unwrap();
    write!(text, "hostIP: 127.0.0.1\npodIP: 127.0.0.1\npodIPs: [{{ip: 127.0.0.1}}]\nphase: {phase}\nstartTime: {{{{ or .status.startTime $now | Quote }}}}\n").unwrap();
    text
}

fn container_status(state: State, counted: &str, ready: bool) -> String {
    let started = matches!(state, State::Running);
    format!(
        "\n- name: {{{{ .name | Quote }}}}\n  image: {{{{ .image | Quote }}}}\n  ready: {ready}\n  started: {started}\n  restartCount: {restarts}\n  state: {state_yaml}{last}\n",
        restarts = state.restarts(counted),
        state_yaml = state.yaml(),
        last = state.last(),
    )
}

fn node_stage() -> Value {
    stage(
        "node-ready",
        "Node",
        &[is_ready(false), not_lost()],
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
