//! Measures the release build against its performance goals, on a real control plane and a real MLflow.
//!
//! Absent: an exit code for a missed goal. A busy machine misses goals too.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a measurement that fails ends with a panic that names the cause
#![allow(missing_docs)]

mod burst;
mod created;
mod disturbances;
mod durations;
mod environment;
mod failover;
mod failures;
mod false_alarms;
mod few_of_many;
mod gates;
mod growth;
mod hanging;
mod hostile_connections;
mod hostile_registry;
mod idle_cost;
mod inference_services;
mod memory_limit;
mod moves;
mod neighbours;
mod object_counter;
mod object_set;
mod observers;
mod options;
mod other_controllers;
mod peers;
mod per_model_timers;
mod plain_client;
mod plot;
mod plugin;
mod refused;
mod report;
mod scale;
mod settled;
mod status_checker;
mod tenants;
mod webhook;

use std::time::Duration;

use environment::Environment;
use options::{Options, Part};
use report::{Machine, Measurement, Report};

/// Parts that share one control plane.
const FEW_OBJECTS: [Part; 10] = [
    Part::Moves,
    Part::Webhook,
    Part::Failures,
    Part::HangingRollback,
    Part::Failover,
    Part::Settled,
    Part::HostileRegistry,
    Part::HostileConnections,
    Part::ApiOutage,
    Part::Neighbours,
];

fn main() {
    pointsman_env::supervise_if_asked();
    let options = Options::from_command_line();
    environment::release_build();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime.block_on(measure(&options));
    pointsman_env::process::remove_run_folders();
    println!("{}", report.table());
    if options.write {
        report.write(options.is_complete());
    }
}

async fn measure(options: &Options) -> Report {
    let mut machine = Machine::read();
    let mut measurements = Vec::new();
    if options.includes_any(&FEW_OBJECTS) {
        measurements.extend(measure_few_objects(options).await);
    }
    measurements.extend(measure_many_objects(options).await);
    measurements.extend(measure_gates(options).await);
    measurements.extend(measure_plugin(options).await);
    measurements.extend(measure_growth(options).await);
    machine.run_ended();
    Report {
        machine,
        measurements,
    }
}

/// Shows figures as soon as there are some, so that an interrupted run does not lose them.
fn print(measurements: Vec<Measurement>) -> Vec<Measurement> {
    for measurement in &measurements {
        eprintln!("  {measurement}");
    }
    measurements
}

/// One part after the other: a hundred rollouts on the same cores would delay a move by seconds.
async fn measure_few_objects(options: &Options) -> Vec<Measurement> {
    let mut all = Vec::new();
    let environment = Environment::start().await;
    if options.includes(Part::Moves) {
        all.extend(print(
            moves::measure_requested(&environment, options.quick_or(10, 50)).await,
        ));
        all.extend(print(
            moves::measure_polled(&environment, options.quick_or(4, 20)).await,
        ));
    }
    if options.includes(Part::Webhook) {
        let (own, real) = (options.quick_or(20, 200), options.quick_or(4, 20));
        all.extend(print(webhook::measure(&environment, own, real).await));
    }
    if options.includes(Part::Failures) {
        all.extend(print(
            failures::measure(&environment, options.quick_or(3, 20)).await,
        ));
    }
    if options.includes(Part::HangingRollback) {
        all.extend(print(
            hanging::measure(&environment, options.quick_or(1, 5)).await,
        ));
    }
    if options.includes(Part::Failover) {
        all.extend(print(
            failover::measure(&environment, options.quick_or(2, 5)).await,
        ));
    }
    if options.includes(Part::Settled) {
        all.extend(print(
            settled::measure(&environment, options.settled()).await,
        ));
    }
    all.extend(measure_robustness(options, &environment).await);
    environment.end().await;
    all
}

/// Moves while others, or the API server, misbehave.
async fn measure_robustness(options: &Options, environment: &Environment) -> Vec<Measurement> {
    let mut all = Vec::new();
    if options.includes(Part::HostileRegistry) {
        let seconds = options.quick_or(10, 60);
        all.extend(print(
            hostile_registry::measure(environment, Duration::from_secs(seconds)).await,
        ));
    }
    if options.includes(Part::HostileConnections) {
        let probes = options.quick_or(50, 1000);
        all.extend(print(
            hostile_connections::measure(environment, probes).await,
        ));
    }
    if options.includes(Part::ApiOutage) {
        let away = Duration::from_secs(options.quick_or(20, 60));
        all.extend(print(failover::measure_outages(environment, away).await));
    }
    if options.includes(Part::Neighbours) {
        let (moves, bindings) = (options.quick_or(4, 100), options.quick_or(20, 200));
        all.extend(print(
            neighbours::measure(environment, moves, bindings).await,
        ));
    }
    all
}

/// Each part has an environment of its own, so that the objects of one are no load for the next.
async fn measure_many_objects(options: &Options) -> Vec<Measurement> {
    let mut all = Vec::new();
    if options.includes(Part::Burst) {
        let environment = Environment::at_scale().await;
        let count = options.count_or(60, burst::MOVES);
        all.extend(print(
            burst::measure(&environment, count, options.rounds()).await,
        ));
        environment.end().await;
    }
    all.extend(measure_created(options).await);
    if options.includes(Part::FewOfMany) {
        let environment = Environment::start().await;
        let polls = options.quick_or(10, 60);
        all.extend(print(
            few_of_many::measure(&environment, &options.sizes(), polls).await,
        ));
        environment.end().await;
    }
    if options.includes(Part::Refused) {
        let environment = Environment::at_scale().await;
        let count = options.count_or(60, refused::BINDINGS);
        all.extend(print(
            refused::measure(&environment, count, options.settled()).await,
        ));
        environment.end().await;
    }
    if options.includes(Part::InferenceServices) {
        let environment = Environment::at_scale().await;
        let count = options.count_or(60, inference_services::OBJECTS);
        all.extend(print(
            inference_services::measure(&environment, count, options.settled()).await,
        ));
        environment.end().await;
    }
    if options.includes(Part::Tenants) {
        let environment = Environment::at_scale().await;
        let count = options.count_or(60, tenants::BINDINGS);
        all.extend(print(
            tenants::measure(&environment, count, options.settled()).await,
        ));
        environment.end().await;
    }
    if options.includes(Part::FalseAlarms) {
        let environment = Environment::at_scale().await;
        let count = options.count_or(30, false_alarms::ROLLOUTS);
        all.extend(print(
            false_alarms::measure(&environment, count, options.seed()).await,
        ));
        environment.end().await;
    }
    if options.includes(Part::Peers) {
        let plan = options.quick_or(peers::Plan::quick(), peers::Plan::full());
        all.extend(print(measure_peers(&plan).await));
    }
    all
}

async fn measure_created(options: &Options) -> Vec<Measurement> {
    let mut all = Vec::new();
    let count = options.count_or(60, created::OBJECTS);
    if options.includes(Part::Created) {
        all.extend(print(
            created::measure(created::Deployments::Existing, count).await,
        ));
    }
    if options.includes(Part::CreatedFromTemplates) {
        all.extend(print(
            created::measure(created::Deployments::FromTemplates, count).await,
        ));
    }
    all
}

async fn measure_gates(options: &Options) -> Vec<Measurement> {
    let mut all = Vec::new();
    if options.includes(Part::Gates) {
        let environment = Environment::start().await;
        let (evaluations, moves) = (options.quick_or(1_000, 100_000), options.quick_or(3, 20));
        all.extend(print(vec![gates::measure_evaluation(evaluations)]));
        all.extend(print(gates::measure_tags(&environment, moves).await));
        environment.end().await;
        let count = options.count_or(60, gates::BINDINGS);
        all.extend(print(
            gates::measure_settled(count, options.settled()).await,
        ));
    }
    all
}

async fn measure_plugin(options: &Options) -> Vec<Measurement> {
    let mut all = Vec::new();
    if options.includes(Part::Plugin) {
        let environment = Environment::start().await;
        let (count, runs) = (
            options.count_or(60, plugin::BINDINGS),
            options.quick_or(5, 50),
        );
        all.extend(print(plugin::measure(&environment, count, runs).await));
        environment.end().await;
    }
    all
}

async fn measure_growth(options: &Options) -> Vec<Measurement> {
    let mut all = Vec::new();
    if options.includes(Part::Growth) {
        let settled = options.settled();
        all.extend(print(
            growth::measure(&options.sizes(), settled, options.write).await,
        ));
    }
    if options.includes(Part::Memory) {
        all.extend(print(growth::measure_memory(&options.sizes()).await));
    }
    all
}

async fn measure_peers(plan: &peers::Plan) -> Vec<Measurement> {
    let environment = Environment::at_scale().await;
    let controllers = other_controllers::measure(&environment, plan).await;
    environment.end().await;
    let environment = Environment::at_scale().await;
    let measurements = peers::measure(&environment, plan, &controllers).await;
    environment.end().await;
    measurements
}
