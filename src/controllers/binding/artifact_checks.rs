//! Runs artifact checks beside the reconciles, and caches their results.
//!
//! Absent: decisions. A reconcile that lacks a result ends, and the result enqueues its binding.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::api::Availability;
use crate::api::reason::Problem;
use crate::artifacts::{ArtifactStores, ProxiedArtifacts};
use crate::controllers::context::Context;
use crate::controllers::registry::credentials::artifact_settings;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;
use crate::registries::RegistryClient;
use crate::rollout::{ArtifactCheck, CheckResults};

/// How many checks run at the same time.
const CONCURRENCY: usize = 8;
/// How long a good result holds. For a version that goes forward, a recent read of the same files holds longer; see
/// `registry::readable_artifacts`.
const GOOD_FOR: Duration = Duration::from_secs(30);
/// How long a bad result holds while the check is repeated.
const BAD_FOR: Duration = Duration::from_secs(120);
/// After what time a check with a bad result is repeated.
const REPEAT_AFTER: Duration = Duration::from_secs(20);
/// How long clients of stores are kept: a changed Secret is read again after this time.
const STORES_FOR: Duration = Duration::from_secs(5);
/// How often expired results are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How long a first result may take before a status says that it is awaited.
pub const BRIEF: Duration = Duration::from_secs(1);

/// The cached results of all registries.
pub struct ArtifactChecks {
    known: Mutex<HashMap<CheckKey, Known>>,
    permits: Semaphore,
}

/// A check in the registry that it belongs to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct CheckKey {
    registry: ObjectKey,
    check: ArtifactCheck,
}

struct Known {
    result: Option<(Availability, Instant)>,
    /// When the running check was started, and the bindings that its result enqueues.
    running: Option<(Instant, Vec<ObjectKey>)>,
}

/// The results for one reconcile.
pub struct Requested {
    /// The results that are known.
    pub results: CheckResults,
    /// Whether a first result is still awaited and may come within [`BRIEF`].
    pub is_brief_wait: bool,
}

impl Default for ArtifactChecks {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            permits: Semaphore::new(CONCURRENCY),
        }
    }
}

impl ArtifactChecks {
    /// The known results of some checks.
    fn results(&self, registry: &ObjectKey, checks: &[ArtifactCheck]) -> CheckResults {
        let known = lock(&self.known);
        let mut results = CheckResults::new();
        for check in checks {
            let key = CheckKey::new(registry, check);
            if let Some(result) = known.get(&key).and_then(|known| known.fresh()) {
                results.insert(check.clone(), result.clone());
            }
        }
        results
    }

    /// Notes that a binding needs a result. True if a check has to be started for it.
    fn begin(&self, key: &CheckKey, binding: &ObjectKey) -> bool {
        let mut known = lock(&self.known);
        let known = known.entry(key.clone()).or_insert_with(|| Known {
            result: None,
            running: None,
        });
        if let Some((_, waiting)) = &mut known.running {
            if !waiting.contains(binding) {
                waiting.push(binding.clone());
            }
            return false;
        }
        if !known.is_due() {
            return false;
        }
        known.running = Some((Instant::now(), vec![binding.clone()]));
        true
    }

    /// Whether a check without a result was started less than [`BRIEF`] ago.
    fn is_brief_wait(&self, registry: &ObjectKey, checks: &[ArtifactCheck]) -> bool {
        let known = lock(&self.known);
        checks.iter().any(|check| {
            let Some(known) = known.get(&CheckKey::new(registry, check)) else {
                return false;
            };
            let Some((since, _)) = &known.running else {
                return false;
            };
            known.fresh().is_none() && since.elapsed() < BRIEF
        })
    }

    /// Records a result, and returns the bindings to enqueue: those that wait, if the result is new to them.
    fn record(&self, key: &CheckKey, result: Availability) -> Vec<ObjectKey> {
        let mut known = lock(&self.known);
        let Some(known) = known.get_mut(key) else {
            return Vec::new();
        };
        let is_news = known.fresh() != Some(&result);
        known.result = Some((result, Instant::now()));
        let waiting = known
            .running
            .take()
            .map(|(_, waiting)| waiting)
            .unwrap_or_default();
        if is_news { waiting } else { Vec::new() }
    }

    /// Removes expired results.
    fn sweep(&self) {
        let mut known = lock(&self.known);
        known.retain(|_, known| known.running.is_some() || known.fresh().is_some());
        known.shrink_to_fit();
    }
}

impl CheckKey {
    fn new(registry: &ObjectKey, check: &ArtifactCheck) -> Self {
        Self {
            registry: registry.clone(),
            check: check.clone(),
        }
    }
}

impl Known {
    /// The result, if it is not too old.
    fn fresh(&self) -> Option<&Availability> {
        let (result, at) = self.result.as_ref()?;
        (at.elapsed() < holds_for(result)).then_some(result)
    }

    /// Whether the check has to run: it has no result, or a bad one for some time.
    fn is_due(&self) -> bool {
        let (Some(result), Some((_, at))) = (self.fresh(), &self.result) else {
            return true;
        };
        is_bad(result) && at.elapsed() >= REPEAT_AFTER
    }
}

fn is_bad(result: &Availability) -> bool {
    matches!(result, Availability::Missing(_) | Availability::Unknown(_))
}

fn holds_for(result: &Availability) -> Duration {
    if is_bad(result) { BAD_FOR } else { GOOD_FOR }
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
    also: Option<ArtifactCheck>,
) -> Requested {
    for check in needed {
        let key = CheckKey::new(registry, check);
        if ctx.artifact_checks.begin(&key, binding) {
            tokio::spawn(run(Arc::clone(ctx), key));
        }
    }
    let mut results = ctx.artifact_checks.results(registry, needed);
    results.extend(ctx.artifact_checks.results(registry, also.as_slice()));
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
    // A move relies on a recent read of the same files; a rollback checks them again.
    if !check.must_exist && state.readable_artifacts.contains(uri, Instant::now()) {
        return Availability::Readable;
    }
    let stores = match state.store_clients.get(STORES_FOR) {
        Some(stores) => stores,
        None => match stores(ctx, registry, client).await {
            Ok(stores) => stores,
            Err(problem) => return Availability::Unknown(problem.message),
        },
    };
    let result = stores.check(uri).await;
    if result == Availability::Readable {
        state.readable_artifacts.record(uri, Instant::now());
    }
    result
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> CheckKey {
        let check = ArtifactCheck {
            model: "m".into(),
            version: "1".into(),
            artifact_uri: "s3://m/1".into(),
            must_exist: false,
        };
        CheckKey::new(&ObjectKey::new("ml", "mlflow"), &check)
    }

    #[test]
    fn one_check_serves_all_bindings_that_wait_for_it() {
        let (checks, key) = (ArtifactChecks::default(), key());
        let (a, b) = (ObjectKey::new("ml", "a"), ObjectKey::new("ml", "b"));
        assert!(checks.begin(&key, &a));
        assert!(!checks.begin(&key, &b), "it is running already");
        assert!(checks.is_brief_wait(&key.registry, std::slice::from_ref(&key.check)));
        assert_eq!(checks.record(&key, Availability::Readable), [a.clone(), b]);
        assert!(!checks.begin(&key, &a), "the result is known");
        assert_eq!(
            checks
                .results(&key.registry, std::slice::from_ref(&key.check))
                .len(),
            1
        );
    }

    #[test]
    fn an_expired_result_is_checked_again_and_is_news() {
        let (checks, key) = (ArtifactChecks::default(), key());
        let binding = ObjectKey::new("ml", "a");
        checks.begin(&key, &binding);
        checks.record(&key, Availability::Readable);
        let long_ago = Instant::now()
            .checked_sub(GOOD_FOR)
            .expect("the machine runs for longer");
        for known in lock(&checks.known).values_mut() {
            known.result = Some((Availability::Readable, long_ago));
        }
        assert!(
            checks
                .results(&key.registry, std::slice::from_ref(&key.check))
                .is_empty()
        );
        assert!(checks.begin(&key, &binding));
        assert_eq!(checks.record(&key, Availability::Readable), [binding]);
    }
}
