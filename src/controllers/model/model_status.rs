//! The status of a `RegisteredModel`: its mirror and conditions, written if they changed.
//!
//! Absent: the mirror's content.

use std::fmt::Write;

use jiff::Timestamp;

use crate::api::conditions::{ConditionUpdate, READY, not_ready, transition};
use crate::api::registered_model::ModelDeletionPolicy;
use crate::api::{Reason, RegisteredModel, RegisteredModelStatus, reason::Problem};
use crate::controllers::context::Context;
use crate::controllers::model::mirror::Mirror;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::status::StatusWrite;

/// Writes the status if it changed, and enqueues the model's bindings.
pub async fn publish(
    model: &RegisteredModel,
    ctx: &Context,
    mirrored: Result<Mirror, Problem>,
) -> Result<(), ReconcileError> {
    let new = status(model, mirrored);
    if model.status.as_ref() == Some(&new) {
        return Ok(());
    }
    let mut changed = model.clone();
    changed.status = Some(new);
    let written = ctx.write_status(&ctx.stores.models, &changed).await?;
    if written == StatusWrite::Changed {
        ctx.enqueue_bindings_of_model(&ObjectKey::of(model));
    }
    Ok(())
}

/// If the model could not be mirrored, the last mirror stays (`fail_static`), and the conditions
/// say why it may be out of date.
fn status(model: &RegisteredModel, mirrored: Result<Mirror, Problem>) -> RegisteredModelStatus {
    let generation = model.metadata.generation;
    let old = model.status.clone().unwrap_or_default();
    let old_conditions = old.conditions.clone();
    let (mut new, problem) = match mirrored {
        Ok(mirror) => (mirror.status, mirror.problem),
        Err(problem) => (old, Some(problem)),
    };
    new.observed_generation = generation;
    let conditions = match &problem {
        Some(problem) if problem.reason == Reason::Suspended => {
            vec![ConditionUpdate::yes(
                READY,
                problem.reason,
                &problem.message,
            )]
        }
        Some(problem) => not_ready(problem),
        None => vec![mirrored_condition(model, &new)],
    };
    new.conditions = transition(&old_conditions, &conditions, generation, Timestamp::now());
    new
}

fn mirrored_condition(model: &RegisteredModel, status: &RegisteredModelStatus) -> ConditionUpdate {
    let mut message = "aliases and versions are as the registry named them last".to_owned();
    let deletes = model.spec.deletion_policy == ModelDeletionPolicy::Delete;
    if deletes && status.owned_model_created_at.is_none() {
        message.push_str("; spec.deletionPolicy Delete has no effect, because the registered model existed before this object: set it to Retain, and delete the model in the registry");
    }
    let versions = status.versions.iter();
    let omitted = versions.filter(|version| version.details_omitted).count();
    if omitted > 0 {
        _ = write!(
            message,
            "; the details of {omitted} versions are left out, because an object holds 1.5 MB"
        );
    }
    ConditionUpdate::yes(READY, Reason::Mirrored, message)
}
