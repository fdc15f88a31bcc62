//! Argo Rollouts: the pods of the newest template replace others step by step, and an analysis may end that.
//!
//! Absent: a Rollout that takes its pod template from another workload; steps that are skipped. Its controller goes back to
//! the ReplicaSet that was rolled out last without steps, and to older ones within `spec.rollbackWindow`.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use kube::api::ObjectMeta;

use super::element_patch::listed_owners;
use super::target::{
    Abort, Adapter, Capacity, Form, NewestPods, RolloutState, Target, minimum_available,
};
use super::workload::Workload;
use crate::api::alias_binding::TargetKind;
use crate::api::names;

/// How many pods of a canary may be unavailable if it does not say so.
const DEFAULT_UNAVAILABLE: &str = "25%";
/// The reason of the condition Progressing when the deadline is over.
const EXCEEDED: &str = "ProgressDeadlineExceeded";
/// The reason of the condition Progressing of a rollout that was given up.
const ABORTED: &str = "RolloutAborted";
/// The steps at which the controller waits for somebody else.
const WAITING_STEPS: [&str; 4] = ["pause", "analysis", "experiment", "plugin"];

/// The kind of Argo Rollouts.
#[derive(Clone, Debug, Default)]
pub struct ArgoRollout {
    metadata: ObjectMeta,
}

impl Adapter for ArgoRollout {
    const KIND: TargetKind = TargetKind::Rollout;

    fn read(workload: Workload<Self>) -> Target {
        let hash = workload.status.current_pod_hash.clone();
        let newest = NewestPods::OfReplicaSet(names::ROLLOUT_HASH_LABEL, hash);
        let state = (rollout(&workload), capacity(&workload));
        Target {
            progressed_at: progressed_at(&workload),
            refusal: refusal(&workload),
            is_paused: wait(&workload).is_some(),
            form: Form::PlainTemplate,
            obstacle: obstacle(&workload),
            owners: listed_owners(workload.owners.clone(), &workload.spec.template),
            ..workload.target(Self::KIND, state, newest)
        }
    }
}

fn capacity(workload: &Workload<ArgoRollout>) -> Capacity {
    let desired = workload.spec.replicas.unwrap_or(1);
    let available = workload.status.available_replicas.unwrap_or_default();
    let says_so = workload
        .condition("Available")
        .is_some_and(|available| available.status == "True");
    let has_minimum = workload
        .spec
        .strategy
        .canary
        .as_ref()
        .is_some_and(|canary| {
            let default = IntOrString::String(DEFAULT_UNAVAILABLE.to_owned());
            let unavailable = canary.max_unavailable.as_ref().unwrap_or(&default);
            available >= minimum_available(desired, Some(unavailable))
        });
    Capacity {
        desired,
        available,
        has_minimum: says_so || has_minimum,
        has_old_pods: !is_promoted(workload),
    }
}

/// Whether the newest template is the one that was rolled out last, so that all steps are done.
fn is_promoted(workload: &Workload<ArgoRollout>) -> bool {
    let status = &workload.status;
    status.stable_hash.is_some() && status.stable_hash == status.current_pod_hash
}

fn progressed_at(workload: &Workload<ArgoRollout>) -> Option<Timestamp> {
    let progressing = workload.condition("Progressing");
    let progressing = progressing.filter(|each| each.status != "False")?;
    progressing.last_update_time.as_ref().map(|time| time.0)
}

/// The message of a condition that says that the spec is invalid, or that pods or their ReplicaSet cannot be created.
fn refusal(workload: &Workload<ArgoRollout>) -> Option<String> {
    let is_true = |type_: &str| {
        workload
            .condition(type_)
            .filter(|each| each.status == "True")
    };
    let no_set = workload.condition("Progressing").filter(|progressing| {
        let reason = progressing.reason.as_deref();
        progressing.status == "False" && !matches!(reason, Some(EXCEEDED | ABORTED))
    });
    let refusal = is_true("InvalidSpec").or_else(|| is_true("ReplicaFailure"));
    refusal.or(no_set)?.message.clone()
}

fn obstacle(workload: &Workload<ArgoRollout>) -> Option<String> {
    let reference = workload.spec.workload_ref.as_ref()?;
    Some(format!(
        "Rollout {} takes its pod template from {} {} (spec.workloadRef): move it into the Rollout's spec.template",
        workload.name(),
        reference.kind,
        reference.name
    ))
}

fn rollout(workload: &Workload<ArgoRollout>) -> RolloutState {
    let (name, namespace) = (workload.name(), workload.namespace());
    let in_progress = || {
        let sentence = wait(workload).unwrap_or_else(|| {
            format!(
                "the Rollout is rolling out; watch it: kubectl argo rollouts get rollout {name} -n {namespace}"
            )
        });
        RolloutState::InProgress(sentence)
    };
    if !workload.is_observed() {
        return in_progress();
    }
    let (status, asked) = (&workload.status, workload.spec.replicas.unwrap_or(1));
    if asked == 0 {
        return RolloutState::ScaledToZero;
    }
    let message = |reason: &str| {
        let progressing = workload.condition("Progressing")?;
        let found = progressing.reason.as_deref() == Some(reason);
        found.then(|| progressing.message.clone().unwrap_or_default())
    };
    if is_promoted(workload) {
        let has_all = status.updated_replicas.unwrap_or_default() >= asked
            && status.available_replicas.unwrap_or_default() >= asked;
        let is_well = matches!(status.phase.as_deref(), Some("Healthy" | "Paused"));
        if has_all && is_well {
            return RolloutState::Complete;
        }
    } else if status.abort && workload.owners.aborted_by().is_none() {
        return RolloutState::Aborted(Abort {
            words: message(ABORTED)
                .map(|words| cause(&words))
                .or_else(|| message(EXCEEDED))
                .unwrap_or_default(),
            remedy: format!("retry it: kubectl argo rollouts retry rollout {name} -n {namespace}"),
            is_unmeasured: any_analysis_is(workload, "Error")
                && !any_analysis_is(workload, "Failed"),
            settles_in: SignedDuration::ZERO,
        });
    }
    match message(EXCEEDED) {
        Some(words) => RolloutState::DeadlineExceeded(words),
        None => in_progress(),
    }
}

/// `Rollout aborted update to revision 2: Metric …` without its beginning.
fn cause(words: &str) -> String {
    let cause = words.split_once(": ").map_or(words, |(_, cause)| cause);
    cause.to_owned()
}

fn any_analysis_is(workload: &Workload<ArgoRollout>, status: &str) -> bool {
    let all = &workload.status;
    all.canary.any_is(status) || all.blue_green.any_is(status)
}

/// What the rollout waits for, if it is somebody or something other than its pods.
fn wait(workload: &Workload<ArgoRollout>) -> Option<String> {
    let (name, namespace) = (workload.name(), workload.namespace());
    let (spec, status) = (&workload.spec, &workload.status);
    let promote = format!("go on: kubectl argo rollouts promote {name} -n {namespace}");
    if status.abort {
        let manager = workload.owners.aborted_by()?;
        return Some(format!(
            "{manager} aborted the Rollout; go on: kubectl argo rollouts retry rollout {name} -n {namespace}"
        ));
    }
    if spec.paused {
        return Some(format!("the Rollout is paused; {promote}"));
    }
    if let Some(pause) = status.pause_conditions.first() {
        return Some(format!("the Rollout waits ({}); {promote}", pause.reason));
    }
    let canary = spec.strategy.canary.as_ref();
    let index = status.current_step_index.unwrap_or_default();
    let step = canary.and_then(|canary| canary.steps.get(index));
    let step = step.and_then(|step| {
        step.keys()
            .find(|key| WAITING_STEPS.contains(&key.as_str()))
    });
    let waits_for = match step {
        Some(step) => step.as_str(),
        None if status.blue_green.hold_up() => "analysis",
        None => return None,
    };
    Some(format!(
        "the Rollout waits ({waits_for}); watch it: kubectl argo rollouts get rollout {name} -n {namespace}"
    ))
}

impl Resource for ArgoRollout {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Rollout".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "argoproj.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "rollouts".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{DesiredVersion, Injection, patch};
    use crate::testing::{NOW, WorkloadFixture, binding, deployment, version};
    use serde_json::{Value, json};

    /// A canary of two pods with a weight, a pause and an analysis.
    fn canary() -> WorkloadFixture {
        let steps = json!([{"setWeight": 50}, {"pause": {}}, {"analysis": {"templates": []}}]);
        deployment().counts(2, 2, 2).changed(&json!({
            "spec": {"replicas": 2, "strategy": {"canary": {"steps": steps}}},
            "status": {"observedGeneration": "2", "phase": "Healthy", "stableRS": "a", "currentPodHash": "a"}}))
    }

    /// The same after the template has changed.
    fn updating(status: &Value) -> WorkloadFixture {
        let progressing =
            json!({"currentPodHash": "b", "phase": "Progressing", "currentStepIndex": 0});
        canary()
            .changed(&json!({"status": progressing}))
            .changed(&json!({"status": status}))
    }

    fn target(workload: &WorkloadFixture) -> Target {
        workload.target_of::<ArgoRollout>()
    }

    fn sentence(workload: &WorkloadFixture) -> String {
        match target(workload).rollout {
            RolloutState::InProgress(sentence) => sentence,
            other => panic!("not in progress: {other:?}"),
        }
    }

    #[test]
    fn a_rollout_is_complete_when_its_newest_template_is_promoted_and_available() {
        assert!(target(&canary()).is_complete());
        assert!(!target(&updating(&json!({}))).is_complete());
        assert!(!target(&canary().counts(2, 2, 1)).is_complete());
        let unobserved = canary().changed(&json!({"status": {"observedGeneration": "1"}}));
        assert!(!target(&unobserved).is_complete());
        assert_eq!(target(&unobserved).newest_pods, NewestPods::None);
    }

    #[test]
    fn a_pause_an_analysis_and_a_persons_pause_are_waited_for() {
        let step = |index: u32| updating(&json!({"currentStepIndex": index}));
        assert!(!target(&step(0)).is_paused);
        assert!(target(&step(1)).is_paused && target(&step(2)).is_paused);
        let paused = updating(
            &json!({"pauseConditions": [{"reason": "CanaryPauseStep", "startTime": NOW}],
            "phase": "Paused"}),
        );
        assert!(target(&paused).is_paused);
        assert_eq!(
            sentence(&paused),
            "the Rollout waits (CanaryPauseStep); go on: kubectl argo rollouts promote server -n ml"
        );
        let by_person = updating(&json!({})).changed(&json!({"spec": {"paused": true}}));
        assert!(sentence(&by_person).starts_with("the Rollout is paused; go on: "));
        let promotion = updating(
            &json!({"blueGreen": {"prePromotionAnalysisRunStatus": {"status": "Running"}}}),
        );
        assert!(target(&promotion).is_paused);
    }

    fn aborted(analysis: &str) -> WorkloadFixture {
        let words = "Rollout aborted update to revision 2: Metric \"errors\" assessed Failed";
        updating(&json!({"abort": true, "phase": "Degraded",
            "canary": {"currentStepAnalysisRunStatus": {"name": "r", "status": analysis}}}))
        .condition("Progressing", "False", ABORTED, words, NOW)
    }

    fn abort(analysis: &str) -> Abort {
        match target(&aborted(analysis)).rollout {
            RolloutState::Aborted(abort) => abort,
            other => panic!("not aborted: {other:?}"),
        }
    }

    #[test]
    fn an_abort_after_a_failed_analysis_has_the_words_of_the_rollout() {
        let failed = abort("Failed");
        assert!(failed.words.contains("assessed Failed"), "{failed:?}");
        assert!(!failed.is_unmeasured && !abort("").is_unmeasured);
        assert!(abort("Error").is_unmeasured);
        assert_eq!(target(&aborted("Failed")).refusal, None);
    }

    #[test]
    fn a_persons_abort_is_waited_for() {
        let controller = json!({"f:status": {"f:observedGeneration": {}, "f:currentPodHash": {}}});
        let person = json!({"f:status": {"f:abort": {}}});
        let workload = aborted("")
            .status_owned_by("rollouts-controller", &controller)
            .status_owned_by("kubectl-argo-rollouts", &person);
        assert_eq!(
            sentence(&workload),
            "kubectl-argo-rollouts aborted the Rollout; go on: kubectl argo rollouts retry rollout server -n ml"
        );
        assert!(target(&workload).is_paused);
        let both = json!({"f:status": {"f:observedGeneration": {}, "f:abort": {}}});
        let own = aborted("").status_owned_by("rollouts-controller", &both);
        assert!(matches!(target(&own).rollout, RolloutState::Aborted(_)));
    }

    #[test]
    fn a_canary_has_its_minimum_as_long_as_a_quarter_is_missing() {
        let four = |available: i32| {
            let change = json!({"spec": {"replicas": 4}});
            target(&canary().counts(4, 4, available).changed(&change)).capacity
        };
        assert!(four(3).has_minimum && !four(2).has_minimum);
        assert!(target(&updating(&json!({}))).capacity.has_old_pods);
    }

    #[test]
    fn an_invalid_spec_is_a_refusal() {
        let words = "The Rollout \"server\" is invalid: spec.strategy";
        let invalid = canary().condition("InvalidSpec", "True", "InvalidSpec", words, NOW);
        assert_eq!(target(&invalid).refusal.as_deref(), Some(words));
    }

    #[test]
    fn a_template_of_another_workload_is_an_obstacle() {
        let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"});
        let change = json!({"spec": {"workloadRef": reference}});
        let target = target(&canary().changed(&change));
        let desired = DesiredVersion {
            version: version("4"),
        };
        let problem = Injection::of(&binding(), Some(&target), &desired).expect_err("an obstacle");
        assert!(
            problem
                .message
                .contains("Deployment other (spec.workloadRef)"),
            "{problem:?}"
        );
    }

    fn env(target: &Target) -> Vec<(&str, &str)> {
        let env = target.template.spec.containers[0].env.iter();
        env.map(|each| {
            (
                each.name.as_str(),
                each.value.as_deref().unwrap_or_default(),
            )
        })
        .collect()
    }

    fn holding(workload: WorkloadFixture, number: &str) -> WorkloadFixture {
        workload.holding_in::<ArgoRollout>(&binding(), &version(number))
    }

    fn users() -> WorkloadFixture {
        let env = json!([{"name": "PORT", "value": "80"}, {"name": "MLFLOW_TRACKING_URI", "value": "mine"}]);
        canary().changed(&json!({"spec": {"template": {
            "metadata": {"labels": {"app": "server"}},
            "spec": {"containers": [{"name": "server", "env": env}, {"name": "proxy", "env": [{"name": "MODEL_URI", "value": "its"}]}]}}}}))
    }

    #[test]
    fn a_version_changes_only_its_own_elements() {
        let first = holding(users(), "1");
        let second = target(&holding(first.clone(), "2"));
        assert_eq!(second.version(), Some("2"));
        let names: Vec<&str> = env(&second).iter().map(|(name, _)| *name).collect();
        assert_eq!(names[0], "MODEL_NAME");
        assert_eq!(names[names.len() - 2..], ["PORT", "MLFLOW_TRACKING_URI"]);
        assert!(env(&second).contains(&("MLFLOW_TRACKING_URI", "mine")));
        let proxy = &second.template.spec.containers[1].env;
        assert_eq!(
            proxy.len(),
            1,
            "another container keeps its variable of the same name"
        );
        let back = target(&holding(holding(first.clone(), "2"), "1"));
        assert_eq!(
            format!("{:?}", back.template),
            format!("{:?}", target(&first).template)
        );
    }

    #[test]
    fn variables_of_a_container_that_is_not_chosen_any_more_are_removed() {
        let mut other = binding();
        other.spec.inject.containers = Some(vec!["proxy".to_owned()]);
        let held = target(&holding(users(), "1"));
        let desired = DesiredVersion {
            version: version("1"),
        };
        let injection = Injection::of(&other, Some(&held), &desired).expect("an injection");
        let patch = patch(&other, Some(&held), &injection).expect("a patch");
        let server = patch
            .as_array()
            .expect("a JSON patch")
            .iter()
            .find(|each| each["path"] == "/spec/template/spec/containers/0/env");
        let left = json!([{"name": "PORT", "value": "80"}, {"name": "MLFLOW_TRACKING_URI", "value": "mine"}]);
        assert_eq!(server.expect("its variables")["value"], left);
    }

    #[test]
    fn a_write_is_a_conflict_if_the_object_changed_since() {
        let target = target(&users());
        let desired = DesiredVersion {
            version: version("1"),
        };
        let injection = Injection::of(&binding(), Some(&target), &desired).expect("an injection");
        let patch = patch(&binding(), Some(&target), &injection).expect("a patch");
        assert_eq!(
            patch[0],
            json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "1"})
        );
    }

    #[test]
    fn an_undo_brings_the_version_and_its_variables_back() {
        let undone = target(&holding(users(), "1").undone_by("kubectl-argo-rollouts"));
        assert_eq!(
            undone.owners.foreign_version_writers()[0].manager,
            "kubectl-argo-rollouts"
        );
        assert!(!undone.is_set_by_others("server", "MODEL_URI"));
        assert!(undone.is_set_by_others("server", "PORT"));
    }
}
