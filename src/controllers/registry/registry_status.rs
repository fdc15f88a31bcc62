//! The status of a `ModelRegistry`: built from the state of the registry, and written if it
//! changed.
//!
//! Absent: the texts about the webhook, which are in `webhook_messages`.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::conditions::{ConditionUpdate, READY, TAGS_WRITTEN, not_ready, transition};
use crate::api::reason::Problem;
use crate::api::{ModelRegistry, ModelRegistryStatus, Reason, names};
use crate::controllers::context::Context;
use crate::controllers::registry::poll::interval;
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::webhook::webhook_finalizer::registered_webhook;
use crate::controllers::registry::webhook::webhook_messages;
use crate::kubernetes::failure::ReconcileError;

/// Writes the status, if it changed.
pub async fn publish(
    registry: &ModelRegistry,
    ctx: &Context,
    state: &RegistryState,
    watched: usize,
) -> Result<(), ReconcileError> {
    let new = status(registry, ctx, state, watched);
    if registry.status.as_ref() == Some(&new) {
        return Ok(());
    }
    let mut changed = registry.clone();
    changed.status = Some(new);
    ctx.write_status(&ctx.stores.registries, &changed).await?;
    Ok(())
}

fn status(
    registry: &ModelRegistry,
    ctx: &Context,
    state: &RegistryState,
    watched: usize,
) -> ModelRegistryStatus {
    let generation = registry.metadata.generation;
    let old = registry.status.clone().unwrap_or_default();
    let interval = interval(registry, ctx, state);
    let mut conditions = conditions(registry, state, interval);
    conditions.extend(webhook_messages::condition(registry, ctx, state));
    conditions.extend(tags_written(registry, state));
    ModelRegistryStatus {
        observed_generation: generation,
        watched_models: i32::try_from(watched).ok(),
        server_version: state.connection.server_version().or(old.server_version),
        webhook: registered_webhook(registry, state),
        conditions: transition(&old.conditions, &conditions, generation, Timestamp::now()),
    }
}

/// The condition that a tag of `spec.writeBack` could not be written.
fn tags_written(registry: &ModelRegistry, state: &RegistryState) -> Option<ConditionUpdate> {
    let is_wanted = registry.spec.write_back.deployment_tags && !registry.spec.suspend;
    let problem = state.tags.problem().filter(|_| is_wanted)?;
    let Problem { reason, message } = problem;
    Some(ConditionUpdate::no(TAGS_WRITTEN, reason, message))
}

/// `interval` is the one at which the registry is polled.
fn conditions(
    registry: &ModelRegistry,
    state: &RegistryState,
    interval: Duration,
) -> Vec<ConditionUpdate> {
    if registry.spec.suspend {
        let message = "spec.suspend is true: the registry is not polled; the last resolved versions stay in force";
        return vec![ConditionUpdate::yes(READY, Reason::Suspended, message)];
    }
    let Some(problem) = state.connection.problem() else {
        let message = reachable_message(registry, state, interval);
        return vec![ConditionUpdate::yes(READY, Reason::Reachable, message)];
    };
    let mut conditions = not_ready(&problem);
    for condition in &mut conditions {
        if condition.type_ != READY {
            condition.message = next_poll_message(registry, state, interval);
        }
    }
    conditions
}

fn reachable_message(
    registry: &ModelRegistry,
    state: &RegistryState,
    interval: Duration,
) -> &'static str {
    if interval == registry.interval() {
        "the registry answers"
    } else if interval == state.schedule.pause() {
        "the registry answers; it is polled less often than spec.interval says, because its responses are large: let fewer RegisteredModels follow it"
    } else {
        "the registry answers; it is polled less often than spec.interval says, because its namespace has many registries"
    }
}

/// When a registry with a problem is polled again, and how to have it polled now.
fn next_poll_message(
    registry: &ModelRegistry,
    state: &RegistryState,
    interval: Duration,
) -> String {
    let backoff = state.connection.backoff(interval);
    if backoff == interval {
        return "polled again at every interval".to_owned();
    }
    format!(
        "polled every {} s until it answers; poll now: kubectl pointsman refresh mreg/{} -n {} (or annotation {})",
        backoff.as_secs(),
        registry.name_any(),
        registry.namespace().unwrap_or_default(),
        names::REQUESTED_AT_ANNOTATION
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_registry_that_is_polled_less_often_says_why() {
        let spec = json!({"mlflow": {"uri": "http://mlflow:5000"}, "interval": "1s"});
        let spec = serde_json::from_value(spec).expect("a spec");
        let (registry, state) = (ModelRegistry::new("mlflow", spec), RegistryState::default());
        let message = |seconds| reachable_message(&registry, &state, Duration::from_secs(seconds));
        assert_eq!(message(1), "the registry answers");
        assert!(message(3).ends_with("its namespace has many registries"));
        state.schedule.record_pause(Duration::from_secs(3));
        assert!(message(3).contains("its responses are large"));
        assert!(message(4).ends_with("its namespace has many registries"));
        for seconds in [1, 3, 4] {
            assert!(message(seconds).chars().count() <= 200);
        }
    }
}
