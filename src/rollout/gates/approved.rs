//! With `spec.promotion.approval: Manual`, a version goes forward when a person has approved it.
//!
//! Absent: who may approve. That is RBAC's.

use jiff::SignedDuration;

use super::{Gate, GateInput, Verdict, always_valid};
use crate::api::Reason;
use crate::api::alias_binding::{ApprovalRecord, KnownBy};
use crate::rollout::approval::{approval, approved_at, manual, refusal};
use crate::rollout::messages::{Note, name, namespace};

/// The gate.
pub const GATE: Gate = Gate {
    name: "approved",
    check,
    also_for_same_version: false,
    yields: true,
    invalid: always_valid,
};

/// How far the clocks of MLflow and the API server may differ.
const CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_secs(60);

fn check(input: &GateInput<'_>) -> Verdict {
    let Some(promotion) = manual(input.binding) else {
        return Verdict::Pass;
    };
    let number = input.desired.number();
    let Some(approval) = approval(input.binding, number, input.records_approver) else {
        return waits(
            "it is not approved".to_owned(),
            format!(
                "approve it: {} (or set spec.promotion.approvedVersion)",
                command(input)
            ),
        );
    };
    if is_of_earlier_version(input) {
        return waits(
            "it was registered after its number was approved".to_owned(),
            format!("approve it: {} --reason new", command(input)),
        );
    }
    let asks = promotion.require_different_person;
    match asks.then(|| refused(input, &approval)).flatten() {
        Some(cause) => waits(
            format!("its approval does not count: {cause}"),
            format!("as another person: {} --reason agreed", command(input)),
        ),
        None => Verdict::Pass,
    }
}

fn waits(cause: String, remedy: String) -> Verdict {
    Verdict::Pause {
        reason: Reason::AwaitingApproval,
        note: Note { cause, remedy },
        until: None,
    }
}

/// The plugin's command names the version, so that no other one is approved if the alias moves meanwhile.
fn command(input: &GateInput<'_>) -> String {
    format!(
        "kubectl pointsman approve {} --version {} -n {}",
        name(input.binding),
        input.desired.number(),
        namespace(input.binding)
    )
}

/// Whether the number was approved before this version was registered: a model that is deleted and created again counts from 1.
fn is_of_earlier_version(input: &GateInput<'_>) -> bool {
    let details = input.resolution.details.as_ref();
    let created = details.and_then(|details| details.created_at.as_ref());
    let (Some(created), Some(approved)) = (created, approved_at(input.binding)) else {
        return false;
    };
    approved
        .0
        .saturating_add(CLOCK_DIFFERENCE)
        .is_ok_and(|latest| latest < created.0)
}

/// Why the approval does not count, if `requireDifferentPerson` refuses it.
fn refused(input: &GateInput<'_>, approval: &ApprovalRecord) -> Option<String> {
    let is_user = approval.known_by == Some(KnownBy::User.into());
    let Some(approver) = approval.approved_by.as_ref().filter(|_approver| is_user) else {
        return Some("the user who gave it is not known (chart: approvals.recordUser)".to_owned());
    };
    let details = input.resolution.details.as_ref();
    refusal(
        approver,
        details.and_then(|details| details.created_by.as_deref()),
    )
}
