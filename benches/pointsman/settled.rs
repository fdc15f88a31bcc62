//! What an operator costs that has nothing to do: writes, questions to the registry, memory.
//!
//! Absent: moves.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_env::interceptor::{Interceptor, Request};
use pointsman_env::progress::Task;
use pointsman_env::{Kind, Operator, Selection, TestNamespace as Place, kinds};

use crate::figures::megabytes;
use crate::ground::{Ground, PATIENCE, apply, binding, deployment, is_ready, model, registry};
use crate::report::Goal;

const PREFIX: &str = "settled";
const INTERVAL: Duration = Duration::from_secs(10);
const MEMORY_GOAL: u64 = 30_000_000;
const WRITES_GOAL: Duration = Duration::from_secs(300);
const BINDINGS: usize = 100;
const MODELS: usize = 1000;
/// How long nothing is counted after something was declared.
const SETTLING: Duration = Duration::from_secs(10);
/// Requests that are closer together than this belong to one look.
const ONE_LOOK: Duration = Duration::from_secs(3);

/// One operator behind two proxies that count.
struct Stage {
    place: Place,
    operator: Operator,
    /// In front of the API server, for the operator only.
    api: Interceptor,
    /// In front of MLflow.
    registry: Interceptor,
}

impl Stage {
    async fn start(ground: &Ground) -> Self {
        let server = &ground.control_plane;
        let api = Interceptor::start(server.apiserver_url(), Some(server.ca_pem()))
            .await
            .unwrap();
        let registry = Interceptor::start(ground.mlflow.url(), None).await.unwrap();
        let place = ground.namespace(PREFIX).await;
        let operator = ground.operator(&place, PREFIX, Some(api.url())).await;
        Self {
            place,
            operator,
            api,
            registry,
        }
    }

    /// Declares these models, and waits until each has been mirrored.
    async fn watch(&self, numbers: std::ops::Range<usize>) {
        let expected = numbers.end;
        apply(&self.place, numbers.map(|number| model(&name(number)))).await;
        self.all_ready(&kinds::REGISTERED_MODEL, expected).await;
    }

    async fn bind(&self, count: usize) {
        apply(
            &self.place,
            (0..count).map(|number| deployment(&name(number))),
        )
        .await;
        apply(&self.place, (0..count).map(|number| binding(&name(number)))).await;
        self.all_ready(&kinds::ALIAS_BINDING, count).await;
    }

    async fn all_ready(&self, kind: &Kind, count: usize) {
        let what = format!("{count} {} are ready", kind.plural);
        let holds =
            |seen: &pointsman_env::Objects| seen.len() == count && seen.values().all(is_ready);
        self.place
            .eventually_all(&what, PATIENCE * 3, kind, &Selection::Labelled(""), holds)
            .await;
    }

    /// Counts for so long what an operator does that has nothing to do.
    async fn counted(&self, models: usize, time: Duration) -> Count {
        tokio::time::sleep(SETTLING).await;
        let (api, registry) = (self.api.mark(), self.registry.mark());
        tokio::time::sleep(time).await;
        let count = Count {
            models,
            time,
            writes: self.api.writes_since(api),
            questions: self.registry.since(registry),
        };
        count.tell();
        count
    }
}

fn name(number: usize) -> String {
    format!("{PREFIX}-{number:05}")
}

/// What went through the proxies.
struct Count {
    models: usize,
    time: Duration,
    writes: Vec<Request>,
    questions: Vec<Request>,
}

impl Count {
    /// How many looks the questions belong to.
    fn looks(&self) -> usize {
        let gaps = self
            .questions
            .windows(2)
            .filter(|pair| pair[1].at - pair[0].at > ONE_LOOK)
            .count();
        gaps + usize::from(!self.questions.is_empty())
    }

    /// Which requests these were, for whoever looks for a cause.
    fn tell(&self) {
        for (what, requests) in [("written", &self.writes), ("asked", &self.questions)] {
            let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
            for request in requests {
                *kinds
                    .entry(format!("{} {}", request.method, request.path))
                    .or_default() += 1;
            }
            for (request, times) in kinds {
                eprintln!("  {} models, {what} {times} times: {request}", self.models);
            }
        }
    }

    fn writes(&self) -> Goal {
        let figure = format!("{} in {} s", self.writes.len(), self.time.as_secs());
        let what = "writes to the API, 100 settled bindings";
        // A shorter look can miss the goal, and cannot meet it.
        if self.writes.is_empty() && self.time < WRITES_GOAL {
            return Goal::noted(what, figure).against("0 in 5 minutes");
        }
        Goal::checked(what, "0 in 5 minutes", figure, self.writes.is_empty())
    }

    fn questions(&self) -> Goal {
        let (asked, looks) = (self.questions.len(), self.looks());
        let figure = format!("{asked} in {looks} looks ({} s)", self.time.as_secs());
        let what = format!(
            "requests to the registry, {} models, interval {} s",
            self.models,
            INTERVAL.as_secs()
        );
        Goal::checked(what, "1 per interval", figure, looks > 0 && asked == looks)
    }
}

/// The whole of it, in the order in which a cluster grows.
pub async fn measured(ground: &Ground, time: Duration) -> Vec<Goal> {
    let short = time.min(INTERVAL * 4);
    ground.register(PREFIX, MODELS).await;
    let mut stage = Stage::start(ground).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let empty = stage.operator.resident_bytes().unwrap();
    apply(
        &stage.place,
        [registry(
            &stage.registry.url(),
            &format!("{}s", INTERVAL.as_secs()),
        )],
    )
    .await;

    let task = Task::start("1 model, counting", 0);
    stage.watch(0..1).await;
    let one = stage.counted(1, short).await;
    task.done();

    let task = Task::start("100 bindings, rolling out and then counting", 0);
    stage.watch(1..BINDINGS).await;
    stage.bind(BINDINGS).await;
    let hundred = stage.counted(BINDINGS, time).await;
    let bound = stage.operator.resident_bytes().unwrap();
    task.done();
    let (direct_empty, direct_bound) = restarted(ground, &stage.place).await;

    let task = Task::start("1000 models, counting", 0);
    stage.watch(BINDINGS..MODELS).await;
    let thousand = stage.counted(MODELS, short).await;
    let full = stage.operator.resident_bytes().unwrap();
    task.done();

    stage.operator.stop().unwrap();
    stage.place.end().await.unwrap();
    let mut goals = vec![hundred.writes()];
    goals.extend([one, hundred, thousand].iter().map(Count::questions));
    goals.extend(memory(&[empty, bound, full, direct_empty, direct_bound]));
    goals
}

/// The memory of a fresh operator that speaks TLS to the API server itself: with nothing to watch, and with all that is there.
async fn restarted(ground: &Ground, place: &Place) -> (u64, u64) {
    let task = Task::start("memory after a start, without proxies", 0);
    let nothing = ground.namespace("empty").await;
    let mut memory = Vec::new();
    for (place, release) in [(&nothing, "empty"), (place, "restarted")] {
        let mut operator = ground.operator(place, release, None).await;
        tokio::time::sleep(SETTLING).await;
        memory.push(operator.resident_bytes().unwrap());
        operator.stop().unwrap();
    }
    nothing.end().await.unwrap();
    task.done();
    (memory[0], memory[1])
}

fn memory(measured: &[u64; 5]) -> Vec<Goal> {
    let [empty, bound, full, direct_empty, direct_bound] = *measured;
    let goal = |what: &str, bytes: u64| {
        Goal::checked(what, "< 30 MB", megabytes(bytes), bytes < MEMORY_GOAL)
    };
    vec![
        Goal::noted(
            "resident memory, nothing declared",
            megabytes(direct_empty.max(empty)),
        ),
        goal(
            "resident memory, 100 bindings, after rolling all out",
            bound,
        ),
        goal(
            "resident memory, 100 bindings, after a restart",
            direct_bound,
        ),
        Goal::noted(
            "resident memory, 100 bindings and 1000 models",
            megabytes(full),
        ),
    ]
}
