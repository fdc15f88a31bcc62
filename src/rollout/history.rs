//! The ledger: what ran when, what changed it, and how it went.
//!
//! Absent: any other memory. Everything is told from the workload as it is and the ledger as it was.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::alias_binding::{HistoryEntry, Outcome, Trigger};
use crate::api::{ModelVersion, Reason};
use crate::workload::Progress;

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

/// The ledger with what runs now at its head, bounded.
#[must_use]
pub fn ledger(
    old: &[HistoryEntry],
    running: Option<&Running<'_>>,
    progress: Option<&Progress>,
    details: Option<&ModelVersion>,
    limit: usize,
    now: Timestamp,
) -> Vec<HistoryEntry> {
    let mut ledger = old.to_vec();
    if let Some(running) = running {
        if !ledger.first().is_some_and(|head| is_same(head, running)) {
            finish(&mut ledger, running.written_at.unwrap_or(now));
            ledger.insert(0, begin(running, details, now));
        }
        if let (Some(head), Some(progress)) = (ledger.first_mut(), progress) {
            advance(head, progress, now);
        }
    }
    ledger.truncate(limit);
    ledger
}

fn is_same(head: &HistoryEntry, running: &Running<'_>) -> bool {
    head.finished_at.is_none()
        && head.version == running.version
        && head.artifact_uri.as_deref() == running.artifact_uri
}

fn finish(ledger: &mut [HistoryEntry], at: Timestamp) {
    if let Some(head) = ledger.first_mut().filter(|head| head.finished_at.is_none()) {
        head.finished_at = Some(Time(at));
        if head.outcome == Outcome::Live || head.outcome == Outcome::RollingOut {
            head.outcome = Outcome::Superseded;
        }
    }
}

fn begin(running: &Running<'_>, details: Option<&ModelVersion>, now: Timestamp) -> HistoryEntry {
    let known = details.filter(|details| details.version == running.version);
    HistoryEntry {
        version: running.version.to_owned(),
        artifact_uri: running.artifact_uri.map(str::to_owned),
        run_id: running.run_id.filter(|id| !id.is_empty()).map(str::to_owned),
        code: known.and_then(|details| details.code.clone()),
        outcome: Outcome::RollingOut,
        reason: Reason::RollingOut,
        message: running.writer.clone(),
        started_at: Time(running.written_at.unwrap_or(now)),
        live_at: None,
        finished_at: None,
        trigger: running.trigger,
    }
}

fn advance(head: &mut HistoryEntry, progress: &Progress, now: Timestamp) {
    match progress {
        Progress::Complete if head.outcome != Outcome::Live => {
            head.outcome = Outcome::Live;
            head.reason = Reason::Live;
            head.live_at = head.live_at.take().or(Some(Time(now)));
        }
        Progress::DeadlineExceeded(_) if head.outcome == Outcome::RollingOut => {
            head.outcome = Outcome::Failed;
            head.reason = Reason::ProgressDeadlineExceeded;
        }
        _ => {}
    }
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

    fn after(old: &[HistoryEntry], now: &Running<'_>, second: i64) -> Vec<HistoryEntry> {
        ledger(old, Some(now), Some(&Progress::Complete), None, 3, at(second))
    }

    #[test]
    fn forward_and_back_are_three_entries_and_the_newest_stands_first() {
        let one = after(&[], &running("1", "a"), 1);
        let two = after(&one, &running("2", "b"), 2);
        let back = after(&two, &running("1", "a"), 3);
        let versions: Vec<_> = back.iter().map(|entry| (entry.version.as_str(), entry.outcome)).collect();
        assert_eq!(versions, [("1", Outcome::Live), ("2", Outcome::Superseded), ("1", Outcome::Superseded)]);
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
            kept = after(&kept, &running(version, version), i64::try_from(second).expect("small"));
        }
        assert_eq!(kept.iter().map(|entry| entry.version.as_str()).collect::<Vec<_>>(), ["5", "4", "3"]);
    }
}
