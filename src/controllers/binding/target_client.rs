//! Reads and writes workloads of every kind.
//!
//! Absent: decisions about them.

use k8s_openapi::api::core::v1::Pod as WholePod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::Value;

use crate::api::alias_binding::TargetKind;
use crate::api::names;
use crate::controllers::context::Context;
use crate::controllers::workloads::{Stored, with_kind};
use crate::kubernetes::failure::is_missing_kind;
use crate::kubernetes::key::ObjectKey;
use crate::targets::{Adapter, Pod, Target, Workload};

/// The workload of a binding: from the store, or from the API server if it has no label of ours yet.
pub async fn read(
    ctx: &Context,
    kind: TargetKind,
    key: &ObjectKey,
) -> Result<Option<Target>, kube::Error> {
    with_kind!(kind, K => read_as::<K>(ctx, key).await)
}

async fn read_as<K: Stored>(ctx: &Context, key: &ObjectKey) -> Result<Option<Target>, kube::Error> {
    if let Some(stored) = K::store(&ctx.stores.workloads).get(key) {
        return Ok(Some(stored.into()));
    }
    match api::<K>(ctx, key.namespace()).get(key.name()).await {
        Ok(found) => Ok(Some(found.with_owners().into())),
        Err(error) if is_missing_kind(&error) => Err(error),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a patch, and returns the workload as it is then. The store has it from then on, before the watch shows it: the next
/// reconcile must not take the workload of before for a person's change.
///
/// A patch that names a resource version is forced, because conflicts were ruled out on that very version.
pub async fn apply(
    ctx: &Context,
    kind: TargetKind,
    key: &ObjectKey,
    patch: Value,
) -> Result<Target, kube::Error> {
    with_kind!(kind, K => apply_as::<K>(ctx, key, patch).await)
}

async fn apply_as<K: Stored>(
    ctx: &Context,
    key: &ObjectKey,
    patch: Value,
) -> Result<Target, kube::Error> {
    let mut params = PatchParams::apply(names::FIELD_MANAGER);
    // Without one, the workload did not exist: another one that was made since is not overwritten.
    params.force = patch["metadata"]["resourceVersion"].is_string();
    let patch = if patch.is_array() {
        Patch::Json(serde_json::from_value(patch).map_err(kube::Error::SerdeError)?)
    } else {
        Patch::Apply(patch)
    };
    let api = api::<K>(ctx, key.namespace());
    let mut written = api.patch(key.name(), &params, &patch).await?;
    K::store(&ctx.stores.workloads).put_own(&mut written);
    Ok(written.into())
}

fn api<K: Adapter>(ctx: &Context, namespace: &str) -> Api<Workload<K>> {
    Api::namespaced(ctx.client.clone(), namespace)
}

/// Deletes a broken pod that keeps a StatefulSet from replacing it. A pod that is gone, or another one of the same name, is
/// left alone.
pub async fn delete_pod(ctx: &Context, pod: &Pod) -> Result<(), kube::Error> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let pods: Api<WholePod> = Api::namespaced(ctx.client.clone(), &namespace);
    match pods.delete(&name, &params).await {
        Ok(_) => {
            tracing::info!(
                namespace,
                pod = name,
                "deleted a broken pod that blocked a rollout"
            );
            Ok(())
        }
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}
