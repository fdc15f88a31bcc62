//! Behaviour of the operator on a real control plane and real MLflow servers; a test's name is a sentence about it.
//!
//! Absent: the operator's internals. It runs as its binary, under the roles of the rendered chart.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic fails the test
#![allow(
    missing_docs,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    clippy::manual_assert
)]

mod admission;
mod api_server;
mod authors;
mod backup;
mod binding;
mod blame;
mod champion_challenger;
mod chart;
mod dashboard;
mod docs;
mod evidence;
mod failure;
mod fairness;
mod fixture;
mod gates;
mod hostile;
mod inject;
mod model;
mod outage;
mod ownership;
mod people;
mod plugin_actions;
mod plugin_read;
mod process;
mod promotion;
mod refusals;
mod release;
mod scale;
mod security;
mod servers;
mod serving;
mod stores;
mod targets;
mod targets_cron_job;
mod targets_other;
mod targets_rollout;
mod tenants;
mod uninstall;
mod upgrade;
mod webhooks;

use std::sync::Arc;

use fixture::Environment;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

/// How many scenarios run concurrently: they mostly wait for the cluster.
const CONCURRENCY: usize = 6;

fn main() {
    pointsman_env::supervise_if_asked();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(CONCURRENCY);
    let conclusion = run_all(&arguments);
    conclusion.exit();
}

/// Stops the environment before the process exits, so that nothing is left running.
fn run_all(arguments: &Arguments) -> Conclusion {
    let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
    let environment = Arc::new(Environment::default());
    let scenarios = [
        // The longest comes first.
        docs::scenarios(),
        admission::scenarios(),
        api_server::scenarios(),
        authors::scenarios(),
        backup::scenarios(),
        binding::scenarios(),
        blame::scenarios(),
        champion_challenger::scenarios(),
        chart::scenarios(),
        dashboard::scenarios(),
        evidence::scenarios(),
        failure::scenarios(),
        fairness::scenarios(),
        gates::scenarios(),
        hostile::scenarios(),
        inject::scenarios(),
        model::scenarios(),
        outage::scenarios(),
        ownership::scenarios(),
        people::scenarios(),
        plugin_read::scenarios(),
        plugin_actions::scenarios(),
        process::scenarios(),
        promotion::scenarios(),
        refusals::scenarios(),
        release::scenarios(),
        scale::scenarios(),
        security::scenarios(),
        servers::scenarios(),
        serving::scenarios(),
        stores::scenarios(),
        targets::scenarios(),
        targets_cron_job::scenarios(),
        targets_other::scenarios(),
        targets_rollout::scenarios(),
        tenants::scenarios(),
        uninstall::scenarios(),
        upgrade::scenarios(),
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
