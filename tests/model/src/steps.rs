//! What may happen next, and what then is.
//!
//! Absent: likelihood. Whatever is possible is a step, whether the operator or somebody else takes it.

use super::pass::{Passes, Seen};
use super::properties::{self, Writing};
use super::world::{AGAIN, Pending, Pods, Query, Registry, Version, Work, World, Writer};

/// Something that happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    AliasMovesTo(Version),
    AliasIsDeleted,
    RegistryGoesDown,
    RegistryComesBack,
    ModelIsDeleted,
    ModelIsMadeAgain,
    ArtifactIsLost(Version),
    ArtifactIsBack(Version),
    StoreGoesDown,
    StoreComesBack,
    ControllerSeesTheTemplate,
    PodsBecomeReady,
    PodsCrash,
    ProgressDeadlinePasses,
    PodsHeal,
    PersonUndoesTo(Option<Version>),
    PersonReplacesTheDeployment,
    PersonEditsTheImage,
    PersonEditsTheBinding,
    PersonPins(Version),
    PersonUnpins,
    PersonSuspends,
    PersonUnsuspends,
    PersonAsksForARetry,
    PersonResumes,
    TimePasses,
    BindingCacheStops,
    WorkloadCacheStops,
    CachesCatchUp,
    OperatorPasses,
    OperatorWritesTheStatus,
    AnswerArrives(Version, bool),
    OperatorCrashes,
}

impl Step {
    /// Every step that there is.
    pub fn all() -> Vec<Self> {
        let of_versions = [
            Self::AliasMovesTo,
            Self::ArtifactIsLost,
            Self::ArtifactIsBack,
            Self::PersonPins,
            |v| Self::PersonUndoesTo(Some(v)),
        ];
        let of_versions = Version::all().flat_map(|version| of_versions.map(|step| step(version)));
        let answers =
            Query::all().map(|query| Self::AnswerArrives(query.version, query.must_exist));
        let others = [
            Self::AliasIsDeleted,
            Self::RegistryGoesDown,
            Self::RegistryComesBack,
            Self::ModelIsDeleted,
            Self::ModelIsMadeAgain,
            Self::StoreGoesDown,
            Self::StoreComesBack,
            Self::ControllerSeesTheTemplate,
            Self::PodsBecomeReady,
            Self::PodsCrash,
            Self::ProgressDeadlinePasses,
            Self::PodsHeal,
            Self::PersonUndoesTo(None),
            Self::PersonReplacesTheDeployment,
            Self::PersonEditsTheImage,
            Self::PersonEditsTheBinding,
            Self::PersonUnpins,
            Self::PersonSuspends,
            Self::PersonUnsuspends,
            Self::PersonAsksForARetry,
            Self::PersonResumes,
            Self::TimePasses,
            Self::BindingCacheStops,
            Self::WorkloadCacheStops,
            Self::CachesCatchUp,
            Self::OperatorPasses,
            Self::OperatorWritesTheStatus,
            Self::OperatorCrashes,
        ];
        of_versions.chain(answers).chain(others).collect()
    }
}

/// A kind of thing that happens from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum Kind {
    Moves = 1,
    Failures = 1 << 1,
    Heals = 1 << 2,
    Undos = 1 << 3,
    Edits = 1 << 4,
    Asks = 1 << 5,
    Pins = 1 << 6,
    Suspends = 1 << 7,
    Outages = 1 << 8,
    Losses = 1 << 9,
    Crashes = 1 << 10,
    Lags = 1 << 11,
    Remakes = 1 << 12,
}

/// What may happen from outside.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// How many versions the registry has.
    pub versions: u8,
    /// The kinds of things that happen.
    pub kinds: &'static [Kind],
}

impl Scope {
    fn has(self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }
}

/// The bit of [`World::ran`] for the template without a version.
const BARE: u8 = 1 << 7;

/// Every step that is possible.
pub fn possible(world: &World, scope: Scope, passes: &Passes, steps: &mut Vec<Step>) {
    of_operator(world, passes, steps);
    of_cluster(world, steps);
    if world.left > 0 {
        of_registry(world, scope, steps);
        of_people(world, scope, steps);
        of_machines(world, scope, steps);
    }
    of_return(world, steps);
}

fn of_operator(world: &World, passes: &Passes, steps: &mut Vec<Step>) {
    let operator = &world.operator;
    steps.push(if operator.pending.is_some() {
        Step::OperatorWritesTheStatus
    } else {
        Step::OperatorPasses
    });
    let asked = Query::all().filter(|query| operator.asked & query.bit() != 0);
    steps.extend(asked.map(|query| Step::AnswerArrives(query.version, query.must_exist)));
    if operator.old_binding.is_some() || operator.old_work.is_some() {
        steps.push(Step::CachesCatchUp);
    }
    if aged(world, passes) != *world {
        steps.push(Step::TimePasses);
    }
}

fn of_cluster(world: &World, steps: &mut Vec<Step>) {
    match world.work.pods {
        Pods::Unseen => steps.push(Step::ControllerSeesTheTemplate),
        Pods::Coming => steps.push(Step::PodsBecomeReady),
        Pods::Ready | Pods::Crashing | Pods::Late => {}
    }
}

/// What is undone costs nothing, for what it undoes was paid for.
fn of_return(world: &World, steps: &mut Vec<Step>) {
    let lost = Version::all().filter(|each| world.lost & each.bit() != 0);
    steps.extend(lost.map(Step::ArtifactIsBack));
    let returns = [
        (
            world.mirror.registry == Registry::Down,
            Step::RegistryComesBack,
        ),
        (world.store_is_down, Step::StoreComesBack),
        (world.spec.suspend, Step::PersonUnsuspends),
        (world.spec.pin.is_some(), Step::PersonUnpins),
    ];
    steps.extend(
        returns
            .into_iter()
            .filter(|(may, _)| *may)
            .map(|(_, step)| step),
    );
}

fn of_registry(world: &World, scope: Scope, steps: &mut Vec<Step>) {
    let mirror = &world.mirror;
    let known: Vec<Version> = Version::all()
        .filter(|each| each.0 < scope.versions || *each == AGAIN)
        .collect();
    if mirror.registry == Registry::Up && scope.has(Kind::Moves) {
        let others = known
            .iter()
            .filter(|each| mirror.has(**each) && mirror.alias != Some(**each));
        steps.extend(others.map(|other| Step::AliasMovesTo(*other)));
        steps.extend(mirror.alias.map(|_| Step::AliasIsDeleted));
    }
    if mirror.registry == Registry::Up && scope.has(Kind::Outages) {
        steps.push(Step::RegistryGoesDown);
    }
    if scope.has(Kind::Remakes) && mirror.registry == Registry::Up {
        steps.push(Step::ModelIsDeleted);
    }
    if scope.has(Kind::Remakes) && !mirror.again {
        steps.push(Step::ModelIsMadeAgain);
    }
    if scope.has(Kind::Losses) {
        let there = known
            .into_iter()
            .filter(|each| world.lost & each.bit() == 0 && (*each != AGAIN || mirror.again));
        steps.extend(there.map(Step::ArtifactIsLost));
    }
    if scope.has(Kind::Outages) && !world.store_is_down {
        steps.push(Step::StoreGoesDown);
    }
}

fn of_people(world: &World, scope: Scope, steps: &mut Vec<Step>) {
    let work = &world.work;
    if scope.has(Kind::Undos) {
        let ran = Version::all()
            .filter(|each| world.ran & each.bit() != 0)
            .map(Some);
        let bare = (world.ran & BARE != 0).then_some(None);
        steps.extend(
            ran.chain(bare)
                .filter(|to| *to != work.version)
                .map(Step::PersonUndoesTo),
        );
        if work.version.is_some() {
            steps.push(Step::PersonReplacesTheDeployment);
        }
    }
    if scope.has(Kind::Edits) {
        steps.extend([Step::PersonEditsTheImage, Step::PersonEditsTheBinding]);
    }
    if scope.has(Kind::Asks) {
        steps.extend([Step::PersonAsksForARetry, Step::PersonResumes]);
    }
    if scope.has(Kind::Pins) {
        let numbers =
            Version::all().filter(|each| each.0 < scope.versions && world.spec.pin != Some(*each));
        steps.extend(numbers.map(Step::PersonPins));
    }
    if scope.has(Kind::Suspends) && !world.spec.suspend {
        steps.push(Step::PersonSuspends);
    }
}

fn of_machines(world: &World, scope: Scope, steps: &mut Vec<Step>) {
    let (operator, pods) = (&world.operator, world.work.pods);
    let may = [
        (
            scope.has(Kind::Failures) && matches!(pods, Pods::Coming | Pods::Ready),
            Step::PodsCrash,
        ),
        (
            scope.has(Kind::Failures) && pods == Pods::Coming,
            Step::ProgressDeadlinePasses,
        ),
        (
            scope.has(Kind::Heals) && matches!(pods, Pods::Crashing | Pods::Late),
            Step::PodsHeal,
        ),
        (
            scope.has(Kind::Lags) && operator.old_binding.is_none(),
            Step::BindingCacheStops,
        ),
        (
            scope.has(Kind::Lags) && operator.old_work.is_none(),
            Step::WorkloadCacheStops,
        ),
        (scope.has(Kind::Crashes), Step::OperatorCrashes),
    ];
    steps.extend(
        may.into_iter()
            .filter(|(may, _)| *may)
            .map(|(_, step)| step),
    );
}

/// The world after a step; the same one where the step changes nothing.
pub fn after(world: &World, step: Step, passes: &Passes) -> World {
    let mut next = *world;
    next.ghost.violated = 0;
    next.left = next.left.saturating_sub(u8::from(is_counted(step)));
    match step {
        Step::OperatorPasses => pass(&mut next, passes),
        Step::OperatorWritesTheStatus => write_status(&mut next, passes),
        Step::AnswerArrives(version, must_exist) => answer(
            &mut next,
            Query {
                version,
                must_exist,
            },
        ),
        Step::TimePasses => next = aged(&next, passes),
        Step::BindingCacheStops => next.operator.old_binding = Some((next.spec, next.status)),
        Step::WorkloadCacheStops => next.operator.old_work = Some(next.work),
        Step::CachesCatchUp => (next.operator.old_binding, next.operator.old_work) = (None, None),
        Step::OperatorCrashes => next.operator = super::world::Operator::default(),
        _ => outside(&mut next, step, passes),
    }
    next
}

/// Whether a step is of those that are bounded: not the operator's, the cluster's, time's, or what takes another back.
fn is_counted(step: Step) -> bool {
    !matches!(
        step,
        Step::RegistryComesBack
            | Step::ArtifactIsBack(_)
            | Step::StoreComesBack
            | Step::ControllerSeesTheTemplate
            | Step::PodsBecomeReady
            | Step::PersonUnpins
            | Step::PersonUnsuspends
            | Step::TimePasses
            | Step::CachesCatchUp
            | Step::OperatorPasses
            | Step::OperatorWritesTheStatus
            | Step::AnswerArrives(..)
    )
}

fn outside(world: &mut World, step: Step, passes: &Passes) {
    let (spec, work) = (world.spec, world.work);
    in_registry(world, step);
    let told = world
        .operator
        .old_binding
        .map_or(world.status, |(_, status)| status);
    match step {
        Step::PersonUndoesTo(to) => properties::on_undo(world, to, &passes.statuses.get(told)),
        Step::PersonAsksForARetry => properties::on_retry(world, &passes.statuses.get(told)),
        _ => {}
    }
    by_people(world, step);
    in_cluster(world, step);
    if let Some(pending) = world.operator.pending.as_mut() {
        pending.is_fresh &= spec == world.spec;
    }
    if world.work.edited != work.edited
        || world.spec.edited != spec.edited
        || world.spec.retries != spec.retries
    {
        properties::release(world);
    }
    properties::notice_what_is_wanted(world);
}

fn in_registry(world: &mut World, step: Step) {
    let mirror = &mut world.mirror;
    match step {
        Step::AliasMovesTo(version) => mirror.alias = Some(version),
        Step::AliasIsDeleted => mirror.alias = None,
        Step::RegistryGoesDown => mirror.registry = Registry::Down,
        Step::RegistryComesBack => mirror.registry = Registry::Up,
        Step::ModelIsDeleted => mirror.registry = Registry::ModelGone,
        Step::ModelIsMadeAgain => {
            (mirror.registry, mirror.again, mirror.alias) = (Registry::Up, true, Some(AGAIN));
        }
        Step::ArtifactIsLost(version) => world.lost |= version.bit(),
        Step::ArtifactIsBack(version) => world.lost &= !version.bit(),
        Step::StoreGoesDown => world.store_is_down = true,
        Step::StoreComesBack => world.store_is_down = false,
        _ => {}
    }
}

fn by_people(world: &mut World, step: Step) {
    let spec = &mut world.spec;
    match step {
        Step::PersonEditsTheBinding => spec.edited = !spec.edited,
        Step::PersonPins(version) => spec.pin = Some(version),
        Step::PersonUnpins => spec.pin = None,
        Step::PersonSuspends => spec.suspend = true,
        Step::PersonUnsuspends => spec.suspend = false,
        Step::PersonAsksForARetry => {
            spec.retries += 1;
            world.ghost.is_asked = world.work.version != world.wanted();
        }
        Step::PersonResumes => {
            spec.resumes += 1;
            properties::end_undo(world);
        }
        Step::PersonEditsTheImage => {
            rewrite(
                world,
                Work {
                    edited: !world.work.edited,
                    ..world.work
                },
            );
        }
        Step::PersonUndoesTo(version) => {
            let writer = if version.is_some() {
                Writer::Person
            } else {
                Writer::User
            };
            rewrite(
                world,
                Work {
                    version,
                    torn: false,
                    writer,
                    ..world.work
                },
            );
        }
        Step::PersonReplacesTheDeployment => {
            rewrite(
                world,
                Work {
                    edited: world.work.edited,
                    ..Work::default()
                },
            );
            properties::end_undo(world);
        }
        _ => {}
    }
}

/// A new template: its pods are yet to come, and what was there before can be undone to.
fn rewrite(world: &mut World, work: Work) {
    world.ran |= world.work.version.map_or(BARE, Version::bit);
    world.work = Work {
        pods: Pods::Unseen,
        ..work
    };
}

fn in_cluster(world: &mut World, step: Step) {
    world.work.pods = match step {
        Step::ControllerSeesTheTemplate => Pods::Coming,
        Step::PodsBecomeReady | Step::PodsHeal => Pods::Ready,
        Step::PodsCrash => Pods::Crashing,
        Step::ProgressDeadlinePasses => Pods::Late,
        _ => return,
    };
}

/// The world when whatever is being watched was watched for long enough.
fn aged(world: &World, passes: &Passes) -> World {
    let mut aged = *world;
    aged.status = passes.statuses.aged(world.status);
    if let Some(pending) = aged.operator.pending.as_mut() {
        pending.status = passes.statuses.aged(pending.status);
    }
    if let Some((_, status)) = aged.operator.old_binding.as_mut() {
        *status = passes.statuses.aged(*status);
    }
    aged
}

/// Observe, decide and patch: the patch names the Deployment's resource version, and fails where that is not the newest.
fn pass(world: &mut World, passes: &Passes) {
    let (spec, status) = world
        .operator
        .old_binding
        .unwrap_or((world.spec, world.status));
    let work = world.operator.old_work.unwrap_or(world.work);
    let seen = Seen {
        spec,
        status,
        work,
        mirror: world.mirror,
        book: world.operator.book,
    };
    let done = passes.pass(seen);
    if let Some(wrote) = done.wrote {
        if work != world.work {
            return;
        }
        let handled = passes
            .statuses
            .get(status)
            .last_handled_retry
            .as_ref()
            .map(|retry| retry.value.clone());
        let is_asked = spec.retries > 0 && handled != Some(spec.retries.to_string());
        properties::on_writing(
            world,
            &Writing {
                seen: &seen,
                wrote,
                is_back: done.is_back,
                is_asked,
            },
        );
        if wrote.pods == Pods::Unseen {
            rewrite(world, wrote);
        } else {
            world.work = wrote;
        }
    }
    if !done.is_status_changed {
        world.operator.asked |= done.ask;
        return;
    }
    let is_fresh = (spec, status) == (world.spec, world.status);
    let is_current = world.operator.old_work.is_none();
    world.operator.pending = Some(Pending {
        status: done.status,
        is_fresh,
        is_current,
        ask: done.ask,
    });
}

/// The status is replaced with the resource version that it was read at; where that is not the newest, the pass is lost.
fn write_status(world: &mut World, passes: &Passes) {
    let Some(pending) = world.operator.pending.take() else {
        return;
    };
    if !pending.is_fresh {
        return;
    }
    world.status = pending.status;
    world.operator.asked |= pending.ask;
    properties::on_status(
        world,
        &passes.statuses.get(pending.status),
        pending.is_current,
    );
}

fn answer(world: &mut World, query: Query) {
    world.operator.asked &= !query.bit();
    let reply = world.reply(query);
    world.operator.book.keep(query, reply);
}
