//! KServe's `InferenceService` and `LLMInferenceService`: the usual fields, and the state of the model.
//!
//! Absent: their pods, which belong to workloads that KServe makes; whether the controller has seen a change: the
//! `observedGeneration` of an `InferenceService` is that of its predictor's workload.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::target::Abort;
use crate::api::alias_binding::TargetKind;
use crate::api::inject::InjectedField;

/// The API group, with its slash.
const GROUP: &str = "serving.kserve.io/";
/// The beginning of the path of a canary's fields.
const CANARY: &str = "spec.canary[predictor.name=";
/// The failures that are not the model's: of its runtime, or of the rest of the spec.
const NOT_THE_MODEL: [&str; 5] = [
    "RuntimeUnhealthy",
    "RuntimeDisabled",
    "NoSupportingRuntime",
    "RuntimeNotRecognized",
    "InvalidPredictorSpec",
];

/// The field of the model's files; empty for other kinds.
pub(super) fn usual_fields(kind: &TargetKind) -> Vec<InjectedField> {
    if !kind.api_version().starts_with(GROUP) {
        return Vec::new();
    }
    let path = match kind.as_str() {
        "InferenceService" => "spec.predictor.model.storageUri",
        "LLMInferenceService" => "spec.model.uri",
        _ => return Vec::new(),
    };
    vec![InjectedField {
        path: path.to_owned(),
        value: "$(ModelURI)".to_owned(),
    }]
}

/// Whether `status.observedGeneration` of a kind is that of the object.
pub(super) fn tells_its_generation(kind: &TargetKind) -> bool {
    !kind.api_version().starts_with(GROUP)
}

/// The status of the canary that all fields belong to, in the form of a whole status; `None` if there is none.
pub(super) fn status_of_canary(
    kind: &TargetKind,
    status: &Value,
    fields: &[InjectedField],
) -> Option<Value> {
    if !kind.api_version().starts_with(GROUP) {
        return None;
    }
    let name_of = |field: &InjectedField| {
        let name = field.path.strip_prefix(CANARY)?.split_once(']')?.0;
        Some(name.to_owned())
    };
    let name = name_of(fields.first()?)?;
    if fields
        .iter()
        .any(|field| name_of(field).as_ref() != Some(&name))
    {
        return None;
    }
    let canaries = status["canaryStatuses"].as_array();
    let mut canaries = canaries.into_iter().flatten();
    let canary = canaries.find(|each| each["name"] == name.as_str());
    let is_ready = canary.is_some_and(|canary| canary["ready"] == true);
    let ready = if is_ready { "True" } else { "False" };
    let message = format!("canary {name} has no available replica");
    Some(json!({
        "conditions": [{"type": "Ready", "status": ready, "message": message}],
        "modelStatus": canary.map(|canary| &canary["modelStatus"]),
    }))
}

/// Whether a model is being loaded; pods of the version before may keep the service ready meanwhile.
pub(super) fn is_loading(status: &Value) -> bool {
    status["modelStatus"]["transitionStatus"] == "InProgress"
}

/// The model failed to load, in the words of the runtime.
pub(super) fn failed_load(status: &Value) -> Option<Abort> {
    let failure = failure(status, "BlockedByFailedLoad")?;
    (!is_of_the_runtime(failure)).then(|| Abort {
        words: words(failure),
        remedy: "see status.modelStatus of the InferenceService".to_owned(),
        is_unmeasured: false,
        settles_in: SignedDuration::ZERO,
    })
}

/// The runtime or the rest of the spec does not let any model run.
pub(super) fn refusal(status: &Value) -> Option<String> {
    let blocked = failure(status, "BlockedByFailedLoad").filter(|each| is_of_the_runtime(each));
    let refusal = failure(status, "InvalidSpec").or(blocked)?;
    Some(words(refusal))
}

/// The last failure, if the model's transition has this state.
fn failure<'a>(status: &'a Value, transition: &str) -> Option<&'a Value> {
    let model = &status["modelStatus"];
    (model["transitionStatus"] == transition).then_some(&model["lastFailureInfo"])
}

fn is_of_the_runtime(failure: &Value) -> bool {
    NOT_THE_MODEL
        .iter()
        .any(|reason| failure["reason"] == *reason)
}

fn words(failure: &Value) -> String {
    let reason = failure["reason"]
        .as_str()
        .unwrap_or("the model failed to load");
    match failure["message"].as_str().map(str::trim) {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(transition: &str, reason: &str) -> Value {
        json!({"modelStatus": {"transitionStatus": transition,
            "lastFailureInfo": {"reason": reason, "message": "no such file: model.pkl\n"}}})
    }

    #[test]
    fn a_binding_of_a_canary_reads_the_status_of_that_canary() {
        let kind = TargetKind::of("serving.kserve.io/v1beta1", "InferenceService");
        let field = |path: &str| InjectedField {
            path: path.to_owned(),
            value: "$(ModelURI)".to_owned(),
        };
        let uri = field("spec.canary[predictor.name=next].predictor.model.storageUri");
        let status = json!({"canaryStatuses": [{"name": "other", "ready": true}, {"name": "next", "ready": false}]});
        let of = |fields: &[InjectedField]| status_of_canary(&kind, &status, fields);
        let read = of(std::slice::from_ref(&uri)).expect("a status");
        assert_eq!(read["conditions"][0]["status"], "False");
        let stable = field("spec.predictor.model.storageUri");
        assert_eq!(
            of(&[uri, stable.clone()]),
            None,
            "it drives more than a canary"
        );
        assert_eq!(of(&[stable]), None);
    }

    #[test]
    fn a_model_that_fails_to_load_is_the_versions_fault_and_a_runtime_is_not() {
        let failed = failed_load(&status("BlockedByFailedLoad", "ModelLoadFailed"));
        assert_eq!(
            failed.expect("a failure").words,
            "ModelLoadFailed: no such file: model.pkl"
        );
        for reason in NOT_THE_MODEL {
            let status = status("BlockedByFailedLoad", reason);
            assert!(
                failed_load(&status).is_none() && refusal(&status).is_some(),
                "{reason}"
            );
        }
        let invalid = status("InvalidSpec", "NoSupportingRuntime");
        assert!(refusal(&invalid).is_some() && failed_load(&invalid).is_none());
        let recovered = status("UpToDate", "ModelLoadFailed");
        assert!(refusal(&recovered).is_none() && failed_load(&recovered).is_none());
    }
}
