//! The input of a decision.
//!
//! Absent: the binding, and how the input is read.

use super::artifact_check::CheckResults;
use super::claim::Claim;
use super::freeze::Freeze;
use super::health::Warnings;
use super::resolve::Resolution;
use crate::api::VersionRef;
use crate::targets::{Pod, Target};

/// Everything that the decision looks at, beside the binding itself.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// What the mirror says.
    pub resolution: &'a Resolution,
    /// The workload; `None` if there is none.
    pub target: Option<&'a Target>,
    /// The pods of the workload's newest template.
    pub pods: &'a [&'a Pod],
    /// The newest Warning Events about these pods and the workload, by UID.
    pub warnings: &'a Warnings,
    /// The other owner of the workload, if there is one.
    pub claim: Option<&'a Claim>,
    /// Whether an owned Deployment was made from another template than the binding's.
    pub template_changed: bool,
    /// The results of artifact checks.
    pub checks: &'a CheckResults,
    /// The freeze in force, if there is one.
    pub freeze: Option<&'a Freeze>,
    /// Whether the chart's policy records who approves.
    pub records_approver: bool,
}

impl Observed<'_> {
    /// Whether the target runs a version, with the same artifact URI.
    pub(super) fn runs(&self, version: &VersionRef) -> bool {
        self.target
            .is_some_and(|target| target.runs(version) && target.has_artifact_of(version))
    }
}
