//! What a workload looks like: what is read of a Deployment, what is injected into it, and the patch that does so.
//!
//! Absent: any client, clock or async. Everything here is a function of its arguments.

mod build;
mod compare;
mod inject;
mod observed;
mod owners;
mod progress;

pub use build::{Owner, TEMPLATE_DIGEST_ANNOTATION, patch_for_target, patch_for_template, template_digest};
pub use compare::{Conflict, conflicts, holds};
pub use inject::{Injection, Wanted, chosen_containers};
pub use observed::Workload;
pub use owners::{FieldOwners, OwnedField, Writer};
pub use progress::{Progress, progress};
