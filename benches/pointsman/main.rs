//! Measures what the performance goals are about: the release build, on a real control plane and a real MLflow.
//!
//! Absent: a verdict that fails a build. A machine that is busy with something else misses goals too.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a measurement that cannot be made ends with a panic that says why
#![allow(missing_docs)]

mod controllers;
mod costs;
mod crowd;
mod failover;
mod failures;
mod figures;
mod fleet;
mod ground;
mod growth;
mod moves;
mod moves_at_once;
mod peers;
mod plot;
mod poller;
mod report;
mod settled;
mod settled_at_scale;
mod sightings;
mod watched_of_many;
mod webhook;

use std::time::Duration;

use ground::Ground;
use report::{Conditions, Goal, Report};

/// What was asked for: `cargo bench --profile dev --bench pointsman -- [--quick] [--write] [--only moves,scale] [--settled 300]
/// [--sizes 100,1000,10000]`.
struct Options {
    /// Fewer moves, fewer objects and a shorter look at the settled cluster: for trying the measurement itself.
    quick: bool,
    /// Rewrites docs/performance.md, or in it what was measured, and draws docs/growth-*.svg.
    write: bool,
    /// Draws docs/growth-*.svg, also where only a part is measured.
    draw: bool,
    /// Some parts of the measurement; all where it is empty.
    only: Vec<String>,
    /// How many seconds the settled cluster is looked at.
    settled: Duration,
    /// Numbers of bindings whose cost is compared, in ascending order.
    sizes: Vec<usize>,
}

/// Parts by name; `scale` stands for those that take thousands of objects.
const PARTS: [&str; 10] = [
    "moves",
    "failures",
    "settled",
    "failover",
    "webhook",
    "moves_at_once",
    "watched_of_many",
    "peers",
    "growth",
    "scale",
];
const FEW: [&str; 5] = ["moves", "failures", "settled", "failover", "webhook"];
const AT_SCALE: [&str; 4] = ["moves_at_once", "watched_of_many", "peers", "growth"];

impl Options {
    fn read() -> Self {
        let given: Vec<String> = std::env::args().skip(1).collect();
        let after = |flag: &str| {
            given
                .iter()
                .position(|each| each == flag)
                .and_then(|at| given.get(at + 1))
                .cloned()
        };
        let has = |flag: &str| given.iter().any(|each| each == flag);
        let quick = has("--quick");
        let settled = after("--settled").map(|seconds| {
            seconds
                .parse()
                .expect("--settled takes a number of seconds")
        });
        let settled = Duration::from_secs(settled.unwrap_or(if quick { 30 } else { 300 }));
        let sizes = after("--sizes")
            .unwrap_or_else(|| if quick { "20,60" } else { "100,1000,10000" }.to_owned());
        let write = has("--write");
        let draw = write || has("--draw");
        Self {
            quick,
            write,
            draw,
            only: parts(after("--only").as_deref()),
            settled,
            sizes: numbers(&sizes),
        }
    }

    fn includes(&self, part: &str) -> bool {
        let asked = |only: &String| only == part || (only == "scale" && AT_SCALE.contains(&part));
        self.only.is_empty() || self.only.iter().any(asked)
    }

    fn largest(&self) -> usize {
        self.sizes[self.sizes.len() - 1]
    }

    /// The one where it is tried, the other where it is measured.
    fn of<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }
}

fn parts(only: Option<&str>) -> Vec<String> {
    let parts: Vec<String> = only
        .into_iter()
        .flat_map(|only| only.split(','))
        .map(str::to_owned)
        .collect();
    for part in &parts {
        assert!(
            PARTS.contains(&part.as_str()),
            "--only {part}: write some of {}",
            PARTS.join(",")
        );
    }
    parts
}

fn numbers(list: &str) -> Vec<usize> {
    let number = |word: &str| {
        word.trim()
            .parse()
            .expect("--sizes takes numbers such as 100,1000,10000")
    };
    let mut numbers: Vec<usize> = list.split(',').map(number).collect();
    numbers.sort_unstable();
    assert!(
        numbers.first().is_some_and(|smallest| *smallest >= 10),
        "--sizes begin at 10: a tenth of them is moved"
    );
    numbers
}

fn main() {
    pointsman_env::supervise_if_asked();
    let options = Options::read();
    let whole = !options.quick && options.only.is_empty();
    assert!(
        !options.write || !options.quick,
        "--write goes without --quick"
    );
    let report = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(measure(&options));
    pointsman_env::process::remove_run_folders();
    println!("{}", report.table());
    if options.write {
        report.write(whole);
    }
}

async fn measure(options: &Options) -> Report {
    let mut conditions = Conditions::read();
    let mut goals = if FEW.iter().any(|part| options.includes(part)) {
        few_objects(options).await
    } else {
        Vec::new()
    };
    goals.extend(many_objects(options).await);
    conditions.ended();
    Report { conditions, goals }
}

/// At once, for who waits; and so that nothing is lost if a later part cannot be measured.
fn told(goals: Vec<Goal>) -> Vec<Goal> {
    for goal in &goals {
        eprintln!("  {goal}");
    }
    goals
}

/// What a few objects do. One after the other: a hundred rollouts on the same cores delay a move by seconds.
async fn few_objects(options: &Options) -> Vec<Goal> {
    let mut goals = Vec::new();
    let ground = Ground::start().await;
    if options.includes("moves") {
        goals.extend(told(moves::requested(&ground, options.of(10, 50)).await));
        goals.extend(told(moves::polled(&ground, options.of(4, 20)).await));
    }
    if options.includes("webhook") {
        goals.extend(told(
            webhook::measured(&ground, options.of(20, 200), options.of(4, 20)).await,
        ));
    }
    if options.includes("failures") {
        goals.extend(told(failures::measured(&ground, options.of(3, 20)).await));
    }
    if options.includes("failover") {
        goals.extend(told(failover::measured(&ground, options.of(2, 5)).await));
    }
    if options.includes("settled") {
        goals.extend(told(settled::measured(&ground, options.settled).await));
    }
    ground.end().await;
    goals
}

/// What thousands do, each on a ground of its own: what one leaves behind is not the next one's load.
async fn many_objects(options: &Options) -> Vec<Goal> {
    let mut goals = Vec::new();
    if options.includes("moves_at_once") {
        let ground = Ground::at_scale().await;
        let count = options.largest().min(moves_at_once::MOVES);
        goals.extend(told(
            moves_at_once::measured(&ground, count, options.of(2, 3)).await,
        ));
        ground.end().await;
    }
    if options.includes("watched_of_many") {
        let ground = Ground::start().await;
        goals.extend(told(
            watched_of_many::measured(&ground, &options.sizes, options.of(10, 60)).await,
        ));
        ground.end().await;
    }
    if options.includes("peers") {
        goals.extend(told(
            beside_peers(&options.of(peers::Plan::quick(), peers::Plan::whole())).await,
        ));
    }
    if options.includes("growth") {
        goals.extend(told(
            growth::measured(&options.sizes, options.settled, options.draw).await,
        ));
    }
    goals
}

async fn beside_peers(plan: &peers::Plan) -> Vec<Goal> {
    let ground = Ground::at_scale().await;
    let controllers = controllers::measured(&ground, plan).await;
    ground.end().await;
    let ground = Ground::at_scale().await;
    let goals = peers::measured(&ground, plan, &controllers).await;
    ground.end().await;
    goals
}
