//! Measures what the performance goals are about: the release build, on a real control plane and a real MLflow.
//!
//! Absent: a verdict that fails a build. A machine that is busy with something else misses goals too.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a measurement that cannot be made ends with a panic that says why
#![allow(missing_docs)]

mod crowd;
mod failures;
mod figures;
mod fleet;
mod ground;
mod moves;
mod moves_at_once;
mod report;
mod settled;
mod sightings;

use std::time::Duration;

use ground::Ground;
use report::{Conditions, Report};

/// What was asked for: `cargo bench --profile dev --bench pointsman -- [--quick] [--write] [--only moves|failures|settled] [--settled 300]`.
struct Options {
    /// Fewer moves and a shorter look at the settled cluster: for trying the measurement itself.
    quick: bool,
    /// Rewrites docs/performance.md.
    write: bool,
    /// One half of the measurement.
    only: Option<String>,
    /// How many seconds the settled cluster is looked at.
    settled: u64,
}

impl Options {
    fn read() -> Self {
        let given: Vec<String> = std::env::args().skip(1).collect();
        let after = |flag: &str| given.iter().position(|each| each == flag).and_then(|at| given.get(at + 1)).cloned();
        let has = |flag: &str| given.iter().any(|each| each == flag);
        let quick = has("--quick");
        let settled = after("--settled").map(|seconds| seconds.parse().expect("--settled takes a number of seconds"));
        let settled = settled.unwrap_or(if quick { 30 } else { 300 });
        Self { quick, write: has("--write"), only: after("--only"), settled }
    }

    fn includes(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn main() {
    pointsman_env::leash_if_asked();
    let options = Options::read();
    let report = tokio::runtime::Runtime::new().unwrap().block_on(measure(&options));
    println!("{}", report.table());
    if options.write {
        assert!(!options.quick && options.only.is_none(), "--write goes with a whole run, without --quick and --only");
        report.write();
    }
}

async fn measure(options: &Options) -> Report {
    let mut conditions = Conditions::read();
    let ground = Ground::start().await;
    let mut goals = Vec::new();
    if options.includes("moves") {
        goals.extend(moves::requested(&ground, if options.quick { 10 } else { 50 }).await);
    }
    // One after the other: a hundred rollouts on the same cores delay a move by seconds.
    if options.includes("moves") {
        goals.extend(moves::polled(&ground, if options.quick { 4 } else { 20 }).await);
    }
    if options.includes("failures") {
        goals.extend(failures::measured(&ground, if options.quick { 3 } else { 20 }).await);
    }
    if options.includes("settled") {
        goals.extend(settled::measured(&ground, Duration::from_secs(options.settled)).await);
    }
    ground.end().await;
    conditions.ended();
    Report { conditions, goals }
}
