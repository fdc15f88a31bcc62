//! The model check: every reachable state of a bounded model around the operator's own `decide` and `summarize`.
//!
//! Absent: a second implementation of any rule. Only the registry, the store, the Deployment controller and people are simulated.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by a panic

mod bounds;
mod explore;
mod mutations;
mod objects;
mod policy;
mod properties;
mod quiescence;
mod random_paths;
mod reconciler;
mod state;
mod statuses;
mod steps;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    // Each exploration uses all processors.
    arguments.test_threads = Some(1);
    let exhaustive = bounds::all().into_iter().map(|bound| {
        Trial::test(format!("every state: {}", bound.name), move || {
            all_hold(&explore::explore(bound, policy::Policy(None), None))
        })
    });
    let trials = exhaustive
        .chain(mutations::trials())
        .chain([random_paths::trial()]);
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn all_hold(exploration: &explore::Exploration) -> Result<(), Failed> {
    let failures: Vec<String> = exploration
        .failures
        .iter()
        .map(|(sentence, path)| format!("this fails: {sentence}:\n{path}"))
        .collect();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("\n").into())
    }
}
