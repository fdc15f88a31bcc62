//! Who drives a Deployment where several would: one binding, always the same one.
//!
//! Absent: any change of mind. A holder keeps what it holds as long as it exists.

use crate::api::AliasBinding;
use crate::targets::Workload;

/// Who drives the Deployment already, where it is not this binding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The holder, as people would look for it.
    pub holder: String,
}

/// Who else holds this binding's Deployment: the binding that the Deployment names, else the oldest one.
#[must_use]
pub fn claim(
    binding: &AliasBinding,
    rivals: &[&AliasBinding],
    workload: Option<&Workload>,
) -> Option<Claim> {
    if binding.spec.template.is_some()
        && workload.is_some_and(|workload| !is_made_by(workload, binding))
    {
        return Some(Claim {
            holder: "somebody else (it exists, and this binding did not make it)".to_owned(),
        });
    }
    let named = workload.and_then(Workload::binding);
    let candidates = || {
        rivals
            .iter()
            .copied()
            .chain([binding])
            .filter(|each| each.metadata.deletion_timestamp.is_none())
    };
    let by_name = named
        .and_then(|named| candidates().find(|each| each.metadata.name.as_deref() == Some(named)));
    let holder = by_name.or_else(|| candidates().min_by_key(|each| seniority(each)))?;
    let is_me = holder.metadata.name == binding.metadata.name;
    let name = holder.metadata.name.as_deref().unwrap_or_default();
    (!is_me).then(|| Claim {
        holder: format!("AliasBinding {name}"),
    })
}

fn seniority(binding: &AliasBinding) -> (Option<jiff::Timestamp>, Option<&str>) {
    (
        binding
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0),
        binding.metadata.name.as_deref(),
    )
}

fn is_made_by(workload: &Workload, binding: &AliasBinding) -> bool {
    let owners = workload
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default();
    let owned = owners
        .iter()
        .any(|owner| Some(&owner.uid) == binding.metadata.uid.as_ref());
    let orphaned = owners.is_empty() && workload.owners.our_last_write().is_some();
    owned || (orphaned && workload.binding() == binding.metadata.name.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding(name: &str, created: &str) -> AliasBinding {
        serde_json::from_value(json!({
            "apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"modelRef": {"name": "m"}, "alias": "champion", "targetRef": {"name": "server"}}}))
        .expect("a binding")
    }

    fn labelled(name: &str) -> Workload {
        serde_json::from_value(json!({"metadata": {"labels": {"pointsman.dev/binding": name}}}))
            .expect("a workload")
    }

    #[test]
    fn the_older_of_two_bindings_holds_the_target() {
        let (old, new) = (
            binding("b", "2026-01-01T00:00:00Z"),
            binding("a", "2026-01-02T00:00:00Z"),
        );
        assert_eq!(claim(&old, &[&new], None), None);
        assert_eq!(
            claim(&new, &[&old], None).map(|claim| claim.holder),
            Some("AliasBinding b".to_owned())
        );
    }

    #[test]
    fn the_binding_that_the_deployment_names_holds_it_whatever_its_age() {
        let (old, new) = (
            binding("b", "2026-01-01T00:00:00Z"),
            binding("a", "2026-01-02T00:00:00Z"),
        );
        assert_eq!(claim(&new, &[&old], Some(&labelled("a"))), None);
        assert!(claim(&old, &[&new], Some(&labelled("a"))).is_some());
    }

    #[test]
    fn a_label_of_a_binding_that_is_gone_holds_nothing() {
        let new = binding("a", "2026-01-02T00:00:00Z");
        assert_eq!(claim(&new, &[], Some(&labelled("gone"))), None);
    }
}
