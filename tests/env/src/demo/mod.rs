//! The demo: a model is trained and registered, its alias moves 1 → 2 → 3 → 1, and the Deployment follows, back
//! after the failure of 3 by itself, with a line printed for each change.
//! Absent: assertions about corner cases; the scenarios have those.

mod changes;
mod cluster;
mod operator;
mod steps;

use std::time::Duration;

use pointsman_env::cache::Cache;
use pointsman_env::prerequisites::{self, Prerequisite};
use pointsman_env::python::{self, MlflowVersion};
use pointsman_env::{Error, Result, Tools};
use tokio::signal::unix::{Signal, SignalKind, signal};

use cluster::Cluster;

/// The time limit of the cleanup on a user's cluster.
const CLEANING: Duration = Duration::from_secs(120);

/// Runs the demo on a throw-away control plane, or on the cluster of a context of the user's kubeconfig.
pub async fn demo(context: Option<String>) -> Result<()> {
    prerequisites::check(&[Prerequisite::Python, Prerequisite::Compiler])?;
    // Builds happen once and may take minutes: until then a signal simply ends this process.
    let tools = tokio::task::block_in_place(|| Tools::locate(&Cache::open()?))?;
    python::environment(MlflowVersion::Three).await?;
    let mut signals = Signals::listen()?;
    let result = run(&tools, context, &mut signals).await;
    pointsman_env::process::remove_run_folders();
    if result.is_ok() {
        println!("\nThe demo is over, and its servers have ended. docs/quickstart.md goes on.");
    }
    result
}

async fn run(tools: &Tools, context: Option<String>, signals: &mut Signals) -> Result<()> {
    let cluster = tokio::select! {
        opened = Cluster::open(tools, context) => opened?,
        stopped = signals.next() => return Err(stopped),
    };
    // The operator and MLflow end with the demo.
    let result = tokio::select! {
        result = steps::run(&cluster, tools) => result,
        stopped = signals.next() => Err(stopped),
    };
    let cleaned = tokio::select! {
        cleaned = tokio::time::timeout(CLEANING, cluster.clean()) => cleaned,
        stopped = signals.next() => Ok(Err(stopped)),
    };
    let cleaned = cleaned.unwrap_or_else(|_| {
        Err(Error::new(
            "removing the objects of the demo",
            "it takes too long",
        ))
    });
    let cleaned = cleaned.map_err(|error| error.remedy(cluster.how_to_clean()));
    result.and(cleaned)
}

/// The ways to stop the demo.
struct Signals([(&'static str, Signal); 3]);

impl Signals {
    fn listen() -> Result<Self> {
        let on = |kind| signal(kind).map_err(|error| Error::new("preparing for signals", error));
        Ok(Self([
            ("Ctrl-C", on(SignalKind::interrupt())?),
            ("SIGTERM", on(SignalKind::terminate())?),
            ("the end of its terminal", on(SignalKind::hangup())?),
        ]))
    }

    async fn next(&mut self) -> Error {
        let Self([(first, interrupt), (second, terminate), (third, hangup)]) = self;
        let by = tokio::select! {
            _ = interrupt.recv() => first,
            _ = terminate.recv() => second,
            _ = hangup.recv() => third,
        };
        Error::new(
            "running the demo",
            format_args!("stopped by {by}; its processes have ended"),
        )
    }
}
