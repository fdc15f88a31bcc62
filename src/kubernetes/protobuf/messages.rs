//! The messages of the Kubernetes API, as far as they are read here, each field by its number.
//!
//! Source: `generated.proto` of k8s.io/apimachinery (pkg/apis/meta/v1, pkg/runtime) and k8s.io/api (apps/v1, core/v1), where numbers
//! never change. Absent: every field that is not read; they are passed over.

use std::collections::BTreeMap;

use jiff::Timestamp;
use prost::Message;
use serde::{Serialize, Serializer};

/// An event of a watch.
#[derive(Clone, PartialEq, Message)]
pub struct WatchEvent {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(message, optional, tag = "2")]
    pub object: Option<RawExtension>,
}

/// An object in an envelope.
#[derive(Clone, PartialEq, Message)]
pub struct RawExtension {
    #[prost(bytes = "vec", tag = "1")]
    pub raw: Vec<u8>,
}

/// The envelope, behind four bytes that say so.
#[derive(Clone, PartialEq, Message)]
pub struct Unknown {
    #[prost(message, optional, tag = "1")]
    pub types: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    pub raw: Vec<u8>,
}

/// What an object is.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct TypeMeta {
    #[prost(string, tag = "1")]
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    #[prost(string, tag = "2")]
    pub kind: String,
}

/// What the API server says where it has no object to show.
#[allow(clippy::struct_field_names)] // the API's own names
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct Status {
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    #[prost(int32, tag = "6")]
    pub code: i32,
}

/// More of it.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub group: String,
    #[prost(string, tag = "3")]
    pub kind: String,
    #[prost(message, repeated, tag = "4")]
    pub causes: Vec<StatusCause>,
    #[prost(int32, tag = "5")]
    pub retry_after_seconds: i32,
    #[prost(string, tag = "6")]
    pub uid: String,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct StatusCause {
    #[prost(string, tag = "1")]
    pub reason: String,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(string, tag = "3")]
    pub field: String,
}

/// An object of which only the metadata is read: a ReplicaSet, and the bookmark of a watch.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct MetadataOnly {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ObjectMeta>,
}

/// Several objects of one kind.
#[derive(Clone, PartialEq, Message)]
pub struct List {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ListMeta>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub items: Vec<Vec<u8>>,
}

/// How many there are.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    #[prost(string, tag = "2")]
    pub resource_version: String,
    #[prost(string, tag = "3")]
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub more: String,
    #[prost(int64, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<i64>,
}

/// A Deployment. Its metadata and its pod template are read apart, in two ways each.
#[derive(Clone, PartialEq, Message)]
pub struct Deployment {
    #[prost(bytes = "vec", tag = "1")]
    pub metadata: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub spec: Option<DeploymentSpec>,
    #[prost(message, optional, tag = "3")]
    pub status: Option<DeploymentStatus>,
}

/// What a Deployment asks for.
#[derive(Clone, PartialEq, Message)]
pub struct DeploymentSpec {
    #[prost(int32, optional, tag = "1")]
    pub replicas: Option<i32>,
    #[prost(bytes = "vec", tag = "3")]
    pub template: Vec<u8>,
    #[prost(bool, tag = "7")]
    pub paused: bool,
    #[prost(int32, optional, tag = "9")]
    pub progress_deadline_seconds: Option<i32>,
}

/// A pod template.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct PodTemplate {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMeta>,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<PodSpec>,
}

/// Its labels and annotations.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct TemplateMeta {
    #[prost(btree_map = "string, string", tag = "11")]
    pub labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    pub annotations: BTreeMap<String, String>,
}

/// Its containers.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct PodSpec {
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Container>,
}

/// A container's name and environment.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "7")]
    pub env: Vec<EnvVar>,
}

/// A variable.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<Elsewhere>,
}

/// That a value comes from elsewhere, and not whence.
#[derive(Clone, Copy, PartialEq, Message, Serialize)]
pub struct Elsewhere {}

/// How far a Deployment is.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    #[prost(int64, tag = "1")]
    pub observed_generation: i64,
    #[prost(int32, tag = "2")]
    pub replicas: i32,
    #[prost(int32, tag = "3")]
    pub updated_replicas: i32,
    #[prost(int32, tag = "4")]
    pub available_replicas: i32,
    #[prost(message, repeated, tag = "6")]
    pub conditions: Vec<DeploymentCondition>,
}

/// A condition of a Deployment.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentCondition {
    #[prost(string, tag = "1")]
    #[serde(rename = "type")]
    pub type_: String,
    #[prost(string, tag = "2")]
    pub status: String,
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[prost(message, optional, tag = "6")]
    #[serde(skip_serializing_if = "Time::is_none")]
    pub last_update_time: Option<Time>,
    #[prost(message, optional, tag = "7")]
    #[serde(skip_serializing_if = "Time::is_none")]
    pub last_transition_time: Option<Time>,
}

/// Of metadata, who wrote which field.
#[derive(Clone, PartialEq, Message)]
pub struct Management {
    #[prost(message, repeated, tag = "17")]
    pub managed_fields: Vec<ManagedFields>,
}

/// The fields that one manager wrote.
#[derive(Clone, PartialEq, Message)]
pub struct ManagedFields {
    #[prost(string, tag = "1")]
    pub manager: String,
    #[prost(message, optional, tag = "4")]
    pub time: Option<Time>,
    #[prost(message, optional, tag = "7")]
    pub fields_v1: Option<FieldsV1>,
    #[prost(string, tag = "8")]
    pub subresource: String,
}

/// JSON, in bytes.
#[derive(Clone, PartialEq, Message)]
pub struct FieldsV1 {
    #[prost(bytes = "vec", tag = "1")]
    pub json: Vec<u8>,
}

/// A pod.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct Pod {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PodStatus>,
}

/// Metadata, less who wrote which field.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeta {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[prost(int64, optional, tag = "7")]
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: Option<i64>,
    #[prost(message, optional, tag = "8")]
    #[serde(skip_serializing_if = "Time::is_none")]
    pub creation_timestamp: Option<Time>,
    #[prost(message, optional, tag = "9")]
    #[serde(skip_serializing_if = "Time::is_none")]
    pub deletion_timestamp: Option<Time>,
    #[prost(btree_map = "string, string", tag = "11")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "13")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

/// Whom an object belongs to.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub uid: String,
    #[prost(string, tag = "5")]
    pub api_version: String,
    #[prost(bool, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// How a pod is.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[prost(message, optional, tag = "7")]
    #[serde(skip_serializing_if = "Time::is_none")]
    pub start_time: Option<Time>,
    #[prost(message, repeated, tag = "8")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
    #[prost(message, repeated, tag = "10")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// A condition of a pod.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[prost(string, tag = "1")]
    #[serde(rename = "type")]
    pub type_: String,
    #[prost(string, tag = "2")]
    pub status: String,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Time::is_none")]
    pub last_probe_time: Option<Time>,
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "Time::is_none")]
    pub last_transition_time: Option<Time>,
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[prost(int64, optional, tag = "7")]
    #[serde(skip_serializing_if = "is_zero")]
    pub observed_generation: Option<i64>,
}

/// How a container is.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ContainerState>,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_state: Option<ContainerState>,
    #[prost(bool, tag = "4")]
    pub ready: bool,
    #[prost(int32, tag = "5")]
    pub restart_count: i32,
    #[prost(bool, optional, tag = "9")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
}

/// One of the three; all of them absent where nothing is known.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ContainerState {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

/// Not started yet.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct Waiting {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Started.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Time::is_none")]
    pub started_at: Option<Time>,
}

/// Ended.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Terminated {
    #[prost(int32, tag = "1")]
    pub exit_code: i32,
    #[prost(int64, optional, tag = "2")]
    #[serde(skip_serializing_if = "is_zero")]
    pub signal: Option<i64>,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "Time::is_none")]
    pub started_at: Option<Time>,
    #[prost(message, optional, tag = "6")]
    #[serde(skip_serializing_if = "Time::is_none")]
    pub finished_at: Option<Time>,
    #[prost(string, tag = "7")]
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
}

/// A moment; one without seconds is none, as Go's zero time is.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Time {
    #[prost(int64, optional, tag = "1")]
    pub seconds: Option<i64>,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Time {
    /// Whether a moment is missing.
    #[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref)] // serde hands it over so
    fn is_none(time: &Option<Self>) -> bool {
        time.and_then(Self::moment).is_none()
    }

    /// Whole seconds, which is what the JSON of the API server shows.
    fn moment(self) -> Option<Timestamp> {
        Timestamp::from_second(self.seconds?).ok()
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.moment().serialize(serializer)
    }
}

/// Whether a number is missing, or the zero that is written for a missing one.
#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref)] // serde hands it over so
fn is_zero(number: &Option<i64>) -> bool {
    number.unwrap_or_default() == 0
}
