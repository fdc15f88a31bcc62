//! The operations that only some kinds of registries have.
//!
//! Absent: which kind has which. Each declares its capabilities.

/// An operation that only some kinds of registries have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Creating a registered model.
    CreateModel,
    /// Deleting a registered model.
    DeleteModel,
    /// Writing a model's description.
    SetDescription,
    /// Writing a model's tag.
    SetTag,
    /// Pointing an alias at a version.
    SetAlias,
}

impl Operation {
    /// The operation in a sentence, and the field of a `RegisteredModel` that asks for it.
    pub(super) fn remedy(self) -> (&'static str, &'static str) {
        match self {
            Self::CreateModel => (
                "create models",
                "create it there and set spec.creationPolicy: Observe",
            ),
            Self::DeleteModel => (
                "delete models",
                "delete it there and set spec.deletionPolicy: Retain",
            ),
            Self::SetDescription => ("set descriptions", "remove spec.description"),
            Self::SetTag => ("set tags", "remove spec.tags"),
            Self::SetAlias => ("set aliases", "remove spec.aliases"),
        }
    }
}
