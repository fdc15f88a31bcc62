//! Whether the files of a version can be read.
//!
//! Absent: the check. Stores are in `artifacts`.

/// The result of an artifact check. Every sentence is free of credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Availability {
    /// The files can be read.
    Readable,
    /// The registry or the store says plainly that the files do not exist or may not be read; with its sentence.
    Missing(String),
    /// The store could not be asked now; with the cause.
    Unknown(String),
    /// Pointsman has no way to ask this store; with what to configure.
    Unchecked(String),
}
