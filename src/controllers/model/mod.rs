//! The loop of `RegisteredModel`: what is declared goes to the registry, what the registry says goes to the status.
//!
//! Absent: workloads. Bindings watch the status that is written here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, MicroTime, Time};
use kube::core::SelectorExt;
use kube::{Api, Resource, ResourceExt};

use crate::api::conditions::{ConditionUpdate, READY, RECONCILING, STALLED, transition};
use crate::api::model_registry::AllowedFrom;
use crate::api::registered_model::{
    CreationPolicy, MirroredAlias, MirroredStage, ModelDeletionPolicy,
};
use crate::api::{
    AliasBinding, ModelRegistry, ModelVersion, Reason, RegisteredModel, RegisteredModelStatus,
    names, reason::Problem,
};
use crate::controllers::cached::registry_of;
use crate::controllers::context::Context;
use crate::controllers::registry::listing::NEWEST;
use crate::controllers::registry::refresh::request_refresh;
use crate::controllers::registry::state::RegistryState;
use crate::kubernetes::failure::ReconcileError;
use crate::kubernetes::finalizer::set_finalizer;
use crate::kubernetes::key::ObjectKey;
use crate::kubernetes::status::StatusWrite;
use crate::kubernetes::work_queue::Requeue;
use crate::registries::mlflow::{ListedVersion, ModelFacts, Registry};

/// The most aliases that a status mirrors.
const MOST_ALIASES: usize = 64;
/// The most versions that a status mirrors.
const MOST_VERSIONS: usize = 24;
/// How long a version that is absent or has a problem is not asked for again, at least.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);

/// One pass over a registered model.
pub async fn reconcile(
    model: Arc<RegisteredModel>,
    ctx: Arc<Context>,
) -> Result<Requeue, ReconcileError> {
    if model.metadata.deletion_timestamp.is_some() {
        return finalize(&model, &ctx).await;
    }
    if keep_finalizer(&model, &ctx).await? {
        // The write comes back as a change.
        return Ok(Requeue::await_change());
    }
    let usable = usable_registry(&model, &ctx).await;
    if let Ok((registry, state)) = &usable
        && state.is_unasked(model.model_name())
    {
        // Nobody asked for it yet: it is asked for together with all that are new. The answer wakes it.
        request_refresh(
            &ctx,
            &ObjectKey::of(registry.as_ref()),
            model.model_name().to_owned(),
        );
        return Ok(Requeue::after(LEAST_PATIENCE));
    }
    let mirrored = match usable {
        Ok((registry, state)) => mirror(&model, &ctx, &registry, &state).await,
        Err(problem) => Err(problem),
    };
    if matches!(&mirrored, Err(problem) if is_left_alone(&model, problem)) {
        return Ok(Requeue::await_change());
    }
    let retry = retry_after(&mirrored, &model, &ctx);
    publish(&model, &ctx, mirrored).await?;
    Ok(retry)
}

/// An outage is ended by the registry's own loop, which wakes all its models; other troubles are looked at again soon.
fn retry_after(
    mirrored: &Result<Mirror, Problem>,
    model: &RegisteredModel,
    ctx: &Context,
) -> Requeue {
    let state = ctx.registries.of(&registry_of(model));
    if mirrored.is_err() && state.problem().is_some() {
        return Requeue::await_change();
    }
    match mirrored {
        Ok(mirror) if is_incomplete(&mirror.status) => Requeue::after(LEAST_PATIENCE * 2),
        Ok(mirror) if mirror.problem.is_none() => Requeue::await_change(),
        Err(problem)
            if matches!(
                problem.reason,
                Reason::Pending | Reason::RegistryNotFound | Reason::Suspended
            ) =>
        {
            Requeue::await_change()
        }
        _ => Requeue::after(Duration::from_secs(5)),
    }
}

/// After a start, what was mirrored stands as it is until the registry's own loop has looked once, for all models together.
fn is_left_alone(model: &RegisteredModel, problem: &Problem) -> bool {
    let is_mirrored = model
        .status
        .as_ref()
        .is_some_and(|status| !status.conditions.is_empty());
    problem.reason == Reason::Pending && is_mirrored && model.metadata.generation == observed(model)
}

fn observed(model: &RegisteredModel) -> Option<i64> {
    model
        .status
        .as_ref()
        .and_then(|status| status.observed_generation)
}

/// Whether a version that an alias or stage names is missing from the mirror, or has a problem that may be mended.
fn is_incomplete(status: &RegisteredModelStatus) -> bool {
    let aliased = status.aliases.iter().map(|alias| &alias.version);
    let mut named = aliased.chain(status.stages.iter().map(|stage| &stage.version));
    let is_usable = |number: &String| {
        status
            .versions
            .iter()
            .any(|version| version.version == *number && version.problem.is_none())
    };
    named.any(|number| !is_usable(number))
}

/// The mirror that a pass came to.
struct Mirror {
    status: RegisteredModelStatus,
    problem: Option<Problem>,
}

/// The registry that the model names, where it exists, allows the model's namespace, and answers.
async fn usable_registry(
    model: &RegisteredModel,
    ctx: &Context,
) -> Result<(Arc<ModelRegistry>, Arc<RegistryState>), Problem> {
    let (namespace, name) = (model.registry_namespace(), &model.spec.registry_ref.name);
    let Some(registry) = ctx.stores.registry(&namespace, name) else {
        let message = format!(
            "there is no ModelRegistry {name} in namespace {namespace} (or it is not watched): create it, or correct spec.registryRef"
        );
        return Err(Problem::new(Reason::RegistryNotFound, message));
    };
    allowed(model, &registry, ctx).await?;
    let state = ctx.registries.of(&registry_of(model));
    if let Some(problem) = state.problem() {
        return Err(problem);
    }
    if state.registry().is_none() || !state.is_told(model.model_name()) {
        return Err(if registry.spec.suspend {
            Problem::new(
                Reason::Suspended,
                format!("ModelRegistry {name} is suspended and was not looked at yet"),
            )
        } else {
            Problem::new(
                Reason::Pending,
                "the registry is being looked at for the first time",
            )
        });
    }
    Ok((registry, state))
}

async fn allowed(
    model: &RegisteredModel,
    registry: &ModelRegistry,
    ctx: &Context,
) -> Result<(), Problem> {
    let own = model.namespace().unwrap_or_default();
    let theirs = registry.namespace().unwrap_or_default();
    let allowed = &registry.spec.allowed_namespaces;
    let is_allowed = own == theirs
        || match allowed.from {
            AllowedFrom::Same => false,
            AllowedFrom::All => true,
            AllowedFrom::Selector => matches_selector(ctx, &own, allowed.selector.as_ref()).await?,
        };
    if is_allowed {
        return Ok(());
    }
    let message = format!(
        "ModelRegistry {theirs}/{} does not allow namespace {own}: its owner can, with spec.allowedNamespaces",
        registry.name_any()
    );
    Err(Problem::new(Reason::RegistryNotAllowed, message))
}

async fn matches_selector(
    ctx: &Context,
    namespace: &str,
    selector: Option<&LabelSelector>,
) -> Result<bool, Problem> {
    let Some(selector) = selector else {
        return Ok(false);
    };
    let found = Api::<Namespace>::all(ctx.client.clone())
        .get(namespace)
        .await;
    let labels = found
        .map(|found| found.metadata.labels.unwrap_or_default())
        .map_err(|error| {
            Problem::new(
                Reason::RegistryNotAllowed,
                format!("the labels of namespace {namespace} cannot be read: {error}"),
            )
        })?;
    let selector: kube::core::Selector = selector.clone().try_into().map_err(|error| {
        Problem::new(
            Reason::InvalidSpec,
            format!("allowedNamespaces.selector: {error}"),
        )
    })?;
    Ok(selector.matches(&labels))
}

async fn mirror(
    model: &RegisteredModel,
    ctx: &Context,
    registry: &ModelRegistry,
    state: &RegistryState,
) -> Result<Mirror, Problem> {
    let client = state
        .registry()
        .ok_or_else(|| Problem::new(Reason::Pending, "the registry is not connected yet"))?;
    let bindings = ctx
        .stores
        .bindings_of_model(&model.namespace().unwrap_or_default(), &model.name_any());
    let look = Refresh {
        model,
        registry,
        state,
        client,
        bindings,
    };
    let facts = look.facts().await?;
    let (facts, problem) = look.declare(facts).await?;
    let status = look.status(&facts).await?;
    Ok(Mirror { status, problem })
}

/// One look at one model.
struct Refresh<'a> {
    model: &'a RegisteredModel,
    registry: &'a ModelRegistry,
    state: &'a RegistryState,
    client: Registry,
    /// The bindings that follow it.
    bindings: Vec<AliasBinding>,
}

impl Refresh<'_> {
    fn name(&self) -> &str {
        self.model.model_name()
    }

    /// What the registry says: from the last look at all models, or by a direct question where that is called for.
    async fn facts(&self) -> Result<ModelFacts, Problem> {
        let seen = self.state.facts(self.name());
        // Every request is noted, so `|` and not `||`.
        let asked = self.is_new_request(self.model) | self.asked_by_bindings();
        let facts = match seen {
            // Rule 3: an alias that was there and is missing from the answer is asked for once more before it is gone.
            Some(facts) if !asked && !self.misses_an_alias(&facts) => Some(facts),
            _ => self.ask().await?,
        };
        match facts {
            Some(facts) => Ok(facts),
            None => self.create().await,
        }
    }

    fn asked_by_bindings(&self) -> bool {
        self.bindings
            .iter()
            .fold(false, |asked, binding| asked | self.is_new_request(binding))
    }

    fn is_new_request<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        let request = object.annotations().get(names::REQUESTED_AT_ANNOTATION);
        self.state
            .is_new_request(K::kind(&()), &ObjectKey::of(object), request)
    }

    fn misses_an_alias(&self, facts: &ModelFacts) -> bool {
        let mirrored = self
            .model
            .status
            .as_ref()
            .map(|status| status.aliases.as_slice())
            .unwrap_or_default();
        mirrored
            .iter()
            .any(|alias| !facts.aliases.contains_key(&alias.name))
    }

    async fn ask(&self) -> Result<Option<ModelFacts>, Problem> {
        let asked_at = Instant::now();
        let facts = self
            .client
            .get_model(self.name())
            .await
            .map_err(Problem::from)?;
        self.state.learn(self.name(), facts.as_ref(), asked_at);
        Ok(facts)
    }

    async fn create(&self) -> Result<ModelFacts, Problem> {
        let name = self.name();
        let absent = |remedy: &str| {
            Problem::new(
                Reason::ModelNotFound,
                format!("the registry has no registered model {name:?}: {remedy}"),
            )
        };
        if self.model.spec.creation_policy == CreationPolicy::Observe {
            return Err(absent("register it, or set spec.creationPolicy: Create"));
        }
        // A model that was mirrored before was deleted by somebody: making it anew is what Create says, but an empty model
        // has no aliases, and bindings then stay at what they run.
        let spec = &self.model.spec;
        self.client
            .create_model(name, spec.description.as_deref(), &spec.tags)
            .await
            .map_err(Problem::from)?;
        self.ask()
            .await?
            .ok_or_else(|| absent("it was made a moment ago and is gone again"))
    }

    /// Keeps description, tags and aliases as declared. A failing alias is a problem of its own, and hinders nothing else.
    async fn declare(&self, facts: ModelFacts) -> Result<(ModelFacts, Option<Problem>), Problem> {
        let spec = &self.model.spec;
        let name = self.name();
        let mut changed = false;
        if let Some(text) = spec
            .description
            .as_ref()
            .filter(|text| **text != facts.description)
        {
            self.client
                .set_description(name, text)
                .await
                .map_err(Problem::from)?;
            changed = true;
        }
        for (key, value) in spec
            .tags
            .iter()
            .filter(|(key, value)| facts.tags.get(*key) != Some(*value))
        {
            self.client
                .set_tag(name, key, value)
                .await
                .map_err(Problem::from)?;
            changed = true;
        }
        let mut problem = None;
        for alias in spec
            .aliases
            .iter()
            .filter(|alias| facts.aliases.get(&alias.name) != Some(&alias.version))
        {
            match self
                .client
                .set_alias(name, &alias.name, &alias.version)
                .await
            {
                Ok(()) => changed = true,
                Err(error) if error.is_not_found() => {
                    problem = Some(self.no_such_version(&alias.name, &alias.version));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let facts = if changed {
            self.ask().await?.unwrap_or(facts)
        } else {
            facts
        };
        Ok((facts, problem))
    }

    fn no_such_version(&self, alias: &str, version: &str) -> Problem {
        let message = format!(
            "alias {alias} cannot be set: model {:?} has no version {version}; register it, or correct spec.aliases",
            self.name()
        );
        Problem::new(Reason::VersionNotFound, message)
    }

    async fn status(&self, facts: &ModelFacts) -> Result<RegisteredModelStatus, Problem> {
        let old = self.model.status.clone().unwrap_or_default();
        let now = Timestamp::now();
        let created_at = facts.created_at.map(MicroTime);
        // Rule 1: a model that was deleted and made again starts at version 1 anew, and that 1 is another version.
        let same_model = old.created_at == created_at;
        let followed = self.followed_aliases();
        let listed = self.listed(facts, &old, same_model).await?;
        let known = if same_model {
            old.versions.as_slice()
        } else {
            &[]
        };
        let numbers = self.version_numbers(facts, known, &listed, &followed);
        if !same_model {
            self.state.forget_useless(self.name());
        }
        Ok(RegisteredModelStatus {
            observed_generation: self.model.metadata.generation,
            model_name: Some(self.name().to_owned()),
            created_at,
            tracking_uri: Some(self.registry.spec.mlflow.uri.clone()),
            latest_version: facts.latest_version.clone(),
            aliases: aliases(facts, &old, &followed, now),
            stages: stages(facts, &old, now),
            versions: self.versions(numbers, known, &listed).await?,
            conditions: old.conditions,
        })
    }

    fn followed_aliases(&self) -> BTreeSet<String> {
        let followed = self
            .bindings
            .iter()
            .filter_map(|binding| binding.spec.alias.clone());
        followed
            .chain(
                self.model
                    .spec
                    .aliases
                    .iter()
                    .map(|alias| alias.name.clone()),
            )
            .collect()
    }

    /// The versions to mirror, the most needed first: pinned, followed, in a stage, aliased, newest.
    fn version_numbers(
        &self,
        facts: &ModelFacts,
        known: &[ModelVersion],
        listed: &[ListedVersion],
        followed: &BTreeSet<String>,
    ) -> Vec<String> {
        let pinned = self
            .bindings
            .iter()
            .filter_map(|binding| binding.spec.pinned_version.clone());
        let followed = followed
            .iter()
            .filter_map(|alias| facts.aliases.get(alias).cloned());
        let staged = facts.stages.values().cloned();
        let aliased = facts.aliases.values().cloned();
        let mirrored = known.iter().map(|version| &version.version);
        let newest: Vec<String> = match listed {
            [] => mirrored
                .cloned()
                .chain(facts.latest_version.clone())
                .collect(),
            listed => listed
                .iter()
                .map(|version| version.version.clone())
                .collect(),
        };
        let newest = newest_few(newest);
        let mut numbers = Vec::new();
        for number in pinned
            .chain(followed)
            .chain(staged)
            .chain(aliased)
            .chain(newest)
        {
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        numbers.truncate(MOST_VERSIONS);
        numbers
    }

    /// The newest versions, asked for where there is a newer one than those that are mirrored.
    async fn listed(
        &self,
        facts: &ModelFacts,
        old: &RegisteredModelStatus,
        same_model: bool,
    ) -> Result<Vec<ListedVersion>, Problem> {
        if facts.latest_version.is_none()
            || (same_model && old.latest_version == facts.latest_version)
        {
            return Ok(Vec::new());
        }
        let is_newest = |listed: &Vec<ListedVersion>| {
            listed.first().map(|version| &version.version) == facts.latest_version.as_ref()
        };
        match self.state.take_listed(self.name()).filter(is_newest) {
            Some(listed) => Ok(listed),
            None => self
                .client
                .newest_versions(self.name(), NEWEST)
                .await
                .map_err(Problem::from),
        }
    }

    /// The details of each version: those that are known as they are, the others asked for once.
    async fn versions(
        &self,
        numbers: Vec<String>,
        known: &[ModelVersion],
        listed: &[ListedVersion],
    ) -> Result<Vec<ModelVersion>, Problem> {
        let mut versions = Vec::with_capacity(numbers.len());
        for number in numbers {
            let known = known.iter().find(|version| version.version == number);
            match known {
                // What hindered a version may have been mended since, so it is asked for again now and then.
                Some(version) if version.problem.is_none() || self.was_asked(&number) => {
                    versions.push(version.clone());
                }
                _ => versions.extend(self.version(&number, listed).await?),
            }
        }
        versions.sort_by_key(|version| {
            std::cmp::Reverse(version.version.parse::<u64>().unwrap_or_default())
        });
        Ok(versions)
    }

    async fn version(
        &self,
        number: &str,
        listed: &[ListedVersion],
    ) -> Result<Option<ModelVersion>, Problem> {
        if self.was_asked(number) {
            return Ok(None);
        }
        let found = match listed.iter().find(|version| version.version == number) {
            Some(listed) => self
                .client
                .describe_listed(self.name(), listed.clone())
                .await
                .map(Some),
            None => self.client.get_version(self.name(), number).await,
        };
        let found = found.map_err(Problem::from)?;
        if found
            .as_ref()
            .is_none_or(|version| version.problem.is_some())
        {
            self.state.note_useless(self.name(), number);
        }
        Ok(found)
    }

    /// Whether the version was asked for in vain so recently that asking again is of no use.
    fn was_asked(&self, number: &str) -> bool {
        self.state.is_useless(
            self.name(),
            number,
            self.registry.interval().max(LEAST_PATIENCE),
        )
    }
}

/// The newest few of some version numbers.
fn newest_few(mut numbers: Vec<String>) -> Vec<String> {
    numbers.sort_by_key(|number| std::cmp::Reverse(number.parse::<u64>().unwrap_or_default()));
    numbers.truncate(NEWEST as usize);
    numbers
}

fn aliases(
    facts: &ModelFacts,
    old: &RegisteredModelStatus,
    followed: &BTreeSet<String>,
    now: Timestamp,
) -> Vec<MirroredAlias> {
    let (first, rest): (Vec<_>, Vec<_>) = facts
        .aliases
        .iter()
        .partition(|(name, _)| followed.contains(*name));
    let since = |name: &str, version: &str| {
        let same = old
            .aliases
            .iter()
            .find(|alias| alias.name == name && alias.version == version);
        same.map_or(Time(now), |alias| alias.since.clone())
    };
    let mirrored = |(name, version): (&String, &String)| MirroredAlias {
        name: name.clone(),
        version: version.clone(),
        since: since(name, version),
    };
    first
        .into_iter()
        .chain(rest)
        .take(MOST_ALIASES)
        .map(mirrored)
        .collect()
}

fn stages(facts: &ModelFacts, old: &RegisteredModelStatus, now: Timestamp) -> Vec<MirroredStage> {
    let since = |name: &str, version: &str| {
        let same = old
            .stages
            .iter()
            .find(|stage| stage.name == name && stage.version == version);
        same.map_or(Time(now), |stage| stage.since.clone())
    };
    let stages: &BTreeMap<String, String> = &facts.stages;
    let mirrored = |(name, version): (&String, &String)| MirroredStage {
        name: name.clone(),
        version: version.clone(),
        since: since(name, version),
    };
    stages.iter().map(mirrored).collect()
}

async fn publish(
    model: &RegisteredModel,
    ctx: &Context,
    mirrored: Result<Mirror, Problem>,
) -> Result<(), ReconcileError> {
    let old = model.status.clone().unwrap_or_default();
    let (mut new, problem) = match mirrored {
        Ok(mirror) => (mirror.status, mirror.problem),
        // Rule 3: what was mirrored stays, and the conditions say why it may be out of date.
        Err(problem) => (
            RegisteredModelStatus {
                observed_generation: model.metadata.generation,
                ..old.clone()
            },
            Some(problem),
        ),
    };
    new.conditions = transition(
        &old.conditions,
        &conditions(problem.as_ref()),
        model.metadata.generation,
        Timestamp::now(),
    );
    if model.status.as_ref() == Some(&new) {
        return Ok(());
    }
    let mut changed = model.clone();
    changed.status = Some(new);
    let written = ctx.write_status(&ctx.stores.models, &changed).await?;
    if written == StatusWrite::Changed {
        ctx.enqueue_bindings_of_model(&ObjectKey::of(model));
    }
    Ok(())
}

fn conditions(problem: Option<&Problem>) -> Vec<ConditionUpdate> {
    let Some(problem) = problem else {
        return vec![ConditionUpdate::yes(
            READY,
            Reason::Mirrored,
            "aliases and versions are as the registry named them last",
        )];
    };
    let heals = matches!(
        problem.reason,
        Reason::RegistryUnreachable | Reason::Pending
    );
    let beside = if heals { RECONCILING } else { STALLED };
    vec![
        ConditionUpdate::no(READY, problem.reason, &problem.message),
        ConditionUpdate::yes(beside, problem.reason, &problem.message),
    ]
}

/// Puts the finalizer on where the registered model goes with the object, and takes it off where it stays. True where written.
async fn keep_finalizer(model: &RegisteredModel, ctx: &Context) -> Result<bool, ReconcileError> {
    let wanted = model.spec.deletion_policy == ModelDeletionPolicy::Delete;
    let present = model
        .finalizers()
        .iter()
        .any(|name| name == names::MODEL_FINALIZER);
    if wanted != present {
        set_finalizer(
            &ctx.client,
            &ctx.stores.models,
            model,
            names::MODEL_FINALIZER,
            wanted,
        )
        .await?;
    }
    Ok(wanted != present)
}

/// Deletes the registered model from the registry, where the spec says so, before the object goes.
async fn finalize(model: &RegisteredModel, ctx: &Context) -> Result<Requeue, ReconcileError> {
    if !model
        .finalizers()
        .iter()
        .any(|name| name == names::MODEL_FINALIZER)
    {
        return Ok(Requeue::await_change());
    }
    if model.spec.deletion_policy == ModelDeletionPolicy::Delete
        && let Err(problem) = delete_in_registry(model, ctx).await
    {
        let message = format!(
            "{}; to let the object go without deleting the registered model, set spec.deletionPolicy: Retain",
            problem.message
        );
        publish(model, ctx, Err(Problem::new(problem.reason, message))).await?;
        return Ok(Requeue::after(Duration::from_secs(10)));
    }
    set_finalizer(
        &ctx.client,
        &ctx.stores.models,
        model,
        names::MODEL_FINALIZER,
        false,
    )
    .await?;
    Ok(Requeue::await_change())
}

async fn delete_in_registry(model: &RegisteredModel, ctx: &Context) -> Result<(), Problem> {
    let (_, state) = usable_registry(model, ctx).await?;
    let client = state
        .registry()
        .ok_or_else(|| Problem::new(Reason::Pending, "the registry is not connected yet"))?;
    client
        .delete_model(model.model_name())
        .await
        .map_err(Problem::from)
}
