//! One value as JSON, compressed with LZ4.
//!
//! Absent: dictionaries. They halve the bytes of similar objects, but not enough to matter; see docs/decisions.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value's JSON, compressed. Equal values are equal here.
#[derive(Clone, Eq, PartialEq)]
pub struct Compressed(Arc<[u8]>);

/// Why a compressed value cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// The bytes are not LZ4.
    #[error("cannot be decompressed: {0}")]
    Bytes(#[from] lz4_flex::block::DecompressError),
    /// The JSON does not fit the type.
    #[error("cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

impl Compressed {
    /// Encodes and compresses a value.
    pub fn of<T: Serialize>(value: &T) -> Self {
        // A value that was read from JSON can be written; if not, its empty bytes are an error for the reader.
        let json = serde_json::to_vec(value).unwrap_or_default();
        Self(lz4_flex::block::compress_prepend_size(&json).into())
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// If the value cannot be written as JSON, or the JSON cannot be read as the value.
    pub fn decompress<T: DeserializeOwned>(&self) -> Result<T, CompressError> {
        let json = lz4_flex::block::decompress_size_prepended(&self.0)?;
        Ok(serde_json::from_slice(&json)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn value(number: usize) -> BTreeMap<String, String> {
        (0..40)
            .map(|field| {
                (
                    format!("field {field}"),
                    format!("value {} of {number}", field % 7),
                )
            })
            .collect()
    }

    #[test]
    fn a_value_is_decoded_as_it_was_encoded() {
        for number in 0..500 {
            let compressed = Compressed::of(&value(number));
            assert_eq!(
                compressed.decompress::<BTreeMap<_, _>>().ok(),
                Some(value(number))
            );
        }
    }

    #[test]
    fn compressed_values_are_equal_if_and_only_if_the_values_are() {
        assert!(Compressed::of(&value(1)) == Compressed::of(&value(1)));
        assert!(Compressed::of(&value(1)) != Compressed::of(&value(2)));
    }

    #[test]
    fn a_value_takes_fewer_bytes_than_its_json() {
        let json = serde_json::to_vec(&value(0)).unwrap();
        assert!(Compressed::of(&value(0)).0.len() * 2 < json.len());
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        assert!(
            Compressed::of(&value(0))
                .decompress::<Vec<usize>>()
                .is_err()
        );
        assert!(
            Compressed(Arc::from([]))
                .decompress::<Vec<usize>>()
                .is_err()
        );
    }
}
