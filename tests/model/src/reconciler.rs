//! One reconcile of the operator on real objects: resolve → decide → apply → summarize, cached by its inputs.
//!
//! Absent: conflicts and crashes. `steps` decides whether the patch and the status are written.

use std::hash::Hash;
use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::FixedState;
use jiff::Timestamp;
use pointsman::api::{AliasBinding, RegisteredModel};
use pointsman::rollout::{
    Applied, ArtifactCheck, CheckResults, Course, Decision, Observed, Reconciled, Waiting,
    Warnings, claim, resolve,
};
use pointsman::targets::{Injection, Pod, Target, patch, template_changed};
use pointsman::testing::{self, WorkloadFixture};
use serde_json::Value;

use super::objects;
use super::policy::Policy;
use super::state::{
    BindingSpec, Check, CheckCache, CheckResult, Mirror, Pods, StatusId, Version, WorkloadState,
    Writer,
};
use super::statuses::Statuses;
use super::steps::Scope;

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
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct ReconcileResult {
    /// The Deployment after the patch, if there is a patch.
    pub written: Option<WorkloadState>,
    /// Whether the write is an automatic rollback.
    pub is_rollback: bool,
    /// Whether the version before the write is held back.
    pub blames: bool,
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

/// A map that many threads read and write.
pub type Map<K, V> = DashMap<K, V, FixedState>;

/// A Deployment with its pods.
struct Objects {
    object: WorkloadFixture,
    target: Target,
    pods: Vec<Pod>,
}

/// What a write of a version makes of a Deployment.
#[derive(Clone)]
struct Written {
    injection: Injection,
    workload: WorkloadState,
    on_change: OnChange,
}

/// The operator, with a cache of its reconciles.
pub struct Reconciler {
    pub statuses: Statuses,
    policy: Policy,
    /// Whether the Deployment deletes its older pods before it creates new ones.
    pub recreates: bool,
    now: Timestamp,
    /// Events explain nothing that the objects do not.
    warnings: Warnings,
    /// The binding with one template and with the other.
    bindings: [AliasBinding; 2],
    cache: Map<Inputs, ReconcileResult>,
    workloads: Map<WorkloadState, Arc<Objects>>,
    models: Map<Mirror, Arc<RegisteredModel>>,
    checks: Map<CheckCache, Arc<CheckResults>>,
    changes: Map<(bool, Option<bool>, bool), Arc<bool>>,
    /// The writes of a binding with one template or the other.
    writes: Map<(WorkloadState, bool), Vec<Written>>,
}

/// The value for a key; it is made if it is not there.
fn cached<K: Copy + Eq + Hash, V>(map: &Map<K, Arc<V>>, key: K, make: impl Fn(K) -> V) -> Arc<V> {
    if let Some(known) = map.get(&key) {
        return Arc::clone(&known);
    }
    let value = Arc::new(make(key));
    map.insert(key, Arc::clone(&value));
    value
}

impl Reconciler {
    pub fn new(policy: Policy, history_limit: u8, scope: Scope) -> Self {
        Self {
            statuses: Statuses::new(),
            policy,
            recreates: scope.recreates,
            now: testing::at(objects::NOW),
            warnings: Warnings::new(),
            bindings: [false, true]
                .map(|is_edited| objects::binding(history_limit, scope.ownership, is_edited)),
            cache: Map::default(),
            workloads: Map::default(),
            models: Map::default(),
            checks: Map::default(),
            changes: Map::default(),
            writes: Map::default(),
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
    fn objects(&self, workload: WorkloadState) -> Option<Arc<Objects>> {
        let make = |workload| {
            let object = objects::workload(workload);
            Objects {
                target: object.target(),
                object,
                pods: objects::pods(workload),
            }
        };
        (!workload.is_missing()).then(|| cached(&self.workloads, workload, make))
    }

    #[allow(clippy::too_many_lines)] // one reconcile, in its order
    fn reconcile_uncached(&self, inputs: &Inputs) -> ReconcileResult {
        let status = self.statuses.get(inputs.status);
        let base = &self.bindings[usize::from(inputs.spec.template_edited)];
        let binding = objects::with_edits(base, inputs.spec, &status);
        let model = cached(&self.models, inputs.mirror, objects::model);
        let checks = cached(&self.checks, inputs.checks, objects::results);
        let resolution = resolve(&binding, Some(&model));
        let before = self.objects(inputs.workload);
        let target = before.as_ref().map(|objects| &objects.target);
        let pods: Vec<&Pod> = before.iter().flat_map(|objects| &objects.pods).collect();
        let claim = claim(&binding, &[], target);
        let observed = Observed {
            resolution: &resolution,
            target,
            pods: &pods,
            claim: claim.as_ref(),
            template_changed: self.template_changed(&binding, inputs, target),
            checks: &checks,
            warnings: &self.warnings,
            freeze: None,
            records_approver: false,
        };
        let (decided, needed) = self.policy.decide(&binding, &observed, self.now);
        let written = match &decided.decision {
            Decision::Write(injection, _) => {
                Some(self.write(&binding, inputs, before.as_deref(), injection))
            }
            _ => None,
        };
        let after = match &written {
            Some(written) => self.objects(written.workload),
            None => before.clone(),
        };
        let applied = Applied {
            target: after.as_ref().map(|objects| &objects.target),
            failure: None,
            retrain: None,
        };
        let reconciled = Reconciled {
            resolution: &resolution,
            checks: &checks,
            decided: &decided,
            applied: &applied,
        };
        let new = self.policy.summarize(&binding, &reconciled, self.now);
        let is_status_changed = new != *status;
        let ran = status
            .current()
            .and_then(|entry| Version::of(&entry.version));
        let version = written
            .as_ref()
            .and_then(|written| written.workload.version);
        let requested_checks = requested(&needed, inputs.checks);
        let waits = matches!(decided.decision, Decision::Waiting(Waiting::Checks(_)));
        ReconcileResult {
            is_rollback: matches!(decided.decision.course(), Some(Course::Rollback(_))),
            blames: inputs.workload.version.is_some_and(|before| {
                let held_back = decided.memory.held_back.iter();
                let mut failed = held_back.flat_map(|held_back| &held_back.versions);
                failed.any(|failed| Version::of(&failed.version) == Some(before))
            }),
            is_restore: ran.is_some() && version == ran,
            on_change: written
                .as_ref()
                .map_or(OnChange::Refused, |written| written.on_change),
            written: written.map(|written| written.workload),
            is_status_changed,
            status: if is_status_changed {
                self.statuses.intern(new)
            } else {
                inputs.status
            },
            requested_checks,
            waits_for_nothing: waits && requested_checks == 0,
        }
    }

    /// Whether the Deployment was made from another template than the binding's.
    fn template_changed(
        &self,
        binding: &AliasBinding,
        inputs: &Inputs,
        target: Option<&Target>,
    ) -> bool {
        let key = (
            inputs.workload.is_missing(),
            inputs.workload.made_from_edited,
            inputs.spec.template_edited,
        );
        *cached(&self.changes, key, |_key| template_changed(binding, target))
    }

    /// The write of a version. The same injection into the same Deployment gives the same result.
    fn write(
        &self,
        binding: &AliasBinding,
        inputs: &Inputs,
        before: Option<&Objects>,
        injection: &Injection,
    ) -> Written {
        let key = (inputs.workload, inputs.spec.template_edited);
        let known = self.writes.get(&key);
        let known = known.and_then(|all| {
            all.iter()
                .find(|each| each.injection == *injection)
                .cloned()
        });
        known.unwrap_or_else(|| {
            let patch = patch(binding, before.map(|objects| &objects.target), injection);
            let patch = patch.unwrap();
            let written = Written {
                injection: injection.clone(),
                workload: apply(
                    inputs.workload,
                    before.map(|objects| &objects.object),
                    &patch,
                ),
                on_change: OnChange::of(&patch),
            };
            self.writes.entry(key).or_default().push(written.clone());
            written
        })
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
        has_new_address: objects::has_new_address(&merged),
        made_from_edited: objects::made_from_edited(&merged),
        pods: Pods::Unobserved,
        ..workload
    };
    if written.has_same_template(workload) {
        return WorkloadState {
            pods: workload.pods,
            ..written
        };
    }
    WorkloadState {
        is_old: false,
        are_pods_old: false,
        ..written
    }
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
