//! The properties detect broken rules: with one rule broken, the property for that rule fails.
//!
//! Absent: changes of the operator's source. The rule is broken around the real decision, see `policy`.

use libtest_mimic::{Failed, Trial};

use super::explore::{Bound, explore};
use super::policy::{BrokenRule, Policy};
use super::properties::Property;
use super::state::Ownership::{self, TargetRef, Template};
use super::steps::{EventKind, Scope};

/// A broken rule, the property that must fail, and the smallest bound in which it does.
struct Mutation {
    rule: BrokenRule,
    property: Property,
    events: u8,
    scope: Scope,
}

const fn mutation(
    rule: BrokenRule,
    property: Property,
    ownership: Ownership,
    events: u8,
    kinds: &'static [EventKind],
) -> Mutation {
    in_scope(rule, property, events, Scope::new(ownership, 3, kinds))
}

const fn in_scope(rule: BrokenRule, property: Property, events: u8, scope: Scope) -> Mutation {
    Mutation {
        rule,
        property,
        events,
        scope,
    }
}

const MOVES: &[EventKind] = &[EventKind::AliasMoves];
const FAILURES: &[EventKind] = &[EventKind::AliasMoves, EventKind::Failures];
const DELETIONS: &[EventKind] = &[
    EventKind::AliasMoves,
    EventKind::Failures,
    EventKind::Deletions,
];

/// A Deployment without surge, with two good versions, and moves beside one kind of event.
const fn recreated(kinds: &'static [EventKind]) -> Scope {
    Scope::new(TargetRef, 3, kinds).recreating().seasoned()
}

const MUTATIONS: &[Mutation] = &[
    mutation(
        BrokenRule::ForgetsFailures,
        Property::HeldBack,
        TargetRef,
        2,
        FAILURES,
    ),
    mutation(
        BrokenRule::IgnoresStaleMirrors,
        Property::FailStatic,
        TargetRef,
        2,
        &[EventKind::AliasMoves, EventKind::Outages],
    ),
    mutation(
        BrokenRule::IgnoresMissingAlias,
        Property::FailStatic,
        TargetRef,
        2,
        MOVES,
    ),
    mutation(
        BrokenRule::AlternatesStatus,
        Property::Terminates,
        TargetRef,
        0,
        &[],
    ),
    mutation(
        BrokenRule::MovesTimestamp,
        Property::NoMoreWrites,
        TargetRef,
        0,
        &[],
    ),
    mutation(
        BrokenRule::SkipsContainer,
        Property::OneVersion,
        TargetRef,
        0,
        &[],
    ),
    mutation(
        BrokenRule::OverwritesPeople,
        Property::PeopleWin,
        TargetRef,
        2,
        &[EventKind::AliasMoves, EventKind::Undos],
    ),
    mutation(
        BrokenRule::SkipsChecks,
        Property::Readable,
        TargetRef,
        2,
        &[EventKind::AliasMoves, EventKind::Losses],
    ),
    mutation(
        BrokenRule::RollsBackToAnything,
        Property::RollbackToGood,
        TargetRef,
        2,
        FAILURES,
    ),
    mutation(
        BrokenRule::NeverWrites,
        Property::Converges,
        TargetRef,
        0,
        &[],
    ),
    mutation(
        BrokenRule::NeverRollsBack,
        Property::LeavesFailure,
        TargetRef,
        2,
        FAILURES,
    ),
    mutation(
        BrokenRule::AlwaysReady,
        Property::StatusIsTrue,
        TargetRef,
        1,
        &[EventKind::Failures],
    ),
    mutation(
        BrokenRule::IgnoresResumes,
        Property::HoldEnds,
        TargetRef,
        2,
        &[EventKind::Undos, EventKind::Requests],
    ),
    mutation(
        BrokenRule::IgnoresRetries,
        Property::RetryIsKept,
        TargetRef,
        3,
        &[
            EventKind::AliasMoves,
            EventKind::Failures,
            EventKind::Requests,
        ],
    ),
    mutation(
        BrokenRule::IgnoresTemplateEdits,
        Property::Converges,
        Template,
        1,
        &[EventKind::TemplateEdits],
    ),
    mutation(
        BrokenRule::AlwaysRewritesTemplate,
        Property::NoMoreWrites,
        Template,
        0,
        &[],
    ),
    mutation(
        BrokenRule::ForgetsFailuresOfDeleted,
        Property::HeldBack,
        Template,
        3,
        DELETIONS,
    ),
    mutation(
        BrokenRule::NeverRecreates,
        Property::Recreates,
        Template,
        3,
        DELETIONS,
    ),
    in_scope(
        BrokenRule::BlamesTheCluster,
        Property::BlamesItsOwn,
        2,
        recreated(&[EventKind::AliasMoves, EventKind::Blocks]),
    ),
    in_scope(
        BrokenRule::NeverTriesAgain,
        Property::GoesOn,
        2,
        recreated(&[EventKind::AliasMoves, EventKind::Blocks]),
    ),
    in_scope(
        BrokenRule::WalksBack,
        Property::NewestGood,
        2,
        recreated(&[EventKind::AliasMoves, EventKind::SharedFaults]),
    ),
    in_scope(
        BrokenRule::ZeroIsWell,
        Property::Ran,
        0,
        Scope::new(TargetRef, 3, &[]).with_replicas(0),
    ),
    mutation(
        BrokenRule::FollowsAddress,
        Property::KeepsAddress,
        TargetRef,
        1,
        &[EventKind::Addresses],
    ),
    in_scope(
        BrokenRule::StaysBlocked,
        Property::KeepsCapacity,
        2,
        recreated(&[EventKind::AliasMoves, EventKind::Blocks]),
    ),
];

/// One trial for each broken rule.
pub fn trials() -> Vec<Trial> {
    let trial = |mutation: &'static Mutation| {
        let name = format!("the broken rule is detected: {:?}", mutation.rule);
        Trial::test(name, move || is_detected(mutation))
    };
    MUTATIONS.iter().map(trial).collect()
}

fn is_detected(mutation: &Mutation) -> Result<(), Failed> {
    let Mutation {
        rule,
        property,
        events,
        scope,
    } = *mutation;
    let bound = Bound {
        name: "a broken rule",
        scope,
        history_limit: 5,
        events,
    };
    let sound = explore(bound, Policy::default(), Some(property));
    if let Some((sentence, path)) = sound.failures.first() {
        return Err(format!("with no rule broken, this fails: {sentence}:\n{path}").into());
    }
    let broken = explore(bound, Policy(Some(rule)), Some(property));
    let failure = broken
        .failures
        .iter()
        .find(|(sentence, _)| *sentence == property.sentence());
    let Some((sentence, path)) = failure else {
        return Err(format!("{rule:?} is not detected by: {}", property.sentence()).into());
    };
    println!(
        "detected by \"{sentence}\": {} steps, {} states, {:.1} s",
        path.lines().count(),
        broken.states,
        broken.seconds
    );
    Ok(())
}
