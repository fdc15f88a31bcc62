//! Requests the URIs of versions again whose source the registry resolves, in one task for each registry: a store may have
//! moved. No reconcile waits for it.
//!
//! Absent: writing the status. The reconcile that the task enqueues does it.

use std::sync::Arc;

use crate::api::public_uri::split_query;
use crate::api::{ModelVersion, RegisteredModel};
use crate::controllers::context::Context;
use crate::controllers::model::mirrored_versions::versions_in_use;
use crate::controllers::model::size_reader::{client_for_reads, model_for_reads};
use crate::controllers::registry::state::uri_rechecks::{MovedUri, Recheck};
use crate::kubernetes::key::ObjectKey;
use crate::registries::RegistryClient;

/// How many URIs of one model are requested again in its turn.
const RECHECKED: usize = 32;

/// Starts the task that requests URIs, if some are due and no task is running.
pub fn recheck_uris_later(ctx: &Arc<Context>, registry: &ObjectKey) {
    let state = ctx.registries.of(registry);
    if !state.rechecks.begin() {
        return;
    }
    let (ctx, registry) = (Arc::clone(ctx), registry.clone());
    tokio::spawn(async move {
        let Some(client) = client_for_reads(&ctx, &registry, &state) else {
            return state.rechecks.stop();
        };
        while let Some((model, recheck)) = state.rechecks.take() {
            let moved = recheck_model(&ctx, &client, &model, recheck).await;
            let is_moved = !moved.is_empty();
            state.rechecks.record_moved(&model, moved);
            if is_moved {
                ctx.queues.models.enqueue_low_priority(vec![model]);
            }
        }
    });
}

/// The URIs of one model that are others now.
async fn recheck_model(
    ctx: &Context,
    client: &RegistryClient,
    model: &ObjectKey,
    recheck: Recheck,
) -> Vec<MovedUri> {
    let Some(object) = model_for_reads(ctx, model) else {
        return Vec::new();
    };
    let mut versions = resolved_versions(&object, client);
    if let Recheck::InUse(turn) = recheck {
        let stores = &ctx.stores;
        let bindings = stores.bindings_of_model(model.namespace(), model.name());
        let in_use = versions_in_use(&object, &bindings);
        versions.retain(|version| in_use.contains(&version.version));
        if versions.len() > RECHECKED {
            let first = turn.wrapping_mul(RECHECKED) % versions.len();
            versions.rotate_left(first);
            versions.truncate(RECHECKED);
        }
    }
    moved_uris(client, object.model_name(), &versions).await
}

/// The mirrored versions whose source the registry resolved to a URI, which may be another one later.
pub fn resolved_versions<'a>(
    model: &'a RegisteredModel,
    client: &RegistryClient,
) -> Vec<&'a ModelVersion> {
    let versions = model.status.iter().flat_map(|status| &status.versions);
    versions
        .filter(|version| {
            let source = version.source.as_deref();
            version.artifact_uri.is_some() && source.is_some_and(|source| client.resolves(source))
        })
        .collect()
}

/// Requests the URIs of versions. It ends with the first that the registry does not answer.
pub async fn moved_uris(
    client: &RegistryClient,
    model: &str,
    versions: &[&ModelVersion],
) -> Vec<MovedUri> {
    let mut moved = Vec::new();
    for version in versions {
        let number = &version.version;
        let whole = match client.artifact_uri(model, number).await {
            Ok(Some(whole)) => whole,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(model, version = number, %error, "the URI of a version cannot be requested");
                break;
            }
        };
        let (uri, query) = split_query(&whole);
        let from = version.artifact_uri.as_deref().unwrap_or_default();
        if from == uri && version.query_withheld == query.is_some() {
            continue;
        }
        if from != uri {
            tracing::info!(model, version = number, "the files of a version moved");
        }
        moved.push(MovedUri {
            version: number.clone(),
            from: from.to_owned(),
            to: uri.to_owned(),
            query_withheld: query.is_some(),
        });
    }
    moved
}
