//! The requests that people wrote into annotations and that were acted on already.
//!
//! Absent: acting on them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Mutex;

use kube::{Resource, ResourceExt};

use crate::api::names;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;

/// Kind and name of an object.
type Requester = (Cow<'static, str>, ObjectKey);

/// The last request of each object that was acted on.
#[derive(Default)]
pub struct RequestLog {
    last: Mutex<HashMap<Requester, String>>,
}

impl RequestLog {
    /// Whether the object's annotation holds a request that was not recorded yet. Records it.
    pub fn take_new<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        let Some(request) = object.annotations().get(names::REQUESTED_AT_ANNOTATION) else {
            return false;
        };
        let requester = (K::kind(&()), ObjectKey::of(object));
        let last = lock(&self.last).insert(requester, request.clone());
        last.as_ref() != Some(request)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{ModelRegistry, RegisteredModel};

    fn object<K: serde::de::DeserializeOwned>(kind: &str, spec: &serde_json::Value, at: &str) -> K {
        let metadata = json!({"namespace": "ml", "name": "taxi", "annotations": {names::REQUESTED_AT_ANNOTATION: at}});
        let object = json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
        serde_json::from_value(object).expect("an object")
    }

    fn model(at: &str) -> RegisteredModel {
        let spec = json!({"registryRef": {"name": "mlflow"}});
        object("RegisteredModel", &spec, at)
    }

    #[test]
    fn a_request_is_new_once_and_for_each_object() {
        let log = RequestLog::default();
        assert!(log.take_new(&model("noon")));
        assert!(!log.take_new(&model("noon")));
        assert!(log.take_new(&model("evening")));
        let mut other = model("evening");
        other.metadata.name = Some("fraud".to_owned());
        assert!(log.take_new(&other));
    }

    #[test]
    fn an_object_without_the_annotation_requests_nothing() {
        let mut model = model("noon");
        model.metadata.annotations = None;
        assert!(!RequestLog::default().take_new(&model));
    }

    #[test]
    fn objects_of_different_kinds_and_one_name_are_told_apart() {
        let log = RequestLog::default();
        let spec = json!({"mlflow": {"uri": "http://mlflow:5000"}});
        let registry: ModelRegistry = object("ModelRegistry", &spec, "noon");
        assert!(log.take_new(&registry));
        assert!(log.take_new(&model("noon")));
    }
}
