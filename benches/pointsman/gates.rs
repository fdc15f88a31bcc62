//! Gates: one evaluation, a tag that releases a version, and ten gates of each binding while there is nothing to do.
//!
//! Evaluations are measured in this process, which is a build without optimizations: the release build is faster.
//!
//! Absent: gates that fail for good. A binding that waits costs one request in each poll; `tests/scenarios` shows that.

use std::hint::black_box;
use std::time::{Duration, Instant};

use pointsman::api::{AliasBinding, ModelVersion};
use pointsman::rollout::expressions::{Expression, Facts, ModelFacts, compile};
use pointsman_env::progress::Task;
use serde_json::{Value, json};

use crate::durations::{Durations, Unit, megabytes};
use crate::environment::{Environment, binding, owning_binding};
use crate::growth::writes_measurement;
use crate::report::Measurement;
use crate::scale::{self, IdlePeriod, Memory};
use crate::webhook::WebhookFixture;

pub const BINDINGS: usize = 10_000;
const EVALUATION_GOAL: Duration = Duration::from_millis(1);
/// How much later than a moved alias a tag may act.
const TAG_GOAL: Duration = Duration::from_millis(50);
/// How much more memory bindings with gates may take.
const MEMORY_GOAL: f64 = 1.10;
/// The default of `spec.interval`.
const INTERVAL: Duration = Duration::from_secs(30);
const TAG: &str = "validation";
const PASSED: &str = "passed";

/// Ten gates as users have them. Each is true of the versions here, which have neither metrics nor tags.
const EXPRESSIONS: [&str; 10] = [
    "!has(candidate.metrics.rmse) || candidate.metrics.rmse <= current.metrics.rmse * 1.02",
    "!has(candidate.sizeBytes) || candidate.sizeBytes < 500 * MiB",
    "!has(candidate.durationSeconds) || candidate.durationSeconds < 2 * current.durationSeconds",
    r#"!("validation" in candidate.tags) || candidate.tags["validation"] == "passed""#,
    "!has(candidate.code.commit) || candidate.code.commit.size() == 40",
    r#"!("Approval" in candidate.tags) || candidate.tags["Approval"] == "approved""#,
    r#"!("blocked" in candidate.tags)"#,
    "int(candidate.version) >= 1",
    "candidate.createdAt <= now",
    r#"binding.name.startsWith("scale-")"#,
];

/// The time of one evaluation, of each expression in turn.
pub fn measure_evaluation(evaluations: usize) -> Measurement {
    let version = |rmse: &str| -> ModelVersion {
        let tags: serde_json::Map<String, Value> = (0..64)
            .map(|number| (format!("tag-{number}"), json!("x".repeat(250))))
            .collect();
        let version = json!({"version": "7", "metrics": {"rmse": rmse}, "sizeBytes": 1_000, "durationSeconds": 60, "tags": tags});
        serde_json::from_value(version).unwrap()
    };
    let (candidate, current) = (version("0.4"), version("0.5"));
    let binding: AliasBinding = serde_json::from_value(binding("scale-00000")).unwrap();
    let model = ModelFacts::default();
    let facts = Facts {
        candidate: &candidate,
        current: Some(&current),
        model: &model,
        binding: &binding,
        now: jiff::Timestamp::now(),
    };
    let compiled = EXPRESSIONS.map(compile);
    let expressions: Vec<&Expression> = compiled
        .iter()
        .map(|each| each.as_ref().as_ref().unwrap())
        .collect();
    let mut times = Vec::with_capacity(evaluations);
    for expression in expressions.iter().cycle().take(evaluations) {
        let began = Instant::now();
        let _ = black_box(expression.is_true(black_box(&facts)));
        times.push(began.elapsed());
    }
    let times = Durations::of(times);
    let figure = times.median_figure(Unit::Milliseconds);
    Measurement::new(
        "one gate evaluated, in a build without optimizations",
        figure,
    )
    .with_goal("p99 ≤ 1 ms", times.percentile(99) <= EVALUATION_GOAL)
    .of_runs(times.count())
}

/// A version that waits for a tag, and the tag that releases it; beside moves of an alias that nothing holds.
pub async fn measure_tags(environment: &Environment, moves: usize) -> Vec<Measurement> {
    let gate = json!([{"name": "validated", "expression": format!("candidate.tags[{TAG:?}] == {PASSED:?}")}]);
    let mut fixture = WebhookFixture::start(environment, 2 * moves + 2).await;
    fixture.subscribe().await;
    let (mut aliases, mut tags) = (Vec::new(), Vec::new());
    let task = Task::start(&format!("{moves} versions released by a tag"), moves as u64);
    for number in 0..moves {
        let free = (2 * number + 3).to_string();
        let began = Instant::now();
        fixture.set_alias(&free).await;
        aliases.push(fixture.patched(&free).await - began);
        let released = (2 * number + 4).to_string();
        fixture.spec(&json!({"promotion": {"gates": gate}})).await;
        fixture.set_alias(&released).await;
        fixture.reports("GateFailed").await;
        let began = Instant::now();
        fixture.set_tag(&released, TAG, PASSED).await;
        tags.push(fixture.patched(&released).await - began);
        fixture.spec(&json!({"promotion": null})).await;
        task.advance();
    }
    task.done();
    fixture.end().await;
    let (aliases, tags) = (Durations::of(aliases), Durations::of(tags));
    let measurement = |name: &str, times: &Durations| {
        Measurement::new(name, times.median_figure(Unit::Milliseconds)).of_runs(times.count())
    };
    let met = tags.percentile(50) <= aliases.percentile(50) + TAG_GOAL;
    vec![
        measurement(
            "tag set in MLflow → Deployment of the version that waited for it patched",
            &tags,
        )
        .with_goal("p50 ≤ 50 ms more than an alias", met),
        measurement("floor: the same for an alias, in between", &aliases).documented(),
    ]
}

/// Memory and writes with ten gates of each binding, beside the memory without.
pub async fn measure_settled(count: usize, settled: Duration) -> Vec<Measurement> {
    let (without, _) =
        scale::measure_settled(count, Duration::ZERO, INTERVAL, owning_binding).await;
    let (with, idle) = scale::measure_settled(count, settled, INTERVAL, gated_binding).await;
    vec![
        memory_measurement(&with, &without),
        gated_writes(count, &idle),
    ]
}

fn gated_writes(count: usize, idle: &IdlePeriod) -> Measurement {
    writes_measurement(&format!("{count} settled bindings with ten gates"), idle)
}

fn memory_measurement(with: &Memory, without: &Memory) -> Measurement {
    let most = |memory: &Memory| {
        memory
            .restarted
            .iter()
            .copied()
            .fold(memory.rolled_out, u64::max)
    };
    let (with_gates, plain) = (most(with), most(without));
    #[allow(clippy::cast_precision_loss)] // resident memory is far below 2^52 bytes
    let ratio = with_gates as f64 / plain as f64;
    let figure = format!(
        "{ratio:.2} ({} and {})",
        megabytes(with_gates),
        megabytes(plain)
    );
    let name = format!(
        "resident memory, {} bindings with ten gates, as a multiple of that without",
        with.count
    );
    Measurement::new(name, figure).with_goal("≤ 1.10", ratio <= MEMORY_GOAL)
}

fn gated_binding(name: &str) -> Value {
    let gate = |(number, expression): (usize, &&str)| json!({"name": format!("gate-{number}"), "expression": expression});
    let gates: Vec<Value> = EXPRESSIONS.iter().enumerate().map(gate).collect();
    let mut binding = owning_binding(name);
    binding["spec"]["promotion"] = json!({"gates": gates});
    binding
}
