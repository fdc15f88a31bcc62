//! Webhooks of a registry: listed, made, changed, tried and deleted. MLflow 3.3 and later; SQL stores only.
//!
//! Absent: deliveries, and the secret in any answer. MLflow never shows it again.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Ask, Registry};
use super::error::RegistryError;
use super::redact::cut;
use super::source::is_id;
use super::wire;

const ROUTE: &str = "api/2.0/mlflow/webhooks";
/// How many webhooks an answer holds at most.
const PAGE: &str = "1000";
/// No walk takes more pages than this.
const MOST_PAGES: usize = 100;
/// The events that are subscribed to: whatever may move what an alias or stage names, as far as MLflow tells it.
const EVENTS: [(&str, &str); 4] = [
    ("MODEL_VERSION_ALIAS", "CREATED"),
    ("MODEL_VERSION_ALIAS", "DELETED"),
    ("MODEL_VERSION", "CREATED"),
    ("REGISTERED_MODEL", "CREATED"),
];

/// A webhook as MLflow shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Webhook {
    /// MLflow's own name for it.
    pub id: String,
    /// The name that it was made with. Several may have the same.
    pub name: String,
    /// Where it delivers to.
    pub url: String,
    /// Whether it delivers, and the very events that Pointsman listens to.
    pub is_whole: bool,
}

/// A webhook as it should be.
#[derive(Clone, Copy)]
pub struct WantedWebhook<'a> {
    /// Its name: letters, digits, dots, underscores and hyphens, 63 at most.
    pub name: &'a str,
    /// Where it delivers to.
    pub url: &'a str,
    /// What it signs deliveries with.
    pub secret: &'a str,
}

/// What MLflow says of a delivery that it tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trial {
    /// It was accepted.
    Arrived,
    /// Something answered with this status.
    Answered(u16),
    /// It did not arrive, in MLflow's words.
    Failed(String),
}

impl Registry {
    /// All webhooks.
    ///
    /// # Errors
    /// Where the registry cannot be asked, has no webhooks, or does not let us see them.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, RegistryError> {
        let mut webhooks = Vec::new();
        let mut token = String::new();
        for _ in 0..MOST_PAGES {
            let mut query = vec![("max_results", PAGE)];
            query.extend((!token.is_empty()).then_some(("page_token", token.as_str())));
            let page: wire::WebhookPage = self.ask_json(&Ask::get(&[ROUTE], &query)).await?;
            webhooks.extend(page.webhooks.into_iter().filter_map(read));
            token = page.next_page_token.unwrap_or_default();
            if token.is_empty() {
                return Ok(webhooks);
            }
        }
        Err(RegistryError::invalid(
            &self.place(&[ROUTE]),
            "a list of webhooks without an end",
        ))
    }

    /// Makes a webhook, and answers its id.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn create_webhook(&self, wanted: WantedWebhook<'_>) -> Result<String, RegistryError> {
        let made = self
            .write_webhook(
                &Ask::change(Method::POST, &[ROUTE], body(wanted, true)),
                wanted.secret,
            )
            .await?;
        made.ok_or_else(|| {
            RegistryError::invalid(&self.place(&[ROUTE]), "a new webhook without an id")
        })
    }

    /// Makes a webhook what it should be; the secret only where that is asked for.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn update_webhook(
        &self,
        id: &str,
        wanted: WantedWebhook<'_>,
        with_secret: bool,
    ) -> Result<(), RegistryError> {
        let path = [ROUTE, id];
        self.write_webhook(
            &Ask::change(Method::PATCH, &path, body(wanted, with_secret)),
            wanted.secret,
        )
        .await
        .map(drop)
    }

    /// Deletes a webhook; deleting one that does not exist is well.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn delete_webhook(&self, id: &str) -> Result<(), RegistryError> {
        match self
            .ask_json::<Value>(&Ask::change(Method::DELETE, &[ROUTE, id], json!({})))
            .await
        {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Has MLflow deliver an example, and waits for how that goes.
    ///
    /// # Errors
    /// Where the registry cannot be asked, or refuses.
    pub async fn try_webhook(&self, id: &str) -> Result<Trial, RegistryError> {
        let answer: wire::TrialAnswer = self
            .ask_json(&Ask::change(Method::POST, &[ROUTE, id, "test"], json!({})))
            .await?;
        let result = answer.result.unwrap_or_default();
        Ok(match result.response_status {
            _ if result.success => Trial::Arrived,
            Some(wire::Number(status)) if status > 0 => {
                Trial::Answered(u16::try_from(status).unwrap_or_default())
            }
            _ => Trial::Failed(self.clean(innermost(&result.error_message.unwrap_or_default()))),
        })
    }

    /// The id that the answer names. What MLflow refuses with may hold what was sent, so the secret is taken out here.
    async fn write_webhook(
        &self,
        ask: &Ask<'_>,
        secret: &str,
    ) -> Result<Option<String>, RegistryError> {
        let answer: Result<wire::WebhookAnswer, _> = self.ask_json(ask).await;
        let answer = answer.map_err(|error| error.without(secret))?;
        Ok(answer
            .webhook
            .and_then(|webhook| webhook.id)
            .filter(|id| is_id(id)))
    }
}

fn body(wanted: WantedWebhook<'_>, with_secret: bool) -> Value {
    let events: Vec<_> = EVENTS
        .iter()
        .map(|(entity, action)| json!({"entity": entity, "action": action}))
        .collect();
    let mut body =
        json!({"name": wanted.name, "url": wanted.url, "events": events, "status": "ACTIVE"});
    if with_secret {
        body["secret"] = wanted.secret.into();
    }
    body
}

/// The webhook; `None` for one whose id could not stand in a path.
fn read(webhook: wire::Webhook) -> Option<Webhook> {
    let id = webhook.id.filter(|id| is_id(id))?;
    let heard = |event: wire::WebhookEvent| Some((event.entity?, event.action?));
    let events: BTreeSet<_> = webhook.events.into_iter().filter_map(heard).collect();
    let wanted = EVENTS
        .iter()
        .map(|(entity, action)| ((*entity).to_owned(), (*action).to_owned()));
    let is_active = webhook.status.is_none_or(|status| status == "ACTIVE");
    Some(Webhook {
        id,
        name: cut(&webhook.name.unwrap_or_default(), 255),
        url: cut(&webhook.url.unwrap_or_default(), 2048),
        is_whole: is_active && events == wanted.collect(),
    })
}

/// Of exceptions within exceptions, as Python prints them, the one that names the fault.
fn innermost(words: &str) -> &str {
    let cause = words.rsplit("Caused by ").next().unwrap_or(words);
    cause.trim_end_matches([')', '\'', '"'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(events: &[(&str, &str)], status: Option<&str>) -> Option<Webhook> {
        let events: Vec<_> = events
            .iter()
            .map(|(entity, action)| json!({"entity": entity, "action": action}))
            .collect();
        let webhook = json!({"webhook_id": "a-1", "name": "n", "url": "http://x/", "events": events, "status": status});
        read(serde_json::from_value(webhook).unwrap())
    }

    #[test]
    fn a_webhook_is_whole_with_the_very_events_and_while_it_is_active() {
        assert!(shown(&EVENTS, Some("ACTIVE")).unwrap().is_whole);
        assert!(shown(&EVENTS, None).unwrap().is_whole);
        assert!(!shown(&EVENTS, Some("DISABLED")).unwrap().is_whole);
        assert!(!shown(&EVENTS[1..], None).unwrap().is_whole);
        let more: Vec<_> = EVENTS.into_iter().chain([("PROMPT", "CREATED")]).collect();
        assert!(!shown(&more, None).unwrap().is_whole);
    }

    #[test]
    fn the_innermost_cause_is_told() {
        let words = r#"Failed to test webhook: ConnectionError(MaxRetryError('… (Caused by NewConnectionError("…: [Errno 111] Connection refused"))'))"#;
        assert_eq!(
            innermost(words),
            r#"NewConnectionError("…: [Errno 111] Connection refused"#
        );
        assert_eq!(innermost("plain"), "plain");
    }

    #[test]
    fn an_id_that_would_lead_elsewhere_is_none() {
        for id in [
            "",
            "../registered-models",
            "a/b",
            "a?b",
            "a b",
            &"a".repeat(257),
        ] {
            assert!(!is_id(id), "{id}");
        }
        assert!(is_id("68fff168-ad1b-4e6c-919a-7e537ca1d7b8"));
    }

    #[test]
    fn the_secret_is_sent_only_where_it_is_meant_to_be() {
        let wanted = WantedWebhook {
            name: "n",
            url: "u",
            secret: "s3cr3t",
        };
        assert!(!body(wanted, false).to_string().contains("s3cr3t"));
        assert_eq!(body(wanted, true)["secret"], "s3cr3t");
    }
}
