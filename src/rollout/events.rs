//! What is worth telling people: the differences between two statuses, as Events.
//!
//! Absent: repetition. A pass that changes nothing tells nothing.

use crate::api::alias_binding::{HistoryEntry, Trigger};
use crate::api::conditions::{READY, find};
use crate::api::{AliasBindingStatus, Reason};

/// An Event to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    /// Whether a person should look.
    pub is_warning: bool,
    /// The word.
    pub reason: Reason,
    /// The sentence.
    pub note: String,
    /// What was done, as one word: `From3To4`. Events that differ in nothing else become one with a count.
    pub action: String,
}

/// What changed between two statuses that people want to know.
#[must_use]
pub fn notices(old: &AliasBindingStatus, new: &AliasBindingStatus) -> Vec<Notice> {
    deployed(old, new)
        .into_iter()
        .chain(became(old, new))
        .collect()
}

fn deployed(old: &AliasBindingStatus, new: &AliasBindingStatus) -> Option<Notice> {
    let head = new.current()?;
    let before = old.current();
    if before.is_some_and(|before| {
        before.started_at == head.started_at && before.version == head.version
    }) {
        return None;
    }
    let from = before.map_or_else(
        || "nothing".to_owned(),
        |before| format!("version {}", before.version),
    );
    let went_back = head.trigger == Trigger::Failure;
    Some(Notice {
        is_warning: went_back,
        reason: if went_back {
            Reason::RolledBack
        } else {
            Reason::RollingOut
        },
        note: format!("from {from} to version {}: {}", head.version, head.message),
        action: format!(
            "From{}To{}",
            before.map_or("Nothing", |before| before.version.as_str()),
            head.version
        ),
    })
}

fn became(old: &AliasBindingStatus, new: &AliasBindingStatus) -> Option<Notice> {
    let now = find(&new.conditions, READY)?;
    let before = find(&old.conditions, READY);
    let reason = Reason::parse(&now.reason)?;
    let is_new =
        before.is_none_or(|before| before.reason != now.reason || before.status != now.status);
    let is_told_elsewhere = matches!(
        reason,
        Reason::RollingOut | Reason::Baking | Reason::Pending
    );
    if !is_new || is_told_elsewhere {
        return None;
    }
    let is_well = matches!(
        reason,
        Reason::Live | Reason::Pinned | Reason::Suspended | Reason::Held
    );
    let version = new
        .running
        .as_ref()
        .map_or("None", |running| running.version.as_str());
    Some(Notice {
        is_warning: !is_well,
        reason,
        note: now.message.clone(),
        action: format!("{reason}Version{version}"),
    })
}

/// The entries of the ledger that are new, or were written on.
#[must_use]
pub fn ledger_changes<'a>(
    old: &AliasBindingStatus,
    new: &'a AliasBindingStatus,
) -> Vec<&'a HistoryEntry> {
    new.history
        .iter()
        .filter(|entry| !old.history.contains(entry))
        .collect()
}
