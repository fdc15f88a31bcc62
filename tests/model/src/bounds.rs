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

/// The bounds that every property holds in.
pub fn all() -> Vec<Bound> {
    let things = std::env::var("THINGS").map_or(2, |text| text.parse().unwrap());
    vec![Bound { name: "any two things", scope: Scope { versions: 3, kinds: EVERYTHING }, history_limit: 3, things }]
}
