//! Every sign by which the health of a version is assessed, and the party that it is blamed on.
//!
//! Absent: the reading of the signs; that is in `health`. docs/rollback.md shows this table, and a test compares both.

use crate::api::Reason;
use crate::api::reason::Problem;

/// The party to blame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The version: it is held back, and an earlier good one runs.
    Version(Reason),
    /// Something else: the rollout is `Blocked`, and goes on by itself.
    Cluster,
    /// Nobody: the sign changes nothing.
    Nobody,
}

macro_rules! signs {
    ($($(#[doc = $doc:literal])+ $name:ident: $fault:expr, after $after:literal;)+) => {
        /// A sign in the cluster.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Sign {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Sign {
            /// All signs, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Where and how the sign is read.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+),)+
                }
            }

            /// The party to blame.
            #[must_use]
            pub const fn fault(self) -> Fault {
                use Fault::{Cluster, Nobody, Version};
                match self {
                    $(Self::$name => $fault,)+
                }
            }

            /// After how long it counts.
            #[must_use]
            pub const fn after(self) -> &'static str {
                match self {
                    $(Self::$name => $after,)+
                }
            }
        }
    };
}

signs! {
    /// A chosen container restarted more than `rollback.maxRestarts` times; or as many times, and it is in `CrashLoopBackOff` or ended with an exit code other than 0
    ContainerCrashes: Version(Reason::CrashLoop), after "at once";
    /// The same of a chosen init container
    InitContainerCrashes: Version(Reason::InitFailed), after "at once";
    /// A chosen container that has run since the rollout was complete is not ready, and the pod's condition `Ready` became False (not on a lost node: there the container stays ready)
    ReadinessLost: Version(Reason::ReadinessLost), after "at once, until the version is live";
    /// A chosen container runs and is not ready, while all other containers of the pod are well
    NotReadyInTime: Version(Reason::ProgressDeadlineExceeded), after "`progressDeadlineSeconds` after the container first ran (10 minutes for StatefulSets and DaemonSets)";
    /// Argo Rollouts aborted the update: an analysis, an experiment or a step failed, or `progressDeadlineAbort` ended it and nothing blocked it before. Other kinds: the condition `Stalled` is True, or KServe says that the model failed to load
    Aborted: Version(Reason::RolloutAborted), after "at once";
    /// Argo Rollouts aborted the update although it could not be measured (an analysis has the status `Error`), or while it was blocked. A person has to retry it
    AbortedUnmeasured: Cluster, after "at once";
    /// The condition `ReplicaFailure` of a Deployment or Rollout is True, or `Progressing` is False with any reason but `ProgressDeadlineExceeded` and `RolloutAborted`, or a Rollout's spec is invalid: a quota, a policy or an admission webhook refuses pods or ReplicaSets
    PodRefused: Cluster, after "at once";
    /// The pod's condition `PodScheduled` is False: no room, a node selector, a taint, an unbound volume claim, a scheduling gate
    Unschedulable: Cluster, after "2 s";
    /// A container waits for another reason than `ContainerCreating`, `PodInitializing` or `CrashLoopBackOff`: its image cannot be pulled, its Secret is missing, the runtime refuses it
    ContainerCannotStart: Cluster, after "at once";
    /// A container ended as `StartError` or `ContainerCannotRun`: it never ran
    ContainerNeverRan: Cluster, after "at once";
    /// An init container that is not chosen ended with an exit code other than 0, and the pod is not initialized
    OtherInitContainerFails: Cluster, after "at once";
    /// Another container, a native sidecar, a readiness gate or a lost node keeps the pod from being ready
    OtherContainerUnready: Cluster, after "`progressDeadlineSeconds` after the chosen containers first ran";
    /// No container of the pod has started, and its newest Warning Event says why: a volume that cannot be mounted, a sandbox that cannot be made
    PodWarning: Cluster, after "3 s";
    /// A StatefulSet or DaemonSet lacks pods, and its newest Warning Event says why: a quota, a policy
    WorkloadWarning: Cluster, after "3 s";
    /// The pod's phase is Failed: it was evicted, or the kubelet rejected it (`OutOfcpu`, `UnexpectedAdmissionError`)
    PodRejected: Cluster, after "at once, while the rollout is not complete";
    /// An object of another kind is not `Ready`
    ObjectNotReady: Cluster, after "10 minutes";
    /// The workload lacks pods, or no chosen container of a pod has run, and nothing above says why
    NoProgress: Cluster, after "`progressDeadlineSeconds` without progress";
    /// All new pods are ready, and older ones do not go
    OldPodsRemain: Cluster, after "`progressDeadlineSeconds` without progress";
    /// A person aborted or paused a Rollout, or it waits at a step or for a promotion
    RolloutWaits: Nobody, after "never";
    /// A pod of another version or of an older template
    OtherVersion: Nobody, after "never";
    /// A pod that is being deleted
    Leaving: Nobody, after "never";
    /// A pod whose condition `DisruptionTarget` is True: preempted, drained, evicted
    Disrupted: Nobody, after "never";
    /// A container that ended as `ContainerStatusUnknown` or `Unknown`: its node was lost or restarted
    NodeLost: Nobody, after "never";
    /// Another container that restarts while the pod is ready
    OtherContainerRestarts: Nobody, after "never";
    /// A pod that is not ready yet after the rollout was complete: somebody scaled up, or it replaces a pod that was lost
    NewPodOfScaling: Nobody, after "for `progressDeadlineSeconds` after its chosen containers first ran";
}

impl Sign {
    /// What happens, for the table.
    #[must_use]
    pub fn effect(self) -> String {
        match self.fault() {
            Fault::Version(reason) => format!("`{reason}`: held back, rolled back"),
            Fault::Cluster => "`Blocked`: waits, goes on by itself".to_owned(),
            Fault::Nobody => "nothing".to_owned(),
        }
    }

    /// The row of docs/rollback.md.
    #[must_use]
    pub fn row(self) -> String {
        let blamed = match self.fault() {
            Fault::Version(_) => "the version",
            Fault::Cluster => "the cluster",
            Fault::Nobody => "nobody",
        };
        let (description, after) = (self.description().trim(), self.after());
        format!("| {description} | {blamed} | {after} | {} |", self.effect())
    }
}

/// A sign with the words of the kubelet, scheduler or controller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Evidence {
    /// The sign.
    pub sign: Sign,
    /// The words.
    pub message: String,
    /// What the rollout needs to go on, if room or quota is missing.
    pub needs: Option<String>,
}

impl Evidence {
    /// A sign with words.
    #[must_use]
    pub fn new(sign: Sign, message: impl Into<String>) -> Self {
        Self {
            sign,
            message: message.into(),
            needs: None,
        }
    }

    /// The problem that it is for the binding.
    #[must_use]
    pub fn problem(self) -> Problem {
        let reason = match self.sign.fault() {
            Fault::Version(reason) => reason,
            Fault::Cluster | Fault::Nobody => Reason::Blocked,
        };
        Problem::new(reason, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_signs_in_the_documentation_is_the_code() {
        let page = include_str!("../../docs/rollback.md");
        let rows: Vec<String> = Sign::ALL.iter().map(|sign| sign.row()).collect();
        assert!(
            page.contains(&rows.join("\n")),
            "docs/rollback.md must have these rows:\n{}",
            rows.join("\n")
        );
    }
}
