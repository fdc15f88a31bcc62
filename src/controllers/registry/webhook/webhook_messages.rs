//! The texts about a webhook: causes and remedies of problems, and the condition `WebhookReady`.
//!
//! Absent: requests, and the state of the webhook.

use kube::ResourceExt;

use crate::api::conditions::{ConditionUpdate, WEBHOOK_READY, find};
use crate::api::model_registry::WebhookMode;
use crate::api::{ModelRegistry, Reason, reason::Problem};
use crate::controllers::context::Context;
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::webhook::webhook_state::{Registration, WebhookReport};
use crate::registries::RegistryError;

const ADMINISTRATOR_REMEDY: &str = "make the user of spec.auth an administrator of MLflow, or register the webhook by hand and set spec.webhook.mode: External";
const UPGRADE_REMEDY: &str =
    "MLflow has webhooks from 3.3 on: upgrade the server, or set spec.webhook.mode: Disabled";
const KEY_REMEDY: &str = "start MLflow with MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, the same Fernet key for all its workers, else most deliveries are lost; see docs/webhooks.md";
const DATABASE_REMEDY: &str = "an MLflow server that keeps its registry in files has no webhooks: give it a database (--backend-store-uri), or set spec.webhook.mode: Disabled";
const ADDRESS_REMEDY: &str = "start MLflow with MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true and, for http, MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https";
const CERTIFICATE_REMEDY: &str = "MLflow trusts well-known authorities only: use a certificate of one of those, or http inside the cluster";
const RECEIVER_REMEDY: &str = "let spec.webhook.url name this operator's webhook Service, set webhook.enabled in the chart, and check NetworkPolicies";

/// The problem that an error of MLflow's webhook API stands for.
pub fn problem(error: RegistryError) -> Problem {
    let (reason, remedy) = match &error {
        RegistryError::Forbidden { .. } => (Reason::WebhookRefused, ADMINISTRATOR_REMEDY),
        RegistryError::WrongServer {
            status: 404 | 405, ..
        } => (Reason::WebhookUnsupported, UPGRADE_REMEDY),
        RegistryError::ServerError {
            status: 500,
            code: Some(_),
            ..
        } => (Reason::WebhookKeyMissing, KEY_REMEDY),
        RegistryError::ServerError {
            status: 500 | 501,
            code: None,
            ..
        } => (Reason::WebhookUnsupported, DATABASE_REMEDY),
        RegistryError::Refused {
            status: 400, text, ..
        } if text.to_lowercase().contains("webhook url") => {
            (Reason::WebhookAddressRefused, ADDRESS_REMEDY)
        }
        _ => return error.into(),
    };
    Problem::new(reason, format!("{error}; {remedy}"))
}

/// The problem of a test delivery that was answered with this status.
pub fn delivery_refused(url: &str, status: u16) -> Problem {
    let remedy = match status {
        401 => "the receiver reads another Secret, or a proxy alters the requests",
        404 => {
            "another server answers there: let spec.webhook.url name this operator's webhook Service, without a path"
        }
        503 => {
            "no replica leads yet, or the others cannot reach the leader's health port: check NetworkPolicies"
        }
        _ => {
            "let spec.webhook.url name this operator's webhook Service, without a proxy in between"
        }
    };
    Problem::new(
        Reason::WebhookUnreachable,
        format!("MLflow's test delivery to {url} was answered with {status}: {remedy}"),
    )
}

/// The problem of a test delivery that did not arrive.
pub fn delivery_failed(url: &str, cause: &str) -> Problem {
    if cause.contains("not a public IP") {
        let message = format!("MLflow refuses to deliver to {url}: “{cause}”; {ADDRESS_REMEDY}");
        return Problem::new(Reason::WebhookAddressRefused, message);
    }
    let remedy = if cause.contains("certificate") || cause.contains("SSL") {
        CERTIFICATE_REMEDY
    } else {
        RECEIVER_REMEDY
    };
    let message = format!("MLflow cannot deliver to {url}: “{cause}”; {remedy}");
    Problem::new(Reason::WebhookUnreachable, message)
}

/// The condition `WebhookReady`; `None` if no webhook is wanted and none is left.
pub fn condition(
    registry: &ModelRegistry,
    ctx: &Context,
    state: &RegistryState,
) -> Option<ConditionUpdate> {
    let report = state.webhook.report();
    if let Some(registration) = &report.registration
        && registration.is_removal_failed
        && let Some(problem) = &registration.problem
    {
        let cause = &problem.message;
        return Some(not_ready(
            problem.reason,
            format!("the webhook is no longer wanted but cannot be removed yet: {cause}"),
        ));
    }
    if registry.webhook_mode() == WebhookMode::Disabled {
        return None;
    }
    if !ctx.settings.receives_webhooks() {
        let message = "the operator runs without --webhook-address: set webhook.enabled in the chart; polling goes on";
        return Some(not_ready(Reason::WebhookNotServed, message));
    }
    let Some(registration) = &report.registration else {
        return Some(recorded_condition(registry).unwrap_or_else(pending));
    };
    Some(registered_condition(registry, registration, &report))
}

fn registered_condition(
    registry: &ModelRegistry,
    registration: &Registration,
    report: &WebhookReport,
) -> ConditionUpdate {
    if let Some(problem) = &registration.problem {
        let message = format!("{}; polling goes on", problem.message);
        return not_ready(problem.reason, message);
    }
    if report.is_settling {
        let reason = Reason::WebhookSettling;
        return ConditionUpdate::unknown(WEBHOOK_READY, reason, SETTLING);
    }
    if let Some(model) = &report.silent_model {
        return not_ready(Reason::WebhookSilent, silent(model));
    }
    let message = ready(registry, registration);
    ConditionUpdate::yes(WEBHOOK_READY, Reason::WebhookReady, message)
}

fn not_ready(reason: Reason, message: impl Into<String>) -> ConditionUpdate {
    ConditionUpdate::no(WEBHOOK_READY, reason, message)
}

fn pending() -> ConditionUpdate {
    let message = "the webhook is registered when the registry answers";
    ConditionUpdate::unknown(WEBHOOK_READY, Reason::Pending, message)
}

/// The condition that an earlier process wrote for the same spec, so that a restart changes
/// nothing.
fn recorded_condition(registry: &ModelRegistry) -> Option<ConditionUpdate> {
    let recorded = find(&registry.status.as_ref()?.conditions, WEBHOOK_READY)?;
    if recorded.observed_generation != registry.metadata.generation {
        return None;
    }
    let status = match recorded.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    };
    Some(ConditionUpdate {
        type_: WEBHOOK_READY,
        status,
        reason: Reason::parse(&recorded.reason)?,
        message: recorded.message.clone(),
    })
}

const SETTLING: &str = "registered less than a minute ago: MLflow's workers cache their webhooks for 60 s, and until then only polling sees moves";

fn silent(model: &str) -> String {
    format!(
        "polling found a moved alias of {model:?} that no delivery announced: look for “Failed to deliver webhook” in MLflow's log; polling goes on"
    )
}

fn ready(registry: &ModelRegistry, registration: &Registration) -> String {
    if let Some(webhook) = &registration.webhook {
        return format!("registered, and a test delivery arrived at {}", webhook.url);
    }
    let namespace = registry.namespace().unwrap_or_default();
    let name = registry.name_any();
    format!(
        "deliveries to /webhooks/{namespace}/{name} are accepted if they are signed with the Secret"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://mlflow/api";

    fn refused(text: &str) -> RegistryError {
        RegistryError::Refused {
            at: URL.to_owned(),
            status: 400,
            code: None,
            text: text.to_owned(),
        }
    }

    fn failed(code: Option<&str>) -> RegistryError {
        RegistryError::ServerError {
            at: URL.to_owned(),
            status: 500,
            code: code.map(ToOwned::to_owned),
            text: String::new(),
        }
    }

    #[test]
    fn a_refusal_names_its_remedy() {
        let cases = [
            (
                refused("Invalid webhook URL scheme: 'http'. Allowed schemes are: https."),
                Reason::WebhookAddressRefused,
                "ALLOWED_SCHEMES=http,https",
            ),
            (
                refused("Webhook URL must not resolve to a non-public IP address."),
                Reason::WebhookAddressRefused,
                "ALLOW_PRIVATE_IPS=true",
            ),
            (
                failed(Some("INTERNAL_ERROR")),
                Reason::WebhookKeyMissing,
                "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
            ),
            (
                failed(None),
                Reason::WebhookUnsupported,
                "--backend-store-uri",
            ),
            (
                RegistryError::WrongServer {
                    at: URL.to_owned(),
                    status: 404,
                    response: String::new(),
                },
                Reason::WebhookUnsupported,
                "3.3",
            ),
            (
                RegistryError::Forbidden {
                    at: URL.to_owned(),
                    sent: "a bearer token",
                    text: String::new(),
                },
                Reason::WebhookRefused,
                "administrator",
            ),
            (
                refused("something else"),
                Reason::RegistryRefused,
                "something else",
            ),
        ];
        for (error, reason, remedy) in cases {
            let problem = problem(error);
            assert_eq!(problem.reason, reason, "{}", problem.message);
            assert!(problem.message.contains(remedy), "{}", problem.message);
        }
    }

    #[test]
    fn remedies_are_short_enough_to_be_read_in_a_condition() {
        for remedy in [
            ADMINISTRATOR_REMEDY,
            UPGRADE_REMEDY,
            KEY_REMEDY,
            DATABASE_REMEDY,
            ADDRESS_REMEDY,
            CERTIFICATE_REMEDY,
            RECEIVER_REMEDY,
            SETTLING,
        ] {
            assert!(remedy.len() <= 200, "{remedy}");
        }
    }
}
