//! Workloads as tenants may write them: annotations, lists of variables, managed fields and statuses of any content.
//!
//! Absent: what the API server refuses. More than it lets through is tried.

use k8s_openapi::api::apps::v1::Deployment;
use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::api::alias_binding::OtherKind;
use crate::api::alias_binding::TargetKind;
use crate::api::inject::{InjectedField, InjectedValue};
use crate::api::{AliasBinding, names};
use crate::rollout::{Freeze, FreezePlace};
use crate::testing::fuzz::Fuzz;
use crate::testing::{With, binding, version};

const WORDS: &[&str] = &[
    "pointsman.dev/model-version",
    "pointsman.dev/model-version-id",
    "pointsman.dev/variables",
    "pointsman.dev/containers",
    "pointsman.dev/binding",
    "kubernetes.io/change-cause",
    "kubectl.kubernetes.io/default-container",
    "STORAGE_URI=ModelURI,V=ModelVersion",
    "spec.predictor.model.args=Text",
    "spec.a[name=x].b=ModelURI",
    "spec[=].",
    "server,init",
    "f:spec",
    "f:template",
    "k:{\\\"name\\\":\\\"server\\\"}",
    "fieldsV1",
    "managedFields",
    "MODEL_URI",
    "valueFrom",
    "replicas",
    "conditions",
    "observedGeneration",
];

/// Puts a version into a target, as the operator does.
fn write(binding: &AliasBinding, target: &Target) {
    let desired = DesiredVersion {
        version: version("5"),
    };
    let known = [version("4"), version("5")];
    _ = target.held_version(known.iter());
    _ = (target.runs(&known[0]), target.holder(), target.version());
    for value in InjectedValue::ALL {
        _ = (target.injected(value), target.written(value));
    }
    _ = examined_containers(binding, target);
    let Ok(injection) = Injection::of(binding, Some(target), &desired) else {
        return;
    };
    _ = (holds(target, &injection), difference(target, &injection));
    _ = conflicts(target, &injection);
    _ = (
        refers_too_early(target, &injection),
        may_hide(target, &injection),
    );
    let patch = patch(binding, Some(target), &injection).expect("a patch");
    if patch.is_object() {
        assert!(patch["spec"].get("replicas").is_none(), "{patch}");
        let decided_on = &patch["metadata"]["resourceVersion"];
        assert_eq!(
            decided_on.as_str(),
            target.metadata.resource_version.as_deref()
        );
    }
}

fn fields() -> Vec<InjectedField> {
    vec![InjectedField {
        path: "spec.predictor.model.storageUri".to_owned(),
        value: "$(ModelURI)".to_owned(),
    }]
}

/// A freeze with the reason in an annotation.
fn tell_freeze(object: &Value) {
    let Some(why) = object["metadata"]["annotations"][names::FREEZE_ANNOTATION].as_str() else {
        return;
    };
    let freeze = Freeze {
        place: FreezePlace::Namespace("ml".to_owned()),
        why: why.to_owned(),
    };
    let note = freeze.note();
    let told = format!("{}; {}", note.cause, note.remedy);
    assert!(told.chars().count() <= 200, "{told}");
}

#[test]
fn no_workload_breaks_the_reading_of_it() {
    let kind = OtherKind {
        api_version: "serving.kserve.io/v1beta1".to_owned(),
        kind: "InferenceService".to_owned(),
    };
    let plain = binding();
    let other = binding().with(|binding| {
        let target = binding.spec.target_ref.as_mut().expect("a target");
        target.api_version.clone_from(&kind.api_version);
        target.kind.clone_from(&kind.kind);
    });
    let fuzz = Fuzz {
        name: "workloads",
        words: WORDS,
        generate: None,
        accepted_of: 20,
    };
    fuzz.run(|input| {
        let Ok(object) = serde_json::from_slice::<Value>(input) else {
            return false;
        };
        tell_freeze(&object);
        let deployment = Workload::<Deployment>::deserialize(&object);
        let is_read = deployment.is_ok();
        if let Ok(workload) = deployment {
            write(&plain, &Target::from(workload.with_owners()));
        }
        if let Ok(workload) = Workload::<ArgoRollout>::deserialize(&object) {
            write(&plain, &Target::from(workload.with_owners()));
        }
        if let Ok(any) = AnyObject::deserialize(object) {
            let target = any
                .with_owners()
                .read(TargetKind::Other(kind.clone()), &fields());
            write(&other, &target);
        }
        is_read
    });
}
