//! The world's few bytes as the real objects that the operator reads, and back.
//!
//! Absent: decisions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use pointsman::api::Availability;
use pointsman::api::{AliasBinding, AliasBindingStatus, RegisteredModel, names};
use pointsman::rollout::{ArtifactCheck, CheckResults};
use pointsman::targets::{Pod, Target, Workload};
use serde_json::{Map, Value, json};

use super::world::{Book, Mirror, Pods, Query, Registry, Reply, Spec, Version, Work, Writer};

/// The containers that the binding chooses.
pub const CONTAINERS: [&str; 2] = ["server", "sidecar"];
const MODEL: &str = "nyc-taxi";
const TRACKING_URI: &str = "http://mlflow";

/// When whatever runs now was begun; all that is over was before.
pub const BEGUN: &str = "2026-11-23T12:40:00Z";
const POD_CREATED: &str = "2026-11-23T12:40:30Z";
/// When a version became available whose time of being watched is over.
pub const LONG_AVAILABLE: &str = "2026-11-23T12:45:00Z";
const DEADLINE: &str = "2026-11-23T12:55:00Z";
/// When every pass takes place.
pub const NOW: &str = "2026-11-23T13:00:00Z";

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn binding(history_limit: u8) -> AliasBinding {
    let spec = json!({
        "modelRef": {"name": MODEL}, "alias": "champion", "targetRef": {"name": "server"},
        "inject": {"containers": CONTAINERS}, "historyLimit": history_limit,
    });
    let metadata =
        json!({"name": "taxi", "namespace": "ml", "uid": "b", "creationTimestamp": BEGUN});
    let whole = json!({"apiVersion": "pointsman.dev/v1alpha1", "kind": "AliasBinding", "metadata": metadata, "spec": spec});
    serde_json::from_value(whole).unwrap()
}

/// The binding with what people wrote into it.
pub fn written(base: &AliasBinding, spec: Spec, status: AliasBindingStatus) -> AliasBinding {
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
    let alias =
        |version: Version| json!({"name": "champion", "version": version.number(), "since": BEGUN});
    let aliases: Vec<Value> = mirror.alias.into_iter().map(alias).collect();
    let (status, reason) = match mirror.registry {
        Registry::Up => ("True", "Mirrored"),
        Registry::Down => ("False", "RegistryUnreachable"),
        Registry::ModelGone => ("False", "ModelNotFound"),
    };
    let ready = json!({"type": "Ready", "status": status, "reason": reason, "message": "told", "lastTransitionTime": BEGUN});
    let whole = json!({
        "apiVersion": "pointsman.dev/v1alpha1", "kind": "RegisteredModel", "metadata": {"name": MODEL, "namespace": "ml"},
        "spec": {"registryRef": {"name": "mlflow"}},
        "status": {"aliases": aliases, "versions": versions, "trackingURI": TRACKING_URI, "conditions": [ready]}});
    serde_json::from_value(whole).unwrap()
}

fn variables(version: Version) -> [(&'static str, String); 7] {
    [
        (names::MODEL_NAME, MODEL.to_owned()),
        (names::MODEL_VERSION, version.number().to_owned()),
        ("MODEL_ALIAS", "champion".to_owned()),
        (names::MODEL_URI, version.artifact().to_owned()),
        (names::MODEL_RUN_ID, String::new()),
        (
            names::MLFLOW_MODEL_URI,
            format!("models:/{MODEL}/{}", version.number()),
        ),
        (names::MLFLOW_TRACKING_URI, TRACKING_URI.to_owned()),
    ]
}

/// The variables that an undo brings back with another value, and which therefore become the person's.
fn differs_by_version(name: &str) -> bool {
    [
        names::MODEL_VERSION,
        names::MODEL_URI,
        names::MLFLOW_MODEL_URI,
    ]
    .contains(&name)
}

/// The Deployment as the API server has it.
pub type Object = Workload<Deployment>;

pub fn workload(work: Work) -> Object {
    let env: Vec<Value> = work
        .version
        .into_iter()
        .flat_map(variables)
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let containers: Vec<Value> = CONTAINERS
        .iter()
        .map(|name| json!({"name": name, "image": if work.edited { "b" } else { "a" }, "env": env}))
        .collect();
    let ours = json!({names::BINDING_LABEL: "taxi"});
    let mut template = json!({"spec": {"containers": containers}});
    let mut annotations = json!({});
    if let Some(version) = work.version {
        template["metadata"] =
            json!({"labels": ours, "annotations": {names::VERSION_ANNOTATION: version.number()}});
        let cause = format!("{MODEL} version {} (champion)", version.number());
        annotations[names::CHANGE_CAUSE_ANNOTATION] = json!(cause);
    }
    let whole = json!({
        "metadata": {
            "name": "server", "namespace": "ml", "uid": "d", "resourceVersion": "1", "generation": 2,
            "labels": if work.labelled { ours } else { json!({}) },
            "annotations": annotations, "managedFields": managed_fields(work),
        },
        "spec": {"replicas": 1, "template": template},
        "status": rollout_status(work.pods),
    });
    serde_json::from_value::<Object>(whole)
        .unwrap()
        .with_owners()
}

fn managed_fields(work: Work) -> Value {
    let names: Vec<&str> = work
        .version
        .into_iter()
        .flat_map(|version| variables(version).map(|(name, _)| name))
        .collect();
    let (theirs, ours): (Vec<&str>, Vec<&str>) = names
        .into_iter()
        .partition(|name| work.writer == Writer::Person && differs_by_version(name));
    let is_ours = work.version.is_some() && work.writer == Writer::Pointsman;
    let is_theirs = work.version.is_some() && work.writer == Writer::Person;
    let mut entries = Vec::new();
    if work.version.is_some() {
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
    json!({"manager": manager, "operation": operation, "time": BEGUN, "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
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
        Pods::Unseen => counts(1, 1, 1, 1),
        Pods::Coming | Pods::Crashing => counts(2, 2, 1, 1),
        Pods::Ready => counts(2, 1, 1, 1),
        Pods::Late => {
            let mut status = counts(2, 2, 1, 1);
            status["conditions"] = json!([{"type": "Progressing", "status": "False",
                "reason": "ProgressDeadlineExceeded", "message": "timed out", "lastTransitionTime": DEADLINE}]);
            status
        }
    }
}

pub fn pods(work: Work) -> Vec<Pod> {
    let container = match work.pods {
        Pods::Unseen => return Vec::new(),
        Pods::Ready => {
            json!({"name": "server", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": POD_CREATED}}})
        }
        Pods::Coming | Pods::Late => {
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

pub fn check(query: Query) -> ArtifactCheck {
    ArtifactCheck {
        model: MODEL.to_owned(),
        version: query.version.number().to_owned(),
        artifact_uri: query.version.artifact().to_owned(),
        must_exist: query.must_exist,
    }
}

pub fn query(check: &ArtifactCheck) -> Option<Query> {
    Query::all().find(|query| self::check(*query) == *check)
}

pub fn results(book: Book) -> CheckResults {
    let result = |reply: Reply| match reply {
        Reply::Readable => Availability::Readable,
        Reply::Gone => Availability::Missing("gone".to_owned()),
        Reply::Silent => Availability::Unknown("away".to_owned()),
    };
    Query::all()
        .filter_map(|query| Some((check(query), result(book.get(query)?))))
        .collect()
}

/// The Deployment after a server-side apply: maps by key, containers and variables by name.
pub fn apply(workload: &Object, patch: &Value) -> Object {
    let mut whole = serde_json::to_value(workload).unwrap();
    // What the operator keeps of an object beside its fields is no part of it: it is read anew.
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

/// The one version that every place of the template names.
pub fn one_version(workload: &Target) -> Option<Version> {
    let annotated = workload.version()?;
    let named = |container: &&str| -> Option<Version> {
        let value = |name: &str| workload.env(container, name)?.value.as_deref();
        (value(names::MODEL_VERSION) == Some(annotated))
            .then(|| Version::find(annotated, value(names::MODEL_URI)?))?
    };
    let named: Vec<Option<Version>> = CONTAINERS.iter().map(named).collect();
    named
        .iter()
        .all(|each| *each == named[0])
        .then_some(named[0])?
}
