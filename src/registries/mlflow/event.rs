//! Parses MLflow's webhook events to the model that changed.
//!
//! Absent: the event's version and alias. Events come late, twice and out of order; the current
//! state is read from the registry.

use serde::Deserialize;

use crate::registries::announced_change::AnnouncedChange;
use crate::registries::delivery_error::InvalidEvent;

/// The entities whose events make a model be refreshed, and the one whose events are about tags of its versions. Prompts have
/// entities of their own.
const ENTITIES: [&str; 3] = ["model_version_alias", "model_version", "registered_model"];
const TAG: &str = "model_version_tag";

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

/// The change that an event is about; `None` if it is about something else than registered models.
///
/// # Errors
/// If the body is not an event of MLflow's.
pub fn change(body: &[u8]) -> Result<Option<AnnouncedChange>, InvalidEvent> {
    let payload: WebhookPayload = serde_json::from_slice(body).map_err(|_| InvalidEvent)?;
    let entity = payload.entity.as_str();
    if entity != TAG && !ENTITIES.contains(&entity) {
        return Ok(None);
    }
    match payload.data.name {
        Some(name) if name.is_empty() => Err(InvalidEvent),
        Some(name) if entity == TAG => Ok(Some(AnnouncedChange::VersionTags(name))),
        Some(name) => Ok(Some(AnnouncedChange::Model(name))),
        None => Err(InvalidEvent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_an_event_is_returned() {
        let body =
            br#"{"entity":"model_version_alias","action":"deleted","data":{"name":"taxi \"x\" \u00e9","alias":"a"}}"#;
        assert_eq!(
            change(body),
            Ok(Some(AnnouncedChange::Model("taxi \"x\" é".to_owned())))
        );
    }

    #[test]
    fn an_event_about_a_tag_of_a_version_is_no_change_of_the_model() {
        let body = br#"{"entity":"model_version_tag","action":"set","data":{"name":"taxi","version":"5","key":"validation","value":"passed"}}"#;
        let tags = AnnouncedChange::VersionTags("taxi".to_owned());
        assert_eq!(change(body), Ok(Some(tags)));
        assert_eq!(
            change(br#"{"entity":"model_version_tag"}"#),
            Err(InvalidEvent)
        );
    }

    #[test]
    fn events_about_other_entities_name_no_model() {
        let body = br#"{"entity":"prompt_alias","action":"created","data":{"name":"p","alias":"a","version":"1"}}"#;
        assert_eq!(change(body), Ok(None));
        assert_eq!(change(br#"{"entity":"budget_policy"}"#), Ok(None));
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
            assert_eq!(change(body.as_bytes()), Err(InvalidEvent), "{body}");
        }
        assert_eq!(
            change(br#"{"entity":"model_version","data":{"name":""}}"#),
            Err(InvalidEvent)
        );
    }
}
