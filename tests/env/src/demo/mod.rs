//! The demo: a model is trained and registered, its alias moves 1 → 2 → 3 → 1, and the Deployment follows, back
//! from 3 by itself; told as it happens.
//! Absent: expectations about corner cases; the scenarios have those.

mod cluster;
mod live;
mod operator;
mod story;

use std::time::Duration;

use pointsman_env::cache::Cache;
use pointsman_env::prerequisites::{self, Prerequisite};
use pointsman_env::python::{self, MlflowVersion};
use pointsman_env::{Error, Result, Tools};
use tokio::signal::unix::{Signal, SignalKind, signal};

use cluster::Cluster;

/// How long the removal of what the demo made on somebody's cluster may take.
const CLEANING: Duration = Duration::from_secs(120);

/// Runs the demo on a throw-away control plane, or on the cluster of a context of the user's kubeconfig.
pub async fn demo(context: Option<String>) -> Result<()> {
    prerequisites::check(&[Prerequisite::Python, Prerequisite::Compiler])?;
    // What is built here is built once and may take minutes: until it is there, a signal simply ends this process.
    let tools = tokio::task::block_in_place(|| Tools::locate(&Cache::open()?))?;
    python::environment(MlflowVersion::Three).await?;
    let mut signals = Signals::listen()?;
    let told = tell(&tools, context, &mut signals).await;
    pointsman_env::process::remove_run_folders();
    told
}

async fn tell(tools: &Tools, context: Option<String>, signals: &mut Signals) -> Result<()> {
    let cluster = tokio::select! {
        opened = Cluster::open(tools, context) => opened?,
        stopped = signals.next() => return Err(stopped),
    };
    // The operator and MLflow end with the story, however it ends.
    let told = tokio::select! {
        told = story::tell(&cluster, tools) => told,
        stopped = signals.next() => Err(stopped),
    };
    let cleaned = tokio::select! {
        cleaned = tokio::time::timeout(CLEANING, cluster.clean()) => cleaned,
        stopped = signals.next() => Ok(Err(stopped)),
    };
    let cleaned = cleaned.unwrap_or_else(|_| {
        Err(Error::new(
            "removing what the demo made",
            "it takes too long",
        ))
    });
    let cleaned = cleaned.map_err(|error| error.remedy(cluster.how_to_clean()));
    told.and(cleaned)
}

/// The ways in which somebody stops the demo.
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
            "telling the demo",
            format_args!("stopped by {by}; what it started is ended"),
        )
    }
}
