//! Asks registry and stores whether versions can still be run, beside the passes, and keeps the answers for a while.
//!
//! Absent: decisions. A pass that lacks an answer ends, and the answer wakes its binding.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::api::Availability;
use crate::api::reason::Problem;
use crate::artifacts::{ArtifactStores, ProxiedArtifacts};
use crate::controllers::cached::registry_of;
use crate::controllers::context::Context;
use crate::controllers::registry::credentials::artifact_settings;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::lock::lock;
use crate::registries::RegistryClient;
use crate::rollout::{Answer, Evidence, Question};

/// How many questions are under way at the same time.
const CONCURRENCY: usize = 8;
/// How long a good answer holds.
const GOOD_FOR: Duration = Duration::from_secs(30);
/// How long a bad answer is shown while it is asked for again.
const BAD_FOR: Duration = Duration::from_secs(120);
/// How long clients of stores are kept: a changed Secret is read again after that.
const STORES_FOR: Duration = Duration::from_secs(5);
/// How soon a bad answer is asked for again.
pub const ASK_AGAIN: Duration = Duration::from_secs(20);

/// The questions and answers of all bindings.
pub struct ArtifactChecks {
    /// Mostly one question each: lists, for a tree would take ten times the room.
    pages: Mutex<HashMap<ObjectKey, Vec<(Question, Known)>>>,
    permits: Semaphore,
}

struct Known {
    answer: Option<Answer>,
    /// When it was answered, or asked for the first time.
    at: Instant,
    /// When it was asked last.
    since: Instant,
    is_asking: bool,
}

impl Default for ArtifactChecks {
    fn default() -> Self {
        Self {
            pages: Mutex::default(),
            permits: Semaphore::new(CONCURRENCY),
        }
    }
}

impl ArtifactChecks {
    /// The answers for a binding that are not too old.
    pub fn evidence(&self, binding: &ObjectKey) -> Evidence {
        let pages = lock(&self.pages);
        let page = pages.get(binding);
        let fresh = |(question, known): &(Question, Known)| {
            Some((
                question.clone(),
                known.answer.clone().filter(|_| known.is_fresh())?,
            ))
        };
        page.into_iter().flatten().filter_map(fresh).collect()
    }

    /// Whether a question for a binding has been under way for this long.
    pub fn is_kept_waiting(&self, binding: &ObjectKey, long: Duration) -> bool {
        let pages = lock(&self.pages);
        let page = pages.get(binding);
        page.into_iter()
            .flatten()
            .any(|(_, known)| known.is_asking && known.since.elapsed() >= long)
    }

    /// The bad answers for a binding that it is time to ask for again.
    pub fn doubtful(&self, binding: &ObjectKey) -> Vec<Question> {
        let pages = lock(&self.pages);
        let page = pages.get(binding);
        let is_due =
            |known: &Known| is_bad(known.answer.as_ref()) && known.at.elapsed() >= ASK_AGAIN;
        page.into_iter()
            .flatten()
            .filter(|(_, known)| is_due(known))
            .map(|(question, _)| question.clone())
            .collect()
    }

    /// Notes that a question is put; false where it is under way already.
    fn begin(&self, binding: &ObjectKey, question: &Question) -> bool {
        let mut pages = lock(&self.pages);
        let page = page_of(&mut pages, binding);
        let now = Instant::now();
        match page.iter_mut().find(|(known, _)| known == question) {
            Some((_, known)) if known.is_asking => return false,
            Some((_, known)) => (known.is_asking, known.since) = (true, now),
            None => page.push((
                question.clone(),
                Known {
                    answer: None,
                    at: now,
                    since: now,
                    is_asking: true,
                },
            )),
        }
        true
    }

    /// Drops what is too old to be of use.
    fn sweep(&self) {
        let mut pages = lock(&self.pages);
        for page in pages.values_mut() {
            page.retain(|(_, known)| known.is_asking || known.is_fresh());
        }
        pages.retain(|_, page| !page.is_empty());
        pages.shrink_to_fit();
    }

    /// Keeps an answer. True where it is news.
    fn keep(&self, binding: &ObjectKey, question: Question, answer: Answer) -> bool {
        let mut pages = lock(&self.pages);
        let page = page_of(&mut pages, binding);
        let now = Instant::now();
        let known = Known {
            answer: Some(answer),
            at: now,
            since: now,
            is_asking: false,
        };
        let old = page
            .iter()
            .position(|(asked, _)| *asked == question)
            .map(|at| page.swap_remove(at).1);
        let is_news = old.is_none_or(|old| old.answer != known.answer || !old.is_fresh());
        page.push((question, known));
        is_news
    }
}

/// Where there was none, one with room for a single question.
fn page_of<'a>(
    pages: &'a mut HashMap<ObjectKey, Vec<(Question, Known)>>,
    binding: &ObjectKey,
) -> &'a mut Vec<(Question, Known)> {
    pages
        .entry(binding.clone())
        .or_insert_with(|| Vec::with_capacity(1))
}

impl Known {
    /// Whether there is an answer that may still be used.
    fn is_fresh(&self) -> bool {
        self.answer
            .as_ref()
            .is_some_and(|answer| self.at.elapsed() < holds_for(answer))
    }
}

fn is_bad(answer: Option<&Answer>) -> bool {
    matches!(answer, Some(Answer::Gone(_) | Answer::Silent(_)))
}

fn holds_for(answer: &Answer) -> Duration {
    if is_bad(Some(answer)) {
        BAD_FOR
    } else {
        GOOD_FOR
    }
}

/// Keeps the `artifact_checks` small, until the operator ends.
pub async fn sweep(ctx: Arc<Context>) {
    let mut turns = tokio::time::interval(GOOD_FOR / 2);
    loop {
        turns.tick().await;
        ctx.artifact_checks.sweep();
    }
}

/// Puts questions for a binding of this model; each answer that is news wakes it.
pub fn ask(ctx: &Arc<Context>, binding: &ObjectKey, model: &str, questions: Vec<Question>) {
    for question in questions {
        if !ctx.artifact_checks.begin(binding, &question) {
            continue;
        }
        let (ctx, binding, model) = (Arc::clone(ctx), binding.clone(), model.to_owned());
        tokio::spawn(async move {
            // The semaphore is never closed.
            let permit = ctx.artifact_checks.permits.acquire().await;
            let answer = answer(&ctx, binding.namespace(), &model, &question).await;
            drop(permit);
            tracing::debug!(
                binding = binding.name(),
                version = question.version,
                ?answer,
                "asked whether a version can be run"
            );
            if ctx.artifact_checks.keep(&binding, question, answer) {
                ctx.queues.bindings.enqueue(binding);
            }
        });
    }
}

async fn answer(ctx: &Context, namespace: &str, model: &str, question: &Question) -> Answer {
    let model = ctx.stores.model(namespace, model);
    let registry = model.as_ref().map(registry_of);
    let state = registry.as_ref().map(|name| ctx.registries.of(name));
    let client = state.as_ref().and_then(|state| state.connection.client());
    if let (true, Some(client)) = (question.must_exist, &client)
        && let Some(gone) = is_gone(client, question).await
    {
        return gone;
    }
    let uri = &question.artifact_uri;
    // A move relies on a recent read of the same files; a rollback checks them again.
    if let Some(state) = &state
        && !question.must_exist
        && state.readable_artifacts.contains(uri, Instant::now())
    {
        return Answer::Readable;
    }
    let kept = state
        .as_ref()
        .and_then(|state| state.store_clients.get(STORES_FOR));
    let stores = match kept {
        Some(stores) => stores,
        None => match stores(ctx, registry.as_ref(), client).await {
            Ok(stores) => stores,
            Err(problem) => return Answer::Silent(problem.message),
        },
    };
    match stores.check(uri).await {
        Availability::Readable => {
            if let Some(state) = &state {
                state.readable_artifacts.record(uri, Instant::now());
            }
            Answer::Readable
        }
        Availability::Missing(why) => Answer::Gone(why),
        Availability::Unknown(why) => Answer::Silent(why),
        Availability::Unchecked(why) => Answer::Unchecked(why),
    }
}

/// Clients of the stores, with what the registry's Secret holds now; kept for the next questions.
async fn stores(
    ctx: &Context,
    name: Option<&ObjectKey>,
    client: Option<RegistryClient>,
) -> Result<Arc<ArtifactStores>, Problem> {
    let registry = name.and_then(|name| ctx.stores.registries.get(name));
    let settings = match &registry {
        Some(registry) => artifact_settings(registry, &ctx.client).await?,
        None => BTreeMap::new(),
    };
    let is_connected = client.is_some();
    let stores = Arc::new(ArtifactStores::new(
        client.map(proxied_artifacts),
        settings,
        ctx.settings.allow_file_artifacts,
    ));
    if let Some(name) = name.filter(|_| is_connected && registry.is_some()) {
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

/// Whether the registry says plainly that it has no such version any more. One that cannot say hinders no rollback.
async fn is_gone(client: &RegistryClient, question: &Question) -> Option<Answer> {
    let Question {
        model,
        version,
        artifact_uri,
        ..
    } = question;
    match client.version(model, version).await {
        Ok(None) => Some(Answer::Gone(format!(
            "the registry has no version {version} of model {model:?} any more"
        ))),
        Ok(Some(found)) if found.artifact_uri.as_ref() != Some(artifact_uri) => {
            Some(Answer::Gone(format!(
                "the registry's version {version} of model {model:?} is another one than the one that ran"
            )))
        }
        Ok(Some(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            model: "m".into(),
            version: "1".into(),
            artifact_uri: "s3://m/1".into(),
            must_exist: false,
        }
    }

    #[test]
    fn the_same_answer_is_news_where_the_last_one_was_too_old_to_be_used() {
        let (artifact_checks, name) = (ArtifactChecks::default(), ObjectKey::new("ml", "taxi"));
        assert!(artifact_checks.keep(&name, question(), Answer::Readable));
        assert!(!artifact_checks.keep(&name, question(), Answer::Readable));
        let long_ago = Instant::now()
            .checked_sub(GOOD_FOR)
            .expect("the machine runs for longer than that");
        lock(&artifact_checks.pages)
            .values_mut()
            .flatten()
            .for_each(|(_, known)| known.at = long_ago);
        assert!(artifact_checks.evidence(&name).is_empty());
        assert!(artifact_checks.keep(&name, question(), Answer::Readable));
        assert_eq!(artifact_checks.evidence(&name).len(), 1);
    }
}
