//! A Deployment: its managed fields but those of its status, and of its pod template what is read and a digest of the rest.
//!
//! Absent: what the digest leaves out; see `workload`.

use prost::Message;
use serde::Serialize;
use serde_json::value::RawValue;

use super::messages::{
    self, DeploymentStatus, ManagedFields, Management, ObjectMeta, PodTemplate, Time,
};
use super::translate::TranslationError;
use crate::targets::{Part, fnv1a, is_ours};

/// The numbers of fields that the digest looks into or leaves out; source: as for `messages`.
mod number {
    pub const TEMPLATE_METADATA: u32 = 1;
    pub const TEMPLATE_SPEC: u32 = 2;
    pub const CREATION_TIMESTAMP: u32 = 8;
    pub const LABELS: u32 = 11;
    pub const ANNOTATIONS: u32 = 12;
    pub const CONTAINERS: u32 = 2;
    pub const ENV: u32 = 7;
}

/// A Deployment, as `workload::Workload` reads it.
#[derive(Serialize)]
pub struct Deployment {
    metadata: Metadata,
    spec: Spec,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<DeploymentStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(flatten)]
    metadata: ObjectMeta,
    managed_fields: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    manager: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields_v1: Option<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<i32>,
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_deadline_seconds: Option<i32>,
    template: Template,
}

#[derive(Serialize)]
struct Template {
    #[serde(flatten)]
    template: PodTemplate,
    #[serde(rename = "users_digest")]
    users_digest: u64,
}

impl Deployment {
    /// Reads a Deployment.
    pub fn decode(message: &[u8]) -> Result<Self, TranslationError> {
        let messages::Deployment {
            metadata,
            spec,
            status,
        } = messages::Deployment::decode(message)?;
        let spec = spec.unwrap_or_default();
        Ok(Self {
            metadata: Metadata::decode(&metadata)?,
            spec: Spec::of(&spec)?,
            status,
        })
    }
}

impl Metadata {
    fn decode(message: &[u8]) -> Result<Self, TranslationError> {
        let Management { managed_fields } = Management::decode(message)?;
        let of_spec = managed_fields
            .into_iter()
            .filter(|entry| entry.subresource.is_empty());
        let managed_fields = of_spec.map(Entry::of).collect::<Result<_, _>>()?;
        Ok(Self {
            metadata: ObjectMeta::decode(message)?,
            managed_fields,
        })
    }
}

impl Entry {
    fn of(
        ManagedFields {
            manager,
            time,
            fields_v1,
            ..
        }: ManagedFields,
    ) -> Result<Self, TranslationError> {
        let fields = fields_v1.map(|fields| String::from_utf8_lossy(&fields.json).into_owned());
        let fields_v1 = fields
            .filter(|json| !json.is_empty())
            .map(RawValue::from_string)
            .transpose()?;
        Ok(Self {
            manager,
            time,
            fields_v1,
        })
    }
}

impl Spec {
    fn of(spec: &messages::DeploymentSpec) -> Result<Self, TranslationError> {
        let users_digest = fnv1a(&without_ours(&spec.template)?);
        let template = Template {
            template: PodTemplate::decode(spec.template.as_slice())?,
            users_digest,
        };
        let &messages::DeploymentSpec {
            replicas,
            paused,
            progress_deadline_seconds,
            ..
        } = spec;
        Ok(Self {
            replicas,
            paused,
            progress_deadline_seconds,
            template,
        })
    }
}

/// The bytes of a pod template less what Pointsman writes. The API server writes the same bytes for the same object.
fn without_ours(template: &[u8]) -> Result<Vec<u8>, TranslationError> {
    let mut kept = Vec::with_capacity(template.len());
    for field in fields(template)? {
        match field.number {
            number::TEMPLATE_METADATA => keep(&mut kept, field.value, |inner| {
                Ok(match inner.number {
                    number::CREATION_TIMESTAMP => false,
                    number::LABELS => !is_ours(Part::Label, first_string(inner)?),
                    number::ANNOTATIONS => !is_ours(Part::Annotation, first_string(inner)?),
                    _ => true,
                })
            })?,
            number::TEMPLATE_SPEC => keep_spec(&mut kept, field.value)?,
            _ => kept.extend_from_slice(field.whole),
        }
    }
    Ok(kept)
}

fn keep_spec(kept: &mut Vec<u8>, spec: &[u8]) -> Result<(), TranslationError> {
    for field in fields(spec)? {
        if field.number == number::CONTAINERS {
            // What belongs to one container is told from what belongs to the next.
            kept.push(0);
            keep(kept, field.value, |inner| {
                Ok(inner.number != number::ENV || !is_ours(Part::Variable, first_string(inner)?))
            })?;
        } else {
            kept.extend_from_slice(field.whole);
        }
    }
    Ok(())
}

fn keep(
    kept: &mut Vec<u8>,
    message: &[u8],
    is_kept: impl Fn(&Field<'_>) -> Result<bool, TranslationError>,
) -> Result<(), TranslationError> {
    for field in fields(message)? {
        if is_kept(&field)? {
            kept.extend_from_slice(field.whole);
        }
    }
    Ok(())
}

/// The first field of a message, where it is a string: the key of a map's entry, or the name of a variable.
fn first_string<'a>(field: &Field<'a>) -> Result<&'a str, TranslationError> {
    let first = fields(field.value)?
        .into_iter()
        .find(|inner| inner.number == 1);
    Ok(first
        .and_then(|first| std::str::from_utf8(first.value).ok())
        .unwrap_or_default())
}

/// A field as it is on the wire.
struct Field<'a> {
    number: u32,
    /// Its bytes, number and length included.
    whole: &'a [u8],
    /// Its bytes without those; nothing where it is a number.
    value: &'a [u8],
}

/// The fields of a message. Source: <https://protobuf.dev/programming-guides/encoding/>.
fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, TranslationError> {
    let (mut fields, mut rest) = (Vec::new(), message);
    while !rest.is_empty() {
        let begin = rest;
        let key = prost::decode_length_delimiter(&mut rest)?;
        let value = match key & 7 {
            0 => {
                prost::decode_length_delimiter(&mut rest)?;
                &[]
            }
            1 => cut(&mut rest, 8)?,
            2 => {
                let length = prost::decode_length_delimiter(&mut rest)?;
                cut(&mut rest, length)?
            }
            5 => cut(&mut rest, 4)?,
            _ => return Err(TranslationError::Wire),
        };
        let number = u32::try_from(key >> 3).unwrap_or_default();
        fields.push(Field {
            number,
            whole: &begin[..begin.len() - rest.len()],
            value,
        });
    }
    Ok(fields)
}

fn cut<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], TranslationError> {
    let (value, after) = rest
        .split_at_checked(length)
        .ok_or(TranslationError::Wire)?;
    *rest = after;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::super::messages::{Container, Elsewhere, EnvVar, FieldsV1, PodSpec, TemplateMeta};
    use super::*;
    use crate::api::names;
    use crate::targets::Workload;

    fn variable(name: &str, value: &str) -> EnvVar {
        EnvVar {
            name: name.to_owned(),
            value: value.to_owned(),
            value_from: None,
        }
    }

    fn template(annotations: &[(&str, &str)], env: Vec<EnvVar>) -> PodTemplate {
        let pairs = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let metadata = TemplateMeta {
            labels: pairs(&[("app", "taxi")]),
            annotations: pairs(annotations),
        };
        let containers = vec![Container {
            name: "server".to_owned(),
            env,
        }];
        PodTemplate {
            metadata: Some(metadata),
            spec: Some(PodSpec { containers }),
        }
    }

    fn digested(template: &PodTemplate) -> Vec<u8> {
        without_ours(&template.encode_to_vec()).unwrap()
    }

    fn read(deployment: &messages::Deployment) -> Workload {
        let json = serde_json::to_string(&Deployment::decode(&deployment.encode_to_vec()).unwrap())
            .unwrap();
        serde_json::from_str::<Workload>(&json).unwrap()
    }

    #[test]
    fn what_pointsman_writes_and_a_restart_are_no_change_of_the_template() {
        let users = template(&[("mine", "1")], vec![variable("PORT", "80")]);
        let ours = template(
            &[
                ("mine", "1"),
                (names::VERSION_ANNOTATION, "3"),
                (names::RESTARTED_AT_ANNOTATION, "now"),
            ],
            vec![
                variable("PORT", "80"),
                variable(names::MODEL_URI, "s3://m/3"),
            ],
        );
        assert_eq!(digested(&ours), digested(&users));
    }

    #[test]
    fn another_variable_annotation_or_container_is_a_change_of_the_template() {
        let users = template(&[("mine", "1")], vec![variable("PORT", "80")]);
        let mut other = users.clone();
        other.spec.as_mut().unwrap().containers.push(Container {
            name: "sidecar".to_owned(),
            env: Vec::new(),
        });
        for changed in [
            template(&[("mine", "2")], vec![variable("PORT", "80")]),
            template(&[("mine", "1")], vec![variable("PORT", "81")]),
            other,
        ] {
            assert_ne!(digested(&changed), digested(&users));
        }
    }

    #[test]
    fn a_deployment_in_protobuf_is_the_workload_that_json_would_be() {
        let secret = EnvVar {
            name: "KEY".to_owned(),
            value: String::new(),
            value_from: Some(Elsewhere {}),
        };
        let managed = |subresource: &str, json: &str| ManagedFields {
            manager: "kubectl".to_owned(),
            time: Some(Time {
                seconds: Some(1_795_593_600),
                nanos: 0,
            }),
            fields_v1: Some(FieldsV1 {
                json: json.as_bytes().to_vec(),
            }),
            subresource: subresource.to_owned(),
        };
        let wrote = r#"{"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"server\"}":{"f:env":{"k:{\"name\":\"MODEL_URI\"}":{}}}}}}}}"#;
        let managed_fields = vec![managed("", wrote), managed("status", "{}")];
        let metadata = ObjectMeta {
            name: "taxi".to_owned(),
            generation: Some(4),
            ..ObjectMeta::default()
        };
        let metadata = [
            metadata.encode_to_vec(),
            Management { managed_fields }.encode_to_vec(),
        ]
        .concat();
        let template = template(
            &[(names::VERSION_ANNOTATION, "3")],
            vec![variable(names::MODEL_VERSION, "3"), secret],
        );
        let spec = messages::DeploymentSpec {
            replicas: Some(2),
            template: template.encode_to_vec(),
            ..Default::default()
        };
        let status = DeploymentStatus {
            observed_generation: 4,
            updated_replicas: 1,
            ..DeploymentStatus::default()
        };
        let workload = read(&messages::Deployment {
            metadata,
            spec: Some(spec),
            status: Some(status),
        })
        .digested();
        assert_eq!(
            (workload.version(), workload.spec.replicas),
            (Some("3"), Some(2))
        );
        assert_eq!(workload.spec.progress_deadline_seconds, None);
        assert!(
            workload.is_observed() && workload.env("server", "KEY").unwrap().value_from.is_some()
        );
        assert_eq!(
            workload.owners.last_template_writer().unwrap().manager,
            "kubectl"
        );
        assert_eq!(
            workload.spec.template.users_digest,
            fnv1a(&digested(&template))
        );
    }

    #[test]
    fn a_template_that_ends_too_early_is_refused() {
        let mut cut_off = template(&[], Vec::new()).encode_to_vec();
        cut_off.pop();
        assert!(without_ours(&cut_off).is_err());
    }
}
