//! What people may see of a URI. User and password before the host, and the query, may be secrets: tokens and signatures.
//!
//! Absent: URLs as requests need them. Those are complete.

use std::borrow::Cow;

/// A URI up to its query, and the query with its `?` if there is one. On the web a fragment ends the URI too.
#[must_use]
pub fn split_query(uri: &str) -> (&str, Option<&str>) {
    let ends: &[char] = if is_web(uri) { &['?', '#'] } else { &['?'] };
    match uri.find(ends) {
        Some(end) => (&uri[..end], Some(&uri[end..])),
        None => (uri, None),
    }
}

/// The URI without its query.
#[must_use]
pub fn public(uri: &str) -> &str {
    split_query(uri).0
}

/// Whether a URI holds a user, a password or a token before its host. The container of an Azure store
/// (`wasbs://container@account…`) is none.
#[must_use]
pub fn has_user(uri: &str) -> bool {
    let Some((scheme, authority, _)) = parts(uri) else {
        return false;
    };
    match authority.rsplit_once('@') {
        Some((user, _)) => !is_public(scheme, user),
        None => false,
    }
}

/// A text in which every URI lost its user and its query.
#[must_use]
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    if !text.contains(":/") && !text.contains(":\\") {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut follows_uri = false;
    for word in text.split_inclusive(ends_uri) {
        let bare = word.trim_end_matches(|c| ends_uri(c) || ",;:.!)]}".contains(c));
        match bare.split_once('?') {
            // The path of a URI may hold spaces, so that its query is in a later word.
            Some((path, query)) if follows_uri && query.contains('=') => shown.push_str(path),
            _ => push_shown(&mut shown, bare),
        }
        follows_uri |= bare.contains(":/") || bare.contains(":\\");
        shown.push_str(&word[bare.len()..]);
    }
    Cow::Owned(shown)
}

/// Whether a character ends a URI within a text. A comma or a bracket may be part of a query.
fn ends_uri(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\"'`<>“”‘’".contains(c)
}

/// Adds a word, such as `at=https://user@host/path?query`, as it may be shown.
fn push_shown(shown: &mut String, word: &str) {
    let Some(colon) = word.find(":/").or_else(|| word.find(":\\")) else {
        return shown.push_str(word);
    };
    let start = word[..colon]
        .rfind(|c: char| !is_scheme_char(c))
        .map_or(0, |before| {
            before + word[before..].chars().next().map_or(1, char::len_utf8)
        });
    shown.push_str(&word[..start]);
    let uri = public(&word[start..]);
    match parts(uri) {
        Some((scheme, authority, path)) if has_user(uri) => {
            let host = authority.rsplit('@').next().unwrap_or_default();
            for part in [scheme, "://", host, path] {
                shown.push_str(part);
            }
        }
        _ => shown.push_str(uri),
    }
}

/// Scheme, authority and path; `None` without an authority. On the web any number of slashes begins one.
fn parts(uri: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.chars().all(is_scheme_char) {
        return None;
    }
    let rest = if is_web(uri) {
        rest.trim_start_matches(['/', '\\'])
    } else {
        rest.strip_prefix("//")?
    };
    let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
    Some((scheme, &rest[..end], &rest[end..]))
}

fn is_scheme_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-.".contains(c)
}

fn is_web(uri: &str) -> bool {
    let scheme = uri.split(':').next().unwrap_or_default();
    ["http", "https", "ws", "wss", "ftp"]
        .iter()
        .any(|web| scheme.eq_ignore_ascii_case(web))
}

/// Whether a text before the host is no secret: the container of an Azure store, the user of a git repository over ssh.
fn is_public(scheme: &str, user: &str) -> bool {
    let schemes = ["abfs", "abfss", "wasb", "wasbs", "ssh", "git+ssh"];
    let mut schemes = schemes.iter();
    schemes.any(|known| scheme.eq_ignore_ascii_case(known))
        && !user.is_empty()
        && !user.contains([':', '@'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_every_kind_of_uri_is_split_off() {
        for (uri, shown) in [
            ("https://host/m?X-Amz-Signature=abc&x=y#z", "https://host/m"),
            ("https://host/m#access_token=abc", "https://host/m"),
            (
                "wasbs://models@acct.blob.core.windows.net/m?sig=abc",
                "wasbs://models@acct.blob.core.windows.net/m",
            ),
            ("s3://bucket/a#b/model", "s3://bucket/a#b/model"),
            ("s3://bucket/m?versionId=abc", "s3://bucket/m"),
            ("mlflow-artifacts:/1/m", "mlflow-artifacts:/1/m"),
        ] {
            assert_eq!(public(uri), shown);
            let (base, query) = split_query(uri);
            assert_eq!(format!("{base}{}", query.unwrap_or_default()), uri);
        }
    }

    #[test]
    fn only_the_container_of_an_azure_store_may_stand_before_the_host() {
        for uri in [
            "https://token@host/m",
            "https://user:hunter2@host/m",
            "HTTPS://token@host/m",
            "https:/token@host/m",
            "https:token@host/m",
            "https:\\\\token@host\\m",
            "s3://key@bucket/m",
            "abfss://container:key@acct.dfs.core.windows.net/m",
            "wasbs://a@b@acct.blob.core.windows.net/m",
            "wasbs://@acct.blob.core.windows.net/m",
            "hdfs://user@namenode/m",
        ] {
            assert!(has_user(uri), "{uri}");
        }
        for uri in [
            "abfss://container@acct.dfs.core.windows.net/m",
            "wasbs://container@acct.blob.core.windows.net/m?sig=a@b",
            "https://host/a@b",
            "https://host/?a=b@c",
            "mlflow-artifacts:/a:b@c",
            "s3://bucket/a@b",
            "/nfs/a@b",
            "runs:/abc/a@b",
        ] {
            assert!(!has_user(uri), "{uri}");
        }
    }

    #[test]
    fn every_uri_in_a_text_loses_its_user_and_its_query() {
        for (text, shown) in [
            (
                "cannot GET https://host/m?sig=hunter2: 403",
                "cannot GET https://host/m: 403",
            ),
            (
                "GET \"https://tok@host/m?sig=hunter2\" failed (url=https://x:y@z/?q), see s3://b/m?v=1.",
                "GET \"https://host/m\" failed (url=https://z/), see s3://b/m.",
            ),
            (
                "wasbs://c@acct.blob.core.windows.net/m?sig=hunter2 is gone; restore it",
                "wasbs://c@acct.blob.core.windows.net/m is gone; restore it",
            ),
            (
                "clone ssh://git@git.example/r.git",
                "clone ssh://git@git.example/r.git",
            ),
            (
                "git@git.example:r.git and https://x:y@git.example/r.git",
                "git@git.example:r.git and https://git.example/r.git",
            ),
            ("why? because: x/y", "why? because: x/y"),
            ("models:/taxi/4 and 日本:/x", "models:/taxi/4 and 日本:/x"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }
}
