//! Deployments, ReplicaSets and pods as the operator reads them, in protobuf, beside the same objects in JSON.
//!
//! Absent: what is done with them.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures::TryStreamExt;
use http::Response;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{ListParams, Patch, PatchParams, WatchParams};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use pointsman::kubernetes::protobuf::{ask_for_protobuf, read_protobuf};
use pointsman::targets::{Pod, ReplicaSet, Workload};
use pointsman_env::kinds::{DEPLOYMENT, POD, REPLICA_SET};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower::util::{MapRequestLayer, MapResponseLayer};

use crate::fixture::{Environment, PATIENCE, ScenarioResult, namespace, scenarios};

scenarios!(
    what_is_read_as_protobuf_is_what_is_read_as_json,
    a_refusal_in_protobuf_says_what_it_says_in_json
);

/// The forms in which answers came.
type Forms = Arc<Mutex<Vec<String>>>;

/// A client that reads as the operator does; and in which forms it was answered.
async fn protobuf_client(environment: &Environment) -> (Client, Forms) {
    let kubeconfig =
        Kubeconfig::read_from(environment.cluster().await.control_plane.admin_kubeconfig())
            .unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let forms = Forms::default();
    let noted = Arc::clone(&forms);
    let note = move |response: Response<_>| {
        let form = response
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|form| form.to_str().ok());
        noted
            .lock()
            .unwrap()
            .push(form.unwrap_or_default().to_owned());
        response
    };
    let builder = ClientBuilder::try_from(config).unwrap();
    let builder = builder
        .with_layer(&MapResponseLayer::new(note))
        .with_layer(&MapResponseLayer::new(read_protobuf));
    (
        builder
            .with_layer(&MapRequestLayer::new(ask_for_protobuf))
            .build(),
        forms,
    )
}

/// A kind that is read both ways, less what is never read of it, and what is told in another way.
trait Read:
    Clone
    + Debug
    + DeserializeOwned
    + Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Send
    + 'static
{
    fn read(self) -> Self;
}

impl Read for Workload {
    fn read(mut self) -> Self {
        self.metadata.generate_name = None;
        self.metadata.finalizers = None;
        // Of bytes, or of text: either is told from another of its own form only.
        self.spec.template.users_digest = 0;
        let variables = self
            .spec
            .template
            .spec
            .containers
            .iter_mut()
            .flat_map(|container| &mut container.env);
        for elsewhere in variables.filter_map(|variable| variable.value_from.as_mut()) {
            *elsewhere = json!({});
        }
        self.digested()
    }
}

impl Read for ReplicaSet {
    fn read(self) -> Self {
        self
    }
}

impl Read for Pod {
    fn read(mut self) -> Self {
        self.metadata.finalizers = None;
        self
    }
}

fn told<K: Read>(object: K) -> String {
    format!("{:#?}", object.read())
}

async fn listed<K: Read>(client: &Client, namespace: &str) -> Vec<String> {
    let mut listed: Vec<_> = Api::<K>::namespaced(client.clone(), namespace)
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    listed.sort_by_key(ResourceExt::name_any);
    listed.into_iter().map(told).collect()
}

/// What a watch shows first.
async fn watched<K: Read>(client: &Client, namespace: &str) -> Vec<String> {
    let mut events = pin!(watcher(
        Api::<K>::namespaced(client.clone(), namespace),
        Config::default().streaming_lists()
    ));
    let mut shown = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, events.try_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
        {
            Event::InitApply(object) => shown.push(object),
            Event::InitDone => break,
            _ => {}
        }
    }
    shown.sort_by_key(ResourceExt::name_any);
    shown.into_iter().map(told).collect()
}

async fn is_read_alike<K: Read>(json: &Client, protobuf: &Client, namespace: &str, least: usize) {
    // What controllers write meanwhile is no difference of form: such a round is not counted.
    let undisturbed = async {
        loop {
            let expected = listed::<K>(json, namespace).await;
            let (in_list, in_watch) = (
                listed::<K>(protobuf, namespace).await,
                watched::<K>(protobuf, namespace).await,
            );
            if listed::<K>(json, namespace).await == expected {
                return (expected, in_list, in_watch);
            }
        }
    };
    let (expected, in_list, in_watch) = tokio::time::timeout(PATIENCE, undisturbed)
        .await
        .expect("controllers rest");
    assert!(expected.len() >= least, "{} of {least}", expected.len());
    assert_eq!(in_list, expected);
    assert_eq!(in_watch, expected);
}

/// With something in every field that is read.
fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "server", "labels": {"pointsman.dev/binding": "binding"}, "annotations": {"example.com/words": "ü \" \\ \n"},
            "finalizers": ["example.com/held"]},
        "spec": {"replicas": 2, "progressDeadlineSeconds": 77, "selector": {"matchLabels": {"app": "server"}},
            "template": {"metadata": {"labels": {"app": "server"}, "annotations": {"pointsman.dev/model-version": "3"}},
                "spec": {"initContainers": [{"name": "first", "image": "i", "env": [{"name": "A", "value": "b"}]}],
                    "containers": [
                        {"name": "server", "image": "i", "env": [
                            {"name": "MODEL_VERSION", "value": "3"}, {"name": "EMPTY", "value": ""},
                            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}]},
                        {"name": "bare", "image": "i"}]}}}})
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "worn", "labels": {"pointsman.dev/binding": "binding"}, "finalizers": ["example.com/held"]},
        "spec": {"nodeName": "nowhere", "initContainers": [{"name": "first", "image": "i"}],
            "containers": [{"name": "server", "image": "i"}, {"name": "idle", "image": "i"}]}})
}

fn worn_out() -> Value {
    let at = |second: u32| format!("2026-11-25T08:00:{second:02}Z");
    let terminated = json!({"exitCode": 137, "signal": 9, "reason": "OOMKilled", "message": "too much",
        "startedAt": at(1), "finishedAt": at(2), "containerID": "containerd://1"});
    let status = |name: &str, state: Value, last: Value| {
        json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 4, "started": false,
            "state": state, "lastState": last})
    };
    json!({"status": {"phase": "Running", "startTime": at(0),
        "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m",
            "lastProbeTime": at(3), "lastTransitionTime": at(4)}],
        "initContainerStatuses": [status("first", json!({"terminated": {"exitCode": 0}}), json!({}))],
        "containerStatuses": [
            status("server", json!({"waiting": {"reason": "CrashLoopBackOff", "message": "m"}}), json!({"terminated": terminated})),
            status("idle", json!({"running": {"startedAt": at(5)}}), json!({}))]}})
}

async fn what_is_read_as_protobuf_is_what_is_read_as_json(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let namespace = namespace(&environment, "protobuf").await;
    let own = namespace.namespace().to_owned();
    let json = environment.cluster().await.control_plane.admin_client();
    let (protobuf, forms) = protobuf_client(&environment).await;
    namespace.create(&DEPLOYMENT, &deployment()).await.unwrap();
    let is_well = |deployment: &Value| deployment["status"]["availableReplicas"] == 2;
    namespace
        .eventually(
            "the pods are available",
            PATIENCE,
            &DEPLOYMENT,
            "server",
            is_well,
        )
        .await;
    namespace.create(&POD, &pod()).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(json.clone(), &own);
    pods.patch_status("worn", &PatchParams::default(), &Patch::Merge(worn_out()))
        .await
        .unwrap();

    is_read_alike::<Workload>(&json, &protobuf, &own, 1).await;
    is_read_alike::<ReplicaSet>(&json, &protobuf, &own, 1).await;
    is_read_alike::<Pod>(&json, &protobuf, &own, 3).await;

    let (in_json, in_protobuf): (Api<Workload>, _) =
        (Api::namespaced(json, &own), Api::namespaced(protobuf, &own));
    let paused = Patch::Merge(json!({"spec": {"paused": true}}));
    let patched: Workload = in_protobuf
        .patch("server", &PatchParams::default(), &paused)
        .await
        .unwrap();
    // The Deployment's controller says that it is paused, too; whenever that is.
    let undisturbed = async {
        loop {
            let (got, expected) = (
                in_protobuf.get("server").await.unwrap(),
                in_json.get("server").await.unwrap(),
            );
            if got.resource_version() == expected.resource_version() {
                return (got, expected);
            }
        }
    };
    let (got, expected) = tokio::time::timeout(PATIENCE, undisturbed)
        .await
        .expect("controllers rest");
    assert!(expected.spec.paused);
    assert_eq!((patched.spec.paused, told(got)), (true, told(expected)));

    let forms = forms.lock().unwrap().clone();
    assert!(
        forms
            .iter()
            .all(|form| form.starts_with("application/vnd.kubernetes.protobuf")),
        "{forms:?}"
    );
    for (kind, name) in [(&DEPLOYMENT, "server"), (&POD, "worn")] {
        namespace
            .patch(kind, name, &json!({"metadata": {"finalizers": null}}))
            .await
            .unwrap();
    }
    assert!(!namespace.list(&REPLICA_SET, "").await.unwrap().is_empty());
    namespace.end().await.map_err(|error| error.to_string())
}

async fn a_refusal_in_protobuf_says_what_it_says_in_json(
    environment: Arc<Environment>,
) -> ScenarioResult {
    let namespace = namespace(&environment, "refused").await;
    let json: Api<Workload> = Api::namespaced(
        environment.cluster().await.control_plane.admin_client(),
        namespace.namespace(),
    );
    let (client, forms) = protobuf_client(&environment).await;
    let protobuf: Api<Workload> = Api::namespaced(client, namespace.namespace());
    assert!(protobuf.get_opt("missing").await.unwrap().is_none());
    namespace.create(&DEPLOYMENT, &deployment()).await.unwrap();
    let broken = Patch::Merge(json!({"spec": {"replicas": -1}, "metadata": {"finalizers": null}}));
    let refusal = |refused: Result<Workload, kube::Error>| match refused {
        Err(kube::Error::Api(status)) => (
            status.code,
            status.reason.clone(),
            status.message.clone(),
            format!("{:?}", status.details),
        ),
        other => panic!("{other:?}"),
    };
    let in_json = refusal(json.patch("server", &PatchParams::default(), &broken).await);
    assert_eq!(in_json.0, 422);
    assert_eq!(
        refusal(
            protobuf
                .patch("server", &PatchParams::default(), &broken)
                .await
        ),
        in_json
    );
    let watched = async |api: &Api<Workload>| match api.watch(&WatchParams::default(), "none").await
    {
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        _ => panic!("a watch from a version that is none began"),
    };
    assert_eq!(watched(&protobuf).await, watched(&json).await);
    let forms = forms.lock().unwrap().clone();
    assert!(
        forms
            .iter()
            .any(|form| form.starts_with("application/vnd.kubernetes.protobuf")),
        "{forms:?}"
    );
    namespace
        .patch(
            &DEPLOYMENT,
            "server",
            &json!({"metadata": {"finalizers": null}}),
        )
        .await
        .unwrap();
    namespace.end().await.map_err(|error| error.to_string())
}
