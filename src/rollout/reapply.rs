//! The registry's address and the location of a version's files are no part of a version: a workload keeps those that it was
//! written with, until the next version or until a person asks for the present ones.
//!
//! Absent: the writes. They are decided in `decide`.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::messages::{self, Note};
use crate::api::alias_binding::{AppliedRequest, HistoryEntry};
use crate::api::inject::InjectedValue;
use crate::api::reason::Problem;
use crate::api::{AliasBinding, Reason, VersionRef};
use crate::targets::{DesiredVersion, Target};

/// Whether a person asked for the present address and location, and the request has not been handled.
pub fn is_requested(binding: &AliasBinding) -> bool {
    let value = last(binding).map(|last| &last.value);
    let asked = binding.apply_request();
    asked.is_some() && asked != value
}

fn last(binding: &AliasBinding) -> Option<&AppliedRequest> {
    binding.status.as_ref()?.last_handled_apply.as_ref()
}

/// The version with the address, workspace and location that the workload was written with; with the present ones if it holds
/// another version.
pub fn as_written(
    binding: &AliasBinding,
    target: Option<&Target>,
    desired: &DesiredVersion,
) -> DesiredVersion {
    let wanted = &desired.version;
    if let Some((before, _)) = to_take_back(binding, target)
        && before.is_same(wanted)
    {
        return with_id_of(wanted, before.clone());
    }
    let running = target.filter(|target| target.runs(wanted));
    if running.is_none() && target.is_some_and(|target| target.version().is_some()) {
        return desired.clone();
    }
    let status = binding.status.as_ref();
    let recorded = status
        .and_then(|status| status.current())
        .map(|entry| &entry.version)
        .filter(|version| version.is_same(wanted));
    let known = recorded.unwrap_or(wanted);
    let written = |value| running?.written(value).map(Cow::into_owned);
    // The record comes first: a policy may have changed the write.
    let location = recorded.and_then(|recorded| recorded.artifact_uri.clone());
    let location = location.or_else(|| written(InjectedValue::ModelUri));
    let address = recorded.and_then(|recorded| recorded.tracking_uri.clone());
    let address = address.or_else(|| written(InjectedValue::TrackingUri));
    let version = VersionRef {
        id: wanted.id.clone(),
        query_withheld: match (&location, running) {
            (Some(_), Some(running)) if written(InjectedValue::ModelUri).is_some() => {
                running.has_query()
            }
            (Some(_), _) => known.query_withheld,
            (None, _) => wanted.query_withheld,
        },
        artifact_uri: location.or(wanted.artifact_uri.clone()),
        run_id: written(InjectedValue::RunId).or(known.run_id.clone()),
        tracking_uri: address.or(wanted.tracking_uri.clone()),
        workspace: written(InjectedValue::Workspace).or(known.workspace.clone()),
    };
    DesiredVersion { version }
}

fn with_id_of(wanted: &VersionRef, version: VersionRef) -> DesiredVersion {
    let id = wanted.id.clone();
    DesiredVersion {
        version: VersionRef { id, ..version },
    }
}

/// The version as it was before a request whose write failed, with the failure, as long as the workload holds that version and
/// nobody asks again.
fn to_take_back<'a>(
    binding: &'a AliasBinding,
    target: Option<&Target>,
) -> Option<(&'a VersionRef, &'a str)> {
    let last = last(binding)?;
    let (before, failure) = (last.before.as_ref()?, last.failure.as_deref()?);
    let is_due = target?.runs(before) && !is_requested(binding);
    is_due.then_some((before, failure))
}

/// Why the address and location of before have to be written again, if they have to be.
pub fn taken_back(binding: &AliasBinding, target: &Target) -> Option<Problem> {
    let (before, failure) = to_take_back(binding, Some(target))?;
    Some(messages::problem(
        Reason::RolledBack,
        &format!(
            "version {} runs as before the request: {failure}",
            before.number()
        ),
        &format!("try again: {}", messages::apply_command(binding)),
    ))
}

/// Whether a history entry is of such a request: then a failure is that of the new address or location, and not the version's.
pub fn is_observed(binding: &AliasBinding, entry: &HistoryEntry) -> bool {
    let before = last(binding).and_then(|last| last.before.as_ref());
    before.is_some_and(|before| {
        before.is_same(&entry.version) && !before.is_written_as(&entry.version)
    })
}

/// Whether the failure of the last request is in the status.
pub fn is_failure_recorded(binding: &AliasBinding) -> bool {
    last(binding).is_some_and(|last| last.failure.is_some())
}

/// The memory of the last request after its failure was seen.
pub fn after_failure(binding: &AliasBinding, problem: &Problem) -> Option<AppliedRequest> {
    let last = last(binding).cloned()?;
    let entry = binding.status.as_ref()?.current();
    if entry.is_some_and(|entry| is_observed(binding, entry)) {
        let failure = Some(problem.message.clone());
        return Some(AppliedRequest { failure, ..last });
    }
    Some(last)
}

/// The memory of the last request if the workload holds everything that was asked for.
pub fn after_nothing(binding: &AliasBinding, now: Timestamp) -> Option<AppliedRequest> {
    if is_requested(binding) {
        return handled(binding, None, now);
    }
    last(binding).cloned()
}

/// The memory of the last request after a version was written; `forward` if it is the wanted one.
pub fn after_write(
    binding: &AliasBinding,
    target: Option<&Target>,
    forward: Option<&str>,
    now: Timestamp,
) -> Option<AppliedRequest> {
    if let (Some(number), true) = (forward, is_requested(binding)) {
        let current = binding.status.as_ref().and_then(|status| status.current());
        let before = target
            .filter(|target| target.version() == Some(number))
            .and_then(|target| {
                target.held_version(current.map(|entry| &entry.version).into_iter())
            });
        return handled(binding, before, now);
    }
    let last = last(binding).cloned()?;
    let is_kept = last
        .before
        .as_ref()
        .is_some_and(|before| target.is_some_and(|target| target.runs(before)));
    Some(if is_kept {
        last
    } else {
        AppliedRequest {
            before: None,
            failure: None,
            ..last
        }
    })
}

fn handled(
    binding: &AliasBinding,
    before: Option<VersionRef>,
    now: Timestamp,
) -> Option<AppliedRequest> {
    Some(AppliedRequest {
        value: binding.apply_request()?.clone(),
        at: Time(now),
        before,
        failure: None,
    })
}

/// The sentence about what would be written now and is not.
pub fn drift(
    binding: &AliasBinding,
    target: &Target,
    kept: &DesiredVersion,
    desired: &DesiredVersion,
) -> Note {
    let (kept, desired) = (&kept.version, &desired.version);
    let (change, new) = if kept.tracking_uri != desired.tracking_uri {
        (
            "the registry's address has changed since",
            "the registry's new address",
        )
    } else if kept.artifact_uri != desired.artifact_uri {
        ("its files have moved since", "their new location")
    } else {
        (
            "its injected variables would be others now",
            "its new variables",
        )
    };
    let command = messages::apply_command(binding);
    match to_take_back(binding, Some(target)) {
        Some((_, failure)) => Note {
            cause: format!("{new} failed: {failure}"),
            remedy: format!("try again: {command}"),
        },
        None => Note {
            cause: change.to_owned(),
            remedy: format!("write it now: {command}"),
        },
    }
}
