//! An object of our own kinds as a watch shows it: who wrote which of its fields is passed over while it is read, for it is the
//! better half of the object, and nothing reads it.
//!
//! Absent: the cluster's kinds, which have prune types of their own; see `workload`.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::ObjectMeta;
use kube::core::object::{HasSpec, HasStatus};
use serde::{Deserialize, Deserializer};

use crate::api::{AliasBinding, ModelRegistry, RegisteredModel};
use crate::targets::without_managed_fields;

/// A kind of our own, made of its parts.
pub trait OwnKind:
    HasSpec + HasStatus + Resource<DynamicType = (), Scope = NamespaceResourceScope>
{
    /// The object.
    fn of(metadata: ObjectMeta, spec: Self::Spec, status: Option<Self::Status>) -> Self;
}

impl OwnKind for ModelRegistry {
    fn of(metadata: ObjectMeta, spec: Self::Spec, status: Option<Self::Status>) -> Self {
        Self {
            metadata,
            spec,
            status,
        }
    }
}

impl OwnKind for RegisteredModel {
    fn of(metadata: ObjectMeta, spec: Self::Spec, status: Option<Self::Status>) -> Self {
        Self {
            metadata,
            spec,
            status,
        }
    }
}

impl OwnKind for AliasBinding {
    fn of(metadata: ObjectMeta, spec: Self::Spec, status: Option<Self::Status>) -> Self {
        Self {
            metadata,
            spec,
            status,
        }
    }
}

/// An object without its managed fields.
#[derive(Clone, Debug)]
pub struct Pruned<K>(pub K);

#[derive(Deserialize)]
struct Parts<Spec, Status> {
    #[serde(deserialize_with = "without_managed_fields")]
    metadata: ObjectMeta,
    spec: Spec,
    #[serde(default = "none")]
    status: Option<Status>,
}

fn none<T>() -> Option<T> {
    None
}

impl<'de, K: OwnKind> Deserialize<'de> for Pruned<K>
where
    K::Spec: Deserialize<'de>,
    K::Status: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts {
            metadata,
            spec,
            status,
        } = Parts::<K::Spec, K::Status>::deserialize(deserializer)?;
        Ok(Self(K::of(metadata, spec, status)))
    }
}

impl<K: OwnKind> Resource for Pruned<K> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_watched_binding_is_the_binding_without_its_managed_fields() {
        let mut shown = json!({
            "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
            "metadata": {"name": "taxi", "namespace": "ml", "uid": "u", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-11-23T08:00:00Z", "deletionTimestamp": "2026-11-24T08:00:00Z",
                "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["e"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "f", "uid": "g"}]},
            "spec": {"modelRef": {"name": "taxi"}, "alias": "champion", "targetRef": {"name": "server"}},
            "status": {"running": {"version": "5", "artifactURI": "s3://m/5", "since": "2026-11-23T08:00:00Z"}}});
        let whole: AliasBinding = serde_json::from_value(shown.clone()).unwrap();
        shown["metadata"]["managedFields"] =
            json!([{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]);
        let Pruned(watched) =
            serde_json::from_value::<Pruned<AliasBinding>>(shown.clone()).unwrap();
        assert_eq!(watched, whole);
        shown.as_object_mut().unwrap().remove("status");
        assert_eq!(
            serde_json::from_value::<Pruned<AliasBinding>>(shown)
                .unwrap()
                .0
                .status,
            None
        );
    }
}
