//! The JSON of MLflow's responses.
//!
//! Absent: trust. Every field may be missing, unknown fields are ignored, and the reader checks
//! each value that it uses.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// `registered-models/search`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ModelPage {
    #[serde(deserialize_with = "list")]
    pub(super) registered_models: Vec<RegisteredModel>,
    pub(super) next_page_token: Option<String>,
}

/// `registered-models/get`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ModelResponse {
    pub(super) registered_model: Option<RegisteredModel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RegisteredModel {
    pub(super) name: Option<String>,
    pub(super) creation_timestamp: Option<Number>,
    pub(super) description: Option<String>,
    #[serde(deserialize_with = "list")]
    pub(super) latest_versions: Vec<VersionInfo>,
    #[serde(deserialize_with = "list")]
    pub(super) tags: Vec<Pair>,
    #[serde(deserialize_with = "list")]
    pub(super) aliases: Vec<Alias>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Alias {
    pub(super) alias: Option<String>,
    pub(super) version: Option<VersionText>,
}

/// `model-versions/search`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct VersionPage {
    #[serde(deserialize_with = "list")]
    pub(super) model_versions: Vec<VersionInfo>,
    pub(super) next_page_token: Option<String>,
}

/// `model-versions/get`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct VersionResponse {
    pub(super) model_version: Option<VersionInfo>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::registries) struct VersionInfo {
    pub(super) name: Option<String>,
    pub(super) version: Option<VersionText>,
    pub(super) creation_timestamp: Option<Number>,
    pub(super) user_id: Option<String>,
    pub(super) current_stage: Option<String>,
    pub(super) source: Option<String>,
    pub(super) run_id: Option<String>,
    pub(super) status: Option<String>,
    pub(super) status_message: Option<String>,
    #[serde(deserialize_with = "list")]
    pub(super) tags: Vec<Pair>,
}

/// `model-versions/get-download-uri`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DownloadUri {
    pub(super) artifact_uri: Option<String>,
}

/// `runs/get`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunResponse {
    pub(super) run: Option<RunRecord>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunRecord {
    pub(super) info: RunInfo,
    pub(super) data: RunData,
    pub(super) inputs: RunInputs,
    pub(super) outputs: RunOutputs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunInputs {
    #[serde(deserialize_with = "list")]
    pub(super) dataset_inputs: Vec<DatasetInput>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DatasetInput {
    #[serde(deserialize_with = "list")]
    pub(super) tags: Vec<Pair>,
    pub(super) dataset: DatasetNamed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DatasetNamed {
    pub(super) name: Option<String>,
    pub(super) digest: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunInfo {
    pub(super) start_time: Option<Number>,
    pub(super) end_time: Option<Number>,
    pub(super) artifact_uri: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunData {
    #[serde(deserialize_with = "list")]
    pub(super) metrics: Vec<Metric>,
    #[serde(deserialize_with = "list")]
    pub(super) params: Vec<Pair>,
    #[serde(deserialize_with = "list")]
    pub(super) tags: Vec<Pair>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunOutputs {
    #[serde(deserialize_with = "list")]
    pub(super) model_outputs: Vec<ModelOutput>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ModelOutput {
    pub(super) model_id: Option<String>,
}

/// `logged-models/<id>`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoggedModelResponse {
    pub(super) model: Option<LoggedModel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoggedModel {
    pub(super) info: LoggedModelInfo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoggedModelInfo {
    pub(super) name: Option<String>,
    pub(super) artifact_uri: Option<String>,
    pub(super) source_run_id: Option<String>,
    pub(super) creation_timestamp_ms: Option<Number>,
}

/// `mlflow-artifacts/artifacts`: one level of a folder.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listing {
    #[serde(deserialize_with = "list")]
    pub(super) files: Vec<ListedFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListedFile {
    pub(super) path: Option<String>,
    pub(super) is_dir: bool,
    pub(super) file_size: Option<Number>,
}

/// `server-info`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServerInfo {
    pub(super) workspaces_enabled: bool,
}

/// An error of MLflow's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    pub(super) error_code: Option<String>,
    pub(super) message: Option<String>,
}

/// `webhooks`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WebhookPage {
    #[serde(deserialize_with = "list")]
    pub(super) webhooks: Vec<WebhookInfo>,
    pub(super) next_page_token: Option<String>,
}

/// The response to creating or changing a webhook.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WebhookResponse {
    pub(super) webhook: Option<WebhookInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WebhookInfo {
    #[serde(rename = "webhook_id")]
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) url: Option<String>,
    pub(super) status: Option<String>,
    #[serde(deserialize_with = "list")]
    pub(super) events: Vec<WebhookEvent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WebhookEvent {
    pub(super) entity: Option<String>,
    pub(super) action: Option<String>,
}

/// `webhooks/{id}/test`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WebhookTestResponse {
    pub(super) result: Option<WebhookTestResult>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WebhookTestResult {
    pub(super) success: bool,
    pub(super) response_status: Option<Number>,
    pub(super) error_message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::registries) struct Pair {
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metric {
    pub(super) key: Option<String>,
    pub(super) value: Option<MetricValue>,
}

/// A whole number, which some servers write as a string.
#[derive(Clone, Copy, Debug)]
pub(in crate::registries) struct Number(pub(super) i64);

/// The number of a version, which some servers write as a number and others as a string.
#[derive(Clone, Debug)]
pub(in crate::registries) struct VersionText(pub(super) String);

/// A metric: a number, or the string `"NaN"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum MetricValue {
    Number(f64),
    Text(String),
}

impl MetricValue {
    /// The value as text, in the spelling that Python and JavaScript share.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.chars().filter(|c| !c.is_control()).take(64).collect(),
            // MLflow stores infinity as the greatest double.
            Self::Number(number) if *number >= 1.797_693_134_862_315e308 => "Infinity".to_owned(),
            Self::Number(number) if *number <= -1.797_693_134_862_315e308 => "-Infinity".to_owned(),
            Self::Number(number) => serde_json::Number::from_f64(*number)
                .map_or_else(|| "NaN".to_owned(), |n| n.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let number = match &value {
            serde_json::Value::Number(number) => number.as_i64(),
            serde_json::Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number
            .map(Self)
            .ok_or_else(|| D::Error::custom("a whole number was expected"))
    }
}

impl<'de> Deserialize<'de> for VersionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err(D::Error::custom("a string was expected")),
        }
    }
}

/// A list; `null` stands for an empty one.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// The number of a version: digits only, and not so many that they cannot be compared.
pub(super) fn version_number(version: &str) -> Option<u64> {
    let digits = !version.is_empty()
        && version.len() <= 19
        && version.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| version.parse().ok()).flatten()
}

/// The time of a count of milliseconds since 1970.
pub(super) fn timestamp(number: Option<Number>) -> Option<jiff::Timestamp> {
    number
        .filter(|Number(ms)| *ms > 0)
        .and_then(|Number(ms)| jiff::Timestamp::from_millisecond(ms).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_object_is_an_empty_page() -> Result<(), serde_json::Error> {
        let page: ModelPage = serde_json::from_str("{}")?;
        assert!(page.registered_models.is_empty() && page.next_page_token.is_none());
        let page: ModelPage = serde_json::from_str(r#"{"registered_models":null,"new":[1]}"#)?;
        assert!(page.registered_models.is_empty());
        Ok(())
    }

    #[test]
    fn metrics_become_text_in_every_form() -> Result<(), serde_json::Error> {
        let cases = [
            ("0.51", "0.51"),
            ("5", "5.0"),
            ("\"NaN\"", "NaN"),
            ("1.7976931348623157e+308", "Infinity"),
        ];
        let more = [
            ("-1.7976931348623157e308", "-Infinity"),
            ("\"Infinity\"", "Infinity"),
            ("1e300", "1e+300"),
            ("-2.5e-7", "-2.5e-7"),
        ];
        for (written, text) in cases.into_iter().chain(more) {
            assert_eq!(serde_json::from_str::<MetricValue>(written)?.text(), text);
        }
        Ok(())
    }

    #[test]
    fn only_digits_number_a_version() {
        assert_eq!(version_number("12"), Some(12));
        for wrong in [
            "",
            "a",
            "-1",
            "1.0",
            "１",
            "12345678901234567890",
            "+1",
            " 1",
        ] {
            assert_eq!(version_number(wrong), None, "{wrong}");
        }
    }
}
