//! Lists the versions of many models together, before each model's own loop would ask for its own.
//!
//! Absent: what becomes of them. What cannot be had in one answer is asked for by each model itself.

use std::collections::BTreeSet;

use super::context::Context;
use super::model::NEWEST;
use super::name::Name;
use super::registry_state::RegistryState;
use super::shelved::of_registered_name;
use crate::registry::{ModelFacts, Registry};

/// Whether the newest version that the registry tells of is in no mirror yet.
pub fn is_unlisted(ctx: &Context, registry: &Name, facts: &ModelFacts) -> bool {
    let objects = ctx.shelves.models.names(of_registered_name(registry, &facts.name));
    let mut mirrored = objects.iter().filter_map(|name| ctx.shelves.models.get(name));
    facts.latest_version.is_some()
        && mirrored.any(|model| {
            model.model_name() == facts.name
                && model.status.is_none_or(|status| status.latest_version != facts.latest_version)
        })
}

/// Lists the newest versions of these models, with one request for up to a hundred of them.
pub async fn list_together(state: &RegistryState, client: &Registry, models: &BTreeSet<String>) {
    // One model's own loop asks for its versions as quickly.
    if models.len() < 2 {
        return;
    }
    let names: Vec<&str> = models.iter().map(String::as_str).collect();
    match client.newest_versions_of(&names, NEWEST).await {
        Ok(listed) => state.keep_listed(listed),
        Err(error) => tracing::debug!(%error, "the versions of many models cannot be listed together"),
    }
}
