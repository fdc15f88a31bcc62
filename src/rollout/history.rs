//! The history: which version ran when, what changed it, and how it went.
//!
//! Absent: any other memory. Everything follows from the workload as it is and the history as it was.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rollback_target::has_failed;
use crate::api::alias_binding::{ApprovalRecord, HistoryEntry, Outcome, Overrode, Trigger};
use crate::api::reason::Problem;
use crate::api::{ModelVersion, Reason, VersionRef};
use crate::targets::RolloutState;

/// The version in the workload's pod template.
#[derive(Clone, Debug)]
pub struct Running {
    /// The version.
    pub version: VersionRef,
    /// When the template was written, if that is known.
    pub written_at: Option<Timestamp>,
    /// What caused the write.
    pub trigger: Trigger,
    /// The cause as a sentence.
    pub cause: String,
}

/// The observations of one reconcile that go into the history.
#[derive(Clone, Debug)]
pub struct Observations<'a> {
    /// The version in the workload; `None` if there is no workload, or no version in it.
    pub running: Option<&'a Running>,
    /// How far its rollout is.
    pub rollout: Option<&'a RolloutState>,
    /// Why it fails, if it does.
    pub failure: Option<&'a Problem>,
    /// Why its rollout is blocked, if it is.
    pub blocked: Option<&'a Problem>,
    /// The bake begins no earlier: when its pods were replaced, or a chosen container of them was restarted.
    pub bakes_from: Option<Timestamp>,
    /// Whether it is held back, although it is still in the workload.
    pub is_held_back: bool,
    /// Whether it must bake although it was good before: after a fault that it shared with other versions.
    pub bakes_again: bool,
    /// For how long it must stay well after the rollout.
    pub bake: SignedDuration,
    /// The version that a gate refused, and why.
    pub refused: Option<(VersionRef, &'a Problem)>,
    /// The mirrored version that is wanted.
    pub details: Option<&'a ModelVersion>,
    /// The rule that a person has the wanted version go past.
    pub overrode: Option<&'a Overrode>,
    /// The approval by which the wanted version goes forward.
    pub approval: Option<&'a ApprovalRecord>,
}

/// The history with the running version at its head, bounded.
#[must_use]
pub fn history(
    old: &[HistoryEntry],
    observations: &Observations<'_>,
    limit: usize,
    now: Timestamp,
) -> Vec<HistoryEntry> {
    let mut history = old.to_vec();
    if let Some(running) = observations.running {
        let is_current = current(&mut history)
            .is_some_and(|entry| entry.version.is_written_as(&running.version));
        if !is_current {
            finish(&mut history, running, now);
            history.insert(0, begin(running, observations, now));
        }
        let bake = if was_good(old, running) && !observations.bakes_again {
            SignedDuration::ZERO
        } else {
            observations.bake
        };
        if let Some(entry) = current(&mut history) {
            advance(entry, observations, bake, now);
        }
    }
    if let Some((version, problem)) = &observations.refused {
        refuse(&mut history, version, problem, observations.details, now);
    }
    shorten(&mut history, limit);
    history
}

/// Drops the oldest entries, but never the running one: refused versions may outnumber the limit meanwhile.
fn shorten(history: &mut Vec<HistoryEntry>, limit: usize) {
    while history.len() > limit {
        let Some(oldest) = history
            .iter()
            .rposition(|entry| entry.finished_at.is_some())
        else {
            return;
        };
        history.remove(oldest);
    }
}

fn current(history: &mut [HistoryEntry]) -> Option<&mut HistoryEntry> {
    history.iter_mut().find(|entry| entry.finished_at.is_none())
}

/// Whether a version stayed well before, with the same address and location; such a version is not baked again.
fn was_good(history: &[HistoryEntry], running: &Running) -> bool {
    history.iter().any(|entry| {
        entry.version.is_written_as(&running.version)
            && entry.live_at.is_some()
            && !has_failed(entry)
    })
}

fn finish(history: &mut [HistoryEntry], next: &Running, now: Timestamp) {
    let Some(entry) = current(history) else {
        return;
    };
    entry.finished_at = Some(Time(next.written_at.unwrap_or(now)));
    match entry.outcome.known() {
        Some(Outcome::Failed) if next.trigger == Trigger::Failure => {
            entry.outcome = Outcome::RolledBack.into();
        }
        Some(
            Outcome::Live
            | Outcome::RollingOut
            | Outcome::Blocked
            | Outcome::ScaledToZero
            | Outcome::Baking,
        ) => {
            entry.outcome = Outcome::Superseded.into();
        }
        _ => {}
    }
}

fn begin(running: &Running, observations: &Observations<'_>, now: Timestamp) -> HistoryEntry {
    let version = &running.version;
    let details = observations.details;
    let known = details.filter(|details| details.reference(&version.id.model).is_same(version));
    // It is about the wanted version.
    let overrode = known.and(observations.overrode).cloned();
    let approval = known.and(observations.approval).cloned();
    HistoryEntry {
        version: running.version.clone(),
        code: known.and_then(|details| details.code.clone()),
        outcome: Outcome::RollingOut.into(),
        reason: Reason::RollingOut.into(),
        message: running.cause.clone(),
        started_at: Time(running.written_at.unwrap_or(now)),
        available_at: None,
        live_at: None,
        finished_at: None,
        trigger: running.trigger.into(),
        overrode,
        approval,
    }
}

fn advance(
    entry: &mut HistoryEntry,
    observations: &Observations<'_>,
    bake: SignedDuration,
    now: Timestamp,
) {
    if let Some(problem) = observations.failure {
        if entry.outcome != Outcome::Failed {
            set(entry, Outcome::Failed, problem.reason, &problem.message);
        }
        return;
    }
    if observations.is_held_back || entry.outcome == Outcome::Live {
        return;
    }
    if let Some(problem) = observations.blocked {
        set(entry, Outcome::Blocked, problem.reason, &problem.message);
        return;
    }
    match observations.rollout {
        Some(RolloutState::Complete) => bakes(entry, observations, bake, now),
        Some(RolloutState::ScaledToZero) => {
            // Nothing runs: the version is observed from the beginning when it first has pods.
            entry.available_at = None;
            let message = "the workload has no replicas";
            set(entry, Outcome::ScaledToZero, Reason::ScaledToZero, message);
        }
        // A version that was available once goes on baking when all its pods are available again.
        _ if entry.available_at.is_some() => {}
        _ => {
            if entry.outcome != Outcome::RollingOut {
                let cause = observations
                    .running
                    .map_or("", |running| running.cause.as_str());
                set(entry, Outcome::RollingOut, Reason::RollingOut, cause);
            }
        }
    }
}

fn set(entry: &mut HistoryEntry, outcome: Outcome, reason: Reason, message: &str) {
    entry.outcome = outcome.into();
    entry.reason = reason.into();
    message.clone_into(&mut entry.message);
}

/// All replicas run the version and are available: it bakes until no chosen container was restarted for `bake`.
fn bakes(
    entry: &mut HistoryEntry,
    observations: &Observations<'_>,
    bake: SignedDuration,
    now: Timestamp,
) {
    let was_failing = matches!(
        entry.outcome.known(),
        Some(Outcome::Failed | Outcome::Blocked)
    );
    let since = entry
        .available_at
        .as_ref()
        .map(|at| at.0)
        .filter(|_at| !was_failing);
    let available = since.map_or(now, |since| {
        observations.bakes_from.map_or(since, |at| since.max(at))
    });
    entry.available_at = Some(Time(available));
    if was_failing || entry.outcome == Outcome::ScaledToZero {
        let cause = observations
            .running
            .map_or("", |running| running.cause.as_str());
        cause.clone_into(&mut entry.message);
    }
    // A time that overflows is over.
    let is_baked = available
        .saturating_add(bake)
        .is_ok_and(|until| now >= until);
    if is_baked {
        entry.outcome = Outcome::Live.into();
        entry.reason = Reason::Live.into();
        entry.live_at = Some(Time(now));
    } else {
        entry.outcome = Outcome::Baking.into();
        entry.reason = Reason::Baking.into();
    }
}

/// Records a refused version once, however often it is reconciled.
fn refuse(
    history: &mut Vec<HistoryEntry>,
    version: &VersionRef,
    problem: &Problem,
    details: Option<&ModelVersion>,
    now: Timestamp,
) {
    let newest = history
        .iter()
        .take_while(|entry| entry.finished_at.is_some());
    let mut refused = newest.filter(|entry| entry.outcome == Outcome::HeldBack);
    if refused.any(|entry| entry.version.is_same(version)) {
        return;
    }
    let entry = HistoryEntry {
        version: version.clone(),
        code: details.and_then(|details| details.code.clone()),
        outcome: Outcome::HeldBack.into(),
        reason: problem.reason.into(),
        message: problem.message.clone(),
        started_at: Time(now),
        available_at: None,
        live_at: None,
        finished_at: Some(Time(now)),
        trigger: Trigger::AliasMove.into(),
        overrode: None,
        approval: None,
    };
    history.insert(0, entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{With, version};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn running(number: &str) -> Running {
        Running {
            version: version(number),
            written_at: None,
            trigger: Trigger::AliasMove,
            cause: String::new(),
        }
    }

    fn observed(now: &Running) -> Observations<'_> {
        Observations {
            running: Some(now),
            rollout: Some(&RolloutState::Complete),
            failure: None,
            blocked: None,
            bakes_from: None,
            is_held_back: false,
            bakes_again: false,
            bake: SignedDuration::ZERO,
            refused: None,
            details: None,
            overrode: None,
            approval: None,
        }
    }

    fn after(old: &[HistoryEntry], now: &Running, second: i64) -> Vec<HistoryEntry> {
        history(old, &observed(now), 3, at(second))
    }

    fn outcomes(history: &[HistoryEntry]) -> Vec<(&str, Outcome)> {
        history
            .iter()
            .map(|entry| {
                (
                    entry.version.number(),
                    entry.outcome.known().expect("known"),
                )
            })
            .collect()
    }

    #[test]
    fn only_a_version_that_was_never_good_bakes_before_it_is_live() {
        let bake = |old: &[HistoryEntry], now: &Running, second| {
            history(
                old,
                &Observations {
                    bake: SignedDuration::from_secs(10),
                    ..observed(now)
                },
                3,
                at(second),
            )
        };
        let early = bake(&[], &running("1"), 1);
        assert_eq!(outcomes(&early), [("1", Outcome::Baking)]);
        assert_eq!(
            outcomes(&bake(&early, &running("1"), 10)),
            [("1", Outcome::Baking)]
        );
        let live = bake(&early, &running("1"), 11);
        assert_eq!(
            (
                live[0].outcome.clone(),
                live[0].available_at.clone(),
                live[0].live_at.clone()
            ),
            (Outcome::Live.into(), Some(Time(at(1))), Some(Time(at(11))))
        );
        let back = bake(&bake(&live, &running("2"), 12), &running("1"), 13);
        assert_eq!(
            outcomes(&back),
            [
                ("1", Outcome::Live),
                ("2", Outcome::Superseded),
                ("1", Outcome::Superseded)
            ]
        );
    }

    #[test]
    fn a_failed_version_becomes_rolled_back_after_the_rollback() {
        let good = after(&[], &running("1"), 1);
        let problem = Problem::new(Reason::CrashLoop, "crashes");
        let two = running("2");
        let failed = history(
            &good,
            &Observations {
                failure: Some(&problem),
                ..observed(&two)
            },
            3,
            at(2),
        );
        assert_eq!(
            (
                failed[0].outcome.clone(),
                failed[0].reason.clone(),
                failed[0].message.as_str()
            ),
            (Outcome::Failed.into(), Reason::CrashLoop.into(), "crashes")
        );
        let back = after(
            &failed,
            &Running {
                trigger: Trigger::Failure,
                ..running("1")
            },
            3,
        );
        assert_eq!(
            outcomes(&back),
            [
                ("1", Outcome::Live),
                ("2", Outcome::RolledBack),
                ("1", Outcome::Superseded)
            ]
        );
    }

    #[test]
    fn a_refused_version_is_recorded_once_beside_the_running_one() {
        let good = after(&[], &running("1"), 1);
        let refused_version = version("2");
        let problem = Problem::new(Reason::ArtifactUnavailable, "gone");
        let one = running("1");
        let refused = |old: &[HistoryEntry]| {
            history(
                old,
                &Observations {
                    refused: Some((refused_version.clone(), &problem)),
                    ..observed(&one)
                },
                3,
                at(2),
            )
        };
        let recorded = refused(&good);
        assert_eq!(
            outcomes(&recorded),
            [("2", Outcome::HeldBack), ("1", Outcome::Live)]
        );
        assert_eq!(refused(&recorded), recorded);
    }

    #[test]
    fn the_running_version_stays_in_the_history_beside_many_refused_ones() {
        let problem = Problem::new(Reason::ArtifactUnavailable, "gone");
        let one = running("1");
        for limit in [1, 2, 3] {
            let mut kept = after(&[], &one, 1);
            for number in ["2", "3", "4"] {
                let refused_version = version(number);
                let observations = Observations {
                    refused: Some((refused_version.clone(), &problem)),
                    ..observed(&one)
                };
                kept = history(&kept, &observations, limit, at(2));
                assert_eq!(
                    history(&kept, &observations, limit, at(3)),
                    kept,
                    "limit {limit}"
                );
            }
            assert_eq!(
                outcomes(&kept).last(),
                Some(&("1", Outcome::Live)),
                "limit {limit}"
            );
            assert_eq!(kept.len(), limit);
        }
    }

    #[test]
    fn forward_and_back_are_three_entries_with_the_newest_first() {
        let one = after(&[], &running("1"), 1);
        let two = after(&one, &running("2"), 2);
        let back = after(&two, &running("1"), 3);
        let versions: Vec<_> = back
            .iter()
            .map(|entry| {
                (
                    entry.version.number(),
                    entry.outcome.known().expect("known"),
                )
            })
            .collect();
        assert_eq!(
            versions,
            [
                ("1", Outcome::Live),
                ("2", Outcome::Superseded),
                ("1", Outcome::Superseded)
            ]
        );
        assert_eq!(back[1].finished_at, Some(Time(at(3))));
    }

    #[test]
    fn the_same_number_of_a_model_made_again_is_another_entry() {
        let one = after(&[], &running("1"), 1);
        let other =
            running("1").with(|running| running.version.artifact_uri = Some("s3://other/1".into()));
        assert_eq!(after(&one, &other, 2).len(), 2);
    }

    #[test]
    fn a_reconcile_that_observes_nothing_new_changes_nothing() {
        let one = after(&[], &running("1"), 1);
        assert_eq!(after(&one, &running("1"), 9), one);
    }

    #[test]
    fn the_history_keeps_to_its_limit() {
        let mut kept = Vec::new();
        for (second, version) in ["1", "2", "3", "4", "5"].into_iter().enumerate() {
            kept = after(
                &kept,
                &running(version),
                i64::try_from(second).expect("small"),
            );
        }
        assert_eq!(
            kept.iter()
                .map(|entry| entry.version.number())
                .collect::<Vec<_>>(),
            ["5", "4", "3"]
        );
    }

    fn baking(
        old: &[HistoryEntry],
        second: i64,
        rollout: &RolloutState,
        bakes_from: Option<Timestamp>,
    ) -> HistoryEntry {
        let two = running("2");
        let observations = Observations {
            bake: SignedDuration::from_secs(10),
            rollout: Some(rollout),
            bakes_from,
            ..observed(&two)
        };
        history(old, &observations, 3, at(second)).remove(0)
    }

    #[test]
    fn a_restart_of_a_chosen_container_begins_the_bake_again() {
        let first = baking(&[], 1, &RolloutState::Complete, None);
        let restarted = baking(&[first], 9, &RolloutState::Complete, Some(at(8)));
        assert_eq!(restarted.available_at, Some(Time(at(8))));
        let outcome = |second| {
            let old = [restarted.clone()];
            baking(&old, second, &RolloutState::Complete, None).outcome
        };
        assert_eq!(outcome(17), Outcome::Baking);
        assert_eq!(outcome(18), Outcome::Live);
    }

    #[test]
    fn a_version_whose_workload_is_not_complete_at_the_end_of_the_bake_is_not_live() {
        let first = baking(&[], 1, &RolloutState::Complete, None);
        let in_progress = RolloutState::InProgress(String::new());
        let incomplete = baking(&[first], 30, &in_progress, None);
        assert_eq!(incomplete.outcome, Outcome::Baking);
        assert_eq!(incomplete.live_at, None);
        let complete = baking(&[incomplete], 31, &RolloutState::Complete, None);
        assert_eq!(complete.outcome, Outcome::Live);
    }

    #[test]
    fn nothing_is_good_that_never_ran() {
        let asleep = baking(&[], 1, &RolloutState::ScaledToZero, None);
        assert_eq!(asleep.outcome, Outcome::ScaledToZero);
        assert_eq!((&asleep.available_at, &asleep.live_at), (&None, &None));
        let awake = baking(&[asleep], 99, &RolloutState::Complete, None);
        assert_eq!(awake.outcome, Outcome::Baking);
        assert_eq!(awake.available_at, Some(Time(at(99))));
    }

    #[test]
    fn a_blocked_rollout_goes_on_under_its_first_cause() {
        let problem = Problem::new(Reason::Blocked, "no room");
        let in_progress = RolloutState::InProgress(String::new());
        let two = Running {
            cause: "champion named version 2".into(),
            ..running("2")
        };
        let mut observations = observed(&two);
        (observations.blocked, observations.rollout) = (Some(&problem), Some(&in_progress));
        let blocked = history(&[], &observations, 3, at(1));
        assert_eq!(
            (blocked[0].outcome.clone(), blocked[0].message.as_str()),
            (Outcome::Blocked.into(), "no room")
        );
        observations.blocked = None;
        let on = history(&blocked, &observations, 3, at(2));
        assert_eq!(
            (on[0].outcome.clone(), on[0].message.as_str()),
            (Outcome::RollingOut.into(), "champion named version 2")
        );
    }
}
