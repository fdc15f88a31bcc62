//! The registry that a model names, if it exists, allows the model's namespace, and was polled.
//!
//! Absent: requests to the registry.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::SelectorExt;
use kube::{Api, ResourceExt};

use crate::api::model_registry::AllowedFrom;
use crate::api::{ModelRegistry, Reason, RegisteredModel, reason::Problem};
use crate::controllers::cached::registry_of;
use crate::controllers::context::Context;
use crate::controllers::registry::state::RegistryState;
use crate::registries::RegistryClient;

/// A registry that a model may use now.
pub struct UsableRegistry {
    /// The registry.
    pub registry: Arc<ModelRegistry>,
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
    check_namespace(model, &registry, ctx).await?;
    let state = ctx.registries.of(&registry_of(model));
    if let Some(problem) = state.connection.problem() {
        return Err(problem);
    }
    match state.connection.client() {
        Some(client) => Ok(UsableRegistry {
            registry,
            state,
            client,
        }),
        None => Err(not_polled(&registry)),
    }
}

fn not_polled(registry: &ModelRegistry) -> Problem {
    if registry.spec.suspend {
        let name = registry.name_any();
        let message = format!("ModelRegistry {name} is suspended and was not polled yet");
        return Problem::new(Reason::Suspended, message);
    }
    Problem::new(
        Reason::Pending,
        "the registry is being polled for the first time",
    )
}

/// Fails unless the registry's owner allows the model's namespace.
async fn check_namespace(
    model: &RegisteredModel,
    registry: &ModelRegistry,
    ctx: &Context,
) -> Result<(), Problem> {
    let own = model.namespace().unwrap_or_default();
    let theirs = registry.namespace().unwrap_or_default();
    let allowed = &registry.spec.allowed_namespaces;
    let is_allowed = match allowed.from {
        _ if own == theirs => true,
        AllowedFrom::Same => false,
        AllowedFrom::All => true,
        AllowedFrom::Selector => matches_selector(ctx, &own, allowed.selector.as_ref()).await?,
    };
    if is_allowed {
        return Ok(());
    }
    let message = format!(
        "ModelRegistry {theirs}/{} does not allow namespace {own}: its owner can, with spec.allowedNamespaces",
        registry.name_any()
    );
    Err(Problem::new(Reason::RegistryNotAllowed, message))
}

async fn matches_selector(
    ctx: &Context,
    namespace: &str,
    selector: Option<&LabelSelector>,
) -> Result<bool, Problem> {
    let Some(selector) = selector else {
        return Ok(false);
    };
    let namespaces: Api<Namespace> = Api::all(ctx.client.clone());
    let labels = match namespaces.get(namespace).await {
        Ok(found) => found.metadata.labels.unwrap_or_default(),
        Err(error) => {
            let message = format!("the labels of namespace {namespace} cannot be read: {error}");
            return Err(Problem::new(Reason::RegistryNotAllowed, message));
        }
    };
    let parsed: Result<kube::core::Selector, _> = selector.clone().try_into();
    match parsed {
        Ok(selector) => Ok(selector.matches(&labels)),
        Err(error) => Err(Problem::new(
            Reason::InvalidSpec,
            format!("allowedNamespaces.selector: {error}"),
        )),
    }
}
