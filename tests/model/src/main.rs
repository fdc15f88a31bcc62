//! The decision, proven: every reachable state of a bounded world around the operator's own `decide` and `summarize`.
//!
//! Absent: a second implementation of any rule. Only registry, store, Deployment controller and people are played.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test's way to fail

mod bounds;
mod check;
mod histories;
mod mutations;
mod objects;
mod pass;
mod policy;
mod properties;
mod settle;
mod statuses;
mod steps;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    // Each check takes all processors.
    arguments.test_threads = Some(1);
    let exhaustive = bounds::all().into_iter().map(|bound| {
        Trial::test(format!("every state: {}", bound.name), move || {
            all_hold(&check::check(bound, policy::Policy(None), None))
        })
    });
    let trials = exhaustive
        .chain(mutations::trials())
        .chain([histories::trial()]);
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn all_hold(found: &check::Found) -> Result<(), Failed> {
    let told: Vec<String> = found
        .failures
        .iter()
        .map(|(sentence, path)| format!("it is not so that {sentence}:\n{path}"))
        .collect();
    if told.is_empty() {
        Ok(())
    } else {
        Err(told.join("\n").into())
    }
}
