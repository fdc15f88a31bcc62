//! One reconcile of the operator on real objects: resolve → decide → apply → summarize, cached by its inputs.
//!
//! Absent: conflicts and crashes. `steps` decides whether the patch and the status are written.

use dashmap::DashMap;
use pointsman::api::{AliasBinding, RegisteredModel};
use pointsman::rollout::{
    Applied, ArtifactCheck, Course, Decision, Observed, Reconciled, Waiting, Warnings, claim,
    resolve,
};
use pointsman::targets::{Pod, Target, patch, template_changed};
use pointsman::testing::{self, WorkloadFixture};
use serde_json::Value;

use super::objects;
use super::policy::Policy;
use super::state::{
    BindingSpec, Check, CheckCache, CheckResult, Mirror, Ownership, Pods, StatusId, Version,
    WorkloadState, Writer,
};
use super::statuses::Statuses;

/// The inputs of a reconcile.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Inputs {
    pub spec: BindingSpec,
    pub status: StatusId,
    pub workload: WorkloadState,
    pub mirror: Mirror,
    pub checks: CheckCache,
}

/// The effect of a patch on a Deployment that changed since it was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnChange {
    /// The patch names a resource version, so the API server refuses it.
    Refused,
    /// The patch is applied to the Deployment as it is now.
    Applied,
}

impl OnChange {
    fn of(patch: &Value) -> Self {
        if patch["metadata"]["resourceVersion"].is_string() {
            Self::Refused
        } else {
            Self::Applied
        }
    }
}

/// The result of a reconcile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReconcileResult {
    /// The Deployment after the patch, if there is a patch.
    pub written: Option<WorkloadState>,
    /// Whether the write is an automatic rollback.
    pub is_rollback: bool,
    /// Whether the write puts back the version that the status says ran.
    pub is_restore: bool,
    /// The effect of the patch on a Deployment that changed since it was read.
    pub on_change: OnChange,
    pub status: StatusId,
    pub is_status_changed: bool,
    pub requested_checks: u16,
    /// Whether the decision waits for a check that is not running.
    pub waits_for_nothing: bool,
}

/// The operator, with a cache of its reconciles.
pub struct Reconciler {
    pub statuses: Statuses,
    policy: Policy,
    base: AliasBinding,
    cache: DashMap<Inputs, ReconcileResult>,
    workloads: DashMap<WorkloadState, (WorkloadFixture, Target, Vec<Pod>)>,
    models: DashMap<Mirror, RegisteredModel>,
}

impl Reconciler {
    pub fn new(policy: Policy, history_limit: u8, ownership: Ownership) -> Self {
        Self {
            statuses: Statuses::new(),
            policy,
            base: objects::binding(history_limit, ownership),
            cache: DashMap::new(),
            workloads: DashMap::new(),
            models: DashMap::new(),
        }
    }

    /// The number of different reconciles so far.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// The result of a reconcile with these inputs.
    pub fn reconcile(&self, inputs: Inputs) -> ReconcileResult {
        if let Some(known) = self.cache.get(&inputs) {
            return *known;
        }
        let result = self.reconcile_uncached(&inputs);
        self.cache.insert(inputs, result);
        result
    }

    /// The Deployment with its pods; `None` if there is none.
    fn objects(&self, workload: WorkloadState) -> Option<(WorkloadFixture, Target, Vec<Pod>)> {
        if workload.is_missing() {
            return None;
        }
        let objects = self.workloads.entry(workload).or_insert_with(|| {
            let object = objects::workload(workload);
            (object.clone(), object.target(), objects::pods(workload))
        });
        Some(objects.clone())
    }

    fn reconcile_uncached(&self, inputs: &Inputs) -> ReconcileResult {
        let status = self.statuses.get(inputs.status);
        let binding = objects::with_edits(&self.base, inputs.spec, (*status).clone());
        let model = self
            .models
            .entry(inputs.mirror)
            .or_insert_with(|| objects::model(inputs.mirror))
            .clone();
        let resolution = resolve(&binding, Some(&model));
        let objects = self.objects(inputs.workload);
        let (object, target, pods) = match &objects {
            Some((object, target, pods)) => (Some(object), Some(target), pods.as_slice()),
            None => (None, None, [].as_slice()),
        };
        let pods: Vec<&Pod> = pods.iter().collect();
        let checks = objects::results(inputs.checks);
        let claim = claim(&binding, &[], target);
        let observed = Observed {
            resolution: &resolution,
            target,
            pods: &pods,
            warnings: &Warnings::new(),
            claim: claim.as_ref(),
            template_changed: template_changed(&binding, target),
            checks: &checks,
        };
        let now = testing::at(objects::NOW);
        let (decided, needed) = self.policy.decide(&binding, &observed, now);
        let patch = match &decided.decision {
            Decision::Write(injection, _) => patch(&binding, target, injection),
            _ => None,
        };
        let written = patch
            .as_ref()
            .map(|patch| apply(inputs.workload, object, patch));
        let after = self.objects(written.unwrap_or(inputs.workload));
        let applied = Applied {
            target: after.as_ref().map(|(_, target, _)| target),
            failure: None,
            retrain: None,
        };
        let reconciled = Reconciled {
            resolution: &resolution,
            checks: &checks,
            decided: &decided,
            applied: &applied,
        };
        let ran = status
            .current()
            .and_then(|entry| Version::of(&entry.version));
        let new = self.policy.summarize(&binding, &reconciled, now);
        let requested_checks = requested(&needed, inputs.checks);
        let waits = matches!(decided.decision, Decision::Waiting(Waiting::Checks(_)));
        ReconcileResult {
            written,
            is_rollback: matches!(decided.decision.course(), Some(Course::Rollback(_))),
            is_restore: ran.is_some() && written.and_then(|written| written.version) == ran,
            on_change: patch.as_ref().map_or(OnChange::Refused, OnChange::of),
            is_status_changed: new != *status,
            status: self.statuses.intern(new),
            requested_checks,
            waits_for_nothing: waits && requested_checks == 0,
        }
    }
}

/// The Deployment after the patch, merged as the API server does.
fn apply(
    workload: WorkloadState,
    object: Option<&WorkloadFixture>,
    patch: &Value,
) -> WorkloadState {
    let merged = match object {
        Some(object) => object.clone().patched(patch),
        None => WorkloadFixture::created(patch),
    };
    let merged = merged.target();
    let named = objects::one_version(&merged);
    let annotated = || Version::all().find(|each| merged.version() == Some(each.number()));
    let image = patch.pointer("/spec/template/spec/containers/0/image");
    let written = WorkloadState {
        version: named.or_else(annotated),
        is_mixed: named.is_none(),
        writer: Writer::Pointsman,
        has_label: true,
        edited: image.map_or(workload.edited, |image| image == "b"),
        made_from_edited: objects::made_from_edited(&merged),
        pods: Pods::Unobserved,
    };
    let pods = if written.has_same_template(workload) {
        workload.pods
    } else {
        Pods::Unobserved
    };
    WorkloadState { pods, ..written }
}

/// The checks that the controller starts: those that are needed and have no result, or one other than Readable.
fn requested(needed: &[ArtifactCheck], checks: CheckCache) -> u16 {
    let is_due = |check: &Check| checks.get(*check) != Some(CheckResult::Readable);
    let due = needed
        .iter()
        .filter_map(objects::model_check)
        .filter(is_due);
    due.fold(0, |requested, check| requested | check.bit())
}
