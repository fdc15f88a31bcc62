//! What MLflow, or somebody in its place, sends: responses and deliveries of webhooks.
//!
//! Absent: connections, and bodies without an end; see `client_tests` and `src/http`.

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::StatusCode;
use serde::de::DeserializeOwned;

use super::client::Client;
use super::details::{ListingSum, RunDetails, visible};
use super::models::read_snapshot;
use super::proxied_artifacts::first_entry;
use super::request::{MOST_ENTRIES, count_entries};
use super::search::Pages;
use super::signature::DeliverySignature;
use super::versions::{newest_of_each, registration_problem, visible_source, with_artifact};
use super::{event, source, wire};
use crate::api::ModelVersion;
use crate::api::public_uri::has_user;
use crate::registries::connection::{Connection, Credentials};
use crate::registries::request_metrics::RequestMetrics;
use crate::registries::snapshot::ModelSnapshot;
use crate::testing::fuzz::Fuzz;
use crate::testing::now;

/// A credential that responses repeat.
const TOKEN: &str = "hunter2-bearer-token";

const WORDS: &[&str] = &[
    "registered_models",
    "latest_versions",
    "model_versions",
    "next_page_token",
    "aliases",
    "tags",
    "metrics",
    "params",
    "dataset_inputs",
    "model_outputs",
    "artifact_uri",
    "source",
    "models:/m-1",
    "models:/a/1",
    "runs:/r/model",
    "s3://b/m?X-Amz-Signature=a",
    "https://user:word@host/m",
    "mlflow-artifacts:/1/m",
    "RESOURCE_DOES_NOT_EXIST",
    "api_key",
    TOKEN,
];

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// Parses a body as every kind of response, and uses it as the client does. Returns whether one of them was more than empty.
fn read_all(client: &Client, body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    for status in [400, 403, 404, 500] {
        let status = StatusCode::from_u16(status).expect("a status");
        let error = client.parse_refusal("mlflow".to_owned(), status, false, &text);
        let shown = error.to_string();
        assert!(!shown.contains(TOKEN), "{shown}");
        assert!(shown.chars().count() < 800, "{shown}");
    }
    if count_entries(body) > MOST_ENTRIES {
        return false;
    }
    let found = [
        read_models(body),
        read_versions(body),
        read_run(body),
        read_artifacts(body),
        read_webhooks(body),
    ];
    found.contains(&true)
}

fn read_models(body: &[u8]) -> bool {
    let mut models = Vec::new();
    if let Some(page) = parsed::<wire::ModelPage>(body) {
        _ = Pages::new("", wire::PAGE, 10).advance(&page);
        models.extend(page.registered_models);
    }
    if let Some(response) = parsed::<wire::ModelResponse>(body) {
        models.extend(response.registered_model);
    }
    let is_found = !models.is_empty();
    for snapshot in models
        .into_iter()
        .filter_map(|model| read_snapshot(model).ok())
    {
        check_snapshot(&snapshot);
    }
    is_found
}

fn check_snapshot(snapshot: &ModelSnapshot) {
    assert!(!snapshot.name.is_empty());
    for (alias, version) in &snapshot.aliases {
        assert!(wire::version_number(version).is_some(), "{version}");
        assert!(!alias.is_empty() && !alias.chars().any(char::is_control));
    }
    let pairs = snapshot.aliases.iter().chain(&snapshot.tags);
    let bytes: usize = pairs.map(|(key, value)| key.len() + value.len()).sum();
    assert!(bytes <= 128 << 10, "{bytes}");
}

fn read_versions(body: &[u8]) -> bool {
    let mut versions = Vec::new();
    if let Some(page) = parsed::<wire::VersionPage>(body) {
        versions.extend(page.model_versions.iter().cloned());
        for (_, newest) in newest_of_each(page, 3) {
            assert!(newest.len() <= 3);
        }
    }
    if let Some(response) = parsed::<wire::VersionResponse>(body) {
        versions.extend(response.model_version);
    }
    if let Some(response) = parsed::<wire::DownloadUri>(body) {
        check_source(&response.artifact_uri.unwrap_or_default());
    }
    for version in &versions {
        check_source(version.source.as_deref().unwrap_or_default());
        _ = registration_problem(version);
        _ = wire::timestamp(version.creation_timestamp);
        assert!(visible(version.tags.iter().cloned()).len() <= 64);
    }
    !versions.is_empty()
}

/// A source is used, shown and refused without a user, a password or a query.
fn check_source(text: &str) {
    match source::parse(text) {
        Ok(source::Source::Uri(uri)) => {
            assert!(!has_user(uri) && !uri.chars().any(char::is_control));
            let version = with_artifact(ModelVersion::default(), Some(uri));
            let uri = version.artifact_uri.unwrap_or_default();
            assert!(!uri.contains('?'), "{uri}");
        }
        Ok(source::Source::Run { run_id, path }) => {
            assert!(source::is_id(run_id) && !path.split('/').any(|part| part == ".."));
            if let Ok(uri) = source::check_run_uri("s3://b/r", path) {
                assert!(uri.starts_with("s3://b/r"), "{uri}");
            }
        }
        Ok(source::Source::Registry) => {}
        Err(problem) => assert!(problem.chars().count() < 400, "{problem}"),
    }
    if let Some(shown) = visible_source(text) {
        assert!(!has_user(&shown) && !shown.contains('?'), "{shown}");
    }
    if let Some(id) = source::logged_model(text) {
        assert!(source::is_id(id));
    }
    _ = source::copied_version(text);
}

fn read_run(body: &[u8]) -> bool {
    let model = parsed::<wire::LoggedModelResponse>(body).and_then(|response| response.model);
    if let Some(uri) = model
        .as_ref()
        .and_then(|model| model.info.artifact_uri.as_ref())
    {
        _ = source::check_artifact_uri(uri);
    }
    let Some(run) = parsed::<wire::RunResponse>(body).and_then(|response| response.run) else {
        return model.is_some();
    };
    let run = RunDetails::of(run);
    assert!(run.logged_models.iter().all(|id| source::is_id(id)));
    _ = source::check_run_uri(&run.artifact_root, "model");
    let version = run.describe(ModelVersion::default());
    assert!(version.metrics.len() <= 32 && version.parameters.len() <= 64);
    assert!(version.datasets.len() <= 16 && version.duration_seconds.unwrap_or(0) >= 0);
    for (name, value) in version.metrics.iter().chain(&version.parameters) {
        assert!(name.len() <= 255 && !name.chars().any(char::is_control));
        assert!(value.chars().count() <= 251, "{value}");
    }
    true
}

fn read_artifacts(body: &[u8]) -> bool {
    let Some(listing) = parsed::<wire::Listing>(body) else {
        return false;
    };
    let is_found = !listing.files.is_empty();
    let mut sum = ListingSum::default();
    if let Some(folders) = sum.add(listing) {
        assert!(
            folders
                .iter()
                .all(|name| !name.contains('/') && name != "..")
        );
        assert!(sum.total().is_none_or(|bytes| bytes >= 0));
    }
    if let Some(listing) = parsed::<wire::Listing>(body) {
        _ = first_entry(listing);
    }
    is_found
}

fn read_webhooks(body: &[u8]) -> bool {
    _ = parsed::<wire::ServerInfo>(body);
    _ = parsed::<wire::WebhookTestResponse>(body);
    let webhook = parsed::<wire::WebhookResponse>(body);
    let page = parsed::<wire::WebhookPage>(body);
    webhook.is_some_and(|response| response.webhook.is_some())
        || page.is_some_and(|page| !page.webhooks.is_empty())
}

#[test]
fn no_response_breaks_the_client_or_shows_a_secret() {
    // Another test may have installed the provider already.
    _ = rustls::crypto::ring::default_provider().install_default();
    let connection = Connection {
        credentials: Credentials::Bearer(TOKEN.to_owned()),
        ..Connection::mlflow("http://mlflow.test")
    };
    let client = Client::connect(connection, RequestMetrics::default()).expect("a client");
    let fuzz = Fuzz {
        name: "mlflow-responses",
        words: WORDS,
        generate: None,
        accepted_of: 10,
    };
    fuzz.run(|body| read_all(&client, body));
}

/// Reads `name: value` lines up to an empty line, as a delivery's headers.
fn split_head(delivery: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = delivery;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        let (name, value) = (&line[..colon], line[colon..].trim_ascii_start());
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}

/// Nobody but the holder of the key can make a delivery that is verified: neither its body nor its time can be changed.
#[test]
fn no_delivery_without_the_key_is_verified() {
    const KEY: &[u8] = b"a-secret-of-the-tests";
    let genuine = include_bytes!("../../../tests/corpora/webhook-deliveries/genuine");
    let (headers, genuine_body) = split_head(genuine);
    let genuine = DeliverySignature::read(&headers).expect("a signature");
    assert!(genuine.is_signed_with([KEY], genuine_body), "the corpus");
    let fuzz = Fuzz {
        name: "webhook-deliveries",
        words: &[
            "X-MLflow-Signature",
            "X-MLflow-Delivery-Id",
            "X-MLflow-Timestamp",
            "v1,",
            "model_version_tag",
            "model_version_alias",
            "registered_model",
            "entity",
            "data",
            "name",
        ],
        generate: None,
        accepted_of: 20,
    };
    fuzz.run(|delivery| {
        let (headers, body) = split_head(delivery);
        let change = event::change(body);
        let Ok(signature) = DeliverySignature::read(&headers) else {
            return false;
        };
        _ = (signature.is_recent(now()), signature.valid_until());
        if signature.is_signed_with([KEY, b"".as_slice()], body) {
            assert_eq!((&signature, body), (&genuine, genuine_body));
        }
        change.is_ok()
    });
}
