//! The types of expressions, and the table of the variables and fields that they may read.
//!
//! Absent: values.

use std::fmt;

/// A type. Lists and maps hold no lists and no maps; the keys of a map are strings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// A simple type.
    Simple(Simple),
    /// The type of `null`.
    Null,
    /// A map from strings.
    Map(Simple),
    /// A list.
    List(Simple),
    /// A list without items.
    EmptyList,
}

/// A type that a list or map may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Simple {
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// Any other number.
    Double,
    /// A text.
    String,
    /// A moment.
    Timestamp,
    /// A time between two moments.
    Duration,
    /// An object with fields.
    Record(Record),
}

/// An object with fields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Record {
    /// A version of the model.
    Version,
    /// The code that trained a version.
    Code,
    /// A data set of a version.
    Dataset,
    /// The registered model.
    Model,
    /// The binding.
    Binding,
}

/// A variable that every expression may read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RootVariable {
    /// The version that would go forward.
    Candidate,
    /// The version that runs, or null.
    Current,
    /// The registered model.
    Model,
    /// The binding.
    Binding,
    /// The present.
    Now,
}

/// A field of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)] // docs/gates.md has the table
pub enum Field {
    Version,
    Metrics,
    Parameters,
    DurationSeconds,
    SizeBytes,
    Tags,
    CreatedAt,
    Age,
    CreatedBy,
    RunId,
    Source,
    ArtifactUri,
    Code,
    Datasets,
    Repository,
    Commit,
    Branch,
    EntryPoint,
    DatasetName,
    Digest,
    Context,
    ModelName,
    LatestVersion,
    Aliases,
    BindingName,
    Namespace,
    Alias,
    Labels,
}

const BOOL: Type = Type::Simple(Simple::Bool);
const INT: Type = Type::Simple(Simple::Int);
const STRING: Type = Type::Simple(Simple::String);
const TIMESTAMP: Type = Type::Simple(Simple::Timestamp);
const DURATION: Type = Type::Simple(Simple::Duration);

/// The variables, each with its name and type.
pub const VARIABLES: [(&str, RootVariable, Type); 5] = [
    (
        "candidate",
        RootVariable::Candidate,
        Type::record(Record::Version),
    ),
    (
        "current",
        RootVariable::Current,
        Type::record(Record::Version),
    ),
    ("model", RootVariable::Model, Type::record(Record::Model)),
    (
        "binding",
        RootVariable::Binding,
        Type::record(Record::Binding),
    ),
    ("now", RootVariable::Now, TIMESTAMP),
];

/// The numbers that have a name.
pub const CONSTANTS: [(&str, i64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// The fields of all records, each with its record, name and type.
#[rustfmt::skip]
pub const FIELDS: [(Record, &str, Field, Type); 28] = [
    (Record::Version, "version", Field::Version, STRING),
    (Record::Version, "metrics", Field::Metrics, Type::Map(Simple::Double)),
    (Record::Version, "parameters", Field::Parameters, Type::Map(Simple::String)),
    (Record::Version, "durationSeconds", Field::DurationSeconds, INT),
    (Record::Version, "sizeBytes", Field::SizeBytes, INT),
    (Record::Version, "tags", Field::Tags, Type::Map(Simple::String)),
    (Record::Version, "createdAt", Field::CreatedAt, TIMESTAMP),
    (Record::Version, "age", Field::Age, DURATION),
    (Record::Version, "createdBy", Field::CreatedBy, STRING),
    (Record::Version, "runID", Field::RunId, STRING),
    (Record::Version, "source", Field::Source, STRING),
    (Record::Version, "artifactURI", Field::ArtifactUri, STRING),
    (Record::Version, "code", Field::Code, Type::record(Record::Code)),
    (Record::Version, "datasets", Field::Datasets, Type::List(Simple::Record(Record::Dataset))),
    (Record::Code, "repository", Field::Repository, STRING),
    (Record::Code, "commit", Field::Commit, STRING),
    (Record::Code, "branch", Field::Branch, STRING),
    (Record::Code, "entryPoint", Field::EntryPoint, STRING),
    (Record::Dataset, "name", Field::DatasetName, STRING),
    (Record::Dataset, "digest", Field::Digest, STRING),
    (Record::Dataset, "context", Field::Context, STRING),
    (Record::Model, "name", Field::ModelName, STRING),
    (Record::Model, "latestVersion", Field::LatestVersion, STRING),
    (Record::Model, "aliases", Field::Aliases, Type::Map(Simple::String)),
    (Record::Binding, "name", Field::BindingName, STRING),
    (Record::Binding, "namespace", Field::Namespace, STRING),
    (Record::Binding, "alias", Field::Alias, STRING),
    (Record::Binding, "labels", Field::Labels, Type::Map(Simple::String)),
];

impl Type {
    /// True or false.
    pub const BOOL: Self = BOOL;
    /// A whole number.
    pub const INT: Self = INT;
    /// Any other number.
    pub const DOUBLE: Self = Self::Simple(Simple::Double);
    /// A text.
    pub const STRING: Self = STRING;
    /// A moment.
    pub const TIMESTAMP: Self = TIMESTAMP;
    /// A time between two moments.
    pub const DURATION: Self = DURATION;

    const fn record(record: Record) -> Self {
        Self::Simple(Simple::Record(record))
    }

    /// Whether it is a number.
    #[must_use]
    pub fn is_number(self) -> bool {
        self == Self::INT || self == Self::DOUBLE
    }

    /// The type of a value that is of one type or the other; `None` if there is none.
    #[must_use]
    pub fn common(self, other: Self) -> Option<Self> {
        match (self, other) {
            _ if self == other => Some(self),
            _ if self.is_number() && other.is_number() => Some(Self::DOUBLE),
            (Self::EmptyList, list @ Self::List(_)) | (list @ Self::List(_), Self::EmptyList) => {
                Some(list)
            }
            _ => None,
        }
    }
}

impl Record {
    /// The field of this name, with its type.
    #[must_use]
    pub fn field(self, name: &str) -> Option<(Field, Type)> {
        let mut fields = FIELDS.iter();
        let found = fields.find(|(record, field, ..)| *record == self && *field == name)?;
        Some((found.2, found.3))
    }

    /// The names of its fields.
    #[must_use]
    pub fn field_names(self) -> String {
        let own = FIELDS.iter().filter(|(record, ..)| *record == self);
        own.map(|(_, name, ..)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl Field {
    /// The field's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let mut fields = FIELDS.iter();
        fields
            .find(|(_, _, field, _)| *field == self)
            .map_or("", |(_, name, ..)| name)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(simple) => simple.fmt(formatter),
            Self::Null => formatter.write_str("null"),
            Self::Map(values) => write!(formatter, "map(string, {values})"),
            Self::List(items) => write!(formatter, "list({items})"),
            Self::EmptyList => formatter.write_str("list()"),
        }
    }
}

impl fmt::Display for Simple {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::String => "string",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Record(Record::Version) => "version",
            Self::Record(Record::Code) => "code",
            Self::Record(Record::Dataset) => "dataset",
            Self::Record(Record::Model) => "model",
            Self::Record(Record::Binding) => "binding",
        })
    }
}
