//! What must be true of every write, whatever happened before.
//!
//! Absent: the operator's own memory. What is known here is told by what happened in the world and by what was written.

use pointsman::api::AliasBindingStatus;

use super::pass::Seen;
use super::world::{Pods, Query, Registry, Reply, Version, Work, World, Writer};

/// A property, by its bit and its sentence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum Property {
    HeldBack = 1,
    FailStatic = 1 << 1,
    Settles = 1 << 2,
    Quiet = 1 << 3,
    OneVersion = 1 << 4,
    PeopleWin = 1 << 5,
    Readable = 1 << 6,
    BackToGood = 1 << 7,
    GetsThere = 1 << 8,
    LeavesFailure = 1 << 9,
    Honest = 1 << 10,
    LetsGo = 1 << 11,
    TriesAgain = 1 << 12,
}

impl Property {
    pub const ALL: [Self; 13] = [
        Self::HeldBack,
        Self::FailStatic,
        Self::Settles,
        Self::Quiet,
        Self::OneVersion,
        Self::PeopleWin,
        Self::Readable,
        Self::BackToGood,
        Self::GetsThere,
        Self::LeavesFailure,
        Self::Honest,
        Self::LetsGo,
        Self::TriesAgain,
    ];

    pub fn bit(self) -> u16 {
        self as u16
    }

    pub fn sentence(self) -> &'static str {
        match self {
            Self::HeldBack => {
                "a version that failed is not written again while it is wanted and nobody asked"
            }
            Self::FailStatic => {
                "a registry that names no version has nothing written but a pin or a way back"
            }
            Self::Settles => "with the world quiet, passes come to an end",
            Self::Quiet => "what is settled is written no more, neither Deployment nor status",
            Self::OneVersion => {
                "every chosen container names the one version that the annotation names"
            }
            Self::PeopleWin => {
                "a person's undo stands until another version is wanted or a person resumes"
            }
            Self::Readable => {
                "a version whose artifact is known to be gone is never gone forward to"
            }
            Self::BackToGood => "by itself it goes back only to what was live and is not held back",
            Self::GetsThere => "what is wanted and hindered by nothing runs in the end",
            Self::LeavesFailure => {
                "a failed version does not stay where a good one can be gone back to"
            }
            Self::Honest => "a settled status says what is so",
            Self::LetsGo => "a hold that a person ended does not come back by itself",
            Self::TriesAgain => "a retry that a person asked for is not forgotten",
        }
    }
}

/// A write of the operator's into the Deployment.
pub struct Writing<'a> {
    pub seen: &'a Seen,
    pub wrote: Work,
    pub is_back: bool,
    /// Whether a retry was asked for that is not written down as acted on yet.
    pub is_asked: bool,
}

/// What is held back is released: another version is wanted, a spec changed, or somebody asked.
pub fn release(world: &mut World) {
    world.ghost.failed = 0;
    if let Some(pending) = world.operator.pending.as_mut() {
        pending.is_current = false;
    }
}

/// Notices when another version is wanted. An alias that is gone names no other.
pub fn notice_what_is_wanted(world: &mut World) {
    let wanted = world.wanted();
    if wanted.is_some() && wanted != world.ghost.named {
        world.ghost.named = wanted;
        (world.ghost.is_kept, world.ghost.is_asked) = (false, false);
        release(world);
    }
}

/// A person undoes what was written because of what is wanted now, be it that or what is run in its place, once the operator
/// has it written down and seen. Whoever undoes something else, while what is wanted is yet to be written, is told from
/// nobody: the move is the later word; and so is a resume or a retry that the operator has not seen yet.
pub fn on_undo(world: &mut World, to: Option<Version>, status: &AliasBindingStatus) {
    let named = world.ghost.named;
    let is_held_back = named.is_some_and(|named| world.ghost.failed & named.bit() != 0);
    let handled = status
        .last_handled_resume
        .as_ref()
        .map_or(0, |times| times.parse().unwrap());
    let tried = status
        .last_handled_retry
        .as_ref()
        .map_or(0, |retry| retry.value.parse().unwrap());
    let is_latest = world.spec.resumes == handled && world.spec.retries == tried;
    let running = status.running.as_ref();
    let running = running.and_then(|running| Version::of(&running.version));
    let is_ours = world.work.writer == Writer::Pointsman && world.operator.pending.is_none();
    let is_known = is_ours && running == world.work.version;
    // Without label and version, nothing tells it from a Deployment that was replaced whole.
    let is_seen = to.is_some() || world.work.labelled;
    world.ghost.is_undone = true;
    world.ghost.is_kept &= is_seen;
    world.ghost.is_kept |=
        is_seen && is_latest && is_known && (world.work.version == named || is_held_back);
}

/// A retry is the later word over an undo that the operator has not seen yet.
pub fn on_retry(world: &mut World, status: &AliasBindingStatus) {
    world.ghost.is_kept &= status.hold.is_some();
}

/// Whatever a person undid is over.
pub fn end_undo(world: &mut World) {
    (world.ghost.is_undone, world.ghost.is_kept) = (false, false);
}

/// Looks at a write before it is made.
pub fn on_writing(world: &mut World, writing: &Writing<'_>) {
    let Some(version) = writing.wrote.version else {
        return;
    };
    world.ghost.is_asked &= world.wanted() != Some(version);
    let ghost = world.ghost;
    let is_another = world.work.version != Some(version);
    let is_known_good = writing.is_back && ghost.live & version.bit() != 0;
    let is_pinned = writing.seen.spec.pin.is_some();
    let names_a_version = world.mirror.registry == Registry::Up && world.mirror.alias.is_some();
    let known = writing.seen.book.get(Query {
        version,
        must_exist: false,
    });
    let violations = [
        (
            Property::HeldBack,
            ghost.failed & version.bit() != 0 && world.wanted() == Some(version),
        ),
        (
            Property::FailStatic,
            !names_a_version && !is_pinned && !is_known_good,
        ),
        (Property::OneVersion, writing.wrote.torn),
        (Property::PeopleWin, ghost.is_kept),
        (
            Property::Readable,
            !writing.is_back && is_another && known == Some(Reply::Gone),
        ),
        (
            Property::BackToGood,
            writing.is_back
                && is_another
                && (ghost.live & version.bit() == 0 || ghost.failed & version.bit() != 0),
        ),
    ];
    for (property, _) in violations.iter().filter(|(_, is_violated)| *is_violated) {
        world.ghost.violated |= property.bit();
    }
    // Going back says that what is gone back from failed, whether or not anybody lives to write it down.
    let is_told =
        writing.is_back && is_another && !writing.is_asked && world.operator.old_binding.is_none();
    let gone_from = world.work.version.filter(|_| is_told);
    world.ghost.failed |= gone_from.map_or(0, Version::bit);
}

/// Learns from a status that was written.
pub fn on_status(world: &mut World, status: &AliasBindingStatus, is_current: bool) {
    for entry in status
        .history
        .iter()
        .filter(|entry| entry.live_at.is_some())
    {
        world.ghost.live |= Version::of(&entry.version).map_or(0, Version::bit);
    }
    let Some(held_back) = status.held_back.as_ref().filter(|_| is_current) else {
        return;
    };
    let wanted = Version::of(&held_back.wanted);
    if wanted == world.ghost.named {
        for failed in &held_back.versions {
            world.ghost.failed |= Version::of(&failed.version).map_or(0, Version::bit);
        }
    }
}

/// What a settled world violates.
pub fn of_settled(world: &World, status: &AliasBindingStatus) -> u16 {
    let violations = [
        (
            Property::GetsThere,
            is_hindered_by_nothing(world, status) && !runs_what_is_wanted(world),
        ),
        (Property::LeavesFailure, stays_with_a_failure(world, status)),
        (Property::Honest, lies(world, status)),
        (
            Property::TriesAgain,
            world.ghost.is_asked
                && is_held_back(status, world.wanted())
                && can_be_tried(world, status),
        ),
        (
            Property::LetsGo,
            status.hold.is_some()
                && !world.ghost.is_undone
                && !world.spec.suspend
                && is_resolved(world),
        ),
    ];
    violations
        .iter()
        .filter(|(_, is_violated)| *is_violated)
        .fold(0, |bits, (property, _)| bits | property.bit())
}

fn runs_what_is_wanted(world: &World) -> bool {
    let runs = |wanted: Version| match (world.work.version, world.spec.pin) {
        // A pin is a number.
        (Some(version), Some(pin)) => version.number() == pin.number(),
        (version, _) => version == Some(wanted),
    };
    world.wanted().is_some_and(runs)
}

fn is_resolved(world: &World) -> bool {
    world.mirror.registry == Registry::Up
        && world
            .wanted()
            .is_some_and(|wanted| world.mirror.has(wanted))
}

fn is_held_back(status: &AliasBindingStatus, wanted: Option<Version>) -> bool {
    let versions = status
        .held_back
        .iter()
        .flat_map(|held_back| &held_back.versions);
    let mut versions = versions.filter_map(|failed| Version::of(&failed.version));
    wanted.is_some_and(|wanted| versions.any(|failed| failed == wanted))
}

fn can_be_tried(world: &World, status: &AliasBindingStatus) -> bool {
    let reply = world.wanted().map(|version| {
        world.reply(Query {
            version,
            must_exist: false,
        })
    });
    is_resolved(world)
        && !world.spec.suspend
        && status.hold.is_none()
        && reply == Some(Reply::Readable)
}

fn is_hindered_by_nothing(world: &World, status: &AliasBindingStatus) -> bool {
    can_be_tried(world, status) && !is_held_back(status, world.wanted())
}

fn stays_with_a_failure(world: &World, status: &AliasBindingStatus) -> bool {
    let is_ours = world.work.writer == Writer::Pointsman;
    let fails = is_ours && matches!(world.work.pods, Pods::Crashing | Pods::Late);
    let is_failed = status
        .current()
        .is_some_and(|entry| entry.outcome == pointsman::api::alias_binding::Outcome::Failed);
    let is_left_alone = world.spec.suspend || status.hold.is_some();
    let told = ready(status).map(|ready| ready.reason.as_str());
    fails && is_failed && !is_left_alone && told != Some("NoRollbackTarget")
}

/// Ready and Live or Pinned, and yet something else runs or does not run well; or at work, though nothing moves.
fn lies(world: &World, status: &AliasBindingStatus) -> bool {
    let Some(ready) = ready(status) else {
        return true;
    };
    let says_well = ready.status == "True" && matches!(ready.reason.as_str(), "Live" | "Pinned");
    let is_well = runs_what_is_wanted(world) && world.work.pods == Pods::Ready;
    let at_work = status
        .conditions
        .iter()
        .find(|each| each.type_ == "Reconciling")
        .map(|each| each.reason.as_str());
    let says_running = status
        .running
        .as_ref()
        .and_then(|running| Version::of(&running.version));
    (says_well && !is_well)
        || matches!(at_work, Some("Baking" | "Pending"))
        || (at_work == Some("RolledBack") && world.work.pods == Pods::Ready)
        || says_running != world.work.version
}

fn ready(
    status: &AliasBindingStatus,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    status.conditions.iter().find(|each| each.type_ == "Ready")
}
