//! What must be true in a cluster, told as sentences, on a real control plane and real MLflow servers.
//!
//! Absent: knowledge of the operator's inside. It runs as its binary, under the roles of the rendered chart.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test's way to fail
#![allow(
    missing_docs,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    clippy::manual_assert
)]

mod admission;
mod binding;
mod failure;
mod fixture;
mod model;
mod outage;
mod people;
mod process;
mod scale;
mod servers;
mod webhooks;

use std::sync::Arc;

use fixture::Environment;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

/// How many scenarios run side by side: they mostly wait for the cluster.
const SIDE_BY_SIDE: usize = 6;

fn main() {
    pointsman_env::supervise_if_asked();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(SIDE_BY_SIDE);
    let conclusion = tell_all(&arguments);
    conclusion.exit();
}

/// The environment ends before the process does, so that nothing is left running.
fn tell_all(arguments: &Arguments) -> Conclusion {
    let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
    let environment = Arc::new(Environment::default());
    let scenarios = [
        admission::scenarios(),
        binding::scenarios(),
        failure::scenarios(),
        model::scenarios(),
        outage::scenarios(),
        people::scenarios(),
        process::scenarios(),
        scale::scenarios(),
        servers::scenarios(),
        webhooks::scenarios(),
    ];
    let trial = |(name, scenario): fixture::Scenario| {
        let (runtime, environment) = (Arc::clone(&runtime), Arc::clone(&environment));
        Trial::test(name, move || {
            runtime
                .block_on(scenario(environment))
                .map_err(Failed::from)
        })
    };
    let conclusion = libtest_mimic::run(
        arguments,
        scenarios.into_iter().flatten().map(trial).collect(),
    );
    runtime.block_on(environment.end());
    drop(environment);
    pointsman_env::process::remove_run_folders();
    conclusion
}
