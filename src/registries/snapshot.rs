//! The state of models and versions as a registry returned it at one moment.
//!
//! Absent: the kind of registry, but for the details of a listed version that only its own client
//! can read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::mlflow::wire::VersionInfo;

/// A registered model as the registry returned it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ModelSnapshot {
    /// Its name.
    pub name: String,
    /// When it was created. A model that was deleted and created again has another time.
    pub created_at: Option<jiff::Timestamp>,
    /// Its description.
    pub description: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its aliases, each with the number of the version that it names.
    pub aliases: BTreeMap<String, String>,
    /// The stages in use, each with the number of the newest version in it. `None` is not a stage.
    pub stages: BTreeMap<String, String>,
    /// The number of the newest version.
    pub latest_version: Option<String>,
}

/// A version from a list of versions; to be described if its details are not known yet.
#[derive(Clone, Debug)]
pub struct ListedVersion {
    /// Its number.
    pub version: String,
    /// The details that came with the list.
    pub(super) details: ListedDetails,
}

/// The details of a listed version, as its registry returns them.
#[derive(Clone, Debug)]
pub(super) enum ListedDetails {
    Mlflow(Box<VersionInfo>),
    #[cfg(test)]
    Memory,
}
