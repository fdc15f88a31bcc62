//! Writing a status: only where it changed, and only onto the object that it was made from.
//!
//! Absent: retries. A conflict means a fresh look.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};

use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::store::{Cached, Store};

/// Replaces an object's status, with the resource version that it was read at, so that a stale writer cannot win, and puts the
/// object as it is then on its store. False where it was deleted meanwhile.
///
/// # Errors
/// The API server's answer, but for "not found".
pub async fn write<K>(client: &Client, store: &Store<K>, object: &K) -> Result<bool, ReconcileError>
where
    K: Clone + Debug + Resource<Scope = NamespaceResourceScope> + Cached,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let written = api
        .replace_status(&object.name_any(), &PostParams::default(), object)
        .await;
    match written {
        Ok(mut written) => {
            store.put_own(&mut written);
            tracing::debug!(name = written.name_any(), "wrote a status");
            Ok(true)
        }
        // Deleted meanwhile: there is nothing left to write to.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(ReconcileError::when("writing a status")(error)),
    }
}
