//! Objects of any kind, which a version reaches by fields that the binding names: health by the conventions of kstatus.
//!
//! Absent: pods. Nobody but the object's own controller knows them.

use std::borrow::Cow;

use jiff::SignedDuration;
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::element_patch::listed_owners;
use super::field_path::{get, remove};
use super::fields::paths;
use super::kserve;
use super::literal::escape;
use super::owners::FieldOwners;
use super::target::{Abort, Capacity, Form, NewestPods, RolloutState, Target};
use super::workload::{Container, EnvVar, PodSpec, PodTemplate, TemplateMeta};
use crate::api::alias_binding::TargetKind;
use crate::api::inject::InjectedField;
use crate::api::names;
use crate::api::version::fnv1a;

/// For how long an object may be unready.
const DEADLINE: SignedDuration = SignedDuration::from_mins(10);
/// For how long a status may be that of before a change, if the controller does not tell the generation.
const UNOBSERVED: SignedDuration = SignedDuration::from_secs(30);
/// The name under which the fields are compared, as if they were variables of one container.
const FIELDS: &str = "object";

/// An object of any kind.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct AnyObject {
    /// Name, labels, annotations, generation.
    pub metadata: ObjectMeta,
    /// The desired state.
    #[serde(default)]
    pub spec: Value,
    /// The observed state.
    #[serde(default)]
    pub status: Value,
    /// The managers of the version; filled by [`AnyObject::with_owners`].
    #[serde(default)]
    pub owners: FieldOwners,
}

impl AnyObject {
    /// The same object with its managed fields read into [`FieldOwners`] and then dropped.
    #[must_use]
    pub fn with_owners(mut self) -> Self {
        let managed = self.metadata.managed_fields.take().unwrap_or_default();
        self.owners = FieldOwners::of_object(&managed);
        self
    }

    /// Reads the object as the target of a binding that sets these fields.
    #[must_use]
    pub fn read(mut self, kind: TargetKind, fields: &[InjectedField]) -> Target {
        if let Some(status) = kserve::status_of_canary(&kind, &self.status, fields) {
            self.status = status;
        }
        let mut object = json!({"spec": self.spec});
        let labels = self.metadata.labels.clone().unwrap_or_default();
        let annotations = self.metadata.annotations.clone().unwrap_or_default();
        let listed = annotations.get(names::VARIABLES_ANNOTATION).cloned();
        let listed = listed.unwrap_or_default();
        let own = fields.iter().map(|field| field.path.as_str());
        let mut known: Vec<&str> = own.chain(paths(&listed)).collect();
        known.sort_unstable();
        known.dedup();
        let env = known
            .iter()
            .filter_map(|path| variable(&object, path))
            .collect();
        let container = Container {
            name: FIELDS.to_owned(),
            env,
            ..Container::default()
        };
        let whole = object.clone();
        let template = PodTemplate {
            metadata: TemplateMeta {
                labels,
                annotations,
            },
            spec: PodSpec {
                containers: vec![container],
                init_containers: Vec::new(),
            },
            users_digest: users_digest(&mut object, &known),
        };
        let health = KstatusConditions::of(&self, &kind);
        Target {
            replicas: None,
            rollout: health.rollout(&self, &kind),
            capacity: health.capacity(),
            progress_deadline: DEADLINE,
            progressed_at: None,
            refusal: kserve::refusal(&self.status),
            is_paused: false,
            newest_pods: NewestPods::None,
            broken_pods_block: false,
            form: Form::Fields(whole),
            obstacle: None,
            unready: health.unready(&kind),
            owners: listed_owners(self.owners, &template),
            kind,
            template,
            metadata: self.metadata,
        }
    }
}

/// A field as a variable.
fn variable(object: &Value, path: &str) -> Option<EnvVar> {
    let value = match get(object, path)? {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(EnvVar {
        name: path.to_owned(),
        value: Some(escape(&value).into_owned()),
        value_from: None,
    })
}

/// A digest of the user's part of the spec; neither the fields of a version nor scaling count.
fn users_digest(object: &mut Value, fields: &[&str]) -> String {
    for path in fields.iter().chain(&["spec.replicas"]) {
        let _ = remove(object, path);
    }
    format!("{:016x}", fnv1a(object.to_string().as_bytes()))
}

/// The conditions of kstatus.
struct KstatusConditions {
    is_observed: bool,
    tells_generation: bool,
    ready: Option<bool>,
    words: String,
    stalled: Option<String>,
    is_reconciling: bool,
}

impl KstatusConditions {
    fn of(object: &AnyObject, kind: &TargetKind) -> Self {
        let status = &object.status;
        let observed = status["observedGeneration"].as_i64();
        let observed = observed.filter(|_generation| kserve::tells_its_generation(kind));
        let condition = |type_: &str| {
            let mut all = status["conditions"].as_array().into_iter().flatten();
            all.find(|each| each["type"] == type_)
        };
        let words = |condition: &Value| {
            let text = |member: &str| condition[member].as_str().unwrap_or_default().to_owned();
            let (reason, message) = (text("reason"), text("message"));
            if message.is_empty() { reason } else { message }
        };
        let is_true = |type_: &str| condition(type_).filter(|each| each["status"] == "True");
        let ready = condition("Ready");
        Self {
            is_observed: observed
                .is_none_or(|observed| observed >= object.metadata.generation.unwrap_or_default()),
            tells_generation: observed.is_some(),
            ready: ready.map(|ready| ready["status"] == "True"),
            words: ready.map(words).unwrap_or_default(),
            stalled: is_true("Stalled").map(words),
            is_reconciling: is_true("Reconciling").is_some() || kserve::is_loading(status),
        }
    }

    fn is_ready(&self) -> bool {
        self.ready == Some(true) && !self.is_reconciling
    }

    fn capacity(&self) -> Capacity {
        let is_ready = self.ready == Some(true);
        Capacity {
            desired: 1,
            available: i32::from(is_ready),
            has_minimum: is_ready,
            has_old_pods: !self.is_observed,
        }
    }

    fn rollout(&self, object: &AnyObject, kind: &TargetKind) -> RolloutState {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let look = format!(
            "kubectl get {}/{name} -n {namespace} -o yaml",
            kind.resource()
        );
        if self.is_observed {
            let stalled = self.stalled.as_ref().map(|words| Abort {
                words: words.clone(),
                remedy: format!("look: {look}"),
                is_unmeasured: false,
                settles_in: SignedDuration::ZERO,
            });
            if let Some(mut abort) = stalled.or_else(|| kserve::failed_load(&object.status)) {
                if !self.tells_generation {
                    abort.settles_in = UNOBSERVED;
                }
                return RolloutState::Aborted(abort);
            }
            if self.is_ready() {
                return RolloutState::Complete;
            }
        }
        RolloutState::InProgress(match self.ready {
            Some(_) => format!("the {kind} is not ready yet; look: {look}"),
            None => format!(
                "the {kind} has no condition Ready, by which a version is live; look: {look}"
            ),
        })
    }

    /// Why the object is not ready, in its own words.
    fn unready(&self, kind: &TargetKind) -> Option<String> {
        let is_ready = self.is_ready() && self.is_observed;
        (!is_ready && !self.words.is_empty()).then(|| format!("the {kind} says: {}", self.words))
    }
}

/// The kind is a value of the target; here it is only a name for stores and logs.
impl Resource for AnyObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Object".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "objects".into()
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
    use crate::api::AliasBinding;
    use crate::targets::{DesiredVersion, Injection, holds, patch};
    use crate::testing::{binding, version};

    fn bound(api_version: &str, kind: &str, fields: &Value) -> AliasBinding {
        let mut binding = binding();
        binding.spec.target_ref = serde_json::from_value(
            json!({"apiVersion": api_version, "kind": kind, "name": "server"}),
        )
        .expect("a reference");
        binding.spec.inject.fields = serde_json::from_value(fields.clone()).expect("fields");
        binding
    }

    fn predictor() -> AliasBinding {
        bound(
            "models.example/v1",
            "Predictor",
            &json!([
            {"path": "spec.servers[name=model].uri", "value": "$(ModelURI)"},
            {"path": "spec.model.tag", "value": "v$(ModelVersion)"}]),
        )
    }

    fn object(status: &Value) -> Value {
        json!({"metadata": {"name": "server", "namespace": "ml", "uid": "o", "resourceVersion": "1", "generation": 2},
            "spec": {"replicas": 1, "servers": [{"name": "model", "image": "i"}]}, "status": status})
    }

    fn target_of(binding: &AliasBinding, object: &Value) -> Target {
        let object: AnyObject = serde_json::from_value(object.clone()).expect("an object");
        let fields = crate::targets::fields_of(binding);
        object.with_owners().read(binding.target_kind(), &fields)
    }

    fn status(ready: &str, stalled: &str) -> Value {
        json!({"observedGeneration": 2, "conditions": [
            {"type": "Ready", "status": ready, "reason": "R", "message": "ready words"},
            {"type": "Stalled", "status": stalled, "reason": "S", "message": "stalled words"}]})
    }

    fn rollout(status: &Value) -> RolloutState {
        target_of(&predictor(), &object(status)).rollout
    }

    #[test]
    fn an_object_is_complete_while_it_is_ready_for_its_newest_generation() {
        assert_eq!(rollout(&status("True", "False")), RolloutState::Complete);
        assert!(matches!(
            rollout(&status("False", "False")),
            RolloutState::InProgress(_)
        ));
        let mut old = status("True", "False");
        old["observedGeneration"] = json!(1);
        assert!(matches!(rollout(&old), RolloutState::InProgress(_)));
        let mut reconciling = status("True", "False");
        reconciling["conditions"][1] = json!({"type": "Reconciling", "status": "True"});
        assert!(matches!(rollout(&reconciling), RolloutState::InProgress(_)));
    }

    #[test]
    fn an_object_without_conditions_has_not_shown_that_a_version_runs() {
        let RolloutState::InProgress(words) = rollout(&json!({})) else {
            panic!("not in progress");
        };
        assert!(words.contains("no condition Ready"), "{words}");
    }

    #[test]
    fn a_stalled_object_gave_up_and_an_old_status_counts_later() {
        let RolloutState::Aborted(abort) = rollout(&status("False", "True")) else {
            panic!("not aborted");
        };
        assert_eq!(
            (abort.words.as_str(), abort.settles_in),
            ("stalled words", SignedDuration::ZERO)
        );
        let mut untold = status("False", "True");
        untold["observedGeneration"] = Value::Null;
        let RolloutState::Aborted(abort) = rollout(&untold) else {
            panic!("not aborted");
        };
        assert_eq!(abort.settles_in, UNOBSERVED);
    }

    #[test]
    fn the_generation_of_an_inference_service_is_that_of_another_object() {
        let binding = bound(
            "serving.kserve.io/v1beta1",
            "InferenceService",
            &Value::Null,
        );
        let mut ready = status("True", "False");
        ready["observedGeneration"] = json!(1);
        assert!(target_of(&binding, &object(&ready)).is_complete());
        ready["modelStatus"] = json!({"transitionStatus": "InProgress"});
        let loads = target_of(&binding, &object(&ready));
        assert!(!loads.is_complete(), "it loads another version");
    }

    /// The patch that writes a version, and the object after it.
    fn written(binding: &AliasBinding, before: &Value, number: &str) -> (Value, Value) {
        let target = target_of(binding, before);
        let desired = DesiredVersion {
            version: version(number),
        };
        let injection = Injection::of(binding, Some(&target), &desired).expect("an injection");
        let patch = patch(binding, Some(&target), &injection).expect("a patch");
        let mut after = before.clone();
        for operation in patch.as_array().expect("operations") {
            let place = operation["path"].as_str().expect("a path");
            let (parent, name) = place.rsplit_once('/').expect("a parent");
            let name = name.replace("~1", "/");
            let parent = after.pointer_mut(parent).expect("the parent is there");
            if operation["op"] == "remove" {
                parent.as_object_mut().expect("a map").remove(&name);
            } else {
                parent[&name] = operation["value"].clone();
            }
        }
        let annotations = json!({"f:metadata": {"f:annotations": {"f:pointsman.dev/model-version": {}}}, "f:spec": {}});
        after["metadata"]["managedFields"] = json!([{"manager": "pointsman", "operation": "Update", "apiVersion": "v1",
            "time": "2026-11-23T08:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": annotations}]);
        let target = target_of(binding, &after);
        let same = Injection::of(binding, Some(&target), &desired).expect("an injection");
        assert!(holds(&target, &same), "a version that was written is there");
        assert!(target.runs(&version(number)));
        (patch, after)
    }

    #[test]
    fn a_version_sets_its_fields_and_going_back_restores_them() {
        let binding = predictor();
        let (_, first) = written(&binding, &object(&json!({})), "1");
        assert_eq!(
            first["spec"]["servers"][0],
            json!({"name": "model", "image": "i", "uri": "s3://m/1"})
        );
        assert_eq!(first["spec"]["model"]["tag"], "v1");
        let (patch, second) = written(&binding, &first, "2");
        assert_eq!(patch[0]["path"], "/metadata/resourceVersion");
        let (_, back) = written(&binding, &second, "1");
        assert_eq!(back["spec"], first["spec"]);
    }

    #[test]
    fn a_field_that_is_not_set_any_more_is_removed() {
        let (_, first) = written(&predictor(), &object(&json!({})), "1");
        let fewer = json!([{"path": "spec.servers[name=model].uri", "value": "$(ModelURI)"}]);
        let fewer = bound("models.example/v1", "Predictor", &fewer);
        let (_, after) = written(&fewer, &first, "1");
        assert_eq!(after["spec"]["model"], json!({}));
    }

    #[test]
    fn a_missing_element_is_told_and_nothing_is_made() {
        let mut lacking = object(&json!({}));
        lacking["spec"]["servers"] = json!([]);
        let binding = predictor();
        let target = target_of(&binding, &lacking);
        let desired = DesiredVersion {
            version: version("1"),
        };
        let problem = Injection::of(&binding, Some(&target), &desired).expect_err("a problem");
        assert!(
            problem
                .message
                .contains("no spec.servers[name=model] for it"),
            "{problem:?}"
        );
    }

    #[test]
    fn scaling_and_the_fields_of_a_version_are_no_change_of_the_spec() {
        let binding = predictor();
        let digest = |object: &Value| target_of(&binding, object).template.users_digest;
        let before = object(&json!({}));
        let (_, mut after) = written(&binding, &before, "1");
        after["spec"]["replicas"] = json!(9);
        after["spec"]["model"] = Value::Null;
        let mut bare = before.clone();
        bare["spec"]["model"] = Value::Null;
        assert_eq!(digest(&bare), digest(&after));
        after["spec"]["servers"][0]["image"] = json!("j");
        assert_ne!(digest(&before), digest(&after));
    }
}
