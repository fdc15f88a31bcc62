//! The condition types of the three kinds, and the one way in which a condition changes.
//!
//! Absent: the clock. `now` is a parameter, and is used only if a status changes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Reason;
use super::reason::{Class, Problem};

/// The object is as its spec asks. True with the reasons `Live`, `Pinned`, `Held`, `Suspended`, `Reachable`, `Mirrored`,
/// and with a registry outage if the last resolved version still runs. False with any other reason.
pub const READY: &str = "Ready";
/// Work is under way and goes on by itself. Present only if it is True.
pub const RECONCILING: &str = "Reconciling";
/// A person is needed. Present only if it is True.
pub const STALLED: &str = "Stalled";
/// The registry named a usable version. True with the reason `Resolved`, False with the reason of the registry's problem.
pub const RESOLVED: &str = "Resolved";
/// The wanted version's artifact can be read. True with the reason `Resolved`; Unknown with `Resolved` if Pointsman cannot
/// check this store, with `ArtifactCheckFailed` if the store does not respond, and with `Pending` before the first check; False
/// with `ArtifactUnavailable`.
pub const ARTIFACT_AVAILABLE: &str = "ArtifactAvailable";

/// The wanted version may be rolled out as far as `spec.promotion.gates` say (absent without gates). True with the reason
/// `GatesPassed`, also if the version needs no gate; False with `GateFailed` and `InvalidSpec`.
pub const GATES_PASSED: &str = "GatesPassed";
/// Deliveries of the registry's webhook arrive (on a `ModelRegistry`; absent if `spec.webhook` is disabled). Polling does not
/// depend on it. True with the reason `WebhookReady`; Unknown with `Pending` and `WebhookSettling`; False with the other
/// reasons that begin with Webhook, with `CredentialsNotFound`, and with the reason of the registry's problem.
pub const WEBHOOK_READY: &str = "WebhookReady";
/// The tags of `spec.writeBack` are in the registry (on a `ModelRegistry`). Present only if it is False: one could not be written,
/// with the reason of the registry's problem. Nothing else depends on it.
pub const TAGS_WRITTEN: &str = "TagsWritten";

/// The longest sentence for people, with its remedy, in characters.
pub const LONGEST_SENTENCE: usize = 200;
/// The longest message that a condition carries, in characters.
const LONGEST_MESSAGE: usize = 1024;

/// The desired condition, without the time of its last transition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConditionUpdate {
    /// One of the types above.
    pub type_: &'static str,
    /// True, False or (`None`) Unknown.
    pub status: Option<bool>,
    /// The word.
    pub reason: Reason,
    /// The sentence.
    pub message: String,
}

impl ConditionUpdate {
    /// A condition that is True.
    pub fn yes(type_: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: Some(true),
            reason,
            message: message.into(),
        }
    }

    /// A condition that is False.
    pub fn no(type_: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: Some(false),
            reason,
            message: message.into(),
        }
    }

    /// A condition that is Unknown.
    pub fn unknown(type_: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: None,
            reason,
            message: message.into(),
        }
    }
}

/// The conditions for a problem: Ready is False, and Reconciling or Stalled is True by the class of its reason. What a person
/// chose, such as the suspension of a registry, does not end by itself.
#[must_use]
pub fn not_ready(problem: &Problem) -> Vec<ConditionUpdate> {
    match problem.reason.class() {
        Class::Progressing | Class::Recovering(_) => reconciling(problem),
        Class::Well | Class::NeedsPerson(_) => stalled(problem),
    }
}

/// The conditions for a problem that ends without a person: Ready is False, Reconciling is True.
#[must_use]
pub fn reconciling(problem: &Problem) -> Vec<ConditionUpdate> {
    ready_false_and(RECONCILING, problem)
}

/// The conditions for a problem that needs a person: Ready is False, Stalled is True.
#[must_use]
pub fn stalled(problem: &Problem) -> Vec<ConditionUpdate> {
    ready_false_and(STALLED, problem)
}

fn ready_false_and(type_: &'static str, problem: &Problem) -> Vec<ConditionUpdate> {
    vec![
        ConditionUpdate::no(READY, problem.reason, &problem.message),
        ConditionUpdate::yes(type_, problem.reason, &problem.message),
    ]
}

/// The condition types that Pointsman writes. Conditions of any other type belong to other controllers.
const OWN_TYPES: [&str; 8] = [
    READY,
    RECONCILING,
    STALLED,
    RESOLVED,
    ARTIFACT_AVAILABLE,
    GATES_PASSED,
    WEBHOOK_READY,
    TAGS_WRITTEN,
];

/// The wanted conditions, each with the time of its last change of status, and the conditions of other controllers as they are.
#[must_use]
pub fn transition(
    old: &[Condition],
    wanted: &[ConditionUpdate],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let own = wanted
        .iter()
        .map(|condition| settle(old, condition, generation, now));
    let foreign = old
        .iter()
        .filter(|condition| !OWN_TYPES.contains(&condition.type_.as_str()));
    own.chain(foreign.cloned()).collect()
}

fn settle(
    old: &[Condition],
    wanted: &ConditionUpdate,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = match wanted.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let since = old
        .iter()
        .find(|condition| condition.type_ == wanted.type_ && condition.status == status)
        .map_or(Time(now), |condition| {
            condition.last_transition_time.clone()
        });
    Condition {
        type_: wanted.type_.to_owned(),
        status: status.to_owned(),
        reason: wanted.reason.as_str().to_owned(),
        message: shorten(&wanted.message, LONGEST_MESSAGE),
        observed_generation: generation,
        last_transition_time: since,
    }
}

/// The text, cut to this many characters, with an ellipsis if it was longer.
#[must_use]
pub fn shorten(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(longest.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A cause and its remedy as one message. The cause is cut if both are too long; the remedy never is.
#[must_use]
pub fn with_remedy(cause: &str, remedy: &str) -> String {
    let room = LONGEST_SENTENCE.saturating_sub(remedy.chars().count() + 2);
    format!("{}; {remedy}", shorten(cause, room))
}

/// The condition of a type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn only_a_problem_that_ends_without_a_person_is_reconciling() {
        let types = |reason| {
            let conditions = not_ready(&Problem::new(reason, ""));
            conditions.iter().map(|each| each.type_).collect::<Vec<_>>()
        };
        assert_eq!(types(Reason::Blocked), [READY, RECONCILING]);
        assert_eq!(types(Reason::RollingOut), [READY, RECONCILING]);
        assert_eq!(types(Reason::RolledBack), [READY, STALLED]);
        assert_eq!(types(Reason::Suspended), [READY, STALLED]);
    }

    #[test]
    fn a_condition_whose_status_stays_keeps_its_time() {
        let first = transition(
            &[],
            &[ConditionUpdate::yes(READY, Reason::Live, "a")],
            Some(1),
            at(1),
        );
        let second = transition(
            &first,
            &[ConditionUpdate::yes(READY, Reason::Pinned, "b")],
            Some(2),
            at(9),
        );
        assert_eq!(second[0].last_transition_time, Time(at(1)));
        assert_eq!(second[0].reason, "Pinned");
        assert_eq!(second[0].observed_generation, Some(2));
    }

    #[test]
    fn a_condition_whose_status_changes_takes_the_new_time() {
        let first = transition(
            &[],
            &[ConditionUpdate::yes(READY, Reason::Live, "a")],
            Some(1),
            at(1),
        );
        let second = transition(
            &first,
            &[ConditionUpdate::no(READY, Reason::RollingOut, "b")],
            Some(1),
            at(9),
        );
        assert_eq!(second[0].last_transition_time, Time(at(9)));
    }

    #[test]
    fn conditions_of_other_controllers_are_kept() {
        let mut old = transition(
            &[],
            &[ConditionUpdate::yes(READY, Reason::Live, "a")],
            None,
            at(1),
        );
        old[0].type_ = "example.com/Audited".to_owned();
        let new = transition(
            &old,
            &[ConditionUpdate::yes(READY, Reason::Live, "a")],
            None,
            at(2),
        );
        assert_eq!(new.len(), 2);
        assert_eq!(new[1], old[0]);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character_and_says_so() {
        assert_eq!(shorten("ééé", 2), "é…");
        assert_eq!(shorten("éé", 2), "éé");
    }
}
