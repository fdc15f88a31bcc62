//! Deletes the registered model from the registry before its object is deleted, if the spec says
//! so and the object created it. A finalizer holds the object until then.
//!
//! Absent: deletion policies of other kinds.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};

use crate::api::conditions::with_remedy;
use crate::api::model_registry::Access;
use crate::api::registered_model::ModelDeletionPolicy;
use crate::api::{Reason, RegisteredModel, names, reason::Problem};
use crate::controllers::cached::registry_of;
use crate::controllers::context::Context;
use crate::controllers::model::model_status::publish;
use crate::controllers::model::registry_access::usable_registry;
use crate::controllers::registry::access::access;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::finalizer::set_finalizer;
use crate::kubernetes::work_queue::Requeue;

/// The time until the next attempt to delete the model.
const DELETION_RETRY: Duration = Duration::from_secs(10);

/// Adds the finalizer if the registered model may have to be deleted with the object, and removes it if not. Returns true if it
/// wrote.
pub async fn sync_finalizer(
    model: &RegisteredModel,
    ctx: &Context,
) -> Result<bool, ReconcileError> {
    let is_wanted = model.spec.deletion_policy == ModelDeletionPolicy::Delete
        && (owned_model(model).is_some() || may_create(model, ctx));
    if is_wanted == has_finalizer(model) {
        return Ok(false);
    }
    write_finalizer(model, ctx, is_wanted).await?;
    Ok(true)
}

/// The creation time of the registered model that the object created.
fn owned_model(model: &RegisteredModel) -> Option<&MicroTime> {
    model.status.as_ref()?.owned_model_created_at.as_ref()
}

/// Whether the registry's owner lets the model's namespace create models.
fn may_create(model: &RegisteredModel, ctx: &Context) -> bool {
    let Some(registry) = ctx.stores.registries.get(&registry_of(model)) else {
        return false;
    };
    access(ctx, &registry, &model.namespace().unwrap_or_default()) == Some(Access::Write)
}

/// Deletes the registered model if the spec says so and the object created it, and then removes the finalizer.
pub async fn finalize(model: &RegisteredModel, ctx: &Context) -> Result<Requeue, ReconcileError> {
    if !has_finalizer(model) {
        return Ok(Requeue::await_change());
    }
    if model.spec.deletion_policy == ModelDeletionPolicy::Delete {
        match delete_in_registry(model, ctx).await {
            Ok(Deletion::Done) => {}
            Ok(Deletion::LeftBehind(why)) => report_left_behind(model, ctx, &why),
            Err(problem) => {
                let remedy = format!(
                    "to let the object go without it: kubectl patch rmodel {} -n {} --type merge -p '{{\"spec\":{{\"deletionPolicy\":\"Retain\"}}}}'",
                    model.name_any(),
                    model.namespace().unwrap_or_default()
                );
                let message = with_remedy(&problem.message, &remedy);
                publish(model, ctx, Err(Problem::new(problem.reason, message))).await?;
                return Ok(Requeue::after(DELETION_RETRY));
            }
        }
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

/// The result of a deletion that needs no further attempt.
enum Deletion {
    /// The registered model is gone.
    Done,
    /// It stays, for this reason.
    LeftBehind(String),
}

/// Deletes the registered model that the object created. One that existed before, or was created again by others, stays.
async fn delete_in_registry(model: &RegisteredModel, ctx: &Context) -> Result<Deletion, Problem> {
    let left_behind = |why: &str| Ok(Deletion::LeftBehind(why.to_owned()));
    let Some(owned) = owned_model(model) else {
        return left_behind("it was not created by this object");
    };
    let usable = match usable_registry(model, ctx).await {
        Ok(usable) if usable.access == Access::Read => {
            return left_behind("the namespace may only read the registry");
        }
        Ok(usable) => usable,
        Err(problem) if is_out_of_reach(problem.reason) => return left_behind(&problem.message),
        Err(problem) => return Err(problem),
    };
    let name = model.model_name();
    match usable.client.model(name).await? {
        None => Ok(Deletion::Done),
        Some(found) if found.created_at != Some(owned.0) => {
            left_behind("it was deleted and created again by others")
        }
        Some(_) => {
            usable.client.delete_model(name).await?;
            Ok(Deletion::Done)
        }
    }
}

/// Whether the registry's object is gone, or its owner has withdrawn the namespace's access.
fn is_out_of_reach(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RegistryNotFound | Reason::RegistryNotAllowed
    )
}

fn report_left_behind(model: &RegisteredModel, ctx: &Context, why: &str) {
    let name = model.model_name();
    let note = format!("the registered model {name:?} stays in the registry: {why}");
    tracing::warn!(
        namespace = model.namespace(),
        model = model.name_any(),
        note,
        "a registered model was left behind"
    );
    let event = Event {
        type_: EventType::Warning,
        reason: Reason::ModelLeftBehind.as_str().to_owned(),
        note: Some(note),
        action: "DeleteModel".to_owned(),
        secondary: None,
    };
    ctx.event_recorder.publish(model.object_ref(&()), event);
}
