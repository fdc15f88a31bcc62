//! A value as JSON, compressed with LZ4 against a dictionary: the JSON of another value of the same type.
//!
//! With the dictionary ten thousand bindings fit the memory goal, without it they do not; see docs/decisions.
//!
//! Absent: objects of the cluster.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use lz4_flex::block::{
    DecompressError, compress_prepend_size_with_dict, decompress_size_prepended_with_dict,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::kubernetes::lock::lock;

/// How many values a dictionary serves at least, so that dictionaries are few beside the values.
const MIN_USES: usize = 128;
/// LZ4 refers back 64 kB at most, so a longer dictionary is of no use.
const MAX_DICTIONARY: usize = 60_000;
/// A compressed value is small if it has at most one in so many of the bytes of its JSON.
const SMALL: usize = 4;

/// The dictionary of each type. Values keep the one that they were compressed with.
static DICTIONARIES: LazyLock<Mutex<HashMap<TypeId, Dictionary>>> = LazyLock::new(Mutex::default);

#[derive(Clone, Default)]
struct Dictionary {
    json: Arc<[u8]>,
    uses: usize,
}

/// A value's JSON, compressed. Equal values are equal here.
#[derive(Clone)]
pub struct Compressed {
    bytes: Arc<[u8]>,
    dictionary: Arc<[u8]>,
}

/// Why a compressed value cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// The bytes are not LZ4.
    #[error("cannot be decompressed: {0}")]
    Bytes(#[from] DecompressError),
    /// The JSON does not fit the type.
    #[error("cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

impl Compressed {
    /// Encodes and compresses a value. One that its type's dictionary does not suit may become the next dictionary.
    pub fn of<T: Serialize + 'static>(value: &T) -> Self {
        // A value that was read from JSON can be written; if not, its empty bytes are an error for the reader.
        let json = serde_json::to_vec(value).unwrap_or_default();
        let mut dictionaries = lock(&DICTIONARIES);
        let dictionary = dictionaries.entry(TypeId::of::<T>()).or_default();
        dictionary.uses += 1;
        let compressed = Self::with(&json, &dictionary.json);
        let is_small = compressed.bytes.len() * SMALL <= json.len();
        let is_needed = dictionary.json.is_empty() || dictionary.uses > MIN_USES;
        if is_small || !is_needed || json.len() > MAX_DICTIONARY {
            return compressed;
        }
        *dictionary = Dictionary {
            json: json.as_slice().into(),
            uses: 1,
        };
        Self::with(&json, &dictionary.json)
    }

    fn with(json: &[u8], dictionary: &Arc<[u8]>) -> Self {
        Self {
            bytes: compress_prepend_size_with_dict(json, dictionary).into(),
            dictionary: Arc::clone(dictionary),
        }
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// If the value cannot be written as JSON, or the JSON cannot be read as the value.
    pub fn decompress<T: DeserializeOwned>(&self) -> Result<T, CompressError> {
        Ok(serde_json::from_slice(&self.json()?)?)
    }

    fn json(&self) -> Result<Vec<u8>, DecompressError> {
        decompress_size_prepended_with_dict(&self.bytes, &self.dictionary)
    }
}

impl PartialEq for Compressed {
    fn eq(&self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.dictionary, &other.dictionary) {
            return self.bytes == other.bytes;
        }
        match (self.json(), other.json()) {
            (Ok(json), Ok(other)) => json == other,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    /// A type of its own for each test: tests share the dictionaries of a process.
    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Value<const TEST: usize>(BTreeMap<String, String>);

    fn value<const TEST: usize>(number: usize) -> Value<TEST> {
        let field = |name: usize| {
            let value = format!("value {} of {number}", name % 7);
            (format!("field {name}"), value)
        };
        Value((0..40).map(field).collect())
    }

    /// A value that has little in common with the others.
    fn other<const TEST: usize>(number: usize) -> Value<TEST> {
        let word = |word: usize| (number * 7919 + word * 104_729).to_string();
        Value((0..60).map(|each| (word(each), word(each + 1))).collect())
    }

    #[test]
    fn a_value_is_decoded_as_it_was_encoded() {
        for number in 0..500 {
            let compressed = Compressed::of(&value::<0>(number));
            assert_eq!(compressed.decompress().ok(), Some(value::<0>(number)));
        }
    }

    #[test]
    fn compressed_values_are_equal_if_and_only_if_the_values_are() {
        let before = Compressed::of(&value::<1>(1));
        for number in 0..MIN_USES * 2 {
            Compressed::of(&other::<1>(number));
        }
        let after = Compressed::of(&value::<1>(1));
        assert!(!Arc::ptr_eq(&before.dictionary, &after.dictionary));
        assert!(before == after && after == Compressed::of(&value::<1>(1)));
        assert!(before != Compressed::of(&value::<1>(2)));
        assert!(after != Compressed::of(&value::<1>(2)));
    }

    #[test]
    fn fields_that_values_have_in_common_take_almost_no_bytes() {
        Compressed::of(&value::<2>(0));
        let json = serde_json::to_vec(&value::<2>(1)).unwrap();
        assert!(Compressed::of(&value::<2>(1)).bytes.len() * 3 < json.len());
    }

    #[test]
    fn values_of_another_shape_get_few_dictionaries_of_their_own() {
        Compressed::of(&value::<3>(0));
        let others: Vec<Compressed> = (0..MIN_USES * 4)
            .map(|number| Compressed::of(&other::<3>(number)))
            .collect();
        let mut dictionaries: Vec<*const u8> =
            others.iter().map(|each| each.dictionary.as_ptr()).collect();
        dictionaries.dedup();
        assert!((2..=5).contains(&dictionaries.len()));
        for (number, compressed) in others.iter().enumerate() {
            assert_eq!(compressed.decompress().ok(), Some(other::<3>(number)));
        }
    }

    #[test]
    fn a_value_that_is_longer_than_a_dictionary_may_be_is_compressed() {
        let long: Vec<usize> = (0..100_000).collect();
        assert_eq!(Compressed::of(&long).decompress().ok(), Some(long));
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        let compressed = Compressed::of(&value::<4>(0));
        assert!(compressed.decompress::<Vec<usize>>().is_err());
    }
}
