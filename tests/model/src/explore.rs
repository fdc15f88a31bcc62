//! The exploration of every reachable state within a bound, breadth first on all processors, and the path to each failure.
//!
//! Absent: states and steps. See `state` and `steps`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::quality::FixedState;

use super::policy::Policy;
use super::properties::Property;
use super::quiescence::{self, QuiescenceCache};
use super::reconciler::Reconciler;
use super::state::{State, StatusId, Version};
use super::steps::{self, Scope, Step};

/// The number of states that a thread takes at once.
const CHUNK: usize = 128;
/// The time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// The bound of an exploration.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub name: &'static str,
    pub scope: Scope,
    pub history_limit: u8,
    /// The number of outside events. An event that reverts an earlier one is not counted.
    pub events: u8,
}

/// The model within a bound.
pub struct BoundedModel {
    pub bound: Bound,
    pub reconciler: Reconciler,
    pub quiescence: QuiescenceCache,
}

impl BoundedModel {
    pub fn new(bound: Bound, policy: Policy) -> Self {
        Self {
            bound,
            reconciler: Reconciler::new(policy, bound.history_limit, bound.scope),
            quiescence: QuiescenceCache::default(),
        }
    }

    /// The first state; after two versions were good, if the bound says so.
    pub fn initial(&self) -> State {
        let Scope {
            ownership,
            replicas,
            is_seasoned,
            ..
        } = self.bound.scope;
        let mut state = State::new(self.bound.events, ownership, replicas);
        if is_seasoned {
            state = self.quiescent(state);
            state = self.quiescent(self.after(&state, Step::AliasMovesTo(Version(1))));
        }
        State {
            events_left: self.bound.events,
            ..state
        }
    }

    fn quiescent(&self, state: State) -> State {
        let path = quiescence::path(&state, &self.reconciler);
        path.last().map_or(state, |(_, last)| *last)
    }

    /// Every step that is possible in a state.
    pub fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        steps::possible(state, self.bound.scope, &self.reconciler, steps);
    }

    pub fn after(&self, state: &State, step: Step) -> State {
        steps::after(state, step, &self.reconciler)
    }

    /// The properties that a state violates, now or when it is quiescent.
    pub fn violations(&self, state: &State) -> u32 {
        state.oracle.violated | self.quiescence.violations(state, &self.reconciler)
    }

    /// A path as text: each step with the state after it.
    pub fn describe(&self, path: &[(Option<Step>, State)]) -> String {
        let mut text = String::new();
        for (step, state) in path {
            let step = step.map_or_else(|| "initial state".to_owned(), |step| format!("{step:?}"));
            let _ = writeln!(text, "  {step:<34} {}", self.describe_state(state));
        }
        if let Some((_, last)) = path.last().filter(|(_, last)| last.oracle.violated == 0) {
            let _ = writeln!(text, "  without further outside events:");
            for (step, state) in quiescence::path(last, &self.reconciler) {
                let _ = writeln!(
                    text,
                    "  {:<34} {}",
                    format!("{step:?}"),
                    self.describe_state(&state)
                );
            }
        }
        text
    }

    fn describe_state(&self, state: &State) -> String {
        let workload = &state.workload;
        let unwritten = state
            .operator
            .unwritten
            .map(|unwritten| format!(" unwritten: {}", self.status(unwritten.status)));
        format!(
            "alias {:?} {:?}; {:?} by {:?} {:?}{}, older {:?}; {}{}",
            state.mirror.alias,
            state.mirror.registry,
            workload.version,
            workload.writer,
            workload.pods,
            if workload.is_old { " for long" } else { "" },
            workload.older.map(|older| older.version),
            self.status(state.status),
            unwritten.unwrap_or_default()
        )
    }

    fn status(&self, id: StatusId) -> String {
        let status = self.reconciler.statuses.get(id);
        let entries: Vec<_> = status
            .history
            .iter()
            .map(|entry| format!("{} {}", entry.version.number(), entry.outcome))
            .collect();
        let held_back = status.held_back.as_ref().map(|held_back| {
            let versions: Vec<_> = held_back
                .versions
                .iter()
                .map(|failed| failed.version.number())
                .collect();
            format!(" held back {versions:?} for {}", held_back.wanted.number())
        });
        let postponed = status.postponed.as_ref();
        let postponed = postponed.map(|each| format!(" postponed {}", each.version.number()));
        let hold = status
            .hold
            .as_ref()
            .map(|hold| format!(" hold against {}", hold.wanted.number()));
        let ready = status.conditions.iter().find(|each| each.type_ == "Ready");
        let ready = ready
            .map(|ready| format!(" {}/{}", ready.status, ready.reason))
            .unwrap_or_default();
        format!(
            "[{}]{}{}{}{ready}",
            entries.join(", "),
            held_back.unwrap_or_default(),
            postponed.unwrap_or_default(),
            hold.unwrap_or_default()
        )
    }
}

/// The result of an exploration.
pub struct Exploration {
    pub states: usize,
    pub seconds: f64,
    /// The sentence of each property that failed, with the path to the failure.
    pub failures: Vec<(&'static str, String)>,
}

/// Explores every state within the bound. It ends at the first states that violate a property; with a property, at the first
/// one that violates this one.
pub fn explore(bound: Bound, policy: Policy, wanted: Option<Property>) -> Exploration {
    let started = Instant::now();
    let model = BoundedModel::new(bound, policy);
    let mut search = Search::new(&model, wanted.map_or(u32::MAX, Property::bit));
    search.run(wanted.is_none());
    let mut failures = Vec::new();
    for property in Property::ALL {
        if let Some(state) = search.failures.get(&property.bit()) {
            failures.push((property.sentence(), model.describe(&search.path_to(state))));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    if wanted.is_none() {
        println!(
            "{}: {} states, {} different reconciles, {} statuses, {seconds:.1} s",
            bound.name,
            search.known.len(),
            model.reconciler.len(),
            model.reconciler.statuses.len()
        );
    }
    Exploration {
        states: search.known.len(),
        seconds,
        failures,
    }
}

/// A short name of a state. Two states of a bound have the same one with a probability below one in a million.
type Fingerprint = u64;

fn fingerprint(state: &State) -> Fingerprint {
    FixedState::default().hash_one(state)
}

/// The hash of a fingerprint is the fingerprint.
#[derive(Default)]
struct SameHasher(u64);

impl Hasher for SameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// A breadth-first search.
struct Search<'a> {
    model: &'a BoundedModel,
    /// The bits of the properties that end the search.
    wanted: u32,
    /// Every known state with the state before it; the initial state with itself.
    known: DashMap<Fingerprint, Fingerprint, BuildHasherDefault<SameHasher>>,
    /// A state for each property that is violated, by the property's bit.
    failures: BTreeMap<u32, State>,
}

/// The states that a thread found.
#[derive(Default)]
struct Found {
    states: Vec<State>,
    violations: Vec<(u32, State)>,
}

impl<'a> Search<'a> {
    fn new(model: &'a BoundedModel, wanted: u32) -> Self {
        Self {
            model,
            wanted,
            known: DashMap::default(),
            failures: BTreeMap::new(),
        }
    }

    fn run(&mut self, prints_progress: bool) {
        let mut found = Found::default();
        let initial = self.model.initial();
        self.add(initial, fingerprint(&initial), &mut found);
        let mut printed = Instant::now();
        let mut depth = 0;
        while !found.states.is_empty() {
            for (violations, state) in std::mem::take(&mut found.violations) {
                for property in Property::ALL {
                    if violations & property.bit() != 0 {
                        self.failures.entry(property.bit()).or_insert(state);
                    }
                }
            }
            if self.failures.keys().any(|bit| bit & self.wanted != 0) {
                return;
            }
            if prints_progress && printed.elapsed() > PROGRESS {
                printed = Instant::now();
                let (name, states) = (self.model.bound.name, self.known.len());
                println!("{name}: {states} states so far, {depth} steps deep");
            }
            found = self.expand(&found.states);
            depth += 1;
        }
    }

    /// The new states after one step from each of these states.
    fn expand(&self, states: &[State]) -> Found {
        let threads = thread::available_parallelism().map_or(2, usize::from);
        let threads = threads.min(states.len().div_ceil(CHUNK));
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let start = |_| scope.spawn(|| self.expand_chunks(states, &next));
            let threads: Vec<_> = (0..threads).map(start).collect();
            let mut all = Found::default();
            for thread in threads {
                let found = thread.join().unwrap();
                all.states.extend(found.states);
                all.violations.extend(found.violations);
            }
            all
        })
    }

    fn expand_chunks(&self, states: &[State], next: &AtomicUsize) -> Found {
        let mut found = Found::default();
        let mut steps = Vec::new();
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            let Some(states) = states.chunks(CHUNK).nth(chunk) else {
                return found;
            };
            for state in states {
                let before = fingerprint(state);
                steps.clear();
                self.model.steps(state, &mut steps);
                for step in &steps {
                    self.add(self.model.after(state, *step), before, &mut found);
                }
            }
        }
    }

    fn add(&self, state: State, before: Fingerprint, found: &mut Found) {
        let Entry::Vacant(entry) = self.known.entry(fingerprint(&state)) else {
            return;
        };
        drop(entry.insert(before));
        let violations = self.model.violations(&state);
        if violations != 0 {
            found.violations.push((violations, state));
        }
        found.states.push(state);
    }

    /// The shortest path to a state, each step with the state after it.
    fn path_to(&self, state: &State) -> Vec<(Option<Step>, State)> {
        let mut here = fingerprint(state);
        let mut fingerprints = Vec::new();
        while let Some(before) = self.known.get(&here).map(|before| *before) {
            if before == here {
                break;
            }
            fingerprints.push(here);
            here = before;
        }
        let mut path = vec![(None, self.model.initial())];
        let mut steps = Vec::new();
        for wanted in fingerprints.into_iter().rev() {
            let (_, last) = path[path.len() - 1];
            steps.clear();
            self.model.steps(&last, &mut steps);
            let mut taken = steps
                .iter()
                .map(|step| (Some(*step), self.model.after(&last, *step)));
            path.extend(taken.find(|(_, state)| fingerprint(state) == wanted));
        }
        path
    }
}
