//! The steps that are possible in a state, and the state after each.
//!
//! Absent: probabilities. Every possible step of the operator, the cluster or people is taken.

use super::properties::{self, Property, Write};
use super::reconciler::{Inputs, OnChange, Reconciler};
use super::state::{
    Block, Check, CheckCache, Ownership, Pods, RECREATED, Registry, State, StatusId,
    UnwrittenStatus, Version, WorkloadState, Writer,
};

/// A step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    AliasMovesTo(Version),
    AliasIsDeleted,
    RegistryFails,
    RegistryRecovers,
    ModelIsDeleted,
    ModelIsRecreated,
    ArtifactIsLost(Version),
    ArtifactIsRestored(Version),
    StoreFails,
    StoreRecovers,
    ControllerObservesTemplate,
    PodsBecomeReady,
    PodsCrashByFault,
    PodsAreBlocked,
    PodsAreUnblocked,
    PodsCrash,
    PodsStayUnready,
    PodsRestart,
    PodsRecover,
    PodsAreReplaced,
    NoRoomIsLeft,
    QuotaIsExhausted,
    BlockEnds,
    FaultBegins,
    FaultEnds,
    RegistryAddressChanges,
    PersonScalesTo(u8),
    PersonPausesRollout,
    PersonUnpausesRollout,
    PersonUndoesTo(Option<Version>),
    PersonReplacesDeployment,
    PersonEditsImage,
    PersonEditsBinding,
    PersonEditsTemplate,
    PersonDeletesDeployment,
    PersonPins(Version),
    PersonUnpins,
    PersonSuspends,
    PersonUnsuspends,
    PersonRequestsRetry,
    PersonResumes,
    TimePasses,
    BackoffElapses,
    ChecksAge,
    BindingCacheLags,
    WorkloadCacheLags,
    CachesCatchUp,
    OperatorReconciles,
    OperatorWritesStatus,
    CheckCompletes(Version, bool),
    OperatorCrashes,
}

impl Step {
    /// Every step.
    #[allow(clippy::too_many_lines)] // one line for each step
    pub fn all() -> Vec<Self> {
        let of_versions = [
            Self::AliasMovesTo,
            Self::ArtifactIsLost,
            Self::ArtifactIsRestored,
            Self::PersonPins,
            |v| Self::PersonUndoesTo(Some(v)),
        ];
        let of_versions = Version::all().flat_map(|version| of_versions.map(|step| step(version)));
        let answers =
            Check::all().map(|check| Self::CheckCompletes(check.version, check.must_exist));
        let others = [
            Self::AliasIsDeleted,
            Self::RegistryFails,
            Self::RegistryRecovers,
            Self::ModelIsDeleted,
            Self::ModelIsRecreated,
            Self::StoreFails,
            Self::StoreRecovers,
            Self::ControllerObservesTemplate,
            Self::PodsBecomeReady,
            Self::PodsCrashByFault,
            Self::PodsAreBlocked,
            Self::PodsAreUnblocked,
            Self::PodsCrash,
            Self::PodsStayUnready,
            Self::PodsRestart,
            Self::PodsRecover,
            Self::PodsAreReplaced,
            Self::NoRoomIsLeft,
            Self::QuotaIsExhausted,
            Self::BlockEnds,
            Self::FaultBegins,
            Self::FaultEnds,
            Self::RegistryAddressChanges,
            Self::PersonScalesTo(0),
            Self::PersonScalesTo(1),
            Self::PersonScalesTo(2),
            Self::PersonPausesRollout,
            Self::PersonUnpausesRollout,
            Self::PersonUndoesTo(None),
            Self::PersonReplacesDeployment,
            Self::PersonEditsImage,
            Self::PersonEditsBinding,
            Self::PersonEditsTemplate,
            Self::PersonDeletesDeployment,
            Self::PersonUnpins,
            Self::PersonSuspends,
            Self::PersonUnsuspends,
            Self::PersonRequestsRetry,
            Self::PersonResumes,
            Self::TimePasses,
            Self::BackoffElapses,
            Self::ChecksAge,
            Self::BindingCacheLags,
            Self::WorkloadCacheLags,
            Self::CachesCatchUp,
            Self::OperatorReconciles,
            Self::OperatorWritesStatus,
            Self::OperatorCrashes,
        ];
        of_versions.chain(answers).chain(others).collect()
    }
}

/// A kind of outside event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum EventKind {
    AliasMoves = 1,
    Failures = 1 << 1,
    Recoveries = 1 << 2,
    Undos = 1 << 3,
    Edits = 1 << 4,
    Requests = 1 << 5,
    Pins = 1 << 6,
    Suspends = 1 << 7,
    Outages = 1 << 8,
    Losses = 1 << 9,
    Crashes = 1 << 10,
    Lags = 1 << 11,
    Recreations = 1 << 12,
    TemplateEdits = 1 << 13,
    Deletions = 1 << 14,
    Restarts = 1 << 15,
    Drains = 1 << 16,
    Blocks = 1 << 17,
    SharedFaults = 1 << 18,
    Addresses = 1 << 19,
    Scalings = 1 << 20,
    Pauses = 1 << 21,
    Aging = 1 << 22,
}

/// The outside events that may happen.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The number of versions in the registry.
    pub versions: u8,
    /// The kinds of events.
    pub kinds: &'static [EventKind],
    /// How the binding names its Deployment.
    pub ownership: Ownership,
    /// The pods that the Deployment asks for at first.
    pub replicas: u8,
    /// Whether the Deployment deletes its older pods before it creates new ones.
    pub recreates: bool,
    /// Whether two versions were good before.
    pub is_seasoned: bool,
}

impl Scope {
    pub const fn new(ownership: Ownership, versions: u8, kinds: &'static [EventKind]) -> Self {
        Self {
            versions,
            kinds,
            ownership,
            replicas: 1,
            recreates: false,
            is_seasoned: false,
        }
    }

    /// After two versions were good.
    pub const fn seasoned(self) -> Self {
        Self {
            is_seasoned: true,
            ..self
        }
    }

    /// With a Deployment that deletes its older pods before it creates new ones.
    pub const fn recreating(self) -> Self {
        Self {
            recreates: true,
            ..self
        }
    }

    pub const fn with_replicas(self, replicas: u8) -> Self {
        Self { replicas, ..self }
    }

    fn has(self, kind: EventKind) -> bool {
        self.kinds.contains(&kind)
    }
}

/// The bit of [`State::ran`] for the template without a version.
const BARE: u8 = 1 << 7;

/// Adds every possible step.
pub fn possible(state: &State, scope: Scope, reconciler: &Reconciler, steps: &mut Vec<Step>) {
    operator_steps(state, reconciler, steps);
    cluster_steps(state, steps);
    if state.events_left > 0 {
        registry_events(state, scope, steps);
        people_events(state, scope, steps);
        machine_events(state, scope, steps);
    }
    reverts(state, steps);
}

fn operator_steps(state: &State, reconciler: &Reconciler, steps: &mut Vec<Step>) {
    let operator = &state.operator;
    steps.push(if operator.unwritten.is_some() {
        Step::OperatorWritesStatus
    } else {
        Step::OperatorReconciles
    });
    let asked = Check::all().filter(|check| operator.running_checks & check.bit() != 0);
    steps.extend(asked.map(|check| Step::CheckCompletes(check.version, check.must_exist)));
    if operator.stale_binding.is_some() || operator.stale_workload.is_some() {
        steps.push(Step::CachesCatchUp);
    }
    if later(state, reconciler) != *state {
        steps.push(Step::TimePasses);
    }
    if after_backoff(state, reconciler) != *state {
        steps.push(Step::BackoffElapses);
    }
}

fn cluster_steps(state: &State, steps: &mut Vec<Step>) {
    steps.extend(next_of_pods(state));
}

/// The next step of the Deployment's controller, the scheduler and the kubelet.
pub fn next_of_pods(state: &State) -> Option<Step> {
    let workload = state.workload;
    match workload.pods {
        Pods::Unobserved => Some(Step::ControllerObservesTemplate),
        Pods::Starting if !workload.starts_pods() => None,
        Pods::Starting if state.block != Block::None => Some(Step::PodsAreBlocked),
        Pods::Starting if state.has_shared_fault => Some(Step::PodsCrashByFault),
        Pods::Starting => Some(Step::PodsBecomeReady),
        Pods::CrashingByFault if !state.has_shared_fault => Some(Step::PodsRecover),
        Pods::Unschedulable | Pods::Refused if state.block == Block::None => {
            Some(Step::PodsAreUnblocked)
        }
        _ => None,
    }
}

/// Steps that revert an outside event. They are not counted, because the event itself was.
fn reverts(state: &State, steps: &mut Vec<Step>) {
    let lost = Version::all().filter(|each| state.lost & each.bit() != 0);
    steps.extend(lost.map(Step::ArtifactIsRestored));
    let returns = [
        (
            state.mirror.registry == Registry::Down,
            Step::RegistryRecovers,
        ),
        (state.store_is_down, Step::StoreRecovers),
        (state.spec.suspend, Step::PersonUnsuspends),
        (state.spec.pin.is_some(), Step::PersonUnpins),
        (state.block != Block::None, Step::BlockEnds),
        (state.has_shared_fault, Step::FaultEnds),
        (state.workload.is_paused, Step::PersonUnpausesRollout),
    ];
    steps.extend(
        returns
            .into_iter()
            .filter(|(may, _)| *may)
            .map(|(_, step)| step),
    );
}

fn registry_events(state: &State, scope: Scope, steps: &mut Vec<Step>) {
    let mirror = &state.mirror;
    let known: Vec<Version> = Version::all()
        .filter(|each| each.0 < scope.versions || *each == RECREATED)
        .collect();
    if mirror.registry == Registry::Up && scope.has(EventKind::AliasMoves) {
        let others = known
            .iter()
            .filter(|each| mirror.has(**each) && mirror.alias != Some(**each));
        steps.extend(others.map(|other| Step::AliasMovesTo(*other)));
        steps.extend(mirror.alias.map(|_| Step::AliasIsDeleted));
    }
    if mirror.registry == Registry::Up && scope.has(EventKind::Outages) {
        steps.push(Step::RegistryFails);
    }
    if scope.has(EventKind::Recreations) && mirror.registry == Registry::Up {
        steps.push(Step::ModelIsDeleted);
    }
    if scope.has(EventKind::Recreations) && !mirror.recreated {
        steps.push(Step::ModelIsRecreated);
    }
    if mirror.registry == Registry::Up && scope.has(EventKind::Addresses) {
        steps.push(Step::RegistryAddressChanges);
    }
    if scope.has(EventKind::Losses) {
        let there = known.into_iter().filter(|each| {
            state.lost & each.bit() == 0 && (*each != RECREATED || mirror.recreated)
        });
        steps.extend(there.map(Step::ArtifactIsLost));
    }
    if scope.has(EventKind::Outages) && !state.store_is_down {
        steps.push(Step::StoreFails);
    }
}

fn people_events(state: &State, scope: Scope, steps: &mut Vec<Step>) {
    let workload = &state.workload;
    if scope.has(EventKind::Undos) && !workload.is_missing() {
        let ran = Version::all()
            .filter(|each| state.ran & each.bit() != 0)
            .map(Some);
        let bare = (state.ran & BARE != 0).then_some(None);
        steps.extend(
            ran.chain(bare)
                .filter(|to| *to != workload.version)
                .map(Step::PersonUndoesTo),
        );
        if workload.version.is_some() && scope.ownership == Ownership::TargetRef {
            steps.push(Step::PersonReplacesDeployment);
        }
    }
    if scope.has(EventKind::Edits) {
        if !workload.is_missing() {
            steps.push(Step::PersonEditsImage);
        }
        steps.push(Step::PersonEditsBinding);
    }
    if scope.has(EventKind::TemplateEdits) {
        steps.push(Step::PersonEditsTemplate);
    }
    if scope.has(EventKind::Scalings) && !workload.is_missing() {
        let others = (0..=2).filter(|number| *number != workload.replicas);
        steps.extend(others.map(Step::PersonScalesTo));
    }
    if scope.has(EventKind::Pauses) && !workload.is_missing() && !workload.is_paused {
        steps.push(Step::PersonPausesRollout);
    }
    if scope.has(EventKind::Deletions) && !workload.is_missing() {
        steps.push(Step::PersonDeletesDeployment);
    }
    if scope.has(EventKind::Requests) {
        steps.extend([Step::PersonRequestsRetry, Step::PersonResumes]);
    }
    if scope.has(EventKind::Pins) {
        let numbers =
            Version::all().filter(|each| each.0 < scope.versions && state.spec.pin != Some(*each));
        steps.extend(numbers.map(Step::PersonPins));
    }
    if scope.has(EventKind::Suspends) && !state.spec.suspend {
        steps.push(Step::PersonSuspends);
    }
}

fn machine_events(state: &State, scope: Scope, steps: &mut Vec<Step>) {
    let (operator, workload) = (&state.operator, state.workload);
    let fails = scope.has(EventKind::Failures);
    let blocks = scope.has(EventKind::Blocks) && state.block == Block::None;
    let may = [
        (
            fails && (workload.is_ready() || can_run(state)),
            Step::PodsCrash,
        ),
        (
            fails && (workload.is_ready() || can_run(state)),
            Step::PodsStayUnready,
        ),
        (
            scope.has(EventKind::Restarts)
                && (workload.pods == Pods::Ready && workload.is_ready() || can_run(state)),
            Step::PodsRestart,
        ),
        (
            scope.has(EventKind::Recoveries)
                && matches!(workload.pods, Pods::Crashing | Pods::Unready),
            Step::PodsRecover,
        ),
        (
            scope.has(EventKind::Drains) && (workload.is_ready() || workload.older.is_some()),
            Step::PodsAreReplaced,
        ),
        (blocks, Step::NoRoomIsLeft),
        (blocks, Step::QuotaIsExhausted),
        (
            scope.has(EventKind::SharedFaults) && !state.has_shared_fault,
            Step::FaultBegins,
        ),
        (
            scope.has(EventKind::Aging) && operator.checks != CheckCache::default(),
            Step::ChecksAge,
        ),
        (
            scope.has(EventKind::Lags) && operator.stale_binding.is_none(),
            Step::BindingCacheLags,
        ),
        (
            scope.has(EventKind::Lags) && operator.stale_workload.is_none(),
            Step::WorkloadCacheLags,
        ),
        (scope.has(EventKind::Crashes), Step::OperatorCrashes),
    ];
    steps.extend(
        may.into_iter()
            .filter(|(may, _)| *may)
            .map(|(_, step)| step),
    );
}

/// Whether the containers of starting pods may run now.
fn can_run(state: &State) -> bool {
    next_of_pods(state) == Some(Step::PodsBecomeReady)
}

/// The state after a step.
pub fn after(state: &State, step: Step, reconciler: &Reconciler) -> State {
    let mut next = *state;
    next.oracle.violated = 0;
    let is_recovery = step == Step::PodsRecover && state.workload.pods == Pods::CrashingByFault;
    let is_counted = is_counted(step) && !is_recovery;
    next.events_left = next.events_left.saturating_sub(u8::from(is_counted));
    match step {
        Step::OperatorReconciles => reconcile(&mut next, reconciler),
        Step::OperatorWritesStatus => write_status(&mut next, reconciler),
        Step::CheckCompletes(version, must_exist) => complete_check(
            &mut next,
            Check {
                version,
                must_exist,
            },
        ),
        Step::TimePasses => next = later(&next, reconciler),
        Step::BackoffElapses => next = after_backoff(&next, reconciler),
        Step::ChecksAge => next.operator.checks = CheckCache::default(),
        Step::BindingCacheLags => next.operator.stale_binding = Some((next.spec, next.status)),
        Step::WorkloadCacheLags => next.operator.stale_workload = Some(next.workload),
        Step::CachesCatchUp => {
            (next.operator.stale_binding, next.operator.stale_workload) = (None, None);
        }
        Step::OperatorCrashes => next.operator = super::state::Operator::default(),
        _ => outside_event(&mut next, step, reconciler),
    }
    next
}

/// Whether a step counts as an outside event: steps of the operator and the cluster, time, and reverts do not.
fn is_counted(step: Step) -> bool {
    !matches!(
        step,
        Step::RegistryRecovers
            | Step::ArtifactIsRestored(_)
            | Step::StoreRecovers
            | Step::ControllerObservesTemplate
            | Step::PodsBecomeReady
            | Step::PodsCrashByFault
            | Step::PodsAreBlocked
            | Step::PodsAreUnblocked
            | Step::BlockEnds
            | Step::FaultEnds
            | Step::PersonUnpausesRollout
            | Step::PersonUnpins
            | Step::PersonUnsuspends
            | Step::TimePasses
            | Step::BackoffElapses
            | Step::CachesCatchUp
            | Step::OperatorReconciles
            | Step::OperatorWritesStatus
            | Step::CheckCompletes(..)
    )
}

fn outside_event(state: &mut State, step: Step, reconciler: &Reconciler) {
    let (spec, workload) = (state.spec, state.workload);
    change_registry(state, step);
    let status = state
        .operator
        .stale_binding
        .map_or(state.status, |(_, status)| status);
    match step {
        Step::PersonUndoesTo(to) => {
            properties::record_undo(state, to, &reconciler.statuses.get(status));
        }
        Step::PersonRequestsRetry => {
            properties::record_retry(state, &reconciler.statuses.get(status));
        }
        _ => {}
    }
    change_by_person(state, step);
    change_workload(state, step);
    change_pods(state, step, reconciler.recreates);
    properties::record_pods(state);
    if let Some(unwritten) = state.operator.unwritten.as_mut() {
        unwritten.is_fresh &= spec == state.spec;
    }
    let is_edited = !state.workload.is_missing() && state.workload.edited != workload.edited;
    if is_edited
        || state.spec.template_edited != spec.template_edited
        || state.spec.edited != spec.edited
        || state.spec.retries != spec.retries
    {
        properties::release(state);
    }
    properties::record_wanted_version(state);
}

fn change_registry(state: &mut State, step: Step) {
    let mirror = &mut state.mirror;
    match step {
        Step::AliasMovesTo(version) => mirror.alias = Some(version),
        Step::AliasIsDeleted => mirror.alias = None,
        Step::RegistryFails => mirror.registry = Registry::Down,
        Step::RegistryRecovers => mirror.registry = Registry::Up,
        Step::ModelIsDeleted => mirror.registry = Registry::ModelGone,
        Step::ModelIsRecreated => {
            (mirror.registry, mirror.recreated, mirror.alias) =
                (Registry::Up, true, Some(RECREATED));
        }
        Step::ArtifactIsLost(version) => state.lost |= version.bit(),
        Step::ArtifactIsRestored(version) => state.lost &= !version.bit(),
        Step::StoreFails => state.store_is_down = true,
        Step::StoreRecovers => state.store_is_down = false,
        Step::RegistryAddressChanges => mirror.is_at_new_address = !mirror.is_at_new_address,
        Step::NoRoomIsLeft => state.block = Block::NoRoom,
        Step::QuotaIsExhausted => state.block = Block::Quota,
        Step::BlockEnds => state.block = Block::None,
        Step::FaultBegins => state.has_shared_fault = true,
        Step::FaultEnds => state.has_shared_fault = false,
        _ => {}
    }
}

#[allow(clippy::too_many_lines)] // one arm for each step
fn change_by_person(state: &mut State, step: Step) {
    let spec = &mut state.spec;
    match step {
        Step::PersonEditsBinding => spec.edited = !spec.edited,
        Step::PersonEditsTemplate => spec.template_edited = !spec.template_edited,
        Step::PersonPins(version) => spec.pin = Some(version),
        Step::PersonUnpins => spec.pin = None,
        Step::PersonSuspends => spec.suspend = true,
        Step::PersonUnsuspends => spec.suspend = false,
        Step::PersonRequestsRetry => {
            spec.retries += 1;
            state.oracle.retry_is_due = state.workload.version != state.wanted();
        }
        Step::PersonResumes => {
            spec.resumes += 1;
            properties::end_undo(state);
        }
        Step::PersonEditsImage => {
            rewrite(
                state,
                WorkloadState {
                    edited: !state.workload.edited,
                    ..state.workload
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
                state,
                WorkloadState {
                    version,
                    is_mixed: false,
                    writer,
                    ..state.workload
                },
            );
        }
        Step::PersonDeletesDeployment => {
            (state.workload, state.ran) = (WorkloadState::MISSING, 0);
            properties::end_undo(state);
        }
        Step::PersonReplacesDeployment => {
            rewrite(
                state,
                WorkloadState {
                    version: None,
                    writer: Writer::User,
                    has_label: false,
                    is_mixed: false,
                    has_new_address: false,
                    ..state.workload
                },
            );
            properties::end_undo(state);
        }
        _ => {}
    }
}

fn change_workload(state: &mut State, step: Step) {
    let workload = &mut state.workload;
    match step {
        Step::PersonScalesTo(replicas) => {
            if replicas == 0 || workload.replicas == 0 {
                let is_observed = workload.pods != Pods::Unobserved;
                workload.pods = if is_observed {
                    Pods::Starting
                } else {
                    Pods::Unobserved
                };
                (workload.older, workload.are_pods_old) = (None, false);
            }
            workload.replicas = replicas;
        }
        Step::PersonPausesRollout => workload.is_paused = true,
        Step::PersonUnpausesRollout => workload.is_paused = false,
        _ => {}
    }
}

/// Writes a new template. Its pods do not exist yet; those of the template before it serve on. A person can undo to it.
fn rewrite(state: &mut State, written: WorkloadState) {
    let before = state.workload;
    if !before.is_missing() {
        state.ran |= before.version.map_or(BARE, Version::bit);
    }
    state.workload = WorkloadState {
        pods: Pods::Unobserved,
        older: if before.is_ready() {
            Some(before.template())
        } else {
            before.older
        },
        is_old: false,
        are_pods_old: false,
        ..written
    };
}

fn change_pods(state: &mut State, step: Step, recreates: bool) {
    let workload = &mut state.workload;
    let template = workload.template();
    workload.pods = match step {
        // The older pods that serve are of this very template.
        Step::ControllerObservesTemplate if workload.older == Some(template) => {
            (workload.older, workload.are_pods_old) = (None, true);
            Pods::Ready
        }
        Step::ControllerObservesTemplate => {
            workload.older = workload.older.filter(|_older| !recreates);
            Pods::Starting
        }
        Step::PodsBecomeReady | Step::PodsRecover => {
            (workload.older, workload.are_pods_old) = (None, false);
            Pods::Ready
        }
        Step::PodsRestart => {
            (workload.older, workload.are_pods_old) = (None, false);
            Pods::Restarted
        }
        Step::PodsCrash => Pods::Crashing,
        Step::PodsCrashByFault => Pods::CrashingByFault,
        Step::PodsStayUnready => Pods::Unready,
        Step::PodsAreBlocked if state.block == Block::Quota => Pods::Refused,
        Step::PodsAreBlocked => Pods::Unschedulable,
        Step::PodsAreUnblocked => Pods::Starting,
        Step::PodsAreReplaced => {
            (workload.older, workload.are_pods_old) = (None, false);
            if workload.is_ready() {
                Pods::Starting
            } else {
                return;
            }
        }
        _ => return,
    };
}

/// The state after the bake time and the progress deadline.
fn later(state: &State, reconciler: &Reconciler) -> State {
    let mut later = map_statuses(state, |status| reconciler.statuses.later(status));
    let lagging = later.operator.stale_workload.iter_mut();
    for workload in lagging
        .chain([&mut later.workload])
        .filter(|each| !each.is_missing())
    {
        (workload.is_old, workload.are_pods_old) = (true, true);
    }
    later
}

/// The state when a postponed version may be tried again.
fn after_backoff(state: &State, reconciler: &Reconciler) -> State {
    map_statuses(state, |status| reconciler.statuses.after_backoff(status))
}

fn map_statuses(state: &State, change: impl Fn(StatusId) -> StatusId) -> State {
    let mut changed = *state;
    changed.status = change(state.status);
    if let Some(unwritten) = changed.operator.unwritten.as_mut() {
        unwritten.status = change(unwritten.status);
    }
    if let Some((_, status)) = changed.operator.stale_binding.as_mut() {
        *status = change(*status);
    }
    changed
}

/// Reconciles up to the patch. A patch with a resource version fails if the Deployment changed since it was read.
#[allow(clippy::too_many_lines)] // one reconcile, in its order
fn reconcile(state: &mut State, reconciler: &Reconciler) {
    let (spec, status) = state
        .operator
        .stale_binding
        .unwrap_or((state.spec, state.status));
    let workload = state.operator.stale_workload.unwrap_or(state.workload);
    let inputs = Inputs {
        spec,
        status,
        workload,
        mirror: state.mirror,
        checks: state.operator.checks,
    };
    let result = reconciler.reconcile(inputs);
    if result.waits_for_nothing {
        state.oracle.violated |= Property::ChecksRun.bit();
    }
    if let Some(mut written) = result.written {
        if !workload.is_unchanged(state.workload) && result.on_change == OnChange::Refused {
            return;
        }
        // A patch without a resource version is applied to the Deployment as it is now.
        let is_same = written.has_same_template(state.workload);
        let now = state.workload;
        written = WorkloadState {
            replicas: now.replicas,
            is_paused: now.is_paused,
            pods: if is_same { now.pods } else { Pods::Unobserved },
            older: now.older,
            is_old: now.is_old,
            are_pods_old: now.are_pods_old,
            ..written
        };
        let handled = reconciler
            .statuses
            .get(status)
            .last_handled_retry
            .as_ref()
            .map(|retry| retry.value.clone());
        let retry_is_due = spec.retries > 0 && handled != Some(spec.retries.to_string());
        properties::check_write(
            state,
            &Write {
                inputs: &inputs,
                written,
                is_rollback: result.is_rollback,
                blames: result.blames,
                is_restore: result.is_restore,
                retry_is_due,
            },
        );
        if is_same {
            state.workload = written;
        } else {
            rewrite(state, written);
        }
    }
    if !result.is_status_changed {
        state.operator.running_checks |= result.requested_checks;
        return;
    }
    let is_fresh = (spec, status) == (state.spec, state.status);
    let is_current = state.operator.stale_workload.is_none();
    state.operator.unwritten = Some(UnwrittenStatus {
        status: result.status,
        is_fresh,
        is_current,
        requested_checks: result.requested_checks,
    });
}

/// Writes the status of the last reconcile, unless the binding changed since it was read.
fn write_status(state: &mut State, reconciler: &Reconciler) {
    let Some(unwritten) = state.operator.unwritten.take() else {
        return;
    };
    if !unwritten.is_fresh {
        return;
    }
    state.status = unwritten.status;
    state.operator.running_checks |= unwritten.requested_checks;
    properties::record_status(
        state,
        &reconciler.statuses.get(unwritten.status),
        unwritten.is_current,
    );
}

fn complete_check(state: &mut State, check: Check) {
    state.operator.running_checks &= !check.bit();
    let check_result = state.check_result(check);
    state.operator.checks.record(check, check_result);
}
