//! The bounds of the exploration: which outside events happen, and how many of them.
//!
//! Absent: any bound on the operator. It reconciles, runs checks and writes as often as it can.

use super::explore::Bound;
use super::state::Ownership;
use super::steps::{EventKind, Scope};

/// Every kind of event for a binding with `spec.template`.
pub const ALL_TEMPLATE_EVENTS: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Failures,
    EventKind::Recoveries,
    EventKind::Restarts,
    EventKind::Drains,
    EventKind::Blocks,
    EventKind::SharedFaults,
    EventKind::Addresses,
    EventKind::Scalings,
    EventKind::Pauses,
    EventKind::Aging,
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
    // Only a binding with a template has these two.
    EventKind::TemplateEdits,
    EventKind::Deletions,
];
/// Every kind of event for a binding with `spec.targetRef`.
pub const ALL_EVENTS: &[EventKind] = ALL_TEMPLATE_EVENTS
    .split_at(ALL_TEMPLATE_EVENTS.len() - 2)
    .0;
const FAILURES: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Failures,
    EventKind::Restarts,
    EventKind::Crashes,
];
const FAULTS: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Failures,
    EventKind::Blocks,
    EventKind::SharedFaults,
    EventKind::Drains,
    EventKind::Scalings,
];
const BLOCKS: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Failures,
    EventKind::Blocks,
    EventKind::SharedFaults,
];
const PEOPLE: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Undos,
    EventKind::Requests,
    EventKind::Crashes,
    EventKind::Blocks,
];
const OUTAGES: &[EventKind] = &[
    EventKind::Failures,
    EventKind::Outages,
    EventKind::Losses,
    EventKind::Aging,
    EventKind::Recreations,
];
const TEMPLATES: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Failures,
    EventKind::Blocks,
    EventKind::Crashes,
    EventKind::TemplateEdits,
    EventKind::Deletions,
];
/// The variable that allows more events, for a longer run.
const MORE: &str = "POINTSMAN_MODEL_MORE";

/// The bounds in which every property holds. [`MORE`] is added to the number of events of each.
pub fn all() -> Vec<Bound> {
    let more = std::env::var(MORE).ok();
    let more: Option<u8> = more.and_then(|text| text.parse().ok());
    let mut bounds = usual();
    bounds.extend(further());
    for bound in &mut bounds {
        bound.events += more.unwrap_or(0);
    }
    bounds
}

fn target_ref(kinds: &'static [EventKind]) -> Scope {
    Scope::new(Ownership::TargetRef, 3, kinds)
}

fn bound(name: &'static str, scope: Scope, events: u8, history_limit: u8) -> Bound {
    Bound {
        name,
        scope,
        history_limit,
        events,
    }
}

/// Bounds with all that happens to pods.
fn usual() -> Vec<Bound> {
    vec![
        bound(
            "two good versions: any three of moves, failures, blocks, shared faults, drains and scalings",
            target_ref(FAULTS).seasoned(),
            3,
            3,
        ),
        bound(
            "template: any three of moves, failures, blocks, crashes, edits and deletions",
            Scope::new(Ownership::Template, 2, TEMPLATES),
            3,
            2,
        ),
    ]
}

/// Bounds with other events, and with other pods.
fn further() -> Vec<Bound> {
    let recreated = |kinds| target_ref(kinds).seasoned().recreating();
    vec![
        bound("any two events", target_ref(ALL_EVENTS), 2, 3),
        bound(
            "two good versions, two recreated replicas: any event",
            recreated(ALL_EVENTS).with_replicas(2),
            1,
            3,
        ),
        bound(
            "two good versions: any three of moves, failures, restarts and crashes of the operator",
            target_ref(FAILURES).seasoned(),
            3,
            3,
        ),
        bound(
            "two good versions, recreated pods: any two of moves, failures, blocks and shared faults",
            recreated(BLOCKS),
            2,
            5,
        ),
        bound(
            "any three of moves, undos, requests, blocks and crashes of the operator",
            target_ref(PEOPLE),
            3,
            2,
        ),
        bound(
            "any three of failures, outages, losses, old check results and recreated models",
            Scope::new(Ownership::TargetRef, 2, OUTAGES),
            3,
            1,
        ),
        bound(
            "template: any two events",
            Scope::new(Ownership::Template, 3, ALL_TEMPLATE_EVENTS),
            2,
            3,
        ),
    ]
}
