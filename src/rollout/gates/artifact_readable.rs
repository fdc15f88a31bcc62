//! A version whose artifact cannot be read never starts a rollout.
//!
//! Absent: the request to the store. Its result is an input.

use super::{Gate, GateInput, Verdict, always_valid};
use crate::api::reason::Problem;
use crate::api::{Availability, Reason};
use crate::rollout::artifact_check::forward_check;
use crate::rollout::rollback_target::was_good;

/// The gate.
pub const GATE: Gate = Gate {
    name: "artifactReadable",
    check,
    also_for_same_version: false,
    yields: false,
    invalid: always_valid,
};

fn check(input: &GateInput<'_>) -> Verdict {
    let number = input.desired.number();
    match input.checks.get(&forward_check(input.desired)) {
        Some(Availability::Readable | Availability::Moved(_) | Availability::Unchecked(_)) => {
            Verdict::Pass
        }
        // fast_rollback: a version that was good before waits for no store.
        Some(Availability::Unknown(_)) if was_good(input.binding, &input.desired.version) => {
            Verdict::Pass
        }
        Some(Availability::Unknown(why)) => {
            let message =
                format!("version {number} waits until its artifact can be checked: {why}");
            Verdict::Retry(Problem::new(Reason::ArtifactCheckFailed, message))
        }
        Some(Availability::Missing(why)) => {
            let message =
                format!("version {number} is not rolled out: its artifact cannot be read: {why}");
            Verdict::Refuse(Problem::new(Reason::ArtifactUnavailable, message))
        }
        None => {
            let message = format!("checking whether the artifact of version {number} can be read");
            Verdict::Pending(Problem::new(Reason::Pending, message))
        }
    }
}
