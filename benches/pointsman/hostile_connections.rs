//! A thousand connections that hold what the operator lets them hold, on both ports: memory, probes, genuine deliveries.
//!
//! Absent: floods that fill the network.

use std::time::{Duration, Instant};

use pointsman_env::hostile::HostileConnections;
use pointsman_env::progress::Task;

use crate::durations::{Durations, Unit, megabytes};
use crate::environment::Environment;
use crate::report::Measurement;
use crate::webhook::WebhookFixture;

const CONNECTIONS: usize = 1000;
const MEMORY_GOAL: u64 = 20_000_000;
const PROBE_GOAL: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(20);

/// So many probes, with a genuine delivery after each fifth.
pub async fn measure(environment: &Environment, probes: usize) -> Vec<Measurement> {
    let fixture = WebhookFixture::start(environment, 2).await;
    let operator = &fixture.operator;
    let before = operator.resident_bytes().unwrap();
    let health = operator.health_address();
    let ports = [health, operator.webhook_address().unwrap()];
    let receiver: url::Url = fixture.receiver().parse().unwrap();
    let senders = ports.map(|port| {
        let address = port.parse().unwrap();
        HostileConnections::start(address, receiver.path(), CONNECTIONS / ports.len())
    });
    while senders
        .iter()
        .map(HostileConnections::opened)
        .sum::<usize>()
        < CONNECTIONS
    {
        tokio::time::sleep(PAUSE).await;
    }
    let task = Task::start("probes beside hostile connections", probes as u64);
    let http = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0);
    let http = http.build().unwrap();
    let (mut times, mut highest, mut accepted, mut sent) = (Vec::new(), before, 0, 0);
    for number in 0..probes {
        let started = Instant::now();
        let probe = http.get(format!("http://{health}/healthz")).send().await;
        assert!(probe.is_ok_and(|response| response.status().is_success()));
        times.push(started.elapsed());
        if number % 5 == 0 {
            let delivery = fixture.signed_delivery(number, "1");
            sent += 1;
            let response = http.execute(delivery).await;
            accepted += usize::from(response.is_ok_and(|each| each.status().is_success()));
        }
        highest = highest.max(operator.resident_bytes().unwrap());
        tokio::time::sleep(PAUSE).await;
        task.advance();
    }
    task.done();
    drop(senders);
    fixture.end().await;
    measurements(
        &Durations::of(times),
        highest.saturating_sub(before),
        accepted,
        sent,
    )
}

fn measurements(probes: &Durations, growth: u64, accepted: usize, sent: usize) -> Vec<Measurement> {
    let name = |what: &str| format!("{CONNECTIONS} hostile connections: {what}");
    vec![
        Measurement::new(name("more resident memory than before"), megabytes(growth))
            .with_goal("≤ 20 MB", growth <= MEMORY_GOAL),
        Measurement::new(name("/healthz"), probes.median_figure(Unit::Milliseconds))
            .with_goal("p99 ≤ 100 ms", probes.percentile(99) <= PROBE_GOAL)
            .of_runs(probes.count()),
        Measurement::new(
            name("genuine deliveries accepted"),
            format!("{accepted} of {sent}"),
        )
        .with_goal("all", accepted == sent)
        .of_runs(sent),
    ]
}
