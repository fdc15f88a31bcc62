//! How cost grows with the number of bindings: a table of the largest number with its goals, and drawings of all of them.
//!
//! Absent: how each figure is come by; see `settled_at_scale`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::figures::{Durations, megabytes, milliseconds};
use crate::moves_at_once::kind_of;
use crate::plot::{self, Point, Series};
use crate::report::Goal;
use crate::settled_at_scale::{Cost, Look, Rest, Start, measured as cost_of};

/// The interval between two looks; the default of `spec.interval`.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long a number is looked at that is not the largest.
const SHORT: Duration = Duration::from_secs(90);
const WRITES_GOAL: Duration = Duration::from_secs(300);
const START_GOAL: Duration = Duration::from_secs(10);
const BETWEEN_GOAL: f64 = 0.02;
/// How many models are asked for by one request.
const MODELS_A_REQUEST: usize = 1000;
/// Up to how many bindings a process may have how much memory.
const MEMORY_GOALS: [(usize, u64); 3] =
    [(0, 12_000_000), (1_000, 25_000_000), (10_000, 90_000_000)];

/// Every number in turn, the largest for the whole time.
pub async fn measured(sizes: &[usize], time: Duration, draw: bool) -> Vec<Goal> {
    let mut costs = Vec::new();
    for (index, count) in sizes.iter().enumerate() {
        let time = if index + 1 == sizes.len() {
            time
        } else {
            time.min(SHORT)
        };
        // A time too short for five looks has more of them.
        let interval = INTERVAL.min(time / 5).max(Duration::from_secs(5));
        costs.push(cost_of(*count, time, interval).await);
    }
    if draw {
        drawn(&costs);
    }
    let mut goals: Vec<Goal> = costs
        .first()
        .map(|cost| memory_goal(0, "", &[cost.empty]))
        .into_iter()
        .collect();
    goals.extend(costs.iter().flat_map(goals_of));
    goals
}

fn goals_of(cost: &Cost) -> Vec<Goal> {
    let count = cost.count;
    let restarted: Vec<u64> = cost.starts.iter().map(|start| start.memory).collect();
    let mut goals = vec![
        memory_goal(count, ", after rolling all out", &[cost.rolled_out]),
        memory_goal(count, ", after a restart", &restarted),
        start_goal(count, &cost.starts),
        burst(cost),
        Goal::noted(
            format!("{count} bindings made, rolled out and ready"),
            format!("{:.0} s", cost.made.as_secs_f64()),
        ),
    ];
    goals.extend(goals_at_rest(count, &cost.rest));
    goals
}

fn memory_goal(count: usize, when: &str, bytes: &[u64]) -> Goal {
    let most = bytes.iter().copied().max().unwrap_or_default();
    let least = bytes.iter().copied().min().unwrap_or_default();
    let figure = if least == most {
        megabytes(most)
    } else {
        format!("{} to {}", megabytes(least), megabytes(most))
    };
    let what = format!("resident memory, {count} bindings{when}");
    let goal = MEMORY_GOALS.iter().find(|(bindings, _)| *bindings == count);
    let goal = goal.map_or_else(
        || Goal::noted(what.clone(), figure.clone()),
        |(_, goal)| {
            Goal::checked(
                what.clone(),
                &format!("≤ {}", megabytes(*goal)),
                figure.clone(),
                most <= *goal,
            )
        },
    );
    goal.of_runs(bytes.len())
}

fn start_goal(count: usize, starts: &[Start]) -> Goal {
    let ready = Durations::of(starts.iter().map(|start| start.ready).collect());
    let patched = Durations::of(starts.iter().map(|start| start.patched).collect());
    let figure = format!(
        "ready: {}; last patched: {}",
        ready.in_seconds(),
        patched.in_seconds()
    );
    let what =
        format!("start to ready and converged, {count} bindings, 1 % of aliases moved meanwhile");
    let met = ready.max().max(patched.max()) <= START_GOAL;
    Goal::checked(what, "≤ 10 s", figure, met).of_runs(starts.len())
}

fn burst(cost: &Cost) -> Goal {
    let taken = Durations::of(cost.bursts.clone());
    let what = format!(
        "{} of {} aliases moved at once → last Deployment patched",
        cost.count / 10,
        cost.count
    );
    Goal::noted(what, taken.in_seconds()).of_runs(taken.count())
}

fn goals_at_rest(count: usize, rest: &Rest) -> Vec<Goal> {
    let bindings = format!("{count} settled bindings");
    let mut goals = vec![
        requests(count, rest),
        writes(&bindings, rest),
        between(&bindings, rest),
    ];
    if !rest.looks.is_empty() {
        let took = Durations::of(rest.looks.iter().map(Look::took).collect());
        let used = format!("{} of a processor", milliseconds(rest.each_look));
        goals.push(
            Goal::noted(format!("a look, {bindings}: the operator's work"), used)
                .of_runs(took.count()),
        );
        goals.push(
            Goal::noted(
                format!("a look, {bindings}: asked to answered by MLflow"),
                took.in_seconds(),
            )
            .of_runs(took.count()),
        );
    }
    goals
}

fn requests(count: usize, rest: &Rest) -> Goal {
    let (looks, wished) = (rest.looks.len(), count.div_ceil(MODELS_A_REQUEST));
    let figure = format!(
        "{} in {looks} looks ({} s)",
        rest.requests,
        rest.time.as_secs()
    );
    let what = format!(
        "requests to the registry, {count} models, interval {} s",
        rest.interval.as_secs()
    );
    Goal::checked(
        what,
        &format!("{wished} per interval"),
        figure,
        looks > 0 && rest.requests <= looks * wished,
    )
}

fn writes(bindings: &str, rest: &Rest) -> Goal {
    let mut kinds: Vec<String> = rest
        .writes
        .iter()
        .map(|write| kind_of(&write.path))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let figure = format!(
        "{} in {} s {}",
        rest.writes.len(),
        rest.time.as_secs(),
        kinds.join(", ")
    );
    let (what, figure) = (
        format!("writes to the API, {bindings}"),
        figure.trim_end().to_owned(),
    );
    // A shorter look can miss the goal, and cannot meet it.
    if rest.writes.is_empty() && rest.time < WRITES_GOAL {
        return Goal::noted(what, figure).against("0 in 5 minutes");
    }
    Goal::checked(what, "0 in 5 minutes", figure, rest.writes.is_empty())
}

fn between(bindings: &str, rest: &Rest) -> Goal {
    let figure = format!("{:.2} %", rest.between * 100.0);
    let what = format!("share of a core between looks, {bindings}");
    Goal::checked(what, "< 2 %", figure, rest.between < BETWEEN_GOAL)
}

fn drawn(costs: &[Cost]) {
    memory_drawn(costs);
    requests_drawn(costs);
    looks_drawn(costs);
    starts_drawn(costs);
    bursts_drawn(costs);
}

fn memory_drawn(costs: &[Cost]) {
    let rolled_out = each(costs, |cost| vec![in_megabytes(cost.rolled_out)]);
    let restarted = each(costs, |cost| {
        cost.starts
            .iter()
            .map(|start| in_megabytes(start.memory))
            .collect()
    });
    let series = [
        Series::new("after rolling all out", rolled_out),
        Series::new("after a restart", restarted),
    ];
    let goals = MEMORY_GOALS.iter().filter(|(count, _)| *count > 0);
    let goals: Vec<(usize, f64)> = goals
        .map(|(count, bytes)| (*count, in_megabytes(*bytes)))
        .collect();
    plot::growth(
        "Resident memory",
        "bindings",
        "MB",
        &series,
        &goals,
        &drawing("growth-memory.svg"),
    );
}

fn requests_drawn(costs: &[Cost]) {
    let requests = each(costs, |cost| {
        vec![ratio(cost.rest.requests, cost.rest.looks.len())]
    });
    let series = [Series::new("requests", requests)];
    plot::growth(
        "Questions of one look",
        "models",
        "requests",
        &series,
        &[],
        &drawing("growth-requests.svg"),
    );
}

fn looks_drawn(costs: &[Cost]) {
    let work = each(costs, |cost| vec![in_milliseconds(cost.rest.each_look)]);
    let took = each(costs, |cost| {
        cost.rest
            .looks
            .iter()
            .map(|look| in_milliseconds(look.took()))
            .collect()
    });
    let series = [
        Series::new("the operator's processor time", work),
        Series::new("asked to answered by MLflow", took),
    ];
    plot::growth(
        "One look that finds nothing new",
        "models",
        "ms",
        &series,
        &[],
        &drawing("growth-look.svg"),
    );
}

fn starts_drawn(costs: &[Cost]) {
    let ready = each(costs, |cost| {
        cost.starts
            .iter()
            .map(|start| start.ready.as_secs_f64())
            .collect()
    });
    let patched = each(costs, |cost| {
        cost.starts
            .iter()
            .map(|start| start.patched.as_secs_f64())
            .collect()
    });
    let series = [
        Series::new("ready", ready),
        Series::new("last of 1 % patched", patched),
    ];
    let (title, goal) = (
        "Start, 1 % of aliases moved meanwhile",
        [(10_000, START_GOAL.as_secs_f64())],
    );
    plot::growth(
        title,
        "bindings",
        "s",
        &series,
        &goal,
        &drawing("growth-start.svg"),
    );
}

fn bursts_drawn(costs: &[Cost]) {
    let bursts = each(costs, |cost| {
        cost.bursts.iter().map(Duration::as_secs_f64).collect()
    });
    let series = [Series::new("last Deployment patched", bursts)];
    let title = "A tenth of all aliases moved at once";
    plot::growth(
        title,
        "bindings",
        "s",
        &series,
        &[],
        &drawing("growth-burst.svg"),
    );
}

/// One point for each number of bindings; those without a figure are left out.
fn each(costs: &[Cost], of: impl Fn(&Cost) -> Vec<f64>) -> Vec<Point> {
    let points = costs.iter().map(|cost| (cost.count, of(cost)));
    points
        .filter(|(_, runs)| !runs.is_empty())
        .map(|(count, runs)| Point::of(count, runs))
        .collect()
}

fn drawing(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name)
}

fn in_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[allow(clippy::cast_precision_loss)] // a few requests
fn ratio(requests: usize, looks: usize) -> f64 {
    requests as f64 / looks.max(1) as f64
}

#[allow(clippy::cast_precision_loss)] // far from 2^52 bytes
fn in_megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_000_000.0
}
