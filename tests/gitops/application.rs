//! An application in Git, deployed by Argo CD, with the fixture's operator beside it.
//!
//! Absent: what happens to it; that is each test's own.

use pointsman_env::Workload;
use pointsman_env::gitops::argocd::{APPLICATION, ArgoCd, Resource};
use pointsman_env::gitops::git::Repository;
use pointsman_env::kinds::ALIAS_BINDING;
use serde_json::{Value, json};

use crate::fixture::{Fixture, PATIENCE};
use crate::objects::{Objects, Writes, binding_serves};
use crate::recorder::{ARGOCD, Figures, Recorder};
use crate::world::World;

/// How Argo CD compares and applies.
#[derive(Clone, Debug, Default)]
pub struct Mode {
    /// `syncPolicy.syncOptions`.
    pub options: Vec<&'static str>,
    /// Annotations of the Application.
    pub annotations: Value,
}

impl Mode {
    /// Argo CD's default: `kubectl apply`, and a comparison with the annotation that it leaves.
    pub fn client_side() -> Self {
        Self::default()
    }

    /// Server-side apply, and a comparison by the API server's dry run.
    pub fn server_side() -> Self {
        Self {
            options: vec!["ServerSideApply=true"],
            annotations: json!({"argocd.argoproj.io/compare-options": "ServerSideDiff=true"}),
        }
    }

    pub fn with(option: &'static str) -> Self {
        Self {
            options: vec![option],
            ..Self::default()
        }
    }
}

/// An application with a Deployment `server`, a registry, a model and a binding `binding`.
pub struct Application<'a> {
    pub world: &'a World,
    pub fixture: &'a Fixture,
    pub name: String,
    pub recorder: Recorder,
    repository: Repository,
    /// The objects in Git.
    pub objects: Objects,
    writes: Writes,
}

/// The manifest of an Application with automated sync, `selfHeal` and `prune`, and without `ignoreDifferences`.
pub fn manifest(name: &str, repository: &Repository, destination: &Value, mode: &Mode) -> Value {
    json!({
        "apiVersion": APPLICATION.resource().api_version,
        "kind": APPLICATION.kind,
        "metadata": {"name": name, "annotations": mode.annotations},
        "spec": {
            "project": "default",
            "source": {"repoURL": repository.url(), "path": ".", "targetRevision": "main"},
            "destination": destination,
            "syncPolicy": {
                "automated": {"prune": true, "selfHeal": true},
                "syncOptions": mode.options,
                "retry": {"limit": 10, "backoff": {"duration": "1s", "factor": 1}},
            },
        },
    })
}

impl<'a> Application<'a> {
    /// Registers so many versions, commits the objects, and waits until version 1 runs and the application is synced and healthy.
    pub async fn serving(
        world: &'a World,
        fixture: &'a Fixture,
        mode: &Mode,
        versions: u32,
        workload: &Workload,
    ) -> Self {
        fixture.register(versions).await;
        fixture.alias("1").await;
        let argocd = world.argocd().await;
        fixture.namespace.report_log(argocd.log());
        let name = fixture.namespace.namespace().to_owned();
        let repository = world.repository(&name).await;
        let recorder = Recorder::start(&ARGOCD, argocd.applications(), &name, &fixture.namespace);
        let mut application = Self {
            world,
            fixture,
            name,
            recorder,
            objects: Objects::of(fixture, workload),
            repository,
            writes: Writes::default(),
        };
        let revision = application.push("the first commit").await;
        let server = fixture.namespace.control_plane().apiserver_url();
        let destination = json!({"server": server, "namespace": fixture.namespace.namespace()});
        let manifest = manifest(
            &application.name,
            &application.repository,
            &destination,
            mode,
        );
        argocd.apply(&manifest).await.unwrap();
        application.synced_to(&revision).await;
        application.serves("1", "Live", "Healthy").await;
        application.recorder.count();
        application.writes = Writes::from_now(fixture).await;
        application
    }

    pub async fn argocd(&self) -> &ArgoCd {
        self.world.argocd().await
    }

    /// Commits the objects as they are now, and waits until Argo CD has synced them.
    pub async fn commit(&self, message: &str) {
        self.recorder.commit_begins();
        let revision = self.push(message).await;
        self.argocd().await.refresh(&self.name).await.unwrap();
        self.synced_to(&revision).await;
        self.recorder.commit_ends();
    }

    async fn push(&self, message: &str) -> String {
        let objects = self.objects.all();
        self.repository.commit(&objects, message).await.unwrap()
    }

    async fn synced_to(&self, revision: &str) {
        self.reads(&format!("it is synced to {revision}"), |application| {
            let sync = &application["status"]["sync"];
            let operation = &application["status"]["operationState"];
            sync["status"] == "Synced"
                && sync["revision"] == revision
                && operation["phase"] == "Succeeded"
                && operation["syncResult"]["revision"] == revision
        })
        .await;
    }

    /// Waits until Argo CD says this of the application.
    async fn reads(&self, description: &str, holds: impl Fn(&Value) -> bool) {
        let argocd = self.argocd().await;
        if let Err(error) = argocd
            .eventually(&self.name, description, PATIENCE, holds)
            .await
        {
            panic!("{error}\n{}", self.fixture.namespace.report().await);
        }
    }

    /// Waits until the binding runs this version for this reason, and Argo CD reads the application so.
    pub async fn serves(&self, version: &str, reason: &str, health: &str) {
        binding_serves(self.fixture, version, reason, |_| true).await;
        self.settles(health).await;
    }

    /// Waits until Argo CD reads the application so.
    pub async fn settles(&self, health: &str) {
        self.reads(&format!("it is synced and {health}"), |application| {
            application["status"]["sync"]["status"] == "Synced"
                && application["status"]["health"]["status"] == health
        })
        .await;
    }

    /// The Deployment was written so often since the last call, by anybody, and holds this version now.
    pub async fn was_written(&mut self, times: i64, version: &str) {
        self.writes.were(times, version, self.fixture).await;
    }

    /// The binding, for Argo CD's API.
    pub fn binding(&self) -> Resource<'_> {
        Resource {
            application: &self.name,
            kind: &ALIAS_BINDING,
            namespace: self.fixture.namespace.namespace(),
            name: "binding",
        }
    }

    /// The application was always synced and never had a wrong health; returns the figures.
    pub async fn was_at_peace(&self) -> Figures {
        self.recorder.was_at_peace(&self.name).await
    }

    /// Deletes the Application and leaves its objects to the end of their namespace.
    pub async fn end(self) {
        self.argocd().await.delete(&self.name).await.unwrap();
    }
}
