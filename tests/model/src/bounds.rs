//! How much of the world is looked at: what may happen, and how often.
//!
//! Absent: any bound on the operator's own steps. It passes, is answered and writes as often as it can.

use super::check::Bound;
use super::steps::{Kind, Scope};

/// Every kind of thing.
pub const EVERYTHING: &[Kind] = &[
    Kind::Moves,
    Kind::Failures,
    Kind::Heals,
    Kind::Undos,
    Kind::Edits,
    Kind::Asks,
    Kind::Pins,
    Kind::Suspends,
    Kind::Outages,
    Kind::Losses,
    Kind::Crashes,
    Kind::Lags,
    Kind::Remakes,
];
const FAILING: &[Kind] = &[Kind::Moves, Kind::Failures, Kind::Crashes];
const PEOPLE: &[Kind] = &[Kind::Moves, Kind::Undos, Kind::Asks, Kind::Crashes];
const OUTAGES: &[Kind] = &[Kind::Failures, Kind::Outages, Kind::Losses, Kind::Remakes];

/// The variable that lets more happen, for whoever has more time.
const MORE: &str = "POINTSMAN_MODEL_MORE";

/// The bounds that every property holds in: each is one more thing deep for every one that [`MORE`] says.
pub fn all() -> Vec<Bound> {
    let more = std::env::var(MORE)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let bound = |name, versions, kinds, things: u8, history_limit| Bound {
        name,
        scope: Scope { versions, kinds },
        history_limit,
        things: things + more,
    };
    vec![
        bound("whatever may happen, twice", 3, EVERYTHING, 2, 3),
        bound(
            "versions that fail and an operator that crashes, four times",
            3,
            FAILING,
            4,
            3,
        ),
        bound(
            "people and an operator that crashes, three times",
            3,
            PEOPLE,
            3,
            2,
        ),
        bound("outages and losses, three times", 2, OUTAGES, 3, 1),
    ]
}
