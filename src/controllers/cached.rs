//! The cached kinds: the index keys of each, and its fields that are never read.
//!
//! Absent: fields that the types themselves leave out; see `targets`.

use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use crate::api::{AliasBinding, ModelRegistry, RegisteredModel, names};
use crate::kubernetes::key::{IndexKey, ObjectKey};
use crate::kubernetes::store::Cached;
use crate::rollout::without_other_fields;
use crate::targets::{Adapter, AnyObject, Job, Pod, ReplicaSet, Workload};

/// A copy of the whole object, which `kubectl apply` writes.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The index key of the registered models that reference a registry.
pub fn of_registry(registry: &ObjectKey) -> IndexKey {
    IndexKey::new("registry", registry.namespace(), registry.name())
}

/// The index key of the registered models that reference a registry and have this name in it.
pub fn of_registered_name(registry: &ObjectKey, model_name: &str) -> IndexKey {
    IndexKey::new(model_name, registry.namespace(), registry.name())
}

/// The index key of the bindings that follow a registered model.
pub fn of_model(namespace: &str, model: &str) -> IndexKey {
    IndexKey::new("model", namespace, model)
}

/// The index key of the bindings that drive, or want to drive, a workload.
pub fn of_workload(namespace: &str, workload: &str) -> IndexKey {
    IndexKey::new("workload", namespace, workload)
}

/// The index key of the objects whose label names a binding.
pub fn of_binding(namespace: &str, binding: &str) -> IndexKey {
    IndexKey::new("binding", namespace, binding)
}

/// The registry that a model references.
pub fn registry_of(model: &RegisteredModel) -> ObjectKey {
    ObjectKey::new(&model.registry_namespace(), &model.spec.registry_ref.name)
}

impl Cached for ModelRegistry {
    fn index_keys(&self) -> Vec<IndexKey> {
        Vec::new()
    }

    fn prune(&mut self) {
        prune_metadata(self.meta_mut());
    }
}

impl Cached for RegisteredModel {
    fn index_keys(&self) -> Vec<IndexKey> {
        let registry = registry_of(self);
        vec![
            of_registry(&registry),
            of_registered_name(&registry, self.model_name()),
        ]
    }

    fn prune(&mut self) {
        prune_metadata(self.meta_mut());
    }
}

impl Cached for AliasBinding {
    fn index_keys(&self) -> Vec<IndexKey> {
        let namespace = self.namespace().unwrap_or_default();
        vec![
            of_model(&namespace, &self.spec.model_ref.name),
            of_workload(&namespace, self.workload_name()),
        ]
    }

    fn prune(&mut self) {
        let entries = self.metadata.managed_fields.take();
        prune_metadata(self.meta_mut());
        self.metadata.managed_fields = entries.and_then(without_other_fields);
    }
}

impl<K: Adapter> Cached for Workload<K> {
    fn index_keys(&self) -> Vec<IndexKey> {
        Vec::new()
    }

    fn prune(&mut self) {
        // Only once: a second digest, of no managed fields, would say that nobody owns a field.
        if self.metadata.managed_fields.is_some() {
            *self = self.clone().with_owners();
        }
        prune_metadata(self.meta_mut());
    }
}

impl Cached for AnyObject {
    fn index_keys(&self) -> Vec<IndexKey> {
        Vec::new()
    }

    fn prune(&mut self) {
        if self.metadata.managed_fields.is_some() {
            *self = self.clone().with_owners();
        }
        prune_metadata(self.meta_mut());
    }
}

impl Cached for Pod {
    fn index_keys(&self) -> Vec<IndexKey> {
        labelled(self).into_iter().collect()
    }

    fn prune(&mut self) {
        let read = [names::VERSION_ANNOTATION, names::VERSION_ID_ANNOTATION];
        keep_annotations(self.meta_mut(), &read);
    }
}

impl Cached for ReplicaSet {
    fn index_keys(&self) -> Vec<IndexKey> {
        labelled(self).into_iter().collect()
    }

    fn prune(&mut self) {
        keep_annotations(self.meta_mut(), &[names::REVISION_ANNOTATION]);
    }
}

impl Cached for Job {
    fn index_keys(&self) -> Vec<IndexKey> {
        labelled(self).into_iter().collect()
    }

    fn prune(&mut self) {
        let read = [names::VERSION_ANNOTATION, names::VERSION_ID_ANNOTATION];
        keep_annotations(self.meta_mut(), &read);
    }
}

/// The binding that the label of an object names.
pub fn binding_of<K: Resource>(object: &K) -> Option<ObjectKey> {
    let binding = object.labels().get(names::BINDING_LABEL)?;
    Some(ObjectKey::new(&object.namespace()?, binding))
}

fn labelled<K: Resource>(object: &K) -> Option<IndexKey> {
    let binding = binding_of(object)?;
    Some(of_binding(binding.namespace(), binding.name()))
}

fn prune_metadata(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// Prunes an object that is never written: it is found by its label and recognized by its owner.
fn keep_annotations(metadata: &mut ObjectMeta, annotations_read: &[&str]) {
    metadata.managed_fields = None;
    metadata.resource_version = None;
    metadata.generation = None;
    metadata.finalizers = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| annotations_read.contains(&key.as_str()));
    }
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|key, _| names::READ_LABELS.contains(&key.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::store::{Change, Store};
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::{Value, json};

    fn binding(version: &str, model: &str) -> AliasBinding {
        let annotations = json!({LAST_APPLIED: "{}", "pointsman.dev/requested-at": "now"});
        serde_json::from_value(json!({
            "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
            "metadata": {"name": "taxi", "namespace": "ml", "resourceVersion": version, "uid": "u", "generation": 1,
                "creationTimestamp": "2026-11-23T08:00:00Z", "annotations": annotations,
                "managedFields": [{"manager": "kubectl"}]},
            "spec": {"modelRef": {"name": model}, "alias": "champion",
                "template": {"metadata": {"labels": {"app": "taxi"}}, "spec": {"selector": {}, "replicas": 2}},
                "retrain": {"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}}},
            "status": {"running": {"version": "5", "artifactURI": "s3://m/5", "since": "2026-11-23T08:00:00Z"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "Live", "message": "é",
                    "lastTransitionTime": "2026-11-23T08:00:00Z"}]}}))
        .expect("a binding")
    }

    fn names_of(store: &Store<AliasBinding>, model: &str) -> Vec<String> {
        store
            .find(of_model("ml", model), |_| true)
            .iter()
            .map(ResourceExt::name_any)
            .collect()
    }

    #[test]
    fn a_stored_object_lacks_only_the_fields_that_are_never_read() {
        let store = Store::default();
        let mut kept = binding("7", "m");
        assert_eq!(store.put(0, &mut kept), Change::Added);
        assert_eq!(
            store.get(&ObjectKey::new("ml", "taxi")).as_ref(),
            Some(&kept)
        );
        let annotations = kept.annotations();
        assert_eq!(
            annotations.keys().collect::<Vec<_>>(),
            ["pointsman.dev/requested-at"]
        );
        assert!(kept.managed_fields().is_empty());
    }

    #[test]
    fn an_object_is_found_by_its_newest_index_keys_only() {
        let store = Store::default();
        store.put(0, &mut binding("7", "m"));
        assert_eq!(store.put(0, &mut binding("8", "m")), Change::Status);
        assert_eq!(store.put(0, &mut binding("9", "other")), Change::Added);
        assert_eq!(
            (names_of(&store, "m").len(), names_of(&store, "other")),
            (0, vec!["taxi".to_owned()])
        );
        store.remove(&ObjectKey::new("ml", "taxi"));
        assert!(names_of(&store, "other").is_empty());
    }

    #[test]
    fn changes_of_status_metadata_and_spec_are_distinguished() {
        let store = Store::default();
        let changed = |version: &str, change: fn(&mut AliasBinding)| {
            let mut binding = binding(version, "m");
            change(&mut binding);
            store.put(0, &mut binding)
        };
        assert_eq!(changed("7", |_| ()), Change::Added);
        assert_eq!(
            changed("8", |binding| binding.status = None),
            Change::Status
        );
        assert_eq!(
            changed("9", |binding| binding.metadata.annotations = None),
            Change::Metadata
        );
        assert_eq!(
            changed("10", |binding| binding.metadata.generation = Some(2)),
            Change::Spec
        );
    }

    #[test]
    fn a_replica_set_that_is_scaled_has_not_changed() {
        let store = Store::default();
        let set = |version: &str, revision: &str, replicas: u32| -> ReplicaSet {
            serde_json::from_value(
                json!({"metadata": {"name": "taxi-1", "namespace": "ml", "resourceVersion": version,
                "generation": replicas, "labels": {"pointsman.dev/binding": "taxi"},
                "annotations": {"deployment.kubernetes.io/revision": revision, "another": version}},
                "status": {"replicas": replicas}}),
            )
            .expect("a ReplicaSet")
        };
        assert_eq!(store.put(0, &mut set("7", "1", 0)), Change::Added);
        assert_eq!(store.put(0, &mut set("8", "1", 3)), Change::None);
        assert_eq!(store.put(0, &mut set("9", "2", 3)), Change::Metadata);
    }

    #[test]
    fn an_own_write_stays_until_the_watch_shows_something_newer() {
        let store = Store::default();
        let shown = |store: &Store<AliasBinding>| {
            store
                .get(&ObjectKey::new("ml", "taxi"))
                .and_then(|each| each.resource_version())
        };
        assert_eq!(
            store.put_own(&mut binding("8", "m")),
            Change::None,
            "a deleted object stays deleted"
        );
        store.put(0, &mut binding("7", "m"));
        store.put_own(&mut binding("8", "m"));
        store.put_own(&mut binding("9", "m"));
        assert_eq!(store.put(0, &mut binding("8", "m")), Change::None);
        assert_eq!(shown(&store).as_deref(), Some("9"));
        assert_eq!(store.put(0, &mut binding("9", "m")), Change::None);
        assert_eq!(store.put(0, &mut binding("10", "m")), Change::Status);
        assert_eq!(
            store.put_own(&mut binding("9", "m")),
            Change::None,
            "the response came after a later write of somebody else"
        );
        assert_eq!(shown(&store).as_deref(), Some("10"));
    }

    #[test]
    fn a_new_list_wins_over_an_own_write_of_a_later_version() {
        let store = Store::default();
        store.put(0, &mut binding("7", "m"));
        store.put_own(&mut binding("9", "m"));
        assert_eq!(store.put_listed(0, &mut binding("8", "n")), Change::Added);
        assert_eq!(names_of(&store, "n"), ["taxi"]);
        assert_eq!(store.put(0, &mut binding("9", "m")), Change::Added);
    }

    #[test]
    fn an_object_that_a_new_list_lacks_is_removed_and_returned() {
        let store = Store::default();
        store.put(0, &mut binding("7", "m"));
        assert!(
            store
                .retain(1, &std::collections::HashSet::default())
                .is_empty(),
            "another watch showed it"
        );
        let gone = store.retain(0, &std::collections::HashSet::default());
        assert_eq!(
            gone.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
            ["taxi"]
        );
        assert_eq!(store.count(), 0);
    }

    #[test]
    fn a_deployment_keeps_its_owners_and_the_digest_of_its_template() {
        let json: Value = json!({"metadata": {"name": "taxi", "namespace": "ml", "resourceVersion": "3",
            "managedFields": [{"manager": "kubectl", "operation": "Update", "time": "2026-11-23T08:00:00Z",
                "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:template": {"f:spec": {
                    "f:containers": {"k:{\"name\":\"server\"}": {"f:env": {"k:{\"name\":\"MODEL_URI\"}": {}}}}}}}}}]},
            "spec": {"replicas": 2, "template": {"metadata": {"annotations": {"a": "b"}}, "spec": {"containers": [
                {"name": "server", "image": "i", "env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}]}}},
            "status": {"observedGeneration": 4}});
        let mut read: Workload<Deployment> = serde_json::from_value(json).expect("a workload");
        let store = Store::default();
        store.put(0, &mut read);
        let kept = store
            .get(&ObjectKey::new("ml", "taxi"))
            .expect("it was put there");
        assert_ne!(kept.spec.template.users_digest, String::new());
        assert_eq!(format!("{kept:?}"), format!("{read:?}"));
    }
}
