//! Parses the source that a version was registered from, and checks the artifact URI that it leads
//! to.
//!
//! Absent: requests. `versions` sends those that resolve a source.

use crate::api::public_uri::has_user;
use crate::http::redact::cut;
use crate::http::uri::{below, shown};

/// The forms that a source takes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Source<'a> {
    /// `models:/m-<id>` or `models:/name/number`: the registry resolves it.
    Registry,
    /// `runs:/<run>/<path>`: the run's logged model of that name, or the run's artifacts there.
    Run { run_id: &'a str, path: &'a str },
    /// Any other URI, or an absolute path on a file system that pods mount, used as written.
    Uri(&'a str),
}

/// The form of a source, or the reason why it leads to no files.
pub(super) fn parse(source: &str) -> Result<Source<'_>, String> {
    if let Some(rest) = source.strip_prefix("runs:/") {
        return parse_run(rest.trim_start_matches('/'))
            .ok_or_else(|| leads_nowhere(source, "it names no run and path"));
    }
    check_uri(source)?;
    Ok(if source.starts_with("models:/") {
        Source::Registry
    } else {
        Source::Uri(source)
    })
}

/// Whether a source is resolved by the registry, and is no URI itself.
pub(in crate::registries) fn resolves(source: &str) -> bool {
    matches!(parse(source), Ok(Source::Registry | Source::Run { .. }))
}

/// Checks that a resolved URI is one that pods can use.
pub(super) fn check_artifact_uri(uri: &str) -> Result<String, String> {
    check_uri(uri)?;
    if uri.starts_with("runs:/") || uri.starts_with("models:/") {
        return Err(leads_nowhere(
            uri,
            "it names another source instead of files",
        ));
    }
    Ok(uri.to_owned())
}

/// The identifier of the logged model that a source names.
pub(super) fn logged_model(source: &str) -> Option<&str> {
    source
        .strip_prefix("models:/")
        .map(|id| id.trim_start_matches('/'))
        .filter(|id| id.starts_with("m-") && is_id(id))
}

/// The model and the number of the version that a source names, such as `models:/other/3`.
pub(super) fn copied_version(source: &str) -> Option<(&str, &str)> {
    let rest = source.strip_prefix("models:/")?;
    rest.trim_start_matches('/').rsplit_once('/')
}

/// The files at a path below a run's artifact root.
pub(super) fn check_run_uri(root: &str, path: &str) -> Result<String, String> {
    let root = check_artifact_uri(root)?;
    check_artifact_uri(&below(&root, path))
}

/// Whether a text can be part of a path of the API: MLflow's identifiers hold letters, digits, `_`
/// and `-`.
pub(super) fn is_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 256
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn parse_run(rest: &str) -> Option<Source<'_>> {
    let (run_id, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    let clean = path.len() <= 4096
        && !path.chars().any(char::is_control)
        && !path.split('/').any(|part| part == "..");
    (is_id(run_id) && clean).then_some(Source::Run { run_id, path })
}

fn check_uri(uri: &str) -> Result<(), String> {
    let invalid = |why: &str| Err(leads_nowhere(uri, why));
    if uri.is_empty() {
        return Err(
            "the version was registered without a source: register it again from a run or a URI"
                .to_owned(),
        );
    }
    if uri.len() > 4096 {
        return invalid("it is longer than 4096 bytes");
    }
    if uri.chars().any(char::is_control) {
        return invalid("it holds control characters");
    }
    match scheme(uri) {
        _ if uri.starts_with('/') => Ok(()),
        Some(_) if has_user(uri) => Err("the version's source holds a user, password or token before its host: register it again without, and give pods the credentials in a Secret".to_owned()),
        Some(_) => Ok(()),
        None => invalid("it is a relative path, or a path of Windows"),
    }
}

/// The scheme of a URI. One letter is a drive of Windows.
fn scheme(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (scheme.len() > 1
        && !rest.is_empty()
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(plain))
    .then_some(scheme)
}

fn leads_nowhere(source: &str, why: &str) -> String {
    format!(
        "the version's source “{}” leads to no files: {why}; register the version again from a run or a URI that pods can read",
        cut(&shown(source), 120)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_three_forms() {
        let logged = "models:/m-c6e10f6960794b208713d1d68eb59b83";
        for (source, expected) in [
            (logged, Source::Registry),
            (
                "models:/iris clf/1".trim_end_matches(" clf/1"),
                Source::Registry,
            ),
            ("models:/iris/1", Source::Registry),
            (
                "runs:/0123abcd/model",
                Source::Run {
                    run_id: "0123abcd",
                    path: "model",
                },
            ),
            (
                "runs:/0123abcd/a/b c/",
                Source::Run {
                    run_id: "0123abcd",
                    path: "a/b c",
                },
            ),
            (
                "runs:/0123abcd",
                Source::Run {
                    run_id: "0123abcd",
                    path: "",
                },
            ),
            ("s3://bucket/key", Source::Uri("s3://bucket/key")),
            ("dbfs:/models/x", Source::Uri("dbfs:/models/x")),
            (
                "abfss://container@account.dfs.core.windows.net/x",
                Source::Uri("abfss://container@account.dfs.core.windows.net/x"),
            ),
            ("file:///srv/model", Source::Uri("file:///srv/model")),
            ("/nfs/mlflow/1/m", Source::Uri("/nfs/mlflow/1/m")),
            ("s3://bucket/a b+c/é", Source::Uri("s3://bucket/a b+c/é")),
            (
                "mlflow-artifacts:/1/models/m-x/artifacts",
                Source::Uri("mlflow-artifacts:/1/models/m-x/artifacts"),
            ),
        ] {
            assert_eq!(parse(source), Ok(expected), "{source}");
        }
    }

    #[test]
    fn sources_that_lead_nowhere_say_why() {
        for (source, why) in [
            ("", "without a source"),
            ("C:\\models\\x", "a path of Windows"),
            ("model", "a relative path"),
            ("mlruns/1/m", "a relative path"),
            ("s3://bucket/a\nb", "control characters"),
            ("s3://bucket/a\u{7}", "control characters"),
            ("runs:/../../x", "no run and path"),
            ("runs:/abc/../../x", "no run and path"),
            ("runs:/", "no run and path"),
        ] {
            assert!(
                parse(source).is_err_and(|problem| problem.contains(why)),
                "{source}"
            );
        }
        assert!(
            parse(&format!("s3://{}", "x".repeat(4096))).is_err_and(|problem| problem.len() < 400)
        );
    }

    #[test]
    fn a_secret_in_a_source_is_a_problem_and_is_not_echoed() {
        for source in [
            "https://user:hunter2@host/model",
            "https://hunter2@host/model",
            "https:/hunter2@host/model",
            "s3://hunter2@bucket/model",
            "wasbs://models:hunter2@acct.blob.core.windows.net/model",
        ] {
            let problem = parse(source).err().unwrap_or_default();
            assert!(
                problem.contains("password") && !problem.contains("hunter2"),
                "{source}: {problem}"
            );
        }
        for source in [
            "runs:/../x?sig=hunter2",
            "s3://bucket/a\u{7}?sig=hunter2",
            "model?sig=hunter2",
        ] {
            let problem = parse(source).err().unwrap_or_default();
            assert!(
                problem.contains("leads to no files") && !problem.contains("hunter2"),
                "{source}: {problem}"
            );
        }
    }

    #[test]
    fn resolved_uri_names_files() {
        assert!(check_artifact_uri("mlflow-artifacts:/1/x").is_ok());
        assert!(check_artifact_uri("runs:/abc/model").is_err());
        assert!(check_artifact_uri("models:/iris/1").is_err());
    }

    #[test]
    fn only_plain_identifiers_name_a_logged_model() {
        assert_eq!(logged_model("models:/m-12ab"), Some("m-12ab"));
        assert_eq!(logged_model("models:/m-12/../ab"), None);
        assert_eq!(logged_model("models:/name/1"), None);
        assert_eq!(
            copied_version("models:/my model/3"),
            Some(("my model", "3"))
        );
        assert_eq!(copied_version("models:/m-12ab"), None);
        assert_eq!(copied_version("runs:/abc/model"), None);
    }
}
