//! Polls a registry when it is due: one refresh of all watched models.
//!
//! Absent: the schedule's state, which is `PollSchedule`'s, and the status.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::api::{ModelRegistry, Reason, reason::Problem};
use crate::controllers::cached::of_registry;
use crate::controllers::context::Context;
use crate::controllers::metrics::OutcomeLabel;
use crate::controllers::registry::credentials::connection;
use crate::controllers::registry::refresh::{Refresh, RefreshedModels};
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::state::poll_schedule::PollTrigger;
use crate::kubernetes::backoff::jittered;
use crate::kubernetes::key::ObjectKey;
use crate::registries::{Connection, RegistryClient};

/// The name that is requested if no model is watched, to see whether the registry answers.
const PROBE: &str = "pointsman";
/// By how much of the interval a poll may come earlier, so that the polls of many registries spread out.
const JITTER: f64 = 0.1;

/// Polls the registry, if that is due and it is not suspended.
pub async fn poll_if_due(
    registry: &ModelRegistry,
    ctx: &Context,
    state: &RegistryState,
    watched: &BTreeSet<String>,
) {
    let trigger = PollTrigger::of(registry);
    if registry.spec.suspend || !state.schedule.is_due(&trigger, Instant::now()) {
        return;
    }
    let poll = Poll {
        registry,
        ctx,
        state,
        own: ObjectKey::of(registry),
    };
    let outcome = match poll.request(watched).await {
        Ok(response) => {
            poll.record_success(response, watched).await;
            Reason::Reachable
        }
        Err(problem) => {
            let reason = problem.reason;
            poll.record_failure(problem);
            reason
        }
    };
    let outcome = outcome.as_str();
    ctx.metrics
        .registry_polls
        .get_or_create(&OutcomeLabel { outcome })
        .inc();
    let next = Instant::now() + until_next_poll(registry, state);
    state.schedule.record(trigger, next);
}

/// One poll of a registry.
struct Poll<'a> {
    registry: &'a ModelRegistry,
    ctx: &'a Context,
    state: &'a RegistryState,
    own: ObjectKey,
}

/// The result of a poll that succeeded, and the connection that it was made over.
struct PollResponse {
    connection: Connection,
    client: RegistryClient,
    models: RefreshedModels,
}

impl Poll<'_> {
    async fn request(&self, watched: &BTreeSet<String>) -> Result<PollResponse, Problem> {
        let connection = connection(self.registry, &self.ctx.client).await?;
        let client = match self.state.connection.client_for(&connection) {
            Some(client) => client,
            None => self.connect(&connection)?,
        };
        let models = if watched.is_empty() {
            let probe = BTreeSet::from([PROBE.to_owned()]);
            client.snapshots(&probe).await?;
            RefreshedModels::default()
        } else {
            let refresh = Refresh::new(self.ctx, &self.own, self.state);
            refresh.run(&client, watched).await?
        };
        Ok(PollResponse {
            connection,
            client,
            models,
        })
    }

    fn connect(&self, connection: &Connection) -> Result<RegistryClient, Problem> {
        let metrics = self.ctx.metrics.requests.clone();
        Ok(RegistryClient::connect(connection.clone(), metrics)?)
    }

    async fn record_success(&self, response: PollResponse, watched: &BTreeSet<String>) {
        let PollResponse {
            connection,
            client,
            models,
        } = response;
        let was_outage = self.state.connection.outage().is_some();
        let is_news = self.state.record_success(connection, client.clone());
        self.state.snapshots.retain(|model| watched.contains(model));
        let stored = &self.ctx.stores.models;
        self.state.sizes.retain(|model| stored.has(model));
        self.state.rechecks.retain(|model| stored.has(model));
        self.state.candidate_tags.retain(|model| stored.has(model));
        if self.ctx.registries.is_current(&self.own, self.state) {
            let metrics = &self.ctx.metrics;
            metrics.record_poll(self.own.namespace(), self.own.name());
        }
        if is_news {
            let version = client.server_version().await;
            self.state.connection.set_server_version(version);
            self.ctx.enqueue_models_named(&self.own, &models.outdated);
            self.ctx.enqueue_models_low_priority(&self.own);
        } else {
            self.ctx.enqueue_models_named(&self.own, &models.changed);
        }
        let models = stored.names(of_registry(&self.own));
        let rechecked = self.state.rechecks.choose(models);
        self.ctx.queues.models.enqueue_low_priority(rechecked);
        let waiting = self.state.candidate_tags.choose();
        self.ctx.queues.models.enqueue_low_priority(waiting);
        if was_outage {
            // A settled model's status does not change, and its bindings may wait for the end of the outage.
            self.ctx.enqueue_bindings_low_priority(&self.own);
        }
    }

    fn record_failure(&self, problem: Problem) {
        let (reason, message) = (problem.reason, problem.message.clone());
        let news = self.state.connection.record_failure(problem);
        if news.is_new_problem {
            tracing::warn!(registry = self.own.name(), %reason, message, "the registry cannot be polled");
        }
        if news.is_new_outage {
            self.ctx.enqueue_models_low_priority(&self.own);
        }
    }
}

/// The interval, or the backoff if the registry has a problem; longer if the server asks for it.
fn until_next_poll(registry: &ModelRegistry, state: &RegistryState) -> Duration {
    let interval = registry.interval();
    let retry_after = match state.connection.client() {
        Some(client) => client.retry_after(),
        None => Duration::ZERO,
    };
    let backoff = state.connection.backoff(interval);
    if backoff == interval {
        jittered(interval, JITTER).max(retry_after)
    } else {
        backoff.max(retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jitter_is_at_most_a_tenth_and_never_later_than_the_interval() {
        let interval = Duration::from_secs(30);
        for _ in 0..100 {
            let jittered = jittered(interval, JITTER);
            assert!(jittered <= interval && jittered >= Duration::from_secs(27));
        }
    }
}
