//! Reconciles one model with its registry: requests its snapshot, declares description, tags and
//! aliases, and mirrors the result.
//!
//! Absent: conditions, and writing the status.

use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::api::conditions::with_remedy;
use crate::api::model_registry::Access;
use crate::api::registered_model::CreationPolicy;
use crate::api::{
    AliasBinding, ModelRegistry, Reason, RegisteredModel, RegisteredModelStatus, reason::Problem,
};
use crate::controllers::model::mirror_size;
use crate::controllers::model::mirrored_names::{mirrored_aliases, mirrored_stages};
use crate::controllers::model::mirrored_versions::{
    Gated, VersionMirror, followed_aliases, gated_versions, has_unusable_version, newest_first,
    newest_versions, pinned_versions, select_versions,
};
use crate::controllers::registry::access::title;
use crate::controllers::registry::state::RegistryState;
use crate::kubernetes::key::ObjectKey;
use crate::registries::{ModelSnapshot, RegistryClient, RegistryError};

/// The result of a reconcile: the status without new conditions, and a problem that did not prevent
/// it.
pub struct Mirror {
    /// The status.
    pub status: RegisteredModelStatus,
    /// The problem, if there is one.
    pub problem: Option<Problem>,
    /// Whether a version that an alias or stage names is to be requested again later.
    pub has_unusable_version: bool,
}

/// One reconcile of a model with its registry.
pub struct ModelReconcile<'a> {
    /// The model's key.
    pub own: ObjectKey,
    /// The model.
    pub model: &'a RegisteredModel,
    /// Its registry.
    pub registry: &'a ModelRegistry,
    /// What the model's namespace may do with it.
    pub access: Access,
    /// The registry's state.
    pub state: &'a RegistryState,
    /// The registry's client.
    pub client: RegistryClient,
    /// The bindings that follow the model.
    pub bindings: Vec<AliasBinding>,
}

/// A model of the registry.
enum Found {
    /// The registry had it already.
    Existing(ModelSnapshot),
    /// This reconcile created it.
    Created(ModelSnapshot),
}

/// The result of declaring description, tags and aliases.
#[derive(Default)]
struct Declared {
    is_changed: bool,
    /// The first refusal.
    problem: Option<Problem>,
}

impl Declared {
    /// Adds the outcome of one change. A registry that does not answer ends the reconcile.
    fn add(&mut self, outcome: Result<(), RegistryError>, what: &str) -> Result<(), Problem> {
        match outcome {
            Ok(()) => self.is_changed = true,
            Err(error) if error.reason() == Reason::RegistryUnreachable => return Err(error.into()),
            Err(error) => {
                self.problem.get_or_insert_with(|| error.of_change(what));
            }
        }
        Ok(())
    }
}

impl ModelReconcile<'_> {
    /// Reconciles the model.
    pub async fn run(&self) -> Result<Mirror, Problem> {
        let are_tags_due = self.state.candidate_tags.take(&self.own);
        let found = match self.snapshot().await {
            Ok(Some(snapshot)) => Found::Existing(snapshot),
            Ok(None) => self.create().await?,
            // MLflow refuses to show a model that does not exist to users without rights on all
            // models. Whether it exists is told by an attempt to create it.
            Err(RegistryError::Forbidden { .. }) if self.may_create() => self.create().await?,
            Err(error) => return Err(error.into()),
        };
        let (snapshot, owned, is_created) = match found {
            Found::Existing(snapshot) => {
                let owned = self.owned(&snapshot);
                (snapshot, owned, false)
            }
            Found::Created(snapshot) => {
                let owned = snapshot.created_at.map(MicroTime);
                (snapshot, owned, true)
            }
        };
        match self.mirror(snapshot, owned.clone(), are_tags_due).await {
            // That the model was created reaches the status in any case: only then can it be deleted again.
            Err(problem) if is_created => {
                let mut status = self.model.status.clone().unwrap_or_default();
                status.owned_model_created_at = owned;
                let problem = Some(problem);
                Ok(Mirror {
                    status,
                    problem,
                    has_unusable_version: false,
                })
            }
            mirrored => mirrored,
        }
    }

    async fn mirror(
        &self,
        snapshot: ModelSnapshot,
        owned: Option<MicroTime>,
        are_tags_due: bool,
    ) -> Result<Mirror, Problem> {
        let (snapshot, problem) = match self.access {
            Access::Write => self.declare(snapshot).await?,
            Access::Read => (snapshot, self.refused_changes()),
        };
        let gated = gated_versions(&self.bindings, &snapshot);
        let mut mirror = self.mirrored(&snapshot, &gated).await?;
        let status = &mut mirror.status;
        status.owned_model_created_at = owned;
        let versions = self.version_mirror();
        versions.set_sizes(&mut status.versions);
        versions.set_moved_uris(&mut status.versions);
        versions
            .follow_tags(&mut status.versions, &gated, are_tags_due)
            .await;
        let is_waiting = !gated.candidates.is_empty();
        self.state.candidate_tags.set_waiting(&self.own, is_waiting);
        if !self.registry.spec.mirror.parameters {
            for version in &mut status.versions {
                version.parameters.clear();
            }
        }
        mirror.problem = problem.or(mirror.problem);
        Ok(mirror)
    }

    /// The creation time of this model, if this object created it. One of the same name that was created again is another.
    fn owned(&self, snapshot: &ModelSnapshot) -> Option<MicroTime> {
        let owned = self.model.status.as_ref()?.owned_model_created_at.clone();
        owned.filter(|owned| Some(owned.0) == snapshot.created_at)
    }

    /// The changes of the registry that the spec asks for and the namespace may not make.
    fn refused_changes(&self) -> Option<Problem> {
        let fields = self.model.spec.changes();
        if fields.is_empty() {
            return None;
        }
        let namespace = self.own.namespace();
        let cause = format!(
            "namespace {namespace} may only read {}, so spec.{} has no effect",
            title(self.registry),
            fields.join(", spec.")
        );
        let mut observing = Vec::with_capacity(fields.len());
        for field in fields {
            let value = match field {
                "creationPolicy" => "\"Observe\"",
                "deletionPolicy" => "\"Retain\"",
                _ => "null",
            };
            observing.push(format!("\"{field}\":{value}"));
        }
        let remedy = format!(
            "kubectl patch rmodel {} -n {namespace} --type merge -p '{{\"spec\":{{{}}}}}'",
            self.own.name(),
            observing.join(",")
        );
        let message = with_remedy(&cause, &remedy);
        Some(Problem::new(Reason::RegistryReadOnly, message))
    }

    fn name(&self) -> &str {
        self.model.model_name()
    }

    /// The cached snapshot; a new one if a person requested it, or if the cached one is missing or
    /// lacks a mirrored alias. `None` if the model does not exist.
    async fn snapshot(&self) -> Result<Option<ModelSnapshot>, RegistryError> {
        let cached = self.state.snapshots.get(self.name());
        let is_requested = self.take_requests();
        if is_requested {
            // The URIs are requested after this reconcile: a move does not wait for them.
            self.state.rechecks.request(&self.own);
        }
        match cached {
            Some(cached) if !is_requested && !self.lacks_mirrored_alias(&cached) => {
                Ok(Some(cached))
            }
            _ => self.request().await,
        }
    }

    /// Whether the model or one of its bindings holds a new request. All of them are recorded.
    fn take_requests(&self) -> bool {
        let mut is_new = self.state.requests.take_new(self.model);
        for binding in &self.bindings {
            is_new |= self.state.requests.take_new(binding);
        }
        is_new
    }

    /// Whether an alias of the mirror is missing. It is requested once more before it counts as
    /// deleted (`fail_static`).
    fn lacks_mirrored_alias(&self, snapshot: &ModelSnapshot) -> bool {
        let Some(status) = &self.model.status else {
            return false;
        };
        let mut aliases = status.aliases.iter();
        aliases.any(|alias| !snapshot.aliases.contains_key(&alias.name))
    }

    /// Requests the model directly; `None` if it does not exist.
    async fn request(&self) -> Result<Option<ModelSnapshot>, RegistryError> {
        let requested_at = Instant::now();
        let snapshot = self.client.model(self.name()).await?;
        self.state
            .snapshots
            .record(self.name(), snapshot.as_ref(), requested_at);
        Ok(snapshot)
    }

    /// Whether the spec and the registry's owner allow the creation of the model.
    fn may_create(&self) -> bool {
        self.access == Access::Write && self.model.spec.creation_policy == CreationPolicy::Create
    }

    /// Creates the model, if the spec and the registry's owner allow it. A model that a person
    /// deleted is created again without aliases; its bindings then stay at the versions that they
    /// run.
    async fn create(&self) -> Result<Found, Problem> {
        let spec = &self.model.spec;
        if self.access == Access::Read {
            let namespace = self.own.namespace();
            let remedy = format!("register it there (namespace {namespace} may only read it)");
            return Err(self.no_such_model(&remedy));
        }
        if spec.creation_policy == CreationPolicy::Observe {
            return Err(self.no_such_model("register it, or set spec.creationPolicy: Create"));
        }
        let requested_at = Instant::now();
        let created = self
            .client
            .create_model(self.name(), spec.description.as_deref(), &spec.tags)
            .await?;
        if let Some(created) = created {
            let snapshots = &self.state.snapshots;
            snapshots.record(self.name(), Some(&created), requested_at);
            return Ok(Found::Created(created));
        }
        match self.request().await? {
            Some(snapshot) => Ok(Found::Existing(snapshot)),
            None => Err(self.no_such_model("it was created a moment ago and is gone again")),
        }
    }

    fn no_such_model(&self, remedy: &str) -> Problem {
        let name = self.name();
        let message = format!("the registry has no registered model {name:?}: {remedy}");
        Problem::new(Reason::ModelNotFound, message)
    }

    /// Writes description, tags and aliases as declared. Returns the snapshot after it. A refusal is a
    /// problem that prevents nothing else.
    async fn declare(
        &self,
        snapshot: ModelSnapshot,
    ) -> Result<(ModelSnapshot, Option<Problem>), Problem> {
        let (spec, name) = (&self.model.spec, self.name());
        let mut declared = Declared::default();
        if let Some(text) = &spec.description
            && *text != snapshot.description
        {
            let outcome = self.client.set_description(name, text).await;
            declared.add(outcome, "the description")?;
        }
        for (key, value) in &spec.tags {
            if snapshot.tags.get(key) != Some(value) {
                let outcome = self.client.set_tag(name, key, value).await;
                declared.add(outcome, &format!("tag {key}"))?;
            }
        }
        for alias in &spec.aliases {
            let version = &alias.version;
            if snapshot.aliases.get(&alias.name) == Some(version) {
                continue;
            }
            match self.client.set_alias(name, &alias.name, version).await {
                Err(error) if error.is_not_found() => {
                    let problem = self.no_such_version(&alias.name, version);
                    declared.problem.get_or_insert(problem);
                }
                outcome => declared.add(outcome, &format!("alias {}", alias.name))?,
            }
        }
        let Declared {
            is_changed,
            problem,
        } = declared;
        if !is_changed {
            return Ok((snapshot, problem));
        }
        let changed = self.request().await?;
        Ok((changed.unwrap_or(snapshot), problem))
    }

    fn no_such_version(&self, alias: &str, version: &str) -> Problem {
        let message = format!(
            "alias {alias} cannot be set: model {:?} has no version {version}; register it, or correct spec.aliases",
            self.name()
        );
        Problem::new(Reason::VersionNotFound, message)
    }

    /// The mirror of this snapshot, with the conditions as they are.
    async fn mirrored(&self, snapshot: &ModelSnapshot, gated: &Gated) -> Result<Mirror, Problem> {
        let old = self.model.status.clone().unwrap_or_default();
        let created_at = snapshot.created_at.map(MicroTime);
        let is_same_model = old.created_at == created_at;
        if !is_same_model {
            self.state.unusable_versions.forget(self.name());
        }
        // A model that was deleted and created again starts at version 1 anew, which is another
        // version (`resolve_once`).
        let known = if is_same_model {
            old.versions.as_slice()
        } else {
            &[]
        };
        let is_listed = is_same_model && old.latest_version == snapshot.latest_version;
        let mirror = self.version_mirror();
        let listed = if is_listed {
            Vec::new()
        } else {
            mirror.list(snapshot).await?
        };
        let followed = followed_aliases(self.model, &self.bindings);
        let newest = newest_versions(known, &listed, snapshot.latest_version.as_ref());
        let mut wanted = pinned_versions(&self.bindings);
        wanted.extend(gated.compared.iter().cloned());
        let selected = select_versions(wanted, &followed, snapshot, newest);
        let now = Timestamp::now();
        let (tracking_uri, workspace) = self.address_for_pods(&old);
        let mut aliases = mirrored_aliases(&snapshot.aliases, &old.aliases, &followed, now);
        let mut lacking = mirror_size::cut_aliases(&mut aliases);
        let room = mirror_size::room(self.model, &aliases);
        let numbers = &selected.numbers;
        let described = mirror.describe_all(numbers, known, &listed, room).await?;
        let described_count = described.len();
        let mut fitting = mirror_size::fit(described, room);
        if fitting.len() < described_count {
            lacking += selected.needed.saturating_sub(fitting.len());
        }
        newest_first(&mut fitting);
        let status = RegisteredModelStatus {
            observed_generation: self.model.metadata.generation,
            model_name: Some(self.name().to_owned()),
            created_at,
            owned_model_created_at: None,
            tracking_uri,
            workspace,
            latest_version: snapshot.latest_version.clone(),
            aliases,
            stages: mirrored_stages(&snapshot.stages, &old.stages, now),
            versions: fitting,
            conditions: old.conditions,
        };
        Ok(Mirror {
            has_unusable_version: lacking == 0
                && (has_unusable_version(&status, numbers)
                    || mirror.has_unread_details(&status.versions)),
            problem: (lacking > 0).then(|| mirror_size::truncated(self.name(), lacking)),
            status,
        })
    }

    /// The registry's address and workspace for pods. Another address takes effect when the registry has answered there.
    fn address_for_pods(&self, old: &RegisteredModelStatus) -> (Option<String>, Option<String>) {
        let spec = &self.registry.spec;
        if old.tracking_uri.is_some() && !self.state.connection.is_at(spec.address()) {
            return (old.tracking_uri.clone(), old.workspace.clone());
        }
        let workspace = spec.workspace().map(str::to_owned);
        (Some(spec.pod_address().to_owned()), workspace)
    }

    fn version_mirror(&self) -> VersionMirror<'_> {
        VersionMirror {
            model: &self.own,
            name: self.name(),
            interval: self.registry.interval(),
            state: self.state,
            client: &self.client,
        }
    }
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
