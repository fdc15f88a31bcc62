//! The ledger: what ran when, what changed it, and how it went.
//!
//! Absent: any other memory. Everything is told from the workload as it is and the ledger as it was.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::alias_binding::{HistoryEntry, Outcome, Trigger};
use crate::api::{ModelVersion, Reason, reason::Problem};
use crate::targets::Progress;

/// What the workload's pod template holds now.
#[derive(Clone, Debug)]
pub struct Running<'a> {
    /// The version, as the template names it.
    pub version: &'a str,
    /// Where its files are, as the template names it.
    pub artifact_uri: Option<&'a str>,
    /// The run, as the template names it.
    pub run_id: Option<&'a str>,
    /// When the template was written, where that is known.
    pub written_at: Option<Timestamp>,
    /// What wrote it.
    pub trigger: Trigger,
    /// Who wrote it, for people.
    pub writer: String,
}

/// What a pass saw that the ledger is to tell.
#[derive(Clone, Debug)]
pub struct Turn<'a> {
    /// What the workload holds; `None` where there is no workload, or no version in it.
    pub running: Option<&'a Running<'a>>,
    /// How far its rollout is.
    pub progress: Option<&'a Progress>,
    /// Why it fails, where it does.
    pub failure: Option<&'a Problem>,
    /// For how long it must stay well after the rollout.
    pub bake: SignedDuration,
    /// The version that was not let into the workload, and why.
    pub refused: Option<(&'a ModelVersion, &'a Problem)>,
    /// The mirrored version that is wanted.
    pub details: Option<&'a ModelVersion>,
}

/// The ledger with what runs now at its head, bounded.
#[must_use]
pub fn ledger(
    old: &[HistoryEntry],
    turn: &Turn<'_>,
    limit: usize,
    now: Timestamp,
) -> Vec<HistoryEntry> {
    let mut ledger = old.to_vec();
    if let Some(running) = turn.running {
        if !current(&mut ledger)
            .is_some_and(|entry| entry.is_version(running.version, running.artifact_uri))
        {
            finish(&mut ledger, running, now);
            ledger.insert(0, begin(running, turn.details, now));
        }
        let bake = if was_good(old, running) {
            SignedDuration::ZERO
        } else {
            turn.bake
        };
        if let Some(entry) = current(&mut ledger) {
            advance(entry, turn, bake, now);
        }
    }
    if let Some((version, problem)) = turn.refused {
        refuse(&mut ledger, version, problem, now);
    }
    shorten(&mut ledger, limit);
    ledger
}

/// Forgets the oldest entries, but never what runs: versions that are not let in may outnumber the limit meanwhile.
fn shorten(ledger: &mut Vec<HistoryEntry>, limit: usize) {
    while ledger.len() > limit {
        let Some(oldest) = ledger.iter().rposition(|entry| entry.finished_at.is_some()) else {
            return;
        };
        ledger.remove(oldest);
    }
}

fn current(ledger: &mut [HistoryEntry]) -> Option<&mut HistoryEntry> {
    ledger.iter_mut().find(|entry| entry.finished_at.is_none())
}

/// Whether a version stayed well before; such a one is not watched again.
fn was_good(ledger: &[HistoryEntry], running: &Running<'_>) -> bool {
    let mut same = ledger
        .iter()
        .filter(|entry| entry.is_version(running.version, running.artifact_uri));
    same.any(|entry| {
        entry.live_at.is_some() && !matches!(entry.outcome, Outcome::Failed | Outcome::RolledBack)
    })
}

fn finish(ledger: &mut [HistoryEntry], next: &Running<'_>, now: Timestamp) {
    let Some(entry) = current(ledger) else { return };
    entry.finished_at = Some(Time(next.written_at.unwrap_or(now)));
    entry.outcome = match entry.outcome {
        Outcome::Failed if next.trigger == Trigger::Failure => Outcome::RolledBack,
        Outcome::Live | Outcome::RollingOut | Outcome::Baking => Outcome::Superseded,
        ended => ended,
    };
}

fn begin(running: &Running<'_>, details: Option<&ModelVersion>, now: Timestamp) -> HistoryEntry {
    let known = details.filter(|details| details.version == running.version);
    HistoryEntry {
        version: running.version.to_owned(),
        artifact_uri: running.artifact_uri.map(str::to_owned),
        run_id: running
            .run_id
            .filter(|id| !id.is_empty())
            .map(str::to_owned),
        code: known.and_then(|details| details.code.clone()),
        outcome: Outcome::RollingOut,
        reason: Reason::RollingOut,
        message: running.writer.clone(),
        started_at: Time(running.written_at.unwrap_or(now)),
        available_at: None,
        live_at: None,
        finished_at: None,
        trigger: running.trigger,
    }
}

fn advance(entry: &mut HistoryEntry, turn: &Turn<'_>, bake: SignedDuration, now: Timestamp) {
    if let Some(problem) = turn.failure {
        if entry.outcome != Outcome::Failed {
            (entry.outcome, entry.reason) = (Outcome::Failed, problem.reason);
            entry.message.clone_from(&problem.message);
        }
        return;
    }
    if entry.outcome == Outcome::Live
        || turn
            .progress
            .is_none_or(|progress| *progress != Progress::Complete)
            && entry.available_at.is_none()
    {
        return;
    }
    let available = entry.available_at.get_or_insert(Time(now)).0;
    // Whatever cannot be reckoned with has lasted long enough.
    let is_baked = available
        .saturating_add(bake)
        .is_ok_and(|until| now >= until);
    if is_baked {
        (entry.outcome, entry.reason, entry.live_at) =
            (Outcome::Live, Reason::Live, Some(Time(now)));
    } else {
        (entry.outcome, entry.reason) = (Outcome::Baking, Reason::Baking);
    }
}

/// A version that is not let in is told once, however often it is looked at.
fn refuse(
    ledger: &mut Vec<HistoryEntry>,
    version: &ModelVersion,
    problem: &Problem,
    now: Timestamp,
) {
    let told = ledger
        .iter()
        .take_while(|entry| entry.finished_at.is_some());
    let mut told = told.filter(|entry| entry.outcome == Outcome::HeldBack);
    if told.any(|entry| entry.is_version(&version.version, version.artifact_uri.as_deref())) {
        return;
    }
    ledger.insert(
        0,
        HistoryEntry {
            version: version.version.clone(),
            artifact_uri: version.artifact_uri.clone(),
            run_id: version.run_id.clone(),
            code: version.code.clone(),
            outcome: Outcome::HeldBack,
            reason: problem.reason,
            message: problem.message.clone(),
            started_at: Time(now),
            available_at: None,
            live_at: None,
            finished_at: Some(Time(now)),
            trigger: Trigger::AliasMove,
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn running(version: &'static str, uri: &'static str) -> Running<'static> {
        Running {
            version,
            artifact_uri: Some(uri),
            run_id: None,
            written_at: None,
            trigger: Trigger::AliasMove,
            writer: String::new(),
        }
    }

    fn turn<'a>(now: &'a Running<'a>) -> Turn<'a> {
        Turn {
            running: Some(now),
            progress: Some(&Progress::Complete),
            failure: None,
            bake: SignedDuration::ZERO,
            refused: None,
            details: None,
        }
    }

    fn after(old: &[HistoryEntry], now: &Running<'_>, second: i64) -> Vec<HistoryEntry> {
        ledger(old, &turn(now), 3, at(second))
    }

    fn outcomes(ledger: &[HistoryEntry]) -> Vec<(&str, Outcome)> {
        ledger
            .iter()
            .map(|entry| (entry.version.as_str(), entry.outcome))
            .collect()
    }

    #[test]
    fn a_new_version_bakes_before_it_is_live_and_one_that_was_good_does_not() {
        let bake = |old: &[HistoryEntry], now: &Running<'_>, second| {
            ledger(
                old,
                &Turn {
                    bake: SignedDuration::from_secs(10),
                    ..turn(now)
                },
                3,
                at(second),
            )
        };
        let early = bake(&[], &running("1", "a"), 1);
        assert_eq!(outcomes(&early), [("1", Outcome::Baking)]);
        assert_eq!(
            outcomes(&bake(&early, &running("1", "a"), 10)),
            [("1", Outcome::Baking)]
        );
        let live = bake(&early, &running("1", "a"), 11);
        assert_eq!(
            (
                live[0].outcome,
                live[0].available_at.clone(),
                live[0].live_at.clone()
            ),
            (Outcome::Live, Some(Time(at(1))), Some(Time(at(11))))
        );
        let back = bake(&bake(&live, &running("2", "b"), 12), &running("1", "a"), 13);
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
    fn a_version_that_failed_and_was_gone_back_from_is_rolled_back() {
        let good = after(&[], &running("1", "a"), 1);
        let problem = Problem::new(Reason::CrashLoop, "crashes");
        let two = running("2", "b");
        let failed = ledger(
            &good,
            &Turn {
                failure: Some(&problem),
                ..turn(&two)
            },
            3,
            at(2),
        );
        assert_eq!(
            (
                failed[0].outcome,
                failed[0].reason,
                failed[0].message.as_str()
            ),
            (Outcome::Failed, Reason::CrashLoop, "crashes")
        );
        let back = after(
            &failed,
            &Running {
                trigger: Trigger::Failure,
                ..running("1", "a")
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
    fn a_version_that_was_not_let_in_is_told_once_and_what_runs_goes_on() {
        let good = after(&[], &running("1", "a"), 1);
        let version = ModelVersion {
            version: "2".into(),
            artifact_uri: Some("b".into()),
            ..ModelVersion::default()
        };
        let problem = Problem::new(Reason::ArtifactUnavailable, "gone");
        let one = running("1", "a");
        let refused = |old: &[HistoryEntry]| {
            ledger(
                old,
                &Turn {
                    refused: Some((&version, &problem)),
                    ..turn(&one)
                },
                3,
                at(2),
            )
        };
        let told = refused(&good);
        assert_eq!(
            outcomes(&told),
            [("2", Outcome::HeldBack), ("1", Outcome::Live)]
        );
        assert_eq!(refused(&told), told);
    }

    #[test]
    fn what_runs_stays_in_the_ledger_however_many_versions_were_not_let_in() {
        let problem = Problem::new(Reason::ArtifactUnavailable, "gone");
        let one = running("1", "a");
        for limit in [1, 2, 3] {
            let mut kept = after(&[], &one, 1);
            for number in ["2", "3", "4"] {
                let version = ModelVersion {
                    version: number.into(),
                    artifact_uri: Some(number.into()),
                    ..ModelVersion::default()
                };
                let turn = Turn {
                    refused: Some((&version, &problem)),
                    ..turn(&one)
                };
                kept = ledger(&kept, &turn, limit, at(2));
                assert_eq!(ledger(&kept, &turn, limit, at(3)), kept, "limit {limit}");
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
    fn forward_and_back_are_three_entries_and_the_newest_stands_first() {
        let one = after(&[], &running("1", "a"), 1);
        let two = after(&one, &running("2", "b"), 2);
        let back = after(&two, &running("1", "a"), 3);
        let versions: Vec<_> = back
            .iter()
            .map(|entry| (entry.version.as_str(), entry.outcome))
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
        let one = after(&[], &running("1", "a"), 1);
        assert_eq!(after(&one, &running("1", "other"), 2).len(), 2);
    }

    #[test]
    fn a_pass_that_sees_nothing_new_changes_nothing() {
        let one = after(&[], &running("1", "a"), 1);
        assert_eq!(after(&one, &running("1", "a"), 9), one);
    }

    #[test]
    fn the_ledger_keeps_to_its_limit() {
        let mut kept = Vec::new();
        for (second, version) in ["1", "2", "3", "4", "5"].into_iter().enumerate() {
            kept = after(
                &kept,
                &running(version, version),
                i64::try_from(second).expect("small"),
            );
        }
        assert_eq!(
            kept.iter()
                .map(|entry| entry.version.as_str())
                .collect::<Vec<_>>(),
            ["5", "4", "3"]
        );
    }
}
