//! The world in a few bytes: registry, store, Deployment, people, and what the operator holds in its memory.
//!
//! Absent: how it moves, and any type of the operator's. The status is a number here; `statuses` knows what it stands for.

use std::fmt;

use pointsman::api::VersionRef;

/// A version, as an index into [`VERSIONS`].
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Version(pub u8);

/// Number and artifact of each version. The last one is of a model that was deleted and made again.
pub const VERSIONS: [(&str, &str); 6] = [
    ("1", "s3://m/1"),
    ("2", "s3://m/2"),
    ("3", "s3://m/3"),
    ("4", "s3://m/4"),
    ("5", "s3://m/5"),
    ("2", "s3://again/2"),
];
/// The version of the model that was made again.
pub const AGAIN: Version = Version(5);

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
        if *self == AGAIN {
            write!(out, "2(again)")
        } else {
            out.write_str(self.number())
        }
    }
}

/// How the mirror says that the registry is.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Registry {
    #[default]
    Up,
    Down,
    ModelGone,
}

/// What the mirror holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Mirror {
    pub alias: Option<Version>,
    pub registry: Registry,
    /// Whether the model was deleted and made again.
    pub again: bool,
}

impl Mirror {
    pub fn has(self, version: Version) -> bool {
        (version == AGAIN) == self.again
    }

    fn by_number(self, number: &str) -> Option<Version> {
        Version::all().find(|each| self.has(*each) && each.number() == number)
    }
}

/// What people wrote into the binding.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Spec {
    /// The pin is a number; the version that it was taken from tells it.
    pub pin: Option<Version>,
    pub suspend: bool,
    /// Another value of `rollback.maxRestarts`.
    pub edited: bool,
    /// How often a retry and a resume were asked for.
    pub retries: u8,
    pub resumes: u8,
}

/// Who wrote the version into the pod template.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Writer {
    /// The user's own template, without a version.
    #[default]
    User,
    Pointsman,
    /// A person, by `kubectl rollout undo`.
    Person,
}

/// How far the pods of the newest template are.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Pods {
    /// The Deployment's controller has not seen the template yet.
    #[default]
    Unseen,
    Coming,
    Ready,
    Crashing,
    /// The progress deadline is exceeded.
    Late,
}

/// The Deployment.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Work {
    pub version: Option<Version>,
    /// The template names one version in one container and another one elsewhere.
    pub torn: bool,
    pub writer: Writer,
    /// Whether the Deployment carries the binding's label.
    pub labelled: bool,
    /// Another image in the user's part of the template.
    pub edited: bool,
    pub pods: Pods,
}

/// What the store says of an artifact.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    Readable,
    Gone,
    Silent,
}

/// Something that is asked before a version is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Query {
    pub version: Version,
    pub must_exist: bool,
}

impl Query {
    pub fn all() -> impl Iterator<Item = Self> {
        Version::all().flat_map(|version| {
            [false, true].map(|must_exist| Self {
                version,
                must_exist,
            })
        })
    }

    pub fn bit(self) -> u16 {
        1 << self.place()
    }

    fn place(self) -> u32 {
        u32::from(self.version.0) * 2 + u32::from(self.must_exist)
    }
}

/// The answers in the operator's memory, two bits each.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Book(u32);

impl Book {
    pub fn get(self, query: Query) -> Option<Reply> {
        match (self.0 >> (query.place() * 2)) & 3 {
            0 => None,
            1 => Some(Reply::Readable),
            2 => Some(Reply::Gone),
            _ => Some(Reply::Silent),
        }
    }

    pub fn keep(&mut self, query: Query, reply: Reply) {
        let shift = query.place() * 2;
        self.0 = (self.0 & !(3 << shift)) | ((reply as u32 + 1) << shift);
    }
}

/// The number of an interned status.
pub type StatusId = u32;

/// A pass between its patch and the writing of its status.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Pending {
    pub status: StatusId,
    /// Whether the binding is still as it was read.
    pub is_fresh: bool,
    /// Whether nobody released what is held back since it was read.
    pub is_current: bool,
    pub ask: u16,
}

/// What the operator holds in its memory.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Operator {
    pub book: Book,
    pub asked: u16,
    pub pending: Option<Pending>,
    /// Caches that lag behind show this.
    pub old_binding: Option<(Spec, StatusId)>,
    pub old_work: Option<Work>,
}

/// What nobody in the world sees: only the properties do.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Ghost {
    /// The version that was wanted last.
    pub named: Option<Version>,
    /// The versions that failed, and which nobody asked for since.
    pub failed: u8,
    /// The versions that were live.
    pub live: u8,
    /// Whether a person undid something, and asked for no resume since.
    pub is_undone: bool,
    /// Whether that undo is to stand.
    pub is_kept: bool,
    /// Whether a person asked to have what is wanted tried again, and it was not yet.
    pub is_asked: bool,
    /// The properties that the last step violated.
    pub violated: u16,
}

/// Everything.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct World {
    pub mirror: Mirror,
    pub spec: Spec,
    pub status: StatusId,
    pub work: Work,
    /// The versions that can be undone to.
    pub ran: u8,
    /// The artifacts that are lost.
    pub lost: u8,
    pub store_is_down: bool,
    pub operator: Operator,
    pub ghost: Ghost,
    /// How many things may still happen that nobody takes back.
    pub left: u8,
}

impl World {
    /// A Deployment without a version, and an alias that names the first one.
    pub fn new(left: u8) -> Self {
        let alias = Some(Version(0));
        Self {
            mirror: Mirror {
                alias,
                registry: Registry::Up,
                again: false,
            },
            spec: Spec::default(),
            status: 0,
            work: Work {
                pods: Pods::Ready,
                ..Work::default()
            },
            ran: 0,
            lost: 0,
            store_is_down: false,
            operator: Operator::default(),
            ghost: Ghost {
                named: alias,
                ..Ghost::default()
            },
            left,
        }
    }

    /// The same world without what its rest does not depend on.
    pub fn core(&self) -> Self {
        let Ghost {
            named,
            is_undone,
            is_asked,
            ..
        } = self.ghost;
        let ghost = Ghost {
            named,
            is_undone,
            is_asked,
            ..Ghost::default()
        };
        Self {
            ghost,
            left: 0,
            ..*self
        }
    }

    /// The version that pin or alias name; a pinned one that the mirror does not know is the one that ran by that number.
    pub fn wanted(&self) -> Option<Version> {
        match self.spec.pin {
            Some(pin) => self.mirror.by_number(pin.number()).or(Some(pin)),
            None => self.mirror.alias,
        }
    }

    /// What registry and store answer now.
    pub fn reply(&self, query: Query) -> Reply {
        let is_known =
            self.mirror.registry != Registry::ModelGone && self.mirror.has(query.version);
        if query.must_exist && self.mirror.registry != Registry::Down && !is_known {
            return Reply::Gone;
        }
        match (self.store_is_down, self.lost & query.version.bit() != 0) {
            (true, _) => Reply::Silent,
            (false, true) => Reply::Gone,
            (false, false) => Reply::Readable,
        }
    }
}
