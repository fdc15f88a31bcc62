//! A freeze: while it stands, no version goes forward.
//!
//! Absent: how it is observed, and what passes it; see `gates`.

use super::messages::{Note, name, namespace};
use crate::api::conditions::shorten;
use crate::api::{AliasBinding, ModelRegistry, names};

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
    /// The annotation of the binding itself.
    Binding {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Freeze {
    /// The freeze in force for a binding: its own comes first, then its namespace's, and then the registry's.
    #[must_use]
    pub fn in_force(
        binding: &AliasBinding,
        of_namespace: Option<String>,
        registry: Option<&ModelRegistry>,
    ) -> Option<Self> {
        let namespace = namespace(binding);
        if let Some(why) = binding.annotation_text(names::FREEZE_ANNOTATION) {
            let place = FreezePlace::Binding {
                namespace: namespace.to_owned(),
                name: name(binding).to_owned(),
            };
            return Some(Self { place, why });
        }
        if let Some(why) = of_namespace {
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
        let annotation = names::FREEZE_ANNOTATION;
        match &self.place {
            FreezePlace::Registry { namespace, name } => Note {
                cause: format!("ModelRegistry {name} is frozen: {why}"),
                remedy: format!(
                    "end it: kubectl pointsman unfreeze --registry {name} -n {namespace} (or remove its spec.freeze)"
                ),
            },
            FreezePlace::Namespace(name) => Note {
                cause: format!("namespace {name} is frozen: {why}"),
                remedy: format!(
                    "end it: kubectl pointsman unfreeze -n {name} (or remove annotation {annotation})"
                ),
            },
            FreezePlace::Binding { namespace, name } => Note {
                cause: format!("the binding is frozen: {why}"),
                remedy: format!(
                    "end it: kubectl pointsman unfreeze --binding {name} -n {namespace} (or remove annotation {annotation})"
                ),
            },
        }
    }
}
