//! All that a decision may know of a workload, whatever its kind.
//!
//! Absent: names of kinds. Each kind is read by its own file.

use std::borrow::Cow;
use std::fmt::Debug;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::ObjectMeta;

use super::literal::unescape;
use super::owners::FieldOwners;
use super::workload::{Container, EnvVar, PodTemplate, Workload};
use crate::api::alias_binding::TargetKind;
use crate::api::{VersionId, VersionRef, names};

/// How far a rollout is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RolloutState {
    /// All replicas run the newest template and are available.
    Complete,
    /// Under way, with a sentence that stays the same for the whole rollout: a status that counted pods would be written
    /// with each of them.
    InProgress(String),
    /// The workload's own controller gave up waiting, with its own words.
    DeadlineExceeded(String),
}

/// Who says that a rollout takes too long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Deadline {
    /// The workload's own controller, after this time without progress; and when it said so, with its words.
    Controller {
        /// The time without progress.
        after: SignedDuration,
        /// When the controller gave up, with its words.
        exceeded: Option<(Timestamp, String)>,
    },
    /// Nobody: the kind has no progress deadline, so Pointsman counts this time from the write.
    FromStart(SignedDuration),
}

/// How the pods of the newest template are told from older ones.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NewestPods {
    /// The workload's controller has not seen the newest template: it has no pods yet.
    None,
    /// They belong to the owned ReplicaSet of this revision.
    ReplicaSetOfRevision(Option<String>),
    /// The workload owns them, and this label has this value.
    OwnedWithLabel(&'static str, Option<String>),
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
    /// How far the rollout of the newest template is.
    pub rollout: RolloutState,
    /// Who says that the rollout takes too long.
    pub deadline: Deadline,
    /// How the newest pods are found.
    pub newest_pods: NewestPods,
    /// Whether a broken pod of an older template keeps the controller from replacing it, so that it has to be deleted.
    pub broken_pods_block: bool,
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

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
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
            _ => self.injected(names::MODEL_URI).as_deref() == version.artifact_uri.as_deref(),
        }
    }

    /// The version in the pod template: one of `known`, or what the template itself says.
    #[must_use]
    pub fn held_version<'a>(
        &self,
        mut known: impl Iterator<Item = &'a VersionRef>,
    ) -> Option<VersionRef> {
        let number = self.version()?;
        let owned = |name| self.injected(name).map(Cow::into_owned);
        let id = known.find(|known| self.runs(known)).map_or_else(
            || VersionId {
                model: owned(names::MODEL_NAME).unwrap_or_default(),
                version: number.to_owned(),
                ..VersionId::default()
            },
            |known| known.id.clone(),
        );
        Some(VersionRef {
            id,
            artifact_uri: owned(names::MODEL_URI),
            run_id: owned(names::MODEL_RUN_ID).filter(|id| !id.is_empty()),
        })
    }

    /// The value of an injected variable as pods get it, from the first container that holds the template's version: other
    /// containers may use the same names for something of their own.
    #[must_use]
    pub fn injected(&self, name: &str) -> Option<Cow<'_, str>> {
        let version = self.version()?;
        let holder = self
            .template
            .spec
            .containers
            .iter()
            .find(|container| literal(container, names::MODEL_VERSION) == Some(version))?;
        literal(holder, name).map(unescape)
    }

    /// An environment variable of a container.
    #[must_use]
    pub fn env(&self, container: &str, name: &str) -> Option<&EnvVar> {
        let containers = &self.template.spec.containers;
        let container = containers.iter().find(|each| each.name == container)?;
        container.env.iter().find(|each| each.name == name)
    }

    /// The names of the containers, in order.
    #[must_use]
    pub fn containers(&self) -> Vec<&str> {
        let containers = &self.template.spec.containers;
        containers.iter().map(|each| each.name.as_str()).collect()
    }

    /// The binding in the workload's label.
    #[must_use]
    pub fn binding(&self) -> Option<&str> {
        let labels = self.metadata.labels.as_ref()?;
        labels.get(names::BINDING_LABEL).map(String::as_str)
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
