//! Whether the files of a version can be read.
//!
//! Absent: the check. Stores are in `artifacts`.

/// The result of an artifact check. Every sentence is free of credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Availability {
    /// The files can be read.
    Readable,
    /// The registry names this URI for the files of the same version now, and they are not known to be missing.
    Moved(String),
    /// The registry or the store says plainly that the version or its files do not exist; with its sentence.
    Missing(String),
    /// The store could not be asked now; with the cause.
    Unknown(String),
    /// Pointsman has no way, or is not allowed, to look into this store; with what to configure.
    Unchecked(String),
}
