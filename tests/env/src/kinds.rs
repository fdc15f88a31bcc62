//! The kinds of object that scenarios read and write, by name.
//! Absent: types; the operator's own would make this crate depend on the code that it tests.

use kube::api::{Api, ApiResource, DynamicObject};

/// A kind of object, and how to address it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version of the group.
    pub version: &'static str,
    /// The kind, in the singular.
    pub kind: &'static str,
    /// The name in URLs.
    pub plural: &'static str,
}

pub(crate) const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
    }
}

/// `ModelRegistry`
pub const MODEL_REGISTRY: Kind = kind(
    "pointsman.dev",
    "v1alpha1",
    "ModelRegistry",
    "modelregistries",
);
/// `RegisteredModel`
pub const REGISTERED_MODEL: Kind = kind(
    "pointsman.dev",
    "v1alpha1",
    "RegisteredModel",
    "registeredmodels",
);
/// `AliasBinding`
pub const ALIAS_BINDING: Kind = kind("pointsman.dev", "v1alpha1", "AliasBinding", "aliasbindings");
/// `Deployment`
pub const DEPLOYMENT: Kind = kind("apps", "v1", "Deployment", "deployments");
/// `ReplicaSet`
pub const REPLICA_SET: Kind = kind("apps", "v1", "ReplicaSet", "replicasets");
/// `StatefulSet`
pub const STATEFUL_SET: Kind = kind("apps", "v1", "StatefulSet", "statefulsets");
/// `DaemonSet`
pub const DAEMON_SET: Kind = kind("apps", "v1", "DaemonSet", "daemonsets");
/// `Rollout`
pub const ROLLOUT: Kind = kind("argoproj.io", "v1alpha1", "Rollout", "rollouts");
/// `Pod`
pub const POD: Kind = kind("", "v1", "Pod", "pods");
/// `Secret`
pub const SECRET: Kind = kind("", "v1", "Secret", "secrets");
/// `ConfigMap`
pub const CONFIG_MAP: Kind = kind("", "v1", "ConfigMap", "configmaps");
/// `Event`
pub const EVENT: Kind = kind("", "v1", "Event", "events");
/// `Job`
pub const JOB: Kind = kind("batch", "v1", "Job", "jobs");
/// `CronJob`
pub const CRON_JOB: Kind = kind("batch", "v1", "CronJob", "cronjobs");
/// `Role`
pub const ROLE: Kind = kind("rbac.authorization.k8s.io", "v1", "Role", "roles");
/// KServe's `InferenceService`
pub const INFERENCE_SERVICE: Kind = kind(
    "serving.kserve.io",
    "v1beta1",
    "InferenceService",
    "inferenceservices",
);
/// KServe's `LLMInferenceService`
pub const LLM_INFERENCE_SERVICE: Kind = kind(
    "serving.kserve.io",
    "v1alpha1",
    "LLMInferenceService",
    "llminferenceservices",
);
/// `Lease`
pub const LEASE: Kind = kind("coordination.k8s.io", "v1", "Lease", "leases");

impl Kind {
    /// How kube addresses it.
    pub fn resource(&self) -> ApiResource {
        let api_version = if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        };
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version,
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    /// The objects of this kind in one namespace.
    pub fn api(&self, client: kube::Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client, namespace, &self.resource())
    }
}
