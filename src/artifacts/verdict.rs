//! What a store said of an artifact.
//!
//! Absent: what follows from it.

/// What a store said of an artifact. Sentences name the thing, the cause and the remedy, and hold no credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The store gave at least one byte of the files.
    Readable,
    /// The store says plainly that the files are not there, or that our credentials may not read them.
    Unreadable(String),
    /// The store could not be asked now; asking again may help.
    Unknown(String),
    /// Pointsman has no way to ask. The sentence says what to configure.
    Unchecked(String),
}
