//! Lists the versions of many models together, before each model's own loop would ask for its own.
//!
//! Absent: what becomes of them. What cannot be had in one answer is asked for by each model itself.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::api::RegisteredModelStatus;
use crate::controllers::cached::of_registered_name;
use crate::controllers::context::Context;
use crate::controllers::registry::state::RegistryState;
use crate::kubernetes::key::ObjectKey;
use crate::registries::mlflow::{ModelFacts, Registry};

/// How many of the newest versions are mirrored, aliased or not.
pub const NEWEST: u32 = 5;

/// What the objects of a registered model say of it; one that says nothing yet says that there is nothing.
pub fn mirrors(
    ctx: &Context,
    registry: &ObjectKey,
    facts: &ModelFacts,
) -> Vec<RegisteredModelStatus> {
    let objects = ctx
        .stores
        .models
        .names(of_registered_name(registry, &facts.name));
    let models = objects
        .iter()
        .filter_map(|name| ctx.stores.models.get(name));
    let named = models.filter(|model| model.model_name() == facts.name);
    named
        .map(|model| model.status.unwrap_or_default())
        .collect()
}

/// Whether the newest version that the registry tells of is missing from one of these mirrors.
pub fn is_unlisted(mirrors: &[RegisteredModelStatus], facts: &ModelFacts) -> bool {
    facts.latest_version.is_some()
        && mirrors
            .iter()
            .any(|mirror| mirror.latest_version != facts.latest_version)
}

/// Whether one of these mirrors names other versions than the registry, or is one of another model. Only who goes first depends on it.
pub fn is_moved(mirrors: &[RegisteredModelStatus], facts: &ModelFacts) -> bool {
    mirrors.iter().any(|mirror| differs(mirror, facts))
}

fn differs(mirror: &RegisteredModelStatus, facts: &ModelFacts) -> bool {
    let aliases = mirror
        .aliases
        .iter()
        .map(|alias| (&alias.name, &alias.version));
    let stages = mirror
        .stages
        .iter()
        .map(|stage| (&stage.name, &stage.version));
    mirror.created_at != facts.created_at.map(MicroTime)
        || mirror.latest_version != facts.latest_version
        || aliases.collect::<BTreeMap<_, _>>() != facts.aliases.iter().collect()
        || stages.collect::<BTreeMap<_, _>>() != facts.stages.iter().collect()
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
        Err(error) => {
            tracing::debug!(%error, "the versions of many models cannot be listed together");
        }
    }
}
