//! Where to go back to when a version fails.
//!
//! Absent: the asking whether a version can still be read. What is not known yet is answered as a question.

use super::evidence::{Answer, Evidence, Question};
use crate::api::alias_binding::{HistoryEntry, Outcome};
use crate::api::rollback::{FailedVersion, GoodVersion, Lineage};
use crate::api::{AliasBinding, AliasBindingStatus, ModelVersion};

/// A version that was good for this binding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// The version's number.
    pub version: String,
    /// Where its files are.
    pub artifact_uri: String,
    /// The run that logged it.
    pub run_id: Option<String>,
}

/// Where to go back to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Back {
    /// To this version.
    To(Candidate),
    /// This must be known first.
    Ask(Question),
    /// Nowhere: each that was good, with why it cannot be gone back to.
    Nowhere(Vec<(String, String)>),
}

/// The versions that were good for the binding, newest first, less those that failed since.
#[must_use]
pub fn candidates(status: &AliasBindingStatus, failed: &[FailedVersion]) -> Vec<Candidate> {
    let mut seen: Vec<(&str, Option<&str>)> = Vec::new();
    let mut good = Vec::new();
    for entry in &status.history {
        let key = (entry.version.as_str(), entry.artifact_uri.as_deref());
        // The newest entry of a version decides about it; one that was not even live yet decides nothing.
        if seen.contains(&key) || !(was_good(entry) || has_failed(entry)) {
            continue;
        }
        seen.push(key);
        good.extend(
            was_good(entry)
                .then(|| {
                    candidate(
                        &entry.version,
                        entry.artifact_uri.as_ref(),
                        entry.run_id.as_ref(),
                    )
                })
                .flatten(),
        );
    }
    if let Some(last) = status
        .last_good
        .as_ref()
        .filter(|last| !seen.contains(&(last.version.as_str(), last.artifact_uri.as_deref())))
    {
        good.extend(candidate(
            &last.version,
            last.artifact_uri.as_ref(),
            last.run_id.as_ref(),
        ));
    }
    good.retain(|each| {
        !failed
            .iter()
            .any(|failed| is_same(failed, &each.version, Some(&each.artifact_uri)))
    });
    good
}

fn was_good(entry: &HistoryEntry) -> bool {
    entry.live_at.is_some() && !has_failed(entry)
}

fn has_failed(entry: &HistoryEntry) -> bool {
    matches!(entry.outcome, Outcome::Failed | Outcome::RolledBack)
}

fn candidate(
    version: &str,
    artifact_uri: Option<&String>,
    run_id: Option<&String>,
) -> Option<Candidate> {
    Some(Candidate {
        version: version.to_owned(),
        artifact_uri: artifact_uri?.clone(),
        run_id: run_id.cloned(),
    })
}

/// Whether a failed version is this one.
#[must_use]
pub fn is_same(failed: &FailedVersion, version: &str, artifact_uri: Option<&str>) -> bool {
    failed.version == version && failed.artifact_uri.as_deref() == artifact_uri
}

/// The newest candidate that can be read now; the newest that could not be asked about, where none is known to be readable.
#[must_use]
pub fn choose(model: &str, candidates: &[Candidate], evidence: &Evidence) -> Back {
    let mut unasked = None;
    let mut gone = Vec::new();
    for candidate in candidates {
        let question = candidate.question(model);
        match evidence.get(&question) {
            None => return Back::Ask(question),
            Some(Answer::Readable | Answer::Unchecked(_)) => return Back::To(candidate.clone()),
            Some(Answer::Silent(_)) => unasked = unasked.or(Some(candidate)),
            Some(Answer::Gone(why)) => gone.push((candidate.version.clone(), why.clone())),
        }
    }
    unasked.map_or(Back::Nowhere(gone), |candidate| Back::To(candidate.clone()))
}

impl Candidate {
    /// Whether the candidate can still be run.
    #[must_use]
    pub fn question(&self, model: &str) -> Question {
        Question {
            model: model.to_owned(),
            version: self.version.clone(),
            artifact_uri: self.artifact_uri.clone(),
            must_exist: true,
        }
    }
}

/// The version that is lost when there is nowhere to go back to: the last good one, else the one that is wanted.
#[must_use]
pub fn lost_version(binding: &AliasBinding, wanted: Option<&ModelVersion>) -> Option<GoodVersion> {
    let last_good = binding
        .status
        .as_ref()
        .and_then(|status| status.last_good.clone());
    last_good.or_else(|| {
        wanted.map(|version| GoodVersion {
            version: version.version.clone(),
            artifact_uri: version.artifact_uri.clone(),
            run_id: version.run_id.clone(),
            since: None,
            lineage: lineage(version),
        })
    })
}

/// What can train a version again.
#[must_use]
pub fn lineage(version: &ModelVersion) -> Lineage {
    Lineage {
        code: version.code.clone(),
        parameters: version.parameters.clone(),
        datasets: version.datasets.clone(),
    }
}

/// What MLflow did not record of a training.
#[must_use]
pub fn missing(lost: &GoodVersion) -> Vec<String> {
    let code = lost.lineage.code.as_ref();
    let recorded = [
        (
            "repository",
            code.is_some_and(|code| code.repository.is_some()),
        ),
        ("commit", code.is_some_and(|code| code.commit.is_some())),
        ("branch", code.is_some_and(|code| code.branch.is_some())),
        (
            "entry point",
            code.is_some_and(|code| code.entry_point.is_some()),
        ),
        ("run", lost.run_id.is_some()),
        ("parameters", !lost.lineage.parameters.is_empty()),
        ("datasets", !lost.lineage.datasets.is_empty()),
    ];
    recorded
        .into_iter()
        .filter(|(_, present)| !present)
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// What can train a version again, as one sentence.
#[must_use]
pub fn retrain_sentence(lost: &GoodVersion) -> String {
    let code = lost.lineage.code.clone().unwrap_or_default();
    let pairs = |pairs: Vec<String>| (!pairs.is_empty()).then(|| pairs.join(", "));
    let facts = [
        ("repository", code.repository),
        ("commit", code.commit),
        ("branch", code.branch),
        ("entry point", code.entry_point),
        ("run", lost.run_id.clone()),
        (
            "parameters",
            pairs(
                lost.lineage
                    .parameters
                    .iter()
                    .take(8)
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
            ),
        ),
        (
            "datasets",
            pairs(
                lost.lineage
                    .datasets
                    .iter()
                    .take(4)
                    .map(|data| format!("{}@{}", data.name, data.digest.as_deref().unwrap_or("?")))
                    .collect(),
            ),
        ),
    ];
    let known: Vec<String> = facts
        .into_iter()
        .filter_map(|(name, fact)| Some(format!("{name} {}", fact?)))
        .collect();
    let missing = missing(lost);
    let gap = if missing.is_empty() {
        String::new()
    } else {
        format!("; MLflow recorded no {}", missing.join(", no "))
    };
    if known.is_empty() {
        return format!(
            "nothing is known that could train version {} again{gap}",
            lost.version
        );
    }
    format!(
        "to train version {} again: {}{gap}",
        lost.version,
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-11-23T12:00:00Z";

    fn entry(version: &str, outcome: &str, live: bool) -> Value {
        json!({"version": version, "artifactURI": format!("s3://m/{version}"), "outcome": outcome, "reason": "Live",
            "startedAt": NOW, "liveAt": live.then_some(NOW), "trigger": "AliasMove"})
    }

    fn status(history: Value, last_good: Value) -> AliasBindingStatus {
        serde_json::from_value(json!({"history": history, "lastGood": last_good}))
            .expect("a status")
    }

    fn versions(candidates: &[Candidate]) -> Vec<&str> {
        candidates
            .iter()
            .map(|candidate| candidate.version.as_str())
            .collect()
    }

    fn three_good() -> Vec<Candidate> {
        candidates(
            &status(
                json!([
                    entry("3", "Superseded", true),
                    entry("2", "Superseded", true),
                    entry("1", "Superseded", true)
                ]),
                Value::Null,
            ),
            &[],
        )
    }

    fn answer(version: &str, answer: Answer) -> (Question, Answer) {
        let question = Question {
            model: "m".into(),
            version: version.into(),
            artifact_uri: format!("s3://m/{version}"),
            must_exist: true,
        };
        (question, answer)
    }

    fn gone() -> Answer {
        Answer::Gone("deleted".into())
    }

    fn chosen(evidence: impl IntoIterator<Item = (Question, Answer)>) -> Back {
        choose("m", &three_good(), &evidence.into_iter().collect())
    }

    fn to(version: &str) -> Back {
        Back::To(Candidate {
            version: version.into(),
            artifact_uri: format!("s3://m/{version}"),
            run_id: None,
        })
    }

    #[test]
    fn only_what_was_good_and_did_not_fail_since_is_a_candidate() {
        let history = json!([
            entry("6", "Failed", false),
            entry("5", "RolledBack", false),
            entry("4", "Superseded", false),
            entry("5", "Superseded", true),
            entry("3", "Superseded", true),
            entry("2", "Superseded", true),
            entry("3", "Superseded", true)
        ]);
        assert_eq!(
            versions(&candidates(&status(history, Value::Null), &[])),
            ["3", "2"]
        );
    }

    #[test]
    fn the_last_good_version_is_a_candidate_also_when_the_ledger_has_forgotten_it() {
        let status = status(
            json!([entry("6", "Failed", false)]),
            json!({"version": "1", "artifactURI": "s3://m/1"}),
        );
        assert_eq!(versions(&candidates(&status, &[])), ["1"]);
    }

    #[test]
    fn a_version_that_is_held_back_is_no_candidate() {
        let failed: FailedVersion =
            serde_json::from_value(json!({"version": "1", "artifactURI": "s3://m/1",
            "reason": "CrashLoop", "message": "", "since": NOW}))
            .expect("a failed version");
        let status = status(
            json!([entry("1", "Superseded", true)]),
            json!({"version": "1", "artifactURI": "s3://m/1"}),
        );
        assert!(candidates(&status, &[failed]).is_empty());
    }

    #[test]
    fn rule_5_the_newest_readable_one_is_chosen_and_the_next_older_where_it_is_gone() {
        assert_eq!(chosen([answer("3", Answer::Readable)]), to("3"));
        assert_eq!(
            chosen([answer("3", gone()), answer("2", Answer::Readable)]),
            to("2")
        );
    }

    #[test]
    fn rule_5_what_is_not_known_yet_is_asked_first() {
        assert_eq!(
            chosen([answer("3", gone())]),
            Back::Ask(answer("2", gone()).0)
        );
    }

    #[test]
    fn rule_5_a_store_that_cannot_be_asked_hinders_no_rollback() {
        let silent = || Answer::Silent("timed out".into());
        assert_eq!(
            chosen([
                answer("3", silent()),
                answer("2", silent()),
                answer("1", gone())
            ]),
            to("3")
        );
        assert_eq!(
            chosen([answer("3", silent()), answer("2", Answer::Readable)]),
            to("2")
        );
    }

    #[test]
    fn rule_5_where_all_are_gone_there_is_nowhere_to_go_back_to() {
        let Back::Nowhere(why) = chosen([
            answer("3", gone()),
            answer("2", gone()),
            answer("1", gone()),
        ]) else {
            panic!("somewhere")
        };
        assert_eq!(why.len(), 3);
    }

    #[test]
    fn what_can_train_it_again_is_told_and_what_is_missing_too() {
        let lost: GoodVersion = serde_json::from_value(json!({"version": "3", "runID": "r3", "lineage": {
            "code": {"repository": "https://git.example/taxi", "commit": "abc"}, "parameters": {"alpha": "0.1"}}}))
        .expect("a version");
        assert_eq!(
            retrain_sentence(&lost),
            "to train version 3 again: repository https://git.example/taxi, commit abc, run r3, parameters alpha=0.1; \
             MLflow recorded no branch, no entry point, no datasets"
        );
    }
}
