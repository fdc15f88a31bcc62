//! Values of one type, compressed into few bytes: what most of them have in common is kept once.
//!
//! Absent: objects of the cluster, and where packets lie.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How many values are compressed before another sample may be taken: so that samples are few beside what refers to them.
const LEAST_OF_A_SAMPLE: usize = 128;
/// The longest sample: further back than this nothing is referred to.
const LONGEST_SAMPLE: usize = 60_000;
/// A packet is good where it has at most one in so many of its value's bytes.
const GOOD: usize = 4;

/// A value as it is before it is compressed: written once, whether it is compared, compressed or both.
pub struct Encoded(Vec<u8>);

/// A compressed value. It refers to the sample that it was compressed against.
#[derive(Clone)]
pub struct Compressed {
    bytes: Arc<[u8]>,
    sample: Arc<Box<[u8]>>,
}

/// Packs values of one type: JSON, compressed against a sample, which is one of them.
#[derive(Default)]
pub struct Compressor {
    sample: Arc<Box<[u8]>>,
    /// How many values were compressed against it.
    compressed: usize,
}

impl Compressor {
    /// Packs a value. One that has little in common with the sample may become the next one.
    pub fn compress(&mut self, Encoded(whole): &Encoded) -> Compressed {
        let compressed = self.against_sample(whole);
        let is_poor = compressed.bytes.len() * GOOD > whole.len() && whole.len() <= LONGEST_SAMPLE;
        if !is_poor || (!self.sample.is_empty() && self.compressed < LEAST_OF_A_SAMPLE) {
            return compressed;
        }
        (self.sample, self.compressed) = (Arc::new(whole.clone().into()), 0);
        self.against_sample(whole)
    }

    fn against_sample(&mut self, whole: &[u8]) -> Compressed {
        self.compressed += 1;
        let bytes = lz4_flex::block::compress_prepend_size_with_dict(whole, &self.sample);
        Compressed {
            bytes: bytes.into(),
            sample: Arc::clone(&self.sample),
        }
    }
}

impl Compressed {
    /// The value.
    #[must_use]
    pub fn decompress<T: DeserializeOwned>(&self) -> Option<T> {
        let told = |error: &dyn std::fmt::Display| tracing::error!(%error, "a compressed value cannot be read");
        let whole = self.whole().inspect_err(|error| told(error)).ok()?;
        serde_json::from_slice(&whole)
            .inspect_err(|error| told(error))
            .ok()
    }

    /// Whether it is this value.
    #[must_use]
    pub fn is(&self, Encoded(value): &Encoded) -> bool {
        self.whole().is_ok_and(|whole| whole == *value)
    }

    fn whole(&self) -> Result<Vec<u8>, lz4_flex::block::DecompressError> {
        lz4_flex::block::decompress_size_prepended_with_dict(&self.bytes, &self.sample)
    }
}

impl Encoded {
    /// Writes a value.
    pub fn of<T: Serialize>(value: &T) -> Self {
        // What was read as JSON can be written; an empty packet would read as a value that is gone.
        Self(serde_json::to_vec(value).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn whole(number: usize) -> Encoded {
        Encoded::of(&value(number))
    }

    fn value(number: usize) -> BTreeMap<String, String> {
        let field = |name: usize| {
            (
                format!("field {name}"),
                format!("value {} of {number}", name % 7),
            )
        };
        (0..40).map(field).collect()
    }

    #[test]
    fn what_is_packed_is_unpacked_as_it_was() {
        let mut compressor = Compressor::default();
        let all: Vec<Compressed> = (0..500)
            .map(|number| compressor.compress(&whole(number)))
            .collect();
        for (number, each) in all.iter().enumerate() {
            assert_eq!(each.decompress(), Some(value(number)));
            assert!(each.is(&whole(number)) && !each.is(&whole(number + 1)));
        }
    }

    #[test]
    fn what_values_have_in_common_is_kept_once() {
        let mut compressor = Compressor::default();
        compressor.compress(&whole(0));
        let (beside, Encoded(alone)) = (compressor.compress(&whole(1)), whole(1));
        assert!(
            beside.bytes.len() * 3 < alone.len(),
            "{} of {} bytes",
            beside.bytes.len(),
            alone.len()
        );
    }

    #[test]
    fn values_of_another_shape_get_a_sample_of_their_own_and_not_one_each() {
        let mut compressor = Compressor::default();
        compressor.compress(&whole(0));
        let words = |number: usize| {
            (0..60)
                .map(|word| (number * 7919 + word * 104_729).to_string())
                .collect::<Vec<_>>()
        };
        let all: Vec<Compressed> = (0..LEAST_OF_A_SAMPLE * 4)
            .map(|number| compressor.compress(&Encoded::of(&words(number))))
            .collect();
        let mut samples: Vec<*const Box<[u8]>> =
            all.iter().map(|each| Arc::as_ptr(&each.sample)).collect();
        samples.dedup();
        assert!(
            (2..=5).contains(&samples.len()),
            "{} samples",
            samples.len()
        );
        assert!(
            all.iter()
                .enumerate()
                .all(|(number, each)| each.is(&Encoded::of(&words(number))))
        );
    }

    #[test]
    fn what_is_longer_than_a_sample_may_be_is_packed_all_the_same() {
        let long: Vec<usize> = (0..100_000).collect();
        assert_eq!(
            Compressor::default()
                .compress(&Encoded::of(&long))
                .decompress(),
            Some(long)
        );
    }
}
