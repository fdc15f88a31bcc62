//! The operator's own `decide` and `summarize`, and what they would be with one rule broken at a time.
//!
//! Absent: a second decision. A broken rule is the real decision on other facts, or with another answer.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pointsman::api::alias_binding::Outcome;
use pointsman::api::reason::Problem;
use pointsman::api::rollback::OnFailure;
use pointsman::api::{AliasBinding, AliasBindingStatus, Availability, Reason};
use pointsman::rollout::{
    CheckResults, Decided, Decision, Observed, Reconciled, Waiting, decide, summarize,
};
use pointsman::targets::{DesiredVersion, Target};

/// A rule that is broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Broken {
    ForgetsWhatFailed,
    IgnoresStaleMirrors,
    IgnoresAMissingAlias,
    AlternatesItsStatus,
    MovesATimestamp,
    ForgetsAContainer,
    OverwritesPeople,
    SkipsTheChecks,
    GoesBackToAnything,
    NeverGoesOn,
    NeverGoesBack,
    SaysReady,
    SwallowsResumes,
    SwallowsRetries,
}

/// The decision that is checked: the real one, or the real one with a rule broken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy(pub Option<Broken>);

impl Policy {
    pub fn decide(
        self,
        binding: &AliasBinding,
        observed: &Observed<'_>,
        now: Timestamp,
    ) -> Decided {
        let Some(broken) = self.0 else {
            return decide(binding, observed, now);
        };
        let mut altered = binding.clone();
        if let Some(status) = altered.status.as_mut() {
            alter_status(broken, status);
        }
        match broken {
            Broken::NeverGoesBack => altered.spec.rollback.on_failure = OnFailure::Report,
            Broken::SwallowsResumes | Broken::SwallowsRetries => {
                altered.metadata.annotations = None;
            }
            _ => {}
        }
        let mut resolution = observed.resolution.clone();
        alter_resolution(broken, &mut resolution, binding);
        let checks = altered_results(broken, observed.checks);
        let target = observed.target.map(|target| altered_target(broken, target));
        let observed = Observed {
            resolution: &resolution,
            checks: &checks,
            target: target.as_ref(),
            ..observed.clone()
        };
        alter_decision(broken, decide(&altered, &observed, now))
    }

    pub fn summarize(
        self,
        binding: &AliasBinding,
        reconciled: &Reconciled<'_>,
        now: Timestamp,
    ) -> AliasBindingStatus {
        let mut status = summarize(binding, reconciled, now);
        match self.0 {
            Some(Broken::AlternatesItsStatus) => {
                let told = binding
                    .status
                    .as_ref()
                    .and_then(|status| status.follows.as_deref());
                status.follows =
                    Some(if told == Some("tick") { "tock" } else { "tick" }.to_owned());
            }
            Some(Broken::MovesATimestamp) => {
                status
                    .conditions
                    .iter_mut()
                    .for_each(|each| each.last_transition_time = Time(now));
            }
            Some(Broken::SaysReady) => {
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

fn alter_status(broken: Broken, status: &mut AliasBindingStatus) {
    match broken {
        Broken::ForgetsWhatFailed
            if status
                .current()
                .is_none_or(|entry| entry.outcome != Outcome::Failed) =>
        {
            status.held_back = None;
        }
        Broken::GoesBackToAnything => {
            for entry in status
                .history
                .iter_mut()
                .filter(|entry| entry.finished_at.is_some())
            {
                entry.live_at = Some(entry.started_at.clone());
                entry.outcome = Outcome::Superseded.into();
            }
        }
        _ => {}
    }
}

fn alter_resolution(
    broken: Broken,
    resolution: &mut pointsman::rollout::Resolution,
    binding: &AliasBinding,
) {
    if broken == Broken::IgnoresStaleMirrors {
        resolution.stale = None;
    }
    let running = binding
        .status
        .as_ref()
        .and_then(|status| status.history.last());
    if let (Broken::IgnoresAMissingAlias, Err(_), Some(entry)) =
        (broken, &resolution.desired, running)
    {
        // As if the oldest known version were meant.
        resolution.desired = Ok(DesiredVersion {
            version: entry.version.clone(),
            tracking_uri: Some("http://mlflow".to_owned()),
        });
        resolution.stale = None;
    }
}

fn altered_results(broken: Broken, results: &CheckResults) -> CheckResults {
    let altered = |result: &Availability| match broken {
        Broken::SkipsTheChecks => Availability::Readable,
        _ => result.clone(),
    };
    results
        .iter()
        .map(|(check, result)| (check.clone(), altered(result)))
        .collect()
}

fn altered_target(broken: Broken, target: &Target) -> Target {
    let mut altered = target.clone();
    if broken == Broken::OverwritesPeople {
        altered.owners = pointsman::targets::FieldOwners::default();
        if altered.version().is_none() {
            altered.metadata.labels = None;
        }
    }
    altered
}

fn alter_decision(broken: Broken, mut decided: Decided) -> Decided {
    match (broken, &mut decided.decision) {
        (Broken::ForgetsAContainer, Decision::Write(injection, _)) => {
            injection.containers.truncate(1);
        }
        (Broken::NeverGoesOn, decision @ Decision::Write(..)) => {
            let problem = Problem::new(Reason::Pending, "some other time");
            *decision = Decision::Waiting(Waiting::Target(problem));
        }
        _ => {}
    }
    decided
}
