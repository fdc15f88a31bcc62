//! The versions of a mirror: which of them are mirrored, and their details, each requested once.
//!
//! Absent: conclusions from lists. A version that a list lacks is requested by its number.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::api::public_uri::split_query;
use crate::api::{
    AliasBinding, ModelVersion, RegisteredModel, RegisteredModelStatus, reason::Problem,
};
use crate::controllers::model::mirror_size::least_size;
use crate::controllers::registry::refresh::NEWEST_VERSIONS;
use crate::controllers::registry::state::RegistryState;
use crate::controllers::registry::state::version_sizes::UnreadSize;
use crate::kubernetes::key::ObjectKey;
use crate::registries::{ListedVersion, ModelSnapshot, RegistryClient};

/// The most versions that a status mirrors, unless more are needed.
const MAX_VERSIONS: usize = 24;
/// Of how many versions of one model tags are read, so that they have room in its status.
const TAGGED: usize = 8;
/// The shortest time until a version that is absent or unusable is requested again.
pub const MIN_RETRY: Duration = Duration::from_secs(5);

/// The numbers of the newest versions: of the listed ones, or if none were listed, of the known
/// ones and the latest.
pub fn newest_versions(
    known: &[ModelVersion],
    listed: &[ListedVersion],
    latest: Option<&String>,
) -> Vec<String> {
    let mut numbers = BTreeSet::new();
    if listed.is_empty() {
        numbers.extend(known.iter().map(|version| version.version.clone()));
        numbers.extend(latest.cloned());
    } else {
        numbers.extend(listed.iter().map(|version| version.version.clone()));
    }
    let mut numbers: Vec<String> = numbers.into_iter().collect();
    numbers.sort_by_key(|number| Reverse(parse_number(number)));
    numbers.truncate(NEWEST_VERSIONS as usize);
    numbers
}

/// The numbers of the versions that gates are about.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Gated {
    /// Versions that an alias or stage names, and that do not run yet.
    pub candidates: BTreeSet<String>,
    /// Versions that they are compared with.
    pub compared: BTreeSet<String>,
}

/// The versions that the gates of bindings are about. A pinned version passes none.
pub fn gated_versions(bindings: &[AliasBinding], snapshot: &ModelSnapshot) -> Gated {
    let mut gated = Gated::default();
    for binding in bindings
        .iter()
        .filter(|binding| !binding.gates().is_empty())
    {
        let spec = &binding.spec;
        let status = binding.status.as_ref();
        let running = status.and_then(|status| status.running.as_ref());
        let running = running.map(|running| running.version.number());
        let good = status.and_then(|status| status.last_good.as_ref());
        let good = good.map(|good| good.version.number());
        let compared = running.into_iter().chain(good).map(str::to_owned);
        gated.compared.extend(compared);
        let alias = spec.alias.as_ref();
        let named = match (alias, &spec.stage) {
            (Some(alias), _) => snapshot.aliases.get(alias),
            (None, Some(stage)) => {
                let mut stages = snapshot.stages.iter();
                let found = stages.find(|(name, _)| name.eq_ignore_ascii_case(stage));
                found.map(|(_, version)| version)
            }
            (None, None) => None,
        };
        if let Some(number) = named
            && running != Some(number.as_str())
            && spec.pinned_version.is_none()
        {
            gated.candidates.insert(number.clone());
        }
    }
    gated
}

/// The versions that bindings pin.
pub fn pinned_versions(bindings: &[AliasBinding]) -> Vec<String> {
    let pins = bindings.iter();
    pins.filter_map(|binding| binding.spec.pinned_version.clone())
        .collect()
}

/// The aliases that bindings follow or the spec of a model declares.
pub fn followed_aliases(model: &RegisteredModel, bindings: &[AliasBinding]) -> BTreeSet<String> {
    let followed = bindings.iter();
    let mut aliases: BTreeSet<String> = followed
        .filter_map(|binding| binding.spec.alias.clone())
        .collect();
    aliases.extend(model.spec.aliases.iter().map(|alias| alias.name.clone()));
    aliases
}

/// The numbers of the versions that bindings follow or run.
pub fn versions_in_use(model: &RegisteredModel, bindings: &[AliasBinding]) -> BTreeSet<String> {
    let mut in_use = BTreeSet::from_iter(pinned_versions(bindings));
    if let Some(status) = &model.status {
        let followed = followed_aliases(model, bindings);
        for alias in &status.aliases {
            if followed.contains(&alias.name) {
                in_use.insert(alias.version.clone());
            }
        }
        in_use.extend(status.stages.iter().map(|stage| stage.version.clone()));
    }
    for status in bindings
        .iter()
        .filter_map(|binding| binding.status.as_ref())
    {
        let known = status.known_versions();
        in_use.extend(known.map(|version| version.number().to_owned()));
    }
    in_use
}

/// The numbers of the versions to mirror.
#[derive(Debug, Eq, PartialEq)]
pub struct SelectedVersions {
    /// The numbers, the most needed first: pinned, followed, in a stage, aliased, newest.
    pub numbers: Vec<String>,
    /// How many of them are needed by bindings: pinned, followed or in a stage.
    pub needed: usize,
}

/// Selects the versions to mirror: all that are needed, and others as far as there is room.
pub fn select_versions(
    pinned: Vec<String>,
    followed: &BTreeSet<String>,
    snapshot: &ModelSnapshot,
    newest: Vec<String>,
) -> SelectedVersions {
    let mut needed = pinned;
    for alias in followed {
        needed.extend(snapshot.aliases.get(alias).cloned());
    }
    needed.extend(snapshot.stages.values().cloned());
    let (mut numbers, mut seen) = (Vec::new(), BTreeSet::new());
    for number in needed {
        if seen.insert(number.clone()) {
            numbers.push(number);
        }
    }
    let needed = numbers.len();
    for number in snapshot.aliases.values().cloned().chain(newest) {
        if numbers.len() < MAX_VERSIONS && seen.insert(number.clone()) {
            numbers.push(number);
        }
    }
    SelectedVersions { numbers, needed }
}

/// Whether a version that an alias or stage names is missing from the mirror or unusable, so that
/// it is requested again later. Versions that were not selected are none of them.
pub fn has_unusable_version(status: &RegisteredModelStatus, selected: &[String]) -> bool {
    let versions = status.versions.iter();
    let usable: BTreeSet<&String> = versions
        .filter(|version| version.problem.is_none())
        .map(|version| &version.version)
        .collect();
    let aliases = status.aliases.iter().map(|alias| &alias.version);
    let stages = status.stages.iter().map(|stage| &stage.version);
    let named: BTreeSet<&String> = aliases.chain(stages).collect();
    let mut selected = selected.iter();
    selected.any(|number| named.contains(number) && !usable.contains(number))
}

/// Sorts versions by number.
pub fn newest_first(versions: &mut [ModelVersion]) {
    versions.sort_by_key(|version| Reverse(parse_number(&version.version)));
}

/// Whether an earlier release wrote the query of a URI into the status: then the details are read again.
fn shows_query(version: &ModelVersion) -> bool {
    let mut uris = [&version.artifact_uri, &version.source]
        .into_iter()
        .flatten();
    uris.any(|uri| split_query(uri).1.is_some())
}

fn parse_number(number: &str) -> u64 {
    number.parse().unwrap_or_default()
}

/// Requests the versions of one model.
pub struct VersionMirror<'a> {
    /// The model's key.
    pub model: &'a ObjectKey,
    /// The model's name in the registry.
    pub name: &'a str,
    /// The registry's poll interval.
    pub interval: Duration,
    /// The registry's state.
    pub state: &'a RegistryState,
    /// The registry's client.
    pub client: &'a RegistryClient,
}

impl VersionMirror<'_> {
    /// The newest versions, from a list for many models if there is one.
    pub async fn list(&self, snapshot: &ModelSnapshot) -> Result<Vec<ListedVersion>, Problem> {
        if snapshot.latest_version.is_none() {
            return Ok(Vec::new());
        }
        if let Some(listed) = self.state.snapshots.take_versions(self.name)
            && listed.first().map(|version| &version.version) == snapshot.latest_version.as_ref()
        {
            return Ok(listed);
        }
        let listed = self
            .client
            .newest_versions(self.name, NEWEST_VERSIONS)
            .await?;
        Ok(listed)
    }

    /// The details of these versions, the most needed first: the known ones as they are, the others
    /// requested. It ends with the first number for which there is no room.
    pub async fn describe_all(
        &self,
        numbers: &[String],
        known: &[ModelVersion],
        listed: &[ListedVersion],
        room: usize,
    ) -> Result<Vec<ModelVersion>, Problem> {
        let known: BTreeMap<&str, &ModelVersion> = known
            .iter()
            .map(|version| (version.version.as_str(), version))
            .collect();
        let (mut versions, mut used) = (Vec::with_capacity(numbers.len()), 0);
        for number in numbers {
            let version = match known.get(number.as_str()) {
                // The problem of a version may be fixed, and its run may be read, so it is requested
                // again from time to time.
                Some(known)
                    if !shows_query(known)
                        && (self.is_settled(known) || self.is_known_unusable(number)) =>
                {
                    Some((*known).clone())
                }
                _ => self.describe(number, listed).await?,
            };
            used += version.as_ref().map_or(0, least_size);
            versions.extend(version);
            if used > room {
                break;
            }
        }
        Ok(versions)
    }

    /// Reads the tags of the versions that wait for gates: of all of them if that is due, else of those whose tags were not read
    /// yet. Tags of versions that no gate reads any more are dropped. What cannot be read stays as it is.
    pub async fn follow_tags(&self, versions: &mut [ModelVersion], gated: &Gated, is_due: bool) {
        let Some(client) = self.client.version_tags() else {
            return;
        };
        let mut read = 0;
        for version in versions {
            let number = &version.version;
            let is_candidate = gated.candidates.contains(number);
            if !is_candidate && !gated.compared.contains(number) {
                version.tags = None;
            }
            let is_unread = version.tags.is_none() && !version.details_omitted;
            if !is_candidate || read == TAGGED || !(is_due || is_unread) {
                continue;
            }
            read += 1;
            match client.read_one(self.name, number).await {
                Ok(Some(tags)) => version.tags = Some(tags),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(model = self.name, version = number, %error, "the tags of a version cannot be read; they are read again at the next poll");
                    return;
                }
            }
        }
    }

    async fn describe(
        &self,
        number: &str,
        listed: &[ListedVersion],
    ) -> Result<Option<ModelVersion>, Problem> {
        if self.is_known_unusable(number) {
            return Ok(None);
        }
        let found = match listed.iter().find(|version| version.version == number) {
            Some(listed) => {
                let described = self.client.describe(self.name, listed.clone()).await;
                Some(described?)
            }
            None => self.client.version(self.name, number).await?,
        };
        let unusable = &self.state.unusable_versions;
        match &found {
            Some(version) if version.problem.is_none() => {
                self.record_unread_size(version);
                if version.details_omitted {
                    unusable.record(self.name, number, Instant::now());
                } else {
                    unusable.forget_version(self.name, number);
                }
            }
            _ => unusable.record(self.name, number, Instant::now()),
        }
        Ok(found)
    }

    /// Whether a version has no problem, and none of its details could not be read.
    fn is_settled(&self, version: &ModelVersion) -> bool {
        let unusable = &self.state.unusable_versions;
        let is_unread =
            version.details_omitted && unusable.is_recorded(self.name, &version.version);
        version.problem.is_none() && !is_unread
    }

    /// Whether there are versions whose details could not be read.
    pub fn has_unread_details(&self, versions: &[ModelVersion]) -> bool {
        versions
            .iter()
            .any(|version| !self.is_settled(version) && version.problem.is_none())
    }

    /// Whether the version was absent or unusable a short time ago.
    fn is_known_unusable(&self, number: &str) -> bool {
        let retry = self.interval.max(MIN_RETRY);
        let unusable = &self.state.unusable_versions;
        unusable.contains(self.name, number, retry, Instant::now())
    }

    /// Sets the sizes that were read since the versions were published.
    pub fn set_sizes(&self, versions: &mut [ModelVersion]) {
        let sizes = &self.state.sizes;
        let read = sizes.read(self.model);
        for version in versions {
            let Some(uri) = &version.artifact_uri else {
                continue;
            };
            match read.get(uri) {
                Some(_) if version.size_bytes.is_some() => sizes.forget_read(self.model, uri),
                Some(bytes) => version.size_bytes = Some(*bytes),
                None => {}
            }
        }
    }

    /// Sets the URIs of versions whose files moved since the versions were published.
    pub fn set_moved_uris(&self, versions: &mut [ModelVersion]) {
        for moved in self.state.rechecks.moved(self.model) {
            let mut versions = versions.iter_mut();
            match versions.find(|version| moved.is_of(version)) {
                Some(version) => {
                    version.artifact_uri = Some(moved.to);
                    version.query_withheld = moved.query_withheld;
                }
                None => self.state.rechecks.forget_moved(self.model, &moved),
            }
        }
    }

    fn record_unread_size(&self, version: &ModelVersion) {
        if let Some(uri) = &version.artifact_uri {
            let size = UnreadSize {
                version: version.version.clone(),
                uri: uri.clone(),
            };
            self.state.sizes.record_unread(self.model, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::registered_model::MirroredAlias;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    fn version(number: &str) -> ModelVersion {
        ModelVersion {
            version: number.to_owned(),
            ..ModelVersion::default()
        }
    }

    fn texts(numbers: &[&str]) -> Vec<String> {
        numbers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_newest_versions_are_ordered_by_number_and_not_by_text() {
        let known: Vec<_> = ["2", "9", "10", "1", "3", "8"].map(version).into();
        let latest = "11".to_owned();
        let newest = newest_versions(&known, &[], Some(&latest));
        assert_eq!(newest, texts(&["11", "10", "9", "8", "3"]));
    }

    #[test]
    fn pinned_and_followed_versions_are_selected_before_others() {
        let mut snapshot = ModelSnapshot::default();
        for (alias, version) in [("champion", "4"), ("archive", "1")] {
            snapshot
                .aliases
                .insert(alias.to_owned(), version.to_owned());
        }
        snapshot.stages.insert("Staging".to_owned(), "3".to_owned());
        let followed = BTreeSet::from(["champion".to_owned()]);
        let selected = select_versions(texts(&["2"]), &followed, &snapshot, texts(&["5", "4"]));
        assert_eq!(selected.numbers, texts(&["2", "4", "3", "1", "5"]));
        assert_eq!(selected.needed, 3);
    }

    #[test]
    fn a_version_waits_for_gates_unless_it_runs_or_is_pinned_or_there_are_none() {
        let mut snapshot = ModelSnapshot::default();
        snapshot
            .aliases
            .insert("champion".to_owned(), "2".to_owned());
        let gated = |gates: usize, running: &str, pin: Option<&str>| {
            let spec = json!({"modelRef": {"name": "taxi"}, "alias": "champion", "targetRef": {"name": "server"},
                "promotion": {"gates": vec![json!({"name": "g", "expression": "true"}); gates]}, "pinnedVersion": pin});
            let object = json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding", "metadata": {},
                "spec": spec, "status": {"running": {"version": running}, "lastGood": {"version": "1"}}});
            let binding: AliasBinding = serde_json::from_value(object).expect("a binding");
            let Gated {
                candidates,
                compared,
            } = gated_versions(&[binding], &snapshot);
            (candidates.into_iter().collect(), compared.len())
        };
        let none = Vec::<String>::new();
        assert_eq!(gated(1, "1", None), (texts(&["2"]), 1));
        assert_eq!(gated(1, "2", None), (none.clone(), 2));
        assert_eq!(gated(1, "1", Some("1")), (none.clone(), 1));
        assert_eq!(gated(0, "1", None), (none, 0));
    }

    #[test]
    fn all_followed_versions_are_selected_however_many_they_are() {
        let mut snapshot = ModelSnapshot::default();
        let alias = |number: usize| (format!("tenant-{number:03}"), number.to_string());
        snapshot.aliases.extend((1..=100).map(alias));
        let followed: BTreeSet<String> = snapshot.aliases.keys().cloned().collect();
        let newest = texts(&["105", "104"]);
        let selected = select_versions(Vec::new(), &followed, &snapshot, newest);
        assert_eq!((selected.numbers.len(), selected.needed), (100, 100));
    }

    #[test]
    fn no_more_versions_are_selected_than_a_status_holds() {
        let mut snapshot = ModelSnapshot::default();
        for number in 0..100 {
            snapshot
                .aliases
                .insert(format!("a{number}"), number.to_string());
        }
        let selected = select_versions(Vec::new(), &BTreeSet::new(), &snapshot, Vec::new());
        assert_eq!((selected.numbers.len(), selected.needed), (MAX_VERSIONS, 0));
    }

    #[test]
    fn an_aliased_version_that_is_missing_or_has_a_problem_is_unusable() {
        let mut status = RegisteredModelStatus {
            aliases: vec![MirroredAlias {
                name: "champion".to_owned(),
                version: "1".to_owned(),
                since: Time(Timestamp::UNIX_EPOCH),
            }],
            ..RegisteredModelStatus::default()
        };
        let selected = texts(&["1", "2"]);
        assert!(has_unusable_version(&status, &selected));
        assert!(!has_unusable_version(&status, &[]), "it was left out");
        status.versions = vec![version("1"), version("2")];
        assert!(!has_unusable_version(&status, &selected));
        status.versions[0].problem = Some("no files".to_owned());
        assert!(has_unusable_version(&status, &selected));
    }
}
