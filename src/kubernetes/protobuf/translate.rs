//! From protobuf to the JSON that kube reads: one object, or one event of a watch.
//!
//! Absent: connections, and where an event ends.

use prost::Message;
use serde::Serialize;

use super::deployment::Deployment;
use super::messages::{List, ListMeta, MetadataOnly, Pod, Status, TypeMeta, Unknown, WatchEvent};

/// What an object in protobuf begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Why an answer in protobuf cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TranslationError {
    /// It does not begin as the API server's protobuf does.
    #[error("the API server's answer is said to be protobuf, and does not begin as it")]
    NoEnvelope,
    /// Bytes that are no message.
    #[error("the API server's protobuf cannot be read: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A field that ends before it should, or is of no known form.
    #[error("the API server's protobuf cannot be read: a field of a pod template is broken")]
    Wire,
    /// A kind that was not asked for.
    #[error(
        "the API server answered in protobuf with an object of the kind {0}, which was not asked for so"
    )]
    UnknownKind(String),
    /// The object cannot be written as JSON.
    #[error("an object cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// An event of a watch, as a line.
pub fn event(frame: &[u8]) -> Result<Vec<u8>, TranslationError> {
    let event = WatchEvent::decode(frame)?;
    let raw = event.object.map(|object| object.raw).unwrap_or_default();
    let mut line = format!(r#"{{"type":"{}","object":"#, word(&event.kind)).into_bytes();
    write(&raw, event.kind == "BOOKMARK", &mut line)?;
    line.extend_from_slice(b"}\n");
    Ok(line)
}

/// An object, a list of them, or a refusal.
pub fn object(answer: &[u8]) -> Result<Vec<u8>, TranslationError> {
    let mut json = Vec::new();
    write(answer, false, &mut json)?;
    Ok(json)
}

/// ADDED, MODIFIED and the like; anything that is no word is left out.
fn word(kind: &str) -> &str {
    if kind.bytes().all(|byte| byte.is_ascii_uppercase()) {
        kind
    } else {
        ""
    }
}

fn write(answer: &[u8], is_bookmark: bool, json: &mut Vec<u8>) -> Result<(), TranslationError> {
    let envelope = Unknown::decode(
        answer
            .strip_prefix(MAGIC)
            .ok_or(TranslationError::NoEnvelope)?,
    )?;
    let (raw, types) = (envelope.raw.as_slice(), envelope.types.unwrap_or_default());
    if types.kind == "Status" {
        return write_typed(types, Status::decode(raw)?, json);
    }
    if is_bookmark {
        // It is an object of the watch's kind that has metadata only.
        return write_typed(types, MetadataOnly::decode(raw)?, json);
    }
    match types.kind.strip_suffix("List") {
        None => {
            let object = Object::decode(&types.kind, raw)?;
            write_typed(types, object, json)
        }
        Some(kind) => {
            let items = Items::decode(kind, raw)?;
            write_typed(types, items, json)
        }
    }
}

/// An object of a kind that is read as protobuf.
#[derive(Serialize)]
#[serde(untagged)]
enum Object {
    Deployment(Box<Deployment>),
    Pod(Pod),
    ReplicaSet(MetadataOnly),
}

impl Object {
    fn decode(kind: &str, raw: &[u8]) -> Result<Self, TranslationError> {
        match kind {
            "Deployment" => Ok(Self::Deployment(Box::new(Deployment::decode(raw)?))),
            "Pod" => Ok(Self::Pod(Pod::decode(raw)?)),
            "ReplicaSet" => Ok(Self::ReplicaSet(MetadataOnly::decode(raw)?)),
            _ => Err(TranslationError::UnknownKind(kind.to_owned())),
        }
    }
}

#[derive(Serialize)]
struct Items {
    metadata: ListMeta,
    items: Vec<Object>,
}

impl Items {
    fn decode(kind: &str, raw: &[u8]) -> Result<Self, TranslationError> {
        let List { metadata, items } = List::decode(raw)?;
        let items = items
            .iter()
            .map(|item| Object::decode(kind, item))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            metadata: metadata.unwrap_or_default(),
            items,
        })
    }
}

#[derive(Serialize)]
struct Typed<T> {
    #[serde(flatten)]
    types: TypeMeta,
    #[serde(flatten)]
    object: T,
}

fn write_typed<T: Serialize>(
    types: TypeMeta,
    object: T,
    json: &mut Vec<u8>,
) -> Result<(), TranslationError> {
    Ok(serde_json::to_writer(json, &Typed { types, object })?)
}

#[cfg(test)]
mod tests {
    use kube::core::WatchEvent as Shown;
    use serde_json::{Value, json};

    use super::super::messages::{ObjectMeta, PodStatus, RawExtension, StatusDetails, Time};
    use super::*;
    use crate::targets;

    fn envelope(kind: &str, message: &impl Message) -> Vec<u8> {
        let types = TypeMeta {
            api_version: "v1".to_owned(),
            kind: kind.to_owned(),
        };
        let unknown = Unknown {
            types: Some(types),
            raw: message.encode_to_vec(),
        };
        [MAGIC, &unknown.encode_to_vec()].concat()
    }

    fn frame(kind: &str, raw: Vec<u8>) -> Vec<u8> {
        WatchEvent {
            kind: kind.to_owned(),
            object: Some(RawExtension { raw }),
        }
        .encode_to_vec()
    }

    fn pod() -> Pod {
        let metadata = ObjectMeta {
            name: "taxi-1".to_owned(),
            namespace: "ml".to_owned(),
            resource_version: "7".to_owned(),
            creation_timestamp: Some(Time {
                seconds: Some(1_795_593_600),
                nanos: 5,
            }),
            deletion_timestamp: Some(Time {
                seconds: None,
                nanos: 0,
            }),
            ..ObjectMeta::default()
        };
        let status = PodStatus {
            phase: "Running".to_owned(),
            ..PodStatus::default()
        };
        Pod {
            metadata: Some(metadata),
            status: Some(status),
        }
    }

    #[test]
    fn an_event_is_the_line_that_kube_reads() {
        let line = event(&frame("ADDED", envelope("Pod", &pod()))).unwrap();
        assert_eq!(String::from_utf8_lossy(&line).lines().count(), 1);
        let Shown::Added(read) = serde_json::from_slice::<Shown<targets::Pod>>(&line).unwrap()
        else {
            panic!("{}", String::from_utf8_lossy(&line))
        };
        assert_eq!(read.status.phase.as_deref(), Some("Running"));
        let metadata = serde_json::to_value(&read.metadata).unwrap();
        let expected = json!({"name": "taxi-1", "namespace": "ml", "resourceVersion": "7",
            "creationTimestamp": "2026-11-25T08:00:00Z"});
        assert_eq!(metadata, expected);
    }

    #[test]
    fn a_bookmark_keeps_the_annotation_that_ends_a_list() {
        let mut pod = pod();
        let annotations = &mut pod.metadata.as_mut().unwrap().annotations;
        annotations.insert("k8s.io/initial-events-end".to_owned(), "true".to_owned());
        let line = event(&frame("BOOKMARK", envelope("Pod", &pod))).unwrap();
        let Shown::Bookmark(read) = serde_json::from_slice::<Shown<targets::Pod>>(&line).unwrap()
        else {
            panic!("{}", String::from_utf8_lossy(&line))
        };
        assert_eq!(read.metadata.resource_version, "7");
        assert_eq!(
            read.metadata.annotations["k8s.io/initial-events-end"],
            "true"
        );
    }

    #[test]
    fn a_refusal_within_a_watch_and_before_it_is_told_with_its_code() {
        let details = Some(StatusDetails {
            kind: "pods".to_owned(),
            ..StatusDetails::default()
        });
        let refusal = Status {
            message: "too old".to_owned(),
            reason: "Expired".to_owned(),
            code: 410,
            details,
            ..Status::default()
        };
        let line = event(&frame("ERROR", envelope("Status", &refusal))).unwrap();
        let read = serde_json::from_slice::<Shown<targets::Pod>>(&line).unwrap();
        assert!(
            matches!(read, Shown::Error(status) if status.code == 410 && status.message == "too old")
        );
        let whole: Value =
            serde_json::from_slice(&object(&envelope("Status", &refusal)).unwrap()).unwrap();
        assert_eq!(
            (&whole["kind"], &whole["code"]),
            (&json!("Status"), &json!(410))
        );
    }

    #[test]
    fn a_list_keeps_its_place_and_its_objects() {
        let metadata = ListMeta {
            resource_version: "9".to_owned(),
            more: "on".to_owned(),
            remaining_item_count: Some(3),
        };
        let list = List {
            metadata: Some(metadata),
            items: vec![pod().encode_to_vec(), pod().encode_to_vec()],
        };
        let json = object(&envelope("PodList", &list)).unwrap();
        let read: kube::core::ObjectList<targets::Pod> = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (read.items.len(), read.metadata.continue_.as_deref()),
            (2, Some("on"))
        );
    }

    #[test]
    fn what_is_no_protobuf_or_was_not_asked_for_is_refused() {
        assert!(matches!(object(b"{}"), Err(TranslationError::NoEnvelope)));
        assert!(matches!(
            object(b"k8s\0\xff"),
            Err(TranslationError::Malformed(_))
        ));
        assert!(
            matches!(object(&envelope("Secret", &pod())), Err(TranslationError::UnknownKind(kind)) if kind == "Secret")
        );
    }
}
