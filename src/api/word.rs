//! Words of an open list: reasons, outcomes and triggers in a status.
//!
//! Absent: the lists themselves. A word of another release is kept as it is, so that versions can be mixed.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A word: a known one, or one of another release.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word<T> {
    /// A word of this release.
    Known(T),
    /// A word of another release, kept as it was read.
    Other(String),
}

impl<T: Copy> Word<T> {
    /// The word, if this release knows it.
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(word) => Some(*word),
            Self::Other(_) => None,
        }
    }
}

impl<T> From<T> for Word<T> {
    fn from(word: T) -> Self {
        Self::Known(word)
    }
}

impl<T: PartialEq> PartialEq<T> for Word<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(word) if word == other)
    }
}

impl<T: fmt::Display> fmt::Display for Word<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(word) => word.fmt(formatter),
            Self::Other(word) => formatter.write_str(word),
        }
    }
}

impl<T: Serialize> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(word) => word.serialize(serializer),
            Self::Other(word) => serializer.serialize_str(word),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<'_, str>::deserialize(deserializer)?.into_owned();
        let known: StrDeserializer<'_, ValueError> = word.as_str().into_deserializer();
        match T::deserialize(known) {
            Ok(known) => Ok(Self::Known(known)),
            Err(_) => Ok(Self::Other(word)),
        }
    }
}

impl<T> JsonSchema for Word<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Z][A-Za-z0-9]*$", "maxLength": 64})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;

    #[test]
    fn a_word_of_another_release_is_kept() {
        let read: Vec<Word<Reason>> = serde_json::from_str(r#"["Live","Blocked9"]"#).unwrap();
        assert_eq!(
            read,
            [
                Word::Known(Reason::Live),
                Word::Other("Blocked9".to_owned())
            ]
        );
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            r#"["Live","Blocked9"]"#
        );
    }
}
