//! A freeze: while it stands, no version goes forward.
//!
//! Absent: how it is observed, and what passes it; see `gates`.

use super::messages::Note;
use crate::api::conditions::shorten;
use crate::api::{ModelRegistry, names};

/// The longest reason in a message, in characters: the rest of the message has to fit, too.
const LONGEST_REASON: usize = 60;

/// A freeze.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Freeze {
    /// Where it is set.
    pub place: FreezePlace,
    /// Why, in the words of the person who set it.
    pub why: String,
}

/// Where a freeze is set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FreezePlace {
    /// `spec.freeze` of a `ModelRegistry`.
    Registry {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The annotation of a namespace.
    Namespace(String),
}

impl Freeze {
    /// The freeze in force in a namespace for the versions of a registry: the namespace's own comes first.
    #[must_use]
    pub fn in_force(
        namespace: &str,
        own: Option<String>,
        registry: Option<&ModelRegistry>,
    ) -> Option<Self> {
        if let Some(why) = own {
            let place = FreezePlace::Namespace(namespace.to_owned());
            return Some(Self { place, why });
        }
        let registry = registry?;
        let metadata = &registry.metadata;
        Some(Self {
            why: registry.spec.freeze.clone()?,
            place: FreezePlace::Registry {
                namespace: metadata.namespace.clone().unwrap_or_default(),
                name: metadata.name.clone().unwrap_or_default(),
            },
        })
    }

    /// The sentence about it, and how to end it.
    #[must_use]
    pub fn note(&self) -> Note {
        let why = match self.why.trim() {
            "" => "no reason is given".to_owned(),
            why => shorten(why, LONGEST_REASON),
        };
        match &self.place {
            FreezePlace::Registry { namespace, name } => Note {
                cause: format!("ModelRegistry {name} is frozen: {why}"),
                remedy: format!(
                    "end it: kubectl patch mreg {name} -n {namespace} --type=merge -p '{{\"spec\":{{\"freeze\":null}}}}'"
                ),
            },
            FreezePlace::Namespace(name) => Note {
                cause: format!("namespace {name} is frozen: {why}"),
                remedy: format!(
                    "end it: kubectl annotate namespace {name} {}-",
                    names::FREEZE_ANNOTATION
                ),
            },
        }
    }
}
