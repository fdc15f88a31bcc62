//! The quiescent state that follows from a state if no further outside event happens.
//!
//! Absent: choice. Without outside events each state has one next step.

use super::properties::{self, Property};
use super::reconciler::{Inputs, Map, Reconciler};
use super::state::{Check, State};
use super::steps::{self, Step};

/// The number of steps after which a state counts as never quiescent.
const MAX_STEPS: usize = 100;

/// The violations of the quiescent state of each state so far.
#[derive(Default)]
pub struct QuiescenceCache {
    violations: Map<State, u32>,
}

impl QuiescenceCache {
    /// The properties that the quiescent state violates; [`Property::Terminates`] if there is none.
    pub fn violations(&self, state: &State, reconciler: &Reconciler) -> u32 {
        let mut visited = Vec::new();
        let mut here = state.core();
        let violations = loop {
            if let Some(known) = self.violations.get(&here) {
                break *known;
            }
            if visited.len() > MAX_STEPS {
                break Property::Terminates.bit();
            }
            visited.push(here);
            match next(&here, reconciler) {
                Some(step) => here = steps::after(&here, step, reconciler).core(),
                None => break violations_when_quiescent(&here, reconciler),
            }
        };
        for each in visited {
            self.violations.insert(each, violations);
        }
        violations
    }
}

/// The steps from a state to its quiescent state.
pub fn path(state: &State, reconciler: &Reconciler) -> Vec<(Step, State)> {
    let mut path = Vec::new();
    let mut here = *state;
    while let Some(step) = next(&here, reconciler).filter(|_| path.len() < 40) {
        here = steps::after(&here, step, reconciler);
        path.push((step, here));
    }
    path
}

/// The next step without outside events; `None` if the state is quiescent.
pub fn next(state: &State, reconciler: &Reconciler) -> Option<Step> {
    let operator = &state.operator;
    if operator.stale_binding.is_some() || operator.stale_workload.is_some() {
        return Some(Step::CachesCatchUp);
    }
    if operator.unwritten.is_some() {
        return Some(Step::OperatorWritesStatus);
    }
    if let Some(step) = steps::next_of_pods(state) {
        return Some(step);
    }
    let changes = |step: Step| steps::after(state, step, reconciler).core() != state.core();
    let completed = Check::all()
        .filter(|check| operator.running_checks & check.bit() != 0)
        .map(|check| Step::CheckCompletes(check.version, check.must_exist));
    // A check result that is the same as before enqueues nothing.
    let is_changed = |step: &Step| match step {
        Step::CheckCompletes(version, must_exist) => {
            let check = Check {
                version: *version,
                must_exist: *must_exist,
            };
            operator.checks.get(check) != Some(state.check_result(check))
        }
        _ => true,
    };
    let mut candidates = completed.filter(is_changed).chain([
        Step::OperatorReconciles,
        Step::TimePasses,
        Step::BackoffElapses,
    ]);
    candidates.find(|step| match step {
        Step::CheckCompletes(..) => true,
        Step::OperatorReconciles => is_reconcile_due(state, reconciler),
        // A version whose rollout stays blocked is postponed again and again.
        Step::BackoffElapses => !state.hinders_pods() && changes(Step::BackoffElapses),
        step => changes(*step),
    })
}

fn inputs(state: &State) -> Inputs {
    Inputs {
        spec: state.spec,
        status: state.status,
        workload: state.workload,
        mirror: state.mirror,
        checks: state.operator.checks,
    }
}

/// Whether a reconcile changes the state.
fn is_reconcile_due(state: &State, reconciler: &Reconciler) -> bool {
    let result = reconciler.reconcile(inputs(state));
    result
        .written
        .is_some_and(|written| written != state.workload)
        || result.status != state.status
        || result.requested_checks & !state.operator.running_checks != 0
}

fn violations_when_quiescent(state: &State, reconciler: &Reconciler) -> u32 {
    let result = reconciler.reconcile(inputs(state));
    let is_written = result.written.is_some() || result.is_status_changed;
    let writes = if is_written {
        Property::NoMoreWrites.bit()
    } else {
        0
    };
    writes | properties::violations_at_quiescence(state, &reconciler.statuses.get(state.status))
}
