//! All that a decision may know of a workload, whatever its kind.
//!
//! Absent: names of kinds. Each kind is read by its own file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use kube::api::ObjectMeta;
use serde_json::Value;

use super::literal::unescape;
use super::owners::{FieldOwners, OwnedField};
use super::workload::{Container, EnvVar, PodTemplate, Workload};
use crate::api::alias_binding::TargetKind;
use crate::api::inject::InjectedValue;
use crate::api::public_uri::{public, split_query};
use crate::api::{VersionId, VersionRef, names};

/// The progress deadline in seconds of a workload that sets none.
const DEFAULT_DEADLINE: i64 = 600;

/// How far a rollout is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RolloutState {
    /// All replicas run the newest template and are available.
    Complete,
    /// No replicas are asked for, so the newest template runs nowhere.
    ScaledToZero,
    /// Under way, with a sentence that stays the same for the whole rollout: a status that counted pods would be written
    /// with each of them.
    InProgress(String),
    /// The workload's own controller gave up waiting, with its own words.
    DeadlineExceeded(String),
    /// The workload's own controller gave the rollout up, and runs the pods of before.
    Aborted(Abort),
}

/// A rollout that the workload's own controller gave up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Abort {
    /// Its own words.
    pub words: String,
    /// How a person has it go on.
    pub remedy: String,
    /// Whether it was not the version that failed, but the measurement of the version.
    pub is_unmeasured: bool,
    /// For how long after a write its status may still be that of before.
    pub settles_in: SignedDuration,
}

/// The pods of a workload of any template.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Capacity {
    /// How many the spec asks for.
    pub desired: i32,
    /// How many are available.
    pub available: i32,
    /// Whether the workload's own minimum is available, as its strategy defines it.
    pub has_minimum: bool,
    /// Whether pods of older templates are among them.
    pub has_old_pods: bool,
}

/// How the pods of the newest template are told from older ones.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NewestPods {
    /// The workload's controller has not seen the newest template: it has no pods yet.
    None,
    /// They belong to the owned ReplicaSet whose annotation or label of this name has this value.
    OfReplicaSet(&'static str, Option<String>),
    /// The workload owns them, and this label has this value.
    OwnedWithLabel(&'static str, Option<String>),
}

/// The least number of pods that a rolling update keeps available, with the API server's default of one unavailable pod.
pub(super) fn minimum_available(desired: i32, max_unavailable: Option<&IntOrString>) -> i32 {
    let unavailable = match max_unavailable {
        None => 1,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(percent)) => {
            let percent = percent.trim_end_matches('%').parse().unwrap_or(0_i32);
            desired.saturating_mul(percent.clamp(0, 100)) / 100
        }
    };
    (desired - unavailable).clamp(1.min(desired), desired)
}

/// Where a version is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Into a pod template.
    PodTemplate,
    /// Into a pod template in a template of Jobs.
    JobTemplate,
    /// Into a pod template whose schema has no keys for containers and variables, so that a patch changes the exact elements.
    PlainTemplate,
    /// Into fields of an object with this spec, by such a patch.
    Fields(Value),
}

/// A workload as decisions see it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The kind, for patches and messages.
    pub kind: TargetKind,
    /// Name, labels, annotations, owners, resource version.
    pub metadata: ObjectMeta,
    /// The pod template.
    pub template: PodTemplate,
    /// The managers of the fields that Pointsman may write.
    pub owners: FieldOwners,
    /// The number of pods in the spec, if the kind has one.
    pub replicas: Option<i32>,
    /// How far the rollout of the newest template is.
    pub rollout: RolloutState,
    /// The pods that it asks for, and those that are available.
    pub capacity: Capacity,
    /// For how long a started pod may be unready before its version has failed.
    pub progress_deadline: SignedDuration,
    /// When the workload's controller last saw progress, if it says so.
    pub progressed_at: Option<Timestamp>,
    /// Why the workload's controller cannot create pods, in its own words.
    pub refusal: Option<String>,
    /// Whether the rollout waits for a person, an analysis or the end of a pause.
    pub is_paused: bool,
    /// How the newest pods are found.
    pub newest_pods: NewestPods,
    /// Whether a broken pod of an older template keeps the controller from replacing it, so that it has to be deleted.
    pub broken_pods_block: bool,
    /// Where a version is written.
    pub form: Form,
    /// Why no version can be written into it, with the remedy.
    pub obstacle: Option<String>,
    /// Why an object without pods of its own is not ready, in its own words.
    pub unready: Option<String>,
}

/// A kind of workload: how it is read. One file each.
pub trait Adapter:
    Clone + Debug + Resource<DynamicType = (), Scope = NamespaceResourceScope> + Send + Sync + 'static
{
    /// The kind in `spec.targetRef.kind`.
    const KIND: TargetKind;

    /// Reads the workload.
    fn read(workload: Workload<Self>) -> Target;
}

impl<K> Workload<K> {
    /// How the newest pods are found: before the controller has observed the newest spec, there are none.
    pub(super) fn newest_pods(&self, observed: NewestPods) -> NewestPods {
        if self.is_observed() {
            observed
        } else {
            NewestPods::None
        }
    }

    /// The workload as a target of a kind that has nothing beyond these. An adapter adds the rest.
    pub(super) fn target(
        self,
        kind: TargetKind,
        (rollout, capacity): (RolloutState, Capacity),
        newest: NewestPods,
    ) -> Target {
        Target {
            kind,
            replicas: self.spec.replicas,
            rollout,
            capacity,
            progress_deadline: self.progress_deadline(),
            progressed_at: None,
            refusal: None,
            is_paused: false,
            newest_pods: self.newest_pods(newest),
            broken_pods_block: false,
            form: Form::PodTemplate,
            obstacle: None,
            unready: None,
            metadata: self.metadata,
            template: self.spec.template,
            owners: self.owners,
        }
    }

    /// The progress deadline; the default if the workload sets none, or its kind has none.
    pub(super) fn progress_deadline(&self) -> SignedDuration {
        let seconds = self.spec.progress_deadline_seconds;
        SignedDuration::from_secs(seconds.map_or(DEFAULT_DEADLINE, i64::from))
    }
}

impl<K: Adapter> From<Workload<K>> for Target {
    fn from(workload: Workload<K>) -> Self {
        K::read(workload)
    }
}

impl Target {
    /// Kind and name as kubectl takes them, for instance `deployment/server`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}/{}", self.kind.resource(), self.name())
    }

    /// Whether a patch changes the exact elements of lists.
    #[must_use]
    pub fn has_plain_lists(&self) -> bool {
        matches!(self.form, Form::PlainTemplate | Form::Fields(_))
    }

    /// The spec of an object whose fields a version sets; `None` for a workload with containers.
    #[must_use]
    pub fn object(&self) -> Option<&Value> {
        match &self.form {
            Form::Fields(object) => Some(object),
            _ => None,
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The number of the version in the pod template's annotation.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.annotation(names::VERSION_ANNOTATION)
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.template
            .metadata
            .annotations
            .get(name)
            .map(String::as_str)
    }

    /// Whether the pod template names this version.
    ///
    /// The identity decides if both sides have it; a template without it is compared by its artifact URI.
    #[must_use]
    pub fn runs(&self, version: &VersionRef) -> bool {
        if self.version() != Some(version.id.version.as_str()) {
            return false;
        }
        match self.annotation(names::VERSION_ID_ANNOTATION) {
            Some(digest) if version.id.is_complete() => *digest == version.id.digest(),
            _ => self.has_artifact_of(version),
        }
    }

    /// Whether the pod template names the present location of a version's files, if it names one at all.
    #[must_use]
    pub fn has_artifact_of(&self, version: &VersionRef) -> bool {
        self.name_of(InjectedValue::ModelUri).is_none()
            || self.injected(InjectedValue::ModelUri).as_deref() == version.artifact_uri.as_deref()
    }

    /// Whether a pod was made with the version of the pod template.
    #[must_use]
    pub fn is_version_of(&self, pod: &ObjectMeta) -> bool {
        let annotations = pod.annotations.as_ref();
        let of_pod = |name| {
            annotations
                .and_then(|all| all.get(name))
                .map(String::as_str)
        };
        [names::VERSION_ANNOTATION, names::VERSION_ID_ANNOTATION]
            .into_iter()
            .all(|name: &str| of_pod(name) == self.annotation(name))
    }

    /// The version in the pod template: one of `known`, or what the template itself says.
    #[must_use]
    pub fn held_version<'a>(
        &self,
        mut known: impl Iterator<Item = &'a VersionRef>,
    ) -> Option<VersionRef> {
        let number = self.version()?;
        let injected = |value| self.injected(value).map(Cow::into_owned);
        let known = known.find(|known| self.runs(known));
        let mut version = known.cloned().unwrap_or_else(|| VersionRef {
            id: VersionId {
                model: injected(InjectedValue::ModelName).unwrap_or_default(),
                version: number.to_owned(),
                ..VersionId::default()
            },
            ..VersionRef::default()
        });
        let holder = self.holding_container();
        // What no variable says is known from elsewhere.
        let says = |value| holder.is_some() && self.name_of(value).is_some();
        let written = |value| self.written(value).map(Cow::into_owned);
        if says(InjectedValue::ModelUri) {
            version.query_withheld = self.has_query();
            version.artifact_uri = injected(InjectedValue::ModelUri);
        }
        if says(InjectedValue::RunId) {
            version.run_id = injected(InjectedValue::RunId).filter(|id| !id.is_empty());
        }
        if says(InjectedValue::TrackingUri) {
            version.tracking_uri = written(InjectedValue::TrackingUri);
        }
        if says(InjectedValue::Workspace) {
            version.workspace = written(InjectedValue::Workspace);
        }
        Some(version)
    }

    /// The list of the template's variables, if they do not have their usual names.
    #[must_use]
    pub fn variable_list(&self) -> Option<&str> {
        self.annotation(names::VARIABLES_ANNOTATION)
    }

    /// The name of the variable that has this value.
    fn name_of(&self, value: InjectedValue) -> Option<&str> {
        let Some(list) = self.variable_list() else {
            return Some(value.usual_name());
        };
        let mut pairs = list.split(',').filter_map(|pair| pair.rsplit_once('='));
        let (name, _) = pairs.find(|(_, named)| *named == value.as_str())?;
        Some(name)
    }

    /// The value of an injected variable as people may see it: as pods get it, but for the query of a URI.
    #[must_use]
    pub fn injected(&self, value: InjectedValue) -> Option<Cow<'_, str>> {
        let whole = self.literal(value)?;
        if value != InjectedValue::ModelUri {
            return Some(whole);
        }
        Some(Cow::Owned(public(&whole).to_owned()))
    }

    /// The value of an injected variable as pods get it, from the first container that holds the template's version: other
    /// containers may use the same names for something of their own.
    fn literal(&self, value: InjectedValue) -> Option<Cow<'_, str>> {
        literal(self.holding_container()?, self.name_of(value)?).map(unescape)
    }

    /// The value of an injected variable, if it is as Pointsman wrote it.
    #[must_use]
    pub fn written(&self, value: InjectedValue) -> Option<Cow<'_, str>> {
        let (container, name) = (self.holding_container()?, self.name_of(value)?);
        self.injected(value)
            .filter(|_value| self.is_injected(&container.name, name))
    }

    /// Whether the artifact URI of the template has a query.
    #[must_use]
    pub fn has_query(&self) -> bool {
        let uri = self.literal(InjectedValue::ModelUri);
        uri.is_some_and(|uri| split_query(&uri).1.is_some())
    }

    /// The name of the container that holds the template's version.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        Some(&self.holding_container()?.name)
    }

    fn holding_container(&self) -> Option<&Container> {
        let version = self.version()?;
        let spec = &self.template.spec;
        let mut containers = spec.containers.iter().chain(&spec.init_containers);
        if let Some(name) = self.name_of(InjectedValue::ModelVersion) {
            return containers.find(|container| literal(container, name) == Some(version));
        }
        let list = self.variable_list().unwrap_or_default();
        let names = || list.split(',').filter_map(|pair| pair.rsplit_once('='));
        containers.find(|container| {
            names().any(|(name, _)| {
                literal(container, name).is_some() && self.is_injected(&container.name, name)
            })
        })
    }

    /// Whether Pointsman wrote a variable, or somebody who brought a whole template of Pointsman's back.
    pub(super) fn is_injected(&self, container: &str, name: &str) -> bool {
        let field = OwnedField::Env {
            container: container.to_owned(),
            name: name.to_owned(),
        };
        self.owners.is_ours(&field) || self.owners.came_back(&field)
    }

    /// Whether a container has a variable that neither Pointsman wrote nor somebody who brought a template of Pointsman's back.
    pub(super) fn is_set_by_others(&self, container: &str, name: &str) -> bool {
        let field = OwnedField::Env {
            container: container.to_owned(),
            name: name.to_owned(),
        };
        self.env(container, name).is_some()
            && !self.owners.of(&field).is_empty()
            && !self.is_injected(container, name)
    }

    /// Whether another manager set the change cause.
    #[must_use]
    pub fn has_foreign_change_cause(&self) -> bool {
        let field = OwnedField::ChangeCause;
        let is_owned = !self.owners.of(&field).is_empty();
        is_owned && !self.owners.is_ours(&field) && !self.owners.came_back(&field)
    }

    /// Whether this is the name of an init container.
    #[must_use]
    pub fn is_init(&self, container: &str) -> bool {
        let init = &self.template.spec.init_containers;
        init.iter().any(|each| each.name == container)
    }

    /// A container or an init container.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&Container> {
        let spec = &self.template.spec;
        let mut containers = spec.containers.iter().chain(&spec.init_containers);
        containers.find(|each| each.name == name)
    }

    /// The resources that one more pod needs, for instance `cpu: 500m, example.com/gpu: 1`; empty if it asks for none.
    #[must_use]
    pub fn pod_requests(&self) -> String {
        let containers = &self.template.spec.containers;
        let mut requests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for container in containers {
            let resources = &container.resources;
            let mut of_container: BTreeMap<_, _> = resources.limits.iter().collect();
            of_container.extend(&resources.requests);
            for (name, Quantity(amount)) in of_container {
                requests.entry(name).or_default().push(amount);
            }
        }
        let parts: Vec<String> = requests
            .iter()
            .map(|(name, amounts)| format!("{name}: {}", amounts.join(" + ")))
            .collect();
        parts.join(", ")
    }

    /// An environment variable of a container.
    #[must_use]
    pub fn env(&self, container: &str, name: &str) -> Option<&EnvVar> {
        let env = &self.container(container)?.env;
        env.iter().find(|each| each.name == name)
    }

    /// Whether a variable that Pointsman wrote is still there. Managed fields alone do not tell: an entry of a list that a person
    /// removed may stay in them.
    #[must_use]
    pub fn has_our_variables(&self) -> bool {
        let mut ours = self.owners.our_variables();
        ours.any(|(container, name, _)| self.env(container, name).is_some())
    }

    /// The binding in the workload's label.
    #[must_use]
    pub fn binding(&self) -> Option<&str> {
        let labels = self.metadata.labels.as_ref()?;
        labels.get(names::BINDING_LABEL).map(String::as_str)
    }

    /// Whether the workload's own minimum is available, and by pods of the newest template only.
    #[must_use]
    pub fn serves_its_template(&self) -> bool {
        self.capacity.has_minimum && !self.capacity.has_old_pods
    }

    /// Whether the rollout of the newest template is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.rollout == RolloutState::Complete
    }
}

fn literal<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let variable = container.env.iter().find(|each| each.name == name)?;
    variable.value.as_deref()
}
