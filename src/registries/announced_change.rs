//! A change of a registry that a delivery announces.
//!
//! Absent: the new state. Events come late, twice and out of order; the current state is read from the registry.

/// A change that a delivery announces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AnnouncedChange {
    /// The model of this name, its versions or their aliases changed.
    Model(String),
    /// Tags of versions of the model of this name changed.
    VersionTags(String),
}
