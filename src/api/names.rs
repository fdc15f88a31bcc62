//! The annotations, labels and names that Pointsman reads or writes.
//!
//! Absent: any name that is spelled a second time elsewhere.

/// The field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "pointsman";
/// Label on a driven Deployment and its pod template: the binding's name.
pub const BINDING_LABEL: &str = "pointsman.dev/binding";
/// Annotation on the pod template: the version that it holds.
pub const VERSION_ANNOTATION: &str = "pointsman.dev/model-version";
/// Annotation that Kubernetes shows in `kubectl rollout history`.
pub const CHANGE_CAUSE_ANNOTATION: &str = "kubernetes.io/change-cause";
/// Annotation on any of the three kinds: a new value means "look now".
pub const REQUESTED_AT_ANNOTATION: &str = "pointsman.dev/requested-at";
/// Annotation on an `AliasBinding`: a new value ends a hold that a person's own rollback began.
pub const RESUME_ANNOTATION: &str = "pointsman.dev/resume-requested-at";
/// Annotation on an `AliasBinding`: a new value has the versions tried again that are held back.
pub const RETRY_ANNOTATION: &str = "pointsman.dev/retry-requested-at";
/// Annotation that Kubernetes keeps on a Deployment and its ReplicaSets: equal ones belong together.
pub const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";
/// Annotation that `kubectl rollout restart` sets on a pod template.
pub const RESTARTED_AT_ANNOTATION: &str = "kubectl.kubernetes.io/restartedAt";
/// Finalizer on a `RegisteredModel` whose registered model goes with it.
pub const MODEL_FINALIZER: &str = "pointsman.dev/registered-model";
/// Finalizer on a `ModelRegistry` whose webhook goes with it.
pub const WEBHOOK_FINALIZER: &str = "pointsman.dev/webhook";
/// Annotation on the Lease: where the leader takes deliveries that other replicas heard.
pub const ADDRESS_ANNOTATION: &str = "pointsman.dev/address";

/// Environment variable: the registered model's name.
pub const MODEL_NAME: &str = "MODEL_NAME";
/// Environment variable: the version's number.
pub const MODEL_VERSION: &str = "MODEL_VERSION";
/// Environment variable: the alias or stage that the binding follows.
pub const MODEL_ALIAS: &str = "MODEL_ALIAS";
/// Environment variable: the resolved artifact URI.
pub const MODEL_URI: &str = "MODEL_URI";
/// Environment variable: the run that logged the model.
pub const MODEL_RUN_ID: &str = "MODEL_RUN_ID";
/// Environment variable: `models:/name/version`, for MLflow's own loaders.
pub const MLFLOW_MODEL_URI: &str = "MLFLOW_MODEL_URI";
/// Environment variable: the registry's address, set only where the user has not set it.
pub const MLFLOW_TRACKING_URI: &str = "MLFLOW_TRACKING_URI";
