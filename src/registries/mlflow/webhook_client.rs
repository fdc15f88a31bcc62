//! The webhooks of MLflow: listed, created, updated, tested and deleted. MLflow 3.3 and later; SQL
//! stores only.
//!
//! Absent: deliveries, and the secret in any response. MLflow never returns it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::client::Client;
use super::request::Request;
use super::search::LONGEST_TOKEN;
use super::source::is_id;
use super::wire;
use crate::http::redact::cut;
use crate::registries::error::RegistryError;

const ROUTE: &str = "api/2.0/mlflow/webhooks";
/// The most webhooks in a response.
const PAGE: &str = "1000";
/// The most pages of a list, and the most webhooks of one name.
const MOST_PAGES: usize = 100;
const MOST_NAMESAKES: usize = 100;
/// The events that a webhook subscribes to: all that MLflow sends when an alias or stage may have
/// moved, or a tag that a gate reads may have changed.
const EVENTS: [(&str, &str); 6] = [
    ("MODEL_VERSION_ALIAS", "CREATED"),
    ("MODEL_VERSION_ALIAS", "DELETED"),
    ("MODEL_VERSION", "CREATED"),
    ("MODEL_VERSION_TAG", "SET"),
    ("MODEL_VERSION_TAG", "DELETED"),
    ("REGISTERED_MODEL", "CREATED"),
];

/// A webhook as the registry lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListedWebhook {
    /// The registry's id for it.
    pub id: String,
    /// Its name. Several webhooks may have the same.
    pub name: String,
    /// The URL that it delivers to.
    pub url: String,
    /// Whether it is active and subscribes to exactly the events that Pointsman needs.
    pub is_complete: bool,
}

/// A webhook as it should be.
#[derive(Clone, Copy)]
pub struct DesiredWebhook<'a> {
    /// Its name: letters, digits, dots, underscores and hyphens, 63 at most.
    pub name: &'a str,
    /// The URL that it delivers to.
    pub url: &'a str,
    /// The secret that it signs deliveries with.
    pub secret: &'a str,
}

/// The outcome of a test delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WebhookTest {
    /// The receiver accepted it.
    Delivered,
    /// The receiver returned this status.
    Rejected(u16),
    /// It could not be delivered, with the registry's text.
    Failed(String),
}

/// Manages the webhooks of a registry.
#[derive(Clone, Copy, Debug)]
pub struct WebhookClient<'a> {
    client: &'a Client,
}

impl Client {
    /// The webhooks.
    pub fn webhooks(&self) -> WebhookClient<'_> {
        WebhookClient { client: self }
    }
}

impl WebhookClient<'_> {
    /// The webhooks of this name.
    ///
    /// # Errors
    /// If the registry cannot be reached, has no webhooks, or does not let us list them.
    pub async fn list(&self, name: &str) -> Result<Vec<ListedWebhook>, RegistryError> {
        let mut webhooks = Vec::new();
        let mut token = String::new();
        for _ in 0..MOST_PAGES {
            let mut query = vec![("max_results", PAGE)];
            if !token.is_empty() {
                query.push(("page_token", token.as_str()));
            }
            let request = Request::get(&[ROUTE], &query);
            let page: wire::WebhookPage = self.client.send_json(&request).await?;
            let read = page.webhooks.into_iter().filter_map(read);
            webhooks.extend(read.filter(|webhook| webhook.name == name));
            token = page.next_page_token.unwrap_or_default();
            if webhooks.len() > MOST_NAMESAKES || token.len() > LONGEST_TOKEN {
                break;
            }
            if token.is_empty() {
                return Ok(webhooks);
            }
        }
        Err(self.invalid("a list of webhooks without an end"))
    }

    /// Creates a webhook and returns its id.
    ///
    /// # Errors
    /// If the registry cannot be reached, or refuses.
    pub async fn create(&self, desired: DesiredWebhook<'_>) -> Result<String, RegistryError> {
        let request = Request::change(Method::POST, &[ROUTE], body(desired, true));
        match self.write(&request, desired.secret).await? {
            Some(id) => Ok(id),
            None => Err(self.invalid("a new webhook without an id")),
        }
    }

    /// Updates a webhook; its secret only if `with_secret` is true.
    ///
    /// # Errors
    /// If the registry cannot be reached, or refuses.
    pub async fn update(
        &self,
        id: &str,
        desired: DesiredWebhook<'_>,
        with_secret: bool,
    ) -> Result<(), RegistryError> {
        let path = [ROUTE, id];
        let request = Request::change(Method::PATCH, &path, body(desired, with_secret));
        self.write(&request, desired.secret).await?;
        Ok(())
    }

    /// Deletes a webhook. Deleting one that does not exist succeeds.
    ///
    /// # Errors
    /// If the registry cannot be reached, or refuses.
    pub async fn delete(&self, id: &str) -> Result<(), RegistryError> {
        let path = [ROUTE, id];
        let request = Request::change(Method::DELETE, &path, json!({}));
        match self.client.send_json::<IgnoredAny>(&request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the registry deliver a test event, and waits for the outcome.
    ///
    /// # Errors
    /// If the registry cannot be reached, or refuses.
    pub async fn test(&self, id: &str) -> Result<WebhookTest, RegistryError> {
        let path = [ROUTE, id, "test"];
        let request = Request::change(Method::POST, &path, json!({}));
        let response: wire::WebhookTestResponse = self.client.send_json(&request).await?;
        let result = response.result.unwrap_or_default();
        if result.success {
            return Ok(WebhookTest::Delivered);
        }
        if let Some(wire::Number(status)) = result.response_status
            && status > 0
        {
            let status = u16::try_from(status).unwrap_or_default();
            return Ok(WebhookTest::Rejected(status));
        }
        let text = result.error_message.unwrap_or_default();
        Ok(WebhookTest::Failed(
            self.client.redact(innermost_cause(&text)),
        ))
    }

    /// The id in the response. A refusal may repeat the request's body, so the secret is removed
    /// from it.
    async fn write(
        &self,
        request: &Request<'_>,
        secret: &str,
    ) -> Result<Option<String>, RegistryError> {
        let response: Result<wire::WebhookResponse, _> = self.client.send_json(request).await;
        let response = response.map_err(|error| error.without(secret))?;
        let id = response.webhook.and_then(|webhook| webhook.id);
        Ok(id.filter(|id| is_id(id)))
    }

    fn invalid(self, fault: &str) -> RegistryError {
        RegistryError::invalid(&self.client.address(&[ROUTE]), fault)
    }
}

fn body(desired: DesiredWebhook<'_>, with_secret: bool) -> Value {
    let events: Vec<_> = EVENTS
        .iter()
        .map(|(entity, action)| json!({"entity": entity, "action": action}))
        .collect();
    let mut body =
        json!({"name": desired.name, "url": desired.url, "events": events, "status": "ACTIVE"});
    if with_secret {
        body["secret"] = desired.secret.into();
    }
    body
}

/// The webhook; `None` if its id cannot be part of a path.
fn read(webhook: wire::WebhookInfo) -> Option<ListedWebhook> {
    let id = webhook.id.filter(|id| is_id(id))?;
    let mut events = BTreeSet::new();
    for event in webhook.events {
        if let (Some(entity), Some(action)) = (event.entity, event.action) {
            events.insert((entity, action));
        }
    }
    let desired = EVENTS.map(|(entity, action)| (entity.to_owned(), action.to_owned()));
    let is_active = webhook.status.is_none_or(|status| status == "ACTIVE");
    Some(ListedWebhook {
        id,
        name: cut(&webhook.name.unwrap_or_default(), 255),
        url: cut(&webhook.url.unwrap_or_default(), 2048),
        is_complete: is_active && events == BTreeSet::from(desired),
    })
}

/// The innermost of nested exceptions, as Python prints them. It names the fault.
fn innermost_cause(text: &str) -> &str {
    let cause = text.rsplit("Caused by ").next().unwrap_or(text);
    cause.trim_end_matches([')', '\'', '"'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(events: &[(&str, &str)], status: Option<&str>) -> Option<ListedWebhook> {
        let events: Vec<_> = events
            .iter()
            .map(|(entity, action)| json!({"entity": entity, "action": action}))
            .collect();
        let webhook = json!({"webhook_id": "a-1", "name": "n", "url": "http://x/", "events": events, "status": status});
        read(serde_json::from_value(webhook).unwrap())
    }

    #[test]
    fn a_webhook_is_complete_with_the_very_events_and_while_it_is_active() {
        assert!(shown(&EVENTS, Some("ACTIVE")).unwrap().is_complete);
        assert!(shown(&EVENTS, None).unwrap().is_complete);
        assert!(!shown(&EVENTS, Some("DISABLED")).unwrap().is_complete);
        assert!(!shown(&EVENTS[1..], None).unwrap().is_complete);
        let more: Vec<_> = EVENTS.into_iter().chain([("PROMPT", "CREATED")]).collect();
        assert!(!shown(&more, None).unwrap().is_complete);
    }

    #[test]
    fn the_innermost_cause_is_reported() {
        let words = r#"Failed to test webhook: ConnectionError(MaxRetryError('… (Caused by NewConnectionError("…: [Errno 111] Connection refused"))'))"#;
        assert_eq!(
            innermost_cause(words),
            r#"NewConnectionError("…: [Errno 111] Connection refused"#
        );
        assert_eq!(innermost_cause("plain"), "plain");
    }

    #[test]
    fn an_id_that_could_change_the_path_is_refused() {
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
    fn the_secret_is_sent_only_on_request() {
        let desired = DesiredWebhook {
            name: "n",
            url: "u",
            secret: "s3cr3t",
        };
        assert!(!body(desired, false).to_string().contains("s3cr3t"));
        assert_eq!(body(desired, true)["secret"], "s3cr3t");
    }
}
