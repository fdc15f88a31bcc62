//! Runs artifact checks beside the reconciles.
//!
//! Absent: decisions. A reconcile that lacks a result ends, and the result enqueues its binding.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use crate::api::reason::Problem;
use crate::api::{Availability, VersionId, VersionRef};
use crate::artifacts::{ArtifactStores, ProxiedArtifacts};
use crate::controllers::context::Context;
use crate::controllers::registry::credentials::artifact_settings;
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::state::artifact_cache::{CheckSubject, Purpose};
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::permits::Permit;
use crate::registries::RegistryClient;
use crate::rollout::{ArtifactCheck, CheckResults};

/// How long the checks before a rollback may take in all, with the time that they wait for a permit. What is not known by then
/// delays no rollback.
const ROLLBACK_DEADLINE: Duration = Duration::from_secs(3);
/// How long any check may take, once it has a permit.
const CHECK_DEADLINE: Duration = Duration::from_secs(20);
/// Bindings that wait for a permit say so after this time, in which a burst of moves ends.
const TOLD_AFTER: Duration = Duration::from_secs(15);
/// How often expired results are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// The results for one reconcile.
pub struct Requested {
    /// The results that are known.
    pub results: CheckResults,
    /// Whether a first result is still awaited and may come within [`BRIEF`](crate::controllers::registry::state::artifact_cache::BRIEF).
    pub is_brief_wait: bool,
}

/// Removes expired results until the operator ends.
pub async fn sweep(ctx: Arc<Context>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        ctx.registries.for_each(|state| state.artifacts.sweep());
    }
}

/// Starts the checks that a binding needs and that have no usable result, all at once, and returns the results that are known;
/// that of `also` if it is known by chance. Without a registry nothing can be asked.
pub fn request(
    ctx: &Arc<Context>,
    registry: Option<&ObjectKey>,
    binding: &ObjectKey,
    needed: &[ArtifactCheck],
    also: Option<&ArtifactCheck>,
) -> Requested {
    let Some(registry) = registry else {
        let unknown = Availability::Unknown("the model's registry is not known".to_owned());
        let unknown = |check: &ArtifactCheck| (check.clone(), unknown.clone());
        return Requested {
            results: needed.iter().map(unknown).collect(),
            is_brief_wait: false,
        };
    };
    let state = ctx.registries.of(registry);
    for check in needed {
        for subject in state.artifacts.begin(check, binding) {
            let run = RunningSubject {
                ctx: Arc::clone(ctx),
                registry: registry.clone(),
                namespace: binding.namespace().to_owned(),
                state: Arc::clone(&state),
                subject,
                purpose: Purpose::of(check),
            };
            start(run, binding);
        }
    }
    Requested {
        results: state.artifacts.results(needed.iter().chain(also), binding),
        is_brief_wait: state.artifacts.is_brief_wait(needed, binding),
    }
}

/// Starts a check. One that needs no request has its result at once; any other enqueues the bindings that wait for it.
fn start(check: RunningSubject, binding: &ObjectKey) {
    let bindings = check.ctx.queues.bindings.clone();
    let mut run = Box::pin(check.run());
    match (&mut run).now_or_never() {
        Some(mut waiting) => {
            waiting.retain(|each| each != binding);
            bindings.enqueue_all(waiting);
        }
        None => {
            tokio::spawn(async move { bindings.enqueue_all(run.await) });
        }
    }
}

/// The check of one subject.
struct RunningSubject {
    ctx: Arc<Context>,
    registry: ObjectKey,
    /// The namespace that the check is made for.
    namespace: String,
    /// The registry's state when the check was requested: the result belongs to that very registry.
    state: Arc<RegistryState>,
    subject: CheckSubject,
    purpose: Purpose,
}

impl RunningSubject {
    /// Runs the check, and returns the bindings that its result concerns.
    async fn run(self) -> Vec<ObjectKey> {
        let result = match self.purpose {
            Purpose::Move => self.check().await,
            Purpose::Rollback => {
                match tokio::time::timeout(ROLLBACK_DEADLINE, self.check()).await {
                    Ok(result) => result,
                    Err(_) => no_response(ROLLBACK_DEADLINE),
                }
            }
        };
        tracing::debug!(subject = ?self.subject, ?result, "checked an artifact");
        let artifacts = &self.state.artifacts;
        artifacts.record(&self.subject, self.purpose, result)
    }

    /// Waits for a permit, and checks.
    async fn check(&self) -> Availability {
        let _permit = self.permit().await;
        match tokio::time::timeout(CHECK_DEADLINE, self.check_now()).await {
            Ok(result) => result,
            Err(_) => no_response(CHECK_DEADLINE),
        }
    }

    /// A permit of the namespace. If it has to be waited for, the bindings say so.
    async fn permit(&self) -> Option<Permit> {
        let permits = self.ctx.check_permits.of(self.purpose);
        let mut acquired = pin!(permits.acquire(&self.namespace));
        if let Ok(permit) = tokio::time::timeout(TOLD_AFTER, &mut acquired).await {
            return permit;
        }
        self.ctx
            .metrics
            .count_limited(&self.namespace, "ArtifactChecks");
        let why = format!(
            "it waits for other artifact checks of namespace {}, of which at most {} run at a time",
            self.namespace,
            permits.of_namespace()
        );
        let artifacts = &self.state.artifacts;
        let waiting = artifacts.record_wait(&self.subject, self.purpose, why);
        self.ctx.queues.bindings.enqueue_all(waiting);
        acquired.await
    }

    async fn check_now(&self) -> Availability {
        match &self.subject {
            CheckSubject::Files { uri, signed_for } => {
                match self.whole_uri(uri, signed_for.as_deref()).await {
                    Ok(whole) => self.check_files(&whole).await,
                    Err(problem) => Availability::Unknown(problem),
                }
            }
            CheckSubject::Version(version) => check_version(&self.state, version).await,
        }
    }

    /// The artifact's URI with its query, which only the registry says.
    async fn whole_uri<'a>(
        &self,
        uri: &'a str,
        signed_for: Option<&VersionId>,
    ) -> Result<Cow<'a, str>, String> {
        let Some(version) = signed_for else {
            return Ok(Cow::Borrowed(uri));
        };
        let why = match self.state.connection.client() {
            None => "the registry cannot be used now".to_owned(),
            Some(client) => match client.artifact_uri(&version.model, &version.version).await {
                Ok(Some(whole)) => return Ok(Cow::Owned(whole)),
                Ok(None) => "the registry has no such version".to_owned(),
                Err(error) => error.to_string(),
            },
        };
        Err(format!("the query of {uri} cannot be read: {why}"))
    }

    async fn check_files(&self, uri: &str) -> Availability {
        let registry = self.ctx.stores.registries.get(&self.registry);
        let generation = registry.and_then(|registry| registry.metadata.generation);
        let made = self
            .state
            .store_clients
            .get_or_make(generation.unwrap_or_default(), self.stores());
        match made.await {
            Ok(stores) => stores.check(uri).await,
            Err(problem) => Availability::Unknown(problem.message),
        }
    }

    /// Clients of the stores with the present contents of the registry's Secret.
    async fn stores(&self) -> Result<ArtifactStores, Problem> {
        let (settings, authorities) = match self.ctx.stores.registries.get(&self.registry) {
            Some(registry) => artifact_settings(&registry, &self.ctx.client).await?,
            None => (BTreeMap::new(), None),
        };
        let client = self.state.connection.client();
        let allow_files = self.ctx.settings.allow_file_artifacts;
        let proxied = client.map(proxied_artifacts);
        let stores = ArtifactStores::new(proxied, settings, allow_files)
            .of_tenant(self.registry.namespace(), &self.ctx.settings.guard);
        Ok(stores.trusting(authorities))
    }
}

fn no_response(within: Duration) -> Availability {
    Availability::Unknown(format!("no response within {} s", within.as_secs()))
}

/// Checks artifacts behind the registry's own server with its client.
fn proxied_artifacts(client: RegistryClient) -> ProxiedArtifacts {
    ProxiedArtifacts::new(move |host, path| {
        let client = client.clone();
        async move { client.check_proxied_artifact(host.as_deref(), &path).await }
    })
}

/// Whether the registry still has a version, and at which URI. If it cannot be asked, that hinders no rollback.
async fn check_version(state: &RegistryState, version: &VersionRef) -> Availability {
    let Some(client) = state.connection.client() else {
        return Availability::Unknown("the registry was not polled yet".to_owned());
    };
    let (model, number) = (&version.id.model, version.number());
    match client.version(model, number).await {
        Ok(None) => Availability::Missing(format!(
            "the registry has no version {number} of model {model:?} any more"
        )),
        Ok(Some(found)) => still_there(version, &found.reference(model)),
        Err(error) => Availability::Unknown(error.to_string()),
    }
}

fn still_there(version: &VersionRef, found: &VersionRef) -> Availability {
    if !found.is_same(version) {
        return Availability::Missing(format!(
            "version {} of model {:?} is not the one that ran before",
            version.number(),
            version.id.model
        ));
    }
    match &found.artifact_uri {
        Some(uri) if version.artifact_uri.as_ref() != Some(uri) => Availability::Moved(uri.clone()),
        _ => Availability::Readable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registries::memory::MemoryRegistry;
    use crate::registries::{Connection, RequestMetrics, Server};

    fn version(number: &str, uri: &str) -> VersionRef {
        let version = serde_json::json!({"model": "taxi", "version": number, "artifactURI": uri});
        serde_json::from_value(version).expect("a version")
    }

    #[tokio::test]
    async fn only_a_registry_that_answers_says_that_a_version_is_gone() {
        let (state, memory) = (RegistryState::default(), MemoryRegistry::default());
        let one = version("1", "s3://models/1");
        let unpolled = check_version(&state, &one).await;
        assert!(matches!(unpolled, Availability::Unknown(_)));
        let connection = Connection::new(Server::Memory(memory.clone()));
        let client = RegistryClient::connect(connection.clone(), RequestMetrics::default());
        state.record_success(connection, client.expect("a client"));
        memory.register("taxi", "s3://models/1");
        assert_eq!(check_version(&state, &one).await, Availability::Readable);
        for gone in [
            version("1", "s3://another/1"),
            version("2", "s3://models/2"),
        ] {
            let result = check_version(&state, &gone).await;
            assert!(matches!(result, Availability::Missing(_)), "{result:?}");
        }
    }

    #[test]
    fn the_same_version_at_another_uri_has_moved() {
        let at = |uri: &str| {
            let mut version = version("1", uri);
            version.id.created_at = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                jiff::Timestamp::UNIX_EPOCH,
            ));
            version
        };
        let moved = still_there(&at("s3://old/1"), &at("s3://new/1"));
        assert_eq!(moved, Availability::Moved("s3://new/1".to_owned()));
        let mut unresolved = at("s3://new/1");
        unresolved.artifact_uri = None;
        let result = still_there(&at("s3://old/1"), &unresolved);
        assert_eq!(result, Availability::Readable, "its files decide");
    }
}
