//! From the pin, alias or stage to one version with an artifact, by the mirror alone.
//!
//! Absent: the registry. It is read in one place, and mirrored into the `RegisteredModel`'s status.

use super::artifact_check::{ArtifactCheck, forward_check};
use super::expressions::ModelFacts;
use super::messages::namespace;
use super::rollback_target::has_failed;
use crate::api::conditions::{READY, find};
use crate::api::{
    AliasBinding, ModelVersion, Reason, RegisteredModel, RegisteredModelStatus, VersionRef,
    reason::Problem,
};
use crate::targets::DesiredVersion;

/// What the mirror says of a binding.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// The number of the version that the alias or stage names.
    pub alias: Option<String>,
    /// The version to run, or why there is none.
    pub desired: Result<DesiredVersion, Problem>,
    /// The mirrored version that `desired` was made from.
    pub details: Option<ModelVersion>,
    /// Why the mirror may be out of date, if it may.
    pub stale: Option<Problem>,
    /// Whether that is an outage of the registry, which its own status tells.
    pub is_outage: bool,
    /// The registered model's name in the registry, if that is known.
    pub model: Option<String>,
    /// The address that pods reach the registry at.
    pub tracking_uri: Option<String>,
    /// All versions of the mirror that have an artifact.
    pub mirrored: Vec<VersionRef>,
    /// What the version is compared with, if the binding has gates.
    pub compared: Option<Box<Compared>>,
}

/// What a version that would go forward is compared with.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The version that runs, or ran last and was good.
    pub current: Option<ModelVersion>,
    /// The registered model.
    pub model: ModelFacts,
}

impl Resolution {
    /// The same in an outage of the registry, if there is one: a version that the mirror lacks may exist.
    #[must_use]
    pub fn in_outage(mut self, outage: Option<Problem>) -> Self {
        let Some(outage) = outage else { return self };
        if let Err(problem) = &mut self.desired
            && problem.reason == Reason::VersionNotFound
        {
            problem.clone_from(&outage);
        }
        self.stale.get_or_insert(outage);
        self.is_outage = true;
        self
    }

    /// The artifact check of the desired version.
    #[must_use]
    pub fn forward_check(&self) -> Option<ArtifactCheck> {
        self.desired.as_ref().ok().map(forward_check)
    }
}

/// Resolves a binding by the mirror; by the binding's own history if a pinned version is in no mirror any more.
#[must_use]
pub fn resolve(binding: &AliasBinding, model: Option<&RegisteredModel>) -> Resolution {
    let Some(model) = model else {
        return unresolved(model_not_found(binding));
    };
    let Some(status) = model.status.as_ref() else {
        let message = "the RegisteredModel has not been mirrored yet";
        return unresolved(Problem::new(Reason::Pending, message));
    };
    let stale = staleness(status);
    let alias = followed(binding, status);
    let found = match &stale {
        Some(problem) if problem.reason == Reason::ModelNotFound => Err(problem.clone()),
        _ => wanted_version(binding, model, status, alias.as_deref(), stale.as_ref()),
    };
    let details = found.or_else(|problem| from_history(binding, model.model_name()).ok_or(problem));
    let desired = match &details {
        Ok(version) => usable(model, status, version),
        Err(problem) => Err(problem.clone()),
    };
    Resolution {
        alias,
        desired,
        details: details.ok(),
        is_outage: stale
            .as_ref()
            .is_some_and(|stale| stale.reason.is_registry_outage()),
        stale,
        model: Some(model.model_name().to_owned()),
        tracking_uri: status.tracking_uri.clone(),
        mirrored: mirrored(model, status),
        compared: compared(binding, model, status),
    }
}

fn mirrored(model: &RegisteredModel, status: &RegisteredModelStatus) -> Vec<VersionRef> {
    let versions = status.versions.iter();
    versions
        .filter(|version| version.artifact_uri.is_some())
        .map(|version| version.reference(model.model_name()))
        .collect()
}

fn compared(
    binding: &AliasBinding,
    model: &RegisteredModel,
    status: &RegisteredModelStatus,
) -> Option<Box<Compared>> {
    if binding.gates().is_empty() {
        return None;
    }
    let aliases = status.aliases.iter();
    let aliases = aliases.map(|alias| (alias.name.clone(), alias.version.clone()));
    Some(Box::new(Compared {
        current: current(binding, model.model_name(), status),
        model: ModelFacts {
            name: model.model_name().to_owned(),
            latest_version: status.latest_version.clone(),
            aliases: aliases.collect(),
        },
    }))
}

/// The version that another one is compared with: the one that runs, unless it has failed or was not proven; else the newest
/// good one; else the one that runs and was not proven. Its details are those of the mirror, or what the status knows of it.
fn current(
    binding: &AliasBinding,
    model: &str,
    status: &RegisteredModelStatus,
) -> Option<ModelVersion> {
    let own = binding.status.as_ref()?;
    let running = own.current().filter(|entry| !has_failed(entry));
    let proven = running.filter(|entry| entry.live_at.is_some());
    let good = own.last_good.as_ref().map(|good| &good.version);
    let version = proven
        .map(|entry| &entry.version)
        .or(good)
        .or(running.map(|entry| &entry.version))?;
    let mut mirrored = status.versions.iter();
    let found = mirrored.find(|each| each.reference(model).is_same(version));
    Some(found.cloned().unwrap_or_else(|| ModelVersion {
        version: version.number().to_owned(),
        artifact_uri: version.artifact_uri.clone(),
        source: version.id.source.clone(),
        run_id: version.run_id.clone(),
        created_at: version.id.created_at.clone(),
        details_omitted: true,
        ..ModelVersion::default()
    }))
}

fn model_not_found(binding: &AliasBinding) -> Problem {
    let model = &binding.spec.model_ref.name;
    let namespace = namespace(binding);
    Problem::new(
        Reason::ModelNotFound,
        format!(
            "there is no RegisteredModel {model} in namespace {namespace}: create it, or correct spec.modelRef.name"
        ),
    )
}

fn unresolved(problem: Problem) -> Resolution {
    Resolution {
        alias: None,
        desired: Err(problem),
        details: None,
        stale: None,
        is_outage: false,
        model: None,
        tracking_uri: None,
        mirrored: Vec::new(),
        compared: None,
    }
}

/// The mirror's own problem, if it has one.
fn staleness(status: &RegisteredModelStatus) -> Option<Problem> {
    let ready = find(&status.conditions, READY)?;
    let reason = Reason::parse(&ready.reason).unwrap_or(Reason::RegistryUnreachable);
    let concerns_the_mirror = !matches!(
        reason,
        Reason::Mirrored
            | Reason::MirrorTruncated
            | Reason::VersionNotFound
            | Reason::RegistryReadOnly
            | Reason::Suspended
    );
    (ready.status != "True" && concerns_the_mirror)
        .then(|| Problem::new(reason, ready.message.clone()))
}

fn followed(binding: &AliasBinding, status: &RegisteredModelStatus) -> Option<String> {
    if let Some(alias) = &binding.spec.alias {
        return status
            .aliases
            .iter()
            .find(|each| each.name == *alias)
            .map(|each| each.version.clone());
    }
    let stage = binding.spec.stage.as_ref()?;
    status
        .stages
        .iter()
        .find(|each| each.name.eq_ignore_ascii_case(stage))
        .map(|each| each.version.clone())
}

fn wanted_version(
    binding: &AliasBinding,
    model: &RegisteredModel,
    status: &RegisteredModelStatus,
    alias: Option<&str>,
    stale: Option<&Problem>,
) -> Result<ModelVersion, Problem> {
    let number = binding.spec.pinned_version.as_deref().or(alias);
    let Some(number) = number else {
        return Err(stale
            .cloned()
            .or_else(|| incomplete(status))
            .unwrap_or_else(|| nothing_followed(binding, model, status)));
    };
    let found = status
        .versions
        .iter()
        .find(|version| version.version == number)
        .cloned();
    found.ok_or_else(|| {
        stale
            .cloned()
            .or_else(|| incomplete(status))
            .unwrap_or_else(|| version_not_found(model, number))
    })
}

/// Why the mirror lacks aliases or versions of the registry, if it does: it is too large, or the registry is suspended.
fn incomplete(status: &RegisteredModelStatus) -> Option<Problem> {
    let ready = find(&status.conditions, READY)?;
    let reason = Reason::parse(&ready.reason)?;
    matches!(reason, Reason::MirrorTruncated | Reason::Suspended)
        .then(|| Problem::new(reason, ready.message.clone()))
}

fn nothing_followed(
    binding: &AliasBinding,
    model: &RegisteredModel,
    status: &RegisteredModelStatus,
) -> Problem {
    let name = model.model_name();
    if let Some(stage) = &binding.spec.stage {
        return Problem::new(
            Reason::StageNotFound,
            format!(
                "no version of model {name:?} is in stage {stage:?}: transition one to it, or follow an alias"
            ),
        );
    }
    let alias = binding.spec.follows();
    let known: Vec<_> = status
        .aliases
        .iter()
        .take(8)
        .map(|each| each.name.as_str())
        .collect();
    let known = if known.is_empty() {
        "it has none".to_owned()
    } else {
        format!("it has {}", known.join(", "))
    };
    Problem::new(
        Reason::AliasNotFound,
        format!(
            "model {name:?} has no alias {alias:?} ({known}): set it with \
             client.set_registered_model_alias({name:?}, {alias:?}, version), or pin a version with spec.pinnedVersion"
        ),
    )
}

fn version_not_found(model: &RegisteredModel, number: &str) -> Problem {
    let name = model.model_name();
    Problem::new(
        Reason::VersionNotFound,
        format!("model {name:?} has no version {number}: correct spec.pinnedVersion or the alias"),
    )
}

/// A pinned version that ran before is known by the binding's own history, even if the registry has forgotten it.
fn from_history(binding: &AliasBinding, model: &str) -> Option<ModelVersion> {
    let pinned = binding.spec.pinned_version.as_deref()?;
    let history = &binding.status.as_ref()?.history;
    let is_pinned = |version: &VersionRef| {
        let is_of_model = version.id.model == model || version.id.model.is_empty();
        version.number() == pinned && is_of_model && version.artifact_uri.is_some()
    };
    let entry = history.iter().find(|entry| is_pinned(&entry.version))?;
    Some(ModelVersion {
        version: pinned.to_owned(),
        artifact_uri: entry.version.artifact_uri.clone(),
        query_withheld: entry.version.query_withheld,
        source: entry.version.id.source.clone(),
        run_id: entry.version.run_id.clone(),
        created_at: entry.version.id.created_at.clone(),
        code: entry.code.clone(),
        ..ModelVersion::default()
    })
}

fn usable(
    model: &RegisteredModel,
    status: &RegisteredModelStatus,
    version: &ModelVersion,
) -> Result<DesiredVersion, Problem> {
    DesiredVersion::from_mirror(model.model_name(), version, status).ok_or_else(|| {
        let cause = version
            .problem
            .as_deref()
            .unwrap_or("its source leads to no artifact");
        let message = format!("version {} cannot be deployed: {cause}", version.version);
        Problem::new(Reason::ArtifactUnavailable, message)
    })
}
