//! A person's own change of the workload stands until another version is wanted or a person resumes (`people_win`).
//!
//! Absent: pins and suspension. They are in the spec.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::Observed;
use crate::api::alias_binding::Hold;
use crate::api::rollback::HeldBack;
use crate::api::{AliasBinding, AliasBindingStatus, VersionRef, names};
use crate::targets::{DesiredVersion, Target};

/// The hold in the status.
pub fn standing_hold(binding: &AliasBinding) -> Option<Hold> {
    binding.status.as_ref()?.hold.clone()
}

/// The hold in force while a version is wanted: the standing one, or one that begins now.
pub fn hold(
    binding: &AliasBinding,
    target: &Target,
    desired: &DesiredVersion,
    now: Timestamp,
) -> Option<Hold> {
    let status = binding.status.as_ref()?;
    let current = status.current();
    let was_running = current.is_some_and(|entry| entry.version.is_same(&desired.version));
    hold_against(binding, target, &desired.version, was_running, now)
}

/// The hold in force while the wanted version is held back.
pub fn hold_in_rollback(
    binding: &AliasBinding,
    target: &Target,
    held_back: &HeldBack,
    now: Timestamp,
) -> Option<Hold> {
    let status = binding.status.as_ref()?;
    let begins = differs_from_history(status, target);
    hold_against(binding, target, &held_back.wanted, begins, now)
}

/// The hold in force while the binding is suspended: a person's change is noticed all the same.
pub fn hold_while_suspended(
    binding: &AliasBinding,
    observed: &Observed<'_>,
    now: Timestamp,
) -> Option<Hold> {
    let status = binding.status.as_ref()?;
    let target = if observed.claim.is_none() {
        observed.target
    } else {
        None
    };
    let (Ok(desired), Some(target)) = (&observed.resolution.desired, target) else {
        return hold_while_unresolved(binding, target, now);
    };
    let begun = match &status.held_back {
        Some(held_back) if held_back.contains(&desired.version) => {
            hold_in_rollback(binding, target, held_back, now)
        }
        _ => hold(binding, target, desired, now),
    };
    begun.or_else(|| standing_hold(binding))
}

/// The hold in force while no version can be resolved: the wanted version is the last written one, until the alias names another.
pub fn hold_while_unresolved(
    binding: &AliasBinding,
    target: Option<&Target>,
    now: Timestamp,
) -> Option<Hold> {
    let status = binding.status.as_ref()?;
    if let Some(standing) = &status.hold {
        return Some(standing.clone());
    }
    let (target, current) = (target?, status.current()?);
    let held_back = status.held_back.as_ref();
    let wanted = held_back.map_or(&current.version, |held_back| &held_back.wanted);
    hold_against(
        binding,
        target,
        wanted,
        differs_from_history(status, target),
        now,
    )
}

/// Whether the target holds another version than the history says.
fn differs_from_history(status: &AliasBindingStatus, target: &Target) -> bool {
    status
        .current()
        .is_some_and(|entry| !target.runs(&entry.version))
}

fn hold_against(
    binding: &AliasBinding,
    target: &Target,
    wanted: &VersionRef,
    begins: bool,
    now: Timestamp,
) -> Option<Hold> {
    if is_resume_requested(binding) {
        return None;
    }
    let manager = foreign_writer(target)?;
    match standing_hold(binding) {
        Some(standing) if standing.wanted.is_same(wanted) => Some(standing),
        _ if begins => Some(Hold {
            wanted: wanted.clone(),
            manager,
            since: Time(now),
        }),
        _ => None,
    }
}

/// Whether a resume was requested that has not been acted on.
fn is_resume_requested(binding: &AliasBinding) -> bool {
    let requested = binding.resume_request();
    let status = binding.status.as_ref();
    let handled = status.and_then(|status| status.last_handled_resume.as_ref());
    requested.is_some() && requested != handled
}

/// The manager other than Pointsman that wrote the version into the pod template, as `kubectl rollout undo` does; or that
/// removed the whole injection by going back to a template before it.
#[must_use]
pub fn foreign_writer(target: &Target) -> Option<String> {
    if target.version().is_some() {
        let writers = target.owners.foreign_version_writers();
        return writers.first().map(|writer| writer.manager.clone());
    }
    // Replacing the whole workload removes our label as well; an undo changes the pod template only.
    target.binding()?;
    // An apply of a manifest that lost its annotations takes ours away too, and leaves our variables: that is drift.
    if target.has_our_variables() {
        return None;
    }
    match target.owners.last_template_writer() {
        Some(last) if last.manager != names::FIELD_MANAGER => Some(last.manager.clone()),
        _ => Some("somebody".to_owned()),
    }
}
