//! Runs artifact checks beside the reconciles.
//!
//! Absent: decisions. A reconcile that lacks a result ends, and the result enqueues its binding.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::Availability;
use crate::api::reason::Problem;
use crate::artifacts::{ArtifactStores, ProxiedArtifacts};
use crate::controllers::binding::check_cache::CheckKey;
use crate::controllers::context::Context;
use crate::controllers::registry::credentials::artifact_settings;
use crate::kubernetes::key::ObjectKey;
use crate::registries::RegistryClient;
use crate::rollout::{ArtifactCheck, CheckResults};

/// How long clients of stores are kept: a changed Secret is read again after this time.
const STORES_FOR: Duration = Duration::from_secs(5);
/// How often expired results are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// The results for one reconcile.
pub struct Requested {
    /// The results that are known.
    pub results: CheckResults,
    /// Whether a first result is still awaited and may come within [`BRIEF`](super::check_cache::BRIEF).
    pub is_brief_wait: bool,
}

/// Removes expired results until the operator ends.
pub async fn sweep(ctx: Arc<Context>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        ctx.artifact_checks.sweep();
    }
}

/// Starts the checks that a binding needs and that have no usable result, and returns the results that are known; those of
/// `also` if they are known by chance.
pub fn request(
    ctx: &Arc<Context>,
    registry: &ObjectKey,
    binding: &ObjectKey,
    needed: &[ArtifactCheck],
    also: Option<&ArtifactCheck>,
) -> Requested {
    for check in needed {
        let key = CheckKey::new(registry, check);
        if ctx.artifact_checks.begin(&key, binding) {
            tokio::spawn(run(Arc::clone(ctx), key));
        }
    }
    let mut results = ctx.artifact_checks.results(registry, needed);
    results.extend(
        ctx.artifact_checks
            .results(registry, also.map_or(&[], std::slice::from_ref)),
    );
    Requested {
        results,
        is_brief_wait: ctx.artifact_checks.is_brief_wait(registry, needed),
    }
}

async fn run(ctx: Arc<Context>, key: CheckKey) {
    // The semaphore is never closed.
    let permit = ctx.artifact_checks.permits.acquire().await;
    let result = check(&ctx, &key).await;
    drop(permit);
    tracing::debug!(version = key.check.version, ?result, "checked an artifact");
    let waiting = ctx.artifact_checks.record(&key, result);
    ctx.queues.bindings.enqueue_all(waiting);
}

async fn check(ctx: &Context, CheckKey { registry, check }: &CheckKey) -> Availability {
    let state = ctx.registries.of(registry);
    let client = state.connection.client();
    if let (true, Some(client)) = (check.must_exist, &client)
        && let Some(missing) = is_missing(client, check).await
    {
        return missing;
    }
    let uri = &check.artifact_uri;
    // A move relies on a recent read of the same files; a rollback checks them again. A URI with a query is read with it, as
    // a signature may have expired.
    if !check.must_exist
        && !check.query_withheld
        && state.readable_artifacts.contains(uri, Instant::now())
    {
        return Availability::Readable;
    }
    let whole = match whole_uri(client.as_ref(), check).await {
        Ok(whole) => whole,
        Err(problem) => return Availability::Unknown(problem),
    };
    let stores = match state.store_clients.get(STORES_FOR) {
        Some(stores) => stores,
        None => match stores(ctx, registry, client).await {
            Ok(stores) => stores,
            Err(problem) => return Availability::Unknown(problem.message),
        },
    };
    let result = stores.check(&whole).await;
    if result == Availability::Readable && !check.query_withheld {
        state.readable_artifacts.record(uri, Instant::now());
    }
    result
}

/// The artifact's URI with its query, which only the registry says.
async fn whole_uri<'a>(
    client: Option<&RegistryClient>,
    check: &'a ArtifactCheck,
) -> Result<Cow<'a, str>, String> {
    let uri = &check.artifact_uri;
    if !check.query_withheld {
        return Ok(Cow::Borrowed(uri));
    }
    let why = match client {
        None => "the registry cannot be used now".to_owned(),
        Some(client) => match client.artifact_uri(&check.model, &check.version).await {
            Ok(Some(whole)) => return Ok(Cow::Owned(whole)),
            Ok(None) => "the registry has no such version".to_owned(),
            Err(error) => error.to_string(),
        },
    };
    Err(format!("the query of {uri} cannot be read: {why}"))
}

/// Clients of the stores with the present contents of the registry's Secret; kept for the next checks.
async fn stores(
    ctx: &Context,
    name: &ObjectKey,
    client: Option<RegistryClient>,
) -> Result<Arc<ArtifactStores>, Problem> {
    let registry = ctx.stores.registries.get(name);
    let settings = match &registry {
        Some(registry) => artifact_settings(registry, &ctx.client).await?,
        None => BTreeMap::new(),
    };
    let is_connected = client.is_some() && registry.is_some();
    let allow_files = ctx.settings.allow_file_artifacts;
    let stores = Arc::new(ArtifactStores::new(
        client.map(proxied_artifacts),
        settings,
        allow_files,
    ));
    if is_connected {
        ctx.registries.of(name).store_clients.record(&stores);
    }
    Ok(stores)
}

/// Checks artifacts behind the registry's own server with its client.
fn proxied_artifacts(client: RegistryClient) -> ProxiedArtifacts {
    ProxiedArtifacts::new(move |host, path| {
        let client = client.clone();
        async move { client.check_proxied_artifact(host.as_deref(), &path).await }
    })
}

/// Whether the registry says plainly that it has no such version any more. If it cannot be read, that hinders no rollback.
async fn is_missing(client: &RegistryClient, check: &ArtifactCheck) -> Option<Availability> {
    let ArtifactCheck {
        model,
        version,
        artifact_uri,
        ..
    } = check;
    let why = match client.version(model, version).await {
        Ok(None) => format!("the registry has no version {version} of model {model:?} any more"),
        Ok(Some(found)) if found.artifact_uri.as_ref() != Some(artifact_uri) => {
            format!("version {version} of model {model:?} is not the one that ran before")
        }
        Ok(Some(_)) | Err(_) => return None,
    };
    Some(Availability::Missing(why))
}
