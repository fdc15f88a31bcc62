//! A test's own namespace: actions of a user, waits for their results, and a full report if a wait fails.
//! Absent: the operator's internals; a test acts and observes from outside.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::error::{Context, Error, Result};
use crate::failure_report;
use crate::kinds::{self, Kind};
use crate::manifests;
use crate::observe::{self, Objects, Observed, Selection};

/// The field manager of objects that a test applies as a GitOps tool would.
const MANAGER: &str = "scenario";

/// A test's own namespace.
pub struct TestNamespace {
    control_plane: Arc<ControlPlane>,
    name: String,
    namespace: String,
    logs: Mutex<Vec<PathBuf>>,
}

impl TestNamespace {
    /// Makes the namespace `t-<name>-<number>`.
    pub async fn start(control_plane: &Arc<ControlPlane>, name: &str) -> Result<Self> {
        let namespace = namespace_for(name);
        let scenario = Self {
            control_plane: control_plane.clone(),
            name: name.to_owned(),
            namespace,
            logs: Mutex::default(),
        };
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scenario.namespace, "labels": {"scenario": "true"}}});
        manifests::apply(&scenario.client(), "", MANAGER, &object).await?;
        Ok(scenario)
    }

    /// Starts the deletion of the namespace, and does not wait for its end.
    pub async fn end(&self) -> Result<()> {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client());
        let what = format!("deleting the namespace {}", self.namespace);
        namespaces
            .delete(&self.namespace, &DeleteParams::background())
            .await
            .context(what)
            .map(|_| ())
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A client with every right.
    pub fn client(&self) -> kube::Client {
        self.control_plane.admin_client()
    }

    /// The control plane that this runs on.
    pub fn control_plane(&self) -> &Arc<ControlPlane> {
        &self.control_plane
    }

    /// Has the end of this log in the account of a failure.
    pub fn report_log(&self, log: &Path) {
        self.logs.lock().unwrap().push(log.to_owned());
    }

    /// The objects of a kind in this namespace.
    pub fn api(&self, kind: &Kind) -> Api<DynamicObject> {
        kind.api(self.client(), &self.namespace)
    }

    /// Applies manifests with server-side apply, as a GitOps tool would.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        for object in manifests::parse(yaml)? {
            self.apply_object(&object).await?;
        }
        Ok(())
    }

    /// Applies one object with server-side apply, as a GitOps tool would.
    pub async fn apply_object(&self, object: &Value) -> Result<Value> {
        manifests::apply(&self.client(), &self.namespace, MANAGER, object).await
    }

    /// Runs `kubectl -n <namespace> …`.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.control_plane
            .kubectl(&[&["-n", &self.namespace], arguments].concat())
            .await
    }

    /// Runs `kubectl -n <namespace> apply -f -` (client-side), as a person would.
    pub async fn kubectl_apply(&self, manifest: impl Display) -> Result<String> {
        self.control_plane
            .kubectl_with_input(
                &["-n", &self.namespace, "apply", "-f", "-"],
                &manifest.to_string(),
            )
            .await
    }

    /// The object, or nothing.
    pub async fn find(&self, kind: &Kind, name: &str) -> Result<Option<Value>> {
        let found = self
            .api(kind)
            .get_opt(name)
            .await
            .context(format_args!("reading {} {name}", kind.kind))?;
        Ok(found.map(|object| to_value(&object)))
    }

    /// The object, which must be there.
    pub async fn get(&self, kind: &Kind, name: &str) -> Result<Value> {
        self.find(kind, name).await?.ok_or_else(|| {
            Error::new(
                format_args!("reading {} {name}", kind.kind),
                "it is not there",
            )
        })
    }

    /// The objects with these labels; all objects if it is empty.
    pub async fn list(&self, kind: &Kind, labels: &str) -> Result<Vec<Value>> {
        let found = self
            .api(kind)
            .list(&ListParams::default().labels(labels))
            .await
            .context(format_args!("listing {}", kind.plural))?;
        Ok(found.items.iter().map(to_value).collect())
    }

    /// Creates an object unchanged; returns the error of admission if it is refused.
    pub async fn create(&self, kind: &Kind, object: &Value) -> Result<Value> {
        let what = format!(
            "creating {} {}",
            kind.kind,
            manifests::text(object, "/metadata/name")
        );
        let object: DynamicObject = serde_json::from_value(object.clone()).context(&what)?;
        Ok(to_value(
            &self
                .api(kind)
                .create(&PostParams::default(), &object)
                .await
                .context(what)?,
        ))
    }

    /// Changes some fields, as `kubectl patch --type=merge` does.
    pub async fn patch(&self, kind: &Kind, name: &str, patch: &Value) -> Result<Value> {
        let parameters = PatchParams {
            field_manager: Some("kubectl-patch".to_owned()),
            ..PatchParams::default()
        };
        let patched = self
            .api(kind)
            .patch(name, &parameters, &Patch::Merge(patch))
            .await;
        Ok(to_value(
            &patched.context(format_args!("patching {} {name}", kind.kind))?,
        ))
    }

    /// Deletes an object, in the background as kubectl does.
    pub async fn delete(&self, kind: &Kind, name: &str) -> Result<()> {
        self.api(kind)
            .delete(name, &DeleteParams::background())
            .await
            .context(format_args!("deleting {} {name}", kind.kind))
            .map(|_| ())
    }

    /// The Events about an object, as `(reason, message)`.
    pub async fn events_about(&self, name: &str) -> Result<Vec<(String, String)>> {
        let events = self.list(&kinds::EVENT, "").await?;
        let about = events
            .iter()
            .filter(|event| manifests::text(event, "/involvedObject/name") == name);
        Ok(about
            .map(|event| {
                (
                    manifests::text(event, "/reason").to_owned(),
                    manifests::text(event, "/message").to_owned(),
                )
            })
            .collect())
    }

    /// The resource versions of all reported objects: equal ones mean that nothing was written in between.
    pub async fn resource_versions(&self) -> Result<BTreeMap<String, String>> {
        let mut versions = BTreeMap::new();
        for kind in failure_report::REPORTED_KINDS {
            for object in self.list(kind, "").await.unwrap_or_default() {
                let key = format!(
                    "{}/{}",
                    kind.kind,
                    manifests::text(&object, "/metadata/name")
                );
                versions.insert(
                    key,
                    manifests::text(&object, "/metadata/resourceVersion").to_owned(),
                );
            }
        }
        Ok(versions)
    }

    /// Waits until one object is as described, and returns it; `holds` sees `Value::Null` while it does not exist.
    ///
    /// Panics with the whole account of the namespace when it does not come to hold.
    pub async fn eventually(
        &self,
        description: &str,
        timeout: Duration,
        kind: &Kind,
        name: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let one = |seen: &Objects| seen.get(name).cloned().unwrap_or_default();
        let observed = observe::until(self.api(kind), &Selection::Named(name), timeout, |seen| {
            holds(&one(seen))
        })
        .await;
        if !observed.held {
            self.fail(
                &format!(
                    "{description}: not within {timeout:?} ({} {name})",
                    kind.kind
                ),
                &observed,
            )
            .await;
        }
        one(&observed.seen)
    }

    /// Waits until the objects of a kind are as described, and returns them by name.
    pub async fn eventually_all(
        &self,
        description: &str,
        timeout: Duration,
        kind: &Kind,
        which: &Selection<'_>,
        holds: impl Fn(&Objects) -> bool,
    ) -> Objects {
        let observed = observe::until(self.api(kind), which, timeout, holds).await;
        if !observed.held {
            self.fail(
                &format!("{description}: not within {timeout:?} ({})", kind.plural),
                &observed,
            )
            .await;
        }
        observed.seen
    }

    /// Watches one object for that long and panics at the first moment when it is not as described.
    pub async fn stays(
        &self,
        description: &str,
        duration: Duration,
        kind: &Kind,
        name: &str,
        holds: impl Fn(&Value) -> bool,
    ) {
        let observed = observe::until(self.api(kind), &Selection::Named(name), duration, |seen| {
            !holds(&seen.get(name).cloned().unwrap_or_default())
        })
        .await;
        if observed.held {
            self.fail(
                &format!("{description}: not any more ({} {name})", kind.kind),
                &observed,
            )
            .await;
        }
    }

    async fn fail(&self, what: &str, observed: &Observed) -> ! {
        let seen: Vec<String> = observed.seen.values().map(manifests::readable).collect();
        let trouble = observed
            .trouble
            .as_ref()
            .map(|trouble| format!("\nthe watch had trouble: {trouble}"))
            .unwrap_or_default();
        panic!(
            "{}: {what}{trouble}\n===== last seen\n{}\n{}",
            self.name,
            seen.join("---\n"),
            self.report().await
        )
    }

    /// Everything in the namespace that may explain a failure.
    pub async fn report(&self) -> String {
        let logs = self.logs.lock().unwrap().clone();
        failure_report::report(self, &logs).await
    }
}

fn namespace_for(name: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let slug: String = name
        .to_lowercase()
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() {
                character
            } else {
                '-'
            }
        })
        .take(40)
        .collect();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("t-{}-{number}", slug.trim_matches('-'))
}

fn to_value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
