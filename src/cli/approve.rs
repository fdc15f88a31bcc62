//! `kubectl pointsman approve`: the version that waits for a person goes forward.
//!
//! Absent: who may approve. RBAC decides that, and the operator whether the approval counts.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::change::{BindingArguments, Goal, version_number};
use super::cluster::Cluster;
use super::{CommandResult, Failure};
use crate::api::{AliasBinding, RegisteredModel, names};
use crate::rollout::{approval_refusal, manual_approval};

/// Approve a version that waits for it; the history keeps who approved, when and why
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  kubectl pointsman approve nyc-taxi --version 6 --reason 'rmse 3 % better' --ticket CHG-4712")]
pub struct ApproveArguments {
    /// The version's number. Default: the version that is wanted now
    #[arg(long, value_name = "NUMBER", value_parser = version_number)]
    version: Option<String>,
    /// Why: the annotation pointsman.dev/approval-reason of the binding
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The ticket: the annotation pointsman.dev/approval-ticket of the binding
    #[arg(long, value_name = "TEXT")]
    ticket: Option<String>,
    // Last, because the heading of its flags goes on.
    #[command(flatten)]
    binding: BindingArguments,
}

/// Runs the command.
pub async fn run(arguments: ApproveArguments) -> CommandResult {
    let cluster = arguments.binding.connect().await?;
    let binding: AliasBinding = cluster.get(arguments.binding.name()).await?;
    let version = to_approve(&binding, arguments.version.as_deref())?.to_owned();
    let patch = approval(
        &version,
        arguments.reason.as_deref(),
        arguments.ticket.as_deref(),
    );
    let rules = manual_approval(&binding);
    if rules.is_some_and(|rules| rules.require_different_person) {
        let (model, user) = (model(&cluster, &binding).await?, user(&cluster).await?);
        may_approve(&binding, &model, &version, &user)?;
        counts_as_new(&binding, &patch, &user)?;
    }
    let goal = Goal {
        version: Some(version.clone()),
        ..Goal::default()
    };
    let done = format!("approved: version {version}");
    let target = &arguments.binding;
    target.change(&cluster, &patch, &done, goal).await
}

/// The number of the version that a person means.
fn to_approve<'a>(binding: &'a AliasBinding, named: Option<&'a str>) -> Result<&'a str, Failure> {
    let name = binding.name_any();
    if manual_approval(binding).is_none() {
        return Err(format!(
            "AliasBinding {name} needs no approvals: spec.promotion.approval is not Manual"
        )
        .into());
    }
    let status = binding.status.as_ref();
    let wanted = status.and_then(|status| status.wanted.as_deref());
    named.or(wanted).ok_or_else(|| {
        format!("AliasBinding {name} wants no version yet; name one: --version NUMBER").into()
    })
}

/// The patch of an approval. It leaves nothing of the reason and the ticket of the approval before.
fn approval(version: &str, reason: Option<&str>, ticket: Option<&str>) -> Value {
    let annotations = json!({
        names::APPROVAL_REASON_ANNOTATION: reason,
        names::APPROVAL_TICKET_ANNOTATION: ticket,
    });
    json!({"metadata": {"annotations": annotations}, "spec": {"promotion": {"approvedVersion": version}}})
}

async fn model(cluster: &Cluster, binding: &AliasBinding) -> Result<RegisteredModel, Failure> {
    cluster.get(&binding.spec.model_ref.name).await
}

/// The person's own name, as the API server knows it.
async fn user(cluster: &Cluster) -> Result<String, Failure> {
    let reviews: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review = SelfSubjectReview::default();
    let reviewed = reviews.create(&PostParams::default(), &review).await;
    let reviewed = reviewed
        .map_err(|error| cluster.explain::<SelfSubjectReview>("create", None, None, &error))?;
    let user = reviewed.status.and_then(|status| status.user_info);
    let name = user.and_then(|user| user.username);
    name.ok_or_else(|| "the cluster does not say who you are".into())
}

/// Whether `requireDifferentPerson` lets this user approve, by the operator's own rule.
fn may_approve(
    binding: &AliasBinding,
    model: &RegisteredModel,
    version: &str,
    user: &str,
) -> Result<(), Failure> {
    let status = model.status.as_ref();
    let mut versions = status.into_iter().flat_map(|status| &status.versions);
    let found = versions.find(|each| each.version == version);
    let registrar = found.and_then(|found| found.created_by.as_deref());
    match approval_refusal(user, registrar) {
        None => Ok(()),
        Some(cause) => Err(format!(
            "you may not approve version {version} of {}: {cause}; ask another person \
             (spec.promotion.requireDifferentPerson)",
            binding.name_any()
        )
        .into()),
    }
}

/// Whether the chart's policy takes this for an approval by this user, and not for the one that stands already.
fn counts_as_new(binding: &AliasBinding, patch: &Value, user: &str) -> Result<(), Failure> {
    let annotations = binding.annotations();
    let approved_by = annotations.get(names::APPROVED_BY_ANNOTATION);
    let promotion = &patch["spec"]["promotion"];
    let version = promotion["approvedVersion"].as_str();
    let approved = manual_approval(binding).and_then(|rules| rules.approved_version.as_deref());
    let is_same = |annotation: &str| {
        let new = patch["metadata"]["annotations"][annotation].as_str();
        new == annotations.get(annotation).map(String::as_str)
    };
    let is_unchanged = version == approved
        && is_same(names::APPROVAL_REASON_ANNOTATION)
        && is_same(names::APPROVAL_TICKET_ANNOTATION);
    match approved_by {
        Some(other) if is_unchanged && other != user => Err(format!(
            "{other} has approved version {} in these words; give another --reason or --ticket, and it is approved by {user}",
            version.unwrap_or_default()
        )
        .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, With};

    fn waiting(promotion: &Value) -> AliasBinding {
        testing::binding().with(|binding| {
            binding.spec.promotion = serde_json::from_value(promotion.clone()).unwrap();
            binding.status.get_or_insert_default().wanted = Some("6".to_owned());
        })
    }

    fn refused<T>(outcome: Result<T, Failure>) -> String {
        outcome
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn the_wanted_version_is_approved_unless_another_one_is_named() {
        let binding = waiting(&json!({"approval": "Manual"}));
        assert_eq!(to_approve(&binding, None).unwrap(), "6");
        assert_eq!(to_approve(&binding, Some("5")).unwrap(), "5");
        let automatic = waiting(&json!({}));
        let refusal = refused(to_approve(&automatic, None));
        assert!(refusal.contains("needs no approvals"), "{refusal}");
    }

    #[test]
    fn an_approval_replaces_the_reason_and_the_ticket_of_the_one_before() {
        let patch = approval("6", Some("better"), None);
        assert_eq!(patch["spec"]["promotion"]["approvedVersion"], "6");
        let annotations = &patch["metadata"]["annotations"];
        assert_eq!(annotations["pointsman.dev/approval-reason"], "better");
        let ticket = annotations.get("pointsman.dev/approval-ticket");
        assert_eq!(ticket, Some(&Value::Null), "null removes it");
    }

    #[test]
    fn the_registrar_is_refused_before_anything_is_written() {
        let binding = waiting(&json!({"approval": "Manual", "requireDifferentPerson": true}));
        let version = json!({"version": "6", "createdBy": "kamal"});
        let model: RegisteredModel = serde_json::from_value(json!({
            "metadata": {"name": "nyc-taxi"},
            "spec": {"registryRef": {"name": "mlflow"}, "modelName": "nyc-taxi"},
            "status": {"versions": [version]}}))
        .unwrap();
        let refusal = |version, user| refused(may_approve(&binding, &model, version, user));
        assert_eq!(refusal("6", "ada"), "");
        let own = refusal("6", "oidc:kamal");
        assert!(own.contains("registered it") && own.len() <= 200, "{own}");
        let unknown = refusal("5", "ada");
        assert!(unknown.contains("does not say who registered"), "{unknown}");
    }

    #[test]
    fn an_approval_in_the_words_of_another_person_is_no_new_one() {
        let rules =
            json!({"approval": "Manual", "approvedVersion": "6", "requireDifferentPerson": true});
        let binding = waiting(&rules).with(|binding| {
            let annotations = binding.annotations_mut();
            annotations.insert(names::APPROVED_BY_ANNOTATION.to_owned(), "kamal".to_owned());
        });
        let same = refused(counts_as_new(&binding, &approval("6", None, None), "ada"));
        assert!(same.contains("give another --reason"), "{same}");
        for (patch, user) in [
            (approval("6", None, None), "kamal"),
            (approval("6", Some("agreed"), None), "ada"),
            (approval("7", None, None), "ada"),
        ] {
            assert_eq!(refused(counts_as_new(&binding, &patch, user)), "");
        }
    }
}
