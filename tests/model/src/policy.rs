//! The operator's own `decide` and `summarize`, and variants of them with one rule broken.
//!
//! Absent: a second decision. A broken rule changes the inputs or the result of the real decision.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pointsman::api::alias_binding::{Outcome, Trigger};
use pointsman::api::inject::InjectedValue;
use pointsman::api::reason::Problem;
use pointsman::api::rollback::OnFailure;
use pointsman::api::{AliasBinding, AliasBindingStatus, Availability, Reason, names};
use pointsman::rollout::{
    Applied, ArtifactCheck, CheckResults, Course, Decided, Decision, Observed, Reconciled, Waiting,
    decide, needed_checks, summarize,
};
use pointsman::targets::{DesiredVersion, Pod, RolloutState, Target};
use pointsman::testing::{With, container, waiting};

/// A rule that is broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BrokenRule {
    ForgetsFailures,
    IgnoresStaleMirrors,
    IgnoresMissingAlias,
    AlternatesStatus,
    MovesTimestamp,
    SkipsContainer,
    OverwritesPeople,
    SkipsChecks,
    RollsBackToAnything,
    NeverWrites,
    NeverRollsBack,
    AlwaysReady,
    IgnoresResumes,
    IgnoresRetries,
    IgnoresTemplateEdits,
    AlwaysRewritesTemplate,
    ForgetsFailuresOfDeleted,
    NeverRecreates,
    BlamesTheCluster,
    NeverTriesAgain,
    WalksBack,
    ZeroIsWell,
    FollowsAddress,
    StaysBlocked,
}

/// The decision that is checked: the real one, or the real one with a rule broken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy(pub Option<BrokenRule>);

impl Policy {
    /// The decision, and the checks that it needs.
    pub fn decide(
        self,
        binding: &AliasBinding,
        observed: &Observed<'_>,
        now: Timestamp,
    ) -> (Decided, Vec<ArtifactCheck>) {
        let Some(broken) = self.0 else {
            let needed = needed_checks(binding, observed, now);
            return (decide(binding, observed, now), needed);
        };
        let mut altered = binding.clone();
        if let Some(status) = altered.status.as_mut() {
            alter_status(broken, status);
        }
        match broken {
            BrokenRule::NeverRollsBack => altered.spec.rollback.on_failure = OnFailure::Report,
            BrokenRule::IgnoresResumes | BrokenRule::IgnoresRetries => {
                altered.metadata.annotations = None;
            }
            BrokenRule::FollowsAddress => request_present_address(&mut altered, observed),
            BrokenRule::ForgetsFailuresOfDeleted if observed.target.is_none() => {
                if let Some(status) = altered.status.as_mut() {
                    status.held_back = None;
                }
            }
            _ => {}
        }
        let mut resolution = observed.resolution.clone();
        alter_resolution(broken, &mut resolution, binding);
        let checks = altered_results(broken, observed.checks);
        let target = observed.target.map(|target| altered_target(broken, target));
        let blamed: Vec<Pod> = observed
            .pods
            .iter()
            .map(|pod| altered_pod(broken, pod))
            .collect();
        let pods: Vec<&Pod> = blamed.iter().collect();
        let observed = Observed {
            resolution: &resolution,
            checks: &checks,
            pods: &pods,
            target: target.as_ref(),
            template_changed: match broken {
                BrokenRule::IgnoresTemplateEdits => false,
                BrokenRule::AlwaysRewritesTemplate => true,
                _ => observed.template_changed,
            },
            ..observed.clone()
        };
        let decided = decide(&altered, &observed, now);
        let needed = needed_checks(&altered, &observed, now);
        (alter_decision(broken, decided, target.is_some()), needed)
    }

    pub fn summarize(
        self,
        binding: &AliasBinding,
        reconciled: &Reconciled<'_>,
        now: Timestamp,
    ) -> AliasBindingStatus {
        let target = reconciled.applied.target;
        let target = target
            .filter(|_target| self.0 == Some(BrokenRule::ZeroIsWell))
            .map(|target| altered_target(BrokenRule::ZeroIsWell, target));
        let applied = Applied {
            target: target.as_ref().or(reconciled.applied.target),
            ..reconciled.applied.clone()
        };
        let reconciled = Reconciled {
            applied: &applied,
            ..*reconciled
        };
        let mut status = summarize(binding, &reconciled, now);
        match self.0 {
            Some(BrokenRule::AlternatesStatus) => {
                let previous = binding
                    .status
                    .as_ref()
                    .and_then(|status| status.follows.as_deref());
                status.follows = Some(
                    if previous == Some("tick") {
                        "tock"
                    } else {
                        "tick"
                    }
                    .to_owned(),
                );
            }
            Some(BrokenRule::MovesTimestamp) => {
                status
                    .conditions
                    .iter_mut()
                    .for_each(|each| each.last_transition_time = Time(now));
            }
            Some(BrokenRule::AlwaysReady) => {
                status
                    .conditions
                    .retain(|each| !["Reconciling", "Stalled"].contains(&each.type_.as_str()));
                for each in status
                    .conditions
                    .iter_mut()
                    .filter(|each| each.type_ == "Ready")
                {
                    "True".clone_into(&mut each.status);
                    "Live".clone_into(&mut each.reason);
                }
            }
            _ => {}
        }
        status
    }
}

fn alter_status(broken: BrokenRule, status: &mut AliasBindingStatus) {
    match broken {
        BrokenRule::ForgetsFailures
            if status
                .current()
                .is_none_or(|entry| entry.outcome != Outcome::Failed) =>
        {
            status.held_back = None;
        }
        BrokenRule::RollsBackToAnything => {
            for entry in status
                .history
                .iter_mut()
                .filter(|entry| entry.finished_at.is_some())
            {
                entry.live_at = Some(entry.started_at.clone());
                entry.outcome = Outcome::Superseded.into();
            }
        }
        BrokenRule::WalksBack => {
            for entry in &mut status.history {
                entry.trigger = Trigger::AliasMove.into();
            }
        }
        _ => {}
    }
}

/// The annotation of a person who asks for the registry's present address.
fn request_present_address(binding: &mut AliasBinding, observed: &Observed<'_>) {
    let (wanted, target) = (&observed.resolution.tracking_uri, observed.target);
    let present = target.and_then(|target| target.injected(InjectedValue::TrackingUri));
    if wanted.as_deref() != present.as_deref() {
        let value = wanted.clone().unwrap_or_default();
        let annotations = binding.metadata.annotations.get_or_insert_default();
        annotations.insert(names::APPLY_ANNOTATION.to_owned(), value);
    }
}

/// The pod as if it crashed, if it cannot be scheduled.
fn altered_pod(broken: BrokenRule, pod: &Pod) -> Pod {
    let is_blocked = pod.status.phase.as_deref() == Some("Pending");
    if broken != BrokenRule::BlamesTheCluster || !is_blocked {
        return pod.clone();
    }
    pod.clone().with(|pod| {
        let crashing = container().with(|container| {
            container.restart_count = 4;
            container.state = Some(waiting("CrashLoopBackOff"));
        });
        pod.status.container_statuses = vec![crashing];
    })
}

fn alter_resolution(
    broken: BrokenRule,
    resolution: &mut pointsman::rollout::Resolution,
    binding: &AliasBinding,
) {
    if broken == BrokenRule::IgnoresStaleMirrors {
        resolution.stale = None;
    }
    let running = binding
        .status
        .as_ref()
        .and_then(|status| status.history.last());
    if let (BrokenRule::IgnoresMissingAlias, Err(_), Some(entry)) =
        (broken, &resolution.desired, running)
    {
        // The oldest known version stands in for the missing alias.
        resolution.desired = Ok(DesiredVersion {
            version: entry.version.clone(),
        });
        resolution.stale = None;
    }
}

fn altered_results(broken: BrokenRule, results: &CheckResults) -> CheckResults {
    let altered = |result: &Availability| match broken {
        BrokenRule::SkipsChecks => Availability::Readable,
        _ => result.clone(),
    };
    results
        .iter()
        .map(|(check, result)| (check.clone(), altered(result)))
        .collect()
}

fn altered_target(broken: BrokenRule, target: &Target) -> Target {
    let mut altered = target.clone();
    if broken == BrokenRule::OverwritesPeople {
        altered.owners = pointsman::targets::FieldOwners::default();
        if altered.version().is_none() {
            altered.metadata.labels = None;
        }
    }
    if broken == BrokenRule::ZeroIsWell && altered.rollout == RolloutState::ScaledToZero {
        altered.rollout = RolloutState::Complete;
    }
    if broken == BrokenRule::StaysBlocked {
        altered.capacity.available = altered.capacity.desired;
        altered.capacity.has_minimum = true;
    }
    altered
}

fn alter_decision(broken: BrokenRule, mut decided: Decided, has_target: bool) -> Decided {
    match (broken, &mut decided.decision) {
        (BrokenRule::SkipsContainer, Decision::Write(injection, _)) => {
            injection.containers.truncate(1);
        }
        (BrokenRule::NeverRecreates, _) if has_target || decided.memory.held_back.is_none() => {}
        (BrokenRule::NeverTriesAgain, _) if decided.memory.postponed.is_none() => {}
        (BrokenRule::NeverTriesAgain, decision @ Decision::Write(_, Course::Forward))
        | (BrokenRule::NeverWrites | BrokenRule::NeverRecreates, decision @ Decision::Write(..)) => {
            let problem = Problem::new(Reason::Pending, "some other time");
            *decision = Decision::Waiting(Waiting::Target(problem));
        }
        _ => {}
    }
    decided
}
