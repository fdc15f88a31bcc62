//! The transitions between two statuses that are published as Events.
//!
//! Absent: repetition. A reconcile that changes nothing publishes nothing.

use crate::api::alias_binding::{HistoryEntry, Trigger};
use crate::api::conditions::{READY, find};
use crate::api::reason::Class;
use crate::api::{AliasBindingStatus, Reason};

/// A transition, to be published as an Event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transition {
    /// Whether the Event is a Warning.
    pub is_warning: bool,
    /// The reason.
    pub reason: Reason,
    /// The sentence.
    pub note: String,
    /// The action as one word, for instance `From3To4`. Events that differ in nothing else become one with a count.
    pub action: String,
}

/// The transitions between two statuses.
#[must_use]
pub fn transitions(old: &AliasBindingStatus, new: &AliasBindingStatus) -> Vec<Transition> {
    let both = [deployed(old, new), became(old, new)];
    both.into_iter().flatten().collect()
}

fn deployed(old: &AliasBindingStatus, new: &AliasBindingStatus) -> Option<Transition> {
    let (before, head) = (old.current(), new.current()?);
    if before.is_some_and(|before| before.is_same_rollout(head)) {
        return None;
    }
    let number = head.version.number();
    let (from, action) = match before {
        Some(before) => {
            let before = before.version.number();
            (
                format!("version {before}"),
                format!("From{before}To{number}"),
            )
        }
        None => ("nothing".to_owned(), format!("FromNothingTo{number}")),
    };
    let is_rollback = head.trigger == Trigger::Failure;
    Some(Transition {
        is_warning: is_rollback,
        reason: if is_rollback {
            Reason::RolledBack
        } else {
            Reason::RollingOut
        },
        note: format!("from {from} to version {number}: {}", head.message),
        action,
    })
}

fn became(old: &AliasBindingStatus, new: &AliasBindingStatus) -> Option<Transition> {
    let now = find(&new.conditions, READY)?;
    let reason = Reason::parse(&now.reason)?;
    let is_new = match find(&old.conditions, READY) {
        Some(before) => before.reason != now.reason || before.status != now.status,
        None => true,
    };
    let is_warning = match reason.class() {
        // The rollout has an Event of its own.
        Class::Progressing => return None,
        Class::Well => false,
        Class::Recovering(_) | Class::NeedsPerson(_) => true,
    };
    let version = new
        .running
        .as_ref()
        .map_or("None", |running| running.version.number());
    is_new.then(|| Transition {
        is_warning,
        reason,
        note: now.message.clone(),
        action: format!("{reason}Version{version}"),
    })
}

/// The entries of the history that are new or changed.
#[must_use]
pub fn history_changes<'a>(
    old: &AliasBindingStatus,
    new: &'a AliasBindingStatus,
) -> Vec<&'a HistoryEntry> {
    new.history
        .iter()
        .filter(|entry| !old.history.contains(entry))
        .collect()
}
