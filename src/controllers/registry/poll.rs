//! Polls a registry when it is due: one refresh of all watched models.
//!
//! Absent: the schedule's state, which is `PollSchedule`'s, and the status.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::ResourceExt;

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

/// How long a whole poll may take. It takes more than one request if many models are watched.
const DEADLINE: Duration = Duration::from_secs(120);
/// How many polls of the registries of one namespace are due in a second. If there are more registries, each is polled less often.
const POLLS_A_SECOND: u32 = 20;
/// How many bytes of responses to polls of one namespace are read in a second, on average.
const BYTES_A_SECOND: f64 = 16e6;

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
    let response = match tokio::time::timeout(DEADLINE, poll.request(watched)).await {
        Ok(response) => response,
        Err(_) => Err(overdue()),
    };
    let outcome = match response {
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
    let received = match state.connection.client() {
        Some(client) => client.take_received(),
        None => 0,
    };
    let beside = registries_beside(registry, ctx);
    state.schedule.record_pause(pause_after(received, beside));
    let interval = interval_beside(registry, state, beside);
    if interval > registry.interval() {
        ctx.metrics.count_limited(poll.own.namespace(), "Polls");
    }
    let next = Instant::now() + until_next_poll(interval, state);
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
            None => self.ctx.connect(connection.clone())?,
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
        self.state.rechecks.choose(models);
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

/// The interval at which a registry is polled: its own, or a longer one if its namespace has many registries or its last
/// responses were large.
pub fn interval(registry: &ModelRegistry, ctx: &Context, state: &RegistryState) -> Duration {
    interval_beside(registry, state, registries_beside(registry, ctx))
}

fn interval_beside(registry: &ModelRegistry, state: &RegistryState, registries: u32) -> Duration {
    let shortest = shortest_interval(registries);
    registry
        .interval()
        .max(shortest)
        .max(state.schedule.pause())
}

/// How many registries the namespace has.
fn registries_beside(registry: &ModelRegistry, ctx: &Context) -> u32 {
    let namespace = registry.namespace().unwrap_or_default();
    let registries = ctx.stores.registries.count_in(&namespace);
    u32::try_from(registries).unwrap_or(u32::MAX)
}

/// The pause after responses of so many bytes: reading them takes time from all others.
fn pause_after(received: usize, registries: u32) -> Duration {
    let received = u32::try_from(received).unwrap_or(u32::MAX);
    Duration::from_secs(1).mul_f64(f64::from(received) / BYTES_A_SECOND) * registries
}

/// The shortest interval for so many registries of one namespace.
fn shortest_interval(registries: u32) -> Duration {
    Duration::from_secs(1) * registries / POLLS_A_SECOND
}

fn overdue() -> Problem {
    let seconds = DEADLINE.as_secs();
    Problem::new(
        Reason::RegistryUnreachable,
        format!(
            "a poll was not complete after {seconds} s; give the server more capacity, or let fewer RegisteredModels follow it"
        ),
    )
}

/// The interval, or the backoff if the registry has a problem; longer if the server asks for it.
fn until_next_poll(interval: Duration, state: &RegistryState) -> Duration {
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
    fn many_registries_of_a_namespace_are_polled_less_often() {
        assert!(shortest_interval(20) <= Duration::from_secs(1));
        assert_eq!(shortest_interval(40), Duration::from_secs(2));
        assert_eq!(pause_after(16_000_000, 40), Duration::from_secs(40));
        assert!(
            pause_after(739_000, 1) < Duration::from_millis(50),
            "1000 models"
        );
        assert_eq!(
            shortest_interval(u32::MAX).as_secs(),
            u64::from(u32::MAX) / 20
        );
    }

    #[test]
    fn the_jitter_is_at_most_a_tenth_and_never_later_than_the_interval() {
        let interval = Duration::from_secs(30);
        for _ in 0..100 {
            let jittered = jittered(interval, JITTER);
            assert!(jittered <= interval && jittered >= Duration::from_secs(27));
        }
    }
}
