//! The controller of `RegisteredModel`: declares description, tags and aliases in the registry, and
//! mirrors the registry in the status.
//!
//! Absent: workloads. Bindings watch the status that is written here.

pub mod mirror;
pub mod mirror_size;
pub mod mirrored_names;
pub mod mirrored_versions;
pub mod model_finalizer;
pub mod model_status;
pub mod registry_access;
pub mod size_reader;
pub mod uri_reader;

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;

use crate::api::conditions::{READY, find};
use crate::api::{Reason, RegisteredModel, reason::Problem};
use crate::controllers::cached::registry_of;
use crate::controllers::context::Context;
use crate::controllers::model::mirror::{Mirror, ModelReconcile};
use crate::controllers::model::mirrored_versions::MIN_RETRY;
use crate::controllers::model::model_finalizer::{finalize, sync_finalizer};
use crate::controllers::model::model_status::publish;
use crate::controllers::model::registry_access::{UsableRegistry, usable_registry};
use crate::controllers::model::size_reader::read_sizes_later;
use crate::controllers::model::uri_reader::recheck_uris_later;
use crate::controllers::registry::refresh_requests::request_refresh;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::work_queue::Requeue;

/// The time until the next reconcile after a problem that no event ends.
const PROBLEM_RETRY: Duration = Duration::from_secs(5);

/// Reconciles a registered model.
pub async fn reconcile(
    model: Arc<RegisteredModel>,
    ctx: Arc<Context>,
) -> Result<Requeue, ReconcileError> {
    if model.metadata.deletion_timestamp.is_some() {
        return finalize(&model, &ctx).await;
    }
    if sync_finalizer(&model, &ctx).await? {
        // The watch reports the write, and the model is reconciled again.
        return Ok(Requeue::await_change());
    }
    let usable = usable_registry(&model, &ctx).await;
    if let Ok(usable) = &usable
        && usable.state.snapshots.is_unknown(model.model_name())
    {
        // It is requested together with all other new models. The response enqueues it.
        let model_name = model.model_name().to_owned();
        request_refresh(&ctx, &registry_of(&model), model_name);
        return Ok(Requeue::after(MIN_RETRY));
    }
    let mirrored = match usable {
        Ok(usable) => mirror(&model, &ctx, usable).await,
        Err(problem) => Err(problem),
    };
    if let Err(problem) = &mirrored {
        let state = ctx.registries.of(&registry_of(&model));
        if keeps_status(&model, problem, state.connection.outage().as_ref()) {
            return Ok(Requeue::await_change());
        }
    }
    let requeue = requeue(&mirrored, &model, &ctx);
    let is_mirrored = mirrored.is_ok();
    publish(&model, &ctx, mirrored).await?;
    if is_mirrored {
        let registry = registry_of(&model);
        read_sizes_later(&ctx, &registry);
        recheck_uris_later(&ctx, &registry);
    }
    Ok(requeue)
}

async fn mirror(
    model: &RegisteredModel,
    ctx: &Context,
    usable: UsableRegistry,
) -> Result<Mirror, Problem> {
    let namespace = model.namespace().unwrap_or_default();
    let bindings = ctx.stores.bindings_of_model(&namespace, &model.name_any());
    let reconcile = ModelReconcile {
        own: ObjectKey::of(model),
        model,
        registry: &usable.registry,
        access: usable.access,
        state: &usable.state,
        client: usable.client,
        bindings,
    };
    reconcile.run().await
}

/// The time until the next reconcile. A registry that cannot be used enqueues all its models when
/// it can be used again.
fn requeue(mirrored: &Result<Mirror, Problem>, model: &RegisteredModel, ctx: &Context) -> Requeue {
    let state = ctx.registries.of(&registry_of(model));
    match mirrored {
        Err(_) if state.connection.outage().is_some() => Requeue::await_change(),
        Err(problem) => match problem.reason {
            // The registry enqueues its models when it appears, or admits their namespace.
            Reason::Pending
            | Reason::RegistryNotFound
            | Reason::RegistryNotAllowed
            | Reason::Suspended => Requeue::await_change(),
            _ => Requeue::after(PROBLEM_RETRY),
        },
        Ok(mirror) if mirror.has_unusable_version => Requeue::after(MIN_RETRY * 2),
        Ok(mirror) => match mirror.problem.as_ref().map(|problem| problem.reason) {
            // The registry enqueues its models when its spec changes.
            None | Some(Reason::RegistryReadOnly | Reason::MirrorTruncated) => {
                Requeue::await_change()
            }
            Some(_) => Requeue::after(PROBLEM_RETRY),
        },
    }
}

/// Whether the status stays as it is: after a start, until the registry was polled for the first
/// time, or as long as it is suspended if the mirror was complete; and in an outage of the registry,
/// if nothing is to be done for the model. The registry's own status tells the outage.
fn keeps_status(model: &RegisteredModel, problem: &Problem, outage: Option<&Problem>) -> bool {
    let Some(status) = &model.status else {
        return false;
    };
    let Some(ready) = find(&status.conditions, READY) else {
        return false;
    };
    let told = Reason::parse(&ready.reason);
    let is_hindered = status.model_name.is_none() || told.is_some_and(Reason::is_registry_outage);
    let waits = match problem.reason {
        Reason::Pending => true,
        Reason::Suspended => ready.status == "True",
        _ => outage == Some(problem) && !is_hindered,
    };
    waits && status.observed_generation == model.metadata.generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn model(observed: i64, ready: &str, name: Value) -> RegisteredModel {
        let since = "2026-11-23T12:00:00Z";
        let ready = json!({"type": "Ready", "status": "True", "reason": ready, "message": "",
            "lastTransitionTime": since});
        let object = json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": "RegisteredModel",
            "metadata": {"name": "taxi", "generation": 2}, "spec": {"registryRef": {"name": "mlflow"}},
            "status": {"observedGeneration": observed, "modelName": name, "conditions": [ready]}});
        serde_json::from_value(object).expect("a model")
    }

    #[test]
    fn a_suspended_registry_is_told_only_to_models_without_a_mirror() {
        let suspended = Problem::new(Reason::Suspended, "suspended");
        let keeps = |model: &RegisteredModel| keeps_status(model, &suspended, None);
        assert!(keeps(&model(2, "Mirrored", json!("taxi"))));
        assert!(!keeps(&model(1, "Mirrored", json!("taxi"))), "a new spec");
        let mut waiting = model(2, "Pending", Value::Null);
        for condition in &mut waiting.status.as_mut().expect("a status").conditions {
            condition.status = "False".to_owned();
        }
        assert!(!keeps(&waiting), "nothing goes on until a person resumes");
    }

    #[test]
    fn an_outage_is_told_only_to_models_that_it_hinders() {
        let outage = Problem::new(Reason::RegistryUnreachable, "no response");
        let keeps = |model: &RegisteredModel| keeps_status(model, &outage, Some(&outage));
        assert!(keeps(&model(2, "Mirrored", json!("taxi"))));
        assert!(!keeps(&model(1, "Mirrored", json!("taxi"))), "a new spec");
        assert!(!keeps(&model(2, "Pending", Value::Null)), "no mirror yet");
        let told = model(2, "RegistryRefused", json!("taxi"));
        assert!(!keeps(&told), "the problem is another one now");
        let mirrored = model(2, "Mirrored", json!("taxi"));
        assert!(
            !keeps_status(&mirrored, &outage, None),
            "its own request failed"
        );
    }
}
