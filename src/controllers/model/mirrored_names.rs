//! The aliases and stages of a mirror, each with the time since when it names its version.
//!
//! Absent: the versions themselves.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::registered_model::{MirroredAlias, MirroredStage};

/// The most aliases that a status mirrors, unless more are followed.
const MAX_ALIASES: usize = 64;

/// The aliases for the status: all that are followed, and others as far as there is room.
pub fn mirrored_aliases(
    aliases: &BTreeMap<String, String>,
    old: &[MirroredAlias],
    followed: &BTreeSet<String>,
    now: Timestamp,
) -> Vec<MirroredAlias> {
    let mut ordered: Vec<(&String, &String)> = aliases.iter().collect();
    ordered.sort_by_key(|(name, _)| !followed.contains(*name));
    let all_followed = followed.iter().filter(|name| aliases.contains_key(*name));
    ordered.truncate(MAX_ALIASES.max(all_followed.count()));
    let mut mirrored = Vec::with_capacity(ordered.len());
    for (name, version) in ordered {
        let known = old
            .iter()
            .find(|alias| alias.name == *name && alias.version == *version);
        mirrored.push(MirroredAlias {
            name: name.clone(),
            version: version.clone(),
            since: known.map_or(Time(now), |alias| alias.since.clone()),
        });
    }
    mirrored
}

/// The stages for the status.
pub fn mirrored_stages(
    stages: &BTreeMap<String, String>,
    old: &[MirroredStage],
    now: Timestamp,
) -> Vec<MirroredStage> {
    let mut mirrored = Vec::with_capacity(stages.len());
    for (name, version) in stages {
        let known = old
            .iter()
            .find(|stage| stage.name == *name && stage.version == *version);
        mirrored.push(MirroredStage {
            name: name.clone(),
            version: version.clone(),
            since: known.map_or(Time(now), |stage| stage.since.clone()),
        });
    }
    mirrored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn names(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
            .collect()
    }

    #[test]
    fn the_time_of_an_alias_changes_with_its_version_only() {
        let none = BTreeSet::new();
        let first = mirrored_aliases(&names(&[("a", "1"), ("b", "1")]), &[], &none, at(1));
        let second = mirrored_aliases(&names(&[("a", "1"), ("b", "2")]), &first, &none, at(2));
        let since: Vec<_> = second.iter().map(|alias| alias.since.0).collect();
        assert_eq!(since, [at(1), at(2)]);
    }

    #[test]
    fn the_time_of_a_stage_changes_with_its_version_only() {
        let first = mirrored_stages(&names(&[("Production", "1")]), &[], at(1));
        let same = mirrored_stages(&names(&[("Production", "1")]), &first, at(2));
        assert_eq!(same[0].since, Time(at(1)));
        let moved = mirrored_stages(&names(&[("Production", "2")]), &first, at(2));
        assert_eq!(moved[0].since, Time(at(2)));
    }

    #[test]
    fn followed_aliases_are_mirrored_first() {
        let mut aliases = BTreeMap::new();
        for number in 0..MAX_ALIASES {
            aliases.insert(format!("a{number:03}"), "1".to_owned());
        }
        aliases.insert("z".to_owned(), "1".to_owned());
        let followed = BTreeSet::from(["z".to_owned()]);
        let mirrored = mirrored_aliases(&aliases, &[], &followed, at(1));
        assert_eq!(mirrored.len(), MAX_ALIASES);
        assert_eq!(mirrored[0].name, "z");
        let all: BTreeSet<String> = aliases.keys().cloned().collect();
        let mirrored = mirrored_aliases(&aliases, &[], &all, at(1));
        assert_eq!(mirrored.len(), MAX_ALIASES + 1, "all are followed");
    }
}
