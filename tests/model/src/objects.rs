//! Conversions between the compact model state and the real objects that the operator reads.
//!
//! Absent: decisions.

use std::collections::BTreeMap;

use pointsman::api::alias_binding::DeploymentTemplate;
use pointsman::api::inject::InjectedValue;
use pointsman::api::{
    AliasBinding, AliasBindingStatus, Availability, Reason, RegisteredModel, VersionRef, names,
};
use pointsman::rollout::{ArtifactCheck, CheckResults};
use pointsman::targets::{Owner, Pod, TEMPLATE_DIGEST_ANNOTATION, Target, template_digest};
use pointsman::testing::{
    self, With, WorkloadFixture, condition, container, pod_with, running, terminated, time, waiting,
};
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
/// The time of every reconcile. What is longer ago than the progress deadline and the bake time began at [`STARTED`].
pub const NOW: &str = "2026-11-23T12:20:00Z";
/// The time at which a postponed version is tried again.
pub const AFTER_BACKOFF: &str = "2026-11-23T13:20:00Z";
const ADDRESSES: [&str; 2] = [testing::TRACKING_URI, "http://other"];

pub fn binding(history_limit: u8, ownership: Ownership, is_edited: bool) -> AliasBinding {
    testing::binding().with(|binding| {
        let spec = &mut binding.spec;
        spec.inject.containers = Some(CONTAINERS.map(str::to_owned).into());
        spec.history_limit = i32::from(history_limit);
        if ownership == Ownership::Template {
            spec.target_ref = None;
            spec.template = Some(template(is_edited));
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
    status: &AliasBindingStatus,
) -> AliasBinding {
    let mut binding = base.clone();
    binding.spec.pinned_version = spec.pin.map(|pin| pin.number().to_owned());
    binding.spec.suspend = spec.suspend;
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
    binding.status = Some(status.clone());
    binding
}

fn reference(version: Version) -> VersionRef {
    testing::version(version.number())
        .with(|reference| reference.artifact_uri = Some(version.artifact().to_owned()))
}

fn address(is_new: bool) -> String {
    ADDRESSES[usize::from(is_new)].to_owned()
}

pub fn model(mirror: Mirror) -> RegisteredModel {
    let versions = Version::all().filter(|each| mirror.has(*each));
    let versions = versions.map(|each| testing::mirrored_version(&reference(each)));
    let ready = testing::ready(match mirror.registry {
        Registry::Up => Reason::Mirrored,
        Registry::Down => Reason::RegistryUnreachable,
        Registry::ModelGone => Reason::ModelNotFound,
    });
    testing::model(mirror.alias.map(Version::number), versions).with(|model| {
        let status = model.status.as_mut().unwrap();
        status.conditions = vec![ready];
        status.tracking_uri = Some(address(mirror.is_at_new_address));
    })
}

/// Whether the template has the registry's other address.
pub fn has_new_address(target: &Target) -> bool {
    target.injected(InjectedValue::TrackingUri).as_deref() == Some(ADDRESSES[1])
}

/// The time of something that began longer ago than every deadline, or now.
fn began(is_long_ago: bool) -> &'static str {
    if is_long_ago { STARTED } else { NOW }
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
        let reference = reference(version)
            .with(|reference| reference.tracking_uri = Some(address(workload.has_new_address)));
        object = object.holding(&binding(1, Ownership::TargetRef, false), &reference);
    }
    if workload.writer == Writer::Person {
        object = object.undone_by("kubectl");
    }
    object = if workload.has_label {
        object.labelled("taxi")
    } else {
        object.changed(&json!({"metadata": {"labels": null}}))
    };
    let spec = json!({"replicas": workload.replicas, "paused": workload.is_paused});
    let object = object
        .changed(&json!({"spec": spec}))
        .written_at(began(workload.is_old));
    with_pods(object, workload)
}

/// The Deployment as its controller reports it.
fn with_pods(object: WorkloadFixture, workload: WorkloadState) -> WorkloadFixture {
    let all = i32::from(workload.replicas);
    let older = if workload.older.is_some() { all } else { 0 };
    let surge = i32::from(older > 0);
    match workload.pods {
        Pods::None | Pods::Unobserved => object.counts(all, all, older).unobserved(),
        _ if all == 0 => object.counts(0, 0, 0),
        Pods::Ready | Pods::Restarted => object.counts(all, all, all),
        Pods::Starting if workload.is_paused => object.counts(older, 0, older),
        Pods::Refused => object.counts(older, 0, older).condition(
            "ReplicaFailure",
            "True",
            "FailedCreate",
            "exceeded quota",
            STARTED,
        ),
        // The second pod of a version that fails may be well.
        Pods::Crashing | Pods::Unready if older == 0 => object.counts(all, all, all - 1),
        _ => object.counts(all + surge, all, older),
    }
}

pub fn pods(workload: WorkloadState) -> Vec<Pod> {
    let (is_there, second) = match workload.pods {
        Pods::None | Pods::Unobserved | Pods::Refused => (false, workload.pods),
        Pods::Crashing | Pods::Unready => (true, Pods::Ready),
        Pods::Starting => (!workload.is_paused, Pods::Starting),
        same => (true, same),
    };
    let number = if is_there { workload.replicas } else { 0 };
    let states = [workload.pods, second].into_iter().take(number.into());
    let pods = states.zip(["server-1", "server-2"]);
    pods.map(|(pods, name)| pod(WorkloadState { pods, ..workload }, name))
        .collect()
}

fn pod(workload: WorkloadState, name: &str) -> Pod {
    let since = began(workload.are_pods_old);
    let (ready, restarts, state) = match workload.pods {
        Pods::Ready => (true, 0, running(since)),
        Pods::Restarted => (true, 1, running(since)),
        Pods::Unready => (false, 0, running(since)),
        Pods::Crashing | Pods::CrashingByFault => (false, 4, waiting("CrashLoopBackOff")),
        _ => (false, 0, waiting("ContainerCreating")),
    };
    let container = container().with(|container| {
        container.ready = ready;
        container.restart_count = restarts;
        container.state = Some(state);
        container.last_state = (restarts > 0).then(|| terminated(1, since));
    });
    let status = |is_true: bool| if is_true { "True" } else { "False" };
    let is_scheduled = workload.pods != Pods::Unschedulable;
    pod_with(container).with(|pod| {
        let created = time(if workload.pods == Pods::Restarted {
            began(workload.is_old)
        } else {
            since
        });
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.uid = Some(name.to_owned());
        pod.metadata.creation_timestamp = Some(created.clone());
        let version = workload.version.map(|version| {
            (
                names::VERSION_ANNOTATION.to_owned(),
                version.number().to_owned(),
            )
        });
        pod.metadata.annotations = Some(version.into_iter().collect());
        pod.status.start_time = Some(created);
        // The scheduler has no room for longer than a moment.
        pod.status.conditions = vec![
            condition("PodScheduled", status(is_scheduled), STARTED),
            condition("Initialized", status(is_scheduled), since),
            condition("Ready", status(ready), if ready { since } else { NOW }),
        ];
        if !is_scheduled {
            pod.status.phase = Some("Pending".to_owned());
            pod.status.container_statuses.clear();
        }
    })
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
