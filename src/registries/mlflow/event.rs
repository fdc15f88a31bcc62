//! Parses MLflow's webhook events to the model that changed.
//!
//! Absent: the event's version and alias. Events come late, twice and out of order; the current
//! state is read from the registry.

use serde::Deserialize;

use crate::registries::delivery_error::InvalidEvent;

/// The entities whose events make a model be refreshed. Prompts have entities of their own.
const ENTITIES: [&str; 3] = ["model_version_alias", "model_version", "registered_model"];

#[derive(Deserialize)]
struct WebhookPayload {
    entity: String,
    #[serde(default)]
    data: PayloadData,
}

#[derive(Default, Deserialize)]
struct PayloadData {
    name: Option<String>,
}

/// The name of the registered model that an event is about; `None` if it is about something else.
///
/// # Errors
/// If the body is not an event of MLflow's.
pub fn changed_model(body: &[u8]) -> Result<Option<String>, InvalidEvent> {
    let payload: WebhookPayload = serde_json::from_slice(body).map_err(|_| InvalidEvent)?;
    if !ENTITIES.contains(&payload.entity.as_str()) {
        return Ok(None);
    }
    match payload.data.name {
        Some(name) if !name.is_empty() => Ok(Some(name)),
        _ => Err(InvalidEvent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_an_event_is_returned() {
        let body =
            br#"{"entity":"model_version_alias","action":"deleted","data":{"name":"taxi \"x\" \u00e9","alias":"a"}}"#;
        assert_eq!(changed_model(body), Ok(Some("taxi \"x\" é".to_owned())));
    }

    #[test]
    fn events_about_other_entities_name_no_model() {
        let body = br#"{"entity":"prompt_alias","action":"created","data":{"name":"p","alias":"a","version":"1"}}"#;
        assert_eq!(changed_model(body), Ok(None));
        assert_eq!(changed_model(br#"{"entity":"budget_policy"}"#), Ok(None));
    }

    #[test]
    fn a_body_that_is_no_event_is_invalid() {
        for body in [
            "",
            "[]",
            "{}",
            "{\"entity\":1}",
            "{\"entity\":\"model_version\"}",
            "\u{feff}{}",
            "null",
        ] {
            assert_eq!(changed_model(body.as_bytes()), Err(InvalidEvent), "{body}");
        }
        assert_eq!(
            changed_model(br#"{"entity":"model_version","data":{"name":""}}"#),
            Err(InvalidEvent)
        );
    }
}
