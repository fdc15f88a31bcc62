//! Parses an artifact URI to the location of the files: behind the MLflow server, in a bucket, on a
//! web server, or a path.
//!
//! Absent: requests and credentials. A URI that holds a password is refused and not repeated.

use std::path::PathBuf;

use url::Url;

use crate::api::public_uri::{has_user, public};
use crate::http::uri::shown;

/// The location of files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ArtifactLocation {
    /// Behind an MLflow server, whose host may be named.
    Proxied { host: Option<String>, path: String },
    /// In a bucket.
    Bucket(BucketAddress),
    /// On a web server.
    Web(Url),
    /// On this machine.
    File(PathBuf),
}

/// A folder or a file in a bucket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct BucketAddress {
    /// The protocol.
    pub(super) cloud: Cloud,
    /// The bucket or container.
    pub(super) bucket: String,
    /// The path in the bucket, without slashes at its ends; empty for the whole bucket.
    pub(super) key: String,
    /// Azure's account and its domain, if the URI names them.
    pub(super) account: Option<(String, String)>,
    /// The URI as it may be shown.
    pub(super) shown: String,
}

/// The protocol of a bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cloud {
    /// Amazon S3 and compatible stores.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage and Data Lake.
    Azure,
}

/// The domains of Azure's accounts. A URI cannot make credentials be sent to any other.
const AZURE_DOMAINS: &[&str] = &[
    "core.windows.net",
    "core.usgovcloudapi.net",
    "core.chinacloudapi.cn",
    "storage.azure.net",
];

impl ArtifactLocation {
    /// The location that a URI names, or the reason why it cannot be checked.
    pub(super) fn parse(uri: &str) -> Result<Self, String> {
        if has_user(uri) {
            return Err("the artifact's URI holds a user or password: register the version again without, and name a Secret in spec.artifacts of its ModelRegistry".to_owned());
        }
        if uri.starts_with('/') {
            return Ok(Self::File(PathBuf::from(uri)));
        }
        let (scheme, rest) = uri.split_once(':').ok_or_else(|| unsupported(uri))?;
        match scheme.to_ascii_lowercase().as_str() {
            "mlflow-artifacts" => proxied(rest).ok_or_else(|| unsupported(uri)),
            "s3" | "s3a" | "s3n" => bucket(Cloud::S3, uri, rest).map(Self::Bucket),
            "gs" => bucket(Cloud::Gcs, uri, rest).map(Self::Bucket),
            "az" | "abfs" | "abfss" | "wasb" | "wasbs" => azure(uri, rest).map(Self::Bucket),
            "http" | "https" => Url::parse(uri).map(Self::Web).map_err(|_| unsupported(uri)),
            "file" => file(uri),
            _ => Err(unsupported(uri)),
        }
    }
}

fn unsupported(uri: &str) -> String {
    format!(
        "Pointsman cannot check {}: it supports mlflow-artifacts:/, s3://, gs://, abfss://, wasbs://, http(s):// and file:///; pods may be able to read it all the same",
        shown(uri)
    )
}

/// `/path` or `//host/path`.
fn proxied(rest: &str) -> Option<ArtifactLocation> {
    let (host, path) = match rest.strip_prefix("//") {
        Some(hosted) => hosted.split_once('/')?,
        None => ("", rest),
    };
    let path = public(path).trim_matches('/');
    if path.is_empty() {
        return None;
    }
    Some(ArtifactLocation::Proxied {
        host: (!host.is_empty()).then(|| host.to_owned()),
        path: path.to_owned(),
    })
}

fn bucket(cloud: Cloud, uri: &str, rest: &str) -> Result<BucketAddress, String> {
    let (bucket, key) = authority_and_path(rest).ok_or_else(|| unsupported(uri))?;
    if !is_bucket(bucket) {
        return Err(format!(
            "{} names no bucket: register the version with scheme://bucket/path",
            shown(uri)
        ));
    }
    Ok(BucketAddress {
        cloud,
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        account: None,
        shown: shown(uri),
    })
}

/// `container@account.domain/path`, or `container/path` if the account is in the settings.
fn azure(uri: &str, rest: &str) -> Result<BucketAddress, String> {
    let Some((container, host)) =
        authority_and_path(rest).and_then(|(authority, _)| authority.split_once('@'))
    else {
        return bucket(Cloud::Azure, uri, rest);
    };
    let (account, domain) = azure_account(host).ok_or_else(|| {
        format!(
            "{} names no host of Azure Blob Storage: register the version with a host such as account.dfs.core.windows.net",
            shown(uri)
        )
    })?;
    let path = rest.split_once('@').map_or(rest, |(_, path)| path);
    let key = authority_and_path(&format!("//{path}"))
        .map(|(_, key)| key.to_owned())
        .unwrap_or_default();
    let whole = bucket(Cloud::Azure, uri, &format!("//{container}/{key}"))?;
    Ok(BucketAddress {
        account: Some((account.to_owned(), domain.to_owned())),
        ..whole
    })
}

/// Account and domain of `account.dfs.core.windows.net`.
fn azure_account(host: &str) -> Option<(&str, &str)> {
    let (account, rest) = host.split_once('.')?;
    let (service, domain) = rest.split_once('.')?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_account = !account.is_empty() && account.bytes().all(is_plain);
    let is_azure = matches!(service, "dfs" | "blob") && AZURE_DOMAINS.contains(&domain);
    (is_account && is_azure).then_some((account, domain))
}

/// Authority and path of `//authority/path?query`.
fn authority_and_path(rest: &str) -> Option<(&str, &str)> {
    let plain = public(rest.strip_prefix("//")?);
    let (authority, path) = plain.split_once('/').unwrap_or((plain, ""));
    Some((authority, path.trim_matches('/')))
}

/// Whether a name is that of a bucket, and cannot change the host or the path of a request.
fn is_bucket(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '$')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-$".contains(c))
        && !name.contains("..")
}

fn file(uri: &str) -> Result<ArtifactLocation, String> {
    let url = Url::parse(uri).map_err(|_| unsupported(uri))?;
    url.to_file_path()
        .map(ArtifactLocation::File)
        .map_err(|()| format!("{} names a file of another machine", shown(uri)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(uri: &str) -> BucketAddress {
        match ArtifactLocation::parse(uri) {
            Ok(ArtifactLocation::Bucket(address)) => address,
            other => panic!("{uri}: {other:?}"),
        }
    }

    #[test]
    fn the_scheme_names_the_protocol() {
        for (uri, cloud, bucket, key) in [
            ("s3://b/1/m-x/artifacts/", Cloud::S3, "b", "1/m-x/artifacts"),
            ("s3a://b.c-d", Cloud::S3, "b.c-d", ""),
            ("gs://b/a%20b?x=y", Cloud::Gcs, "b", "a%20b"),
            ("az://c/a/b", Cloud::Azure, "c", "a/b"),
        ] {
            let found = address(uri);
            assert_eq!(
                (
                    found.cloud,
                    found.bucket.as_str(),
                    found.key.as_str(),
                    found.account
                ),
                (cloud, bucket, key, None)
            );
        }
    }

    #[test]
    fn azure_uris_name_container_and_account() {
        let found = address("abfss://c@acct.dfs.core.windows.net/a/b");
        assert_eq!((found.bucket.as_str(), found.key.as_str()), ("c", "a/b"));
        assert_eq!(
            found.account,
            Some(("acct".to_owned(), "core.windows.net".to_owned()))
        );
        assert_eq!(found.shown, "abfss://c@acct.dfs.core.windows.net/a/b");
        assert_eq!(address("wasbs://c@acct.blob.core.windows.net/a").key, "a");
    }

    #[test]
    fn azure_credentials_are_sent_to_azure_only() {
        for uri in [
            "abfss://c@evil.example.com/a",
            "abfss://c@a.dfs.core.windows.net.evil.com/a",
            "abfss://c@a/b",
            "wasbs://c@x.y.dfs.core.windows.net/b",
        ] {
            assert!(ArtifactLocation::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn bucket_names_cannot_change_the_host() {
        for uri in [
            "s3:///key",
            "s3://../key",
            "s3://b@evil.com/key",
            "s3://b:80/key",
            "s3://b%2f/key",
            "s3:b/key",
            "gs://-x/y",
        ] {
            assert!(ArtifactLocation::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn proxied_artifacts_may_name_a_host() {
        let at = |host: Option<&str>| ArtifactLocation::Proxied {
            host: host.map(str::to_owned),
            path: "1/models/m-x/artifacts".to_owned(),
        };
        assert_eq!(
            ArtifactLocation::parse("mlflow-artifacts:/1/models/m-x/artifacts"),
            Ok(at(None))
        );
        assert_eq!(
            ArtifactLocation::parse("mlflow-artifacts:///1/models/m-x/artifacts"),
            Ok(at(None))
        );
        assert_eq!(
            ArtifactLocation::parse("mlflow-artifacts://h:5000/1/models/m-x/artifacts/"),
            Ok(at(Some("h:5000")))
        );
        assert!(ArtifactLocation::parse("mlflow-artifacts:/").is_err());
    }

    #[test]
    fn unknown_schemes_are_unsupported() {
        for uri in [
            "dbfs:/models/x",
            "hdfs://namenode/x",
            "ftp://h/x",
            "model",
            "",
            "C:\\x",
        ] {
            assert!(
                ArtifactLocation::parse(uri).is_err_and(|why| why.contains("cannot check")),
                "{uri}"
            );
        }
    }

    #[test]
    fn a_password_in_a_uri_is_never_repeated() {
        assert!(
            ArtifactLocation::parse("https://user:hunter2@host/x")
                .is_err_and(|why| !why.contains("hunter2"))
        );
    }

    #[test]
    fn files_are_paths_or_file_uris() {
        assert_eq!(
            ArtifactLocation::parse("/srv/m"),
            Ok(ArtifactLocation::File("/srv/m".into()))
        );
        assert_eq!(
            ArtifactLocation::parse("file:///srv/a%20b"),
            Ok(ArtifactLocation::File("/srv/a b".into()))
        );
        assert!(ArtifactLocation::parse("file://elsewhere/srv/m").is_err());
    }
}
