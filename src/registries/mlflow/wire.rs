//! The JSON of MLflow's responses.
//!
//! Absent: trust. Every field may be missing, unknown fields are ignored, the length of every list
//! and text is bounded while it is read, and the reader checks each value that it uses.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The most entries of a page, which is also the most that a request asks for.
pub(super) const PAGE: usize = 1000;
/// The most entries of a list within an entry, such as tags or aliases.
pub(super) const NESTED: usize = 1000;
/// The most stages. MLflow has four of them.
const STAGES: usize = 64;
/// The most files of a folder.
const FILES: usize = 10_000;
/// The most bytes that an entry takes in memory beside its texts.
pub(super) const DECODED_ENTRY: usize = 256;
/// The most bytes of a text. MLflow's longest is a description.
const LONGEST_TEXT: usize = 16 << 10;

/// `registered-models/search`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ModelPage {
    pub(super) registered_models: List<RegisteredModel, PAGE>,
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
    #[serde(deserialize_with = "text")]
    pub(super) name: Option<String>,
    pub(super) creation_timestamp: Option<Number>,
    #[serde(deserialize_with = "cut_text")]
    pub(super) description: Option<String>,
    pub(super) latest_versions: List<VersionInfo, STAGES>,
    pub(super) tags: List<Pair, NESTED>,
    pub(super) aliases: List<Alias, NESTED>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Alias {
    #[serde(deserialize_with = "text")]
    pub(super) alias: Option<String>,
    pub(super) version: Option<VersionText>,
}

/// `model-versions/search`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct VersionPage {
    pub(super) model_versions: List<VersionInfo, PAGE>,
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
    #[serde(deserialize_with = "text")]
    pub(super) name: Option<String>,
    pub(super) version: Option<VersionText>,
    pub(super) creation_timestamp: Option<Number>,
    #[serde(deserialize_with = "text")]
    pub(super) user_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) current_stage: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) source: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) run_id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) status: Option<String>,
    #[serde(deserialize_with = "cut_text")]
    pub(super) status_message: Option<String>,
    pub(super) tags: List<Pair, NESTED>,
}

impl VersionInfo {
    /// The bytes of all texts but the tags.
    pub(super) fn text_bytes(&self) -> usize {
        let texts = [
            &self.name,
            &self.user_id,
            &self.current_stage,
            &self.source,
            &self.run_id,
            &self.status,
            &self.status_message,
        ];
        let version = self.version.as_ref().map_or(0, |version| version.0.len());
        version + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

/// `model-versions/get-download-uri`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DownloadUri {
    #[serde(deserialize_with = "text")]
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
    pub(super) dataset_inputs: List<DatasetInput, NESTED>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DatasetInput {
    pub(super) tags: List<Pair, NESTED>,
    pub(super) dataset: DatasetNamed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DatasetNamed {
    #[serde(deserialize_with = "text")]
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) digest: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunInfo {
    pub(super) start_time: Option<Number>,
    pub(super) end_time: Option<Number>,
    #[serde(deserialize_with = "text")]
    pub(super) artifact_uri: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunData {
    pub(super) metrics: List<Metric, NESTED>,
    pub(super) params: List<Pair, NESTED>,
    pub(super) tags: List<Pair, NESTED>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunOutputs {
    pub(super) model_outputs: List<ModelOutput, NESTED>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ModelOutput {
    #[serde(deserialize_with = "text")]
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
    #[serde(deserialize_with = "text")]
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) artifact_uri: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) source_run_id: Option<String>,
    pub(super) creation_timestamp_ms: Option<Number>,
}

/// `mlflow-artifacts/artifacts`: one level of a folder.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listing {
    pub(super) files: List<ListedFile, FILES>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListedFile {
    #[serde(deserialize_with = "text")]
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
    #[serde(deserialize_with = "text")]
    pub(super) error_code: Option<String>,
    #[serde(deserialize_with = "cut_text")]
    pub(super) message: Option<String>,
}

/// `webhooks`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WebhookPage {
    pub(super) webhooks: List<WebhookInfo, PAGE>,
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
    #[serde(rename = "webhook_id", deserialize_with = "text")]
    pub(super) id: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) url: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(super) status: Option<String>,
    pub(super) events: List<WebhookEvent, NESTED>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WebhookEvent {
    #[serde(deserialize_with = "text")]
    pub(super) entity: Option<String>,
    #[serde(deserialize_with = "text")]
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
    #[serde(deserialize_with = "cut_text")]
    pub(super) error_message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::registries) struct Pair {
    #[serde(deserialize_with = "text")]
    pub(super) key: Option<String>,
    #[serde(deserialize_with = "cut_text")]
    pub(super) value: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metric {
    #[serde(deserialize_with = "text")]
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
#[derive(Clone, Debug)]
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

/// A list of at most `MOST` entries; `null` stands for an empty one. Further entries are read over.
#[derive(Clone, Debug)]
pub(in crate::registries) struct List<T, const MOST: usize> {
    entries: Vec<T>,
    /// Whether there were further entries.
    pub(super) is_cut: bool,
}

impl<T, const MOST: usize> Default for List<T, MOST> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            is_cut: false,
        }
    }
}

impl<T, const MOST: usize> Deref for List<T, MOST> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.entries
    }
}

impl<T, const MOST: usize> IntoIterator for List<T, MOST> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for List<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for ListVisitor<T, MOST> {
    type Value = List<T, MOST>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(List::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut list = List::default();
        while list.entries.len() < MOST {
            match sequence.next_element()? {
                Some(entry) => list.entries.push(entry),
                None => return Ok(list),
            }
        }
        while sequence.next_element::<IgnoredAny>()?.is_some() {
            list.is_cut = true;
        }
        Ok(list)
    }
}

/// A plain value: a text, cut to [`LONGEST_TEXT`], or a number. Everything else is read over.
enum Scalar {
    Text { kept: String, is_cut: bool },
    Number(serde_json::Number),
    Null,
    Other,
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        let number = serde_json::Number::from_f64(number);
        Ok(number.map_or(Scalar::Other, Scalar::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        let mut end = text.len().min(LONGEST_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Ok(Scalar::Text {
            kept: text[..end].to_owned(),
            is_cut: end < text.len(),
        })
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Scalar, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

/// A text. One that is too long counts as absent: half of it could mean something else.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Scalar::deserialize(deserializer)? {
        Scalar::Text { kept, is_cut } => Ok((!is_cut).then_some(kept)),
        Scalar::Null => Ok(None),
        _ => Err(D::Error::custom("a string was expected")),
    }
}

/// A text that is only shown or compared. One that is too long is cut.
fn cut_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Scalar::deserialize(deserializer)? {
        Scalar::Text { kept, .. } => Ok(Some(kept)),
        Scalar::Null => Ok(None),
        _ => Err(D::Error::custom("a string was expected")),
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = match Scalar::deserialize(deserializer)? {
            Scalar::Number(number) => number.as_i64(),
            Scalar::Text { kept, .. } => kept.parse().ok(),
            Scalar::Null | Scalar::Other => None,
        };
        number
            .map(Self)
            .ok_or_else(|| D::Error::custom("a whole number was expected"))
    }
}

impl<'de> Deserialize<'de> for VersionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text { kept, .. } => Ok(Self(kept)),
            Scalar::Number(number) => Ok(Self(number.to_string())),
            Scalar::Null | Scalar::Other => Err(D::Error::custom("a string was expected")),
        }
    }
}

impl<'de> Deserialize<'de> for MetricValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text { kept, .. } => Ok(Self::Text(kept)),
            Scalar::Number(number) => Ok(Self::Number(number.as_f64().unwrap_or(f64::NAN))),
            Scalar::Null | Scalar::Other => Err(D::Error::custom("a number was expected")),
        }
    }
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
    fn a_list_keeps_no_more_entries_than_it_may_have() -> Result<(), serde_json::Error> {
        type Two = List<Alias, 2>;
        let read = |json: &str| serde_json::from_str::<Two>(json);
        let (exact, longer) = (read("[{},{}]")?, read("[{},{},{},{}]")?);
        assert_eq!((exact.len(), exact.is_cut), (2, false));
        assert_eq!((longer.len(), longer.is_cut), (2, true));
        assert!(read("[{},{},{}").is_err(), "the rest must be JSON too");
        assert!(read("null")?.is_empty() && read("7").is_err());
        Ok(())
    }

    #[test]
    fn a_value_of_another_kind_is_read_over_without_keeping_it() {
        let long = format!("[{}0]", "0,".repeat(10_000));
        assert!(serde_json::from_str::<Number>(&long).is_err());
        assert!(serde_json::from_str::<VersionText>(&long).is_err());
        assert!(serde_json::from_str::<MetricValue>(r#"{"a":{"b":[1]}}"#).is_err());
        assert!(serde_json::from_str::<Alias>(r#"{"alias":["x"]}"#).is_err());
    }

    #[test]
    fn a_text_that_is_too_long_is_absent_and_a_value_is_cut() -> Result<(), serde_json::Error> {
        let long = "é".repeat(LONGEST_TEXT);
        let json = serde_json::json!({"key": long, "value": long});
        let pair: Pair = serde_json::from_value(json)?;
        assert_eq!(pair.key, None);
        assert_eq!(pair.value.map(|value| value.len()), Some(LONGEST_TEXT));
        Ok(())
    }

    #[test]
    fn no_entry_of_a_list_is_larger_than_its_share() {
        let largest = size_of::<VersionInfo>().max(size_of::<RegisteredModel>());
        assert!(largest <= DECODED_ENTRY, "{largest}");
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
