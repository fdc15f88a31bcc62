//! The sentences that tell of a webhook: what a refusal means and what to do, and the condition `WebhookReady`.
//!
//! Absent: requests, and the state that is told of.

use kube::ResourceExt;

use crate::api::conditions::{ConditionUpdate, WEBHOOK_READY, find};
use crate::api::model_registry::WebhookMode;
use crate::api::{ModelRegistry, Reason, reason::Problem};
use crate::controllers::context::Context;
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::webhook_state::Registration;
use crate::registries::mlflow::RegistryError;

/// What a refusal means for a webhook.
pub fn problem(error: RegistryError) -> Problem {
    let (reason, remedy) = match &error {
        RegistryError::Forbidden { .. } => (
            Reason::WebhookRefused,
            "registering webhooks takes an administrator of MLflow: make the user of spec.auth one, or register the webhook by hand and set spec.webhook.mode: External",
        ),
        RegistryError::NotMlflow {
            status: 404 | 405, ..
        } => (
            Reason::WebhookUnsupported,
            "MLflow has webhooks from 3.3 on: upgrade the server, or set spec.webhook.mode: Disabled",
        ),
        RegistryError::Unwell {
            status: 500,
            code: Some(_),
            ..
        } => (
            Reason::WebhookKeyMissing,
            "a worker of the MLflow server cannot read what another wrote, and so loses most deliveries of all webhooks: set MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY for the server (the same Fernet key for all workers and replicas) and restart it; see docs/webhooks.md for webhooks that stay unreadable",
        ),
        RegistryError::Unwell {
            status: 500 | 501,
            code: None,
            ..
        } => (
            Reason::WebhookUnsupported,
            "an MLflow server that keeps its registry in files has no webhooks: give it a database (--backend-store-uri), or set spec.webhook.mode: Disabled",
        ),
        RegistryError::Refused {
            status: 400, words, ..
        } if words.to_lowercase().contains("webhook url") => {
            (Reason::WebhookAddressRefused, ADDRESS_REMEDY)
        }
        _ => return error.into(),
    };
    Problem::new(reason, format!("{error}; {remedy}"))
}

const ADDRESS_REMEDY: &str = "for a receiver inside the cluster start the MLflow server with MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true, and for http with MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https; and let spec.webhook.url name a host that the server can resolve";

/// MLflow's example was answered so.
pub fn answered(url: &str, status: u16) -> String {
    let remedy = match status {
        401 => "the receiver reads another Secret, or something on the way alters requests",
        404 => {
            "another receiver answers there: let spec.webhook.url name this operator's webhook Service, without a path"
        }
        503 => {
            "no replica leads yet, or the one that leads cannot be reached by the others: see that they reach each other's health port"
        }
        _ => {
            "see that spec.webhook.url names this operator's webhook Service and that nothing stands in between"
        }
    };
    format!("MLflow delivered an example to {url}, and {status} was answered: {remedy}")
}

/// MLflow's example did not arrive.
pub fn failed(url: &str, words: &str) -> Problem {
    if words.contains("not a public IP") {
        let message = format!("MLflow refuses to deliver to {url}: “{words}”; {ADDRESS_REMEDY}");
        return Problem::new(Reason::WebhookAddressRefused, message);
    }
    let remedy = if words.contains("certificate") || words.contains("SSL") {
        "MLflow trusts well-known authorities only, and cannot be told of others: use a certificate of one of those, or http inside the cluster"
    } else {
        "see that spec.webhook.url names this operator's webhook Service, that webhook.enabled is set in the chart, and that no NetworkPolicy is in the way"
    };
    Problem::new(
        Reason::WebhookUnreachable,
        format!("MLflow cannot deliver to {url}: “{words}”; {remedy}"),
    )
}

/// The condition that tells of the webhook; none where no webhook is wanted, and none stays.
pub fn condition(
    registry: &ModelRegistry,
    ctx: &Context,
    state: &RegistryState,
) -> Option<ConditionUpdate> {
    let told = state.webhook.tell();
    if let Some(Registration {
        problem: Some(problem),
        stays: true,
        ..
    }) = &told.kept
    {
        return Some(stays(problem));
    }
    if registry.webhook_mode() == WebhookMode::Disabled {
        return None;
    }
    if !ctx.settings.receives_webhooks() {
        let message = "this operator was started without --webhook-address: set webhook.enabled in the chart; polling goes on";
        return Some(ConditionUpdate::no(
            WEBHOOK_READY,
            Reason::WebhookNotServed,
            message,
        ));
    }
    Some(match told.kept {
        Some(Registration {
            problem: Some(problem),
            ..
        }) => ConditionUpdate::no(
            WEBHOOK_READY,
            problem.reason,
            format!("{}; polling goes on", problem.message),
        ),
        None => as_before(registry)
            .unwrap_or_else(|| ConditionUpdate::unknown(WEBHOOK_READY, Reason::Pending, PENDING)),
        Some(_) if told.is_settling => {
            ConditionUpdate::unknown(WEBHOOK_READY, Reason::WebhookSettling, SETTLING)
        }
        Some(kept) => match told.silent {
            Some(model) => {
                ConditionUpdate::no(WEBHOOK_READY, Reason::WebhookSilent, silent(&model))
            }
            None => {
                ConditionUpdate::yes(WEBHOOK_READY, Reason::WebhookReady, well(registry, &kept))
            }
        },
    })
}

fn stays(problem: &Problem) -> ConditionUpdate {
    let message = format!(
        "the operator's webhook is no longer wanted, and not removed yet; it is tried again: {}",
        problem.message
    );
    ConditionUpdate::no(WEBHOOK_READY, problem.reason, message)
}

const PENDING: &str = "the webhook is looked at when the registry answers";

/// What was told of the same spec before this process began, so that a restart by itself is no news.
fn as_before(registry: &ModelRegistry) -> Option<ConditionUpdate> {
    let before = find(&registry.status.as_ref()?.conditions, WEBHOOK_READY)?;
    let status = match before.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    };
    let reason = Reason::parse(&before.reason)?;
    let is_same = before.observed_generation == registry.metadata.generation;
    is_same.then(|| ConditionUpdate {
        type_: WEBHOOK_READY,
        status,
        reason,
        message: before.message.clone(),
    })
}

const SETTLING: &str = "registered less than a minute ago: each worker of the MLflow server keeps its list of webhooks for 60 s, and until then only polling sees moves";

fn silent(model: &str) -> String {
    format!(
        "polling found that an alias of {model:?} moved, and no delivery had announced it: look for “Failed to deliver webhook” in the MLflow server's log; MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY must be set there, and the receiver's address be reached from there; polling goes on"
    )
}

fn well(registry: &ModelRegistry, kept: &Registration) -> String {
    if let Some(webhook) = &kept.webhook {
        return format!("registered, and an example arrived at {}", webhook.url);
    }
    let (namespace, name) = (
        registry.namespace().unwrap_or_default(),
        registry.name_any(),
    );
    format!(
        "deliveries to /webhooks/{namespace}/{name} are accepted where they are signed with the Secret"
    )
}
