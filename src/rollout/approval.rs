//! The approval of a version: whether there is one, who gave it, when and why.
//!
//! Absent: whether it is enough; see `gates`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::alias_binding::{ApprovalRecord, KnownBy};
use crate::api::promotion::{Approval, Promotion};
use crate::api::{AliasBinding, names};

/// The beginning of the names of users who are no people.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The rules of a binding that asks for approvals.
#[must_use]
pub fn manual(binding: &AliasBinding) -> Option<&Promotion> {
    let promotion = binding.spec.promotion.as_ref()?;
    (promotion.approval == Approval::Manual).then_some(promotion)
}

/// The approval of the version of this number, if there is one. `records_user`: the chart's policy writes the user into an
/// annotation; otherwise that may be anybody's.
pub fn approval(
    binding: &AliasBinding,
    number: &str,
    records_user: bool,
) -> Option<ApprovalRecord> {
    let approved = manual(binding)?.approved_version.as_deref();
    if approved != Some(number) {
        return None;
    }
    let user = binding.annotation_text(names::APPROVED_BY_ANNOTATION);
    let manager = owner_of_approval(binding.managed_fields());
    let (approved_by, known_by, at) = match (user, manager) {
        (Some(user), _) if records_user => (Some(user), Some(KnownBy::User), approved_at(binding)),
        (_, Some(entry)) => (
            entry.manager.clone(),
            Some(KnownBy::FieldManager),
            entry.time.clone(),
        ),
        (_, None) => (None, None, None),
    };
    Some(ApprovalRecord {
        approved_by,
        known_by: known_by.map(Into::into),
        at,
        reason: binding.annotation_text(names::APPROVAL_REASON_ANNOTATION),
        ticket: binding.annotation_text(names::APPROVAL_TICKET_ANNOTATION),
    })
}

/// The last time that an owner of the approved version, its reason or its ticket changed a field. The approval is no younger.
pub fn approved_at(binding: &AliasBinding) -> Option<Time> {
    let entries = binding.managed_fields().iter();
    let of_approval = entries.filter(|entry| approval_fields(entry).is_some());
    of_approval
        .filter_map(|entry| entry.time.clone())
        .max_by_key(|time| time.0)
}

/// The first of the managers that own `spec.promotion.approvedVersion`: others have applied the same value since.
fn owner_of_approval(all: &[ManagedFieldsEntry]) -> Option<&ManagedFieldsEntry> {
    let owners = all.iter().filter(|entry| owns_version(entry));
    owners.min_by_key(|entry| entry.time.as_ref().map(|time| time.0))
}

fn owns_version(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref();
    fields.is_some_and(|fields| !fields.0["f:spec"]["f:promotion"]["f:approvedVersion"].is_null())
}

/// The fields of an entry by which people approve; `None` if there are none.
fn approval_fields(entry: &ManagedFieldsEntry) -> Option<Value> {
    let mut kept = Value::Null;
    if owns_version(entry) {
        kept["f:spec"]["f:promotion"]["f:approvedVersion"] = json!({});
    }
    let annotations = &entry.fields_v1.as_ref()?.0["f:metadata"]["f:annotations"];
    for annotation in [
        names::APPROVAL_REASON_ANNOTATION,
        names::APPROVAL_TICKET_ANNOTATION,
    ] {
        let field = format!("f:{annotation}");
        if !annotations[&field].is_null() {
            kept["f:metadata"]["f:annotations"][&field] = json!({});
        }
    }
    (!kept.is_null()).then_some(kept)
}

/// The entries that say who approved and when, and of their fields only these.
#[must_use]
pub fn without_other_fields(entries: Vec<ManagedFieldsEntry>) -> Option<Vec<ManagedFieldsEntry>> {
    let kept: Vec<ManagedFieldsEntry> = entries
        .into_iter()
        .filter_map(|entry| {
            Some(ManagedFieldsEntry {
                fields_v1: Some(FieldsV1(approval_fields(&entry)?)),
                manager: entry.manager,
                time: entry.time,
                ..ManagedFieldsEntry::default()
            })
        })
        .collect();
    (!kept.is_empty()).then_some(kept)
}

/// Why a person may not approve a version that must be approved by another one than its registrar.
#[must_use]
pub fn refusal(approver: &str, registrar: Option<&str>) -> Option<String> {
    if approver.starts_with(SERVICE_ACCOUNT) {
        return Some(format!("{approver} is no person"));
    }
    match registrar {
        None => Some("MLflow does not say who registered it".to_owned()),
        Some(registrar) if may_be_same_person(registrar, approver) => {
            Some(format!("{approver} registered it"))
        }
        Some(_) => None,
    }
}

/// Whether two names may be of one person. Names differ between systems, so a prefix before a colon, as of an OIDC provider, the part
/// behind an @, and the case do not count.
fn may_be_same_person(one: &str, other: &str) -> bool {
    let bare = |name: &str| {
        let name = name.rsplit(':').next().unwrap_or(name);
        let name = name.split('@').next().unwrap_or(name);
        name.trim().to_lowercase()
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, With};

    #[test]
    fn names_of_one_person_in_two_systems_are_alike() {
        for (one, other) in [
            ("kamal", "kamal"),
            ("oidc:kamal@example.com", "kamal"),
            ("Kamal@example.com", "kamal@example.org"),
        ] {
            assert!(may_be_same_person(one, other), "{one} {other}");
        }
        assert!(!may_be_same_person("kamal", "ada"));
    }

    #[test]
    fn of_the_managed_fields_only_the_approval_is_kept_however_often() {
        let entry = |manager: &str, second, fields: Value| ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            time: Some(Time(
                jiff::Timestamp::from_second(second).expect("in range"),
            )),
            fields_v1: Some(FieldsV1(fields)),
            operation: Some("Update".to_owned()),
            ..ManagedFieldsEntry::default()
        };
        let approval = json!({"f:spec": {"f:alias": {}, "f:promotion": {"f:approvedVersion": {}}}});
        let reason = json!({"f:metadata": {"f:annotations": {".": {}, "f:pointsman.dev/approval-reason": {}}}});
        let entries = vec![
            entry("later", 9, approval.clone()),
            entry("first", 5, approval),
            entry("agrees", 12, reason),
            entry("another", 15, json!({"f:spec": {"f:alias": {}}})),
        ];
        let kept = without_other_fields(entries).expect("three");
        let owner = owner_of_approval(&kept).and_then(|owner| owner.manager.clone());
        assert_eq!((kept.len(), owner.as_deref()), (3, Some("first")));
        assert!(!format!("{kept:?}").contains("alias"), "{kept:?}");
        assert_eq!(without_other_fields(kept.clone()), Some(kept.clone()));
        let binding =
            testing::binding().with(|binding| binding.metadata.managed_fields = Some(kept));
        let at = approved_at(&binding).map(|time| time.0.as_second());
        assert_eq!(at, Some(12), "the last change of the approval");
    }
}
