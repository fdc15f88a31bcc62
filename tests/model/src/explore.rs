//! The exploration of every reachable state within a bound, with stateright, and the path to each failure.
//!
//! Absent: states and steps. See `state` and `steps`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, HasDiscoveries, Model, Property as Claim};

use super::policy::Policy;
use super::properties::Property;
use super::quiescence::{self, QuiescenceCache};
use super::reconciler::Reconciler;
use super::state::{State, StatusId};
use super::steps::{self, Scope, Step};

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
            reconciler: Reconciler::new(policy, bound.history_limit, bound.scope.ownership),
            quiescence: QuiescenceCache::default(),
        }
    }

    /// The properties that a state violates, now or when it is quiescent.
    pub fn violations(&self, state: &State) -> u16 {
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
            "alias {:?} {:?}; {:?} by {:?} {:?}; {}{}",
            state.mirror.alias,
            state.mirror.registry,
            workload.version,
            workload.writer,
            workload.pods,
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
        let hold = status
            .hold
            .as_ref()
            .map(|hold| format!(" hold against {}", hold.wanted.number()));
        let ready = status.conditions.iter().find(|each| each.type_ == "Ready");
        let ready = ready
            .map(|ready| format!(" {}/{}", ready.status, ready.reason))
            .unwrap_or_default();
        format!(
            "[{}]{}{}{ready}",
            entries.join(", "),
            held_back.unwrap_or_default(),
            hold.unwrap_or_default()
        )
    }
}

impl Model for BoundedModel {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.bound.events, self.bound.scope.ownership)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        steps::possible(state, self.bound.scope, &self.reconciler, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        Some(steps::after(state, step, &self.reconciler))
    }

    fn properties(&self) -> Vec<Claim<Self>> {
        let always = |property: Property, claim: fn(&Self, &State) -> bool| {
            Claim::always(property.sentence(), claim)
        };
        vec![
            always(Property::HeldBack, holds::<{ Property::HeldBack as u16 }>),
            always(
                Property::FailStatic,
                holds::<{ Property::FailStatic as u16 }>,
            ),
            always(
                Property::OneVersion,
                holds::<{ Property::OneVersion as u16 }>,
            ),
            always(Property::PeopleWin, holds::<{ Property::PeopleWin as u16 }>),
            always(Property::ChecksRun, holds::<{ Property::ChecksRun as u16 }>),
            always(Property::Readable, holds::<{ Property::Readable as u16 }>),
            always(
                Property::RollbackToGood,
                holds::<{ Property::RollbackToGood as u16 }>,
            ),
            always(
                Property::Terminates,
                holds_when_quiescent::<{ Property::Terminates as u16 }>,
            ),
            always(
                Property::NoMoreWrites,
                holds_when_quiescent::<{ Property::NoMoreWrites as u16 }>,
            ),
            always(
                Property::Converges,
                holds_when_quiescent::<{ Property::Converges as u16 }>,
            ),
            always(
                Property::LeavesFailure,
                holds_when_quiescent::<{ Property::LeavesFailure as u16 }>,
            ),
            always(
                Property::StatusIsTrue,
                holds_when_quiescent::<{ Property::StatusIsTrue as u16 }>,
            ),
            always(
                Property::HoldEnds,
                holds_when_quiescent::<{ Property::HoldEnds as u16 }>,
            ),
            always(
                Property::Recreates,
                holds_when_quiescent::<{ Property::Recreates as u16 }>,
            ),
            always(
                Property::RetryIsKept,
                holds_when_quiescent::<{ Property::RetryIsKept as u16 }>,
            ),
        ]
    }
}

fn holds<const BIT: u16>(_: &BoundedModel, state: &State) -> bool {
    state.oracle.violated & BIT == 0
}

fn holds_when_quiescent<const BIT: u16>(model: &BoundedModel, state: &State) -> bool {
    model.quiescence.violations(state, &model.reconciler) & BIT == 0
}

/// The result of an exploration.
pub struct Exploration {
    pub states: usize,
    pub seconds: f64,
    /// The sentence of each property that failed, with the path to the failure.
    pub failures: Vec<(&'static str, String)>,
}

/// Explores every state within the bound. With a property, it ends at the first state that violates it.
pub fn explore(bound: Bound, policy: Policy, wanted: Option<Property>) -> Exploration {
    let started = Instant::now();
    let finish_when = wanted.map_or(HasDiscoveries::All, |property| {
        HasDiscoveries::AnyOf([property.sentence()].into())
    });
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .min(4);
    let checker = BoundedModel::new(bound, policy)
        .checker()
        .threads(threads)
        .finish_when(finish_when)
        .spawn_bfs();
    let checker = checker.join_and_report(&mut Progress(bound.name, wanted.is_none()));
    let model = checker.model();
    let mut failures: Vec<_> = checker
        .discoveries()
        .into_iter()
        .map(|(sentence, path)| (sentence, model.describe(&with_steps(path.into_vec()))))
        .collect();
    failures.sort();
    let seconds = started.elapsed().as_secs_f64();
    if wanted.is_none() {
        println!(
            "{}: {} states, {} different reconciles, {} statuses, {seconds:.1} s",
            bound.name,
            checker.unique_state_count(),
            model.reconciler.len(),
            model.reconciler.statuses.len()
        );
    }
    Exploration {
        states: checker.unique_state_count(),
        seconds,
        failures,
    }
}

/// Pairs each state with the step before it; stateright pairs it with the step after it.
fn with_steps(path: Vec<(State, Option<Step>)>) -> Vec<(Option<Step>, State)> {
    let mut before = None;
    path.into_iter()
        .map(|(state, step)| (std::mem::replace(&mut before, step), state))
        .collect()
}

/// Prints the progress of a long exploration.
struct Progress(&'static str, bool);

impl Reporter<BoundedModel> for Progress {
    fn report_checking(&mut self, data: ReportData) {
        if self.1 && !data.done && data.duration > Duration::from_secs(1) {
            println!(
                "{}: {} states so far, {} deep, {} s",
                self.0,
                data.unique_states,
                data.max_depth,
                data.duration.as_secs()
            );
        }
    }

    fn report_discoveries(
        &mut self,
        _: &BoundedModel,
        _: std::collections::BTreeMap<&'static str, ReportDiscovery<BoundedModel>>,
    ) {
    }

    fn delay(&self) -> Duration {
        if self.1 {
            Duration::from_secs(5)
        } else {
            Duration::from_millis(50)
        }
    }
}
