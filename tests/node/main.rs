//! The same moves on real pods: a kubelet runs them, they serve, crash and drain, and every request to them is counted.
//!
//! Absent: what kwok's pods show as well (`tests/scenarios`), and anything that stays on the machine. Where no real node can
//! run, these say so and pass.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test's way to fail
#![allow(missing_docs, clippy::needless_pass_by_value)]

mod moves;
mod stage;
mod table;
mod traces;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use pointsman_env::cache::Cache;
use pointsman_env::node::{self, Apart, apart};
use pointsman_env::python::{self, MlflowVersion};
use pointsman_env::{NodeTools, Tools};
use stage::World;

fn main() -> ExitCode {
    pointsman_env::leash_if_asked();
    if let Some(apart) = apart::apart_if_asked() {
        return within(apart);
    }
    if traces::asked_to_be_killed() {
        return apart::run(&[traces::UNTIL_KILLED.into()]).unwrap();
    }
    outside()
}

/// What runs on the machine itself: building, and the look for traces. The rest runs apart from it.
fn outside() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list || !is_wanted(&arguments) {
        return only_name(&arguments);
    }
    let missing = node::missing();
    if !missing.is_empty() {
        eprintln!(
            "skipped, for no real node can run here: {}",
            missing.join("; ")
        );
        return only_name(&arguments);
    }
    build();
    let looked = libtest_mimic::run(&arguments, vec![traces::trial()]);
    let moved = apart::run(&std::env::args_os().skip(1).collect::<Vec<OsString>>()).unwrap();
    if looked.has_failed() {
        looked.exit_code()
    } else {
        moved
    }
}

fn only_name(arguments: &Arguments) -> ExitCode {
    let moves = moves::names()
        .into_iter()
        .map(|name| Trial::test(name, || Ok(())));
    let trials = moves
        .chain([traces::trial()])
        .map(|trial| trial.with_ignored_flag(true))
        .collect();
    // `--ignored` would run what cannot be run.
    let arguments = Arguments {
        ignored: false,
        include_ignored: false,
        ..arguments.clone()
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn is_wanted(arguments: &Arguments) -> bool {
    let names = moves::names().into_iter().chain([traces::NAME]);
    let fits = |name: &str| {
        arguments
            .filter
            .as_deref()
            .is_none_or(|filter| name.contains(filter))
    };
    names.into_iter().any(fits)
}

/// Here and not apart, where there is no network to fetch anything from.
fn build() {
    let cache = Cache::open().unwrap();
    Tools::locate(&cache).unwrap_or_else(|error| panic!("{error}"));
    NodeTools::locate(&cache).unwrap_or_else(|error| panic!("{error}"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(python::environment(MlflowVersion::Three))
        .unwrap_or_else(|error| panic!("{error}"));
}

fn within(apart: Apart) -> ExitCode {
    let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
    if apart
        .arguments()
        .iter()
        .any(|argument| argument == traces::UNTIL_KILLED)
    {
        runtime.block_on(traces::run_until_killed(apart));
    }
    let mut arguments = Arguments::from_iter(apart.arguments());
    // Side by side they would only share two cores, and measure each other.
    arguments.test_threads = Some(1);
    let world = Arc::new(World::new(apart));
    let trials = moves::all().into_iter().map(|(name, story)| {
        let (runtime, world) = (Arc::clone(&runtime), Arc::clone(&world));
        Trial::test(name, move || {
            runtime.block_on(story(world)).map_err(Failed::from)
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    world.tell();
    runtime.block_on(world.end());
    conclusion.exit_code()
}
