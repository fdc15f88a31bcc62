//! The operator's own `decide` and `summarize`, and variants of them with one rule broken.
//!
//! Absent: a second decision. A broken rule changes the inputs or the result of the real decision.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pointsman::api::alias_binding::Outcome;
use pointsman::api::reason::Problem;
use pointsman::api::rollback::OnFailure;
use pointsman::api::{AliasBinding, AliasBindingStatus, Availability, Reason};
use pointsman::rollout::{
    ArtifactCheck, CheckResults, Decided, Decision, Observed, Reconciled, Waiting, decide,
    needed_checks, summarize,
};
use pointsman::targets::{DesiredVersion, Target};

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
        let observed = Observed {
            resolution: &resolution,
            checks: &checks,
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
        let mut status = summarize(binding, reconciled, now);
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
        _ => {}
    }
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
    altered
}

fn alter_decision(broken: BrokenRule, mut decided: Decided, has_target: bool) -> Decided {
    match (broken, &mut decided.decision) {
        (BrokenRule::SkipsContainer, Decision::Write(injection, _)) => {
            injection.containers.truncate(1);
        }
        (BrokenRule::NeverRecreates, _) if has_target || decided.memory.held_back.is_none() => {}
        (BrokenRule::NeverWrites | BrokenRule::NeverRecreates, decision @ Decision::Write(..)) => {
            let problem = Problem::new(Reason::Pending, "some other time");
            *decision = Decision::Waiting(Waiting::Target(problem));
        }
        _ => {}
    }
    decided
}
