//! Adds a finalizer to an object, or removes it.
//!
//! Absent: the reason.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::store::{Cached, Store};

/// Adds a finalizer to an object, or removes it; other finalizers stay. Succeeds if the object is gone.
///
/// # Errors
/// The API server's error; a conflict if the finalizers were changed since the object was read.
pub async fn set_finalizer<K>(
    client: &Client,
    store: &Store<K>,
    object: &K,
    finalizer: &str,
    present: bool,
) -> Result<(), ReconcileError>
where
    K: Clone + Debug + Resource<Scope = NamespaceResourceScope> + Cached,
{
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|name| name != finalizer);
    if present {
        finalizers.push(finalizer.to_owned());
    }
    // A status that was written since is no conflict, so the newest version is named if it has the same finalizers.
    let version = match store.get(&ObjectKey::of(object)) {
        Some(newest) if newest.finalizers() == object.finalizers() => newest.resource_version(),
        _ => object.resource_version(),
    };
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}});
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    match api
        .patch(
            &object.name_any(),
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
    {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        written => written
            .map(drop)
            .map_err(ReconcileError::when("writing a finalizer")),
    }
}
