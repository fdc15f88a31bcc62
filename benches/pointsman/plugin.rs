//! The kubectl plugin: its start-up, and `status` over many bindings with a full history.
//!
//! Absent: an operator. The statuses are written as it would write them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kube::api::{Patch, PatchParams};
use pointsman_env::{TestNamespace, kinds};
use serde_json::{Value, json};

use crate::durations::{Durations, Unit};
use crate::environment::{Environment, apply, binding, release_build};
use crate::report::Measurement;

pub const BINDINGS: usize = 1000;
const PREFIX: &str = "plugin";
const STATUS_GOAL: Duration = Duration::from_millis(300);
const START_GOAL: Duration = Duration::from_millis(20);
/// The entries that the history has by default.
const HISTORY: usize = 10;
const CONCURRENT_WRITES: usize = 16;

pub async fn measure(environment: &Environment, count: usize, runs: usize) -> Vec<Measurement> {
    let namespace = environment.namespace(PREFIX).await;
    let names: Vec<String> = (0..count)
        .map(|number| format!("{PREFIX}-{number:05}"))
        .collect();
    apply(&namespace, names.iter().map(|name| binding(name))).await;
    write_statuses(&namespace, &names).await;
    let kubeconfig = environment.control_plane.admin_kubeconfig();
    let kubeconfig = kubeconfig.display().to_string();
    let status = [
        "status",
        "-n",
        namespace.namespace(),
        "--kubeconfig",
        &kubeconfig,
    ];
    let listed = time(&status, runs);
    let started = time(&["version", "--client"], runs);
    namespace.end().await.unwrap();
    vec![
        Measurement::new(
            format!("kubectl pointsman status over {count} bindings"),
            listed.median_figure(Unit::Milliseconds),
        )
        .with_goal("≤ 300 ms", listed.percentile(50) <= STATUS_GOAL)
        .of_runs(runs),
        Measurement::new(
            "start-up of the plugin, without the network",
            started.median_figure(Unit::Milliseconds),
        )
        .with_goal("≤ 20 ms", started.percentile(50) <= START_GOAL)
        .of_runs(runs),
    ]
}

/// How long the command takes, from its start as a process to its end.
fn time(arguments: &[&str], runs: usize) -> Durations {
    let run = |_| {
        let started = Instant::now();
        let status = Command::new(release_build())
            .args(arguments)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?}: {status}");
        started.elapsed()
    };
    Durations::of((0..runs).map(run).collect())
}

async fn write_statuses(namespace: &TestNamespace, names: &[String]) {
    let api = namespace.api(&kinds::ALIAS_BINDING);
    let written = stream::iter(names).map(|name| {
        let (api, patch) = (api.clone(), Patch::Merge(json!({"status": status(name)})));
        async move {
            api.patch_status(name, &PatchParams::default(), &patch)
                .await
                .unwrap();
        }
    });
    let written = written.buffer_unordered(CONCURRENT_WRITES);
    written.for_each(|()| std::future::ready(())).await;
}

fn status(name: &str) -> Value {
    let version = |number: usize| {
        json!({"model": name, "version": number.to_string(), "createdAt": "2026-11-20T12:00:00Z",
            "source": format!("runs:/0123456789abcdef0123456789abcdef/{number}"), "runID": "0123456789abcdef0123456789abcdef",
            "artifactURI": format!("s3://models.example/{name}/{number}")})
    };
    let history = (0..HISTORY).map(|age| {
        let mut entry = version(HISTORY - age);
        let (outcome, finished) = if age == 0 { ("Live", None) } else { ("Superseded", Some("2026-11-24T12:00:00Z")) };
        let more = json!({"outcome": outcome, "reason": "Live", "trigger": "AliasMove", "startedAt": "2026-11-21T12:00:00Z",
            "message": format!("version {} runs", HISTORY - age), "availableAt": "2026-11-21T12:00:10Z"});
        pointsman_env::resources::merge(&mut entry, more);
        if let Some(finished) = finished {
            entry["finishedAt"] = finished.into();
        }
        entry
    });
    let mut running = version(HISTORY);
    running["since"] = "2026-11-21T12:00:00Z".into();
    let condition = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": "Live", "message": "version 10 runs",
            "lastTransitionTime": "2026-11-21T12:00:00Z"})
    };
    json!({"follows": "champion", "wanted": HISTORY.to_string(), "running": running, "lastGood": version(HISTORY),
        "history": history.collect::<Vec<_>>(), "conditions": [condition("Ready"), condition("Resolved")]})
}
