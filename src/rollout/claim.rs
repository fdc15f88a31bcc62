//! The one binding that drives a workload if several name it: always the same one.
//!
//! Absent: handover. A holder keeps its workload as long as the holder exists.

use crate::api::AliasBinding;
use crate::targets::Target;

/// The other owner of a workload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The owner, as people would look for it.
    pub holder: String,
}

/// The other owner of this binding's workload: the binding in the workload's label, else the oldest one.
#[must_use]
pub fn claim(
    binding: &AliasBinding,
    rivals: &[&AliasBinding],
    target: Option<&Target>,
) -> Option<Claim> {
    if let (Some(_), Some(target)) = (&binding.spec.template, target)
        && !is_made_by(target, binding)
    {
        let holder = "somebody else (it exists, and this binding did not make it)";
        return Some(Claim {
            holder: holder.to_owned(),
        });
    }
    let candidates: Vec<_> = rivals
        .iter()
        .copied()
        .chain([binding])
        .filter(|each| each.metadata.deletion_timestamp.is_none())
        .collect();
    let labelled = target.and_then(Target::binding);
    let by_label = candidates
        .iter()
        .find(|each| labelled.is_some() && each.metadata.name.as_deref() == labelled);
    let holder = by_label.or_else(|| candidates.iter().min_by_key(|each| seniority(each)))?;
    if holder.metadata.name == binding.metadata.name {
        return None;
    }
    let name = holder.metadata.name.as_deref().unwrap_or_default();
    Some(Claim {
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

fn is_made_by(target: &Target, binding: &AliasBinding) -> bool {
    let owners = target
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default();
    let owned = owners
        .iter()
        .any(|owner| Some(&owner.uid) == binding.metadata.uid.as_ref());
    let orphaned = owners.is_empty() && target.owners.our_last_write().is_some();
    owned || (orphaned && target.binding() == binding.metadata.name.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, With, deployment, time};

    fn binding(name: &str, created: &str) -> AliasBinding {
        testing::binding().with(|binding| {
            binding.metadata.name = Some(name.to_owned());
            binding.metadata.creation_timestamp = Some(time(created));
        })
    }

    fn labelled(name: &str) -> Target {
        deployment().labelled(name).target()
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
    fn the_binding_in_the_workloads_label_holds_it_whatever_its_age() {
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
