//! The size of a mirror: what is left out so that the API server accepts the status.
//!
//! Absent: which versions are needed most. They come in that order.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::api::registered_model::MirroredAlias;
use crate::api::{ModelVersion, Reason, RegisteredModel, reason::Problem};

/// The most bytes of an object: etcd accepts 1.5 MiB with the key, and the API server adds field owners.
const MAX_OBJECT: usize = 1_200_000;
/// The most bytes of the aliases, so that there is room for their versions.
const MAX_ALIASES: usize = 400_000;

/// How many bytes of versions a model's status has room for beside its spec and aliases.
pub fn room(model: &RegisteredModel, aliases: &[MirroredAlias]) -> usize {
    let others = size(&model.spec) + size(&model.metadata) + size(aliases);
    MAX_OBJECT.saturating_sub(others)
}

/// Drops the last aliases until the rest fits. Returns how many were dropped.
pub fn cut_aliases(aliases: &mut Vec<MirroredAlias>) -> usize {
    let mut used = 0;
    let fitting = aliases.iter().take_while(|alias| {
        used += size(alias);
        used <= MAX_ALIASES
    });
    let fitting = fitting.count();
    let dropped = aliases.len() - fitting;
    aliases.truncate(fitting);
    dropped
}

/// The size of a version without its details. More versions than have room even so are not requested.
pub fn least_size(version: &ModelVersion) -> usize {
    size(&without_details(version.clone()))
}

/// The versions that fit: as many as possible, and details as far as there is room for them.
pub fn fit(versions: Vec<ModelVersion>, room: usize) -> Vec<ModelVersion> {
    let mut left = room;
    let mut kept = Vec::with_capacity(versions.len());
    for version in versions {
        let Some(rest) = left.checked_sub(least_size(&version)) else {
            break;
        };
        left = rest;
        kept.push(version);
    }
    for version in &mut kept {
        let details = size(version).saturating_sub(least_size(version));
        match left.checked_sub(details) {
            Some(rest) => left = rest,
            None => *version = without_details(std::mem::take(version)),
        }
    }
    kept
}

fn without_details(version: ModelVersion) -> ModelVersion {
    let has_details = !version.metrics.is_empty()
        || !version.parameters.is_empty()
        || version.tags.is_some()
        || !version.datasets.is_empty();
    ModelVersion {
        details_omitted: version.details_omitted || has_details,
        metrics: BTreeMap::new(),
        parameters: BTreeMap::new(),
        tags: None,
        datasets: Vec::new(),
        ..version
    }
}

/// The problem of a mirror that lacks needed aliases or versions.
pub fn truncated(model: &str, lacking: usize) -> Problem {
    let message = format!(
        "{lacking} followed aliases or versions of model {model:?} are not mirrored, because an object holds 1.5 MB: let some bindings follow another RegisteredModel with the same modelName"
    );
    Problem::new(Reason::MirrorTruncated, message)
}

/// The size of a value as JSON as the API server writes it.
fn size<T: Serialize + ?Sized>(value: &T) -> usize {
    let mut counter = ByteCounter(0);
    // Counting cannot fail, and neither can the types of a status.
    _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

struct ByteCounter(usize);

impl Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The API server writes <, > and & as six bytes each.
        let escaped = bytes.iter().filter(|byte| b"<>&".contains(byte)).count();
        self.0 += bytes.len() + 5 * escaped;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: usize, details: usize) -> ModelVersion {
        let mut version = ModelVersion {
            version: number.to_string(),
            artifact_uri: Some(format!("s3://models/{number}")),
            ..ModelVersion::default()
        };
        if details > 0 {
            let parameter = ("p".to_owned(), "x".repeat(details));
            version.parameters.extend([parameter]);
        }
        version
    }

    fn numbers(fitting: &[ModelVersion]) -> Vec<&str> {
        let versions = fitting.iter();
        versions.map(|version| version.version.as_str()).collect()
    }

    fn omitted(fitting: &[ModelVersion]) -> Vec<bool> {
        let versions = fitting.iter();
        versions.map(|version| version.details_omitted).collect()
    }

    #[test]
    fn details_of_the_least_needed_versions_are_left_out_first() {
        let all = vec![version(1, 400), version(2, 400), version(3, 400)];
        let fitting = fit(all.clone(), 1100);
        assert_eq!(numbers(&fitting), ["1", "2", "3"]);
        assert_eq!(omitted(&fitting), [false, false, true]);
        assert!(size(&fitting) <= 1100);
        assert_eq!(fit(fitting.clone(), 1100), fitting, "it is stable");
        assert_eq!(fit(all.clone(), 10_000), all);
    }

    #[test]
    fn versions_are_left_out_only_if_they_do_not_fit_without_details() {
        let all = vec![version(1, 400), version(2, 400), version(3, 400)];
        let fitting = fit(all, 150);
        assert_eq!(numbers(&fitting), ["1", "2"]);
        assert_eq!(omitted(&fitting), [true, true]);
    }

    #[test]
    fn a_sign_that_the_api_server_escapes_counts_as_it_is_written() {
        assert_eq!(size("a<b"), size("axb") + 5);
    }
}
