//! The properties of every write and of every quiescent state.
//!
//! Absent: the operator's own memory. The properties look at the oracle, which records events and writes.

use pointsman::api::AliasBindingStatus;
use pointsman::api::alias_binding::Outcome;

use super::reconciler::Inputs;
use super::state::{
    Check, CheckResult, Pods, Registry, State, Template, Version, WorkloadState, Writer,
};

/// A property, with its bit and its sentence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Property {
    HeldBack = 1,
    FailStatic = 1 << 1,
    Terminates = 1 << 2,
    NoMoreWrites = 1 << 3,
    OneVersion = 1 << 4,
    PeopleWin = 1 << 5,
    Readable = 1 << 6,
    RollbackToGood = 1 << 7,
    Converges = 1 << 8,
    LeavesFailure = 1 << 9,
    StatusIsTrue = 1 << 10,
    HoldEnds = 1 << 11,
    RetryIsKept = 1 << 12,
    Recreates = 1 << 13,
    ChecksRun = 1 << 14,
    BlamesItsOwn = 1 << 15,
    GoesOn = 1 << 16,
    NewestGood = 1 << 17,
    Ran = 1 << 18,
    KeepsAddress = 1 << 19,
    KeepsCapacity = 1 << 20,
}

impl Property {
    pub const ALL: [Self; 21] = [
        Self::HeldBack,
        Self::FailStatic,
        Self::Terminates,
        Self::NoMoreWrites,
        Self::OneVersion,
        Self::PeopleWin,
        Self::Readable,
        Self::RollbackToGood,
        Self::Converges,
        Self::LeavesFailure,
        Self::StatusIsTrue,
        Self::HoldEnds,
        Self::RetryIsKept,
        Self::Recreates,
        Self::ChecksRun,
        Self::BlamesItsOwn,
        Self::GoesOn,
        Self::NewestGood,
        Self::Ran,
        Self::KeepsAddress,
        Self::KeepsCapacity,
    ];

    pub fn bit(self) -> u32 {
        self as u32
    }

    pub fn sentence(self) -> &'static str {
        match self {
            Self::HeldBack => {
                "a failed version is not written again while it is wanted, unless a person asks for it"
            }
            Self::FailStatic => {
                "if the registry names no version, only a pin, a rollback or the version that ran is written"
            }
            Self::Terminates => "without outside events, reconciles come to an end",
            Self::NoMoreWrites => {
                "in a quiescent state neither the Deployment nor the status is written"
            }
            Self::OneVersion => {
                "every chosen container names the one version that the annotation names"
            }
            Self::PeopleWin => {
                "a person's undo stands until another version is wanted or a person resumes"
            }
            Self::Readable => "a version whose artifact is known to be missing is not rolled out",
            Self::RollbackToGood => {
                "an automatic rollback chooses a version that was live and is not held back"
            }
            Self::Converges => {
                "the wanted version runs in the end, from the binding's template, if nothing prevents it"
            }
            Self::LeavesFailure => {
                "a failed version does not stay if there is a good one to roll back to"
            }
            Self::StatusIsTrue => "the status of a quiescent state is true",
            Self::HoldEnds => "a hold that a person ended does not begin again without an undo",
            Self::ChecksRun => "every check that a decision waits for is running",
            Self::Recreates => {
                "a missing owned Deployment is created with the last good version if the wanted one is held back"
            }
            Self::BlamesItsOwn => {
                "a version none of whose chosen containers ran and failed is never held back"
            }
            Self::GoesOn => "a rollout that was blocked goes on when the cause ends",
            Self::NewestGood => {
                "under a fault that all versions share, the workload names the newest good version"
            }
            Self::Ran => "a version that never ran is neither live nor rolled back to",
            Self::KeepsAddress => "the registry's address alone changes no template",
            Self::KeepsCapacity => {
                "a blocked rollout does not cost serving capacity for longer than the deadline"
            }
            Self::RetryIsKept => "a retry that a person asked for is not forgotten",
        }
    }
}

/// A write of the operator into the Deployment.
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct Write<'a> {
    pub inputs: &'a Inputs,
    pub written: WorkloadState,
    pub is_rollback: bool,
    /// Whether the version before it is held back.
    pub blames: bool,
    /// Whether it writes the version that the status says ran.
    pub is_restore: bool,
    /// Whether a retry was requested that the status does not name as handled yet.
    pub retry_is_due: bool,
}

/// Releases the versions that are held back: another version is wanted, a spec changed, or a retry was requested.
pub fn release(state: &mut State) {
    state.oracle.failed = 0;
    if let Some(unwritten) = state.operator.unwritten.as_mut() {
        unwritten.is_current = false;
    }
}

/// Records a change of the wanted version. A deleted alias names no other version.
pub fn record_wanted_version(state: &mut State) {
    let wanted = state.wanted();
    if wanted.is_some() && wanted != state.oracle.wanted {
        state.oracle.wanted = wanted;
        (state.oracle.undo_stands, state.oracle.retry_is_due) = (false, false);
        release(state);
    }
}

/// Records an undo. It must stand if it reverts the wanted version, or the one that runs instead of it, after the operator
/// wrote that version and recorded it in the status. An undo before the wanted version is written is overwritten, because
/// the move counts as the later event; so does a resume or a retry that the operator has not handled yet.
pub fn record_undo(state: &mut State, to: Option<Version>, status: &AliasBindingStatus) {
    let wanted = state.oracle.wanted;
    let is_held_back = wanted.is_some_and(|wanted| state.oracle.failed & wanted.bit() != 0);
    let handled = status
        .last_handled_resume
        .as_ref()
        .map_or(0, |times| times.parse().unwrap());
    let tried = status
        .last_handled_retry
        .as_ref()
        .map_or(0, |retry| retry.value.parse().unwrap());
    let is_latest = state.spec.resumes == handled && state.spec.retries == tried;
    let running = status.running.as_ref();
    let running = running.and_then(|running| Version::of(&running.version));
    let is_ours = state.workload.writer == Writer::Pointsman && state.operator.unwritten.is_none();
    let is_known = is_ours && running == state.workload.version;
    // Without label and version it cannot be told from a Deployment that a person replaced.
    let is_seen = to.is_some() || state.workload.has_label;
    state.oracle.is_undone = true;
    state.oracle.undo_stands &= is_seen;
    state.oracle.undo_stands |=
        is_seen && is_latest && is_known && (state.workload.version == wanted || is_held_back);
}

/// A retry ends an undo that the operator has not recorded as a hold yet.
pub fn record_retry(state: &mut State, status: &AliasBindingStatus) {
    state.oracle.undo_stands &= status.hold.is_some();
}

/// Ends every undo.
pub fn end_undo(state: &mut State) {
    (state.oracle.is_undone, state.oracle.undo_stands) = (false, false);
}

/// Records what the pods of the newest template have shown of their version.
pub fn record_pods(state: &mut State) {
    let bit = state.workload.version.map_or(0, Version::bit);
    if state.workload.is_ready() {
        state.oracle.ran |= bit;
    }
    if state.workload.has_failed() {
        state.oracle.ran_and_failed |= bit;
    }
    if matches!(state.workload.pods, Pods::Crashing | Pods::Unready) {
        state.oracle.failed_by_itself |= bit;
    }
}

/// Checks a write before it is applied.
pub fn check_write(state: &mut State, write: &Write<'_>) {
    let Some(version) = write.written.version else {
        return;
    };
    state.oracle.retry_is_due &= state.wanted() != Some(version);
    let oracle = state.oracle;
    let is_another = state.workload.version != Some(version);
    let is_known_good = write.is_rollback && oracle.live & version.bit() != 0;
    let is_pinned = write.inputs.spec.pin.is_some();
    // A workload that was deleted or replaced gets back the version that ran.
    let is_put_back = write.is_restore && write.inputs.workload.version.is_none();
    let names_a_version = state.mirror.registry == Registry::Up && state.mirror.alias.is_some();
    let known = write.inputs.checks.get(Check {
        version,
        must_exist: false,
    });
    let violations = [
        (
            Property::HeldBack,
            oracle.failed & version.bit() != 0 && state.wanted() == Some(version),
        ),
        (
            Property::FailStatic,
            !names_a_version && !is_pinned && !is_known_good && !is_put_back,
        ),
        (Property::OneVersion, write.written.is_mixed),
        (Property::PeopleWin, oracle.undo_stands),
        (
            Property::Readable,
            !write.is_rollback && !is_put_back && is_another && known == Some(CheckResult::Missing),
        ),
        (
            Property::Ran,
            write.is_rollback && is_another && oracle.ran & version.bit() == 0,
        ),
        (Property::KeepsAddress, changes_address_alone(state, write)),
        (
            Property::RollbackToGood,
            write.is_rollback
                && is_another
                && (oracle.live & version.bit() == 0 || oracle.failed & version.bit() != 0),
        ),
    ];
    for (property, _) in violations.iter().filter(|(_, is_violated)| *is_violated) {
        state.oracle.violated |= property.bit();
    }
    // A rollback means that the version before it failed, even if the operator crashes before it writes the status.
    let is_failure = write.is_rollback
        && write.blames
        && is_another
        && !write.retry_is_due
        && state.operator.stale_binding.is_none();
    let rolled_back_from = state.workload.version.filter(|_version| is_failure);
    state.oracle.failed |= rolled_back_from.map_or(0, Version::bit);
}

/// Whether a template that Pointsman wrote changes in nothing but the registry's address.
fn changes_address_alone(state: &State, write: &Write<'_>) -> bool {
    let (before, written) = (state.workload, write.written);
    let but_address = |workload: WorkloadState| Template {
        has_new_address: false,
        ..workload.template()
    };
    before.writer == Writer::Pointsman
        && before.has_new_address != written.has_new_address
        && before.made_from_edited == written.made_from_edited
        && but_address(before) == but_address(written)
}

/// Records the versions that a written status names as live or failed.
pub fn record_status(state: &mut State, status: &AliasBindingStatus, is_current: bool) {
    let live = status.history.iter();
    let live = live.filter(|entry| entry.live_at.is_some());
    let live = live.filter_map(|entry| Version::of(&entry.version));
    state.oracle.live |= live.fold(0, |bits, version| bits | version.bit());
    let good = status.last_good.as_ref();
    let good = good.and_then(|good| Version::of(&good.version));
    state.oracle.newest_good = good.or(state.oracle.newest_good);
    if state.oracle.live & !state.oracle.ran != 0 {
        state.oracle.violated |= Property::Ran.bit();
    }
    // A version that could not be rolled back and is well again failed no more.
    let recovered = status.current().filter(|entry| {
        let outcome = entry.outcome.known();
        matches!(outcome, Some(Outcome::Baking | Outcome::Live))
    });
    let recovered = recovered.and_then(|entry| Version::of(&entry.version));
    state.oracle.failed &= !recovered.map_or(0, Version::bit);
    let Some(held_back) = &status.held_back else {
        return;
    };
    let failed = held_back.versions.iter();
    let failed = failed.filter_map(|failed| Version::of(&failed.version));
    let failed = failed.fold(0, |bits, version| bits | version.bit());
    if failed == 0 {
        // After a shared fault the failed versions are tried once more.
        state.oracle.failed = 0;
    }
    if failed & !state.oracle.ran_and_failed != 0 {
        state.oracle.violated |= Property::BlamesItsOwn.bit();
    }
    let wanted = Version::of(&held_back.wanted);
    if is_current && wanted == state.oracle.wanted {
        state.oracle.failed |= failed;
    }
}

/// The properties that a quiescent state violates.
pub fn violations_at_quiescence(state: &State, status: &AliasBindingStatus) -> u32 {
    let violations = [
        (
            Property::Converges,
            can_go_forward(state, status)
                && !state.hinders_pods()
                && !(runs_wanted_version(state) && is_of_template(state)),
        ),
        (Property::Recreates, stays_missing(state, status)),
        (Property::GoesOn, stays_blocked(state, status)),
        (Property::NewestGood, names_older_version(state, status)),
        (Property::KeepsCapacity, costs_capacity(state, status)),
        (Property::LeavesFailure, stays_with_a_failure(state, status)),
        (Property::StatusIsTrue, is_status_false(state, status)),
        (
            Property::RetryIsKept,
            state.oracle.retry_is_due
                && is_held_back(status, state.wanted())
                && can_be_tried(state, status),
        ),
        (
            Property::HoldEnds,
            status.hold.is_some()
                && !state.oracle.is_undone
                && !state.spec.suspend
                && is_resolved(state),
        ),
    ];
    violations
        .iter()
        .filter(|(_, is_violated)| *is_violated)
        .fold(0, |bits, (property, _)| bits | property.bit())
}

fn is_person_in_charge(state: &State, status: &AliasBindingStatus) -> bool {
    state.spec.suspend || status.hold.is_some()
}

/// Nothing is in the way of new pods any more, and the status still says so.
fn stays_blocked(state: &State, status: &AliasBindingStatus) -> bool {
    let reason = ready(status).map(|ready| ready.reason.as_str());
    let is_blocked = status.postponed.is_some() || reason == Some("Blocked");
    is_blocked && !state.hinders_pods() && can_go_forward(state, status)
}

/// All versions crash by the fault that they share, and another one runs than the wanted one and the newest good one.
fn names_older_version(state: &State, status: &AliasBindingStatus) -> bool {
    let (oracle, version) = (&state.oracle, state.workload.version);
    let (Some(good), Some(wanted)) = (oracle.newest_good, state.wanted()) else {
        return false;
    };
    let by_fault = oracle.ran_and_failed & !oracle.failed_by_itself;
    let is_fault_alone = by_fault & wanted.bit() != 0 && oracle.failed_by_itself & good.bit() == 0;
    state.workload.pods == Pods::CrashingByFault
        && state.workload.writer == Writer::Pointsman
        && version != Some(wanted)
        && version != Some(good)
        && wanted != good
        && is_fault_alone
        && first_failed(status) == Some(wanted)
        && !is_person_in_charge(state, status)
        && is_readable(state, good)
}

/// The version that failed first. Not proven: a good version that takes the place of a postponed one and fails before it.
fn first_failed(status: &AliasBindingStatus) -> Option<Version> {
    let held_back = status.held_back.as_ref()?;
    Version::of(&held_back.versions.first()?.version)
}

/// The rollout of the wanted version is blocked and no pod serves, although an earlier version is good.
fn costs_capacity(state: &State, status: &AliasBindingStatus) -> bool {
    let Some(good) = state.oracle.newest_good else {
        return false;
    };
    let (workload, current) = (state.workload, status.current());
    let was_available = current.is_none_or(|entry| entry.available_at.is_some());
    workload.is_blocked()
        && workload.older.is_none()
        && workload.writer == Writer::Pointsman
        && workload.version == state.wanted()
        && workload.version != Some(good)
        && !was_available
        && !is_held_back(status, Some(good))
        && !has_failed(status, good)
        && !is_person_in_charge(state, status)
        && is_readable(state, good)
}

fn is_readable(state: &State, version: Version) -> bool {
    let check = Check {
        version,
        must_exist: true,
    };
    state.check_result(check) == CheckResult::Readable
}

/// Whether the history has a failure of a version.
fn has_failed(status: &AliasBindingStatus, version: Version) -> bool {
    status.history.iter().any(|entry| {
        let is_failed = entry.outcome == Outcome::Failed || entry.outcome == Outcome::RolledBack;
        is_failed && Version::of(&entry.version) == Some(version)
    })
}

fn runs_wanted_version(state: &State) -> bool {
    let runs = |wanted: Version| match (state.workload.version, state.spec.pin) {
        // A pin names a number, not an artifact.
        (Some(version), Some(pin)) => version.number() == pin.number(),
        (version, _) => version == Some(wanted),
    };
    state.wanted().is_some_and(runs)
}

/// Whether an owned Deployment was made from the binding's template as it is now.
fn is_of_template(state: &State) -> bool {
    let made_from = state.workload.made_from_edited;
    made_from.is_none_or(|edited| edited == state.spec.template_edited)
}

/// The wanted version is held back and nothing runs, although the last good version can be read.
fn stays_missing(state: &State, status: &AliasBindingStatus) -> bool {
    let Some(good) = status
        .last_good
        .as_ref()
        .and_then(|good| Version::of(&good.version))
    else {
        return false;
    };
    state.workload.is_missing()
        && is_held_back(status, state.wanted())
        && !is_held_back(status, Some(good))
        && !has_failed(status, good)
        && !is_person_in_charge(state, status)
        && is_readable(state, good)
}

fn is_resolved(state: &State) -> bool {
    state.mirror.registry == Registry::Up
        && state
            .wanted()
            .is_some_and(|wanted| state.mirror.has(wanted))
}

fn is_held_back(status: &AliasBindingStatus, wanted: Option<Version>) -> bool {
    let versions = status
        .held_back
        .iter()
        .flat_map(|held_back| &held_back.versions);
    let mut versions = versions.filter_map(|failed| Version::of(&failed.version));
    wanted.is_some_and(|wanted| versions.any(|failed| failed == wanted))
}

fn can_be_tried(state: &State, status: &AliasBindingStatus) -> bool {
    let check_result = state.wanted().map(|version| {
        state.check_result(Check {
            version,
            must_exist: false,
        })
    });
    is_resolved(state)
        && !state.spec.suspend
        && status.hold.is_none()
        && check_result == Some(CheckResult::Readable)
}

fn can_go_forward(state: &State, status: &AliasBindingStatus) -> bool {
    can_be_tried(state, status) && !is_held_back(status, state.wanted())
}

fn stays_with_a_failure(state: &State, status: &AliasBindingStatus) -> bool {
    let is_ours = state.workload.writer == Writer::Pointsman;
    let fails = is_ours && state.workload.has_failed();
    let is_failed = status
        .current()
        .is_some_and(|entry| entry.outcome == Outcome::Failed);
    let reason = ready(status).map(|ready| ready.reason.as_str());
    fails && is_failed && !is_person_in_charge(state, status) && reason != Some("NoRollbackTarget")
}

/// Whether the status says Live or Pinned although the wanted version does not run well, reports progress that does not
/// happen, or names another running version.
fn is_status_false(state: &State, status: &AliasBindingStatus) -> bool {
    let Some(ready) = ready(status) else {
        return true;
    };
    let reports_live = ready.status == "True" && matches!(ready.reason.as_str(), "Live" | "Pinned");
    let older = state.workload.older;
    // Pods of the template before the first version count too: a version that was live stays so while the minimum serves.
    let serves = older
        .is_some_and(|older| older.version.is_none() || older.version == state.workload.version);
    let is_well = runs_wanted_version(state) && (state.workload.is_ready() || serves);
    let reconciling = status
        .conditions
        .iter()
        .find(|each| each.type_ == "Reconciling")
        .map(|each| each.reason.as_str());
    let reported_version = status
        .running
        .as_ref()
        .and_then(|running| Version::of(&running.version));
    (reports_live && !is_well)
        || matches!(reconciling, Some("Baking" | "Pending"))
        || (reconciling == Some("RolledBack") && state.workload.is_ready())
        || reported_version != state.workload.version
}

fn ready(
    status: &AliasBindingStatus,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    status.conditions.iter().find(|each| each.type_ == "Ready")
}
