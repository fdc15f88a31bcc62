//! What is asked of the registry and the stores before a version is written, and what they answered.
//!
//! Absent: the asking. That is done beside the passes, so that a slow store holds up nobody.

use std::collections::BTreeMap;

/// Whether a version can be run.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Question {
    /// The registered model's name in the registry.
    pub model: String,
    /// The version's number.
    pub version: String,
    /// Where its files are.
    pub artifact_uri: String,
    /// Whether the registry must still know the version by that artifact: for versions that the mirror may not hold.
    pub must_exist: bool,
}

/// What came of a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The files can be read.
    Readable,
    /// The registry or the store says plainly that it is not there, or that it may not be read; with the sentence.
    Gone(String),
    /// The store could not be asked now; with the sentence.
    Silent(String),
    /// Pointsman has no way to ask this store; with what to configure.
    Unchecked(String),
}

/// The answers that are known and not too old.
pub type Evidence = BTreeMap<Question, Answer>;
