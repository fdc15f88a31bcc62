//! Gates: the conditions under which a version goes forward. A gate is one file and one line of [`GATES`].
//!
//! Absent: rollbacks. A rollback passes no gate but its own artifact check.

mod approved;
mod artifact_readable;
mod not_frozen;
mod promotion;
mod registry_fresh;
mod window_open;

use jiff::Timestamp;

use super::approval::approval;
pub use promotion::{GateResults, evaluate, hindrance, invalid_gate};

use super::artifact_check::CheckResults;
use super::freeze::Freeze;
use super::messages::{self, Note};
use super::observed::Observed;
use super::resolve::Resolution;
use super::rollback_target::was_good;
use crate::api::alias_binding::{ApprovalRecord, Overrode};
use crate::api::reason::Problem;
use crate::api::{AliasBinding, Reason, names};
use crate::targets::DesiredVersion;

/// All gates, in the order in which they are checked. The first one that does not pass decides. Nobody is asked to approve a version
/// that fails an expression, and the approval of one that waits for a window may be given before. Those that may hold a version for
/// days come before the artifact check, whose result is forgotten after minutes.
pub const GATES: &[Gate] = &[
    registry_fresh::GATE,
    promotion::GATE,
    approved::GATE,
    not_frozen::GATE,
    window_open::GATE,
    artifact_readable::GATE,
];

/// A gate.
#[derive(Debug)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// Checks the gate.
    pub check: fn(&GateInput<'_>) -> Verdict,
    /// Whether it is checked also if the version runs already and only other injected fields changed.
    pub also_for_same_version: bool,
    /// Whether a version that was good before passes it unchecked, and one that a person pins or has tried again
    /// (`fast_rollback`, `people_win`).
    pub yields: bool,
    /// What is wrong with the gate's part of the spec.
    pub invalid: fn(&AliasBinding) -> Option<Problem>,
}

/// A gate that nothing in the spec configures.
const fn always_valid(_: &AliasBinding) -> Option<Problem> {
    None
}

/// Everything that a gate may look at.
#[derive(Clone, Copy, Debug)]
pub struct GateInput<'a> {
    /// The binding.
    pub binding: &'a AliasBinding,
    /// What the mirror says.
    pub resolution: &'a Resolution,
    /// The version that would go forward.
    pub desired: &'a DesiredVersion,
    /// The results of artifact checks.
    pub checks: &'a CheckResults,
    /// The freeze in force.
    pub freeze: Option<&'a Freeze>,
    /// Whether the chart's policy records who approves.
    pub records_approver: bool,
    /// The present.
    pub now: Timestamp,
}

impl<'a> GateInput<'a> {
    /// The input for a version of a binding.
    #[must_use]
    pub fn of(
        binding: &'a AliasBinding,
        observed: &Observed<'a>,
        desired: &'a DesiredVersion,
        now: Timestamp,
    ) -> Self {
        Self {
            binding,
            resolution: observed.resolution,
            desired,
            checks: observed.checks,
            freeze: observed.freeze,
            records_approver: observed.records_approver,
            now,
        }
    }
}

/// The result of a gate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The version may go forward.
    Pass,
    /// The result of an artifact check is not known yet.
    Pending(Problem),
    /// Not now; Pointsman tries again by itself.
    Retry(Problem),
    /// Not now; the class of the reason says whether a person is needed.
    Wait(Problem),
    /// Not now, by the choice of people; the version that runs is well all the same.
    Pause {
        /// The reason.
        reason: Reason,
        /// The cause, and how the version goes on.
        note: Note,
        /// When the verdict may be another one although nothing has changed by then.
        until: Option<Timestamp>,
    },
    /// Not this version; it is recorded in the history.
    Refuse(Problem),
}

/// The first gate whose part of the spec is invalid, with what is wrong.
pub fn invalid(binding: &AliasBinding) -> Option<(&'static str, Problem)> {
    let mut gates = GATES.iter();
    gates.find_map(|gate| Some((gate.name, (gate.invalid)(binding)?)))
}

/// The problem of a version that is paused.
#[must_use]
pub fn paused(input: &GateInput<'_>, reason: Reason, note: &Note) -> Problem {
    let cause = format!("version {} waits: {}", input.desired.number(), note.cause);
    messages::problem(reason, &cause, &note.remedy)
}

/// Each gate with its result; without one if the version passes it unchecked. `same_version` is true if the target runs the version
/// already.
pub fn verdicts(
    input: &GateInput<'_>,
    same_version: bool,
) -> impl Iterator<Item = (&'static str, Option<Verdict>)> {
    let is_exempt = is_exempt(input);
    GATES.iter().map(move |gate| {
        let is_skipped =
            (same_version && !gate.also_for_same_version) || (is_exempt && gate.yields);
        (gate.name, (!is_skipped).then(|| (gate.check)(input)))
    })
}

/// The first gate that does not pass, with its result.
pub fn first_hindrance(
    input: &GateInput<'_>,
    same_version: bool,
) -> Option<(&'static str, Verdict)> {
    let mut verdicts = verdicts(input, same_version);
    verdicts.find_map(|(gate, verdict)| match verdict {
        None | Some(Verdict::Pass) => None,
        Some(verdict) => Some((gate, verdict)),
    })
}

/// Whether the version needs no gate that yields: it was good before, or is a person's choice.
pub fn is_exempt(input: &GateInput<'_>) -> bool {
    is_persons_choice(input) || was_good(input.binding, &input.desired.version)
}

/// The rule that a person's pin or retry goes past, if there is one.
pub fn overrode(input: &GateInput<'_>) -> Option<Overrode> {
    if !is_persons_choice(input) || was_good(input.binding, &input.desired.version) {
        return None;
    }
    for gate in GATES.iter().filter(|gate| gate.yields) {
        let (reason, message) = match (gate.check)(input) {
            Verdict::Pause { reason, note, .. } => (reason, note.cause),
            Verdict::Retry(problem) | Verdict::Wait(problem) | Verdict::Refuse(problem)
                if problem.reason == Reason::GateFailed =>
            {
                (problem.reason, problem.message)
            }
            _ => continue,
        };
        return Some(Overrode {
            reason: reason.into(),
            message,
            why: input
                .binding
                .annotation_text(names::OVERRIDE_REASON_ANNOTATION),
        });
    }
    None
}

/// Whether a person has this version go forward: by a pin, or by a retry since the alias names it that no write has followed yet.
fn is_persons_choice(input: &GateInput<'_>) -> bool {
    let binding = input.binding;
    if binding.spec.pinned_version.is_some() || binding.has_new_retry_request() {
        return true;
    }
    let Some(status) = &binding.status else {
        return false;
    };
    let (Some(retry), Some(alias)) = (&status.last_handled_retry, &status.alias) else {
        return false;
    };
    let is_named_since =
        input.resolution.alias.as_ref() == Some(&alias.version) && alias.since.0 <= retry.at.0;
    let written = status.current().map(|entry| entry.started_at.0);
    is_named_since && written.is_none_or(|written| written <= retry.at.0)
}

/// The approval by which a version goes forward, if it needed one.
pub fn approval_of(input: &GateInput<'_>) -> Option<ApprovalRecord> {
    if is_exempt(input) {
        return None;
    }
    approval(
        input.binding,
        input.desired.number(),
        input.records_approver,
    )
}
