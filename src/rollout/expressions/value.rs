//! The values of expressions, and the facts that they come from.
//!
//! Absent: operations.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::node::Literal;
use super::types::{Field, RootVariable};
use crate::api::registered_model::{CodeLineage, Dataset};
use crate::api::{AliasBinding, ModelVersion};

/// What expressions may read.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The version that would go forward.
    pub candidate: &'a ModelVersion,
    /// The version that runs.
    pub current: Option<&'a ModelVersion>,
    /// The registered model.
    pub model: &'a ModelFacts,
    /// The binding.
    pub binding: &'a AliasBinding,
    /// The present.
    pub now: Timestamp,
}

/// What expressions may read of the registered model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelFacts {
    /// Its name in the registry.
    pub name: String,
    /// The newest version's number.
    pub latest_version: Option<String>,
    /// The version that each mirrored alias names.
    pub aliases: BTreeMap<String, String>,
}

/// Why an expression is neither true nor false.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unknown {
    /// It reads the current version, and there is none.
    NoCurrent,
    /// It reads a value that is not there.
    Absent(String),
    /// It reads a value that is not known, or cannot be calculated.
    Because(String),
}

impl Unknown {
    pub(super) fn because<T>(reason: impl Into<String>) -> Result<T, Self> {
        Err(Self::Because(reason.into()))
    }
}

/// The owner of a value, as messages name it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ValueOwner {
    /// The candidate.
    Candidate,
    /// The current version.
    Current,
    /// The registered model.
    Model,
    /// The binding.
    Binding,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Double(f64),
    /// A text.
    String(Cow<'a, str>),
    /// A moment.
    Timestamp(Timestamp),
    /// A time between two moments.
    Duration(SignedDuration),
    /// `null`
    Null,
    /// A record.
    Record(RecordValue<'a>),
    /// A map.
    Map(MapValue<'a>),
    /// A list.
    List(Vec<Self>),
}

/// A record.
#[derive(Clone, Copy, Debug)]
pub enum RecordValue<'a> {
    /// A version.
    Version(ValueOwner, &'a ModelVersion),
    /// The code that trained a version, if it is known.
    Code(ValueOwner, Option<&'a CodeLineage>),
    /// A data set.
    Dataset(ValueOwner, &'a Dataset),
    /// The registered model.
    Model(&'a ModelFacts),
    /// The binding.
    Binding(&'a AliasBinding),
}

/// A map.
#[derive(Clone, Copy, Debug)]
pub struct MapValue<'a> {
    owner: ValueOwner,
    /// One of its entries, as messages name it.
    entry: &'static str,
    /// Whether the values are numbers.
    is_numeric: bool,
    entries: Option<&'a BTreeMap<String, String>>,
    /// Why the entries are not known, if they are not.
    unknown: &'static str,
}

impl<'a> Facts<'a> {
    /// The value of a variable.
    #[must_use]
    pub fn variable(&self, variable: RootVariable) -> Value<'a> {
        Value::Record(match variable {
            RootVariable::Candidate => RecordValue::Version(ValueOwner::Candidate, self.candidate),
            RootVariable::Current => match self.current {
                Some(current) => RecordValue::Version(ValueOwner::Current, current),
                None => return Value::Null,
            },
            RootVariable::Model => RecordValue::Model(self.model),
            RootVariable::Binding => RecordValue::Binding(self.binding),
            RootVariable::Now => return Value::Timestamp(self.now),
        })
    }
}

impl<'a> RecordValue<'a> {
    fn owner(self) -> ValueOwner {
        match self {
            Self::Version(owner, _) | Self::Code(owner, _) | Self::Dataset(owner, _) => owner,
            Self::Model(_) => ValueOwner::Model,
            Self::Binding(_) => ValueOwner::Binding,
        }
    }

    /// The value of a field.
    ///
    /// # Errors
    /// If it is missing.
    pub fn field(self, field: Field, now: Timestamp) -> Result<Value<'a>, Unknown> {
        let found = match self {
            Self::Version(owner, version) => version_field(owner, version, field, now),
            Self::Code(_, code) => code.and_then(|code| code_field(code, field)).map(text),
            Self::Dataset(_, dataset) => dataset_field(dataset, field).map(text),
            Self::Model(model) => model_field(model, field),
            Self::Binding(binding) => binding_field(binding, field),
        };
        let (owner, name) = (self.owner(), field.name());
        let group = match self {
            Self::Code(..) => "code.",
            Self::Dataset(..) => "dataset ",
            _ => "",
        };
        found.ok_or_else(|| Unknown::Absent(format!("{owner} has no {group}{name}")))
    }
}

fn text(text: &str) -> Value<'_> {
    Value::String(Cow::Borrowed(text))
}

const OMITTED: &str = "its details are left out of the mirror";
const UNREAD: &str = "its tags were not read yet";

fn version_field(
    owner: ValueOwner,
    version: &ModelVersion,
    field: Field,
    now: Timestamp,
) -> Option<Value<'_>> {
    let created_at = version.created_at.as_ref().map(|at| at.0);
    let detail = |entry, is_numeric, entries| {
        let is_omitted = version.details_omitted && BTreeMap::is_empty(entries);
        Value::Map(MapValue {
            owner,
            entry,
            is_numeric,
            entries: (!is_omitted).then_some(entries),
            unknown: OMITTED,
        })
    };
    Some(match field {
        Field::Version => text(&version.version),
        Field::Metrics => detail("metric", true, &version.metrics),
        Field::Parameters => detail("parameter", false, &version.parameters),
        Field::Tags => Value::Map(MapValue {
            owner,
            entry: "tag",
            is_numeric: false,
            entries: version.tags.as_ref(),
            unknown: if version.details_omitted {
                OMITTED
            } else {
                UNREAD
            },
        }),
        Field::DurationSeconds => Value::Int(version.duration_seconds?),
        Field::SizeBytes => Value::Int(version.size_bytes?),
        Field::CreatedAt => Value::Timestamp(created_at?),
        Field::Age => Value::Duration(now.duration_since(created_at?)),
        Field::CreatedBy => text(version.created_by.as_ref()?),
        Field::RunId => text(version.run_id.as_ref()?),
        Field::Source => text(version.source.as_ref()?),
        Field::ArtifactUri => text(version.artifact_uri.as_ref()?),
        Field::Code => Value::Record(RecordValue::Code(owner, version.code.as_ref())),
        Field::Datasets => {
            if version.details_omitted && version.datasets.is_empty() {
                return None;
            }
            let datasets = version.datasets.iter();
            let datasets = datasets.map(|each| Value::Record(RecordValue::Dataset(owner, each)));
            Value::List(datasets.collect())
        }
        _ => return None,
    })
}

fn code_field(code: &CodeLineage, field: Field) -> Option<&str> {
    match field {
        Field::Repository => code.repository.as_deref(),
        Field::Commit => code.commit.as_deref(),
        Field::Branch => code.branch.as_deref(),
        Field::EntryPoint => code.entry_point.as_deref(),
        _ => None,
    }
}

fn dataset_field(dataset: &Dataset, field: Field) -> Option<&str> {
    match field {
        Field::DatasetName => Some(&dataset.name),
        Field::Digest => dataset.digest.as_deref(),
        Field::Context => dataset.context.as_deref(),
        _ => None,
    }
}

fn model_field(model: &ModelFacts, field: Field) -> Option<Value<'_>> {
    match field {
        Field::ModelName => Some(text(&model.name)),
        Field::LatestVersion => Some(text(model.latest_version.as_ref()?)),
        Field::Aliases => Some(map(ValueOwner::Model, "alias", Some(&model.aliases))),
        _ => None,
    }
}

fn binding_field(binding: &AliasBinding, field: Field) -> Option<Value<'_>> {
    let metadata = &binding.metadata;
    match field {
        Field::BindingName => Some(text(metadata.name.as_ref()?)),
        Field::Namespace => Some(text(metadata.namespace.as_ref()?)),
        Field::Alias => Some(text(binding.spec.follows())),
        Field::Labels => {
            static NONE: BTreeMap<String, String> = BTreeMap::new();
            let labels = metadata.labels.as_ref().unwrap_or(&NONE);
            Some(map(ValueOwner::Binding, "label", Some(labels)))
        }
        _ => None,
    }
}

fn map<'a>(
    owner: ValueOwner,
    entry: &'static str,
    entries: Option<&'a BTreeMap<String, String>>,
) -> Value<'a> {
    Value::Map(MapValue {
        owner,
        entry,
        is_numeric: false,
        entries,
        unknown: "",
    })
}

impl<'a> MapValue<'a> {
    /// The entries.
    ///
    /// # Errors
    /// If they are not known.
    pub fn entries(self) -> Result<&'a BTreeMap<String, String>, Unknown> {
        let Self {
            owner,
            entry,
            unknown,
            ..
        } = self;
        self.entries
            .ok_or_else(|| Unknown::Because(format!("{owner} has no {entry}s: {unknown}")))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// If it is missing, or is not a number although all values are numbers.
    pub fn get(self, key: &str) -> Result<Value<'a>, Unknown> {
        let Self { owner, entry, .. } = self;
        let Some(entries) = self.entries else {
            let unknown = self.unknown;
            return Unknown::because(format!("{owner} has no {entry} {key}: {unknown}"));
        };
        let Some(value) = entries.get(key) else {
            return Err(Unknown::Absent(format!("{owner} has no {entry} {key}")));
        };
        if !self.is_numeric {
            return Ok(text(value));
        }
        match value.parse::<f64>() {
            Ok(number) if !number.is_nan() => Ok(Value::Double(number)),
            _ => Unknown::because(format!("{entry} {key} of {owner} is {value}")),
        }
    }
}

impl Literal {
    /// Its value.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Double(value) => Value::Double(*value),
            Self::String(value) => text(value),
            Self::Timestamp(value) => Value::Timestamp(*value),
            Self::Duration(value) => Value::Duration(*value),
            Self::Null => Value::Null,
        }
    }
}

impl Value<'_> {
    /// The value as people read it; `None` for a record, map or list.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        Some(match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
            Self::String(value) => value.clone().into_owned(),
            Self::Timestamp(value) => value.to_string(),
            Self::Duration(value) => value.to_string(),
            Self::Null | Self::Record(_) | Self::Map(_) | Self::List(_) => return None,
        })
    }
}

impl fmt::Display for ValueOwner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Candidate => "candidate",
            Self::Current => "current",
            Self::Model => "model",
            Self::Binding => "binding",
        })
    }
}
