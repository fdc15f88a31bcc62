//! Puts our finalizers on objects, and takes them off.
//!
//! Absent: when; see `model` and `webhook`.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::store::{Cached, Store};

/// Puts a finalizer on an object, or takes it off, beside those of others. An object that is gone needs none.
///
/// # Errors
/// Where the API server does not do it; a conflict where others changed the finalizers meanwhile.
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
    let others = object
        .finalizers()
        .iter()
        .filter(|name| *name != finalizer)
        .cloned();
    let finalizers: Vec<String> = others
        .chain(present.then(|| finalizer.to_owned()))
        .collect();
    // A status that was written meanwhile is no reason to begin anew; other finalizers are, and come with a newer version.
    let newest = store
        .get(&ObjectKey::of(object))
        .filter(|newest| newest.finalizers() == object.finalizers());
    let version = newest.map_or_else(
        || object.resource_version(),
        |newest| newest.resource_version(),
    );
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
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        written => written
            .map(drop)
            .map_err(ReconcileError::when("writing a finalizer")),
    }
}
