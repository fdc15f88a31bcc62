//! The failures of requests to the API server, as a person can act on them: state, cause, one remedy.
//!
//! Absent: retries. The client has made them by then.

use std::borrow::Cow;
use std::error::Error;

use kube::Resource;
use kube::core::Status;

use super::Failure;
use crate::api::GROUP;
use crate::api::conditions::with_remedy;
use crate::kubernetes::failure::is_missing_kind;

/// A request that failed.
pub struct Attempt<'a> {
    verb: &'static str,
    kind: Cow<'static, str>,
    /// As `kubectl auth can-i` takes it, such as aliasbindings.pointsman.dev.
    resource: String,
    is_ours: bool,
    name: Option<&'a str>,
    /// `None`: all namespaces.
    namespace: Option<&'a str>,
}

impl<'a> Attempt<'a> {
    /// A request for objects of the kind `K`.
    pub fn new<K: Resource<DynamicType = ()>>(
        verb: &'static str,
        name: Option<&'a str>,
        namespace: Option<&'a str>,
    ) -> Self {
        let (plural, group) = (K::plural(&()), K::group(&()));
        let resource = if group.is_empty() {
            plural.into_owned()
        } else {
            format!("{plural}.{group}")
        };
        Self {
            verb,
            kind: K::kind(&()),
            resource,
            is_ours: group == GROUP,
            name,
            namespace,
        }
    }

    fn place(&self) -> String {
        match self.namespace {
            Some(namespace) => format!("in the namespace {namespace}"),
            None => "in all namespaces".to_owned(),
        }
    }

    fn scope(&self) -> String {
        match self.namespace {
            Some(namespace) => format!("-n {namespace}"),
            None => "-A".to_owned(),
        }
    }
}

/// The failure in words. `address` is the API server's.
pub fn failure(attempt: &Attempt<'_>, address: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => refusal(attempt, error, status),
        kube::Error::SerdeError(error) => format!(
            "{} cannot be read: {error}; use the release of kubectl-pointsman that is in the cluster",
            attempt.resource
        ),
        _ => with_remedy(
            &format!("the cluster at {address} does not answer: {}", innermost(error)),
            "check the context: kubectl config current-context",
        ),
    }
    .into()
}

fn refusal(attempt: &Attempt<'_>, error: &kube::Error, status: &Status) -> String {
    let Attempt { kind, resource, .. } = attempt;
    let (place, scope) = (attempt.place(), attempt.scope());
    if is_missing_kind(error) || (status.is_not_found() && !is_missing_object(status)) {
        let remedy = if attempt.is_ours {
            "install them: pointsman crds | kubectl apply --server-side -f -"
        } else {
            "install its definition"
        };
        return with_remedy(
            &format!("the cluster has no kind {kind} ({resource})"),
            remedy,
        );
    }
    match (status.code, attempt.name) {
        (404, Some(name)) => with_remedy(
            &format!("there is no {kind} {name} {place}"),
            &format!("list them: kubectl get {resource} -A"),
        ),
        (401, _) => with_remedy(
            "the cluster does not accept your credentials",
            "sign in again, or choose another context: kubectl config get-contexts",
        ),
        (403, _) => with_remedy(
            &format!("you may not {} {resource} {place}", attempt.verb),
            &format!(
                "ask for a role that may: kubectl auth can-i {} {resource} {scope}",
                attempt.verb
            ),
        ),
        _ => format!("{} {resource} {place}: {}", attempt.verb, status.message),
    }
}

/// Whether it is the object that does not exist, and not its kind.
pub fn is_missing_object(status: &Status) -> bool {
    let details = status.details.as_ref();
    status.is_not_found() && details.is_some_and(|details| !details.name.is_empty())
}

/// The message of the error that caused all others.
fn innermost(error: &kube::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::api::AliasBinding;

    fn words(attempt: &Attempt<'_>, status: serde_json::Value) -> String {
        let status = serde_json::from_value(status).unwrap();
        failure(
            attempt,
            "https://c:6443",
            &kube::Error::Api(Box::new(status)),
        )
        .to_string()
    }

    #[test]
    fn each_refusal_names_the_state_and_a_remedy() {
        let list = Attempt::new::<AliasBinding>("list", None, None);
        let get = Attempt::new::<AliasBinding>("get", Some("taxi"), Some("ml"));
        let pod = Attempt::new::<Pod>("get", Some("taxi-1"), Some("ml"));
        let missing = json!({"code": 404, "reason": "NotFound", "details": {"name": "taxi"}});
        let no_kind = json!({"code": 404, "message": "404 page not found", "reason": "Failed to parse error data"});
        let forbidden = json!({"code": 403, "reason": "Forbidden", "message": "…"});
        for (attempt, status, expected) in [
            (
                &list,
                no_kind,
                "the cluster has no kind AliasBinding (aliasbindings.pointsman.dev); install them: pointsman crds | kubectl \
                 apply --server-side -f -",
            ),
            (
                &list,
                forbidden.clone(),
                "you may not list aliasbindings.pointsman.dev in all namespaces; ask for a role that may: kubectl auth can-i \
                 list aliasbindings.pointsman.dev -A",
            ),
            (
                &get,
                forbidden,
                "you may not get aliasbindings.pointsman.dev in the namespace ml; ask for a role that may: kubectl auth can-i \
                 get aliasbindings.pointsman.dev -n ml",
            ),
            (
                &get,
                missing.clone(),
                "there is no AliasBinding taxi in the namespace ml; list them: kubectl get aliasbindings.pointsman.dev -A",
            ),
            (
                &pod,
                missing,
                "there is no Pod taxi-1 in the namespace ml; list them: kubectl get pods -A",
            ),
            (
                &get,
                json!({"code": 401, "reason": "Unauthorized"}),
                "the cluster does not accept your credentials; sign in again, or choose another context: kubectl config \
                 get-contexts",
            ),
        ] {
            assert_eq!(words(attempt, status), expected);
        }
    }
}
