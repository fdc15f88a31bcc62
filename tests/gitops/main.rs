//! The operator beside Argo CD and Flux: applications stay synced, and their health is what docs/reasons.md says.
//!
//! Absent: behaviour that shows without them (`tests/scenarios`). Without Redis or Git, these tests are skipped with the cause.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic fails the test
#![allow(
    missing_docs,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    clippy::manual_assert
)]

mod actions;
mod application;
mod argocd;
#[allow(dead_code, unused_imports, unused_macros)] // shared with tests/scenarios
#[path = "../scenarios/fixture.rs"]
mod fixture;
mod flux;
mod health;
mod kustomization;
mod objects;
mod options;
mod recorder;
mod scripts;
mod waves;
mod world;

use std::sync::Arc;

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use pointsman_env::gitops;
use world::{Test, World};

/// How many tests run concurrently: they mostly wait for the cluster.
const CONCURRENCY: usize = 4;

fn main() {
    pointsman_env::supervise_if_asked();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(CONCURRENCY);
    run_all(&arguments).exit();
}

/// Stops the servers before the process exits, so that nothing is left running.
fn run_all(arguments: &Arguments) -> Conclusion {
    let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
    let world = Arc::new(World::default());
    let trial = |(name, test): Test, is_skipped: bool| {
        let (runtime, world) = (Arc::clone(&runtime), Arc::clone(&world));
        Trial::test(name, move || {
            runtime.block_on(test(world)).map_err(Failed::from)
        })
        .with_ignored_flag(is_skipped)
    };
    let missing = gitops::missing();
    if let Some(missing) = &missing {
        eprintln!(
            "the tests beside Argo CD and Flux are skipped, because a program is missing: {missing}"
        );
    }
    let beside_tools = [
        argocd::tests(),
        actions::tests(),
        options::tests(),
        waves::tests(),
        flux::tests(),
    ];
    let beside_tools = beside_tools.into_iter().flatten();
    let mut trials: Vec<Trial> = beside_tools
        .map(|test| trial(test, missing.is_some()))
        .collect();
    trials.extend(scripts::tests().into_iter().map(|test| trial(test, false)));
    let conclusion = libtest_mimic::run(arguments, trials);
    runtime.block_on(world.environment.end());
    drop(world);
    pointsman_env::process::remove_run_folders();
    conclusion
}
