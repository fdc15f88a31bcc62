//! The state of the model in a few bytes: registry, store, Deployment, edits by people, and the operator's memory.
//!
//! Absent: steps, and types of the operator. A status is a number here; `statuses` maps it to the real one.

use std::fmt;

use pointsman::api::VersionRef;

/// A version, as an index into [`VERSIONS`].
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Version(pub u8);

/// Number and artifact of each version. The last one is of a model that was deleted and created again.
pub const VERSIONS: [(&str, &str); 6] = [
    ("1", "s3://m/1"),
    ("2", "s3://m/2"),
    ("3", "s3://m/3"),
    ("4", "s3://m/4"),
    ("5", "s3://m/5"),
    ("2", "s3://recreated/2"),
];
/// The version of the model that was created again.
pub const RECREATED: Version = Version(5);

impl Version {
    pub fn number(self) -> &'static str {
        VERSIONS[usize::from(self.0)].0
    }

    pub fn artifact(self) -> &'static str {
        VERSIONS[usize::from(self.0)].1
    }

    pub fn bit(self) -> u8 {
        1 << self.0
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..6).map(Self)
    }

    pub fn of(version: &VersionRef) -> Option<Self> {
        Self::find(version.number(), version.artifact_uri.as_deref()?)
    }

    pub fn find(number: &str, artifact: &str) -> Option<Self> {
        Self::all().find(|each| each.number() == number && each.artifact() == artifact)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == RECREATED {
            write!(out, "2(recreated)")
        } else {
            out.write_str(self.number())
        }
    }
}

/// The state of the registry, as the mirror reports it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Registry {
    #[default]
    Up,
    Down,
    ModelGone,
}

/// The mirror of the registered model.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Mirror {
    pub alias: Option<Version>,
    pub registry: Registry,
    /// Whether the model was deleted and created again.
    pub recreated: bool,
    /// Whether pods reach the registry at its other address.
    pub is_at_new_address: bool,
}

impl Mirror {
    pub fn has(self, version: Version) -> bool {
        (version == RECREATED) == self.recreated
    }

    fn by_number(self, number: &str) -> Option<Version> {
        Version::all().find(|each| self.has(*each) && each.number() == number)
    }
}

/// The fields of the binding that people write.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct BindingSpec {
    /// The pinned version. The binding has only its number.
    pub pin: Option<Version>,
    pub suspend: bool,
    /// Another value of `rollback.maxRestarts`.
    pub edited: bool,
    /// Another image in `spec.template`.
    pub template_edited: bool,
    /// How often a retry and a resume were requested.
    pub retries: u8,
    pub resumes: u8,
}

/// The writer of the version in the pod template.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Writer {
    /// The user's own template, without a version.
    #[default]
    User,
    Pointsman,
    /// A person, by `kubectl rollout undo`.
    Person,
}

/// The state of the pods of the newest template. Of two pods, one is as it says, and the other one as far as it can be.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Pods {
    /// There is no Deployment.
    None,
    /// The Deployment's controller has not observed the template yet.
    #[default]
    Unobserved,
    /// They are scheduled, and no container has run. Without replicas, or while the rollout is paused, there are none.
    Starting,
    Ready,
    /// They are ready, and a container was restarted, less often than `maxRestarts` allows.
    Restarted,
    /// A container is restarted again and again.
    Crashing,
    /// The same, by a fault that every new pod has.
    CrashingByFault,
    /// A container runs, and is not ready.
    Unready,
    /// They cannot be scheduled.
    Unschedulable,
    /// A quota refuses them.
    Refused,
}

/// A pod template.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Template {
    pub version: Option<Version>,
    pub is_mixed: bool,
    pub edited: bool,
    /// Whether it has the registry's other address.
    pub has_new_address: bool,
}

/// The Deployment.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct WorkloadState {
    pub version: Option<Version>,
    /// The annotation and the containers name different versions.
    pub is_mixed: bool,
    pub writer: Writer,
    /// Whether the Deployment carries the binding's label.
    pub has_label: bool,
    /// Another image in the user's part of the template.
    pub edited: bool,
    /// Whether the template has the registry's other address.
    pub has_new_address: bool,
    /// For an owned Deployment: whether it was made from the edited `spec.template`.
    pub made_from_edited: Option<bool>,
    pub replicas: u8,
    pub is_paused: bool,
    pub pods: Pods,
    /// The older template whose pods still serve.
    pub older: Option<Template>,
    /// Whether the template was written longer ago than the progress deadline.
    pub is_old: bool,
    /// Whether the pods started, or restarted, longer ago than the progress deadline and the bake time.
    pub are_pods_old: bool,
}

impl WorkloadState {
    /// The user's Deployment, which serves.
    pub const USERS: Self = Self {
        version: None,
        is_mixed: false,
        writer: Writer::User,
        has_label: false,
        edited: false,
        has_new_address: false,
        made_from_edited: None,
        replicas: 1,
        is_paused: false,
        pods: Pods::Ready,
        older: None,
        is_old: true,
        are_pods_old: true,
    };
    /// There is no Deployment.
    pub const MISSING: Self = Self {
        pods: Pods::None,
        ..Self::USERS
    };

    pub fn is_missing(self) -> bool {
        self.pods == Pods::None
    }

    pub fn template(self) -> Template {
        Template {
            version: self.version,
            is_mixed: self.is_mixed,
            edited: self.edited,
            has_new_address: self.has_new_address,
        }
    }

    /// Whether the pods are of the same template.
    pub fn has_same_template(self, other: Self) -> bool {
        self.template() == other.template() && self.is_missing() == other.is_missing()
    }

    /// The same object at a later time: time alone changes no resource version.
    pub fn is_unchanged(self, other: Self) -> bool {
        let later = |each: Self| Self {
            is_old: true,
            are_pods_old: true,
            ..each
        };
        later(self) == later(other)
    }

    /// Whether the pods of the newest template serve.
    pub fn is_ready(self) -> bool {
        matches!(self.pods, Pods::Ready | Pods::Restarted) && self.replicas > 0
    }

    /// Whether a container of the newest template runs or ran, and shows a fault of its own or of all pods.
    pub fn has_failed(self) -> bool {
        matches!(
            self.pods,
            Pods::Crashing | Pods::CrashingByFault | Pods::Unready
        )
    }

    /// Whether pods of the newest template cannot be created or scheduled.
    pub fn is_blocked(self) -> bool {
        matches!(self.pods, Pods::Unschedulable | Pods::Refused)
    }

    /// Whether a new pod may start.
    pub fn starts_pods(self) -> bool {
        self.pods == Pods::Starting && self.replicas > 0 && !self.is_paused
    }
}

/// How the binding names its Deployment.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Ownership {
    /// `spec.targetRef`: the Deployment is a person's, and exists.
    TargetRef,
    /// `spec.template`: the operator creates the Deployment.
    Template,
}

/// What keeps new pods from starting.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Block {
    #[default]
    None,
    /// No node has room.
    NoRoom,
    /// A quota is exhausted.
    Quota,
}

/// The result of an artifact check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CheckResult {
    Readable,
    Missing,
    Unknown,
}

/// An artifact check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Check {
    pub version: Version,
    pub must_exist: bool,
}

impl Check {
    pub fn all() -> impl Iterator<Item = Self> {
        Version::all().flat_map(|version| {
            [false, true].map(|must_exist| Self {
                version,
                must_exist,
            })
        })
    }

    pub fn bit(self) -> u16 {
        1 << self.index()
    }

    fn index(self) -> u32 {
        u32::from(self.version.0) * 2 + u32::from(self.must_exist)
    }
}

/// The check results in the operator's memory, two bits each.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct CheckCache(u32);

impl CheckCache {
    pub fn get(self, check: Check) -> Option<CheckResult> {
        match (self.0 >> (check.index() * 2)) & 3 {
            0 => None,
            1 => Some(CheckResult::Readable),
            2 => Some(CheckResult::Missing),
            _ => Some(CheckResult::Unknown),
        }
    }

    pub fn record(&mut self, check: Check, check_result: CheckResult) {
        let shift = check.index() * 2;
        self.0 = (self.0 & !(3 << shift)) | ((check_result as u32 + 1) << shift);
    }
}

/// The number of an interned status.
pub type StatusId = u32;

/// The status of a reconcile that has applied its patch and not written its status yet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct UnwrittenStatus {
    pub status: StatusId,
    /// Whether the binding is unchanged since it was read.
    pub is_fresh: bool,
    /// Whether no held-back version was released since the binding was read.
    pub is_current: bool,
    pub requested_checks: u16,
}

/// The operator's memory.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Operator {
    pub checks: CheckCache,
    pub running_checks: u16,
    pub unwritten: Option<UnwrittenStatus>,
    /// The objects in caches that lag behind.
    pub stale_binding: Option<(BindingSpec, StatusId)>,
    pub stale_workload: Option<WorkloadState>,
}

/// Facts for the properties that neither the operator nor the cluster reads.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Oracle {
    /// The last wanted version.
    pub wanted: Option<Version>,
    /// The versions that failed since the last release.
    pub failed: u8,
    /// The versions that were live.
    pub live: u8,
    /// The version that became live last.
    pub newest_good: Option<Version>,
    /// The versions of which a pod was ready.
    pub ran: u8,
    /// The versions of which a chosen container ran and failed.
    pub ran_and_failed: u8,
    /// The versions that failed by themselves, and not by the fault that all have.
    pub failed_by_itself: u8,
    /// Whether a person undid a write and did not resume since.
    pub is_undone: bool,
    /// Whether that undo must stand.
    pub undo_stands: bool,
    /// Whether a person requested a retry of the wanted version that has not happened yet.
    pub retry_is_due: bool,
    /// The properties that the last step violated.
    pub violated: u32,
}

/// The state of the model.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct State {
    pub mirror: Mirror,
    pub spec: BindingSpec,
    pub status: StatusId,
    pub workload: WorkloadState,
    /// The versions that can be undone to.
    pub ran: u8,
    /// The artifacts that are lost.
    pub lost: u8,
    pub store_is_down: bool,
    pub block: Block,
    /// Whether every new pod crashes, whatever its version.
    pub has_shared_fault: bool,
    pub operator: Operator,
    pub oracle: Oracle,
    /// The number of outside events that may still happen.
    pub events_left: u8,
}

impl State {
    /// The alias names the first version; the Deployment holds none, or is not created yet.
    pub fn new(events_left: u8, ownership: Ownership, replicas: u8) -> Self {
        let alias = Some(Version(0));
        let workload = match ownership {
            Ownership::TargetRef => WorkloadState::USERS,
            Ownership::Template => WorkloadState::MISSING,
        };
        Self {
            mirror: Mirror {
                alias,
                registry: Registry::Up,
                recreated: false,
                is_at_new_address: false,
            },
            spec: BindingSpec::default(),
            status: 0,
            workload: WorkloadState {
                replicas,
                ..workload
            },
            ran: 0,
            lost: 0,
            store_is_down: false,
            block: Block::None,
            has_shared_fault: false,
            operator: Operator::default(),
            oracle: Oracle {
                wanted: alias,
                ..Oracle::default()
            },
            events_left,
        }
    }

    /// The part of the state on which its quiescent state depends.
    pub fn core(&self) -> Self {
        let Oracle {
            wanted,
            newest_good,
            ran_and_failed,
            failed_by_itself,
            is_undone,
            retry_is_due,
            ..
        } = self.oracle;
        let oracle = Oracle {
            wanted,
            newest_good,
            ran_and_failed,
            failed_by_itself,
            is_undone,
            retry_is_due,
            ..Oracle::default()
        };
        Self {
            oracle,
            events_left: 0,
            ..*self
        }
    }

    /// The version that the pin or the alias names. A pin that the mirror does not know names the version with that number.
    pub fn wanted(&self) -> Option<Version> {
        match self.spec.pin {
            Some(pin) => self.mirror.by_number(pin.number()).or(Some(pin)),
            None => self.mirror.alias,
        }
    }

    /// Whether something keeps every new pod from being ready.
    pub fn hinders_pods(&self) -> bool {
        let workload = self.workload;
        self.block != Block::None
            || self.has_shared_fault
            || workload.is_paused
            || workload.replicas == 0
    }

    /// The result of a check now.
    pub fn check_result(&self, check: Check) -> CheckResult {
        let is_known =
            self.mirror.registry != Registry::ModelGone && self.mirror.has(check.version);
        if check.must_exist && self.mirror.registry != Registry::Down && !is_known {
            return CheckResult::Missing;
        }
        match (self.store_is_down, self.lost & check.version.bit() != 0) {
            (true, _) => CheckResult::Unknown,
            (false, true) => CheckResult::Missing,
            (false, false) => CheckResult::Readable,
        }
    }
}
