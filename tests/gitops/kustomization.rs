//! An application in Git, deployed by Flux, with the fixture's operator beside it.
//!
//! Absent: what happens to it; that is each test's own.

use std::sync::atomic::{AtomicU32, Ordering};

use pointsman_env::gitops::flux::{GIT_REPOSITORY, KUSTOMIZATION};
use pointsman_env::gitops::git::Repository;
use pointsman_env::gitops::health_checks::kstatus;
use pointsman_env::resources::{object, with_spec};
use pointsman_env::{TestNamespace, Workload, manifests};
use serde_json::{Value, json};

use crate::fixture::{Fixture, PATIENCE, condition, ready_message, ready_reason, ready_status};
use crate::objects::{Objects, Writes, binding_serves};
use crate::recorder::{FLUX, Figures, Recorder};
use crate::world::World;

const NAME: &str = "app";

/// A `GitRepository` of this name. Flux is told of each commit, as by a webhook.
pub fn source(name: &str, repository: &Repository) -> Value {
    let spec = json!({"url": repository.url(), "ref": {"branch": "main"}, "interval": "10m"});
    object(&GIT_REPOSITORY, name, &spec)
}

/// A Kustomization of the `GitRepository` of its name that waits, and is reconciled often, so that drift is corrected often.
pub fn kustomization(name: &str, namespace: &TestNamespace) -> Value {
    let spec = json!({
        "sourceRef": {"kind": "GitRepository", "name": name},
        "path": "./",
        "targetNamespace": namespace.namespace(),
        "prune": true,
        "wait": true,
        "interval": "5s",
        "retryInterval": "2s",
        "timeout": "15s",
    });
    object(&KUSTOMIZATION, name, &spec)
}

/// Has a `GitRepository` or Kustomization reconciled now, as `flux reconcile` does, and waits until it has been.
pub async fn reconcile(namespace: &TestNamespace, kind: &'static pointsman_env::Kind, name: &str) {
    static REQUESTS: AtomicU32 = AtomicU32::new(1);
    let request = REQUESTS.fetch_add(1, Ordering::Relaxed).to_string();
    let annotations = json!({"reconcile.fluxcd.io/requestedAt": request});
    namespace
        .patch(
            kind,
            name,
            &json!({"metadata": {"annotations": annotations}}),
        )
        .await
        .unwrap();
    let handled = |object: &Value| {
        object["status"]["lastHandledReconcileAt"] == *request && ready_status(object) != "Unknown"
    };
    namespace
        .eventually("it is reconciled", PATIENCE, kind, name, handled)
        .await;
}

/// An application with a Deployment `server`, a registry, a model and a binding `binding`, and its Kustomization.
pub struct Delivery<'a> {
    fixture: &'a Fixture,
    repository: Repository,
    /// The objects in Git.
    pub objects: Objects,
    recorder: Recorder,
    writes: Writes,
}

impl<'a> Delivery<'a> {
    /// Registers so many versions, commits the objects, and waits until version 1 runs and the Kustomization is ready.
    pub async fn serving(
        world: &'a World,
        fixture: &'a Fixture,
        versions: u32,
        behavior: &str,
    ) -> Self {
        fixture.register(versions).await;
        fixture.alias("1").await;
        for log in world.flux().await.logs() {
            fixture.namespace.report_log(log);
        }
        let namespace = &fixture.namespace;
        let workload = Workload::deployment("server").with_behavior(behavior);
        let mut delivery = Self {
            fixture,
            repository: world.repository(namespace.namespace()).await,
            objects: Objects::of(fixture, &workload),
            recorder: Recorder::start(&FLUX, namespace.api(&KUSTOMIZATION), NAME, namespace),
            writes: Writes::default(),
        };
        let revision = delivery.push(&delivery.objects.all()).await;
        fixture
            .apply_object(source(NAME, &delivery.repository))
            .await;
        delivery.kustomize(json!({})).await;
        delivery.is_ready_at(&revision).await;
        delivery.serves("1", "Live", "Current").await;
        delivery.recorder.count();
        delivery.writes = Writes::from_now(fixture).await;
        delivery
    }

    /// Sets members of the Kustomization's spec.
    pub async fn kustomize(&self, members: Value) {
        let kustomization = kustomization(NAME, &self.fixture.namespace);
        self.fixture
            .apply_object(with_spec(kustomization, members))
            .await;
    }

    async fn push(&self, objects: &[Value]) -> String {
        self.repository.commit(objects, "a commit").await.unwrap()
    }

    /// Commits the objects as they are now, and waits until the Kustomization is ready with them.
    pub async fn commit(&self) {
        self.commit_only(&self.objects.all()).await;
    }

    /// The same with these objects alone.
    pub async fn commit_only(&self, objects: &[Value]) {
        self.recorder.commit_begins();
        let revision = self.push(objects).await;
        reconcile(&self.fixture.namespace, &GIT_REPOSITORY, NAME).await;
        self.is_ready_at(&revision).await;
        self.recorder.commit_ends();
    }

    async fn is_ready_at(&self, revision: &str) {
        let holds = |kustomization: &Value| {
            let applied = manifests::text(kustomization, "/status/lastAppliedRevision");
            applied.ends_with(revision) && ready_status(kustomization) == "True"
        };
        let description = format!("the Kustomization is ready at {revision}");
        self.fixture
            .eventually(&description, &KUSTOMIZATION, NAME, holds)
            .await;
    }

    /// Flux applies everything once more, and looks for drift.
    pub async fn reconcile(&self) {
        reconcile(&self.fixture.namespace, &KUSTOMIZATION, NAME).await;
    }

    /// Waits until the Kustomization's condition Ready has this status and reason; returns its message.
    pub async fn reads(&self, status: &str, reason: &str) -> String {
        let holds = |kustomization: &Value| {
            ready_status(kustomization) == status && ready_reason(kustomization) == reason
        };
        let description = format!("the Kustomization is {status}, {reason}");
        let seen = self
            .fixture
            .eventually(&description, &KUSTOMIZATION, NAME, holds)
            .await;
        ready_message(&seen)
    }

    /// Waits until the Kustomization is ready by a reconcile that begins later than now.
    pub async fn is_ready(&self) {
        self.reconcile().await;
        self.reads("True", "ReconciliationSucceeded").await;
    }

    /// Waits until the binding runs this version for this reason; kstatus then has this result.
    pub async fn serves(&self, version: &str, reason: &str, result: &str) {
        let is_under_way = result == "InProgress";
        let fits = |binding: &Value| {
            (condition(binding, "Reconciling")["status"] == "True") == is_under_way
        };
        let seen = binding_serves(self.fixture, version, reason, fits).await;
        let results = kstatus(std::slice::from_ref(&seen)).await.unwrap();
        assert_eq!(results, [result], "{}", manifests::readable(&seen));
    }

    /// `kubectl wait` returns at once for a binding that is ready.
    pub async fn kubectl_waits(&self) {
        let wait = [
            "wait",
            "--for=condition=Ready",
            "abind/binding",
            "--timeout=5s",
        ];
        self.fixture.namespace.kubectl(&wait).await.unwrap();
    }

    /// The Deployment was written so often since the last call, by anybody, and holds this version now.
    pub async fn was_written(&mut self, times: i64, version: &str) {
        self.writes.were(times, version, self.fixture).await;
    }

    /// The Kustomization was always synced and never had a wrong health; returns the figures.
    pub async fn was_at_peace(&self) -> Figures {
        self.recorder
            .was_at_peace(self.fixture.namespace.namespace())
            .await
    }
}
