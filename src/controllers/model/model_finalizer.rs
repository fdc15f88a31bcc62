//! Deletes the registered model from the registry before its object is deleted, if the spec says
//! so. A finalizer holds the object until then.
//!
//! Absent: deletion policies of other kinds.

use std::time::Duration;

use kube::ResourceExt;

use crate::api::registered_model::ModelDeletionPolicy;
use crate::api::{RegisteredModel, names, reason::Problem};
use crate::controllers::context::Context;
use crate::controllers::model::model_status::publish;
use crate::controllers::model::registry_access::usable_registry;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::finalizer::set_finalizer;
use crate::kubernetes::work_queue::Requeue;

/// The time until the next attempt to delete the model.
const DELETION_RETRY: Duration = Duration::from_secs(10);

/// Adds the finalizer if the registered model is to be deleted with the object, and removes it if
/// not. Returns true if it wrote.
pub async fn sync_finalizer(
    model: &RegisteredModel,
    ctx: &Context,
) -> Result<bool, ReconcileError> {
    let is_wanted = model.spec.deletion_policy == ModelDeletionPolicy::Delete;
    if is_wanted == has_finalizer(model) {
        return Ok(false);
    }
    write_finalizer(model, ctx, is_wanted).await?;
    Ok(true)
}

/// Deletes the registered model if the spec says so, and then removes the finalizer.
pub async fn finalize(model: &RegisteredModel, ctx: &Context) -> Result<Requeue, ReconcileError> {
    if !has_finalizer(model) {
        return Ok(Requeue::await_change());
    }
    if model.spec.deletion_policy == ModelDeletionPolicy::Delete
        && let Err(problem) = delete_in_registry(model, ctx).await
    {
        let message = format!(
            "{}; to let the object go without deleting the registered model, set spec.deletionPolicy: Retain",
            problem.message
        );
        publish(model, ctx, Err(Problem::new(problem.reason, message))).await?;
        return Ok(Requeue::after(DELETION_RETRY));
    }
    write_finalizer(model, ctx, false).await?;
    Ok(Requeue::await_change())
}

fn has_finalizer(model: &RegisteredModel) -> bool {
    let mut finalizers = model.finalizers().iter();
    finalizers.any(|name| name == names::MODEL_FINALIZER)
}

async fn write_finalizer(
    model: &RegisteredModel,
    ctx: &Context,
    is_wanted: bool,
) -> Result<(), ReconcileError> {
    let (models, name) = (&ctx.stores.models, names::MODEL_FINALIZER);
    set_finalizer(&ctx.client, models, model, name, is_wanted).await?;
    Ok(())
}

async fn delete_in_registry(model: &RegisteredModel, ctx: &Context) -> Result<(), Problem> {
    let usable = usable_registry(model, ctx).await?;
    usable.client.delete_model(model.model_name()).await?;
    Ok(())
}
