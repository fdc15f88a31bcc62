//! Checks files in a bucket: the file MLmodel, else the first file of the folder, else the key
//! itself. One byte is read.
//!
//! Absent: more than one page of a listing, and anonymous requests that no setting asks for.

use std::time::Duration;

use futures::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{BackoffConfig, GetOptions, GetRange, ObjectStore, RetryConfig};
use reqwest::StatusCode;

use super::location::{BucketAddress, Cloud, MODEL_FILE};
use super::store_settings::{CloudSettings, StoreSettings};
use super::transport::{
    ExchangeOutcome, HttpClients, LastExchange, RecordingTransport, not_trusted,
};
use crate::api::Availability;
use crate::http::body::root_cause;
use crate::http::redact::Redactor;

/// The most names in a listing.
const MOST_NAMES: usize = 100;
/// The error codes of stores that are about the credentials and not about the files.
const BAD_CREDENTIALS: &[&str] = &[
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "AuthenticationRequired",
    "InvalidSecurity",
    // versitygw, with 404
    "XAdminUserNotFound",
];

/// A store that can be read and listed a page at a time.
trait ListableStore: ObjectStore + PaginatedListStore {}
impl<T: ObjectStore + PaginatedListStore> ListableStore for T {}

/// The outcome of one request.
enum BucketOutcome {
    /// A byte was read.
    Byte,
    /// The file does not exist, or is empty.
    Missing,
    /// The credentials do not allow the request.
    Denied(String),
    /// The response says nothing about the files.
    Inconclusive(Availability),
}

/// Whether the files at an address can be read now.
pub(super) async fn check(
    address: &BucketAddress,
    settings: &StoreSettings,
    clients: &HttpClients,
) -> Availability {
    let settings = settings.of_cloud(address.cloud);
    if let Err(problem) = settings
        .validate(address.cloud)
        .and_then(|()| check_account(address, &settings))
    {
        return not_requested(address, &problem);
    }
    let transport = RecordingTransport::new(clients);
    let redactor = settings.redactor();
    let store = match build(address, &settings, &transport) {
        Ok(store) => store,
        Err(error) => {
            let cause = redactor.clean(&error.to_string());
            return not_requested(address, &format!("{cause}; {CHECK_SECRET}"));
        }
    };
    let check = BucketCheck {
        address,
        store,
        transport,
        redactor,
        is_anonymous: settings.is_anonymous(),
    };
    check.run().await
}

/// The remedy for settings that the store's library refuses.
const CHECK_SECRET: &str = "check the Secret that spec.artifacts of the ModelRegistry names";

fn not_requested(address: &BucketAddress, problem: &str) -> Availability {
    Availability::Unchecked(format!("{} was not requested: {problem}", address.shown))
}

/// Checks that the credentials of one Azure account are not sent to another.
fn check_account(address: &BucketAddress, settings: &CloudSettings) -> Result<(), String> {
    if address.cloud != Cloud::Azure {
        return Ok(());
    }
    let of_account = settings.get("AZURE_STORAGE_ACCOUNT_KEY").is_some()
        || settings.get("AZURE_STORAGE_SAS_KEY").is_some();
    match (&address.account, settings.get("AZURE_STORAGE_ACCOUNT_NAME")) {
        (None, None) => {
            Err("it names no storage account; set AZURE_STORAGE_ACCOUNT_NAME".to_owned())
        }
        (Some((named, _)), Some(known)) if named != known && of_account => Err(format!(
            "the credentials are those of the storage account {known}, and it is in {named}; set AZURE_STORAGE_ACCOUNT_NAME and its key"
        )),
        (Some((named, _)), None) if of_account => Err(format!(
            "whose key was given is not said; set AZURE_STORAGE_ACCOUNT_NAME={named} if it is that account's"
        )),
        _ => Ok(()),
    }
}

fn build(
    address: &BucketAddress,
    settings: &CloudSettings,
    transport: &RecordingTransport,
) -> object_store::Result<Box<dyn ListableStore>> {
    let bucket = address.bucket.as_str();
    Ok(match address.cloud {
        Cloud::S3 => {
            let new = AmazonS3Builder::new()
                .with_bucket_name(bucket)
                .with_retry(retry())
                .with_http_connector(transport.clone());
            Box::new(configured(new, settings, AmazonS3Builder::with_config).build()?)
        }
        Cloud::Gcs => {
            let new = GoogleCloudStorageBuilder::new()
                .with_bucket_name(bucket)
                .with_retry(retry())
                .with_http_connector(transport.clone());
            Box::new(configured(new, settings, GoogleCloudStorageBuilder::with_config).build()?)
        }
        Cloud::Azure => {
            let new = MicrosoftAzureBuilder::new()
                .with_container_name(bucket)
                .with_retry(retry())
                .with_http_connector(transport.clone());
            let new = configured(new, settings, MicrosoftAzureBuilder::with_config);
            let new = match &address.account {
                Some((account, domain)) if settings.endpoint().is_none() => new
                    .with_endpoint(format!("https://{account}.blob.{domain}"))
                    .with_account(account),
                Some((account, _)) => new.with_account(account),
                None => new,
            };
            Box::new(new.build()?)
        }
    })
}

/// The builder with every setting that the store's library has a name for.
fn configured<B, K: std::str::FromStr>(
    mut builder: B,
    settings: &CloudSettings,
    with: fn(B, K, String) -> B,
) -> B {
    for (name, value) in settings.named() {
        if let Ok(key) = name.parse() {
            builder = with(builder, key, value.to_owned());
        }
    }
    builder
}

/// One retry, soon: a check must end within its timeout.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_millis(400),
        base: 2.,
    };
    RetryConfig {
        backoff,
        max_retries: 1,
        retry_timeout: Duration::from_secs(4),
    }
}

/// The check of one address.
struct BucketCheck<'a> {
    address: &'a BucketAddress,
    store: Box<dyn ListableStore>,
    transport: RecordingTransport,
    redactor: Redactor,
    is_anonymous: bool,
}

impl BucketCheck<'_> {
    async fn run(&self) -> Availability {
        let key = &self.address.key;
        let model_file = if key.is_empty() {
            MODEL_FILE.to_owned()
        } else {
            format!("{key}/{MODEL_FILE}")
        };
        let denied = match self.read_byte(&model_file).await {
            BucketOutcome::Byte => return Availability::Readable,
            BucketOutcome::Inconclusive(availability) => return availability,
            BucketOutcome::Missing => None,
            BucketOutcome::Denied(cause) => Some(cause),
        };
        match (self.first_file().await, denied) {
            (Ok(Some(file)), _) => self.availability(self.read_byte(&file).await),
            (Ok(None), _) if key.is_empty() => self.no_files(),
            (Ok(None), _) => self.availability(self.read_byte(key).await),
            (Err(BucketOutcome::Denied(_)), Some(cause)) => Availability::Unchecked(cause),
            (Err(BucketOutcome::Denied(cause)), None) => Availability::Unchecked(format!(
                "{MODEL_FILE} does not exist, and other files cannot be listed: {cause}; allow these credentials to list (s3:ListBucket or its equivalent)"
            )),
            (Err(outcome), _) => self.availability(outcome),
        }
    }

    /// The availability after the last request of a check.
    fn availability(&self, outcome: BucketOutcome) -> Availability {
        match outcome {
            BucketOutcome::Byte => Availability::Readable,
            BucketOutcome::Missing => self.no_files(),
            BucketOutcome::Denied(cause) => Availability::Unchecked(cause),
            BucketOutcome::Inconclusive(availability) => availability,
        }
    }

    fn no_files(&self) -> Availability {
        Availability::Missing(format!(
            "the store has no files at {}; restore them, or register the version again",
            self.address.shown
        ))
    }

    /// Requests the first byte of a file.
    async fn read_byte(&self, key: &str) -> BucketOutcome {
        let Ok(path) = Path::parse(key) else {
            return self.unusual_path();
        };
        self.transport.take();
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..1)),
            ..GetOptions::default()
        };
        match self.store.get_opts(&path, options).await {
            Ok(response) => match response.into_stream().next().await {
                Some(Ok(bytes)) if !bytes.is_empty() => self.confirm_store(),
                Some(Err(error)) => self.explain(&error),
                _ => BucketOutcome::Missing,
            },
            // The store, or a proxy before it, ignores ranges and sends the whole file.
            Err(error) if error.to_string().contains("non-partial") => self.confirm_store(),
            Err(error) => self.explain(&error),
        }
    }

    /// Checks that the last response came from a store: every store sends an `ETag` or a date
    /// along.
    fn confirm_store(&self) -> BucketOutcome {
        let Some(LastExchange { origin, outcome }) = self.transport.take() else {
            return BucketOutcome::Byte;
        };
        match outcome {
            ExchangeOutcome::Response { html: true, .. } => {
                BucketOutcome::Inconclusive(Availability::Unchecked(format!(
                    "{origin} returned an HTML page for {}; set the address of the store's API, not of its console",
                    self.address.shown
                )))
            }
            ExchangeOutcome::Response { tagged: false, .. } => self.no_store(&origin),
            _ => BucketOutcome::Byte,
        }
    }

    fn no_store(&self, origin: &str) -> BucketOutcome {
        BucketOutcome::Inconclusive(Availability::Unknown(format!(
            "{origin} returned a response for {} that no store sends; check the endpoint",
            self.address.shown
        )))
    }

    fn unusual_path(&self) -> BucketOutcome {
        BucketOutcome::Inconclusive(Availability::Unchecked(format!(
            "{} has a path with empty or dotted parts; register the version from a plain one",
            self.address.shown
        )))
    }

    /// The first file below the key that is not empty.
    async fn first_file(&self) -> Result<Option<String>, BucketOutcome> {
        let key = &self.address.key;
        let prefix = (!key.is_empty()).then(|| format!("{key}/"));
        let options = PaginatedListOptions {
            max_keys: Some(MOST_NAMES),
            ..PaginatedListOptions::default()
        };
        self.transport.take();
        match self.store.list_paginated(prefix.as_deref(), options).await {
            Ok(page) => {
                let mut files = page.result.objects.into_iter();
                let file = files.find(|file| file.size > 0);
                Ok(file.map(|file| file.location.into()))
            }
            Err(error) => match self.explain(&error) {
                // A folder that does not exist lists as empty, and a bucket that does not exist has
                // an error code of its own.
                BucketOutcome::Missing => Err(BucketOutcome::Inconclusive(
                    Availability::Unchecked(format!(
                        "the folder of {} cannot be listed (404); check the endpoint in the Secret that spec.artifacts names",
                        self.address.shown
                    )),
                )),
                outcome => Err(outcome),
            },
        }
    }

    /// The outcome of a failed request, from the recorded exchange and not from the library's text.
    fn explain(&self, error: &object_store::Error) -> BucketOutcome {
        let Some(LastExchange { origin, outcome }) = self.transport.take() else {
            let cause = self.redactor.clean(&root_cause(error));
            return BucketOutcome::Inconclusive(not_requested(
                self.address,
                &format!("{cause}; {CHECK_SECRET}"),
            ));
        };
        match outcome {
            ExchangeOutcome::NoResponse(cause) => {
                let cause = self.redactor.clean(&cause);
                BucketOutcome::Inconclusive(Availability::Unknown(format!(
                    "no response from {origin} for {}: {cause}; check that the store runs and can be reached",
                    self.address.shown
                )))
            }
            ExchangeOutcome::NotTrusted(cause) => {
                BucketOutcome::Inconclusive(not_trusted(&origin, &self.redactor.clean(&cause)))
            }
            ExchangeOutcome::Response { status, .. } if status.is_success() => {
                self.no_store(&origin)
            }
            ExchangeOutcome::Response {
                status, html, text, ..
            } => self.explain_refusal(&origin, status, html, error_code(&text)),
        }
    }

    fn explain_refusal(
        &self,
        origin: &str,
        status: StatusCode,
        html: bool,
        code: &str,
    ) -> BucketOutcome {
        let separator = if code.is_empty() { "" } else { " " };
        let refusal = format!(
            "{origin} returned {}{separator}{code} for {}",
            status.as_u16(),
            self.address.shown
        );
        let unchecked = |remedy: &str| {
            BucketOutcome::Inconclusive(Availability::Unchecked(format!("{refusal}; {remedy}")))
        };
        match status.as_u16() {
            400..=499 if BAD_CREDENTIALS.contains(&code) || status == StatusCode::UNAUTHORIZED => {
                unchecked("renew the credentials in the Secret that spec.artifacts names")
            }
            404 | 410 if matches!(code, "NoSuchBucket" | "ContainerNotFound") => {
                BucketOutcome::Inconclusive(Availability::Missing(format!(
                    "the store has no bucket {}, in which {} is; create it, or register the version again",
                    self.address.bucket, self.address.shown
                )))
            }
            404 if html => unchecked("set the address of the store's API, not of its console"),
            404 | 410 | 416 => BucketOutcome::Missing,
            408 | 429 | 500.. => BucketOutcome::Inconclusive(Availability::Unknown(format!(
                "{refusal}; check the store's health"
            ))),
            403 if self.is_anonymous => {
                unchecked("nothing was signed: set credentials that may read it")
            }
            403 if code == "InvalidObjectState" => {
                BucketOutcome::Inconclusive(Availability::Missing(format!(
                    "{refusal}: it is archived; restore it, or register the version again"
                )))
            }
            // The pods may have another identity, which may read it.
            403 => BucketOutcome::Denied(format!(
                "Pointsman may not look: {refusal}; allow its credentials to read it"
            )),
            300..=399 => unchecked(
                "it redirects: set AWS_REGION or the endpoint to the region of the bucket",
            ),
            _ => unchecked(
                "check region, endpoint and credentials in the Secret that spec.artifacts names",
            ),
        }
    }
}

/// The error code of a refusal: the word between `<Code>` and `</Code>`; empty if there is none.
fn error_code(text: &str) -> &str {
    let Some((_, rest)) = text.split_once("<Code>") else {
        return "";
    };
    let Some((code, _)) = rest.split_once("</Code>") else {
        return "";
    };
    let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_word { code } else { "" }
}
