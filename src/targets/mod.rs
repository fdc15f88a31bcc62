//! What a workload looks like: what is read of a Deployment, what is injected into it, and the patch that does so.
//!
//! Absent: any client, clock or async. Everything here is a function of its arguments.

mod build;
mod compare;
mod digest;
mod inject;
mod metadata;
mod observed;
mod owners;
mod pods;
mod progress;
mod retrain;

pub use build::{
    Owner, TEMPLATE_DIGEST_ANNOTATION, patch_for_target, patch_for_template, template_digest,
};
pub use compare::{Conflict, conflicts, holds};
pub use digest::{Part, fnv1a, is_ours};
pub use inject::{Injection, Wanted, chosen_containers};
pub use metadata::without_managed_fields;
pub use observed::Workload;
pub use owners::{FieldOwners, OwnedField, Writer};
pub use pods::{ContainerStatus, Pod, ReplicaSet, newest_pods};
pub use progress::{Progress, progress};
pub use retrain::{Job, RetrainJob, retrain_job};
