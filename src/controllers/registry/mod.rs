//! The loop of `ModelRegistry`: connect, poll at all watched models with one question, tell the models that changed.
//!
//! Absent: writes to the registry. Those belong to the model that declares them.

pub mod credentials;
pub mod known_tags;
pub mod listing;
pub mod refresh;
pub mod refresh_batcher;
pub mod state;
pub mod webhook;
pub mod webhook_messages;
pub mod webhook_state;
pub mod write_back;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::conditions::{ConditionUpdate, READY, RECONCILING, STALLED, transition};
use crate::api::{ModelRegistry, ModelRegistryStatus, Reason, names, reason::Problem};
use crate::controllers::context::Context;
use crate::controllers::metrics::Outcome;
use crate::controllers::registry::credentials::connection;
use crate::controllers::registry::listing::{is_moved, is_unlisted, list_together, mirrors};
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::write_back::write_back;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::work_queue::Requeue;
use crate::registries::mlflow::{Connection, ModelFacts, Registry};

/// How long a registry that is ill is left alone at most, where its interval is shorter.
const MOST_BACK_OFF: Duration = Duration::from_secs(300);

/// One pass over a registry.
pub async fn reconcile(
    registry: Arc<ModelRegistry>,
    ctx: Arc<Context>,
) -> Result<Requeue, ReconcileError> {
    if registry.metadata.deletion_timestamp.is_some() {
        return webhook::finalize(&registry, &ctx).await;
    }
    let own = ObjectKey::of(registry.as_ref());
    if ctx.keeps(&own) && webhook::keep_finalizer(&registry, &ctx).await? {
        // The write comes back as a change.
        return Ok(Requeue::await_change());
    }
    let state = ctx.registries.of(&own);
    let watched = state.watched(|| {
        ctx.stores
            .models_of(&own)
            .map(|model| model.model_name().to_owned())
            .collect()
    });
    let request = registry
        .annotations()
        .get(names::REQUESTED_AT_ANNOTATION)
        .cloned();
    let interval = registry.interval();
    if !registry.spec.suspend && state.is_due(registry.metadata.generation, request.as_ref()) {
        let changed = poll(&registry, &ctx, &state, &watched).await;
        state.looked(
            registry.metadata.generation,
            request,
            until_next(interval, &state),
        );
        changed.enqueue(&ctx, &own);
    }
    write_back(&registry, &ctx);
    if ctx.keeps(&own) {
        webhook::attend(&registry, &ctx, &state);
        publish(&registry, &ctx, &state, watched.len()).await?;
    }
    Ok(if registry.spec.suspend {
        Requeue::await_change()
    } else {
        Requeue::after(state.until_next_look().min(state.webhook.until_due()))
    })
}

/// How long until the next poll: the interval, and longer while the registry is ill, or where it asked for patience.
fn until_next(interval: Duration, state: &RegistryState) -> Duration {
    let asked = state
        .registry()
        .map(|registry| registry.hold())
        .unwrap_or_default();
    let ill = backed_off(interval, state.failures());
    // A registry that recovers is not met by everybody at once.
    if ill == interval {
        jittered(interval).max(asked)
    } else {
        ill.max(asked)
    }
}

/// The interval after so many failures in a row: doubled with each but the first, up to sixteen times or five minutes.
fn backed_off(interval: Duration, failures: u32) -> Duration {
    let most = (interval * 16).min(MOST_BACK_OFF).max(interval);
    interval
        .saturating_mul(1 << failures.saturating_sub(1).min(4))
        .min(most)
}

/// Up to a tenth earlier, so that many registries' looks spread out, and never later than the user asked for.
fn jittered(interval: Duration) -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    interval.mul_f64(1.0 - 0.1 * f64::from(nanos % 1000) / 1000.0)
}

/// Which models a poll concerns.
enum Affected {
    /// All of them, and these first.
    All(BTreeSet<String>),
    /// These.
    Some(BTreeSet<String>),
}

impl Affected {
    /// Wakes the registered models that are concerned.
    fn enqueue(&self, ctx: &Context, registry: &ObjectKey) {
        let (Self::All(first) | Self::Some(first)) = self;
        ctx.enqueue_models_named(registry, first);
        if matches!(self, Self::All(_)) {
            ctx.enqueue_models_low_priority(registry);
        }
    }
}

async fn poll(
    registry: &ModelRegistry,
    ctx: &Context,
    state: &RegistryState,
    watched: &BTreeSet<String>,
) -> Affected {
    let answer = request(registry, ctx, state, watched).await;
    let outcome = answer
        .as_ref()
        .map_or_else(|problem| problem.reason, |_| Reason::Reachable);
    ctx.metrics
        .registry_polls
        .get_or_create(&Outcome {
            outcome: outcome.as_str(),
        })
        .inc();
    let PollResult {
        connection,
        client,
        mut changed,
        moved,
        missing,
    } = match answer {
        Ok(answer) => answer,
        Err(problem) => {
            if !state.set_problem(problem.clone()) {
                return Affected::Some(BTreeSet::new());
            }
            tracing::warn!(registry = registry.name_any(), reason = %problem.reason, message = problem.message, "the registry cannot be used");
            return Affected::All(BTreeSet::new());
        }
    };
    ctx.metrics.record_poll(
        &registry.namespace().unwrap_or_default(),
        &registry.name_any(),
    );
    let is_news = state.set_answering(connection, client.clone());
    if is_news {
        state.set_server_version(client.server_version().await);
    }
    state.retain(|model| watched.contains(model));
    // Rule 3: what is missing from one answer is not gone; its loop puts the direct question.
    for name in &missing {
        state.doubt(name);
    }
    changed.extend(missing);
    if is_news {
        Affected::All(moved)
    } else {
        Affected::Some(changed)
    }
}

struct PollResult {
    connection: Connection,
    client: Registry,
    /// The models of which the answer is news.
    changed: BTreeSet<String>,
    /// Those of them whose statuses tell of other versions.
    moved: BTreeSet<String>,
    /// The watched models that are not in the answer.
    missing: BTreeSet<String>,
}

async fn request(
    registry: &ModelRegistry,
    ctx: &Context,
    state: &RegistryState,
    watched: &BTreeSet<String>,
) -> Result<PollResult, Problem> {
    let connection = connection(registry, ctx).await?;
    let client = match state.registry_for(&connection) {
        Some(client) => client,
        None => Registry::connect_counted(connection.clone(), ctx.metrics.requests.clone())
            .map_err(Problem::from)?,
    };
    // Where nothing is watched yet, some question still shows whether the registry answers.
    let probe = BTreeSet::from(["pointsman".to_owned()]);
    let names = if watched.is_empty() { &probe } else { watched };
    let (asked_at, own, mut missing) = (Instant::now(), ObjectKey::of(registry), watched.clone());
    let (mut changed, mut moved, mut unlisted) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let learn = |model: ModelFacts| {
        missing.remove(&model.name);
        if state.learn_by_polling(&model.name, &model, asked_at) {
            let mirrors = mirrors(ctx, &own, &model);
            let is_new = is_unlisted(&mirrors, &model);
            if is_new {
                unlisted.insert(model.name.clone());
            }
            if is_moved(&mirrors, &model) {
                moved.insert(model.name.clone());
                // Its versions are known: it waits for no other page.
                if !is_new && state.let_ahead(&model.name, &connection, &client) {
                    ctx.enqueue_model_named(&own, &model.name);
                }
            }
            changed.insert(model.name);
        }
    };
    client
        .look_each(names, learn)
        .await
        .map_err(Problem::from)?;
    tracing::debug!(
        registry = own.name(), watched = watched.len(), changed = changed.len(), moved = moved.len(), missing = missing.len(), took = ?asked_at.elapsed(),
        "the registry was looked at"
    );
    list_together(state, &client, &unlisted).await;
    Ok(PollResult {
        connection,
        client,
        changed,
        moved,
        missing,
    })
}

async fn publish(
    registry: &ModelRegistry,
    ctx: &Context,
    state: &RegistryState,
    watched: usize,
) -> Result<(), ReconcileError> {
    let old = registry.status.clone().unwrap_or_default();
    let mut conditions = conditions(registry, state);
    conditions.extend(webhook_messages::condition(registry, ctx, state));
    let new = ModelRegistryStatus {
        observed_generation: registry.metadata.generation,
        watched_models: i32::try_from(watched).ok(),
        server_version: state
            .server_version()
            .or_else(|| old.server_version.clone()),
        webhook: webhook::registered(registry, state),
        conditions: transition(
            &old.conditions,
            &conditions,
            registry.metadata.generation,
            Timestamp::now(),
        ),
    };
    if registry.status.as_ref() == Some(&new) {
        return Ok(());
    }
    let mut changed = registry.clone();
    changed.status = Some(new);
    ctx.write_status(&ctx.stores.registries, &changed)
        .await
        .map(drop)
}

/// How often an ill registry is asked: never more seldom than is said here.
fn asked_again(registry: &ModelRegistry, state: &RegistryState) -> String {
    let interval = registry.interval();
    let patient = backed_off(interval, state.failures());
    if patient == interval {
        return "asked again at every interval".to_owned();
    }
    format!(
        "asked again every {} s while it lasts (spec.interval: {}); to request at once, set the annotation {}",
        patient.as_secs(),
        registry.spec.interval,
        names::REQUESTED_AT_ANNOTATION
    )
}

fn conditions(registry: &ModelRegistry, state: &RegistryState) -> Vec<ConditionUpdate> {
    if registry.spec.suspend {
        let message =
            "spec.suspend is true: the registry is not asked; what was resolved stays in force";
        return vec![ConditionUpdate::yes(READY, Reason::Suspended, message)];
    }
    match state.problem() {
        None => vec![ConditionUpdate::yes(
            READY,
            Reason::Reachable,
            "the registry answers",
        )],
        Some(problem) => {
            let heals = matches!(problem.reason, Reason::RegistryUnreachable);
            let beside = if heals { RECONCILING } else { STALLED };
            vec![
                ConditionUpdate::no(READY, problem.reason, &problem.message),
                ConditionUpdate::yes(beside, problem.reason, asked_again(registry, state)),
            ]
        }
    }
}
