//! Conversions between the compact model state and the real objects that the operator reads.
//!
//! Absent: decisions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use pointsman::api::Availability;
use pointsman::api::{AliasBinding, AliasBindingStatus, RegisteredModel, names};
use pointsman::rollout::{ArtifactCheck, CheckResults};
use pointsman::targets::{
    Owner, Pod, TEMPLATE_DIGEST_ANNOTATION, Target, Workload, template_digest,
};
use serde_json::{Map, Value, json};

use super::state::{
    BindingSpec, Check, CheckCache, CheckResult, Mirror, Ownership, Pods, Registry, Version,
    WorkloadState, Writer,
};

/// The containers that the binding chooses.
pub const CONTAINERS: [&str; 2] = ["server", "sidecar"];
const MODEL: &str = "nyc-taxi";
const TRACKING_URI: &str = "http://mlflow";

/// The start of the current rollout.
pub const STARTED: &str = "2026-11-23T12:40:00Z";
const POD_CREATED: &str = "2026-11-23T12:40:30Z";
/// The time at which a version became available whose bake time is over.
pub const LONG_AVAILABLE: &str = "2026-11-23T12:45:00Z";
const DEADLINE: &str = "2026-11-23T12:55:00Z";
/// The time of every reconcile.
pub const NOW: &str = "2026-11-23T13:00:00Z";

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn binding(history_limit: u8, ownership: Ownership) -> AliasBinding {
    let mut spec = json!({
        "modelRef": {"name": MODEL}, "alias": "champion",
        "inject": {"containers": CONTAINERS}, "historyLimit": history_limit,
    });
    match ownership {
        Ownership::TargetRef => spec["targetRef"] = json!({"name": "server"}),
        Ownership::Template => spec["template"] = template(false),
    }
    let metadata =
        json!({"name": "taxi", "namespace": "ml", "uid": "b", "creationTimestamp": STARTED});
    let whole = json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding", "metadata": metadata, "spec": spec});
    serde_json::from_value(whole).unwrap()
}

/// `spec.template`, with one image or another.
fn template(edited: bool) -> Value {
    json!({"spec": {"replicas": 1, "template": {"spec": {"containers": containers(edited, &[])}}}})
}

fn containers(edited: bool, env: &[Value]) -> Vec<Value> {
    let image = if edited { "b" } else { "a" };
    let container = |name: &&str| match env {
        [] => json!({"name": name, "image": image}),
        env => json!({"name": name, "image": image, "env": env}),
    };
    CONTAINERS.iter().map(container).collect()
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
pub fn digest_annotation(edited: bool) -> String {
    template_digest(&serde_json::from_value(template(edited)).unwrap(), &owner())
}

/// Whether the binding owns the Deployment and made it from the edited template; `None` if it does not own it.
pub fn made_from_edited(target: &Target) -> Option<bool> {
    let owners = target.metadata.owner_references.as_deref()?;
    let digest = target
        .metadata
        .annotations
        .as_ref()?
        .get(TEMPLATE_DIGEST_ANNOTATION)?;
    let is_owned = owners.iter().any(|owner| owner.uid == owner_uid());
    let made_from = [false, true]
        .into_iter()
        .find(|edited| digest_annotation(*edited) == *digest);
    made_from.filter(|_edited| is_owned)
}

fn owner_uid() -> String {
    owner().uid
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
        binding.spec.template = serde_json::from_value(template(spec.template_edited)).unwrap();
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

pub fn model(mirror: Mirror) -> RegisteredModel {
    let version =
        |version: Version| json!({"version": version.number(), "artifactURI": version.artifact()});
    let versions: Vec<Value> = Version::all()
        .filter(|each| mirror.has(*each))
        .map(version)
        .collect();
    let alias = |version: Version| json!({"name": "champion", "version": version.number(), "since": STARTED});
    let aliases: Vec<Value> = mirror.alias.into_iter().map(alias).collect();
    let (status, reason) = match mirror.registry {
        Registry::Up => ("True", "Mirrored"),
        Registry::Down => ("False", "RegistryUnreachable"),
        Registry::ModelGone => ("False", "ModelNotFound"),
    };
    let ready = json!({"type": "Ready", "status": status, "reason": reason, "message": "a message", "lastTransitionTime": STARTED});
    let whole = json!({
        "apiVersion": "pointsman.dev/v1alpha1", "kind": "RegisteredModel", "metadata": {"name": MODEL, "namespace": "ml"},
        "spec": {"registryRef": {"name": "mlflow"}},
        "status": {"aliases": aliases, "versions": versions, "trackingURI": TRACKING_URI, "conditions": [ready]}});
    serde_json::from_value(whole).unwrap()
}

fn variables(version: Version) -> [(&'static str, String); 7] {
    [
        ("MODEL_NAME", MODEL.to_owned()),
        ("MODEL_VERSION", version.number().to_owned()),
        ("MODEL_ALIAS", "champion".to_owned()),
        ("MODEL_URI", version.artifact().to_owned()),
        ("MODEL_RUN_ID", String::new()),
        (
            "MLFLOW_MODEL_URI",
            format!("models:/{MODEL}/{}", version.number()),
        ),
        ("MLFLOW_TRACKING_URI", TRACKING_URI.to_owned()),
    ]
}

/// Whether an undo changes the variable's value, so that it belongs to the person afterwards.
fn differs_by_version(name: &str) -> bool {
    ["MODEL_VERSION", "MODEL_URI", "MLFLOW_MODEL_URI"].contains(&name)
}

/// The Deployment as the API server has it.
pub type Object = Workload<Deployment>;

pub fn workload(workload: WorkloadState) -> Object {
    let env: Vec<Value> = workload
        .version
        .into_iter()
        .flat_map(variables)
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let containers = containers(workload.edited, &env);
    let ours = json!({names::BINDING_LABEL: "taxi"});
    let mut template = json!({"spec": {"containers": containers}});
    let mut annotations = json!({});
    if let Some(version) = workload.version {
        template["metadata"] =
            json!({"labels": ours, "annotations": {names::VERSION_ANNOTATION: version.number()}});
        let cause = format!("{MODEL} version {} (champion)", version.number());
        annotations[names::CHANGE_CAUSE_ANNOTATION] = json!(cause);
    }
    let mut name = "server";
    let mut owner_references = json!([]);
    if let Some(edited) = workload.made_from_edited {
        name = "taxi";
        owner_references = json!([{"apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding",
            "name": "taxi", "uid": "b", "controller": true, "blockOwnerDeletion": true}]);
        annotations[TEMPLATE_DIGEST_ANNOTATION] = json!(digest_annotation(edited));
    }
    let whole = json!({
        "metadata": {
            "ownerReferences": owner_references,
            "name": name, "namespace": "ml", "uid": "d", "resourceVersion": "1", "generation": 2,
            "labels": if workload.has_label { ours } else { json!({}) },
            "annotations": annotations, "managedFields": managed_fields(workload),
        },
        "spec": {"replicas": 1, "template": template},
        "status": rollout_status(workload.pods),
    });
    serde_json::from_value::<Object>(whole)
        .unwrap()
        .with_owners()
}

fn managed_fields(workload: WorkloadState) -> Value {
    let names: Vec<&str> = workload
        .version
        .into_iter()
        .flat_map(|version| variables(version).map(|(name, _)| name))
        .collect();
    let (theirs, ours): (Vec<&str>, Vec<&str>) = names
        .into_iter()
        .partition(|name| workload.writer == Writer::Person && differs_by_version(name));
    let is_ours = workload.version.is_some() && workload.writer == Writer::Pointsman;
    let is_theirs = workload.version.is_some() && workload.writer == Writer::Person;
    let mut entries = Vec::new();
    if workload.version.is_some() {
        entries.push(entry(
            names::FIELD_MANAGER,
            "Apply",
            &fields(&ours, is_ours),
        ));
    }
    entries.push(entry(
        "kubectl-client-side-apply",
        "Update",
        &fields(&theirs, is_theirs),
    ));
    json!(entries)
}

fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
    json!({"manager": manager, "operation": operation, "time": STARTED, "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:template": fields}}})
}

fn fields(env: &[&str], annotation: bool) -> Value {
    let env: Map<String, Value> = env
        .iter()
        .map(|name| (format!("k:{{\"name\":\"{name}\"}}"), json!({})))
        .collect();
    let containers: Map<String, Value> = CONTAINERS
        .iter()
        .map(|name| (format!("k:{{\"name\":\"{name}\"}}"), json!({"f:env": env})))
        .collect();
    let mut fields = json!({"f:spec": {"f:containers": containers}});
    if annotation {
        fields["f:metadata"] =
            json!({"f:annotations": {format!("f:{}", names::VERSION_ANNOTATION): {}}});
    }
    fields
}

fn rollout_status(pods: Pods) -> Value {
    let counts = |observed: i32, all: i32, updated: i32, available: i32| json!({"observedGeneration": observed, "replicas": all, "updatedReplicas": updated, "availableReplicas": available});
    match pods {
        Pods::None | Pods::Unobserved => counts(1, 1, 1, 1),
        Pods::Starting | Pods::Crashing => counts(2, 2, 1, 1),
        Pods::Ready => counts(2, 1, 1, 1),
        Pods::DeadlineExceeded => {
            let mut status = counts(2, 2, 1, 1);
            status["conditions"] = json!([{"type": "Progressing", "status": "False",
                "reason": "ProgressDeadlineExceeded", "message": "timed out", "lastTransitionTime": DEADLINE}]);
            status
        }
    }
}

pub fn pods(workload: WorkloadState) -> Vec<Pod> {
    let container = match workload.pods {
        Pods::None | Pods::Unobserved => return Vec::new(),
        Pods::Ready => {
            json!({"name": "server", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": POD_CREATED}}})
        }
        Pods::Starting | Pods::DeadlineExceeded => {
            json!({"name": "server", "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}})
        }
        Pods::Crashing => {
            json!({"name": "server", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}})
        }
    };
    let pod = json!({"metadata": {"name": "server-1", "creationTimestamp": POD_CREATED},
        "status": {"phase": "Running", "startTime": POD_CREATED, "containerStatuses": [container]}});
    vec![serde_json::from_value(pod).unwrap()]
}

pub fn artifact_check(check: Check) -> ArtifactCheck {
    ArtifactCheck {
        model: MODEL.to_owned(),
        version: check.version.number().to_owned(),
        artifact_uri: check.version.artifact().to_owned(),
        must_exist: check.must_exist,
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

/// The Deployment after a server-side apply: maps by key, containers and variables by name.
pub fn apply(workload: Option<&Object>, patch: &Value) -> Object {
    let Some(workload) = workload else {
        return serde_json::from_value(patch.clone()).unwrap();
    };
    let mut whole = serde_json::to_value(workload).unwrap();
    // Fields that the operator derives are no part of the object; they are derived again.
    whole.as_object_mut().unwrap().remove("owners");
    whole["spec"]["template"]
        .as_object_mut()
        .unwrap()
        .remove("usersDigest");
    merge(&mut whole, patch);
    serde_json::from_value(whole).unwrap()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => {
            for item in from {
                match into.iter_mut().find(|each| each["name"] == item["name"]) {
                    Some(same) => merge(same, item),
                    None => into.push(item.clone()),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
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
