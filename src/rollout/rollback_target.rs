//! The version to roll back to when one fails.
//!
//! Absent: the artifact checks. Their results are an input.

use super::artifact_check::{CheckResults, rollback_check};
use crate::api::alias_binding::{HistoryEntry, Outcome};
use crate::api::conditions::shorten;
use crate::api::rollback::{FailedVersion, GoodVersion, Lineage};
use crate::api::{AliasBinding, AliasBindingStatus, Availability, ModelVersion, VersionRef};

/// The longest fact of a training in a message, in characters.
const LONGEST_FACT: usize = 200;

/// The version to roll back to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RollbackTarget {
    /// This version.
    To(VersionRef),
    /// Whether this version still exists is not known yet.
    Pending(VersionRef),
    /// None: each candidate, with the evidence that it is gone.
    None(Vec<(VersionRef, String)>),
}

/// The versions that were good for the binding, newest first, without those that failed since. A version of the mirror has the
/// artifact URI that the mirror names now.
#[must_use]
pub fn candidates(
    status: &AliasBindingStatus,
    failed: &[FailedVersion],
    mirrored: &[VersionRef],
) -> Vec<VersionRef> {
    let mut seen: Vec<&VersionRef> = Vec::new();
    let mut good: Vec<&VersionRef> = Vec::new();
    for entry in &status.history {
        // The newest entry that proves a version good or failed decides; a version that never became live decides nothing.
        let is_good = entry.live_at.is_some() && !has_failed(entry);
        let is_known = seen.iter().any(|seen| seen.is_same(&entry.version));
        if is_known || !(is_good || has_failed(entry)) {
            continue;
        }
        seen.push(&entry.version);
        if is_good {
            good.push(&entry.version);
        }
    }
    if let Some(last) = &status.last_good
        && !seen.iter().any(|seen| seen.is_same(&last.version))
    {
        good.push(&last.version);
    }
    let is_candidate = |version: &&&VersionRef| {
        let has_failed = failed.iter().any(|failed| failed.version.is_same(version));
        version.artifact_uri.is_some() && !has_failed
    };
    good.iter()
        .filter(is_candidate)
        .map(|version| located(version, mirrored))
        .collect()
}

/// The version with the artifact URI of the mirror, if that has the same version: the URI is no part of the identity.
fn located(version: &VersionRef, mirrored: &[VersionRef]) -> VersionRef {
    let Some(same) = mirrored.iter().find(|each| each.is_same(version)) else {
        return version.clone();
    };
    VersionRef {
        artifact_uri: same.artifact_uri.clone(),
        query_withheld: same.query_withheld,
        ..version.clone()
    }
}

/// Whether a version was good for this binding before.
pub fn was_good(binding: &AliasBinding, version: &VersionRef) -> bool {
    let Some(status) = &binding.status else {
        return false;
    };
    candidates(status, &[], &[])
        .iter()
        .any(|good| good.is_same(version))
}

/// Whether a version's time in the workload ended with a failure.
pub fn has_failed(entry: &HistoryEntry) -> bool {
    entry.outcome == Outcome::Failed || entry.outcome == Outcome::RolledBack
}

/// The newest candidate that is not known to be gone. A store or registry that cannot be asked is no reason for an older one.
#[must_use]
pub fn choose(candidates: &[VersionRef], checks: &CheckResults) -> RollbackTarget {
    let mut missing = Vec::new();
    for candidate in candidates {
        match checks.get(&rollback_check(candidate)) {
            None => return RollbackTarget::Pending(candidate.clone()),
            Some(Availability::Missing(why)) => missing.push((candidate.clone(), why.clone())),
            Some(Availability::Moved(uri)) => {
                return RollbackTarget::To(VersionRef {
                    artifact_uri: Some(uri.clone()),
                    ..candidate.clone()
                });
            }
            Some(
                Availability::Readable | Availability::Unknown(_) | Availability::Unchecked(_),
            ) => return RollbackTarget::To(candidate.clone()),
        }
    }
    RollbackTarget::None(missing)
}

/// The version that is lost when there is no rollback target: the newest good one, which is gone by evidence. If none was good,
/// nothing is lost.
#[must_use]
pub fn lost_version(
    status: &AliasBindingStatus,
    missing: &[(VersionRef, String)],
) -> Option<GoodVersion> {
    let (version, _) = missing.first()?;
    if let Some(last) = &status.last_good
        && last.version.is_same(version)
    {
        return Some(last.clone());
    }
    let mut history = status.history.iter();
    let entry = history.find(|entry| entry.version.is_same(version));
    Some(GoodVersion {
        version: version.clone(),
        since: entry.and_then(|entry| entry.live_at.clone()),
        lineage: Lineage {
            code: entry.and_then(|entry| entry.code.clone()),
            ..Lineage::default()
        },
    })
}

/// The lineage of a mirrored version.
#[must_use]
pub fn lineage(version: &ModelVersion) -> Lineage {
    Lineage {
        code: version.code.clone(),
        parameters: version.parameters.clone(),
        datasets: version.datasets.clone(),
    }
}

/// The facts of a training that MLflow did not record.
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
        ("run", lost.version.run_id.is_some()),
        ("parameters", !lost.lineage.parameters.is_empty()),
        ("datasets", !lost.lineage.datasets.is_empty()),
    ];
    recorded
        .into_iter()
        .filter(|(_, present)| !present)
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The facts that can train a version again, as one sentence.
#[must_use]
pub fn retrain_sentence(lost: &GoodVersion) -> String {
    let code = lost.lineage.code.clone().unwrap_or_default();
    let pairs = |pairs: Vec<String>| (!pairs.is_empty()).then(|| pairs.join(", "));
    let facts = [
        ("repository", code.repository),
        ("commit", code.commit),
        ("branch", code.branch),
        ("entry point", code.entry_point),
        ("run", lost.version.run_id.clone()),
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
        .filter_map(|(name, fact)| Some(format!("{name} {}", shorten(&fact?, LONGEST_FACT))))
        .collect();
    let missing = missing(lost);
    let gap = if missing.is_empty() {
        String::new()
    } else {
        format!("; MLflow recorded no {}", missing.join(", no "))
    };
    if known.is_empty() {
        return format!(
            "nothing is recorded that could train version {} again{gap}",
            lost.version.number()
        );
    }
    format!(
        "to train version {} again: {}{gap}",
        lost.version.number(),
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::registered_model::CodeLineage;
    use crate::api::{Reason, Word};
    use crate::rollout::artifact_check::ArtifactCheck;
    use crate::testing::{self, With, check, entry, time, version};

    fn status(history: impl IntoIterator<Item = HistoryEntry>) -> AliasBindingStatus {
        let binding = testing::binding_with(history);
        binding.status.expect("a status")
    }

    fn good(number: &str) -> GoodVersion {
        GoodVersion {
            version: version(number),
            ..GoodVersion::default()
        }
    }

    fn numbers(candidates: &[VersionRef]) -> Vec<&str> {
        candidates.iter().map(VersionRef::number).collect()
    }

    fn three_good() -> Vec<VersionRef> {
        candidates(
            &status(["3", "2", "1"].map(|number| entry(number, Outcome::Superseded))),
            &[],
            &[],
        )
    }

    fn result(version: &str, result: Availability) -> (ArtifactCheck, Availability) {
        (check(version, true), result)
    }

    fn missing() -> Availability {
        Availability::Missing("deleted".into())
    }

    fn chosen(results: impl IntoIterator<Item = (ArtifactCheck, Availability)>) -> RollbackTarget {
        choose(&three_good(), &results.into_iter().collect())
    }

    fn to(version: &str) -> RollbackTarget {
        let three = three_good();
        let found = three.into_iter().find(|good| good.number() == version);
        RollbackTarget::To(found.expect("one of three"))
    }

    #[test]
    fn only_a_good_version_that_did_not_fail_since_is_a_candidate() {
        let replaced_early = entry("4", Outcome::Superseded).with(|entry| entry.live_at = None);
        let history = [
            entry("6", Outcome::Failed),
            entry("5", Outcome::RolledBack),
            replaced_early,
            entry("5", Outcome::Superseded),
            entry("3", Outcome::Superseded),
            entry("2", Outcome::Superseded),
            entry("3", Outcome::Superseded),
        ];
        assert_eq!(numbers(&candidates(&status(history), &[], &[])), ["3", "2"]);
    }

    #[test]
    fn the_last_good_version_stays_a_candidate_when_the_history_drops_it() {
        let status =
            status([entry("6", Outcome::Failed)]).with(|status| status.last_good = Some(good("1")));
        assert_eq!(numbers(&candidates(&status, &[], &[])), ["1"]);
    }

    #[test]
    fn a_version_that_is_held_back_is_no_candidate() {
        let failed = FailedVersion {
            version: version("1"),
            reason: Word::from(Reason::CrashLoop),
            message: String::new(),
            since: time(testing::NOW),
        };
        let status = status([entry("1", Outcome::Superseded)])
            .with(|status| status.last_good = Some(good("1")));
        assert!(candidates(&status, &[failed], &[]).is_empty());
    }

    #[test]
    fn automatic_rollback_the_newest_one_is_chosen_and_the_next_older_where_it_is_missing() {
        assert_eq!(chosen([result("3", Availability::Readable)]), to("3"));
        assert_eq!(
            chosen([result("3", missing()), result("2", Availability::Readable)]),
            to("2")
        );
    }

    #[test]
    fn automatic_rollback_waits_for_an_unknown_result() {
        assert_eq!(
            chosen([result("3", missing())]),
            RollbackTarget::Pending(three_good()[1].clone())
        );
    }

    #[test]
    fn automatic_rollback_needs_no_store_that_responds_or_may_be_asked() {
        for unsure in [
            Availability::Unknown("timed out".into()),
            Availability::Unchecked("403".into()),
        ] {
            let all = [
                result("3", unsure.clone()),
                result("2", Availability::Readable),
                result("1", missing()),
            ];
            assert_eq!(chosen(all), to("3"));
            let rest = [result("3", missing()), result("2", unsure)];
            assert_eq!(chosen(rest), to("2"));
        }
    }

    #[test]
    fn automatic_rollback_uses_the_uri_that_registry_or_mirror_name_now() {
        let moved = result("3", Availability::Moved("s3://new/3".into()));
        let RollbackTarget::To(found) = chosen([moved]) else {
            panic!("there is a target")
        };
        assert_eq!(found.artifact_uri.as_deref(), Some("s3://new/3"));
        let at = |uri: &str| {
            version("3").with(|version| {
                version.id.created_at = Some(time(testing::NOW));
                version.artifact_uri = Some(uri.into());
            })
        };
        let old = entry("3", Outcome::Superseded).with(|entry| entry.version = at("s3://old/3"));
        let located = candidates(&status([old]), &[], &[at("s3://new/3")]);
        assert_eq!(located, [at("s3://new/3")]);
    }

    #[test]
    fn only_a_good_version_that_is_gone_is_lost() {
        let status = status([entry("2", Outcome::Failed), entry("1", Outcome::Superseded)]);
        assert_eq!(lost_version(&status, &[]), None);
        let gone = candidates(&status, &[], &[]).remove(0);
        let lost = lost_version(&status, &[(gone.clone(), "deleted".into())]);
        assert_eq!(lost.map(|lost| lost.version), Some(gone));
    }

    #[test]
    fn automatic_rollback_has_no_target_if_all_are_missing() {
        let RollbackTarget::None(why) = chosen([
            result("3", missing()),
            result("2", missing()),
            result("1", missing()),
        ]) else {
            panic!("there is a target")
        };
        assert_eq!(why.len(), 3);
    }

    #[test]
    fn the_sentence_names_recorded_and_missing_facts_of_the_training() {
        let lost = good("3").with(|lost| {
            lost.lineage.code = Some(CodeLineage {
                repository: Some("https://git.example/taxi".into()),
                commit: Some("abc".into()),
                ..CodeLineage::default()
            });
            lost.lineage.parameters = [("alpha".into(), "0.1".into())].into();
        });
        assert_eq!(
            retrain_sentence(&lost),
            "to train version 3 again: repository https://git.example/taxi, commit abc, run r3, parameters alpha=0.1; \
             MLflow recorded no branch, no entry point, no datasets"
        );
    }
}
