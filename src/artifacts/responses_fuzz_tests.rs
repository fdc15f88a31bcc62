//! Responses of S3, Google Cloud Storage and Azure, or of a server in their place: listings, headers and refusals.
//!
//! Absent: connections, and bodies without an end; see `hostile_tests`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use super::bucket::{BucketCheck, BucketOutcome, build, error_code};
use super::location::{ArtifactLocation, BucketAddress};
use super::store_settings::StoreSettings;
use super::transport::{HttpClients, RecordingTransport};
use crate::http::guard::AddressGuard;
use crate::testing::fuzz::Fuzz;

/// A store that gives the same response to every request.
#[derive(Clone, Debug, Default)]
struct OneResponse(Arc<Mutex<(HeaderMap, Vec<u8>)>>);

#[async_trait]
impl HttpService for OneResponse {
    async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (headers, body) = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let is_part = headers.contains_key("content-range");
        let mut response = HttpResponse::new(HttpResponseBody::from(body));
        *response.status_mut() = if is_part { 206 } else { 200 }
            .try_into()
            .expect("a status");
        *response.headers_mut() = headers;
        Ok(response)
    }
}

impl HttpConnector for OneResponse {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// `name: value` lines up to an empty line, and the rest.
fn split_head(input: &[u8]) -> (HeaderMap, Vec<u8>) {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = input.split_at(end.unwrap_or(0));
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, body.trim_ascii_start().to_vec())
}

fn address(uri: &str) -> BucketAddress {
    match ArtifactLocation::parse(uri) {
        Ok(ArtifactLocation::Bucket(address)) => address,
        other => panic!("{uri}: {other:?}"),
    }
}

const WORDS: &[&str] = &[
    "Key",
    "Size",
    "Contents",
    "CommonPrefixes",
    "IsTruncated",
    "Blob",
    "Properties",
    "Content-Length",
    "Content-Range",
    "Last-Modified",
    "ETag",
    "Code",
    "NextMarker",
    "m/",
    "&lt;",
    "&#0;",
    "<![CDATA[",
    "<!DOCTYPE a [<!ENTITY b \"c\">]>",
    "&b;",
    "-->",
    "bytes 0-0/1",
];

#[test]
fn no_response_of_a_store_breaks_a_check() {
    let anonymous = ["AWS", "GOOGLE", "AZURE"]
        .map(|cloud| (format!("{cloud}_SKIP_SIGNATURE"), "true".to_owned()));
    let settings = StoreSettings::new(BTreeMap::from(anonymous), BTreeMap::new());
    let addresses = [
        "s3://b/m",
        "gs://b/m",
        "abfss://c@acct.dfs.core.windows.net/m",
    ]
    .map(address);
    let server = OneResponse::default();
    let mut checks = Vec::new();
    for address in &addresses {
        let settings = settings.of_cloud(address.cloud);
        checks.push(BucketCheck {
            address,
            store: build(address, &settings, &server).expect("a store"),
            transport: RecordingTransport::new(&HttpClients::new("", &AddressGuard::default())),
            redactor: settings.redactor(),
            is_anonymous: true,
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let fuzz = Fuzz {
        name: "store-responses",
        words: WORDS,
        generate: None,
        accepted_of: 20,
    };
    let mut number = 0;
    fuzz.run(|input| {
        let (headers, body) = split_head(input);
        let code = error_code(&String::from_utf8_lossy(&body)).to_owned();
        assert!(code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        *server.0.lock().unwrap_or_else(PoisonError::into_inner) = (headers, body);
        number += 1;
        let check = &checks[number % checks.len()];
        runtime.block_on(async {
            let file = check.first_file("m").await;
            let read = check.read("m/MLmodel", 1 << 10).await;
            matches!(file, Ok(Some(_))) || matches!(read, BucketOutcome::Read(_))
        })
    });
}
