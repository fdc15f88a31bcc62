//! Where an artifact URI leads: the MLflow server, a bucket, a web server or a path.
//!
//! Absent: requests and credentials. A URI that holds a password is refused and not echoed.

use std::path::PathBuf;

use url::Url;

use crate::registries::mlflow::redact::cut;
use crate::registries::mlflow::source::has_password;

/// Where the files are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// Behind an MLflow server's proxy, which may be named.
    Proxied { host: Option<String>, path: String },
    /// In a bucket of a cloud, or of something that speaks like one.
    Bucket(Address),
    /// On a web server.
    Web(Url),
    /// On this machine.
    File(PathBuf),
}

/// A folder or a file in a bucket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Address {
    /// Whose protocol is spoken.
    pub(super) cloud: Cloud,
    /// The bucket or container.
    pub(super) bucket: String,
    /// The path in it, without slashes around; empty for all of it.
    pub(super) key: String,
    /// Azure's account and the domain that it is at, where the URI names them.
    pub(super) account: Option<(String, String)>,
    /// The URI as it may be shown.
    pub(super) shown: String,
}

/// Whose protocol a bucket speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cloud {
    /// Amazon S3 and its likes.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage and Data Lake.
    Azure,
}

/// The domains where Azure's accounts are; credentials go nowhere else on a URI's word.
const AZURE_DOMAINS: &[&str] = &[
    "core.windows.net",
    "core.usgovcloudapi.net",
    "core.chinacloudapi.cn",
    "storage.azure.net",
];

impl Place {
    /// Where a URI leads, or why it cannot be asked.
    pub(super) fn parse(uri: &str) -> Result<Self, String> {
        if has_password(uri) {
            return Err("the artifact's URI holds a user or password: register the version again without, and name a Secret in spec.artifacts of its ModelRegistry".to_owned());
        }
        if uri.starts_with('/') {
            return Ok(Self::File(PathBuf::from(uri)));
        }
        let (scheme, rest) = uri.split_once(':').ok_or_else(|| unknown(uri))?;
        match scheme.to_ascii_lowercase().as_str() {
            "mlflow-artifacts" => proxied(rest).ok_or_else(|| unknown(uri)),
            "s3" | "s3a" | "s3n" => bucket(Cloud::S3, uri, rest).map(Self::Bucket),
            "gs" => bucket(Cloud::Gcs, uri, rest).map(Self::Bucket),
            "az" | "abfs" | "abfss" | "wasb" | "wasbs" => azure(uri, rest).map(Self::Bucket),
            "http" | "https" => Url::parse(uri).map(Self::Web).map_err(|_| unknown(uri)),
            "file" => file(uri),
            _ => Err(unknown(uri)),
        }
    }
}

fn unknown(uri: &str) -> String {
    format!(
        "Pointsman cannot ask whether {} can be read: it knows mlflow-artifacts:/, s3://, gs://, abfss://, wasbs://, http(s):// and file:///; pods may read it all the same",
        shown(uri)
    )
}

/// `/path` or `//host/path`.
fn proxied(rest: &str) -> Option<Place> {
    let (host, path) = match rest.strip_prefix("//") {
        Some(hosted) => hosted
            .split_once('/')
            .map(|(host, path)| (Some(host).filter(|host| !host.is_empty()), path))?,
        None => (None, rest),
    };
    let path = without_query(path).trim_matches('/');
    (!path.is_empty()).then(|| Place::Proxied {
        host: host.map(str::to_owned),
        path: path.to_owned(),
    })
}

fn bucket(cloud: Cloud, uri: &str, rest: &str) -> Result<Address, String> {
    let (bucket, key) = authority_and_path(rest).ok_or_else(|| unknown(uri))?;
    if !is_bucket(bucket) {
        return Err(format!(
            "{} names no bucket: register the version with scheme://bucket/path",
            shown(uri)
        ));
    }
    Ok(Address {
        cloud,
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        account: None,
        shown: shown(uri),
    })
}

/// `container@account.domain/path`, or `container/path` where the account is in the settings.
fn azure(uri: &str, rest: &str) -> Result<Address, String> {
    let Some((container, host)) =
        authority_and_path(rest).and_then(|(authority, _)| authority.split_once('@'))
    else {
        return bucket(Cloud::Azure, uri, rest);
    };
    let (account, domain) = azure_account(host).ok_or_else(|| {
        format!(
            "{} names no host of Azure Blob Storage, such as account.dfs.core.windows.net",
            shown(uri)
        )
    })?;
    let path = rest.split_once('@').map_or(rest, |(_, path)| path);
    let key = authority_and_path(&format!("//{path}"))
        .map(|(_, key)| key.to_owned())
        .unwrap_or_default();
    let whole = bucket(Cloud::Azure, uri, &format!("//{container}/{key}"))?;
    Ok(Address {
        account: Some((account.to_owned(), domain.to_owned())),
        ..whole
    })
}

/// Account and domain of `account.dfs.core.windows.net`.
fn azure_account(host: &str) -> Option<(&str, &str)> {
    let (account, rest) = host.split_once('.')?;
    let (service, domain) = rest.split_once('.')?;
    let plain = !account.is_empty()
        && account
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (plain && matches!(service, "dfs" | "blob") && AZURE_DOMAINS.contains(&domain))
        .then_some((account, domain))
}

/// Authority and path of `//authority/path?query`.
fn authority_and_path(rest: &str) -> Option<(&str, &str)> {
    let (authority, path) = without_query(rest.strip_prefix("//")?)
        .split_once('/')
        .unwrap_or((without_query(rest.strip_prefix("//")?), ""));
    Some((authority, path.trim_matches('/')))
}

/// Nothing that could turn a host or a path into another.
fn is_bucket(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '$')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-$".contains(c))
        && !name.contains("..")
}

fn file(uri: &str) -> Result<Place, String> {
    let url = Url::parse(uri).map_err(|_| unknown(uri))?;
    url.to_file_path()
        .map(Place::File)
        .map_err(|()| format!("{} names a file of another machine", shown(uri)))
}

fn without_query(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

/// A URI as people may see it: without user, password, query and fragment, on one line, cut short.
pub(super) fn shown(uri: &str) -> String {
    let plain = without_query(uri);
    let Some((scheme, rest)) = plain.split_once("://") else {
        return brief(plain);
    };
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, None), |(authority, path)| (authority, Some(path)));
    // A container of Azure stands before the @; elsewhere it may be a token.
    let keep = scheme.starts_with("abfs") || scheme.starts_with("wasb");
    let host = match authority.rsplit_once('@') {
        Some((user, host)) if !keep || user.contains(':') => host,
        _ => authority,
    };
    brief(&path.map_or_else(
        || format!("{scheme}://{host}"),
        |path| format!("{scheme}://{host}/{path}"),
    ))
}

/// One short line.
pub(super) fn brief(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    cut(&line, 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(uri: &str) -> Address {
        match Place::parse(uri) {
            Ok(Place::Bucket(address)) => address,
            other => panic!("{uri}: {other:?}"),
        }
    }

    #[test]
    fn buckets_are_known_by_their_scheme() {
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
    fn azure_names_container_and_account() {
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
    fn azure_credentials_follow_no_uri_to_a_strange_host() {
        for uri in [
            "abfss://c@evil.example.com/a",
            "abfss://c@a.dfs.core.windows.net.evil.com/a",
            "abfss://c@a/b",
            "wasbs://c@x.y.dfs.core.windows.net/b",
        ] {
            assert!(Place::parse(uri).is_err(), "{uri}");
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
            assert!(Place::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn proxied_artifacts_may_name_a_host() {
        let at = |host: Option<&str>| Place::Proxied {
            host: host.map(str::to_owned),
            path: "1/models/m-x/artifacts".to_owned(),
        };
        assert_eq!(
            Place::parse("mlflow-artifacts:/1/models/m-x/artifacts"),
            Ok(at(None))
        );
        assert_eq!(
            Place::parse("mlflow-artifacts:///1/models/m-x/artifacts"),
            Ok(at(None))
        );
        assert_eq!(
            Place::parse("mlflow-artifacts://h:5000/1/models/m-x/artifacts/"),
            Ok(at(Some("h:5000")))
        );
        assert!(Place::parse("mlflow-artifacts:/").is_err());
    }

    #[test]
    fn schemes_that_are_not_known_are_not_asked() {
        for uri in [
            "dbfs:/models/x",
            "hdfs://namenode/x",
            "ftp://h/x",
            "model",
            "",
            "C:\\x",
        ] {
            assert!(
                Place::parse(uri).is_err_and(|why| why.contains("cannot ask")),
                "{uri}"
            );
        }
    }

    #[test]
    fn passwords_and_queries_are_never_shown() {
        assert!(
            Place::parse("https://user:hunter2@host/x").is_err_and(|why| !why.contains("hunter2"))
        );
        assert_eq!(
            shown("https://token@host/x?X-Amz-Signature=abc#y"),
            "https://host/x"
        );
        assert_eq!(shown("abfss://c:pw@host/x"), "abfss://host/x");
        assert_eq!(
            shown(&format!("s3://b/{}", "x".repeat(900)))
                .chars()
                .count(),
            201
        );
    }

    #[test]
    fn files_are_paths_or_file_uris() {
        assert_eq!(Place::parse("/srv/m"), Ok(Place::File("/srv/m".into())));
        assert_eq!(
            Place::parse("file:///srv/a%20b"),
            Ok(Place::File("/srv/a b".into()))
        );
        assert!(Place::parse("file://elsewhere/srv/m").is_err());
    }
}
