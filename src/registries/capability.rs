//! The operations that a kind of registry has.
//!
//! Absent: the permissions of a user and the version of a server. Those show in a request's
//! response.

use super::error::RegistryError;
use super::operation::Operation;

/// The operations that a kind of registry has. An operation that it lacks is refused before a
/// request is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // independent properties of a kind, each declared once
pub struct Capabilities {
    /// Versions are named by aliases.
    pub aliases: bool,
    /// Versions are in stages.
    pub stages: bool,
    /// Models and versions have tags and descriptions that can be written.
    pub tags: bool,
    /// Changes are announced by webhooks.
    pub webhooks: bool,
    /// Models can be created and deleted.
    pub create: bool,
}

impl Capabilities {
    /// Checks that the registry has an operation.
    ///
    /// # Errors
    /// `Unsupported` if it does not.
    pub fn require(self, operation: Operation) -> Result<(), RegistryError> {
        let is_supported = match operation {
            Operation::CreateModel | Operation::DeleteModel => self.create,
            Operation::SetDescription | Operation::SetTag => self.tags,
            Operation::SetAlias => self.aliases,
        };
        if is_supported {
            Ok(())
        } else {
            Err(RegistryError::Unsupported { operation })
        }
    }
}
