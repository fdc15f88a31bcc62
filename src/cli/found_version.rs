//! A model and one of its versions: from the mirror, or, if that has no more of it, from the person's own MLflow.
//!
//! Absent: a choice of the person's. The mirror is asked first, because it needs no access to MLflow.

use kube::ResourceExt;
use serde::Serialize;

use super::Failure;
use super::cluster::{Cluster, name_in};
use super::person_registry::{self, PersonRegistry};
use crate::api::registered_model::RegisteredModelStatus;
use crate::api::{ModelVersion, RegisteredModel};

/// The variable by which a person says that MLflow may be asked.
const VARIABLE: &str = "MLFLOW_TRACKING_URI";

/// Where a version was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum VersionOrigin {
    /// The status of the `RegisteredModel`.
    Mirror,
    /// MLflow, with the person's own variables.
    MLflow,
}

/// A version, and what is not known of it.
#[derive(Debug)]
pub struct FoundVersion {
    /// The version.
    pub version: ModelVersion,
    /// Where it was read.
    pub origin: VersionOrigin,
    /// What is missing, and how to see it; empty if nothing is.
    pub note: String,
}

/// The `RegisteredModel` of this name, or the one that mirrors the registry's model of this name.
pub async fn find_model(cluster: &Cluster, word: &str) -> Result<RegisteredModel, Failure> {
    let name = name_in(word);
    if let Some(model) = cluster.find::<RegisteredModel>(name).await? {
        return Ok(model);
    }
    let models = cluster.all::<RegisteredModel>().await?;
    let found = person_registry::find_model(&models, name, &cluster.namespace)?;
    Ok(found.clone())
}

/// The version that a word names: its number, an alias, a stage, or `latest`.
pub fn number_of(model: &RegisteredModel, word: &str) -> Result<String, Failure> {
    let none = RegisteredModelStatus::default();
    let status = model.status.as_ref().unwrap_or(&none);
    let alias = status.aliases.iter().find(|alias| alias.name == word);
    let stage = status.stages.iter().find(|stage| stage.name == word);
    let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    match (alias, stage) {
        (Some(alias), _) => Ok(alias.version.clone()),
        (None, Some(stage)) => Ok(stage.version.clone()),
        (None, None) if is_number => Ok(word.to_owned()),
        (None, None) if word == "latest" && status.latest_version.is_some() => {
            Ok(status.latest_version.clone().unwrap_or_default())
        }
        (None, None) => {
            let aliases: Vec<&str> = status
                .aliases
                .iter()
                .map(|alias| alias.name.as_str())
                .collect();
            let known = if aliases.is_empty() {
                "it has no aliases".to_owned()
            } else {
                format!("its aliases are {}", aliases.join(", "))
            };
            Err(format!(
                "{word} is no version and no alias of {}: {known}; write a number, an alias, or latest",
                model.model_name()
            )
            .into())
        }
    }
}

/// A version of a model with its details.
pub async fn find_version(
    cluster: &Cluster,
    model: &RegisteredModel,
    number: &str,
) -> Result<FoundVersion, Failure> {
    let versions = model.status.iter().flat_map(|status| &status.versions);
    let mirrored = versions.into_iter().find(|each| each.version == number);
    let missing = missing_from(model, number, mirrored);
    if missing.is_empty()
        && let Some(mirrored) = mirrored
    {
        return Ok(from_mirror(mirrored, String::new()));
    }
    if std::env::var_os(VARIABLE).is_none_or(|address| address.is_empty()) {
        let note = format!("{missing}; to see it, set {VARIABLE} and your credentials for MLflow");
        return match mirrored {
            Some(mirrored) => Ok(from_mirror(mirrored, note)),
            None => Err(note.into()),
        };
    }
    let registry = PersonRegistry::of(cluster, model).await?;
    let (client, name) = (&registry.client, model.model_name());
    let found = client.version(name, number).await;
    let Some(mut version) = found.map_err(|error| registry.explain(&error))? else {
        return Err(format!("MLflow has no version {number} of {name}").into());
    };
    if let Some(uri) = &version.artifact_uri {
        // A detail: the version is shown without it too.
        version.size_bytes = client
            .version_size(name, number, uri)
            .await
            .unwrap_or_default();
    }
    Ok(FoundVersion {
        version,
        origin: VersionOrigin::MLflow,
        note: String::new(),
    })
}

fn from_mirror(version: &ModelVersion, note: String) -> FoundVersion {
    FoundVersion {
        version: version.clone(),
        origin: VersionOrigin::Mirror,
        note,
    }
}

/// What the mirror lacks of a version; empty if nothing.
fn missing_from(model: &RegisteredModel, number: &str, mirrored: Option<&ModelVersion>) -> String {
    let (name, kind) = (model.name_any(), "RegisteredModel");
    match mirrored {
        None => format!(
            "version {number} is not in the status of the {kind} {name}, which holds the followed and the newest versions"
        ),
        Some(mirrored) if mirrored.details_omitted => format!(
            "the status of the {kind} {name} has no room for the metrics, parameters and data of version {number}"
        ),
        Some(mirrored) if mirrored.code.is_none() && is_copy(mirrored) => format!(
            "the status of the {kind} {name} has no code of version {number}, which was copied from {}",
            mirrored.source.as_deref().unwrap_or_default()
        ),
        Some(_) => String::new(),
    }
}

/// Whether the version was registered from another one, such as models:/other/3.
fn is_copy(version: &ModelVersion) -> bool {
    let source = version.source.as_deref().unwrap_or_default();
    let original = source.strip_prefix("models:/").unwrap_or_default();
    original.contains('/')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model() -> RegisteredModel {
        serde_json::from_value(json!({
            "metadata": {"name": "taxi", "namespace": "ml"},
            "spec": {"registryRef": {"name": "mlflow"}, "modelName": "nyc-taxi"},
            "status": {
                "latestVersion": "31",
                "aliases": [{"name": "champion", "version": "30", "since": "2026-11-25T12:00:00Z"}],
                "stages": [{"name": "Production", "version": "29", "since": "2026-11-25T12:00:00Z"}],
                "versions": [
                    {"version": "30"}, {"version": "29", "detailsOmitted": true},
                    {"version": "28", "source": "models:/other/3"}]}}))
        .unwrap()
    }

    #[test]
    fn a_version_is_named_by_number_alias_stage_or_latest() {
        for (word, number) in [
            ("4", "4"),
            ("champion", "30"),
            ("Production", "29"),
            ("latest", "31"),
        ] {
            assert_eq!(number_of(&model(), word).unwrap(), number);
        }
        let error = number_of(&model(), "challenger").unwrap_err().to_string();
        let expected = "challenger is no version and no alias of nyc-taxi: its aliases are champion; write a number, an alias, or latest";
        assert_eq!(error, expected);
    }

    #[test]
    fn what_the_mirror_lacks_is_told() {
        let mirrored = |number| {
            let status = model().status.unwrap();
            status
                .versions
                .into_iter()
                .find(|each| each.version == number)
        };
        let missing = |number| missing_from(&model(), number, mirrored(number).as_ref());
        assert_eq!(missing("30"), "");
        assert!(
            missing("29").contains("no room for the metrics"),
            "{}",
            missing("29")
        );
        assert!(
            missing("28").ends_with("no code of version 28, which was copied from models:/other/3")
        );
        assert!(
            missing("2").starts_with("version 2 is not in the status of the RegisteredModel taxi")
        );
    }
}
