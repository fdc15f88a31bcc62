//! Writing a status: only where it changed, and only onto the object that it was made from.
//!
//! Absent: retries. A conflict means a fresh look.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;

/// Replaces an object's status, with the resource version that it was read at, so that a stale writer cannot win. Answers
/// the object as it is then; `None` where it was deleted meanwhile.
pub async fn replace<K>(client: &Client, object: &K) -> Result<Option<K>, Failure>
where
    K: Clone + Debug + DeserializeOwned + Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let written = api.replace_status(&object.name_any(), &PostParams::default(), object).await;
    match written {
        Ok(written) => Ok(Some(written)),
        // Deleted meanwhile: there is nothing left to write to.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(Failure::when("writing a status")(error)),
    }
}
