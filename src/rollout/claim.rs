//! The one binding that drives a workload if several name it: always the same one.
//!
//! Absent: handover. A holder keeps its workload as long as the holder exists.

use super::messages::{self, name, namespace};
use crate::api::reason::Problem;
use crate::api::{AliasBinding, Reason};
use crate::targets::{TEMPLATE_DIGEST_ANNOTATION, Target};

/// Why a binding must not drive its workload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Claim {
    /// Another binding drives it, as people would look for it.
    Binding(String),
    /// Its controller, as people would look for it, writes the pod template.
    Controller(String),
    /// The binding has a template, and the workload was not made from it.
    NotMadeFromTemplate,
}

impl Claim {
    /// The claim as people should read it.
    #[must_use]
    pub fn problem(&self, binding: &AliasBinding, target: &str) -> Problem {
        let own = format!(
            "kubectl delete abind {} -n {}",
            name(binding),
            namespace(binding)
        );
        let (cause, remedy) = match self {
            Self::Binding(holder) => (
                format!("{target} is driven by {holder} already"),
                format!("delete one of the two: {own} (the workload keeps serving)"),
            ),
            Self::Controller(owner) => (
                format!("{target} belongs to {owner}, whose controller would write it back"),
                format!("set the version there, and delete this binding: {own}"),
            ),
            Self::NotMadeFromTemplate => (
                format!("{target} exists, and this binding did not make it"),
                format!("drive it by spec.targetRef, in a new binding: {own}"),
            ),
        };
        messages::problem(Reason::TargetClaimed, &cause, &remedy)
    }
}

/// The other owner of this binding's workload: its controller, or the binding in its label, else the oldest one.
#[must_use]
pub fn claim(
    binding: &AliasBinding,
    rivals: &[&AliasBinding],
    target: Option<&Target>,
) -> Option<Claim> {
    if let (Some(_), Some(target)) = (&binding.spec.template, target)
        && !is_made_by(target, binding)
    {
        return Some(Claim::NotMadeFromTemplate);
    }
    if let Some(claim) = target.and_then(|target| controller(target, binding)) {
        return Some(claim);
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
    Some(Claim::Binding(format!("AliasBinding {name}")))
}

/// The controller of the workload, if it is not this binding.
fn controller(target: &Target, binding: &AliasBinding) -> Option<Claim> {
    let mut owners = target.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    if Some(&owner.uid) == binding.metadata.uid.as_ref() {
        return None;
    }
    let owner = format!("{} {}", owner.kind, owner.name);
    Some(if owner.starts_with("AliasBinding ") {
        Claim::Binding(owner)
    } else {
        Claim::Controller(owner)
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

/// Whether a binding made the workload from its template: it owns it, or left it as an orphan with its label.
fn is_made_by(target: &Target, binding: &AliasBinding) -> bool {
    let owners = target
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default();
    let annotations = target.metadata.annotations.as_ref();
    let has_digest = annotations.is_some_and(|all| all.contains_key(TEMPLATE_DIGEST_ANNOTATION));
    let is_owned = owners
        .iter()
        .any(|owner| Some(&owner.uid) == binding.metadata.uid.as_ref());
    let is_orphan = owners.is_empty() && target.binding() == binding.metadata.name.as_deref();
    has_digest && (is_owned || is_orphan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, With, deployment, time};
    use serde_json::json;

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
            claim(&new, &[&old], None),
            Some(Claim::Binding("AliasBinding b".to_owned()))
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

    fn target(metadata: &serde_json::Value) -> Target {
        let change = json!({"metadata": metadata});
        deployment().changed(&change).target()
    }

    #[test]
    fn a_workload_with_a_controller_is_its_controllers() {
        let owned = |kind: &str, controller: bool| {
            target(
                &json!({"ownerReferences": [{"apiVersion": "a/v1", "kind": kind, "name": "o", "uid": "u", "controller": controller}]}),
            )
        };
        let own = binding("a", "2026-01-01T00:00:00Z");
        assert_eq!(
            claim(&own, &[], Some(&owned("SeldonDeployment", true))),
            Some(Claim::Controller("SeldonDeployment o".to_owned()))
        );
        assert_eq!(
            claim(&own, &[], Some(&owned("AliasBinding", true))),
            Some(Claim::Binding("AliasBinding o".to_owned()))
        );
        assert_eq!(claim(&own, &[], Some(&owned("Application", false))), None);
    }

    #[test]
    fn a_template_takes_only_a_workload_that_was_made_from_it() {
        let mut own = binding("a", "2026-01-01T00:00:00Z");
        own.spec.target_ref = None;
        own.spec.template = serde_json::from_value(json!({"spec": {}})).expect("a template");
        let workload = |annotations: serde_json::Value| {
            target(&json!({"labels": {"pointsman.dev/binding": "a"}, "annotations": annotations}))
        };
        assert_eq!(
            claim(&own, &[], Some(&workload(json!({})))),
            Some(Claim::NotMadeFromTemplate),
            "a targetRef drove it once"
        );
        let orphan = workload(json!({"pointsman.dev/template-digest": "d"}));
        assert_eq!(claim(&own, &[], Some(&orphan)), None);
    }
}
