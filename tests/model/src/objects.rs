//! Conversions between the compact model state and the real objects that the operator reads.
//!
//! Absent: decisions.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ContainerState;
use pointsman::api::alias_binding::DeploymentTemplate;
use pointsman::api::{
    AliasBinding, AliasBindingStatus, Availability, Reason, RegisteredModel, VersionRef, names,
};
use pointsman::rollout::{ArtifactCheck, CheckResults};
use pointsman::targets::{Owner, Pod, TEMPLATE_DIGEST_ANNOTATION, Target, template_digest};
use pointsman::testing::{self, With, WorkloadFixture, container, pod_with, running, waiting};
use serde_json::{Value, json};

use super::state::{
    BindingSpec, Check, CheckCache, CheckResult, Mirror, Ownership, Pods, Registry, Version,
    WorkloadState, Writer,
};

/// The containers that the binding chooses.
pub const CONTAINERS: [&str; 2] = ["server", "sidecar"];

/// The start of the current rollout.
pub const STARTED: &str = testing::NOW;
/// The time at which a version became available whose bake time is over.
pub const LONG_AVAILABLE: &str = "2026-11-23T12:05:00Z";
const DEADLINE: &str = "2026-11-23T12:15:00Z";
/// The time of every reconcile.
pub const NOW: &str = "2026-11-23T12:20:00Z";

pub fn binding(history_limit: u8, ownership: Ownership) -> AliasBinding {
    testing::binding().with(|binding| {
        let spec = &mut binding.spec;
        spec.inject.containers = Some(CONTAINERS.map(str::to_owned).into());
        spec.history_limit = i32::from(history_limit);
        if ownership == Ownership::Template {
            spec.target_ref = None;
            spec.template = Some(template(false));
        }
    })
}

/// `spec.template`, with one image or another.
fn template(edited: bool) -> DeploymentTemplate {
    serde_json::from_value(json!({"spec": spec(edited)})).unwrap()
}

/// The user's part of the spec, with one image or another.
fn spec(edited: bool) -> Value {
    let image = if edited { "b" } else { "a" };
    let containers = CONTAINERS.map(|name| json!({"name": name, "image": image}));
    json!({"replicas": 1, "template": {"spec": {"containers": containers}}})
}

/// The binding as the owner of its Deployment.
pub fn owner() -> Owner {
    Owner {
        namespace: "ml".to_owned(),
        name: "taxi".to_owned(),
        uid: "b".to_owned(),
        takes_workload_along: true,
    }
}

/// The digest annotation of a Deployment that was made from one of the two templates.
fn digest_annotation(edited: bool) -> String {
    template_digest(&template(edited), &owner())
}

/// Whether the binding owns the Deployment and made it from the edited template; `None` if it does not own it.
pub fn made_from_edited(target: &Target) -> Option<bool> {
    let owners = target.metadata.owner_references.as_deref()?;
    let digest = target
        .metadata
        .annotations
        .as_ref()?
        .get(TEMPLATE_DIGEST_ANNOTATION)?;
    let is_owned = owners.iter().any(|each| each.uid == owner().uid);
    let made_from = [false, true]
        .into_iter()
        .find(|edited| digest_annotation(*edited) == *digest);
    made_from.filter(|_edited| is_owned)
}

/// The binding with the fields that people wrote.
pub fn with_edits(
    base: &AliasBinding,
    spec: BindingSpec,
    status: AliasBindingStatus,
) -> AliasBinding {
    let mut binding = base.clone();
    binding.spec.pinned_version = spec.pin.map(|pin| pin.number().to_owned());
    binding.spec.suspend = spec.suspend;
    if binding.spec.template.is_some() {
        binding.spec.template = Some(template(spec.template_edited));
    }
    binding.spec.rollback.max_restarts = if spec.edited { 2 } else { 3 };
    let asked = [
        (names::RETRY_ANNOTATION, spec.retries),
        (names::RESUME_ANNOTATION, spec.resumes),
    ];
    let asked: BTreeMap<_, _> = asked
        .into_iter()
        .filter(|(_, times)| *times > 0)
        .map(|(name, times)| (name.to_owned(), times.to_string()))
        .collect();
    binding.metadata.annotations = (!asked.is_empty()).then_some(asked);
    binding.status = Some(status);
    binding
}

fn reference(version: Version) -> VersionRef {
    testing::version(version.number())
        .with(|reference| reference.artifact_uri = Some(version.artifact().to_owned()))
}

pub fn model(mirror: Mirror) -> RegisteredModel {
    let versions = Version::all().filter(|each| mirror.has(*each));
    let versions = versions.map(|each| testing::mirrored_version(&reference(each)));
    let ready = testing::ready(match mirror.registry {
        Registry::Up => Reason::Mirrored,
        Registry::Down => Reason::RegistryUnreachable,
        Registry::ModelGone => Reason::ModelNotFound,
    });
    testing::model(mirror.alias.map(Version::number), versions)
        .with(|model| model.status.as_mut().unwrap().conditions = vec![ready])
}

/// The Deployment as the API server has it.
pub fn workload(workload: WorkloadState) -> WorkloadFixture {
    let mut object = testing::deployment().user_applied(&json!({"spec": spec(workload.edited)}));
    if let Some(edited) = workload.made_from_edited {
        let owners = json!([{"apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
            "name": "taxi", "uid": "b", "controller": true, "blockOwnerDeletion": true}]);
        let digest = json!({TEMPLATE_DIGEST_ANNOTATION: digest_annotation(edited)});
        let metadata = json!({"name": "taxi", "ownerReferences": owners, "annotations": digest});
        object = object.changed(&json!({"metadata": metadata}));
    }
    if let Some(version) = workload.version {
        object = object.holding(&binding(1, Ownership::TargetRef), &reference(version));
    }
    if workload.writer == Writer::Person {
        object = object.undone_by("kubectl");
    }
    object = if workload.has_label {
        object.labelled("taxi")
    } else {
        object.changed(&json!({"metadata": {"labels": null}}))
    };
    match workload.pods {
        Pods::None | Pods::Unobserved => object.unobserved(),
        Pods::Starting | Pods::Crashing => object.counts(2, 1, 1),
        Pods::Ready => object,
        Pods::DeadlineExceeded => object.counts(2, 1, 1).condition(
            "Progressing",
            "False",
            "ProgressDeadlineExceeded",
            "timed out",
            DEADLINE,
        ),
    }
}

pub fn pods(workload: WorkloadState) -> Vec<Pod> {
    let unready = |state: ContainerState, restarts: i32| {
        let container = container().with(|container| {
            container.ready = false;
            container.restart_count = restarts;
            container.state = Some(state);
        });
        vec![pod_with(container)]
    };
    match workload.pods {
        Pods::None | Pods::Unobserved => Vec::new(),
        Pods::Ready => vec![testing::pod()],
        Pods::Starting => unready(running(NOW), 0),
        Pods::DeadlineExceeded => unready(running(STARTED), 0),
        Pods::Crashing => unready(waiting("CrashLoopBackOff"), 4),
    }
}

pub fn artifact_check(check: Check) -> ArtifactCheck {
    ArtifactCheck {
        artifact_uri: check.version.artifact().to_owned(),
        ..testing::check(check.version.number(), check.must_exist)
    }
}

pub fn model_check(artifact: &ArtifactCheck) -> Option<Check> {
    Check::all().find(|check| artifact_check(*check) == *artifact)
}

pub fn results(checks: CheckCache) -> CheckResults {
    let result = |check_result: CheckResult| match check_result {
        CheckResult::Readable => Availability::Readable,
        CheckResult::Missing => Availability::Missing("missing".to_owned()),
        CheckResult::Unknown => Availability::Unknown("away".to_owned()),
    };
    Check::all()
        .filter_map(|check| Some((artifact_check(check), result(checks.get(check)?))))
        .collect()
}

/// The version that the annotation and every chosen container name, if they agree.
pub fn one_version(workload: &Target) -> Option<Version> {
    let annotated = workload.version()?;
    let named = |container: &&str| -> Option<Version> {
        let value = |name: &str| workload.env(container, name)?.value.as_deref();
        (value("MODEL_VERSION") == Some(annotated))
            .then(|| Version::find(annotated, value("MODEL_URI")?))?
    };
    let named: Vec<Option<Version>> = CONTAINERS.iter().map(named).collect();
    named
        .iter()
        .all(|each| *each == named[0])
        .then_some(named[0])?
}
