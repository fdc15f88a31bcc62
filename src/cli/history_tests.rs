use serde_json::{Value, json};

use super::super::output::Paint;
use super::*;

fn entry(version: &str, outcome: &str, reason: &str, started: &str, more: Value) -> HistoryEntry {
    let mut entry = json!({"model": "taxi", "version": version, "outcome": outcome, "reason": reason,
        "trigger": "AliasMove", "startedAt": started});
    for (key, value) in more.as_object().unwrap() {
        entry[key] = value.clone();
    }
    serde_json::from_value(entry).unwrap()
}

/// Newest first: 6 is held back, 5 runs, 4 ran before.
fn history() -> Vec<HistoryEntry> {
    let code = json!({"repository": "https://git.example/taxi", "commit": "0123456789abcdef"});
    vec![
        entry(
            "6",
            "HeldBack",
            "ArtifactUnavailable",
            "2026-11-24T20:00:00Z",
            json!({"message": "no files"}),
        ),
        entry(
            "5",
            "Live",
            "Live",
            "2026-11-24T10:00:00Z",
            json!({"availableAt": "2026-11-24T10:05:00Z", "runID": "abc", "code": code,
                "approval": {"approvedBy": "ada", "knownBy": "User", "at": "2026-11-24T09:59:00Z", "ticket": "CHG-7"}}),
        ),
        entry(
            "4",
            "Superseded",
            "Live",
            "2026-11-20T10:00:00Z",
            json!({"availableAt": "2026-11-20T10:01:00Z", "finishedAt": "2026-11-24T10:00:00Z"}),
        ),
    ]
}

fn told(moment: &str) -> String {
    at_that_moment(&history(), moment.parse().unwrap(), &TimeZone::UTC)
}

#[test]
fn the_history_is_a_table_newest_first() {
    let entries = history();
    let entries: Vec<&HistoryEntry> = entries.iter().collect();
    let now = "2026-11-25T12:00:00Z".parse().unwrap();
    let text = table(&entries, false, now, &TimeZone::UTC).render(Paint::never());
    let expected = "\
VERSION   OUTCOME      REASON                TRIGGER     STARTED               RAN     COMMIT
6         HeldBack     ArtifactUnavailable   AliasMove   2026-11-24 20:00:00   never   <none>
5         Live         Live                  AliasMove   2026-11-24 10:00:00   26h     0123456789
4         Superseded   Live                  AliasMove   2026-11-20 10:00:00   4d      <none>
";
    assert_eq!(text, expected);
}

#[test]
fn the_version_of_a_moment_is_told_with_its_cause_and_code() {
    let expected = "\
2026-11-25 03:00:00 +00:00: version 5 of taxi
  Ran:       2026-11-24 10:00:00 to now
  Cause:     AliasMove
  Outcome:   Live (Live)
  Approved:  by ada (User), at 2026-11-24 09:59:00, CHG-7
  Run:       abc
  Code:      https://git.example/taxi, commit 0123456789abcdef
";
    assert_eq!(told("2026-11-25T03:00:00Z"), expected);
}

#[test]
fn a_moment_in_a_rollout_names_the_version_before() {
    let text = told("2026-11-24T10:02:00Z");
    assert!(
        text.starts_with("2026-11-24 10:02:00 +00:00: version 5 of taxi\n"),
        "{text}"
    );
    assert!(
        text.contains("it was being rolled out; version 4 ran before it\n"),
        "{text}"
    );
    let before = told("2026-11-24T09:59:59Z");
    assert!(
        before
            .contains("version 4 of taxi\n  Ran:      2026-11-20 10:00:00 to 2026-11-24 10:00:00")
    );
}

#[test]
fn a_persons_override_is_told_with_its_reason() {
    let overrode = json!({"reason": "Frozen", "message": "quarter end", "why": "CHG-1"});
    let pinned = entry(
        "7",
        "Live",
        "Pinned",
        "2026-11-24T10:00:00Z",
        json!({"overrode": overrode}),
    );
    let at = "2026-11-25T00:00:00Z".parse().unwrap();
    let text = at_that_moment(&[pinned], at, &TimeZone::UTC);
    assert!(
        text.contains("Overrode:  Frozen: quarter end (CHG-1)\n"),
        "{text}"
    );
}

#[test]
fn a_version_that_was_held_back_ran_at_no_moment() {
    assert!(told("2026-11-24T21:00:00Z").contains("version 5"));
}

#[test]
fn a_moment_before_the_history_is_not_guessed() {
    let text = told("2026-11-01T00:00:00Z");
    assert!(
        text.contains("not known; the history begins at 2026-11-20 10:00:00"),
        "{text}"
    );
    let empty = at_that_moment(&[], "2026-11-01T00:00:00Z".parse().unwrap(), &TimeZone::UTC);
    assert!(empty.contains("no version has run yet"), "{empty}");
}
