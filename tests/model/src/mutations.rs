//! Each property bites: the operator with one rule broken fails the very property that the rule is for.
//!
//! Absent: changes of the operator's source. What is broken is broken around the real decision.

use libtest_mimic::{Failed, Trial};

use super::check::{Bound, check};
use super::policy::{Broken, Policy};
use super::properties::Property;
use super::steps::{Kind, Scope};

/// A broken rule, the property that must fail, and the least that must happen for it.
const MUTATIONS: [(Broken, Property, u8, &[Kind]); 14] = [
    (
        Broken::ForgetsWhatFailed,
        Property::HeldBack,
        2,
        &[Kind::Moves, Kind::Failures],
    ),
    (
        Broken::IgnoresStaleMirrors,
        Property::FailStatic,
        2,
        &[Kind::Moves, Kind::Outages],
    ),
    (
        Broken::IgnoresAMissingAlias,
        Property::FailStatic,
        2,
        &[Kind::Moves],
    ),
    (Broken::AlternatesItsStatus, Property::Settles, 0, &[]),
    (Broken::MovesATimestamp, Property::Quiet, 0, &[]),
    (Broken::ForgetsAContainer, Property::OneVersion, 0, &[]),
    (
        Broken::OverwritesPeople,
        Property::PeopleWin,
        2,
        &[Kind::Moves, Kind::Undos],
    ),
    (
        Broken::SkipsTheChecks,
        Property::Readable,
        2,
        &[Kind::Moves, Kind::Losses],
    ),
    (
        Broken::GoesBackToAnything,
        Property::BackToGood,
        2,
        &[Kind::Moves, Kind::Failures],
    ),
    (Broken::NeverGoesOn, Property::GetsThere, 0, &[]),
    (
        Broken::NeverGoesBack,
        Property::LeavesFailure,
        2,
        &[Kind::Moves, Kind::Failures],
    ),
    (Broken::SaysReady, Property::Honest, 1, &[Kind::Failures]),
    (
        Broken::SwallowsResumes,
        Property::LetsGo,
        2,
        &[Kind::Undos, Kind::Asks],
    ),
    (
        Broken::SwallowsRetries,
        Property::TriesAgain,
        3,
        &[Kind::Moves, Kind::Failures, Kind::Asks],
    ),
];

/// One trial for each broken rule.
pub fn trials() -> Vec<Trial> {
    let trial = |(broken, property, things, kinds)| {
        Trial::test(
            format!("a rule is broken and seen: {broken:?}"),
            move || fails(broken, property, things, kinds),
        )
    };
    MUTATIONS.into_iter().map(trial).collect()
}

fn fails(
    broken: Broken,
    property: Property,
    things: u8,
    kinds: &'static [Kind],
) -> Result<(), Failed> {
    let bound = Bound {
        name: "a rule is broken",
        scope: Scope { versions: 3, kinds },
        history_limit: 3,
        things,
    };
    let sound = check(bound, Policy::default(), Some(property));
    if let Some((sentence, path)) = sound.failures.first() {
        return Err(format!("unbroken, it is not so that {sentence}:\n{path}").into());
    }
    let found = check(bound, Policy(Some(broken)), Some(property));
    let Some((sentence, path)) = found
        .failures
        .iter()
        .find(|(sentence, _)| *sentence == property.sentence())
    else {
        return Err(format!("{broken:?} goes unseen: {}", property.sentence()).into());
    };
    let steps = path.lines().count();
    println!(
        "not so that {sentence}: {steps} steps, {} states, {:.1} s",
        found.states, found.seconds
    );
    Ok(())
}
