//! While the registry, the namespace or the binding is frozen, no version goes forward.
//!
//! Absent: who may freeze. That is RBAC's.

use super::{Gate, GateInput, Verdict, always_valid};
use crate::api::Reason;

/// The gate.
pub const GATE: Gate = Gate {
    name: "notFrozen",
    check,
    also_for_same_version: false,
    yields: true,
    invalid: always_valid,
};

fn check(input: &GateInput<'_>) -> Verdict {
    match input.freeze {
        Some(freeze) => Verdict::Pause {
            reason: Reason::Frozen,
            note: freeze.note(),
            until: None,
        },
        None => Verdict::Pass,
    }
}
