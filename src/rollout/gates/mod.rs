//! Gates: the conditions under which a version goes forward. A gate is one file and one line of [`GATES`].
//!
//! Absent: rollbacks. A rollback passes no gate but its own artifact check.

mod artifact_readable;
mod registry_fresh;

use super::artifact_check::CheckResults;
use super::resolve::Resolution;
use crate::api::AliasBinding;
use crate::api::reason::Problem;
use crate::targets::DesiredVersion;

/// All gates, in the order in which they are checked. The first one that does not pass decides.
pub const GATES: &[Gate] = &[registry_fresh::GATE, artifact_readable::GATE];

/// A gate.
#[derive(Debug)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// Checks the gate.
    pub check: fn(&GateInput<'_>) -> Verdict,
    /// Whether it is checked also if the version runs already and only other injected fields changed.
    pub also_for_same_version: bool,
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
    /// Not this version; it is recorded in the history.
    Refuse(Problem),
}

/// The first gate that does not pass, with its result. `same_version` is true if the target runs the version already.
pub fn first_hindrance(
    input: &GateInput<'_>,
    same_version: bool,
) -> Option<(&'static str, Verdict)> {
    for gate in GATES {
        if same_version && !gate.also_for_same_version {
            continue;
        }
        let verdict = (gate.check)(input);
        if verdict != Verdict::Pass {
            return Some((gate.name, verdict));
        }
    }
    None
}
