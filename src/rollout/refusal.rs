//! What the API server's answer to a write of ours says: the write was refused, or an admission policy changed it.
//!
//! Absent: the request, and when it is repeated.

use kube::core::Status;

use super::messages::{self, namespace};
use crate::api::conditions::shorten;
use crate::api::reason::Problem;
use crate::api::{AliasBinding, Reason, names};
use crate::targets::{Difference, Injection, Target, difference};

/// The longest value of a field in a message, in characters.
const LONGEST_VALUE: usize = 60;

/// The problem of a request that the API server refused; `effect` is its consequence, such as `not written`.
#[must_use]
pub fn refused(binding: &AliasBinding, effect: &str, answer: &Status) -> Problem {
    // An invalid object can only be the user's template. A policy may answer with the same codes.
    let is_invalid = answer.code == 400 || answer.message.contains(" is invalid: ");
    let is_by_policy = answer.message.contains("denied ");
    let reason = if binding.spec.template.is_some() && is_invalid && !is_by_policy {
        Reason::InvalidSpec
    } else {
        Reason::ApplyRefused
    };
    let words = words(&answer.message);
    messages::problem(
        reason,
        &format!("{effect}: {words}"),
        "tried again until accepted",
    )
}

/// The API server's words in one line, without the parts that say nothing: there is little room for the cause.
fn words(message: &str) -> String {
    let cause = message
        .split_once(" is forbidden: ")
        .map_or(message, |(_, cause)| cause)
        .trim_start_matches("Internal error occurred: ")
        .replacen("failed to call webhook: ", "", 1);
    let words = cause.split_whitespace().map(|word| {
        // An error of a connection names the port that it happened to have: `10.0.0.1:41234->10.0.0.2:443:`.
        word.rsplit_once("->").map_or(word, |(_, to)| to)
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The problem if a field that was just written has another value in the answer: an admission policy removed or changed it.
#[must_use]
pub fn altered(
    binding: &AliasBinding,
    written: &Target,
    injection: &Injection,
    has_template_digest: bool,
) -> Option<Problem> {
    let digest = || Difference {
        field: "annotation pointsman.dev/template-digest".to_owned(),
        found: None,
    };
    let difference =
        difference(written, injection).or_else(|| (!has_template_digest).then(digest))?;
    let effect = match &difference.found {
        Some(value) => format!("changes {} to {:?}", difference.field, shown(value)),
        None => format!("removes {}", difference.field),
    };
    Some(messages::problem(
        Reason::FieldConflict,
        &format!("an admission policy {effect} at each write"),
        &format!(
            "exempt {} in namespace {} from it",
            written.reference(),
            namespace(binding)
        ),
    ))
}

/// The problem if another manager undoes each write of a version.
#[must_use]
pub fn undone(binding: &AliasBinding, target: &Target) -> Problem {
    let last = target.owners.last_template_writer();
    let manager = last
        .map(|writer| writer.manager.as_str())
        .filter(|manager| *manager != names::FIELD_MANAGER)
        .unwrap_or("somebody");
    let target = target.reference();
    messages::problem(
        Reason::FieldConflict,
        &format!("{manager} undoes each write to {target}"),
        &format!(
            "stop it; see its fields: kubectl get {target} -n {} -o yaml --show-managed-fields",
            namespace(binding)
        ),
    )
}

/// A value without its query, which may hold a signature.
fn shown(value: &str) -> String {
    let (before, _) = value.split_once('?').unwrap_or((value, ""));
    shorten(before, LONGEST_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn binding(more: Value) -> AliasBinding {
        let mut spec = json!({"modelRef": {"name": "m"}, "alias": "champion"});
        for (key, value) in more.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        serde_json::from_value(
            json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
            "metadata": {"name": "taxi", "namespace": "ml"}, "spec": spec}),
        )
        .expect("a binding")
    }

    fn problem(binding: &AliasBinding, code: u16, message: &str) -> Problem {
        let answer = Status {
            code,
            message: message.to_owned(),
            ..Status::default()
        };
        refused(binding, "not written", &answer)
    }

    #[test]
    fn a_webhook_that_is_down_is_named_with_its_cause() {
        let down = r#"Internal error occurred: failed calling webhook "check.example.com": failed to call webhook: Post "https://check.policies.svc:443/?timeout=10s": dial tcp 10.0.0.7:443: connect: connection refused"#;
        let problem = problem(
            &binding(json!({"targetRef": {"name": "server"}})),
            500,
            down,
        );
        assert_eq!(problem.reason, Reason::ApplyRefused);
        let message = r#"not written: failed calling webhook "check.example.com": Post "https://check.policies.svc:443/": dial tcp 10.0.0.7:443: connect: connection refused; tried again until accepted"#;
        assert_eq!(problem.message, message);
        assert!(message.len() <= 200);
    }

    #[test]
    fn a_message_is_the_same_for_each_connection() {
        let cut = |port: u16| {
            words(&format!(
                "read tcp 10.0.0.1:{port}->10.0.0.2:443: i/o timeout"
            ))
        };
        assert_eq!(cut(41234), cut(50001));
    }

    #[test]
    fn only_a_template_can_be_invalid_and_a_policy_makes_it_no_invalid_spec() {
        let template = binding(json!({"template": {"spec": {}}}));
        let target = binding(json!({"targetRef": {"name": "server"}}));
        let invalid = r#"Deployment.apps "server" is invalid: spec.replicas: Invalid value: -1"#;
        let denied = r#"deployments.apps "server" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"#;
        assert_eq!(problem(&template, 422, invalid).reason, Reason::InvalidSpec);
        assert_eq!(problem(&template, 422, denied).reason, Reason::ApplyRefused);
        assert_eq!(problem(&target, 422, invalid).reason, Reason::ApplyRefused);
        let message = problem(&target, 422, denied).message;
        let words =
            "not written: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no;";
        assert!(message.starts_with(words), "{message}");
    }
}
