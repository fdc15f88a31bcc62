//! Rollouts and rollbacks on real pods: a kubelet runs them, they serve, crash and drain, and every request is counted.
//!
//! Absent: behaviour that kwok's pods show as well (`tests/scenarios`), and files that stay on the machine. If no real node can
//! run here, these tests print the cause and pass.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic fails the test
#![allow(missing_docs, clippy::needless_pass_by_value)]

mod blame;
mod cleanup;
mod fixture;
mod in_cluster;
mod moves;
mod table;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use fixture::{Environment, Scenario};
use libtest_mimic::{Arguments, Failed, Trial};
use pointsman_env::cache::Cache;
use pointsman_env::node::{self, Isolation, isolation};
use pointsman_env::python::{self, MlflowVersion};
use pointsman_env::{NodeTools, Tools};

fn main() -> ExitCode {
    pointsman_env::supervise_if_asked();
    if let Some(isolation) = isolation::isolated_if_asked() {
        return within(isolation);
    }
    if cleanup::asked_to_be_killed() {
        return isolation::run(&[cleanup::UNTIL_KILLED.into()]).unwrap();
    }
    outside()
}

/// Builds the tools and runs the cleanup test on the machine itself; the other tests run isolated.
fn outside() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list || !is_wanted(&arguments) {
        return only_name(&arguments);
    }
    let missing = node::missing();
    if !missing.is_empty() {
        eprintln!(
            "skipped, because no real node can run here: {}",
            missing.join("; ")
        );
        return only_name(&arguments);
    }
    build();
    let cleanup = libtest_mimic::run(&arguments, vec![cleanup::trial()]);
    let isolated = isolation::run(&std::env::args_os().skip(1).collect::<Vec<OsString>>()).unwrap();
    if cleanup.has_failed() {
        cleanup.exit_code()
    } else {
        isolated
    }
}

fn only_name(arguments: &Arguments) -> ExitCode {
    let isolated = names().map(|name| Trial::test(name, || Ok(())));
    let trials = isolated
        .chain([cleanup::trial()])
        .map(|trial| trial.with_ignored_flag(true))
        .collect();
    // `--ignored` would run the tests that cannot run here.
    let arguments = Arguments {
        ignored: false,
        include_ignored: false,
        ..arguments.clone()
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn is_wanted(arguments: &Arguments) -> bool {
    let mut names = names().chain([cleanup::NAME]);
    let fits = |name: &str| {
        arguments
            .filter
            .as_deref()
            .is_none_or(|filter| name.contains(filter))
    };
    names.any(fits)
}

fn names() -> impl Iterator<Item = &'static str> {
    let all = moves::all().into_iter().chain(waiting());
    all.map(|(name, _scenario)| name)
}

/// The scenarios that wait most of the time.
fn waiting() -> Vec<Scenario> {
    let all = blame::all().into_iter().chain(in_cluster::all());
    all.collect()
}

/// Builds on the machine, because the isolated process has no network for downloads.
fn build() {
    let cache = Cache::open().unwrap();
    Tools::locate(&cache).unwrap_or_else(|error| panic!("{error}"));
    NodeTools::locate(&cache).unwrap_or_else(|error| panic!("{error}"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(python::environment(MlflowVersion::Three))
        .unwrap_or_else(|error| panic!("{error}"));
}

fn within(isolation: Isolation) -> ExitCode {
    let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
    if isolation
        .arguments()
        .iter()
        .any(|argument| argument == cleanup::UNTIL_KILLED)
    {
        runtime.block_on(cleanup::run_until_killed(isolation));
    }
    let mut arguments = Arguments::from_iter(isolation.arguments());
    let environment = Arc::new(Environment::new(isolation));
    let mut run = |scenarios: Vec<Scenario>, at_once: usize| {
        arguments.test_threads = Some(at_once);
        let trials = scenarios.into_iter().map(|(name, scenario)| {
            let (runtime, environment) = (Arc::clone(&runtime), Arc::clone(&environment));
            Trial::test(name, move || {
                runtime
                    .block_on(scenario(environment))
                    .map_err(Failed::from)
            })
        });
        libtest_mimic::run(&arguments, trials.collect())
    };
    let waiting_ones = run(waiting(), waiting().len());
    // Concurrent tests would share two cores and disturb the measurements.
    let moves = run(moves::all(), 1);
    environment.print_results();
    runtime.block_on(environment.end());
    if waiting_ones.has_failed() {
        waiting_ones.exit_code()
    } else {
        moves.exit_code()
    }
}
