//! Reads and writes workloads of every kind.
//!
//! Absent: decisions about them.

use k8s_openapi::api::core::v1::Pod as WholePod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde::de::Error as _;
use serde_json::Value;

use crate::api::alias_binding::OtherKind;
use crate::api::{AliasBinding, names};
use crate::controllers::context::Context;
use crate::controllers::workloads::{Stored, with_kind};
use crate::kubernetes::failure::is_missing_kind;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::watch::Shown;
use crate::targets::{Adapter, AnyObject, Pod, Target, Workload, fields_of};

/// The workload of a binding: from the store, or from the API server if it has no label of ours yet.
pub async fn read(
    ctx: &Context,
    binding: &AliasBinding,
    key: &ObjectKey,
) -> Result<Option<Target>, kube::Error> {
    let kind = binding.target_kind();
    with_kind!(&kind,
        K => read_as::<K>(ctx, key).await,
        other => read_other(ctx, binding, other, key).await)
}

async fn read_as<K: Stored>(ctx: &Context, key: &ObjectKey) -> Result<Option<Target>, kube::Error> {
    if let Some(stored) = K::store(&ctx.stores.workloads).get(key) {
        return Ok(Some(stored.into()));
    }
    let found = present(api::<K>(ctx, key.namespace()).get(key.name()).await)?;
    Ok(found.map(|found| found.with_owners().into()))
}

/// An object that was found; `None` if it does not exist, and an error if its kind does not.
fn present<K>(found: Result<K, kube::Error>) -> Result<Option<K>, kube::Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_missing_kind(&error) => Err(error),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_other(
    ctx: &Context,
    binding: &AliasBinding,
    other: &OtherKind,
    key: &ObjectKey,
) -> Result<Option<Target>, kube::Error> {
    let target = |object: AnyObject| object.read(binding.target_kind(), &fields_of(binding));
    if let Some(stored) = ctx.stores.workloads.other(other).get(key) {
        return Ok(Some(target(stored)));
    }
    let Some(api) = other_api(ctx, other, key.namespace()) else {
        return Ok(None);
    };
    let found = present(api.get(key.name()).await)?;
    let found = found.and_then(|found| found.0.ok());
    Ok(found.map(|found| target(found.with_owners())))
}

/// Writes a patch, and returns the workload as it is then. The store has it from then on, before the watch shows it: the next
/// reconcile must not take the workload of before for a person's change.
///
/// A patch that names a resource version is forced, because conflicts were ruled out on that very version.
pub async fn apply(
    ctx: &Context,
    binding: &AliasBinding,
    key: &ObjectKey,
    patch: Value,
) -> Result<Target, kube::Error> {
    let kind = binding.target_kind();
    with_kind!(&kind,
        K => apply_as::<K>(ctx, key, patch).await,
        other => apply_other(ctx, binding, other, key, patch).await)
}

async fn apply_as<K: Stored>(
    ctx: &Context,
    key: &ObjectKey,
    patch: Value,
) -> Result<Target, kube::Error> {
    let (params, patch) = request(patch)?;
    let api = api::<K>(ctx, key.namespace());
    let mut written = api.patch(key.name(), &params, &patch).await?;
    K::store(&ctx.stores.workloads).put_own(&mut written);
    Ok(written.into())
}

/// A server-side apply, or the operations of a JSON patch.
fn request(patch: Value) -> Result<(PatchParams, Patch<Value>), kube::Error> {
    let mut params = PatchParams::apply(names::FIELD_MANAGER);
    if patch.is_array() {
        let operations = serde_json::from_value(patch).map_err(kube::Error::SerdeError)?;
        return Ok((params, Patch::Json(operations)));
    }
    // Without one, the workload did not exist: another one that was made since is not overwritten.
    params.force = patch["metadata"]["resourceVersion"].is_string();
    Ok((params, Patch::Apply(patch)))
}

async fn apply_other(
    ctx: &Context,
    binding: &AliasBinding,
    other: &OtherKind,
    key: &ObjectKey,
    patch: Value,
) -> Result<Target, kube::Error> {
    let (params, patch) = request(patch)?;
    let unreadable = || kube::Error::SerdeError(serde_json::Error::custom("unreadable object"));
    let api = other_api(ctx, other, key.namespace()).ok_or_else(unreadable)?;
    let written = api.patch(key.name(), &params, &patch).await?;
    let mut written = written.0.map_err(|_error| unreadable())?;
    ctx.stores.workloads.other(other).put_own(&mut written);
    Ok(written.read(binding.target_kind(), &fields_of(binding)))
}

/// The objects of a kind that no type stands for; `None` if it is not switched on.
fn other_api(ctx: &Context, kind: &OtherKind, namespace: &str) -> Option<Api<Shown<AnyObject>>> {
    let store = ctx.stores.workloads.others.get(kind)?;
    let client = ctx.client.clone();
    Some(Api::namespaced_with(client, namespace, &store.resource))
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
