//! What was learned of each registry since the start: the connection, the models' facts, and when to look next.
//!
//! Absent: anything that must survive a restart. That is in the cluster.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::api::reason::Problem;
use crate::artifacts::ArtifactStores;
use crate::controllers::registry::known_tags::KnownTags;
use crate::controllers::registry::webhook_state::WebhookState;
use crate::kubernetes::compress::Compressed;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;
use crate::registries::mlflow::{Connection, ListedVersion, ModelFacts, Registry};

/// The states of all registries.
#[derive(Default)]
pub struct RegistryStates {
    all: Mutex<HashMap<ObjectKey, Arc<RegistryState>>>,
}

impl RegistryStates {
    /// The state of a registry, a new one where there is none yet.
    pub fn of(&self, registry: &ObjectKey) -> Arc<RegistryState> {
        Arc::clone(lock(&self.all).entry(registry.clone()).or_default())
    }

    /// Forgets a registry that is gone.
    pub fn forget(&self, registry: &ObjectKey) {
        lock(&self.all).remove(registry);
    }
}

/// What was learned of one registry.
#[derive(Default)]
pub struct RegistryState {
    /// What is known of the deployment tags in it.
    pub written: KnownTags,
    /// What is known of the webhook in it.
    pub webhook: WebhookState,
    inner: Mutex<RegistryStateInner>,
}

#[derive(Default)]
struct RegistryStateInner {
    registry: Option<Registry>,
    connection: Option<Connection>,
    facts: HashMap<String, AliasSeen>,
    listed: HashMap<String, Vec<ListedVersion>>,
    /// Whether one look at all of them came to its end.
    was_looked_through: bool,
    /// Models that do not wait for the end of the first one.
    ahead: HashSet<String>,
    /// Models that an answer lacked, and that no direct question was answered for since.
    doubted: HashSet<String>,
    /// The names of the watched models, until one more or less is watched.
    watched: Option<Arc<BTreeSet<String>>>,
    /// How many looks in a row failed.
    failures: u32,
    stores: Option<(Instant, Arc<ArtifactStores>)>,
    useless_versions: HashMap<(String, String), Instant>,
    problem: Option<Problem>,
    next_look: Option<Instant>,
    request: Option<String>,
    generation: Option<i64>,
    requests: HashMap<(Cow<'static, str>, ObjectKey), String>,
    server_version: Option<String>,
}

/// What was seen of a model, and when the question was put: an older answer never replaces a newer one.
struct AliasSeen {
    /// Compressed, for there may be ten thousand of them; `None` where the model was absent.
    facts: Option<Compressed>,
    asked_at: Instant,
    /// When the answer first was this one.
    changed_at: Instant,
}

impl AliasSeen {
    fn is(&self, facts: Option<&Compressed>) -> bool {
        match (&self.facts, facts) {
            (Some(compressed), Some(facts)) => compressed == facts,
            (known, facts) => known.is_none() && facts.is_none(),
        }
    }
}

impl RegistryState {
    /// The connection, where there is one.
    pub fn registry(&self) -> Option<Registry> {
        lock(&self.inner).registry.clone()
    }

    /// The connection, where it is the one that these settings ask for.
    pub fn registry_for(&self, connection: &Connection) -> Option<Registry> {
        let inner = lock(&self.inner);
        inner
            .registry
            .clone()
            .filter(|_| inner.connection.as_ref() == Some(connection))
    }

    /// Why the registry cannot be used now; `None` where it answered last.
    pub fn problem(&self) -> Option<Problem> {
        lock(&self.inner).problem.clone()
    }

    /// MLflow's version.
    pub fn server_version(&self) -> Option<String> {
        lock(&self.inner).server_version.clone()
    }

    /// Keeps MLflow's version.
    pub fn set_server_version(&self, version: Option<String>) {
        lock(&self.inner).server_version = version;
    }

    /// Whether a look is due: by the clock, by a new spec, or by a request in an annotation.
    pub fn is_due(&self, generation: Option<i64>, request: Option<&String>) -> bool {
        let inner = lock(&self.inner);
        let by_clock = inner.next_look.is_none_or(|next| next <= Instant::now());
        by_clock || inner.generation != generation || inner.request.as_ref() != request
    }

    /// Notes that a look was made.
    pub fn looked(&self, generation: Option<i64>, request: Option<String>, next: Duration) {
        let mut inner = lock(&self.inner);
        inner.generation = generation;
        inner.request = request;
        inner.next_look = Some(Instant::now() + next);
    }

    /// Has the next look made at the next pass.
    pub fn look_soon(&self) {
        lock(&self.inner).next_look = None;
    }

    /// How long until the next look.
    pub fn until_next_look(&self) -> Duration {
        let next = lock(&self.inner).next_look;
        next.map_or(Duration::ZERO, |next| {
            next.saturating_duration_since(Instant::now())
        })
    }

    /// A page of the first look told of a model that need not wait for the others. False where a look came to its end before.
    pub fn let_ahead(&self, model: &str, connection: &Connection, registry: &Registry) -> bool {
        let mut inner = lock(&self.inner);
        if inner.was_looked_through || inner.problem.is_some() {
            return false;
        }
        if inner.registry.is_none() {
            (inner.registry, inner.connection) = (Some(registry.clone()), Some(connection.clone()));
        }
        inner.ahead.insert(model.to_owned());
        true
    }

    /// Whether all that can be asked of all models together was asked, or all that this one needs.
    pub fn is_told(&self, model: &str) -> bool {
        let inner = lock(&self.inner);
        inner.was_looked_through || inner.ahead.contains(model)
    }

    /// The registry answered. True where that is news.
    pub fn set_answering(&self, connection: Connection, registry: Registry) -> bool {
        let mut inner = lock(&self.inner);
        let is_news = inner.problem.is_some() || !inner.was_looked_through;
        inner.was_looked_through = true;
        inner.ahead = HashSet::new();
        inner.failures = 0;
        if inner.connection.as_ref() != Some(&connection) {
            inner.stores = None;
        }
        inner.registry = Some(registry);
        inner.connection = Some(connection);
        inner.problem = None;
        is_news
    }

    /// The registry cannot be used. True where that is news.
    pub fn set_problem(&self, problem: Problem) -> bool {
        let mut inner = lock(&self.inner);
        let is_news = inner.problem.as_ref() != Some(&problem);
        inner.failures = inner.failures.saturating_add(1);
        inner.problem = Some(problem);
        is_news
    }

    /// How many looks in a row failed.
    pub fn failures(&self) -> u32 {
        lock(&self.inner).failures
    }

    /// The names of the watched models, by `find` where they are not known or one more or less is watched.
    pub fn watched(&self, find: impl FnOnce() -> BTreeSet<String>) -> Arc<BTreeSet<String>> {
        if let Some(watched) = &lock(&self.inner).watched {
            return Arc::clone(watched);
        }
        let found = Arc::new(find());
        lock(&self.inner).watched = Some(Arc::clone(&found));
        found
    }

    /// One more or less is watched.
    pub fn forget_watched(&self) {
        lock(&self.inner).watched = None;
    }

    /// The clients of artifact stores that were made within this time.
    pub fn stores(&self, within: Duration) -> Option<Arc<ArtifactStores>> {
        let inner = lock(&self.inner);
        inner
            .stores
            .as_ref()
            .filter(|(since, _)| since.elapsed() < within)
            .map(|(_, stores)| Arc::clone(stores))
    }

    /// Keeps clients of artifact stores.
    pub fn keep_stores(&self, stores: &Arc<ArtifactStores>) {
        lock(&self.inner).stores = Some((Instant::now(), Arc::clone(stores)));
    }

    /// What was seen last of a model: `None` where it was not asked for yet, or was absent.
    pub fn facts(&self, model: &str) -> Option<ModelFacts> {
        let compressed = lock(&self.inner)
            .facts
            .get(model)
            .and_then(|seen| seen.facts.clone());
        compressed.and_then(|compressed| compressed.decompress().ok())
    }

    /// When what is known of a model was first seen.
    pub fn changed_at(&self, model: &str) -> Option<Instant> {
        lock(&self.inner)
            .facts
            .get(model)
            .map(|seen| seen.changed_at)
    }

    /// Keeps an answer, unless a newer one is there. True where it differs from the last.
    pub fn learn(&self, model: &str, facts: Option<&ModelFacts>, asked_at: Instant) -> bool {
        let facts = facts.map(Compressed::of);
        let mut inner = lock(&self.inner);
        if let Some(seen) = inner.facts.get_mut(model) {
            if seen.is(facts.as_ref()) {
                seen.asked_at = seen.asked_at.max(asked_at);
                return false;
            }
            if seen.asked_at > asked_at {
                return false;
            }
        }
        inner.doubted.remove(model);
        inner.facts.insert(
            model.to_owned(),
            AliasSeen {
                facts,
                asked_at,
                changed_at: Instant::now(),
            },
        );
        true
    }

    /// The same for an answer to a look at all models. An alias that moved since the look before should have been announced.
    pub fn learn_by_polling(&self, model: &str, facts: &ModelFacts, asked_at: Instant) -> bool {
        let before = lock(&self.inner)
            .facts
            .get(model)
            .map(|seen| (seen.facts.clone(), seen.asked_at));
        let is_news = self.learn(model, Some(facts), asked_at);
        let moved_since = before
            .filter(|(_, before)| is_news && *before <= asked_at)
            .and_then(|(compressed, before)| {
                let known: ModelFacts = compressed?.decompress().ok()?;
                is_moved(&known, facts).then_some(before)
            });
        if let Some(since) = moved_since {
            self.webhook.found_by_polling(model, since, asked_at);
        }
        is_news
    }

    /// Forgets what was seen of a model, so that it is asked for directly.
    pub fn doubt(&self, model: &str) {
        let mut inner = lock(&self.inner);
        inner.facts.remove(model);
        inner.doubted.insert(model.to_owned());
    }

    /// Whether nothing is known of a model, and no answer that lacked it is a reason to ask for it directly.
    pub fn is_unasked(&self, model: &str) -> bool {
        let inner = lock(&self.inner);
        !inner.facts.contains_key(model) && !inner.doubted.contains(model)
    }

    /// Keeps versions that were listed for many models together, until each model's own loop takes them.
    pub fn keep_listed(&self, listed: BTreeMap<String, Vec<ListedVersion>>) {
        lock(&self.inner).listed.extend(listed);
    }

    /// The versions that were listed for a model, once.
    pub fn take_listed(&self, model: &str) -> Option<Vec<ListedVersion>> {
        lock(&self.inner).listed.remove(model)
    }

    /// Forgets the facts of models that nobody watches any more.
    pub fn retain(&self, watched: impl Fn(&str) -> bool) {
        let mut inner = lock(&self.inner);
        inner.facts.retain(|name, _| watched(name));
        inner.doubted.retain(|name| watched(name));
        inner.listed.retain(|name, _| watched(name));
    }

    /// Whether a version was found absent, or with a problem, within this time.
    pub fn is_useless(&self, model: &str, version: &str, within: Duration) -> bool {
        let key = (model.to_owned(), version.to_owned());
        lock(&self.inner)
            .useless_versions
            .get(&key)
            .is_some_and(|since| since.elapsed() < within)
    }

    /// Forgets which versions of a model were asked for in vain.
    pub fn forget_useless(&self, model: &str) {
        lock(&self.inner)
            .useless_versions
            .retain(|(name, _), _| name != model);
    }

    /// Notes that a version is absent, or has a problem.
    pub fn note_useless(&self, model: &str, version: &str) {
        let mut inner = lock(&self.inner);
        inner
            .useless_versions
            .retain(|_, since| since.elapsed() < Duration::from_secs(3600));
        inner
            .useless_versions
            .insert((model.to_owned(), version.to_owned()), Instant::now());
    }

    /// Whether a request to look now, written on an object of this kind, is new; it counts as acted on from then.
    pub fn is_new_request(
        &self,
        kind: Cow<'static, str>,
        object: &ObjectKey,
        request: Option<&String>,
    ) -> bool {
        let Some(request) = request else { return false };
        lock(&self.inner)
            .requests
            .insert((kind, object.clone()), request.clone())
            .as_ref()
            != Some(request)
    }
}

/// Whether an alias of the same model was made, or names another version. What is deleted with a version is announced by nobody.
fn is_moved(before: &ModelFacts, after: &ModelFacts) -> bool {
    let is_same = before.created_at == after.created_at;
    is_same
        && after
            .aliases
            .iter()
            .any(|(alias, version)| before.aliases.get(alias) != Some(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;

    fn connected() -> (Connection, Registry) {
        // Another test may have chosen the provider already.
        _ = rustls::crypto::ring::default_provider().install_default();
        let connection = Connection::new("http://127.0.0.1:1".to_owned());
        (
            connection.clone(),
            Registry::connect(connection).expect("a client, and no request"),
        )
    }

    #[test]
    fn a_model_goes_ahead_of_the_first_look_and_of_no_other() {
        let (state, (connection, registry)) = (RegistryState::default(), connected());
        assert!(state.let_ahead("moved", &connection, &registry));
        assert!(
            state.registry().is_some(),
            "it is what the model's own loop asks"
        );
        assert!(state.is_told("moved") && !state.is_told("other"));
        assert!(
            state.set_answering(connection.clone(), registry.clone()),
            "all models have to learn of it"
        );
        assert!(state.is_told("other"));
        assert!(!state.let_ahead("moved", &connection, &registry));
        assert!(
            !state.set_answering(connection, registry),
            "that it answers is no news any more"
        );
    }

    #[test]
    fn nothing_goes_ahead_of_a_look_at_a_registry_that_could_not_be_used() {
        let (state, (connection, registry)) = (RegistryState::default(), connected());
        state.set_problem(Problem::new(Reason::RegistryUnreachable, "no answer"));
        assert!(!state.let_ahead("moved", &connection, &registry));
    }
}
