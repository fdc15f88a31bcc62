//! Workloads: one file for each kind, behind one type, [`Target`], that knows no kind.
//!
//! Absent: any client, clock or async. Everything here is a function of its arguments.

mod any_kind;
mod argo_fields;
mod argo_rollout;
mod compare;
mod cron_job;
mod daemon_set;
mod deployment;
mod digest;
mod element_patch;
mod field_path;
mod fields;
mod injection;
mod keep;
mod kserve;
mod literal;
mod metadata;
mod owners;
mod patch;
mod pods;
mod stateful_set;
mod target;
mod workload;
#[cfg(test)]
mod workloads_fuzz_tests;

pub use any_kind::AnyObject;
pub use argo_rollout::ArgoRollout;
pub use compare::{Conflict, Difference, conflicts, difference, holds, may_hide, refers_too_early};
pub use cron_job::Job;
pub use digest::pod_spec_digest;
pub use fields::fields_of;
pub use injection::{DesiredVersion, Injection, Variable, examined_containers};
pub use keep::keep;
pub use literal::{escape, unescape};
pub use metadata::without_managed_fields;
pub use owners::{FieldOwners, OwnedField, Writer};
pub use patch::{Owner, TEMPLATE_DIGEST_ANNOTATION, patch, template_changed, template_digest};
pub use pods::{ContainerStatus, Pod, ReplicaSet, blocking_pods, newest_pods};
pub use target::{Abort, Adapter, Capacity, Form, NewestPods, RolloutState, Target};
pub use workload::{PodTemplate, Workload};
