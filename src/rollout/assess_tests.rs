//! Shared faults, blocked rollouts that cost capacity, and recoveries.
//!
//! Absent: single signs; see `health_tests`.

use super::*;
use crate::api::AliasBindingStatus;
use crate::api::alias_binding::{HandledRequest, Outcome};
use crate::rollout::{CheckResults, Resolution, Warnings, resolve};
use crate::targets::Pod;
use crate::testing::{
    self, With, annotated, at, binding_with, container, deployment, entry, mirrored_version, now,
    pod_with, ready, terminated, version, waiting,
};

/// After the progress deadline of ten minutes.
const LATE: &str = "2026-11-23T12:20:00Z";

fn resolution(binding: &AliasBinding, champion: &str) -> Resolution {
    let versions = ["1", "2"].map(|number| mirrored_version(&version(number)));
    let model = testing::model(Some(champion), versions).with(|model| {
        let status = model.status.as_mut().expect("a status");
        status.conditions = vec![ready(Reason::Mirrored)];
    });
    resolve(binding, Some(&model))
}

fn holding(number: &str, available: i32) -> Target {
    let holding = deployment().holding(&testing::binding(), &version(number));
    let incomplete = if available == 2 {
        holding.counts(2, 2, 2)
    } else {
        holding.counts(2, 1, available)
    };
    incomplete
        .changed(&serde_json::json!({"spec": {"replicas": 2}}))
        .target()
}

fn assessed(binding: &AliasBinding, target: &Target, pods: &[&Pod], now: Timestamp) -> Assessment {
    let observed = Observed {
        resolution: &resolution(binding, "2"),
        target: Some(target),
        pods,
        warnings: &Warnings::new(),
        claim: None,
        template_changed: false,
        checks: &CheckResults::new(),
        freeze: None,
        records_approver: false,
    };
    assess(binding, &observed, now)
}

fn crashing() -> Pod {
    pod_with(container().with(|container| {
        container.ready = false;
        container.restart_count = 4;
        container.state = Some(waiting("CrashLoopBackOff"));
        container.last_state = Some(terminated(1, testing::NOW));
    }))
}

fn without_image() -> Pod {
    pod_with(container().with(|container| {
        container.ready = false;
        container.state = Some(waiting("ErrImagePull"));
    }))
}

fn status(binding: &mut AliasBinding) -> &mut AliasBindingStatus {
    binding.status.as_mut().expect("a status")
}

/// Version 2 failed for this reason, and version 1 is rolled out in its place with this outcome.
fn gone_back(reason: Reason, outcome: Outcome) -> AliasBinding {
    let back = entry("1", outcome).with(|entry| entry.trigger = Trigger::Failure.into());
    let history = [
        back,
        entry("2", Outcome::RolledBack),
        entry("1", Outcome::Superseded),
    ];
    binding_with(history).with(|binding| {
        let digest = spec_digest(binding, Some(&holding("1", 2)));
        status(binding).held_back = Some(HeldBack {
            wanted: version("2"),
            spec_digest: digest,
            versions: vec![FailedVersion {
                version: version("2"),
                reason: reason.into(),
                message: String::new(),
                since: Time(now()),
            }],
            shared_fault: None,
        });
    })
}

fn numbers(held_back: Option<&HeldBack>) -> Vec<&str> {
    let versions = held_back.map(|held_back| held_back.versions.iter());
    let numbers = versions.into_iter().flatten();
    numbers.map(|failed| failed.version.number()).collect()
}

/// The binding as it is after this assessment was recorded.
fn recorded(binding: &AliasBinding, assessment: &Assessment) -> AliasBinding {
    binding.clone().with(|binding| {
        let held_back = assessment.held_back.clone();
        let postponed = assessment.postponed.clone();
        (status(binding).held_back, status(binding).postponed) = (held_back, postponed);
    })
}

#[test]
fn the_version_that_was_rolled_back_to_is_not_blamed_for_failing_alike() {
    let binding = gone_back(Reason::CrashLoop, Outcome::RollingOut);
    let assessment = assessed(&binding, &holding("1", 1), &[&crashing()], now());
    let blocked = assessment.blocked.as_ref().expect("blocked");
    assert_eq!(blocked.reason, Reason::SharedFault);
    assert!(
        blocked.message.contains("version 2 is tried again"),
        "{blocked:?}"
    );
    assert_eq!(assessment.failure, None);
    assert_eq!(numbers(assessment.held_back.as_ref()), ["2"]);
    assert!(assessment.news.is_some(), "it is written down first");
    let again = recorded(&binding, &assessment);
    let settled = assessed(&again, &holding("1", 1), &[&crashing()], now());
    assert_eq!(
        (settled.news, settled.held_back),
        (None, assessment.held_back)
    );
}

#[test]
fn a_good_version_that_fails_in_another_way_is_held_back_too() {
    let binding = gone_back(Reason::ReadinessLost, Outcome::RollingOut);
    let assessment = assessed(&binding, &holding("1", 1), &[&crashing()], now());
    assert_eq!(numbers(assessment.held_back.as_ref()), ["2", "1"]);
    assert!(assessment.failure.is_some());
}

#[test]
fn after_a_shared_fault_the_failed_version_is_tried_once_more_and_only_once() {
    let mut binding = gone_back(Reason::CrashLoop, Outcome::RollingOut);
    let shared = assessed(&binding, &holding("1", 1), &[&crashing()], now());
    binding = recorded(&binding, &shared);
    status(&mut binding).history[0].outcome = Outcome::Live.into();
    let retry = assessed(&binding, &holding("1", 2), &[], now());
    assert!(retry.news.is_some() && numbers(retry.held_back.as_ref()).is_empty());
    // It fails again, and so does the good one: nothing is tried any more.
    binding = recorded(&binding, &retry);
    status(&mut binding)
        .history
        .insert(0, entry("2", Outcome::RollingOut));
    status(&mut binding).history[1].finished_at = Some(Time(now()));
    let failed = assessed(&binding, &holding("2", 1), &[&crashing()], now());
    assert_eq!(numbers(failed.held_back.as_ref()), ["2"]);
    binding = recorded(&binding, &failed);
    status(&mut binding).history.remove(0);
    status(&mut binding).history[0].finished_at = None;
    let back = assessed(&binding, &holding("1", 2), &[], now());
    assert_eq!(
        (back.news, numbers(back.held_back.as_ref())),
        (None, vec!["2"])
    );
}

#[test]
fn a_blocked_rollout_that_costs_capacity_is_postponed_at_the_deadline_only() {
    let binding = binding_with([
        entry("2", Outcome::Blocked),
        entry("1", Outcome::Superseded),
    ]);
    let pod = without_image();
    let early = assessed(&binding, &holding("2", 1), &[&pod], now());
    assert_eq!((early.postponed, early.news), (None, None));
    assert_eq!(early.look_again, Some(at("2026-11-23T12:10:00Z")));
    let late = assessed(&binding, &holding("2", 1), &[&pod], at(LATE));
    let postponed = late.postponed.as_ref().expect("postponed");
    assert_eq!(postponed.retry_at.0, at("2026-11-23T12:30:00Z"));
    assert!(late.news.is_some() && late.held_back.is_none());
    assert!(keeps_out(
        postponed,
        &binding,
        Some(&holding("2", 1)),
        at(LATE)
    ));
}

#[test]
fn a_blocked_rollout_beside_full_capacity_or_without_a_good_version_just_waits() {
    let pod = without_image();
    let after_one = [
        entry("2", Outcome::Blocked),
        entry("1", Outcome::Superseded),
    ];
    let full = holding("2", 1).with(|target| target.capacity.available = 2);
    let waits = assessed(&binding_with(after_one), &full, &[&pod], at(LATE));
    assert_eq!(waits.postponed, None);
    let first = binding_with([entry("2", Outcome::Blocked)]);
    let waits = assessed(&first, &holding("2", 1), &[&pod], at(LATE));
    assert_eq!(waits.postponed, None);
    assert!(waits.blocked.is_some());
}

#[test]
fn a_postponed_version_is_tried_again_when_its_time_has_come_and_capacity_is_restored() {
    let blocked = binding_with([
        entry("2", Outcome::Blocked),
        entry("1", Outcome::Superseded),
    ]);
    let late = assessed(&blocked, &holding("2", 1), &[&without_image()], at(LATE));
    let postponed = late.postponed.expect("postponed");
    let after = at("2026-11-23T12:31:00Z");
    let is_out = |outcome, available| {
        let binding = binding_with([entry("1", outcome)]);
        keeps_out(&postponed, &binding, Some(&holding("1", available)), after)
    };
    assert!(is_out(Outcome::RollingOut, 1));
    assert!(!is_out(Outcome::RollingOut, 2));
    // A version that fails restores nothing.
    assert!(!is_out(Outcome::Live, 1) && !is_out(Outcome::Failed, 1));
    let again = blocked.with(|binding| status(binding).postponed = Some(postponed));
    let second = assessed(&again, &holding("2", 1), &[&without_image()], after);
    let second = second.postponed.expect("postponed");
    assert_eq!(
        (second.attempts, second.retry_at.0),
        (2, at("2026-11-23T12:51:00Z"))
    );
}

#[test]
fn a_postponed_version_is_tried_at_once_when_a_person_asks() {
    let blocked = binding_with([
        entry("2", Outcome::Blocked),
        entry("1", Outcome::Superseded),
    ]);
    let late = assessed(&blocked, &holding("2", 1), &[&without_image()], at(LATE));
    let waits = recorded(&blocked, &late);
    let asked = annotated(waits, crate::api::names::RETRY_ANNOTATION, "now");
    let assessment = assessed(&asked, &holding("1", 2), &[], at(LATE));
    assert_eq!(assessment.postponed, None);
    let handled = asked.with(|binding| {
        status(binding).last_handled_retry = Some(HandledRequest {
            value: "now".into(),
            at: Time(now()),
        });
    });
    assert!(
        assessed(&handled, &holding("1", 2), &[], at(LATE))
            .postponed
            .is_some()
    );
}

#[test]
fn the_backoff_doubles_up_to_an_hour() {
    let minutes = |attempts| backoff(SignedDuration::from_mins(10), attempts).as_mins();
    assert_eq!([1, 2, 3, 4, 99].map(minutes), [10, 20, 40, 60, 60]);
    assert_eq!(backoff(SignedDuration::ZERO, 1), SHORTEST_BACKOFF);
    assert_eq!(backoff(SignedDuration::MAX, 3), LONGEST_BACKOFF);
}

#[test]
fn a_failed_version_that_could_not_be_rolled_back_recovers_and_another_does_not() {
    let failed = binding_with([entry("2", Outcome::Failed)]).with(|binding| {
        let digest = spec_digest(binding, Some(&holding("2", 2)));
        status(binding).held_back = Some(HeldBack {
            wanted: version("2"),
            spec_digest: digest,
            versions: vec![FailedVersion {
                version: version("2"),
                reason: Reason::CrashLoop.into(),
                message: String::new(),
                since: Time(now()),
            }],
            shared_fault: None,
        });
    });
    let held = assessed(&failed, &holding("2", 2), &[], now());
    assert_eq!(numbers(held.held_back.as_ref()), ["2"]);
    let stays = failed.with(|binding| {
        status(binding).conditions = vec![ready(Reason::NoRollbackTarget)];
    });
    assert_eq!(
        assessed(&stays, &holding("2", 2), &[], now()).held_back,
        None
    );
    let broken = assessed(&stays, &holding("2", 2), &[&crashing()], now());
    assert_eq!(numbers(broken.held_back.as_ref()), ["2"]);
}

#[test]
fn a_good_version_that_takes_the_place_of_a_postponed_one_and_fails_is_not_blamed() {
    let blocked = binding_with([
        entry("2", Outcome::Blocked),
        entry("1", Outcome::Superseded),
    ]);
    let late = assessed(&blocked, &holding("2", 1), &[&without_image()], at(LATE));
    let back = recorded(&blocked, &late).with(|binding| {
        let again = entry("1", Outcome::RollingOut);
        let again = again.with(|entry| entry.trigger = Trigger::Failure.into());
        status(binding).history[0].finished_at = Some(Time(now()));
        status(binding).history.insert(0, again);
    });
    let assessment = assessed(&back, &holding("1", 1), &[&crashing()], at(LATE));
    assert_eq!((assessment.held_back, assessment.failure), (None, None));
    let reason = assessment.blocked.map(|problem| problem.reason);
    assert_eq!(reason, Some(Reason::SharedFault));
}

#[test]
fn a_postponed_version_that_fails_before_it_is_taken_out_is_held_back_only() {
    let blocked = binding_with([
        entry("2", Outcome::Blocked),
        entry("1", Outcome::Superseded),
    ]);
    let late = assessed(&blocked, &holding("2", 1), &[&without_image()], at(LATE));
    let waits = recorded(&blocked, &late);
    assert!(
        waits
            .status
            .as_ref()
            .is_some_and(|it| it.postponed.is_some())
    );
    let assessment = assessed(&waits, &holding("2", 1), &[&crashing()], at(LATE));
    assert_eq!(numbers(assessment.held_back.as_ref()), ["2"]);
    assert_eq!(assessment.postponed, None);
}
