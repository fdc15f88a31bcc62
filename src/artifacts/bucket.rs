//! Looks into a bucket: the model's file, else the first file of the folder, else the key itself; a byte of it.
//!
//! Absent: more than one page of a listing, and asking without credentials where nobody says so.

use std::error::Error;

use futures::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{BackoffConfig, GetOptions, GetRange, ObjectStore, RetryConfig};
use reqwest::StatusCode;
use std::time::Duration;

use super::place::{Address, Cloud};
use super::settings::{Chosen, Settings};
use super::transport::{Clients, Heard, Line, Said};
use super::{MODEL_FILE, Verdict};
use crate::registries::mlflow::redact::Redactor;

/// How many names a listing asks for.
const MOST_NAMES: usize = 100;
/// Refusals that speak of the credentials and not of the files, as the stores write them.
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
trait Bucket: ObjectStore + PaginatedListStore {}
impl<T: ObjectStore + PaginatedListStore> Bucket for T {}

/// What came of one question.
enum Found {
    /// A byte, or a name.
    Given,
    /// The store says that it is not there, or that it is empty.
    Missing,
    /// The store says that we may not.
    Denied(String),
    /// Nothing that says anything of the files.
    Other(Verdict),
}

/// Whether the files at an address can be read now.
pub(super) async fn look(address: &Address, settings: &Settings, clients: &Clients) -> Verdict {
    let chosen = settings.choose(address.cloud);
    if let Err(why) = chosen
        .check(address.cloud)
        .and_then(|()| check_account(address, &chosen))
    {
        return Verdict::Unchecked(format!("{} was not asked for: {why}", address.shown));
    }
    let line = Line::new(clients);
    let redactor = chosen.redactor();
    let store = match build(address, &chosen, &line) {
        Ok(store) => store,
        Err(error) => {
            return Verdict::Unchecked(format!(
                "{} was not asked for: {}; look at the Secret that spec.artifacts of the ModelRegistry names",
                address.shown,
                redactor.clean(&error.to_string())
            ));
        }
    };
    Look {
        address,
        store,
        line,
        redactor,
        chosen,
    }
    .look()
    .await
}

/// Credentials of one account are shown to no other.
fn check_account(address: &Address, chosen: &Chosen) -> Result<(), String> {
    if address.cloud != Cloud::Azure {
        return Ok(());
    }
    let of_account = chosen.get("AZURE_STORAGE_ACCOUNT_KEY").is_some()
        || chosen.get("AZURE_STORAGE_SAS_KEY").is_some();
    match (&address.account, chosen.get("AZURE_STORAGE_ACCOUNT_NAME")) {
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

fn build(address: &Address, chosen: &Chosen, line: &Line) -> object_store::Result<Box<dyn Bucket>> {
    let bucket = address.bucket.as_str();
    Ok(match address.cloud {
        Cloud::S3 => {
            let new = AmazonS3Builder::new()
                .with_bucket_name(bucket)
                .with_retry(retry())
                .with_http_connector(line.clone());
            Box::new(configured(new, chosen, AmazonS3Builder::with_config).build()?)
        }
        Cloud::Gcs => {
            let new = GoogleCloudStorageBuilder::new()
                .with_bucket_name(bucket)
                .with_retry(retry())
                .with_http_connector(line.clone());
            Box::new(configured(new, chosen, GoogleCloudStorageBuilder::with_config).build()?)
        }
        Cloud::Azure => {
            let new = MicrosoftAzureBuilder::new()
                .with_container_name(bucket)
                .with_retry(retry())
                .with_http_connector(line.clone());
            let new = configured(new, chosen, MicrosoftAzureBuilder::with_config);
            let new = match &address.account {
                Some((account, domain)) if chosen.endpoint().is_none() => new
                    .with_endpoint(format!("https://{account}.blob.{domain}"))
                    .with_account(account),
                Some((account, _)) => new.with_account(account),
                None => new,
            };
            Box::new(new.build()?)
        }
    })
}

/// A builder told all that the store's library knows a name for.
fn configured<B, K: std::str::FromStr>(
    builder: B,
    chosen: &Chosen,
    with: fn(B, K, String) -> B,
) -> B {
    chosen
        .named()
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.to_owned())))
        .fold(builder, |builder, (key, value)| with(builder, key, value))
}

/// Once more, soon: who asks has little time.
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

/// One look into one bucket.
struct Look<'a> {
    address: &'a Address,
    store: Box<dyn Bucket>,
    line: Line,
    redactor: Redactor,
    chosen: Chosen,
}

impl Look<'_> {
    async fn look(&self) -> Verdict {
        let key = &self.address.key;
        let model = if key.is_empty() {
            MODEL_FILE.to_owned()
        } else {
            format!("{key}/{MODEL_FILE}")
        };
        let denied = match self.read(&model).await {
            Found::Given => return Verdict::Readable,
            Found::Other(verdict) => return verdict,
            Found::Missing => None,
            Found::Denied(why) => Some(why),
        };
        match (self.first_file().await, denied) {
            (Ok(Some(file)), _) => self.verdict(self.read(&file).await),
            (Ok(None), _) if key.is_empty() => self.nothing(),
            (Ok(None), _) => self.verdict(self.read(key).await),
            (Err(Found::Denied(_)), Some(why)) => Verdict::Unreadable(why),
            (Err(Found::Denied(why)), None) => Verdict::Unchecked(format!(
                "{MODEL_FILE} is not there, and whether other files are cannot be seen: {why}; allow listing (s3:ListBucket and its likes) to these credentials"
            )),
            (Err(found), _) => self.verdict(found),
        }
    }

    /// What one question settles.
    fn verdict(&self, found: Found) -> Verdict {
        match found {
            Found::Given => Verdict::Readable,
            Found::Missing => self.nothing(),
            Found::Denied(why) => Verdict::Unreadable(why),
            Found::Other(verdict) => verdict,
        }
    }

    fn nothing(&self) -> Verdict {
        Verdict::Unreadable(format!(
            "the store has no files at {}; restore them, or register the version again",
            self.address.shown
        ))
    }

    /// Asks for the first byte of a file.
    async fn read(&self, key: &str) -> Found {
        let Ok(path) = Path::parse(key) else {
            return self.strange_path();
        };
        self.line.take();
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..1)),
            ..GetOptions::default()
        };
        match self.store.get_opts(&path, options).await {
            Ok(given) => match given.into_stream().next().await {
                Some(Ok(bytes)) if !bytes.is_empty() => self.unless_strange(),
                Some(Err(error)) => self.explain(&error),
                _ => Found::Missing,
            },
            // Bytes are on their way, of the whole file: the store, or a proxy before it, knows no ranges.
            Err(error) if error.to_string().contains("non-partial") => self.unless_strange(),
            Err(error) => self.explain(&error),
        }
    }

    fn unless_strange(&self) -> Found {
        match self.line.take() {
            Some(Heard {
                origin,
                what: Said::Answer { html: true, .. },
            }) => Found::Other(self.page(&origin)),
            Some(Heard {
                origin,
                what: Said::Answer { tagged: false, .. },
            }) => Found::Other(self.no_store(&origin)),
            _ => Found::Given,
        }
    }

    fn page(&self, origin: &str) -> Verdict {
        Verdict::Unchecked(format!(
            "{} was answered with an HTML page by {origin}; set the address of the store's API, not of its console",
            self.address.shown
        ))
    }

    /// Every store names or dates the bytes that it gives.
    fn no_store(&self, origin: &str) -> Verdict {
        Verdict::Unknown(format!(
            "{origin} answered about {} with what no store answers; check which server is asked",
            self.address.shown
        ))
    }

    fn strange_path(&self) -> Found {
        Found::Other(Verdict::Unchecked(format!(
            "{} holds a path that cannot be asked for (empty or dotted parts); register the version from a plain one",
            self.address.shown
        )))
    }

    /// The first file below the key that is not empty.
    async fn first_file(&self) -> Result<Option<String>, Found> {
        let prefix = (!self.address.key.is_empty()).then(|| format!("{}/", self.address.key));
        let options = PaginatedListOptions {
            max_keys: Some(MOST_NAMES),
            ..PaginatedListOptions::default()
        };
        self.line.take();
        match self.store.list_paginated(prefix.as_deref(), options).await {
            Ok(page) => Ok(page
                .result
                .objects
                .into_iter()
                .find(|file| file.size > 0)
                .map(|file| file.location.into())),
            Err(error) => match self.explain(&error) {
                // A folder that is not there lists as nothing, and a bucket that is not there has a code of its own.
                Found::Missing => Err(Found::Other(Verdict::Unchecked(format!(
                    "the folder of {} cannot be listed there (404); look at the endpoint in the Secret that spec.artifacts names",
                    self.address.shown
                )))),
                found => Err(found),
            },
        }
    }

    fn no_bucket(&self) -> Verdict {
        Verdict::Unreadable(format!(
            "the store has no bucket {}, which {} is in; make it, or register the version again",
            self.address.bucket, self.address.shown
        ))
    }

    /// What a failure means, from what was heard and not from the library's words.
    fn explain(&self, error: &object_store::Error) -> Found {
        let Some(heard) = self.line.take() else {
            return Found::Other(Verdict::Unchecked(format!(
                "{} was not asked for: {}; look at the Secret that spec.artifacts of the ModelRegistry names",
                self.address.shown,
                self.redactor.clean(&root(error))
            )));
        };
        let (status, html, words) = match &heard.what {
            Said::Nothing(why) => {
                let why = self.redactor.clean(why);
                return Found::Other(Verdict::Unknown(format!(
                    "no answer from {} about {}: {why}; check that the store runs and can be reached",
                    heard.origin, self.address.shown
                )));
            }
            Said::Answer {
                status,
                html,
                words,
                ..
            } => (*status, *html, words),
        };
        if status.is_success() {
            return Found::Other(self.no_store(&heard.origin));
        }
        let code = code(words);
        let said = format!(
            "{} answered {}{} about {}",
            heard.origin,
            status.as_u16(),
            spaced(code),
            self.address.shown
        );
        self.meaning(status, html, code, &said)
    }

    fn meaning(&self, status: StatusCode, html: bool, code: &str, said: &str) -> Found {
        let unchecked =
            |remedy: &str| Found::Other(Verdict::Unchecked(format!("{said}; {remedy}")));
        match status.as_u16() {
            400..=499 if BAD_CREDENTIALS.contains(&code) || status == StatusCode::UNAUTHORIZED => {
                unchecked(
                    "it does not accept the credentials: renew them in the Secret that spec.artifacts names",
                )
            }
            404 | 410 if matches!(code, "NoSuchBucket" | "ContainerNotFound") => {
                Found::Other(self.no_bucket())
            }
            404 if html => unchecked(
                "that is a web page: set the address of the store's API, not of its console",
            ),
            404 | 410 | 416 => Found::Missing,
            408 | 429 | 500.. => Found::Other(Verdict::Unknown(format!(
                "{said}; ask again when the store is well"
            ))),
            403 if self.chosen.is_anonymous() => {
                unchecked("nothing was signed: set credentials that may read it")
            }
            403 => Found::Denied(format!(
                "{said}; allow these credentials to read it, or register the version elsewhere"
            )),
            300..=399 => unchecked(
                "it sends us elsewhere: set AWS_REGION or the endpoint to where the bucket is",
            ),
            _ => unchecked(
                "look at region, endpoint and credentials in the Secret that spec.artifacts names",
            ),
        }
    }
}

/// A refusal's code: a word between `<Code>` and `</Code>`.
fn code(words: &str) -> &str {
    let code = words
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map_or("", |(code, _)| code);
    if code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        code
    } else {
        ""
    }
}

fn spaced(code: &str) -> String {
    if code.is_empty() {
        String::new()
    } else {
        format!(" {code}")
    }
}

/// The innermost cause, which names the fault and no address.
fn root(error: &object_store::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
