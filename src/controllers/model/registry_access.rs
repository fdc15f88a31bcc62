//! The registry that a model names, if it exists, allows the model's namespace, and was polled.
//!
//! Absent: requests to the registry.

use std::sync::Arc;

use kube::ResourceExt;
use kube::core::Selector;

use crate::api::model_registry::{Access, AllowedFrom};
use crate::api::registered_model::is_model_name;
use crate::api::{ModelRegistry, Reason, RegisteredModel, reason::Problem};
use crate::controllers::context::Context;
use crate::controllers::registry::access::{access, title};
use crate::controllers::registry::state::RegistryState;
use crate::registries::RegistryClient;

/// A registry that a model may use now.
pub struct UsableRegistry {
    /// The registry.
    pub registry: Arc<ModelRegistry>,
    /// What the model's namespace may do with it.
    pub access: Access,
    /// Its state.
    pub state: Arc<RegistryState>,
    /// The client of its last poll.
    pub client: RegistryClient,
}

/// The registry that the model names, or why it cannot be used now.
pub async fn usable_registry(
    model: &RegisteredModel,
    ctx: &Context,
) -> Result<UsableRegistry, Problem> {
    let (namespace, name) = (model.registry_namespace(), &model.spec.registry_ref.name);
    let Some(registry) = ctx.stores.registry(&namespace, name) else {
        let message = format!(
            "there is no ModelRegistry {name} in namespace {namespace} (or it is not watched): create it, or correct spec.registryRef"
        );
        return Err(Problem::new(Reason::RegistryNotFound, message));
    };
    let access = checked_access(model, &registry, ctx).await?;
    if !is_model_name(model.model_name()) {
        let message = format!(
            "no registry can have a model of the name {:?}: delete this RegisteredModel and create another",
            model.model_name()
        );
        return Err(Problem::new(Reason::InvalidSpec, message));
    }
    let state = ctx.registries.of_object(&registry);
    if let Some(problem) = state.connection.outage() {
        let is_suspended = registry.spec.suspend;
        return Err(if is_suspended {
            suspended(&registry)
        } else {
            problem
        });
    }
    match state.connection.client() {
        Some(client) => Ok(UsableRegistry {
            registry,
            access,
            state,
            client,
        }),
        None => Err(not_polled(&registry)),
    }
}

fn not_polled(registry: &ModelRegistry) -> Problem {
    if registry.spec.suspend {
        return suspended(registry);
    }
    Problem::new(
        Reason::Pending,
        "the registry is being polled for the first time",
    )
}

fn suspended(registry: &ModelRegistry) -> Problem {
    let (name, namespace) = (
        registry.name_any(),
        registry.namespace().unwrap_or_default(),
    );
    let message = format!(
        "ModelRegistry {name} is suspended: poll it again with kubectl patch mreg {name} -n {namespace} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'"
    );
    Problem::new(Reason::Suspended, message)
}

/// The access of the model's namespace, by labels that are no older than the registry's interval. Fails if it has none.
async fn checked_access(
    model: &RegisteredModel,
    registry: &ModelRegistry,
    ctx: &Context,
) -> Result<Access, Problem> {
    let own = model.namespace().unwrap_or_default();
    let allowed = &registry.spec.allowed_namespaces;
    let is_selected = registry.namespace().as_deref() != Some(&own)
        && allowed.from == AllowedFrom::Selector
        && !ctx.namespace_labels.is_fresh(&own, registry.interval());
    if is_selected && let Err(error) = ctx.namespace_labels.read(&ctx.client, &own).await {
        let message = format!("the labels of namespace {own} cannot be read: {error}");
        return Err(Problem::new(Reason::RegistryNotAllowed, message));
    }
    if let Some(access) = access(ctx, registry, &own) {
        return Ok(access);
    }
    if let Some(Err(error)) = allowed.selector.clone().map(Selector::try_from) {
        let message = format!("{}: allowedNamespaces.selector: {error}", title(registry));
        return Err(Problem::new(Reason::InvalidSpec, message));
    }
    let message = format!(
        "{} does not allow namespace {own}: its owner can, with spec.allowedNamespaces",
        title(registry)
    );
    Err(Problem::new(Reason::RegistryNotAllowed, message))
}
