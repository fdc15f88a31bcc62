//! The bounds of the exploration: which outside events happen, and how many of them.
//!
//! Absent: any bound on the operator. It reconciles, runs checks and writes as often as it can.

use super::explore::Bound;
use super::state::Ownership;
use super::steps::{EventKind, Scope};

/// Every kind of event for a binding with `spec.targetRef`.
pub const ALL_EVENTS: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Failures,
    EventKind::Recoveries,
    EventKind::Undos,
    EventKind::Edits,
    EventKind::Requests,
    EventKind::Pins,
    EventKind::Suspends,
    EventKind::Outages,
    EventKind::Losses,
    EventKind::Crashes,
    EventKind::Lags,
    EventKind::Recreations,
];
/// Every kind of event for a binding with `spec.template`.
pub const ALL_TEMPLATE_EVENTS: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Failures,
    EventKind::Recoveries,
    EventKind::Undos,
    EventKind::Edits,
    EventKind::Requests,
    EventKind::Pins,
    EventKind::Suspends,
    EventKind::Outages,
    EventKind::Losses,
    EventKind::Crashes,
    EventKind::Lags,
    EventKind::Recreations,
    EventKind::TemplateEdits,
    EventKind::Deletions,
];
const FAILURES: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Failures,
    EventKind::Crashes,
];
const PEOPLE: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Undos,
    EventKind::Requests,
    EventKind::Crashes,
];
const OUTAGES: &[EventKind] = &[
    EventKind::Failures,
    EventKind::Outages,
    EventKind::Losses,
    EventKind::Recreations,
];
const TEMPLATES: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Failures,
    EventKind::Crashes,
    EventKind::TemplateEdits,
    EventKind::Deletions,
];
/// The variable that allows more events, for a longer run.
const MORE: &str = "POINTSMAN_MODEL_MORE";

/// The bounds in which every property holds. [`MORE`] is added to the number of events of each.
pub fn all() -> Vec<Bound> {
    let more = std::env::var(MORE)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let bound = |name, ownership, versions, kinds, events: u8, history_limit| Bound {
        name,
        scope: Scope {
            versions,
            kinds,
            ownership,
        },
        history_limit,
        events: events + more,
    };
    let (target_ref, template) = (Ownership::TargetRef, Ownership::Template);
    vec![
        bound("any two events", target_ref, 3, ALL_EVENTS, 2, 3),
        bound(
            "any four of moves, failures and crashes of the operator",
            target_ref,
            3,
            FAILURES,
            4,
            3,
        ),
        bound(
            "any three of moves, undos, requests and crashes of the operator",
            target_ref,
            3,
            PEOPLE,
            3,
            2,
        ),
        bound(
            "any three of failures, outages, losses and recreated models",
            target_ref,
            2,
            OUTAGES,
            3,
            1,
        ),
        bound(
            "template: any two events",
            template,
            3,
            ALL_TEMPLATE_EVENTS,
            2,
            3,
        ),
        bound(
            "template: any three of moves, failures, crashes, edits and deletions",
            template,
            2,
            TEMPLATES,
            3,
            2,
        ),
    ]
}
