//! While the registry cannot be read, no version goes forward (`fail_static`).
//!
//! Absent: pinned versions. A pin is a person's word and needs no registry.

use super::{Gate, GateInput, Verdict, always_valid};

/// The gate.
pub const GATE: Gate = Gate {
    name: "registryFresh",
    check,
    also_for_same_version: true,
    yields: false,
    invalid: always_valid,
};

fn check(input: &GateInput<'_>) -> Verdict {
    match &input.resolution.stale {
        Some(problem) if input.binding.spec.pinned_version.is_none() => {
            Verdict::Wait(problem.clone())
        }
        _ => Verdict::Pass,
    }
}
