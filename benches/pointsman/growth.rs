//! Growth of the cost with the number of bindings: goals for each number, and plots of all of them.
//!
//! Absent: how a figure is measured; that is in scale.rs.

use std::path::PathBuf;
use std::time::Duration;

use crate::burst::kind_of;
use crate::durations::{Durations, Figure, Unit, megabytes};
use crate::plot::{self, Point, Series};
use crate::report::{Measurement, docs};
use crate::scale::{self, IdlePeriod, Memory, Poll, ScaleResult};

/// The default of `spec.interval`.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long bindings are observed at most, except for the largest number of them.
const SHORT: Duration = Duration::from_secs(90);
const WRITES_GOAL: Duration = Duration::from_secs(300);
const START_GOAL: Duration = Duration::from_secs(10);
const IDLE_SHARE_GOAL: f64 = 0.02;
const MODELS_PER_REQUEST: usize = 1000;
/// Bindings, and the most bytes for them.
const MEMORY_GOALS: [(usize, u64); 3] =
    [(0, 12_000_000), (1_000, 25_000_000), (10_000, 90_000_000)];

/// Measures every number; the largest is observed for the whole time.
pub async fn measure(sizes: &[usize], idle: Duration, draw: bool) -> Vec<Measurement> {
    let mut results = Vec::new();
    for (index, count) in sizes.iter().enumerate() {
        let is_largest = index + 1 == sizes.len();
        let idle = if is_largest { idle } else { idle.min(SHORT) };
        // There are at least five polls in the time.
        let interval = INTERVAL.min(idle / 5).max(Duration::from_secs(5));
        results.push(scale::measure(*count, idle, interval).await);
    }
    if draw {
        draw_plots(&results);
    }
    let memory: Vec<Memory> = results.iter().map(|result| result.memory.clone()).collect();
    let mut measurements = memory_measurements(&memory);
    for (index, result) in results.iter().enumerate() {
        let is_largest = index + 1 == results.len();
        let of_result = measurements_of(result).into_iter();
        measurements.extend(of_result.map(|each| {
            if is_largest {
                each
            } else {
                each.undocumented()
            }
        }));
    }
    measurements
}

/// Measures only the memory of every number.
pub async fn measure_memory(sizes: &[usize]) -> Vec<Measurement> {
    let mut memory = Vec::new();
    for count in sizes {
        memory.push(scale::measure_memory(*count, INTERVAL).await);
    }
    memory_measurements(&memory)
}

fn memory_measurements(memory: &[Memory]) -> Vec<Measurement> {
    let empty: Vec<u64> = memory.iter().map(|memory| memory.empty).collect();
    let mut measurements = vec![memory_measurement(0, "", &empty)];
    for memory in memory {
        let rolled_out = [memory.rolled_out];
        measurements.push(memory_measurement(
            memory.count,
            ", after rolling all out",
            &rolled_out,
        ));
        measurements.push(memory_measurement(
            memory.count,
            ", after a restart",
            &memory.restarted,
        ));
    }
    measurements
}

fn memory_measurement(count: usize, when: &str, bytes: &[u64]) -> Measurement {
    let most = bytes.iter().copied().max().unwrap_or_default();
    let least = bytes.iter().copied().min().unwrap_or_default();
    let spread = if bytes.len() == 1 {
        "-".to_owned()
    } else {
        format!("{} to {}", megabytes(least), megabytes(most))
    };
    let value = megabytes(most);
    let measurement = Measurement::new(
        format!("resident memory, {count} bindings{when}"),
        Figure { value, spread },
    );
    let measurement = measurement.of_runs(bytes.len());
    match MEMORY_GOALS.iter().find(|(bindings, _)| *bindings == count) {
        Some((_, goal)) => {
            measurement.with_goal(&format!("≤ {} MB", goal / 1_000_000), most <= *goal)
        }
        None => measurement,
    }
}

fn measurements_of(result: &ScaleResult) -> Vec<Measurement> {
    let mut measurements = Vec::from(start_measurements(result));
    measurements.push(burst_measurement(result));
    measurements.push(Measurement::new(
        format!(
            "{} bindings with a template created and ready",
            result.count
        ),
        format!("{:.0} s", result.created.as_secs_f64()),
    ));
    measurements.extend(idle_measurements(result.count, &result.idle));
    measurements
}

fn start_measurements(result: &ScaleResult) -> [Measurement; 2] {
    let (count, starts) = (result.count, &result.starts);
    let ready = Durations::of(starts.iter().map(|start| start.ready).collect());
    let patched = Durations::of(starts.iter().map(|start| start.patched).collect());
    let measurement = |what: &str, times: &Durations| {
        let name = format!("start with {count} bindings, 1 % of aliases moved meanwhile → {what}");
        Measurement::new(name, times.max_figure(Unit::Seconds))
            .with_goal("≤ 10 s", times.max() <= START_GOAL)
            .of_runs(times.count())
    };
    [
        measurement("ready", &ready),
        measurement("last Deployment patched", &patched),
    ]
}

fn burst_measurement(result: &ScaleResult) -> Measurement {
    let times = Durations::of(result.bursts.clone());
    let name = format!(
        "{} of {} aliases moved at once → last Deployment patched",
        result.count / 10,
        result.count
    );
    Measurement::new(name, times.median_figure(Unit::Seconds)).of_runs(times.count())
}

fn idle_measurements(count: usize, idle: &IdlePeriod) -> Vec<Measurement> {
    let bindings = format!("{count} settled bindings");
    let mut measurements = vec![
        requests_measurement(count, idle),
        writes_measurement(&bindings, idle),
        share_measurement(&bindings, idle),
    ];
    if idle.polls.is_empty() {
        return measurements;
    }
    let durations = Durations::of(idle.polls.iter().map(Poll::duration).collect());
    let processor_time = Unit::Milliseconds.format(idle.processor_time_per_poll);
    measurements.push(
        Measurement::new(
            format!("one poll, {bindings}: processor time"),
            processor_time,
        )
        .of_runs(durations.count()),
    );
    let name = format!("one poll, {bindings}: first request to last response of MLflow");
    measurements.push(
        Measurement::new(name, durations.median_figure(Unit::Seconds)).of_runs(durations.count()),
    );
    measurements
}

fn requests_measurement(count: usize, idle: &IdlePeriod) -> Measurement {
    let (polls, wanted) = (idle.polls.len(), count.div_ceil(MODELS_PER_REQUEST));
    let (seconds, interval) = (idle.duration.as_secs(), idle.interval.as_secs());
    let met = polls > 0 && idle.requests <= polls * wanted;
    Measurement::new(
        format!("requests to the registry, {count} models, interval {interval} s"),
        format!("{} in {polls} polls ({seconds} s)", idle.requests),
    )
    .with_goal(&format!("{wanted} per interval"), met)
}

/// The writes of a period without anything to do.
pub fn writes_measurement(bindings: &str, idle: &IdlePeriod) -> Measurement {
    let mut kinds: Vec<String> = idle
        .writes
        .iter()
        .map(|write| kind_of(&write.path))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let (writes, seconds) = (idle.writes.len(), idle.duration.as_secs());
    let figure = format!("{writes} in {seconds} s {}", kinds.join(", "));
    let measurement = Measurement::new(
        format!("writes to the API, {bindings}"),
        figure.trim_end().to_owned(),
    );
    // A shorter time can only miss the goal.
    if idle.writes.is_empty() && idle.duration < WRITES_GOAL {
        return measurement.with_undecided_goal("0 in 5 minutes");
    }
    measurement.with_goal("0 in 5 minutes", idle.writes.is_empty())
}

fn share_measurement(bindings: &str, idle: &IdlePeriod) -> Measurement {
    let figure = format!("{:.2} %", idle.share_outside_polls * 100.0);
    Measurement::new(format!("share of a core between polls, {bindings}"), figure)
        .with_goal("< 2 %", idle.share_outside_polls < IDLE_SHARE_GOAL)
}

fn draw_plots(results: &[ScaleResult]) {
    draw_memory(results);
    draw_requests(results);
    draw_polls(results);
    draw_starts(results);
    draw_bursts(results);
}

fn draw_memory(results: &[ScaleResult]) {
    let rolled_out = points(results, |result| {
        vec![in_megabytes(result.memory.rolled_out)]
    });
    let restarted = points(results, |result| {
        result
            .memory
            .restarted
            .iter()
            .copied()
            .map(in_megabytes)
            .collect()
    });
    let series = [
        Series::new("after rolling all out", rolled_out),
        Series::new("after a restart", restarted),
    ];
    let with_bindings = MEMORY_GOALS.iter().filter(|(count, _)| *count > 0);
    let goals: Vec<(usize, f64)> = with_bindings
        .map(|(count, bytes)| (*count, in_megabytes(*bytes)))
        .collect();
    let file = plot_file("growth-memory.svg");
    plot::growth("Resident memory", "bindings", "MB", &series, &goals, &file);
}

fn draw_requests(results: &[ScaleResult]) {
    let requests = points(results, |result| {
        vec![ratio(result.idle.requests, result.idle.polls.len())]
    });
    let series = [Series::new("requests", requests)];
    let file = plot_file("growth-requests.svg");
    plot::growth(
        "Requests of one poll",
        "models",
        "requests",
        &series,
        &[],
        &file,
    );
}

fn draw_polls(results: &[ScaleResult]) {
    let processor_time = points(results, |result| {
        vec![in_milliseconds(result.idle.processor_time_per_poll)]
    });
    let duration = points(results, |result| {
        result
            .idle
            .polls
            .iter()
            .map(|poll| in_milliseconds(poll.duration()))
            .collect()
    });
    let series = [
        Series::new("the operator's processor time", processor_time),
        Series::new("first request to last response", duration),
    ];
    let file = plot_file("growth-poll.svg");
    plot::growth(
        "One poll that finds nothing new",
        "models",
        "ms",
        &series,
        &[],
        &file,
    );
}

fn draw_starts(results: &[ScaleResult]) {
    let ready = points(results, |result| {
        result
            .starts
            .iter()
            .map(|start| start.ready.as_secs_f64())
            .collect()
    });
    let patched = points(results, |result| {
        result
            .starts
            .iter()
            .map(|start| start.patched.as_secs_f64())
            .collect()
    });
    let series = [
        Series::new("ready", ready),
        Series::new("last of 1 % patched", patched),
    ];
    let goal = [(10_000, START_GOAL.as_secs_f64())];
    let title = "Start, 1 % of aliases moved meanwhile";
    plot::growth(
        title,
        "bindings",
        "s",
        &series,
        &goal,
        &plot_file("growth-start.svg"),
    );
}

fn draw_bursts(results: &[ScaleResult]) {
    let bursts = points(results, |result| {
        result.bursts.iter().map(Duration::as_secs_f64).collect()
    });
    let series = [Series::new("last Deployment patched", bursts)];
    let title = "A tenth of all aliases moved at once";
    plot::growth(
        title,
        "bindings",
        "s",
        &series,
        &[],
        &plot_file("growth-burst.svg"),
    );
}

/// One point for each number of bindings that has a figure.
fn points(results: &[ScaleResult], runs_of: impl Fn(&ScaleResult) -> Vec<f64>) -> Vec<Point> {
    let mut points = Vec::new();
    for result in results {
        let runs = runs_of(result);
        if !runs.is_empty() {
            points.push(Point::of(result.count, runs));
        }
    }
    points
}

fn plot_file(name: &str) -> PathBuf {
    docs().join(name)
}

fn in_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[allow(clippy::cast_precision_loss)] // there are a few requests
fn ratio(requests: usize, polls: usize) -> f64 {
    requests as f64 / polls.max(1) as f64
}

#[allow(clippy::cast_precision_loss)] // resident memory is far below 2^52 bytes
fn in_megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_000_000.0
}
