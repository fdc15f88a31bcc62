//! Moves of one tenant beside hostile neighbours, each kind alone: webhook received → Deployment patched, compared with the time
//! without a neighbour.
//!
//! Absent: the memory of the neighbours' responses and connections; other parts have it.

use std::time::Duration;

use pointsman_env::hostile::{HostileConnections, HostileRegistry, RESPONSES, Response};
use pointsman_env::progress::Task;
use serde_json::json;

use crate::durations::{Durations, Unit, megabytes, ratio_figure};
use crate::environment::{Environment, apply, binding, deployment, model, registry};
use crate::hostile_registry::{REGISTRIES, start_registries};
use crate::memory_limit::MemoryLimit;
use crate::report::Measurement;
use crate::webhook::WebhookFixture;

const DEAD: &str = "dead";
const CONNECTIONS: usize = 260;
/// A neighbour is at work after this time.
const SETTLING: Duration = Duration::from_secs(15);
const P50_GOAL: f64 = 1.1;
const P99_GOAL: f64 = 2.0;
/// The memory limit of the chart.
const MEMORY_GOAL: u64 = 128 << 20;

#[derive(Clone, Copy, Debug)]
enum Neighbour {
    /// Registries whose small responses become large.
    LargeResponses,
    /// Registries that answer after twelve seconds with another page to come.
    SlowPages,
    /// Bindings whose files are in a bucket that does not answer.
    DeadBucket(usize),
    /// Connections to both ports that hold what they can.
    Connections,
}

/// What runs as long as a neighbour is there.
#[derive(Default)]
struct Running {
    registries: Vec<HostileRegistry>,
    _connections: Vec<HostileConnections>,
}

impl Neighbour {
    fn name(self) -> String {
        match self {
            Self::LargeResponses => format!("{REGISTRIES} registries with large responses"),
            Self::SlowPages => format!("{REGISTRIES} slow registries"),
            Self::DeadBucket(bindings) => format!("{bindings} bindings on a dead bucket"),
            Self::Connections => format!("{CONNECTIONS} hostile connections"),
        }
    }

    async fn start(self, fixture: &WebhookFixture) -> Running {
        match self {
            Self::LargeResponses => registries(fixture, &RESPONSES).await,
            Self::SlowPages => registries(fixture, &[Response::SlowPages]).await,
            Self::DeadBucket(bindings) => dead_bucket(fixture, bindings).await,
            Self::Connections => connections(fixture),
        }
    }
}

/// So many moves without a neighbour, and as many beside each.
pub async fn measure(environment: &Environment, moves: usize, bindings: usize) -> Vec<Measurement> {
    let mut fixture = WebhookFixture::start_with_neighbour(environment, "neighbours").await;
    let limit = MemoryLimit::of(fixture.operator.pid().unwrap(), MEMORY_GOAL);
    let quiet = fixture.move_times(moves).await;
    let mut measurements = vec![
        Measurement::new(
            "no neighbour: webhook received → Deployment patched",
            quiet.median_figure(Unit::Milliseconds),
        )
        .of_runs(quiet.count()),
    ];
    for neighbour in [
        Neighbour::LargeResponses,
        Neighbour::SlowPages,
        Neighbour::DeadBucket(bindings),
        Neighbour::Connections,
    ] {
        let task = Task::start(&neighbour.name(), 0);
        let running = neighbour.start(&fixture).await;
        tokio::time::sleep(SETTLING).await;
        task.done();
        let beside = fixture.move_times(moves).await;
        let asked = running.registries.iter().map(HostileRegistry::requests);
        assert!(
            running.registries.is_empty() || asked.sum::<usize>() > 0,
            "it was asked"
        );
        drop(running);
        fixture.remove_neighbour().await;
        measurements.extend(compared(neighbour, &beside, &quiet));
    }
    let peak = fixture.operator.peak_resident_bytes().unwrap();
    let name = format!(
        "hostile neighbours, a limit of 128 MiB by {}: highest resident memory",
        limit.kind()
    );
    fixture.end().await;
    drop(limit);
    measurements
        .push(Measurement::new(name, megabytes(peak)).with_goal("≤ 128 MiB", peak <= MEMORY_GOAL));
    measurements
}

fn compared(neighbour: Neighbour, beside: &Durations, quiet: &Durations) -> [Measurement; 2] {
    let (median, figure) = ratio_figure(beside, quiet);
    let ninety_ninth = |durations: &Durations| durations.percentile(99).as_secs_f64();
    let highest = ninety_ninth(beside) / ninety_ninth(quiet);
    let name = format!("beside {}: webhook → patch", neighbour.name());
    [
        Measurement::new(format!("{name}, p50 compared with none"), figure)
            .with_goal("≤ 1.1 ×", median <= P50_GOAL)
            .of_runs(beside.count()),
        Measurement::new(
            format!("{name}, p99 compared with none"),
            format!("{highest:.2}"),
        )
        .with_goal("≤ 2 ×", highest <= P99_GOAL)
        .of_runs(beside.count()),
    ]
}

async fn registries(fixture: &WebhookFixture, responses: &[Response]) -> Running {
    Running {
        registries: start_registries(fixture.neighbour(), responses).await,
        ..Running::default()
    }
}

/// Bindings of as many models, whose bucket does not answer in time.
async fn dead_bucket(fixture: &WebhookFixture, bindings: usize) -> Running {
    let bucket = HostileRegistry::start(Response::SlowPages).await.unwrap();
    let source = "s3://dead/{name}/{version}";
    fixture.seed(DEAD, bindings, source).await;
    let keys = json!({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": bucket.url(), "AWS_ALLOW_HTTP": "true"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"}, "stringData": keys});
    let mut mlflow = registry(&fixture.mlflow_url(), "10s");
    mlflow["spec"]["artifacts"] = json!({"secretRef": {"name": "store"}});
    let names: Vec<String> = (0..bindings)
        .map(|number| format!("{DEAD}-{number:05}"))
        .collect();
    apply(fixture.neighbour(), [secret, mlflow]).await;
    for object in [model, deployment, binding] {
        apply(fixture.neighbour(), names.iter().map(|name| object(name))).await;
    }
    Running {
        registries: vec![bucket],
        ..Running::default()
    }
}

fn connections(fixture: &WebhookFixture) -> Running {
    let operator = &fixture.operator;
    let receiver: url::Url = fixture.receiver().parse().unwrap();
    let ports = [
        operator.health_address(),
        operator
            .webhook_address()
            .expect("the chart enables webhooks"),
    ];
    let senders = ports.map(|port| {
        let address = port.parse().unwrap();
        HostileConnections::start(address, receiver.path(), CONNECTIONS / ports.len())
    });
    Running {
        _connections: senders.into(),
        ..Running::default()
    }
}
