//! Checks files in a bucket: the file MLmodel and the data that it names, else the first file of the
//! folder, else the key itself. One byte is read of all but MLmodel.
//!
//! Absent: more than one page of a listing, and anonymous requests that no setting asks for.

use std::time::Duration;

use futures::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::HttpConnector;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{BackoffConfig, GetOptions, GetRange, ObjectStore, RetryConfig};
use reqwest::StatusCode;

use super::location::{BucketAddress, Cloud};
use super::store_settings::{CloudSettings, StoreSettings};
use super::transport::{
    ExchangeOutcome, HttpClients, LastExchange, RecordingTransport, not_trusted,
};
use crate::api::Availability;
use crate::api::model_file::{LONGEST_MODEL_FILE, MODEL_FILE, is_file_name, named_data};
use crate::http::body::root_cause;
use crate::http::redact::Redactor;
use crate::http::uri::brief;

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
pub(super) trait ListableStore: ObjectStore + PaginatedListStore {}
impl<T: ObjectStore + PaginatedListStore> ListableStore for T {}

/// The outcome of one request.
pub(super) enum BucketOutcome {
    /// At least a byte was read, or the store sent a file that was not asked for whole.
    Read(Vec<u8>),
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

pub(super) fn build(
    address: &BucketAddress,
    settings: &CloudSettings,
    transport: &(impl HttpConnector + Clone),
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
pub(super) struct BucketCheck<'a> {
    pub(super) address: &'a BucketAddress,
    pub(super) store: Box<dyn ListableStore>,
    pub(super) transport: RecordingTransport,
    pub(super) redactor: Redactor,
    pub(super) is_anonymous: bool,
}

impl BucketCheck<'_> {
    async fn run(&self) -> Availability {
        let key = &self.address.key;
        let denied = match self.read(&self.below(MODEL_FILE), LONGEST_MODEL_FILE).await {
            BucketOutcome::Read(file) => return self.check_data(named_data(&file)).await,
            BucketOutcome::Inconclusive(availability) => return availability,
            BucketOutcome::Missing => None,
            BucketOutcome::Denied(cause) => Some(cause),
        };
        match (self.first_file(key).await, denied) {
            (Ok(Some(file)), _) => self.availability(self.read(&file, 1).await),
            (Ok(None), _) if key.is_empty() => self.no_files(),
            (Ok(None), _) => self.availability(self.read(key, 1).await),
            (Err(BucketOutcome::Denied(cause)), denied) => self.check_key(cause, denied).await,
            (Err(outcome), _) => self.availability(outcome),
        }
    }

    /// The key of a file below the address.
    fn below(&self, path: &str) -> String {
        match self.address.key.as_str() {
            "" => path.to_owned(),
            key => format!("{key}/{path}"),
        }
    }

    /// Checks the file or folder with the model's data. Where credentials may not list, a folder cannot be checked.
    async fn check_data(&self, named: Option<String>) -> Availability {
        let Some(path) = named else {
            return Availability::Readable;
        };
        let key = self.below(&path);
        match self.read(&key, 1).await {
            BucketOutcome::Missing => {}
            BucketOutcome::Denied(_) if !is_file_name(&path) => {}
            outcome => return self.availability(outcome),
        }
        match self.first_file(&key).await {
            Ok(Some(file)) => self.availability(self.read(&file, 1).await),
            Err(BucketOutcome::Denied(_)) if !is_file_name(&path) => Availability::Readable,
            Ok(None) | Err(BucketOutcome::Denied(_)) => {
                Availability::Missing(lacks(&self.address.shown, &path))
            }
            Err(outcome) => self.availability(outcome),
        }
    }

    /// Checks the key itself, which may be a file, with credentials that may not list: for these reasons, and maybe not read MLmodel.
    async fn check_key(&self, may_not_list: String, may_not_read: Option<String>) -> Availability {
        let key = &self.address.key;
        if !key.is_empty()
            && let BucketOutcome::Read(_) = self.read(key, 1).await
        {
            return Availability::Readable;
        }
        Availability::Unchecked(match may_not_read {
            Some(cause) => cause,
            None => format!(
                "{MODEL_FILE} does not exist, and other files cannot be listed: {may_not_list}; allow these credentials to list (s3:ListBucket or its equivalent)"
            ),
        })
    }

    /// The availability after the last request of a check.
    fn availability(&self, outcome: BucketOutcome) -> Availability {
        match outcome {
            BucketOutcome::Read(_) => Availability::Readable,
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

    /// Requests the first bytes of a file.
    pub(super) async fn read(&self, key: &str, length: usize) -> BucketOutcome {
        let Ok(path) = Path::parse(key) else {
            return self.unusual_path();
        };
        self.transport.take();
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..length as u64)),
            ..GetOptions::default()
        };
        let response = match self.store.get_opts(&path, options).await {
            Ok(response) => response,
            // The store, or a proxy before it, ignores ranges and sends the whole file.
            Err(error) if error.to_string().contains("non-partial") => {
                return self.confirm_store(Vec::new());
            }
            Err(error) => return self.explain(&error),
        };
        let (mut read, mut stream) = (Vec::new(), response.into_stream());
        while read.len() < length
            && let Some(bytes) = stream.next().await
        {
            match bytes {
                Ok(bytes) => read.extend_from_slice(&bytes),
                Err(error) if read.is_empty() => return self.explain(&error),
                Err(_) => break,
            }
        }
        read.truncate(length);
        if read.is_empty() {
            return BucketOutcome::Missing;
        }
        self.confirm_store(read)
    }

    /// Checks that the last response came from a store: every store sends an `ETag` or a date
    /// along.
    fn confirm_store(&self, read: Vec<u8>) -> BucketOutcome {
        let Some(LastExchange { origin, outcome }) = self.transport.take() else {
            return BucketOutcome::Read(read);
        };
        match outcome {
            ExchangeOutcome::Response { html: true, .. } => {
                BucketOutcome::Inconclusive(Availability::Unchecked(format!(
                    "{origin} returned an HTML page for {}; set the address of the store's API, not of its console",
                    self.address.shown
                )))
            }
            ExchangeOutcome::Response { tagged: false, .. } => self.no_store(&origin),
            _ => BucketOutcome::Read(read),
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

    /// The first file below a key that is not empty.
    pub(super) async fn first_file(&self, key: &str) -> Result<Option<String>, BucketOutcome> {
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

/// The sentence about files that MLmodel names and the store lacks.
pub(super) fn lacks(shown: &str, path: &str) -> String {
    format!(
        "{shown} has no {}, which its {MODEL_FILE} names; restore it, or register the version again",
        brief(path)
    )
}

/// The error code of a refusal: the word between `<Code>` and `</Code>`; empty if there is none.
pub(super) fn error_code(text: &str) -> &str {
    let Some((_, rest)) = text.split_once("<Code>") else {
        return "";
    };
    let Some((code, _)) = rest.split_once("</Code>") else {
        return "";
    };
    let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_word { code } else { "" }
}
