//! The outcome of a reconcile, from which its status is made.
//!
//! Absent: the status.

use super::artifact_check::CheckResults;
use super::decide::Decided;
use super::resolve::Resolution;
use crate::api::reason::Problem;
use crate::api::rollback::RetrainState;
use crate::targets::Target;

/// The result of applying a decision.
#[derive(Clone, Debug)]
pub struct Applied<'a> {
    /// The workload as it is now.
    pub target: Option<&'a Target>,
    /// Why the write failed, if it did.
    pub failure: Option<Problem>,
    /// The Job that trains a lost version again, if there is one.
    pub retrain: Option<RetrainState>,
}

/// Everything that a reconcile knows at its end.
#[derive(Clone, Copy, Debug)]
pub struct Reconciled<'a> {
    /// What the mirror said.
    pub resolution: &'a Resolution,
    /// The results of artifact checks.
    pub checks: &'a CheckResults,
    /// The decision.
    pub decided: &'a Decided,
    /// Its result.
    pub applied: &'a Applied<'a>,
}
