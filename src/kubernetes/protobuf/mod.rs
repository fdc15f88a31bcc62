//! Deployments, ReplicaSets and pods in protobuf, the API server's own form of them: it takes a fraction of what JSON costs it, and
//! of what reading costs here.
//!
//! kube's client reads JSON. What comes as protobuf is therefore translated below it, field by field, and only those fields
//! that `workload` reads.
//!
//! Absent: custom resources, which the API server has as JSON only; and what is written, which stays JSON or YAML.

mod deployment;
mod messages;
mod negotiate;
mod translate;

pub use negotiate::{ask_for_protobuf, read_protobuf};
