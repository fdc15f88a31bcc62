//! Which model an event is about.
//!
//! Absent: the event's version and alias. Events come late, doubled and out of order; what is so is asked of the registry.

use serde::Deserialize;

/// The kinds of events after which a model is looked at. Prompts have kinds of their own, and are not ours.
const HEARD: [&str; 3] = ["model_version_alias", "model_version", "registered_model"];

/// The body is not an event of MLflow's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed;

#[derive(Deserialize)]
struct Event {
    entity: String,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    name: Option<String>,
}

/// The name of the registered model that an event is about; `None` where it is about something else.
///
/// # Errors
/// Where the body is not an event of MLflow's.
pub fn model_named(body: &[u8]) -> Result<Option<String>, Malformed> {
    let event: Event = serde_json::from_slice(body).map_err(|_| Malformed)?;
    if !HEARD.contains(&event.entity.as_str()) {
        return Ok(None);
    }
    event
        .data
        .name
        .filter(|name| !name.is_empty())
        .map(Some)
        .ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_named_and_nothing_else() {
        let body =
            br#"{"entity":"model_version_alias","action":"deleted","data":{"name":"taxi \"x\" \u00e9","alias":"a"}}"#;
        assert_eq!(model_named(body), Ok(Some("taxi \"x\" é".to_owned())));
    }

    #[test]
    fn what_is_not_about_models_is_nothing_to_us() {
        let body = br#"{"entity":"prompt_alias","action":"created","data":{"name":"p","alias":"a","version":"1"}}"#;
        assert_eq!(model_named(body), Ok(None));
        assert_eq!(model_named(br#"{"entity":"budget_policy"}"#), Ok(None));
    }

    #[test]
    fn what_is_no_event_is_malformed() {
        for body in [
            "",
            "[]",
            "{}",
            "{\"entity\":1}",
            "{\"entity\":\"model_version\"}",
            "\u{feff}{}",
            "null",
        ] {
            assert_eq!(model_named(body.as_bytes()), Err(Malformed), "{body}");
        }
        assert_eq!(
            model_named(br#"{"entity":"model_version","data":{"name":""}}"#),
            Err(Malformed)
        );
    }
}
