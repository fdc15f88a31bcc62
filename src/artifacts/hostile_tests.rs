//! Checks against stores that respond slowly, endlessly or with invalid data, and against addresses
//! that must get no request.
//!
//! Absent: real stores; those are in the test target `artifact`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{ArtifactStores, ProxiedArtifacts};
use crate::api::Availability;
use crate::http::hostile::{HostileServer, Reply};

const SECRET: &str = "s3cr3t-of-the-test-0123456789";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Stores with the settings of a Secret and an empty environment.
fn stores(settings: &[(&str, &str)]) -> ArtifactStores {
    _ = rustls::crypto::ring::default_provider().install_default();
    let stores = ArtifactStores::with_environment(None, map(settings), BTreeMap::new(), false);
    ArtifactStores {
        timeout: Duration::from_secs(2),
        ..stores
    }
}

fn s3(server: &HostileServer) -> ArtifactStores {
    stores(&[
        ("AWS_ENDPOINT_URL", &server.uri),
        ("AWS_ACCESS_KEY_ID", "id-of-the-test"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", "token-of-the-test"),
    ])
}

fn xml(status: &str, code: &str) -> Reply {
    Reply::typed(
        status,
        "application/xml",
        &format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{SECRET}</Message></Error>"
        ),
    )
}

fn object(extra: &str) -> Reply {
    file(extra, "a")
}

/// A file that is shorter than every range.
fn file(extra: &str, content: &str) -> Reply {
    let (length, last) = (content.len(), content.len() - 1);
    Reply::Raw(format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\nContent-Range: bytes 0-{last}/{length}\r\nETag: \"x\"\r\nLast-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\n{extra}Connection: close\r\n\r\n{content}"
    ))
}

/// An MLmodel that names this file or folder.
fn model_file(data: &str) -> Reply {
    let flavor = format!("python_function:\n    model_path: {data}");
    file("", &format!("artifact_path: m\nflavors:\n  {flavor}\n"))
}

fn listing(keys: &[(&str, u64)]) -> Reply {
    let files: Vec<String> = keys
        .iter()
        .map(|(key, size)| format!("<Contents><Key>{key}</Key><LastModified>2026-11-23T10:00:00.000Z</LastModified><ETag>x</ETag><Size>{size}</Size></Contents>"))
        .collect();
    let files = files.concat();
    Reply::typed(
        "200 OK",
        "application/xml",
        &format!(
            "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>{files}</ListBucketResult>"
        ),
    )
}

/// The sentence of a result, after a check that it holds no secret.
fn sentence(availability: &Availability) -> &str {
    let (Availability::Missing(why) | Availability::Unknown(why) | Availability::Unchecked(why)) =
        availability
    else {
        return "";
    };
    assert!(
        !why.contains(SECRET) && !why.contains("token-of-the-test"),
        "{why}"
    );
    assert!(why.len() < 900, "{why}");
    why
}

#[tokio::test]
async fn without_credentials_no_request_is_sent() {
    let server = HostileServer::start(|_, _| Reply::HangUp).await.unwrap();
    for (uri, settings, named) in [
        (
            "s3://b/k",
            vec![("AWS_ENDPOINT_URL", server.uri.as_str())],
            "AWS_ACCESS_KEY_ID",
        ),
        (
            "gs://b/k",
            vec![("GOOGLE_BASE_URL", server.uri.as_str())],
            "GOOGLE_SERVICE_ACCOUNT_KEY",
        ),
        (
            "az://b/k",
            vec![
                ("AZURE_STORAGE_ENDPOINT", server.uri.as_str()),
                ("AZURE_STORAGE_ACCOUNT_NAME", "a"),
            ],
            "AZURE_STORAGE_ACCOUNT_KEY",
        ),
        (
            "abfss://c@acct.dfs.core.windows.net/k",
            vec![],
            "AZURE_STORAGE_ACCOUNT_KEY",
        ),
        ("dbfs:/models/x", vec![], "cannot check"),
        ("mlflow-artifacts:/1/x", vec![], "ModelRegistry"),
        ("file:///etc/passwd", vec![], "one machine"),
    ] {
        let started = Instant::now();
        let availability = stores(&settings).check(uri).await;
        assert!(
            matches!(availability, Availability::Unchecked(_))
                && sentence(&availability).contains(named),
            "{uri}: {availability:?}"
        );
        assert!(
            started.elapsed() < Duration::from_millis(500),
            "{uri} took {:?}",
            started.elapsed()
        );
    }
    assert!(server.heads().is_empty(), "{:?}", server.heads());
}

#[tokio::test]
async fn a_bucket_with_a_model_file_takes_one_request() {
    let server = HostileServer::start(|_, _| object("")).await.unwrap();
    assert_eq!(
        s3(&server).check("s3://b/1/m-x").await,
        Availability::Readable
    );
    let heads = server.heads();
    assert_eq!(heads.len(), 1);
    assert!(
        heads[0].starts_with("GET /b/1/m-x/MLmodel ")
            && heads[0].to_lowercase().contains("range: bytes=0-65535"),
        "{heads:?}"
    );
}

#[tokio::test]
async fn the_data_that_the_model_file_names_is_asked_for() {
    let gone = || xml("404 Not Found", "NoSuchKey");
    let archived = || xml("403 Forbidden", "InvalidObjectState");
    let denied = || xml("403 Forbidden", "AccessDenied");
    let of_folder = || listing(&[("k/data/w.bin", 1)]);
    // The path that MLmodel names, the replies to the requests for it and to a listing, and the availability.
    for (path, data, listed, expected) in [
        ("model.pkl", object(""), gone(), "Readable"),
        ("model.pkl", gone(), listing(&[]), "Missing"),
        ("model.pkl", archived(), listing(&[]), "Missing"),
        ("model.pkl", gone(), denied(), "Missing"),
        ("model.pkl", denied(), denied(), "Unchecked"),
        ("data", gone(), of_folder(), "Readable"),
        ("data", gone(), listing(&[]), "Missing"),
        ("data", denied(), denied(), "Readable"),
    ] {
        let server = HostileServer::start(move |_, head| match head {
            head if head.contains("/MLmodel ") => model_file(path),
            head if head.contains("list-type=2") => listed.clone(),
            head if head.contains("w.bin") => object(""),
            _ => data.clone(),
        });
        let server = server.await.unwrap();
        let availability = s3(&server).check("s3://b/k").await;
        let found = format!("{availability:?}");
        assert!(found.starts_with(expected), "{path}: {found}");
        if expected == "Missing" {
            assert!(found.contains("restore it"), "{found}");
        }
    }
}

/// Such as S3 with a policy of `GetObject` alone, which says 403 of a key that does not exist.
#[tokio::test]
async fn a_source_that_is_a_file_is_asked_for_itself_without_the_right_to_list() {
    let server = HostileServer::start(|_, head| match head {
        head if head.starts_with("GET /b/m/model.onnx ") => object(""),
        _ => xml("403 Forbidden", "AccessDenied"),
    });
    let stores = s3(&server.await.unwrap());
    assert_eq!(
        stores.check("s3://b/m/model.onnx").await,
        Availability::Readable
    );
    let other = stores.check("s3://b/m/other.onnx").await;
    assert!(
        matches!(&other, Availability::Unchecked(why) if why.contains("may not look")),
        "{other:?}"
    );
}

#[tokio::test]
async fn a_store_without_ranges_is_readable() {
    let server = HostileServer::start(|_, _| {
        Reply::Endless("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nLast-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\nContent-Length: 999999999\r\n\r\n".to_owned())
    });
    assert_eq!(
        s3(&server.await.unwrap()).check("s3://b/k").await,
        Availability::Readable
    );
}

#[tokio::test]
async fn without_a_model_file_the_first_file_with_content_is_read() {
    let server = HostileServer::start(|_, head| match head {
        head if head.contains("MLmodel") => xml("404 Not Found", "NoSuchKey"),
        head if head.contains("list-type=2") => listing(&[("k/marker", 0), ("k/data/w.bin", 9)]),
        _ => object(""),
    });
    let server = server.await.unwrap();
    assert_eq!(s3(&server).check("s3://b/k").await, Availability::Readable);
    assert!(
        server
            .heads()
            .last()
            .is_some_and(|head| head.starts_with("GET /b/k/data/w.bin ")),
        "{:?}",
        server.heads()
    );
}

#[tokio::test]
async fn refusals_about_files_and_about_credentials_are_different() {
    for (status, code, expected, named) in [
        ("403 Forbidden", "AccessDenied", "Unchecked", "may not look"),
        (
            "403 Forbidden",
            "InvalidObjectState",
            "Missing",
            "InvalidObjectState",
        ),
        ("404 Not Found", "NoSuchBucket", "Missing", "no bucket"),
        (
            "403 Forbidden",
            "SignatureDoesNotMatch",
            "Unchecked",
            "renew",
        ),
        ("400 Bad Request", "ExpiredToken", "Unchecked", "renew"),
        ("401 Unauthorized", "X", "Unchecked", "renew"),
        (
            "400 Bad Request",
            "AuthorizationHeaderMalformed",
            "Unchecked",
            "region",
        ),
        (
            "500 Internal Server Error",
            "InternalError",
            "Unknown",
            "500",
        ),
        ("503 Slow Down", "SlowDown", "Unknown", "503"),
    ] {
        let server = HostileServer::start(move |_, _| xml(status, code))
            .await
            .unwrap();
        let availability = s3(&server).check("s3://b/k").await;
        assert!(
            format!("{availability:?}").starts_with(expected),
            "{code}: {availability:?}"
        );
        assert!(
            sentence(&availability).contains(named),
            "{code}: {availability:?}"
        );
    }
}

#[tokio::test]
async fn credentials_that_may_not_list_get_a_remedy() {
    let server = HostileServer::start(|_, head| {
        let (status, code) = if head.contains("list-type=2") {
            ("403 Forbidden", "AccessDenied")
        } else {
            ("404 Not Found", "NoSuchKey")
        };
        xml(status, code)
    });
    let availability = s3(&server.await.unwrap()).check("s3://b/k").await;
    assert!(
        matches!(availability, Availability::Unchecked(_))
            && sentence(&availability).contains("s3:ListBucket"),
        "{availability:?}"
    );
}

#[tokio::test]
async fn responses_that_no_store_sends_prove_nothing() {
    let page = "<html><body>Sign in</body></html>";
    for reply in [
        Reply::typed("200 OK", "text/html", page),
        Reply::typed("404 Not Found", "text/html", page),
        Reply::typed("200 OK", "text/plain", "hello"),
        Reply::typed(
            "301 Moved Permanently\r\nLocation: http://169.254.169.254/",
            "text/plain",
            "",
        ),
        Reply::HangUp,
        Reply::Drip("HTTP/1.1 200 OK\r\n".repeat(99)),
        Reply::Endless("HTTP/1.1 500 No\r\n\r\n".to_owned()),
        Reply::Endless("HTTP/1.1 200 OK\r\nX: ".to_owned()),
    ] {
        let server = HostileServer::start(move |_, _| reply.clone())
            .await
            .unwrap();
        let started = Instant::now();
        let availability = s3(&server).check("s3://b/k").await;
        assert!(
            matches!(
                availability,
                Availability::Unknown(_) | Availability::Unchecked(_)
            ),
            "{availability:?}"
        );
        assert!(
            !sentence(&availability).is_empty() && started.elapsed() < Duration::from_secs(4),
            "{availability:?}"
        );
    }
}

#[tokio::test]
async fn an_endless_listing_is_cut() {
    let server = HostileServer::start(|_, head| {
        let endless = || {
            Reply::Endless("HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n".to_owned())
        };
        if head.contains("list-type=2") {
            endless()
        } else {
            xml("404 Not Found", "NoSuchKey")
        }
    });
    let availability = s3(&server.await.unwrap()).check("s3://b/k").await;
    assert!(
        matches!(availability, Availability::Unknown(_)),
        "{availability:?}"
    );
}

#[tokio::test]
async fn google_and_azure_use_their_own_paths() {
    let server = HostileServer::start(|_, _| {
        object("x-ms-creation-time: Mon, 23 Nov 2026 10:00:00 GMT\r\n")
    })
    .await
    .unwrap();
    let gcs = stores(&[
        ("GOOGLE_BASE_URL", &server.uri),
        ("GOOGLE_BEARER_TOKEN", "token-of-the-test"),
    ]);
    assert_eq!(gcs.check("gs://b/k").await, Availability::Readable);
    let azure = stores(&[
        ("AZURE_STORAGE_ENDPOINT", &server.uri),
        ("AZURE_STORAGE_ACCOUNT_NAME", "acct"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0LW9mLXRoZS10ZXN0"),
    ]);
    assert_eq!(
        azure.check("abfss://c@acct.dfs.core.windows.net/k").await,
        Availability::Readable
    );
    let other = azure.check("abfss://c@other.dfs.core.windows.net/k").await;
    assert!(
        matches!(other, Availability::Unchecked(_)) && sentence(&other).contains("acct"),
        "{other:?}"
    );
    let heads: Vec<String> = server
        .heads()
        .iter()
        .map(|head| head.lines().next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        heads,
        ["GET /b/k%2FMLmodel HTTP/1.1", "GET /c/k/MLmodel HTTP/1.1"]
    );
}

#[tokio::test]
async fn invalid_settings_are_named_and_not_sent() {
    let server = HostileServer::start(|_, _| Reply::HangUp).await.unwrap();
    let broken = stores(&[
        ("GOOGLE_BASE_URL", &server.uri),
        (
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            "{s3cr3t-of-the-test-0123456789",
        ),
    ]);
    let availability = broken.check("gs://b/k").await;
    assert!(
        matches!(availability, Availability::Unchecked(_))
            && sentence(&availability).contains("Secret"),
        "{availability:?}"
    );
    assert!(server.heads().is_empty());
}

/// A key as emulators give it, which says where they are.
fn key_for(server: &str) -> String {
    format!(
        "{{\"gcs_base_url\":\"{server}\",\"disable_oauth\":true,\"client_email\":\"\",\"private_key\":\"\",\"private_key_id\":\"\"}}"
    )
}

#[tokio::test]
async fn a_server_in_a_google_key_is_checked_like_any_other() {
    let server = HostileServer::start(|_, _| object("")).await.unwrap();
    let there = stores(&[("GOOGLE_SERVICE_ACCOUNT_KEY", &key_for(&server.uri))]);
    assert_eq!(there.check("gs://b/k").await, Availability::Readable);
    for place in [
        "mailto:x@y",
        "x",
        "",
        "/x",
        "http://",
        "http://user:s3cr3t-of-the-test-0123456789@host",
        "http://host?x=y",
    ] {
        let availability = stores(&[("GOOGLE_APPLICATION_CREDENTIALS", &key_for(place))])
            .check("gs://b/k")
            .await;
        assert!(
            matches!(availability, Availability::Unchecked(_)),
            "{place}: {availability:?}"
        );
        assert!(
            sentence(&availability).contains("GOOGLE_BASE_URL"),
            "{place}: {availability:?}"
        );
    }
}

const S3: &[(&str, &str)] = &[
    ("AWS_ENDPOINT_URL", "SERVER"),
    ("AWS_ACCESS_KEY_ID", "id"),
    ("AWS_SECRET_ACCESS_KEY", "key"),
];
const GCS: &[(&str, &str)] = &[
    ("GOOGLE_BASE_URL", "SERVER"),
    ("GOOGLE_BEARER_TOKEN", "token"),
];
const AZURE: &[(&str, &str)] = &[
    ("AZURE_STORAGE_ENDPOINT", "SERVER"),
    ("AZURE_STORAGE_ACCOUNT_NAME", "acct"),
    ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0"),
];
const ENTRA: &[(&str, &str)] = &[
    ("AZURE_AUTHORITY_HOST", "SERVER"),
    ("AZURE_STORAGE_ACCOUNT_NAME", "acct"),
    ("AZURE_CLIENT_ID", "id"),
    ("AZURE_TENANT_ID", "tenant"),
    ("AZURE_CLIENT_SECRET", "secret"),
];
/// What no header, no host or no address can hold.
const STRANGE: &[&str] = &[
    "a\nb",
    "a b",
    "\u{e9}\u{1}",
    "%",
    "[",
    "a=b c&d=\n",
    "http://a b",
    "http://[::1",
    "http://\u{e9}",
    "http://a/\"<>{}|",
];

/// Each setting is strange once, while the others are well: the release build ends where a thread
/// panics.
#[tokio::test]
async fn no_value_of_a_secret_panics() {
    _ = rustls::crypto::ring::default_provider().install_default();
    let server = HostileServer::start(|_, _| xml("404 Not Found", "NoSuchKey"))
        .await
        .unwrap();
    for (uri, well, more) in [
        (
            "s3://b/k",
            S3,
            &[
                "AWS_SESSION_TOKEN",
                "AWS_REGION",
                "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
            ][..],
        ),
        ("s3://b/k", &S3[1..], &["AWS_REGION"]),
        ("gs://b/k", GCS, &[]),
        ("az://b/k", AZURE, &[]),
        ("az://b/k", &AZURE[1..], &[]),
        (
            "az://b/k",
            &AZURE[..2],
            &["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"],
        ),
        ("az://b/k", ENTRA, &[]),
    ] {
        for name in well.iter().map(|(name, _)| name).chain(more) {
            for value in STRANGE {
                let mut settings = map(well);
                settings
                    .values_mut()
                    .filter(|value| *value == "SERVER")
                    .for_each(|value| value.clone_from(&server.uri));
                settings.insert((*name).to_owned(), (*value).to_owned());
                let stores =
                    ArtifactStores::with_environment(None, settings, BTreeMap::new(), false);
                let stores = ArtifactStores {
                    timeout: Duration::from_millis(200),
                    ..stores
                };
                let done = tokio::spawn(async move { stores.check(uri).await }).await;
                assert!(done.is_ok(), "{name}={value:?}: {done:?}");
            }
        }
    }
}

#[tokio::test]
async fn web_redirects_are_limited() {
    let looping = HostileServer::start(|_, _| {
        Reply::typed(
            "302 Found\r\nLocation: /again?token=s3cr3t-of-the-test-0123456789",
            "text/plain",
            "",
        )
    })
    .await
    .unwrap();
    let availability = stores(&[]).check(&format!("{}/m", looping.uri)).await;
    assert!(
        matches!(availability, Availability::Unchecked(_))
            && sentence(&availability).contains("redirects"),
        "{availability:?}"
    );
    assert_eq!(looping.heads().len(), 4);
    for target in [
        "ftp://host/x",
        "https://host/x",
        "http://user:s3cr3t-of-the-test-0123456789@host/x",
        "http://169.254.169.254/latest",
    ] {
        let server = HostileServer::start(move |_, _| {
            Reply::typed(
                &format!("302 Found\r\nLocation: {target}"),
                "text/plain",
                "",
            )
        })
        .await
        .unwrap();
        let availability = stores(&[]).check(&format!("{}/m", server.uri)).await;
        assert!(
            matches!(availability, Availability::Unchecked(_)),
            "{target}: {availability:?}"
        );
        sentence(&availability);
    }
}

#[tokio::test]
async fn web_servers_with_bad_responses_prove_nothing() {
    for (reply, expected) in [
        (Reply::typed("500 No", "text/plain", ""), "Unknown"),
        (Reply::typed("403 Forbidden", "text/plain", ""), "Unchecked"),
        (Reply::typed("200 OK", "text/html", "<html>"), "Unchecked"),
        (
            Reply::typed("404 Not Found", "text/html", "<html>"),
            "Missing",
        ),
        (Reply::HangUp, "Unknown"),
        (Reply::Drip("HTTP/1.1 200 OK\r\n".repeat(99)), "Unknown"),
        (
            Reply::Endless("HTTP/1.1 200 OK\r\n\r\n".to_owned()),
            "Readable",
        ),
    ] {
        let server = HostileServer::start(move |_, _| reply.clone())
            .await
            .unwrap();
        let availability = stores(&[]).check(&format!("{}/m", server.uri)).await;
        assert!(
            format!("{availability:?}").starts_with(expected),
            "{availability:?}"
        );
    }
}

#[tokio::test]
async fn proxied_artifacts_are_checked_by_the_given_function() {
    let proxied = ProxiedArtifacts::new(|host, path| async move {
        Availability::Missing(format!("{host:?} {path}"))
    });
    let stores =
        ArtifactStores::with_environment(Some(proxied), BTreeMap::new(), BTreeMap::new(), false);
    assert_eq!(
        stores.check("mlflow-artifacts://h:5000/1/m/").await,
        Availability::Missing("Some(\"h:5000\") 1/m".to_owned())
    );
}
